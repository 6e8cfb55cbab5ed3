"""Logs with next to nothing in them, and everything that is asked of a log: shared by the tests of
small logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import polars as pl

import longplay as lp
from longplay.audits import audit
from longplay.codes.codebook import fit_codebook
from longplay.codes.vectors import behaviour_vectors, item_vectors, sequence_vectors
from longplay.decisions import ope_users
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.ope import diagnose
from longplay.rewards.calibration import calibration, compare
from longplay.signals.outcomes.future import future_of

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
SIGNALS = {
    "threshold": lp.Signal(
        "habit",
        entry=lp.discovery(novel_for=7),
        measure=lp.days_with("creator") >= 1,
        window=(1, 3),
    ),
    "days": lp.Signal(
        "days", entry=lp.discovery(novel_for=7), measure=lp.days_with("creator"), window=(1, 3)
    ),
    "minutes": lp.Signal("minutes", entry=lp.exposure(), measure=lp.minutes(), window=(0, 2)),
    "one day": lp.Signal("next", entry=lp.user_day(), measure=lp.returned(), window=(1, 1)),
    "per user": lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 3)),
}
PER_CREATOR = ("threshold", "days")
MODELS = (lp.ProgressiveReward, lp.AutoSurrogate, lp.DayTwo, lp.MaturedOnly, lp.TwoPartRidge)


@dataclass(frozen=True)
class Small:
    """What there is of each; `days` of log, `plays` per user and day at most, `shown`: whether
    slates were logged, `label` of the test."""

    users: int
    items: int
    creators: int
    days: int
    shown: bool
    learners: bool = True  # whether the first user is one whom models learn from

    def __str__(self) -> str:
        kind = "shown" if self.shown else "unshown"
        return f"{self.users}u-{self.items}i-{self.creators}c-{self.days}d-{kind}{'' if self.learners else '-heldout'}"


def names(count: int, learners: bool) -> list[str]:
    """So many users, in turn learners and held out, or the other way round."""
    pool = pl.Series([f"u{n}" for n in range(200)])
    out = ope_users(pool)
    pick = {
        True: pool.filter(pl.Series(out)).to_list(),
        False: pool.filter(pl.Series(~out)).to_list(),
    }
    return [pick[(n % 2 == 1) == learners][n // 2] for n in range(count)]


def lake_of(small: Small) -> Lake:
    """A play a day by every user, items in turn; where slates are logged, of one item each, drawn
    uniformly."""
    users, items = names(small.users, small.learners), [f"i{n}" for n in range(small.items)]
    creator = {
        item: f"c{n % small.creators}" if small.creators else None for n, item in enumerate(items)
    }
    plays, slates = [], []
    for day in range(small.days):
        for row, user in enumerate(users):
            time = START + day * DAY + row * timedelta(minutes=1)
            if items:
                item = items[(day + row) % len(items)]
                plays.append(
                    {
                        "event_id": f"{user}{day}",
                        "user_id": user,
                        "item_id": item,
                        "creator_id": creator[item],
                        "time": time,
                    }
                )
                key = {
                    "context_id": f"x{user}{day}",
                    "user_id": user,
                    "time": time - timedelta(minutes=2),
                    "surface": "home",
                }
                slates.append(key | {"slate": [item], "log_prob": [-float(np.log(len(items)))]})
    lake = Lake.memory()
    text = {
        "event_id": pl.String,
        "user_id": pl.String,
        "item_id": pl.String,
        "creator_id": pl.String,
        "time": pl.Datetime("us", "UTC"),
    }
    events = pl.DataFrame(plays, schema=text).with_columns(
        kind=pl.lit("play"), seconds=pl.lit(60.0)
    )
    origin = "recommended" if small.shown else "organic"
    events = events.with_columns(
        origin=pl.when(pl.int_range(pl.len()) % 2 == 0)
        .then(pl.lit(origin))
        .otherwise(pl.lit("organic"))
    )
    catalogue = pl.DataFrame(
        {"item_id": items, "creator_id": list(creator.values())},
        schema={"item_id": pl.String, "creator_id": pl.String},
    )
    batch: dict[str, Any] = {
        "events": events,
        "items": catalogue.with_columns(
            added_at=pl.lit(START - DAY), title="the title of " + pl.col("item_id")
        ),
    }
    if small.shown and slates:
        decisions = pl.DataFrame(slates)
        nothing = pl.lit([], dtype=pl.List(pl.String))
        contexts = decisions.drop("slate", "log_prob").with_columns(
            slots=1, exclusions=nothing, history=nothing, history_until=pl.col("time")
        )
        batch |= {
            "contexts": contexts,
            "decisions": decisions.with_columns(
                decision_id="d" + pl.col("context_id"), policy=pl.lit("p@1")
            ),
        }
    lake.append("all", **batch, watermark=START + small.days * DAY)
    return lake


def questions(lake: Lake) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that is asked of a log without training a network: what it is, and a function that
    answers."""
    end = lake.watermark
    outcomes_of = cache(lambda signal: signal.outcomes(lake))
    index = ItemIndex(lake.items["item_id"])
    for name, vectors in {
        "behaviour": behaviour_vectors,
        "sequence": sequence_vectors,
        "item": item_vectors,
    }.items():
        yield f"vectors: {name}", partial(vectors, lake, index)
    yield "codes", lambda: fit_codebook(index.ids, item_vectors(lake, index)).codes
    yield "uniform", lambda: decided(lp.Uniform(slate=1), lake)
    yield "popular", lambda: decided(lp.Popular(slate=1), lake)
    yield "contexts", lambda: len(lp.contexts_from_log(lake, slots=1, history=3))
    for name, signal in SIGNALS.items():
        yield f"{name}: base rate", lambda signal=signal: outcomes_of(signal).base_rate()
        yield f"{name}: maturity", lambda signal=signal: outcomes_of(signal).maturity_curve()
        if lake.decisions.height:
            yield from off_policy(name, signal, lake, outcomes_of)
        for model in MODELS:
            yield (
                f"{name}: {model.name}: fit",
                lambda signal=signal, model=model: beliefs(
                    model(signal), outcomes_of(signal), lake
                ),
            )
            yield (
                f"{name}: {model.name}: calibration",
                lambda signal=signal, model=model: calibration(
                    model(signal), lake, outcomes_of(signal), 1
                ),
            )
        yield (
            f"{name}: compare",
            lambda signal=signal: compare(
                {"m": lp.MaturedOnly(signal)},
                outcomes_of(signal),
                outcomes_of(signal),
                1,
                min_entries=1,
            ),
        )
    for name in PER_CREATOR:
        ranked = partial(ranking, SIGNALS[name], lake, end)
        yield f"{name}: ranking", ranked
    for name in SIGNALS:
        yield f"{name}: experiment", partial(analysed, lake, SIGNALS[name])
    yield "audit", partial(audited, lake)


