"""Progressive feedback on the published generator: how early is stickiness known?

Impatient bandits (Maystre, Russo & Zhao, arXiv 2307.09943): 600 shows, 10,000 traces each of 59
binary days, drawn show by show from `default_rng(42)`; the first 200 shows teach the prior, the
rest are judged. Per show: churn probabilities Beta(k alpha, k (1 - alpha)) with alpha = expit(0.1
N(0, 1) - 0.4), k ~ U(0.7, 1.5), last day = Geometric(p) - 1; daily rates -0.5 + 0.1 chol(1.2
exp(-|i - j| / 8)) N(0, 1); season -|sin(pi t / 7)| times U(0.1, 1.0).

The description leaves one thing open, what "true stickiness" is: the show's mean over all its
10,000 traces (our claim, `population`), or over the same traces that were observed (`same traces`,
an easier question from day 10 on, since their noise is then part of the truth). Both are printed.

    PYTHONPATH=src python bench/impatient.py --quick        # seed 42 alone, about 3 CPU-seconds
    PYTHONPATH=src python bench/impatient.py --json bench/results/impatient.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from longplay.belief import coverage_of_means
from longplay.rewards.gaussian import Prior, estimate_prior, expected_outcomes, summarise

SHOWS, TRAIN, TRACES, DAYS = 600, 200, 10_000, 59
AGES = (0, 5, 10, 20, 30, 59)
PUBLISHED_MAE = {
    (1000, 0): 0.68,
    (1000, 5): 0.43,
    (1000, 10): 0.24,
    (1000, 59): 0.167,
    (100, 0): 0.68,
    (100, 59): 0.38,
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One seed's figures: prior moments, and per (traces, age) the absolute errors of 400 shows and
    the coverage at 90%."""

    prior: Prior
    error: dict[tuple[int, int], Array]
    error_same: dict[tuple[int, int], Array]
    coverage: dict[tuple[int, int], float]


def shows(seed: int) -> Iterator[NDArray[np.bool_]]:
    """Traces [TRACES, DAYS] of one show after the other."""
    rng = np.random.default_rng(seed)
    day_D = np.arange(DAYS)
    chol_DD = np.linalg.cholesky(1.2 * np.exp(-np.abs(day_D[:, None] - day_D) / 8))
    for _ in range(SHOWS):
        alpha, k = expit(0.1 * rng.standard_normal() - 0.4), rng.uniform(0.7, 1.5)
        rate_D = -0.5 + 0.1 * chol_DD @ rng.standard_normal(DAYS)
        season_D = -np.abs(np.sin(np.pi * day_D / 7)) * rng.uniform(0.1, 1.0)
        active_ND = rng.random((TRACES, DAYS)) < expit(rate_D + season_D)
        churn_N = np.clip(rng.beta(k * alpha, k * (1 - alpha), TRACES), 1e-12, 1.0)
        last_N = rng.geometric(churn_N) - 1
        yield active_ND & (day_D < last_N[:, None])


