"""Are early beliefs calibrated on unseen creators at every age, and how soon do they rank them?

Parts "calibration" and "ranks" of `bench/rewards.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from remembered import remembered
from reward_truth import true_chance, true_worth
from scipy import stats

import longplay as lp
from longplay.chance import keyed_uniform
from longplay.decisions import Contexts
from longplay.errors import NotEstimable
from longplay.intervals import wilson
from longplay.lake.adapters.retail import read_retail
from longplay.rewards import calibration
from longplay.world import World, WorldConfig
from longplay.world.parameters import named_world

Float = NDArray[np.float64]
Row = dict[str, Any]

RETAIL = (
    Path(__file__).resolve().parents[2]
    / "shared"
    / "data"
    / "online_retail"
    / "online_retail.parquet"
)
HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28)
)
RETAIL_HABIT = lp.Signal(
    "habit",
    entry=lp.discovery(novel_for=None, of="item"),
    measure=lp.days_with("item") >= 2,
    window=(1, 120),
)
AGES = (0, 1, 3, 7, 14)
CALIBRATED = {"progressive": lp.ProgressiveReward, "personal": lp.PersonalReward}
RANKED = CALIBRATED | {
    "auto-surrogate": lp.AutoSurrogate,
    "day two": lp.DayTwo,
    "matured only": lp.MaturedOnly,
    "two-part ridge": lp.TwoPartRidge,
}
LEVELS = (0.5, 0.8, 0.95)
UNSEEN = 0.5  # share of the creators that the priors do not learn from
AUDIENCE = 400  # users that a value of showing is averaged over
DRAWS = 500  # of the bootstrap over creators


@cache
def logged(world: str, users: int, items: int, days: int, seed: int) -> tuple[World, lp.Lake]:
    """A world and its log under popularity, in which nothing is known but the log."""
    service = World(users, items, seed, WorldConfig.of(dict(named_world(world).numbers)))
    lake = service.run(lp.Popular(slate=5, explore=0.1), days=days, progress=False)
    return service, lake


# -- calibration -----------------------------------------------------------------------------------


@remembered(version=1)
def calibrations(
    *, log: str, seed: int, model: str, users: int, items: int, days: int
) -> list[Row]:
    """Calibration of a model at every age: of a world's log, or the first `users` customers of the shop
    (0: all)."""
    signal, lake = HABIT, None
    if log == "retail":
        signal = RETAIL_HABIT
        outcomes = signal.outcomes(_retail(users))
    else:
        _, lake = logged(log, users, items, days, seed)
        outcomes = signal.outcomes(lake)
    rows: list[Row] = []
    for age in (*AGES, signal.days - 1):
        try:
            checked = calibration(
                CALIBRATED[model](signal), lake, outcomes, age, seed=seed, progress=False
            )
        except NotEstimable as reason:
            rows.append({"age": age, "refused": str(reason)})
            continue
        bins = checked.reliability
        error_B = (bins["predicted"] - bins["realised"]).abs()
        rows.append(
            {
                "age": age,
                "groups": checked.groups,
                "min_entries": checked.min_entries,
                "coverage": {f"{level:g}": checked.coverage[level] for level in LEVELS},
                "ks": float(stats.kstest(checked.pit, "uniform").statistic),
                "error": float((error_B * bins["n"]).sum() / bins["n"].sum()),
                "rate": float((bins["realised"] * bins["n"]).sum() / bins["n"].sum()),
                "std": checked.sharpness,
                "prior_std": checked.prior_sharpness,
                "mae": checked.mae,
                "prior_mae": checked.prior_mae,
            }
        )
    return rows


@cache
def _retail(users: int) -> lp.Lake:
    source = read_retail(RETAIL)
    events = source.events
    if users:
        first = events["user_id"].unique().sort().head(users)
        events = events.filter(pl.col("user_id").is_in(first.implode()))
    lake = lp.Lake.memory()
    lake.append("retail", events=events, items=source.items, watermark=events["time"].max())
    return lake


def calibration_rows(sizes: Mapping[str, Mapping[str, int]], seeds: int) -> list[Row]:
    """Rows of every log, model and age; coverage is pooled over seeds."""
    rows: list[Row] = []
    for log, size in sizes.items():
        if log == "retail" and not RETAIL.exists():
            print(f"{RETAIL} is not there: its rows are left out")
            continue
        of_seeds = 1 if log == "retail" else seeds
        command = f"python bench/rewards.py --parts calibration --worlds {log} --seeds {of_seeds}"
        for model in CALIBRATED:
            runs = [
                calibrations(log=log, seed=7 + seed, model=model, **size)
                for seed in range(of_seeds)
            ]
            for by_seed in zip(*runs, strict=True):
                judged = [run for run in by_seed if "refused" not in run]
                rows += _calibration_rows(log, model, by_seed[0]["age"], judged, command)
    return rows


def _calibration_rows(log: str, model: str, age: int, judged: list[Row], command: str) -> list[Row]:
    """Rows of one model at one age; none where no seed could be judged. Shares and means are over keys,
    so seeds weigh as many as they have."""
    if not judged:
        return []
    count_S = np.array([run["groups"] for run in judged], dtype=float)
    keys = int(count_S.sum())
    least = min(run["min_entries"] for run in judged)
    what = "items" if log == "retail" else "creators"

    def mean(key: str) -> float:
        return float(np.average([run[key] for run in judged], weights=count_S))

    def row(measure: str, value: float, bar: str, ok: bool, ends: Any = (None, None)) -> Row:
        return {
            "claim": f"calibration, {log}: {model}, {age} days: {measure}",
            "value": value,
            "low": ends[0],
            "high": ends[1],
            "bar": bar,
            "ok": bool(ok),
            "seeds": len(judged),
            "command": command,
            "grid": {
                "table": f"Calibration on unseen {what}, {log} ({keys} means of >= {least} entries)",
                "row": f"{model}: {measure}",
                "column": f"{age} days",
            },
        }

    rows = []
    for level in LEVELS:
        share = float(
            np.average([run["coverage"][f"{level:g}"] for run in judged], weights=count_S)
        )
        low, high = wilson(share, keys)
        bar, ok = "none: reported", True
        if level == max(LEVELS):
            bar, ok = "its interval holds .95", low <= level <= high
        rows.append(row(f"coverage of {level:.0%} intervals of means", share, bar, ok, (low, high)))
    distance = mean("ks")
    rows.append(
        row("KS distance of the PIT of single outcomes", distance, "<= .03", distance <= 0.03)
    )
    rows.append(row("error of believed rates by bin", mean("error"), "none: reported", True))
    rows.append(row("mean outcome", mean("rate"), "none: reported", True))
    for key, measure in (("std", "std of means"), ("mae", "error of means")):
        prior = mean(f"prior_{key}")
        share = mean(key) / prior if prior else 1.0
        rows.append(row(f"{measure} over the prior's", share, "none: reported", True))
    return rows


# -- ranks -----------------------------------------------------------------------------------------


@remembered(version=1)
def ranks(*, world: str, seed: int, users: int, items: int, days: int, draws: int = DRAWS) -> Row:
    """Spearman correlations of unseen creators' beliefs with the truth, by model and age.

    Half of the creators teach no prior; their entries are observed up to an age. `value`: the mean value
    of showing an item to users who are new to its creator, with true chance x worth; the chance is known
    from the log at every age, so it is the outcome that ages. `outcome`: beliefs about an entry with the
    creator, with its true worth by chance. Each comes with its bootstrap over creators.
    """
    service, lake = logged(world, users, items, days, seed)
    outcomes = HABIT.outcomes(lake)
    catalogue = service.catalogue
    creator_ids = catalogue.frame["creator_id"]
    unseen_I = keyed_uniform(f"unseen {seed}", creator_ids) < UNSEEN
    released_I = catalogue.release_I < service.day
    rows_J = np.flatnonzero(unseen_I & released_I)
    ids = catalogue.index.ids.gather(rows_J)
    creator_J = catalogue.creator_I[rows_J]
    unseen = creator_ids.filter(pl.Series(unseen_I)).unique().sort()
    is_unseen_N = outcomes.keys.is_in(unseen.implode()).fill_null(False).to_numpy()
    taught, observed = outcomes.where(~is_unseen_N), outcomes.where(is_unseen_N)
    alive = np.flatnonzero(service.state.alive_R)
    audience = np.sort(
        np.random.default_rng([seed, 4]).choice(alive, min(AUDIENCE, len(alive)), False)
    )
    contexts = Contexts.of(service.user_ids.gather(audience), service.now, slots=1)
    chance_NJ = true_chance(service, contexts)[:, rows_J]
    worth_NJ = true_worth(service, contexts)[:, rows_J]
    value_by_model: dict[str, dict[str, Float]] = {}
    outcome_by_model: dict[str, dict[str, Float]] = {}
    creators = np.unique(creator_J)
    new_NJ = None
    for name, kind in RANKED.items():
        model = kind(HABIT).fit(lake, taught, progress=False)
        value_by_model[name], outcome_by_model[name] = {}, {}
        for age in AGES:
            aged = model.observe(observed, age)
            value_NJ = aged.item_value(contexts, ids, lake).mean
            if new_NJ is None:
                new_NJ = value_NJ != 0
            value_by_model[name][str(age)] = _mean(value_NJ, new_NJ)
            belief = aged.items(catalogue.creators.gather(creators))
            outcome_by_model[name][str(age)] = belief.mean
    assert new_NJ is not None
    value_J = _mean(chance_NJ * worth_NJ, new_NJ)
    worth_C = np.bincount(creator_J, weights=(chance_NJ * worth_NJ).sum(axis=0))[creators]
    worth_C /= np.maximum(np.bincount(creator_J, weights=chance_NJ.sum(axis=0))[creators], 1e-12)
    rng = np.random.default_rng([seed, 5])
    drawn = [rng.choice(len(creators), len(creators)) for _ in range(draws)]
    rows_C = [np.flatnonzero(creator_J == creator) for creator in creators]
    items_of = [np.concatenate([rows_C[c] for c in sample]) for sample in drawn]
    entries = pl.DataFrame({"key": observed.keys}).group_by("key").len()["len"]
    return {
        "creators": len(creators),
        "items": len(rows_J),
        "entries": float(entries.median() or 0.0),
        "value": _correlations(value_by_model, value_J, items_of),
        "outcome": _correlations(outcome_by_model, worth_C, drawn),
    }


def _mean(value_NJ: Float, new_NJ: NDArray[np.bool_]) -> Float:
    """Mean over the users who are new to each item's creator, [J]; 0 where there are none."""
    return (value_NJ * new_NJ).sum(axis=0) / np.maximum(new_NJ.sum(axis=0), 1)


