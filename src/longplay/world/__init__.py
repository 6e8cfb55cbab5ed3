"""A simulated service with a known long-term truth: the tests, the docs and the demo run on it."""

from longplay.world.catalogue import START, Catalogue
from longplay.world.checking.simulator_check import check_simulator
from longplay.world.checking.simulator_report import RuleResult, SimulatorReport
from longplay.world.listeners import Listeners, State
from longplay.world.parameters import WORLDS, WorldConfig
from longplay.world.simulator import Forkable, Simulator
from longplay.world.truth.paired import PairedTruth, paired_truth
from longplay.world.world import World

__all__ = [
    "START",
    "WORLDS",
    "Catalogue",
    "Forkable",
    "Listeners",
    "PairedTruth",
    "RuleResult",
    "Simulator",
    "SimulatorReport",
    "State",
    "World",
    "WorldConfig",
    "check_simulator",
    "paired_truth",
]
