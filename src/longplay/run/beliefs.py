"""The stages about what we hope for and what we believe early: outcomes and early rewards."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from longplay.errors import NotEstimable
from longplay.lake import Lake
from longplay.rewards import (
    AutoSurrogate,
    DayTwo,
    EarlyReward,
    MaturedOnly,
    ProgressiveReward,
    Reward,
)
from longplay.rewards.calibration import calibration, compare
from longplay.rewards.guardrails import policy_metric
from longplay.run.config import RunConfig
from longplay.run.engine import Work, plain
from longplay.run.log import lake_of, past_of
from longplay.signals import Outcomes, Signal
from longplay.signals.outcomes.future import matured_entries

MODELS: dict[str, type] = {
    "progressive": ProgressiveReward,
    "auto_surrogate": AutoSurrogate,
    "day_two": DayTwo,
    "matured_only": MaturedOnly,
}


def outcomes(work: Work) -> dict[str, Any]:
    """Every declared signal over the whole log, and what was known of it when training ends."""
    lake, signals = lake_of(work), work.config.declared()
    result = {}
    for done, (name, signal) in enumerate(signals.items()):
        work.ui.progress("signals", done, len(signals))
        outcomes = signal.outcomes(lake)
        known = signal.outcomes(past_of(work))
        if (
            name in work.config.reward.objectives and signal.entry.is_discovery
        ):  # better refused now than after training
            matured_entries(outcomes, work.config.split.trained, work.config.split.evaluated)
        outcomes.frame.write_parquet(work.folder / f"{name}.parquet")
        result[name] = {
            "label": signal.label,
            "sentence": str(signal),
            "unit": signal.entry.unit,
            "binary": signal.binary,
            "days": signal.days,
            "toml": signal.to_toml(),
            "as_of": outcomes.as_of.isoformat(),
            "entries": len(outcomes),
            "mature": int(outcomes.mature.sum()),
            "truncated": outcomes.truncated,
            "base_rate": _rate(outcomes),
            "maturity": outcomes.maturity_curve().to_dicts(),
            "at_training": {
                "as_of": known.as_of.isoformat(),
                "entries": len(known),
                "mature": int(known.mature.sum()),
                "truncated": known.truncated,
                "base_rate": _rate(known),
            },
        }
    work.ui.progress("signals", len(signals), len(signals))
    return result


def _rate(outcomes: Outcomes) -> dict[str, Any] | None:
    """The base rate, truncated entries left out; null where no certain entry has a value yet."""
    return (
        plain(outcomes.base_rate())
        if outcomes.certain().frame["value"].is_not_null().any()
        else None
    )


def objectives_of(config: RunConfig) -> dict[str, Signal]:
    """The signals that pay, in the order of the file."""
    signals = config.declared()
    return {name: signals[name] for name in config.reward.objectives}


def early_of(work: Work, past: Lake) -> dict[Signal, EarlyReward]:
    """The configured early reward of each signal that some reward pays for or guards, fitted on
    what was known when training ends."""
    model, declared = MODELS[work.config.reward.model], work.config.declared()
    guarded = [declared[name] for name in work.config.reward.guardrails if name in declared]
    return {
        signal: model(signal).fit(past, signal.outcomes(past))
        for signal in dict.fromkeys([*paid_signals(work.config), *guarded])
    }


def paid_signals(config: RunConfig) -> list[Signal]:
    """Every signal that some reward pays for, once."""
    signals = config.declared()
    return [
        signals[name]
        for name in dict.fromkeys(
            name for weights in rewards_of(config).values() for name in weights
        )
    ]


def rewards_of(config: RunConfig) -> dict[str, dict[str, float]]:
    """Weights by signal of every reward: the configuration's own, called `reinforced` after its
    policy, and its rivals."""
    return {"reinforced": config.reward.objectives, **config.reward.rivals}


def reward_of(config: RunConfig, policy: str = "reinforced") -> Reward:
    """The reward that `policy` is reinforced on; the guardrails are those of every one."""
    signals = config.declared()
    guardrails = {
        policy_metric(name) or signals[name]: bound
        for name, bound in config.reward.guardrails.items()
    }
    return Reward(
        {signals[name]: weight for name, weight in rewards_of(config)[policy].items()},
        guardrails,
        config.reward.caution,
    )


def reward(work: Work) -> dict[str, Any]:
    """Early rewards fitted on what is mature, judged on what matured later, and their
    calibration."""
    lake, past, config = lake_of(work), past_of(work), work.config
    age, result = config.reward.age, {}
    objectives = objectives_of(config)
    total, done = len(objectives) * (2 * len(MODELS) + 1), 0
    for name, signal in objectives.items():
        known = signal.outcomes(past)
        everything = signal.outcomes(lake)
        later = everything.entered(config.split.trained, config.split.evaluated)
        models = {}
        for label, model in MODELS.items():
            models[label] = model(signal).fit(past, known)
            work.ui.progress("early rewards", done := done + 1, total)
        try:
            judged = _finite(compare(models, known, later.where(later.known), age).to_dicts())
        except NotEstimable:  # no entry falls between the two days of the split
            judged = []
        work.ui.progress("early rewards", done := done + 1, total)
        checked = {}
        for label, model in MODELS.items():
            try:
                checked[label] = calibration(
                    model(signal), lake, everything, age, seed=config.run.seed
                ).as_json()
            except NotEstimable as reason:
                checked[label] = {"not_estimable": str(reason)}
            work.ui.progress("early rewards", done := done + 1, total)
        chosen: EarlyReward = models[config.reward.model]
        result[name] = {
            "label": signal.label,
            "chosen": config.reward.model,
            "age": age,
            "known": {"entries": len(known), "mature": int(known.mature.sum())},
            "later": {"entries": len(later), "mature": int(later.mature.sum())},
            "learnt": str(models[config.reward.model].learnt),
            "association": chosen.association,
            "comparison": judged,
            "calibration": checked,
            "beliefs": _extremes(chosen, past, known),
        }
    return result


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with null for what is not finite: one user alone has no standard error."""
    return [
        {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def _extremes(early: EarlyReward, past: Lake, known: Outcomes, n: int = 8) -> list[dict[str, Any]]:
    """The items (or creators) believed in most and least among those with at least 30 entries."""
    counts = (
        known.keys.value_counts(name="entries")
        .rename({known.keys.name: "key"})
        .filter(pl.col("entries") >= 30)
        .sort("key")
    )
    if (
        known.signal.entry.of == "item"
    ):  # what is never recommended (fees, vouchers) is not worth a look
        counts = counts.filter(
            pl.col("key").is_in(past.items.filter(pl.col("available"))["item_id"].implode())
        )
    if counts.is_empty():
        return []
    belief = early.items(counts["key"])
    titles = (
        past.items.select(pl.col("item_id").alias("key"), "title")
        if known.signal.entry.of == "item"
        else None
    )
    table = counts.with_columns(pl.Series("mean", belief.mean), pl.Series("std", belief.std)).sort(
        "mean", "key", descending=[True, False]
    )
    table = (
        table.with_columns(title=pl.col("key"))
        if titles is None
        else table.join(titles, on="key", how="left", maintain_order="left")
    )
    return table.head(n).to_dicts() + (table.tail(n).to_dicts() if table.height >= 2 * n else [])
