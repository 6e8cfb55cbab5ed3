"""Can a verdict be fooled? Audits, skewed outcomes, plans and off-policy estimates whose right
answer is known, judged as the product judges.

Two trivial solutions would pass some bars: refusing every comparison, and calling every audit
undecided. Rows of their own exclude them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from claims import timed
from numpy.typing import NDArray
from remembered import remembered
from verdicts_ope import rows as off_policy_rows

from longplay.audits import judge
from longplay.experiments.analysis import line_of
from longplay.experiments.decision import Terms, decide
from longplay.experiments.readout import Line
from longplay.experiments.shipping import Metric, Rule, Shipping
from longplay.experiments.statistics import compare, welch
from longplay.signals import Signal, active_days, enrolment

Float = NDArray[np.float64]

COMMAND = "python bench/verdicts.py"
claim = partial(timed, COMMAND)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTIVE = Signal("active", enrolment(), active_days(), (1, 28))
STD = 0.5  # of one user's outcome, whose mean is 1
SHAPE = 1 / STD**2  # of the gamma distribution with that mean and spread


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    audits: int = 400
    comparisons: int = 4_000
    plans: int = 3_000
    off_policy: int = 300


QUICK = Size(audits=20, comparisons=20, plans=10, off_policy=2)


def outcome(rng: np.random.Generator, users: int) -> Float:
    """One user's outcome: mean 1, std half of it."""
    return rng.gamma(SHAPE, 1 / SHAPE, users)


# -- audits
# ----------------------------------------------------------------------------------------------------------


def audited(kind: str, users: int, rng: np.random.Generator, margin: float = 0.01) -> str:
    """The recommendation of one simulated audit: late +10%, north star +8%; of a false alarm late
    -3%, north star -8%."""
    treated_U = rng.permutation(users) < users // 2
    true, star = (-0.03, -0.08) if kind == "false alarm" else (0.10, 0.08)
    before_U = outcome(rng, users)
    late_U = before_U * (1 + true * treated_U)
    star_U = (0.5 * before_U + np.sqrt(0.75) * outcome(rng, users) + 0.5 - np.sqrt(0.75)) * (
        1 + star * treated_U
    )
    noise_U = outcome(rng, users) - 1
    early_U = {
        "noise": 1 + noise_U,
        "false alarm": before_U + 0.26 * treated_U + 0.6 * noise_U,
        "true": late_U + 0.5 * noise_U,
        "half size": 0.5 * late_U + 0.3 * noise_U,
    }[kind]
    early, late, gap, of_star = (
        compare(value_U, treated_U) for value_U in (early_U, late_U, early_U - late_U, star_U)
    )
    gain, loss = of_star.contrast(-(1 + margin), 1.0), of_star.contrast(-(1 - margin), 1.0)
    return judge(early.contrast(), late.contrast(), gap.contrast(), gain, loss, 0.95)[1]


@remembered(version=1)
def audits(kind: str, users: int, draws: int) -> dict[str, float]:
    """Share of each recommendation."""
    rng = np.random.default_rng([1, users, draws])
    counts = Counter(audited(kind, users, rng) for _ in range(draws))
    return {recommendation: count / draws for recommendation, count in counts.items()}


def rows_of_audits(draws: int) -> list[dict[str, Any]]:
    """Noise, false alarms, true rewards and rewards of half the size."""
    bars = [
        ("noise", 1_000, "keep", "<= .05", lambda x: x <= 0.05),
        ("noise", 4_000, "keep", "<= .05", lambda x: x <= 0.05),
        ("false alarm", 4_000, "drop", ">= .80", lambda x: x >= 0.8),
        ("false alarm", 1_000, "drop", ">= .80", lambda x: x >= 0.8),
        ("true", 1_000, "keep", ">= .45, which always undecided fails", lambda x: x >= 0.45),
        ("true", 4_000, "keep", ">= .88, which always undecided fails", lambda x: x >= 0.88),
        ("half size", 4_000, "reweight", ">= .80", lambda x: x >= 0.8),
        ("half size", 1_000, "keep", "none: reported", lambda x: True),
    ]
    return [
        claim(
            f"audits of {users:,} users, {kind}: share {recommendation}",
            [audits(kind=kind, users=users, draws=draws).get(recommendation, 0.0)],
            bar,
            met,
        )
        for kind, users, recommendation, bar, met in bars
    ]