def _correlations(
    belief_by_model: dict[str, dict[str, Float]], truth_G: Float, samples: list[NDArray[np.int64]]
) -> Row:
    """Spearman correlation and its bootstrapped standard error, by model and age; and how far each
    model at 3 days is ahead of the auto-surrogate at 7."""

    def spearmans(belief_G: Float) -> Float:
        """Of all rows, then of each sample."""
        everything = np.arange(len(truth_G))
        return np.array(
            [_spearman(belief_G[rows], truth_G[rows]) for rows in (everything, *samples)]
        )

    rho = {
        name: {age: spearmans(belief_G) for age, belief_G in by_age.items()}
        for name, by_age in belief_by_model.items()
    }
    surrogate = rho["auto-surrogate"]["7"]
    return {
        "rho": {
            name: {age: _with_error(drawn) for age, drawn in by_age.items()}
            for name, by_age in rho.items()
        },
        "ahead": {name: _with_error(rho[name]["3"] - surrogate) for name in CALIBRATED},
    }


def _with_error(drawn: Float) -> list[float]:
    return [float(drawn[0]), float(drawn[1:].std())]


def _spearman(x_G: Float, y_G: Float) -> float:
    """0 where either is constant: nothing is ranked."""
    if np.ptp(x_G) == 0 or np.ptp(y_G) == 0:
        return 0.0
    ranks_G = [stats.rankdata(column_G) for column_G in (x_G, y_G)]
    return float(np.corrcoef(*ranks_G)[0, 1])


