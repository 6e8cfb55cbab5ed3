"""Experiments: assign users to policies, compare their outcomes, and decide."""

from longplay.experiments.experiment import Experiment
from longplay.experiments.power import Plan, detectable, plan, users_needed
from longplay.experiments.readout import Effect, Line, Readout, ShipDecision

__all__ = [
    "ShipDecision",
    "Effect",
    "Experiment",
    "Line",
    "Plan",
    "Readout",
    "detectable",
    "plan",
    "users_needed",
]