# -- skewed outcomes
# -------------------------------------------------------------------------------------------------


def drawn(family: str, users: int, rng: np.random.Generator) -> Float:
    """Outcomes of `users` users."""
    match family:
        case "lognormal, sd 1":
            return rng.lognormal(0, 1, users)
        case "80% zeros, else lognormal":
            return (rng.random(users) < 0.2) * rng.lognormal(0, 1, users)
        case "95% zeros, else lognormal":
            return (rng.random(users) < 0.05) * rng.lognormal(0, 1, users)
        case "80% zeros, else exponential":
            return (rng.random(users) < 0.2) * rng.exponential(1, users)
        case "Poisson of 1":
            return rng.poisson(1, users).astype(float)
        case _:
            return rng.poisson(0.1, users).astype(float)


FAMILIES = (
    "lognormal, sd 1",
    "80% zeros, else lognormal",
    "95% zeros, else lognormal",
    "80% zeros, else exponential",
    "Poisson of 1",
    "Poisson of .1",
)
SPLITS = ((0.5, (400, 2_000)), (0.1, (600, 2_000, 10_000)), (0.02, (2_000, 10_000, 40_000)))
FEWEST = 500  # accepted comparisons from which a side's error is judged: it is known to .008


@remembered(version=2)
def sides(family: str, users: int, share: float, draws: int) -> dict[str, float]:
    """Of comparisons without any effect: the share accepted, and of these the share called worse
    and better; and that of Welch's interval."""
    rng = np.random.default_rng([2, users, draws, FAMILIES.index(family)])
    treated_U = np.arange(users) < round(users * share)
    matures = pl.Series("matures_at", [NOW]).new_from_index(0, users)
    counts: Counter[str] = Counter()
    for _ in range(draws):
        value_U = drawn(family, users, rng)
        sums = pl.DataFrame({"value": value_U, "matures_at": matures})
        line = line_of(ACTIVE, sums, treated_U, None, "treatment", None, 0.05, 0.05)
        counts[line.standing] += 1
        if line.effect is not None:
            _, high = welch(value_U[~treated_U], value_U[treated_U]).contrast().interval()
            counts["by Welch"] += int(high < 0)
    accepted = draws - counts["not estimable"]
    of_accepted = {
        name: counts[name] / max(accepted, 1) for name in ("deteriorates", "superior", "by Welch")
    }
    return {"accepted": accepted / draws, "judged": accepted} | of_accepted


