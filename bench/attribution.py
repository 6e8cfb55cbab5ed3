"""Which attribution rule adds up to what a randomised exposure holdout says the exposures added?
Over worlds and seeds, beside the hidden truth.

Each seed: six weeks of a service (or of one that shows nothing unasked: `launch`), then eight weeks
of a trial whose arms show a page of two rows (creators at even and at odd places of the list), one
of them, or nothing. Every rule's credit is set beside the holdout (from the log alone), and both
beside `World.difference` (which no log has).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from remembered import remembered

import longplay as lp
from longplay.attribution.credits import compare_rules
from longplay.attribution.unexposed import shown_unasked, unexposed_baseline
from longplay.estimate import clustered_mean
from longplay.experiments.assignment import assign
from longplay.experiments.enrolment import covariates_of
from longplay.experiments.holdout import EVERYTHING, adjusted, against_holdout, contrast
from longplay.policies.page import Page
from longplay.policies.simple import Popular
from longplay.signals.outcomes.enrolled_sums import enrolled_sums

HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 28)
)
DAYS = lp.Signal(
    "days", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator"), window=(1, 28)
)
ACTIVE = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 28))
ABOVE = lp.Signal(
    "active_above_own",
    entry=lp.enrolment(),
    measure=lp.active_days().above_baseline(28),
    window=(1, 28),
)
SIGNALS = (HABIT, DAYS, ACTIVE, ABOVE)
PARTS = {
    "without_top": ("without_top", pl.col("slot") < 3),
    "without_bottom": ("without_bottom", pl.col("slot") >= 3),
}
EXPLORE = 0.3
WITHIN = {
    "discovery_touch": 0.15,
    "discovery_touch less unexposed": 0.1,
}  # the default and what it is with a learnt baseline: share of the truth
README = (*WITHIN, "last_touch")
SHOWN_LESS = (
    "discovery_touch less unexposed",
    "recency less unexposed",
)  # last_touch less unexposed is the former where all is baseline that can be


@dataclass(frozen=True)
class Size:
    """How large one seed is. `cases`: (world, before): what the six weeks before the trial were."""

    users: int = 8_000
    judged_users: int = 4_000
    items: int = 300
    seeds: int = 5
    null_users: int = 3_000
    salts: int = 400
    cases: tuple[tuple[str, str], ...] = (
        ("default", "service"),
        ("clickbait", "service"),
        ("null", "service"),
        ("default", "launch"),
        ("null", "launch"),
    )


QUICK = Size(
    users=450,
    judged_users=100,
    items=120,
    seeds=1,
    null_users=150,
    salts=20,
    cases=(("default", "launch"),),
)


def page_of(world: lp.World, lake: lp.Lake) -> Page:
    """Two rows of popular items, three slots above two, without common creators."""
    place = world.items["creator_id"].rank("dense")
    halves = {
        "top": world.items.filter(place % 2 == 0),
        "bottom": world.items.filter(place % 2 == 1),
    }
    return Page(
        {
            name: Popular(explore=EXPLORE).adapt(items, lake.events)
            for name, items in halves.items()
        },
        {"top": 3, "bottom": 2},
    )


def trial_of(page: Page, salt: str) -> lp.Experiment:
    """Everything, nothing, and either row withheld."""
    arms = {
        "nothing": page.without("top", "bottom"),
        "without_top": page.without("top"),
        "without_bottom": page.without("bottom"),
    }
    return lp.Experiment(control=page, treatment=arms, salt=salt, shares=(0.35, 0.35, 0.15, 0.15))


def service_of(
    name: str, before: str, seed: int, users: int, items: int
) -> tuple[lp.World, Page, lp.Experiment]:
    """The world on the morning of the trial, the page and the trial."""
    world = lp.World.named(name, users=users, items=items, seed=seed)
    lake = world.run(Popular(slate=5, explore=EXPLORE) if before == "service" else None, days=42)
    page = page_of(world, lake)
    return world, page, trial_of(page, f"holdout-{seed}")


@remembered(version=1)
def truths(
    name: str, before: str, seed: int, users: int, judged_users: int, items: int
) -> dict[str, dict[str, list[float]]]:
    """By signal and part: what showing it truly adds per enrolled user, [value, standard error]."""
    world, page, trial = service_of(name, before, seed, users, items)
    answer: dict[str, dict[str, list[float]]] = {}
    for signal in (HABIT, DAYS, ACTIVE):
        answer[signal.name] = {}
        for part, arm in ((EVERYTHING, "nothing"), *((part, part) for part in PARTS)):
            true = world.difference(page, trial.arms[arm], signal, users=judged_users, seed=seed)
            answer[signal.name][part] = [true.value, true.std_error]
    return answer | {
        ABOVE.name: answer[ACTIVE.name]
    }  # what was before enrolment is the same in all arms


@remembered(version=2)
def judged(name: str, before: str, seed: int, users: int, items: int) -> dict[str, Any]:
    """By signal: effects by part, [value, standard error, low, high]; by rule credits by part, z
    and share unjudged; the gap; the sentence."""
    world, _, trial = service_of(name, before, seed, users, items)
    lake = world.run(trial, days=56)
    answer: dict[str, Any] = {}
    for signal in SIGNALS:
        found = against_holdout(trial, lake, signal, nothing="nothing", parts=PARTS)
        first, gap = found.rules[0], found.gap
        assert gap is not None  # there are parts
        answer[signal.name] = {
            "effect": {
                part: [(e := found.line(first, part).effect).value, e.std_error, *e.interval()]
                for part in found.parts
            },
            "baseline": "" if found.baseline is None else str(found.baseline),
            "credit": {
                rule: {part: found.line(rule, part).credit.value for part in found.parts}
                for rule in found.rules
            },
            "z": {rule: found.line(rule).z for rule in found.rules},
            "unjudged": {rule: found.line(rule).unjudged for rule in found.rules},
            "gap": [gap.value, gap.std_error],
            "sentence": found.sentence,
            "table": str(found),
            "conserved": _conserved(signal, lake),
        }
    return answer


@remembered(version=1)
def randomised_again(seed: int, users: int, items: int, salts: int) -> dict[str, int]:
    """In a null world showing moves nobody's activity, so users can be put into arms anew: how
    often an effect's interval excludes 0."""
    world, _, trial = service_of("null", "service", seed, users, items)
    lake = world.run(trial, days=44)
    enrolled = trial.enrolled(lake)
    known_UK, sums = covariates_of(lake, enrolled), enrolled_sums(ACTIVE, lake, enrolled)
    mature_U, value_U = (
        sums["value"].is_not_null().to_numpy(),
        sums["value"].fill_null(0.0).to_numpy(),
    )
    found = 0
    for salt in range(salts):
        arm_U = assign(f"again-{salt}", enrolled["user_id"], trial.shares)
        y_U = adjusted(value_U, arm_U, mature_U, known_UK)
        control_U, *others = (y_U[mature_U & (arm_U == arm)] for arm in range(len(trial.arms)))
        for other_U in others:
            low, high = contrast(
                [(1.0, control_U), (-1.0, other_U)], "effect of nothing"
            ).interval()
            found += not low <= 0 <= high
    return {"found": found, "of": salts * (len(trial.arms) - 1)}


