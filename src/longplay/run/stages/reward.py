"""Stage `reward`: fit early rewards, compare them, and check their calibration."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import polars as pl
from pydantic import Field

from longplay.errors import NotEstimable
from longplay.lake import Lake
from longplay.names import file_name, hint
from longplay.results import NotEstimable as Refused
from longplay.results.reward_figures import (
    CalibrationFigures,
    EarlyRewardFigures,
    EntryCounts,
    ItemBelief,
    ModelScore,
    RewardResult,
)
from longplay.run.engine import LOG_STAGES, Stage, Work, depends_on
from longplay.run.tables import Configuration, Positive, Table
from longplay.run_policies import MAIN, run_policy_names
from longplay.signals import Outcomes, Signal

if TYPE_CHECKING:
    from longplay.rewards import EarlyReward, Reward

# of any model
BASELINES = ("progressive", "auto_surrogate", "day_two", "matured_only", "ridge")
# guardrails that are figures of a policy: `rewards.guardrails.policy_metric` reads them
FIGURE = re.compile(r"coverage(@[1-9][0-9]*)?|top_creator")


class RewardTable(Table):
    """Weights of the signals in the reward, guardrails, and caution."""

    objectives: dict[str, float]
    guardrails: dict[
        str, float
        # coverage, coverage@k, top_creator or a signal = share of the start's that every reinforced
        # policy keeps
    ] = {}
    rivals: dict[
        str, dict[str, float]
    ] = {}  # name = { signal = weight }: other rewards that the same start is reinforced on
    model: Literal[
        "progressive", "personal", "sequence", "auto_surrogate", "day_two", "matured_only", "ridge"
    ] = "personal"
    caution: Annotated[float, Field(ge=0)] = 1.0
    age: Positive = 14  # days of an entry's window at which early beliefs are judged


def models_by_name() -> dict[str, type]:
    """The models of early rewards, by their names in run.toml."""
    from longplay.rewards import (
        AutoSurrogate,
        DayTwo,
        MaturedOnly,
        PersonalReward,
        ProgressiveReward,
        SequenceReward,
        TwoPartRidge,
    )

    return {
        "progressive": ProgressiveReward,
        "personal": PersonalReward,
        "sequence": SequenceReward,
        "auto_surrogate": AutoSurrogate,
        "day_two": DayTwo,
        "matured_only": MaturedOnly,
        "ridge": TwoPartRidge,
    }


def compared_models(chosen: str) -> dict[str, type]:
    """The models that a run compares: the chosen one and the baselines. The personal one and the sequence
    model take longer to fit than the others together, so they are compared only where chosen."""
    models = models_by_name()
    return {name: models[name] for name in models if name in (chosen, *BASELINES)}


def run(work: Work) -> RewardResult:
    """Fit early rewards on mature outcomes, judge them on later ones, and check their
    calibration."""
    from longplay.rewards.calibration import calibration, compare
    from longplay.rewards.showing_check import check_showing
    from longplay.rewards.value_check import check_values

    lake = work.lake
    config = work.config
    age = config.of(RewardTable).age
    figures: dict[str, EarlyRewardFigures] = {}
    objectives = objectives_of(config)
    compared = compared_models(config.of(RewardTable).model)
    total = len(objectives) * (2 * len(compared) + 1)
    done = 0
    for name, signal in objectives.items():
        past, past_outcomes = _known(work, signal)
        everything = signal.outcomes(lake)
        later = everything.entered(config.split.trained, config.split.evaluated)
        models = {}
        for label, model in compared.items():
            is_chosen = label == config.of(RewardTable).model
            models[label] = (
                _early(work, signal) if is_chosen else model(signal).fit(past, past_outcomes)
            )
            work.ui.progress("early rewards", done := done + 1, total)
        try:
            judged = _scores(compare(models, past_outcomes, later.where(later.known), age))
        except NotEstimable:  # no entry falls between the two days of the split
            judged = ()
        work.ui.progress("early rewards", done := done + 1, total)
        checked: dict[str, CalibrationFigures | Refused] = {}
        for label, model in compared.items():
            try:
                judged_later = calibration(
                    model(signal), lake, everything, age, seed=config.run.seed
                )
                checked[label] = judged_later.figures()
            except NotEstimable as reason:
                checked[label] = Refused(str(reason))
            work.ui.progress("early rewards", done := done + 1, total)
        chosen = models[config.of(RewardTable).model]
        figures[name] = EarlyRewardFigures(
            label=signal.label,
            chosen=config.of(RewardTable).model,
            age=age,
            known=EntryCounts(len(past_outcomes), int(past_outcomes.mature.sum())),
            later=EntryCounts(len(later), int(later.mature.sum())),
            learnt=str(chosen.learnt),
            association=chosen.association,
            comparison=judged,
            calibration=checked,
            beliefs=_extremes(chosen, past, past_outcomes),
            showing=check_showing(chosen, past),
            values=check_values(models, config.of(RewardTable).model, past, everything),
        )
    return RewardResult(figures)


def _scores(comparison: pl.DataFrame) -> tuple[ModelScore, ...]:
    """Rows of `compare`; figures that are not finite become null, as the standard error of a single
    user."""
    finite = comparison.with_columns(
        pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
    )
    return tuple(ModelScore(**row) for row in finite.to_dicts())


def _extremes(
    early: EarlyReward, past: Lake, outcomes: Outcomes, n: int = 8
) -> tuple[ItemBelief, ...]:
    """The items (or creators) believed in most and least among those with at least 30 entries."""
    counts = (
        outcomes.keys.value_counts(name="entries")
        .rename({outcomes.keys.name: "key"})
        .filter(pl.col("entries") >= 30)
        .sort("key")
    )
    if (
        outcomes.signal.entry.of == "item"
    ):  # what is never recommended (fees, vouchers) is not worth a look
        counts = counts.filter(
            pl.col("key").is_in(past.items.filter(pl.col("available"))["item_id"].implode())
        )
    if counts.is_empty():
        return ()
    belief = early.items(counts["key"])
    table = counts.with_columns(pl.Series("mean", belief.mean), pl.Series("std", belief.std)).sort(
        "mean", "key", descending=[True, False]
    )
    if outcomes.signal.entry.of == "item":
        titles = past.items.select(pl.col("item_id").alias("key"), "title")
        table = table.join(titles, on="key", how="left", maintain_order="left")
    else:
        table = table.with_columns(title=pl.col("key"))
    rows = table.head(n).to_dicts() + (table.tail(n).to_dicts() if table.height >= 2 * n else [])
    return tuple(ItemBelief(**row) for row in rows)


def objectives_of(config: Configuration) -> dict[str, Signal]:
    """The signals that the reward pays for, in the order of the file."""
    signals = config.declared()
    return {name: signals[name] for name in config.of(RewardTable).objectives}


def early_of(work: Work) -> dict[Signal, EarlyReward]:
    """The early reward of each signal that a reward pays for or guards, fitted on what was known
    when training ended."""
    declared = work.config.declared()
    guarded = [
        declared[name] for name in work.config.of(RewardTable).guardrails if name in declared
    ]
    return {
        signal: _early(work, signal)
        for signal in dict.fromkeys([*paid_signals(work.config), *guarded])
    }


def _early(work: Work, signal: Signal) -> EarlyReward:
    """The run's early reward of a signal, fitted once per process."""
    name = work.config.of(RewardTable).model

    def fit() -> EarlyReward:
        past, outcomes = _known(work, signal)
        return models_by_name()[name](signal).fit(past, outcomes)

    return work.memory.once(("early", name, *_known_by(work, signal)), fit)