def rows_of_skew(draws: int) -> list[dict[str, Any]]:
    """Each side's error where a comparison is accepted, how often it is, and what it would be
    without the correction."""
    cells = {
        f"{family}, {share:.0%} of {users:,}": sides(
            family=family, users=users, share=share, draws=draws if users < 40_000 else draws // 2
        )
        for family in FAMILIES
        for share, sizes in SPLITS
        for users in sizes
    }
    judged = {
        name: cell for name, cell in cells.items() if cell["judged"] >= min(FEWEST, draws // 4)
    }
    rows = []
    for word, side in (("deteriorates", "deteriorates"), ("is superior", "superior")):
        worst = max(judged, key=lambda name: judged[name][side])
        rows.append(
            claim(
                f"no effect, called {word}: the worst of {len(judged)} accepted cells ({worst})",
                [judged[worst][side]],
                "<= .035",
                lambda x: x <= 0.035,
            )
        )
    worst = max(judged, key=lambda name: judged[name]["by Welch"])
    rows.append(
        claim(
            f"the same by Welch's interval alone, deteriorates ({worst})",
            [judged[worst]["by Welch"]],
            "none: reported",
            lambda x: True,
        )
    )
    for name, least in (
        ("lognormal, sd 1, 10% of 2,000", 0.85),
        ("lognormal, sd 1, 2% of 40,000", 0.95),
    ):
        met = partial(_at_least, least)
        rows.append(
            claim(
                f"accepted: {name}",
                [cells[name]["accepted"]],
                f">= {least:g}, which refuse all fails",
                met,
            )
        )
    for name, cell in cells.items():
        values = (
            f"worse {cell['deteriorates']:.3f}, better {cell['superior']:.3f}, by Welch "
            f"worse {cell['by Welch']:.3f}"
        )
        rows.append(
            claim(
                f"accepted: {name} ({values})", [cell["accepted"]], "none: reported", lambda x: True
            )
        )
    return rows


def _at_least(least: float, value: float) -> bool:
    return value >= least


# -- plans
# -----------------------------------------------------------------------------------------------------------

PLANS = {
    "one metric, 10% of the users": (0.1, 0.2, 1, 0, 0.0),
    "one metric, half of the users": (0.5, 0.05, 1, 0, 0.0),
    "three guardrails of 5%": (0.5, 0.05, 1, 3, 0.05),
    "three guardrails of 20%, 10% of the users": (0.1, 0.2, 1, 3, 0.2),
    "three success metrics": (0.5, 0.05, 3, 0, 0.0),
    "three success metrics and three guardrails": (0.1, 0.2, 3, 3, 0.3),
}


@remembered(version=1)
def shipped(case: str, correlation: float, draws: int) -> dict[str, float]:
    """The users planned for a power of .8, and how often a treatment then ships whose first metric
    gains what was planned."""
    share, effect, success, guardrails, margin = PLANS[case]
    metrics = [
        Metric(f"m{k}", 1.0, STD, STD, None if k < success else margin)
        for k in range(success + guardrails)
    ]
    count = len(metrics)
    correlation_MM = (1 - correlation) * np.eye(count) + correlation
    users = Shipping(metrics, correlation_MM, Rule(0.05, 0.05 / success, share)).users(effect, 0.8)
    rng, root_MM = np.random.default_rng([3, count, users]), np.linalg.cholesky(correlation_MM)
    treated_U = np.arange(users) < round(users * share)
    matures = pl.Series("matures_at", [NOW]).new_from_index(0, users)
    terms = Terms(0.05, 0.05 / success, 0.8, effect, NOW, NOW, 0.0)
    signals = [Signal(f"m{k}", enrolment(), active_days(), (1, 1 + k)) for k in range(count)]
    ships = 0
    for _ in range(draws):
        value_UM = 1 + STD * rng.standard_normal((users, count)) @ root_MM.T
        value_UM[treated_U, 0] *= 1 + effect
        lines: list[Line] = [
            line_of(
                signals[k],
                pl.DataFrame({"value": value_UM[:, k], "matures_at": matures}),
                treated_U,
                None,
                "treatment",
                metrics[k].margin,
                0.05,
                0.05 / success,
            )
            for k in range(count)
        ]
        ships += decide("treatment", lines, [], terms).verdict == "ship"
    return {"users": float(users), "shipped": ships / draws}


def rows_of_plans(draws: int) -> list[dict[str, Any]]:
    """What was promised, .80, beside what ships."""
    rows = []
    for case in PLANS:
        for correlation in (0.0, 0.6):
            if correlation and PLANS[case][2] + PLANS[case][3] == 1:
                continue
            found = shipped(case=case, correlation=correlation, draws=draws)
            words = (
                f"plan for a power of .80, {case}, correlation {correlation:g}: "
                f"{found['users']:,.0f} users; share that ships"
            )
            rows.append(claim(words, [found["shipped"]], ".78 to .82", lambda x: 0.78 <= x <= 0.82))
    return rows


@remembered(version=1)
def off_policy(draws: int) -> list[dict[str, Any]]:
    """See `verdicts_ope.rows`."""
    return off_policy_rows(draws, 1)


def rows_of(size: Size) -> list[dict[str, Any]]:
    """All claims."""
    return [
        *rows_of_audits(size.audits),
        *rows_of_skew(size.comparisons),
        *rows_of_plans(size.plans),
        *off_policy(draws=size.off_policy),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick",
        action="store_true",
        help="a few draws of each: shows that the script runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    given = options.parse_args()
    rows = rows_of(QUICK if given.quick else Size())
    for row in rows:
        print(
            f"{row['claim']}: {row['value']:.3g}, bar {row['bar']}{'' if row['ok'] else ' MISSED'}",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
