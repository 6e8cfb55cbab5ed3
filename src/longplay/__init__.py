"""longplay: the open reward platform for recommenders that are language models.

The public door, in the order in which things flow: a lake of events, signals declared as code,
early beliefs about outcomes that have not matured, policies, reinforcement, ranking, runs.
Nothing heavy is imported until a name is used; `import longplay` imports no torch.

>>> import longplay as lp
>>> habit = lp.Signal("habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28))
>>> habit.binary, habit.days
(True, 28)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longplay.attribution.credits import compare_rules, credit
    from longplay.attribution.unexposed import shown_unasked, unexposed_baseline
    from longplay.audits import audit
    from longplay.belief import Belief, Calibration
    from longplay.decisions import Contexts, Decisions, Policy, contexts_from_log
    from longplay.errors import ConfigError, DataError, LongplayError, MissingExtra, NotEstimable
    from longplay.estimate import Estimate
    from longplay.experiments import Experiment
    from longplay.experiments.holdout import against_holdout
    from longplay.lake import Lake
    from longplay.learning.classification import weighted_classification
    from longplay.learning.off_policy import off_policy_gradient
    from longplay.learning.preferences import preference_pairs
    from longplay.learning.reinforce import reinforce
    from longplay.learning.reward_weighted import reward_weighted
    from longplay.learning.tilt import tilt
    from longplay.ope import doubly_robust, ips, snips
    from longplay.policies.generative_policy import Generative
    from longplay.policies.page import Page
    from longplay.policies.simple import Popular, Uniform
    from longplay.ranking import rank_metrics, top_items
    from longplay.rewards import (
        AutoSurrogate,
        DayTwo,
        EarlyReward,
        MaturedOnly,
        PersonalReward,
        ProgressiveReward,
        Reward,
        SequenceReward,
        TwoPartRidge,
    )
    from longplay.rewards.guardrails import coverage, top_creator
    from longplay.run import load_config, run_stages
    from longplay.signals import (
        Outcomes,
        Signal,
        active_days,
        active_weeks,
        amount,
        days_with,
        discovery,
        distinct,
        enrolment,
        exposure,
        minutes,
        plays,
        ready,
        returned,
        user_day,
    )
    from longplay.signals.engine.spark import SparkEngine
    from longplay.signals.outcomes.future import future_of
    from longplay.signals.outcomes.in_files import write_outcomes
    from longplay.signals.outcomes.version_diff import Diff, diff
    from longplay.signals.store.signal_store import SignalStore
    from longplay.world import World

_WHERE = {
    # what happened
    "Lake": "lake",
    "World": "world",
    # what we hope for
    "Signal": "signals",
    "Outcomes": "signals",
    "discovery": "signals",
    "exposure": "signals",
    "user_day": "signals",
    "enrolment": "signals",
    "event": "signals",
    "active_days": "signals",
    "active_weeks": "signals",
    "amount": "signals",
    "returned": "signals",
    "days_with": "signals",
    "minutes": "signals",
    "plays": "signals",
    "saves": "signals",
    "skips": "signals",
    "count": "signals",
    "sessions": "signals",
    "completion": "signals",
    "cancelled": "signals",
    "time_to_return": "signals",
    "habits": "signals",
    "distinct": "signals",
    "write_outcomes": "signals.outcomes.in_files",
    "SparkEngine": "signals.engine.spark",
    "SignalStore": "signals.store.signal_store",
    "ready": "signals",
    "Diff": "signals.outcomes.version_diff",
    "diff": "signals.outcomes.version_diff",
    "credit": "attribution.credits",
    "shown_unasked": "attribution.unexposed",
    "unexposed_baseline": "attribution.unexposed",
    "compare_rules": "attribution.credits",
    # what we believe early
    "Belief": "belief",
    "Calibration": "belief",
    "EarlyReward": "rewards",
    "PersonalReward": "rewards",
    "ProgressiveReward": "rewards",
    "SequenceReward": "rewards",
    "AutoSurrogate": "rewards",
    "DayTwo": "rewards",
    "MaturedOnly": "rewards",
    "TwoPartRidge": "rewards",
    "Reward": "rewards",
    "coverage": "rewards.guardrails",
    "top_creator": "rewards.guardrails",
    # who recommends
    "Contexts": "decisions",
    "Decisions": "decisions",
    "Policy": "decisions",
    "contexts_from_log": "decisions",
    "Uniform": "policies.simple",
    "Popular": "policies.simple",
    "Page": "policies.page",
    "Generative": "policies.generative_policy",
    # how it improves
    "reinforce": "learning.reinforce",
    "tilt": "learning.tilt",
    "reward_weighted": "learning.reward_weighted",
    "off_policy_gradient": "learning.off_policy",
    "weighted_classification": "learning.classification",
    "preference_pairs": "learning.preferences",
    # how good it is
    "Estimate": "estimate",
    "future_of": "signals.outcomes.future",
    "rank_metrics": "ranking",
    "top_items": "ranking",
    # what would have happened, what did happen, and was it true
    "ips": "ope",
    "snips": "ope",
    "doubly_robust": "ope",
    "Experiment": "experiments",
    "against_holdout": "experiments.holdout",
    "audit": "audits",
    # the whole loop
    "load_config": "run",
    "run_stages": "run",
    # what can go wrong
    "LongplayError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "NotEstimable": "errors",
    "MissingExtra": "errors",
}

__version__ = "0.1.0"
__all__ = [*_WHERE, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        from difflib import get_close_matches

        close = get_close_matches(name, [] if name.startswith("_") else _WHERE, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise AttributeError(f"module 'longplay' has no attribute {name!r}{hint}")
    try:
        value = getattr(import_module(f"longplay.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "transformers", "safetensors"):
            from longplay.errors import MissingExtra

            raise MissingExtra(
                f"longplay.{name} needs {error.name}: pip install 'longplay[llm]'"
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