def _known(work: Work, signal: Signal) -> tuple[Lake, Outcomes]:
    """The log as it was known when training ended, and the signal's outcomes in it; read once per
    process."""

    def read() -> tuple[Lake, Outcomes]:
        past = work.past
        return past, signal.outcomes(past)

    return work.memory.once(("known", *_known_by(work, signal)), read)


def _known_by(work: Work, signal: Signal) -> tuple[Hashable, ...]:
    log = tuple(work.places[stage] for stage in LOG_STAGES if stage in work.places)
    return signal.label, log, work.config.split.trained


def paid_signals(config: Configuration) -> list[Signal]:
    """The signals that any reward pays for, each once."""
    signals = config.declared()
    return [
        signals[name]
        for name in dict.fromkeys(
            name for weights in rewards_of(config).values() for name in weights
        )
    ]


def rewards_of(config: Configuration) -> dict[str, dict[str, float]]:
    """Weights by signal of every reward: the configuration's own, called `reinforced` after its
    policy, and its rivals."""
    return {MAIN: config.of(RewardTable).objectives, **config.of(RewardTable).rivals}


def reward_of(config: Configuration, policy: str = MAIN) -> Reward:
    """The reward that `policy` is reinforced on; guardrails are the same for all policies."""
    from longplay.rewards import Reward
    from longplay.rewards.guardrails import policy_metric

    signals = config.declared()
    guardrails = {
        policy_metric(name) or signals[name]: bound
        for name, bound in config.of(RewardTable).guardrails.items()
    }
    return Reward(
        {signals[name]: weight for name, weight in rewards_of(config)[policy].items()},
        guardrails,
        config.of(RewardTable).caution,
    )