def run(seed: int) -> Trial:
    """Prior from the first 200 shows, then beliefs about the other 400."""
    sum_ID, square_I, cross_DD, mean_I = [], [], np.zeros((DAYS, DAYS)), []
    seen: dict[int, list[Array]] = {100: [], 1000: []}
    for number, trace_ND in enumerate(shows(seed)):
        if number < TRAIN:
            sum_ID.append(trace_ND.sum(0))
            square_I.append(float((trace_ND.sum(1) ** 2).sum()))
            cross_DD += trace_ND.T.astype(np.float32) @ trace_ND.astype(np.float32)
        else:
            mean_I.append(trace_ND.sum(1).mean())
            for traces, sums in seen.items():
                sums.append(trace_ND[:traces].sum(0))
    # equally many traces per show, so any weighting by show is the pooled sum times the mean weight
    # only
    # where shows' own noise does not matter; it does not at 10,000 traces
    prior = estimate_prior(
        np.full(TRAIN, float(TRACES)),
        np.array(sum_ID, dtype=float),
        np.array(square_I),
        lambda weight_I: weight_I.mean() * cross_DD,
        np.ones(DAYS),
    )
    truth_I, noise_var = np.array(mean_I), prior.outcome[2] ** 2
    error, same, coverage = {}, {}, {}
    for traces, sums in seen.items():
        sum_ID_seen = np.array(sums, dtype=float)
        own_I = sum_ID_seen.sum(1) / traces
        rest_I = (truth_I * TRACES - own_I * traces) / (TRACES - traces)
        shows_I = np.arange(len(truth_I))
        for age in AGES:
            statistics = summarise(
                prior,
                sum_ID_seen,
                np.full(len(shows_I), float(traces)),
                np.full(len(shows_I), age),
                shows_I,
            )
            believed_I, std_I = expected_outcomes(prior, *statistics)
            error[traces, age], same[traces, age] = (
                np.abs(believed_I - truth_I),
                np.abs(believed_I - own_I),
            )
            noise_I = np.full(len(shows_I), np.sqrt(noise_var / (TRACES - traces)))
            coverage[traces, age] = coverage_of_means(
                believed_I, std_I, rest_I, noise_I, levels=(0.9,)
            )[0.9]
    return Trial(prior, error, same, coverage)


def rows(trials: list[Trial], command: str) -> list[dict[str, object]]:
    """One row per claim; seed 42 against the published figures, coverage over all seeds."""
    first, out = trials[0], []

    def claim(text: str, value: float, half: float, bar: str, ok: bool, seeds: int = 1) -> None:
        low, high = value - half, value + half
        out.append(
            {
                "claim": text,
                "value": value,
                "low": low,
                "high": high,
                "bar": bar,
                "ok": bool(ok),
                "seeds": seeds,
                "command": command,
            }
        )

    mean, item_std, noise_std = first.prior.outcome
    for text, value, published in (
        ("prior mean of stickiness, days", mean, 3.525),
        ("prior variance of stickiness", item_std**2, 0.661),
        ("noise variance of one trace", noise_std**2, 39.5),
    ):
        claim(text, value, 0.0, f"{published} within 1%", abs(value / published - 1) <= 0.01)
    for (traces, age), published in PUBLISHED_MAE.items():
        for truth, errors in (("population", first.error), ("same traces", first.error_same)):
            value = float(errors[traces, age].mean())
            se = float(errors[traces, age].std(ddof=1) / np.sqrt(SHOWS - TRAIN))
            text = f"MAE of stickiness, {traces} traces, {age} days observed, truth: {truth}"
            claim(
                text,
                value,
                1.96 * se,
                f"{published} or less, within 2 se",
                value <= published + 2 * se,
            )
    for traces, age in first.coverage:
        share_T = np.array([trial.coverage[traces, age] for trial in trials])
        se = float(np.sqrt(share_T.mean() * (1 - share_T.mean()) / ((SHOWS - TRAIN) * len(trials))))
        # the prior is one draw of 200 shows for all 400: allow 3 points beyond the binomial error
        ok = abs(share_T.mean() - 0.9) <= 0.03 + 2 * se
        text = f"coverage at 90% of unseen traces' mean, {traces} traces, {age} days observed"
        claim(text, float(share_T.mean()), 1.96 * se, "0.90 +- 0.03, 2 se", ok, len(trials))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="seed 42 alone")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    seeds = [42] if args.quick else [42, 1, 2, 3, 4]
    command = "python bench/impatient.py" + (" --quick" if args.quick else "")
    table = rows([run(seed) for seed in seeds], command)
    for row in table:
        print(
            f"{'ok  ' if row['ok'] else 'MISS'} {row['claim']}: {row['value']:.4g} "
            f"[{row['low']:.4g}, {row['high']:.4g}] (bar: {row['bar']})"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