def off_policy(
    name: str, signal: lp.Signal, lake: Lake, outcomes_of: Callable[[lp.Signal], lp.Outcomes]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    def shown() -> Any:
        return outcomes_of(signal).on(lake.decisions)

    uniform = lp.Uniform(slate=1).fit(lake)
    yield f"{name}: shown", lambda: shown().frame
    yield f"{name}: diagnosis", lambda: str(diagnose(uniform, lake, shown()))
    for estimator in (lp.ips, lp.snips, lp.doubly_robust):
        yield (
            f"{name}: {estimator.__name__}",
            partial(lambda estimator: estimator(uniform, lake, shown()), estimator),
        )
    yield f"{name}: outcome model", lambda: modelled(signal, lake, shown())


def modelled(signal: lp.Signal, lake: Lake, shown: Any) -> Any:
    """The outcome model itself, which gates would keep from small logs."""
    from longplay.ope.logged import logged_slots
    from longplay.ope.outcome_model import fit_outcome_model

    logged = logged_slots(lake, shown, "home")
    return fit_outcome_model(lake, signal, logged).predict(logged.items)


def decided(policy: Any, lake: Lake) -> Any:
    policy = policy.fit(lake)
    contexts = lp.Contexts.of(["u", "v"], START, slots=1)
    return policy.decide(contexts, np.random.default_rng(0)).log_prob


def beliefs(early: Any, outcomes: lp.Outcomes, lake: Lake) -> Any:
    """Beliefs about everything, and the value of showing."""
    fitted = early.fit(lake, outcomes)
    answers = [fitted.items(pl.Series(["c0", "i0", "nobody"])).lower(1.0)]
    answers += [fitted.belief(outcomes, age).mean for age in (0, 1, 3)]
    answers += [
        fitted.observe(outcomes.where(np.zeros(len(outcomes), dtype=bool)))
        .items(pl.Series(["c0"]))
        .std
    ]
    if early.signal.entry.of is not None:
        contexts = lp.Contexts.of(["u0", "new"], lake.watermark, slots=1)
        answers.append(
            fitted.value(contexts, pl.Series([["i0"], ["never seen"]]), lake).lower(1.0).ravel()
        )
    return np.concatenate(answers)


def ranking(signal: lp.Signal, lake: Lake, end: datetime) -> Any:
    future = future_of(
        signal.outcomes(lake), lake, start=START, end=end - 4 * DAY, history=3, slots=1
    )
    top = lp.top_items(lp.Popular(slate=1).fit(lake), future.contexts, 3)
    return lp.rank_metrics(top, future, depths=(1, 3))


def trial_of(lake: Lake) -> tuple[lp.Experiment, Lake]:
    """The same log as an experiment's: every slate belongs to its user's arm."""
    trial = lp.Experiment(
        control=lp.Uniform(slate=1), treatment=lp.Popular(slate=1), salt="s", entry_days=1
    )
    arms = [trial.arm_names[arm] for arm in trial.assign(lake.decisions["user_id"])]
    decisions = lake.decisions.with_columns(
        experiment=pl.lit("s"), arm=pl.Series(arms, dtype=pl.String), arm_prob=pl.lit(0.5)
    )
    other = Lake.memory()
    other.append(
        "all", events=lake.events, items=lake.items, decisions=decisions, watermark=lake.watermark
    )
    return trial, other


def analysed(lake: Lake, signal: lp.Signal) -> Any:
    trial, other = trial_of(lake)
    return str(trial.analyze(other, signal))


def audited(lake: Lake) -> Any:
    trial, other = trial_of(lake)
    signal = replace(SIGNALS["threshold"])
    early = lp.MaturedOnly(signal).fit(other, signal.outcomes(other))
    return str(audit(early, trial, other, north_star=SIGNALS["per user"], age=1))