def _conserved(signal: lp.Signal, lake: lp.Lake) -> bool:
    """Whether every rule's credits sum to outcome less baseline for every entry, to the bit, in an
    order of chance."""
    outcomes, shown = signal.outcomes(lake), shown_unasked(lake)
    base = unexposed_baseline(outcomes, lake, shown) if signal.entry.is_discovery else None
    exact = True
    for one in compare_rules(outcomes, shown, baseline=base).credits:
        mixed = one.frame.filter(pl.col("credit").is_not_null()).sample(
            fraction=1.0, shuffle=True, seed=0
        )
        sums = (
            mixed.group_by("entry", maintain_order=True).agg(pl.col("credit").sum()).sort("entry")
        )
        due = one.entries.filter(pl.col("due").is_not_null())
        exact = (
            exact
            and sums["entry"].equals(due["entry"])
            and bool((sums["credit"] == due["due"]).all())
        )
    return exact


def claims(size: Size, command: str) -> list[dict[str, Any]]:
    """One row per claim."""
    rows: list[dict[str, Any]] = []

    def add(
        claim: str, values: Sequence[float], bar: str, ok: bool | None = None, readme: bool = False
    ) -> tuple[float, float, float]:
        one = clustered_mean(values)
        low, high = one.interval()
        low, high = (None, None) if not np.isfinite(low) else (low, high)
        rows.append(
            {
                "claim": f"attribution: {claim}",
                "value": one.value,
                "low": low,
                "high": high,
                "bar": bar,
                "ok": True if ok is None else bool(ok),
                "seeds": len(values),
                "command": command,
                "readme": readme,
            }
        )
        print(
            f"{claim}: {one.value:.4g} [{low if low is None else round(low, 4)}, "
            f"{high if high is None else round(high, 4)}] ({bar})",
            flush=True,
        )
        return one.value, low or -np.inf, high or np.inf

    held, exact = [], []
    for name, before in size.cases:
        seeds = range(1, size.seeds + 1)
        found = [
            judged(name=name, before=before, seed=s, users=size.users, items=size.items)
            for s in seeds
        ]
        known = [
            truths(
                name=name,
                before=before,
                seed=s,
                users=size.users,
                judged_users=size.judged_users,
                items=size.items,
            )
            for s in seeds
        ]
        case = f"{name}, {before}"
        for signal in SIGNALS:
            one = [
                each[signal.name] | {"truth": true[signal.name]}
                for each, true in zip(found, known, strict=True)
            ]
            for each in one:
                print(f"   {case}, {signal.name}: {each['sentence']}", flush=True)
                exact.append(float(each["conserved"]))
                for part, (value, error, *_) in each["effect"].items():
                    true, noise = each["truth"][part]
                    held.append(float(abs(value - true) <= 1.96 * np.hypot(error, noise)))
            if (
                signal is not ABOVE
                # what was before enrolment is the same in all arms, so its effects are those of the
                # plain activity
            ):
                add(
                    f"{case}: {signal.name}, exposures truly added, per user",
                    [each["truth"][EVERYTHING][0] for each in one],
                    "none: reported",
                )
                add(
                    f"{case}: {signal.name}, the holdout's estimate, per user",
                    [each["effect"][EVERYTHING][0] for each in one],
                    "none: reported",
                )
                add(
                    f"{case}: {signal.name}, interaction gap, per user",
                    [each["gap"][0] for each in one],
                    "none: reported",
                )
            for rule in (
                rule for rule in one[0]["credit"] if "less" not in rule or rule in SHOWN_LESS
            ):
                off = [
                    each["credit"][rule][EVERYTHING] - each["truth"][EVERYTHING][0] for each in one
                ]
                scale = float(np.mean([each["truth"][EVERYTHING][0] for each in one]))
                if name != "null" and signal in (HABIT, DAYS):
                    relative = [value / scale for value in off]
                    mean = float(np.mean(relative))
                    most = WITHIN.get(rule)
                    bar, ok = (
                        ("none: reported", None)
                        if most is None
                        else (f"-{most:g} to {most:g}", abs(mean) <= most)
                    )
                    shown = rule in README and signal is HABIT and before == "service"
                    add(
                        f"{case}: {signal.name}, {rule}, credit over the truth, less 1",
                        relative,
                        bar,
                        ok,
                        shown,
                    )
                else:
                    add(
                        f"{case}: {signal.name}, {rule}, credit less the truth, per user",
                        off,
                        "none: reported",
                    )
    share = float(np.mean(held))
    add(
        "share of the holdout's estimates within 1.96 standard errors of the truth (both errors)",
        held,
        "at least 0.9",
        share >= 0.9,
        True,
    )
    rows[-1] |= {"low": None, "high": None, "seeds": size.seeds}
    again = randomised_again(seed=1, users=size.null_users, items=size.items, salts=size.salts)
    wrong = again["found"] / again["of"]
    add(
        "null, users put into arms anew: share of the holdout's intervals that exclude 0",
        [wrong],
        "0.03 to 0.07",
        0.03 <= wrong <= 0.07,
    )
    rows[-1] |= {"seeds": again["of"]}
    add(
        "share of tables in which every entry's credits sum to its outcome less its baseline, to "
        "the bit",
        exact,
        "exactly 1",
        min(exact) == 1,
        True,
    )
    rows[-1] |= {"low": None, "high": None, "seeds": size.seeds}
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick",
        action="store_true",
        help="one tiny seed: shows that the script runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    given = options.parse_args()
    rows = claims(QUICK if given.quick else Size(), "python bench/attribution.py")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