def _check(config: Configuration) -> None:
    """Check that signals of the reward are declared, bounds are shares, and names of rivals are
    free."""
    table = config.of(RewardTable)
    used = [(f"reward.objectives.{name}", name) for name in table.objectives]
    used += [
        (f"reward.rivals.{rival}.{name}", name)
        for rival, weights in table.rivals.items()
        for name in weights
    ]
    for name, bound in table.guardrails.items():
        path = f"reward.guardrails.{name}"
        figure = FIGURE.fullmatch(name) is not None
        if not figure and name not in config.signals:
            allowed_names = ("coverage", "coverage@5", "top_creator", *config.signals)
            raise ValueError(
                f"{path}: no [signals.{name}] is declared; expected one of "
                f"{', '.join(allowed_names)}{hint(name, allowed_names)}"
            )
        if figure and name in config.signals:
            raise ValueError(
                f"{path}: [signals.{name}] has the name of a figure of the policy; give the "
                "signal another"
            )
        if not 0 < bound <= 1:
            raise ValueError(
                f"{path}: {bound:g} given, expected a share of the start's value in (0, 1]"
            )
    check_declared(config, used)
    for rival in table.rivals:
        file_name(rival, "reward.rivals")
        if rival in run_policy_names():
            raise ValueError(f"reward.rivals.{rival}: the name is taken; give the rival another")


def check_declared(config: Configuration, used: Iterable[tuple[str, str]]) -> None:
    """Raise where a signal that run.toml names is not declared in it.

    Args:
        config: the run.
        used: path in run.toml, and the name of a signal that stands there.

    Raises:
        ValueError: with the path, and the declared name that is close.
    """
    for path, name in used:
        if name not in config.signals:
            raise ValueError(f"{path}: no [signals.{name}] is declared{hint(name, config.signals)}")


def _line(result: RewardResult) -> str:
    return "; ".join(
        f"{early.label}: {early.chosen} on {early.known.mature:,} mature of "
        f"{early.known.entries:,} entries"
        for early in result.signals.values()
    )


STAGE = Stage(
    name="reward",
    order=40,
    version=5,
    help="Fit early rewards on what is mature, judge them on what matured later, check "
    "calibration.",
    table=RewardTable,
    presence="required",
    check=_check,
    needs=("ingest", "simulate", "outcomes"),
    depends=depends_on("signals", "split", "reward"),
    run=run,
    line=_line,
    libraries=("scikit-learn",),
    loads=(
        "longplay.rewards.calibration",
        "longplay.rewards.guardrails",
        "longplay.rewards.showing_check",
        "longplay.rewards.value_check",
    ),
)