def rank_rows(sizes: Mapping[str, Mapping[str, int]], seeds: int) -> list[Row]:
    """Rows of every world, model and age: means over seeds, with the errors of their bootstraps."""
    rows: list[Row] = []
    for world, size in sizes.items():
        runs = [ranks(world=world, seed=7 + seed, **size) for seed in range(seeds)]
        command = f"python bench/rewards.py --parts ranks --worlds {world} --seeds {seeds}"
        creators = sum(run["creators"] for run in runs)
        for what, words in (("value", "value of showing"), ("outcome", "outcome of an entry")):
            name = f"ranks, {world}, {words}"
            table = f"Rank correlation with the true {words}, {world} ({creators} unseen creators)"
            for model in RANKED:
                for age in AGES:
                    pairs = [run[what]["rho"][model][str(age)] for run in runs]
                    claim = f"{name}: {model}, {age} days"
                    row = _rank_row(claim, pairs, "none: reported", command)
                    grid = {"table": table, "row": model, "column": f"{age} days"}
                    rows.append(row | {"grid": grid})
            for model in CALIBRATED:
                pairs = [run[what]["ahead"][model] for run in runs]
                claim = f"{name}: {model} at 3 days less auto-surrogate at 7"
                rows.append(_rank_row(claim, pairs, "interval above 0", command))
    return rows


def _rank_row(claim: str, pairs: list[list[float]], bar: str, command: str) -> Row:
    value = float(np.mean([pair[0] for pair in pairs]))
    error = float(np.sqrt(sum(pair[1] ** 2 for pair in pairs))) / len(pairs)
    return {
        "claim": claim,
        "value": value,
        "low": value - 1.96 * error,
        "high": value + 1.96 * error,
        "bar": bar,
        "ok": bar.startswith("none") or value > 1.96 * error,
        "seeds": len(pairs),
        "command": command,
    }
