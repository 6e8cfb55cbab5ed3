"""Off-policy intervals and gates against a known truth: rare outcomes, heavy weights, heavy users,
propensities that are wrong.

A log of one slot per decision. The logger draws items by its law, the policy would draw them by
another; every item has a rate at which its outcome happens, so the policy's value is known exactly.
Each rule is measured beside the one before it: a t interval, given from 10 effective outcomes on. A
rule that refuses more would look better than it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from longplay.estimate import Estimate
from longplay.intervals import wilson
from longplay.ope.diagnostics import MAX_OFF, MIN_OUTCOMES_ELSE, MIN_SLOTS, MIN_USERS, Diagnosis
from longplay.ope.estimators import dr_mean, ips_mean, snips_mean

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

COMMAND = "python bench/verdicts.py"
HOW = ("IPS", "SNIPS", "doubly robust")
LAWS = ("one item", "six items", "forty items")
EXPECTED = (6, 12, 30)  # effective outcomes
FOLDS = 5
MEAN_SLOTS = (
    50.0  # of the outcome model: an item's mean counts as if seen this often at the mean of all
)


@dataclass(frozen=True)
class Setting:
    """One kind of log.

    Attributes:
        law: how the weights are spread, one of `LAWS`. largest: the largest weight.
        rate: the policy's true value, if `heavy` users are like the others.
        expected: effective outcomes to expect; decides the number of slots.
        heavy: users with lognormal numbers of slots and rates of their own; else a user per slot.
        spread: of the logarithms of items' rates, and 1.6 times it of users'.
        better: exponent by which items that the policy prefers have higher rates than the logger's.
        unseen: share of the policy's choices that the logger never makes. stated: logged propensity
            over the true one.
    """

    law: str
    largest: int
    rate: float
    expected: int
    heavy: bool = False
    spread: float = 0.5
    better: float = 0.0
    unseen: float = 0.0
    stated: float = 1.0

    def laws(self) -> tuple[Array, Array]:
        """The probability of every item under the logger and under the policy, both [I]; their
        ratios end at `largest`."""
        if self.law == "one item":
            logger_I = np.full(self.largest, 1 / self.largest)
            policy_I = np.zeros(self.largest)
            policy_I[0] = 1.0
        elif self.law == "six items":
            weight_I = np.array([self.largest, self.largest / 2, self.largest / 4, 4, 1.5])
            policy_I = np.array([0.15, 0.15, 0.15, 0.15, 0.2])
            logger_I = policy_I / weight_I
            logger_I = np.append(logger_I, 1 - logger_I.sum())
            policy_I = np.append(policy_I, 1 - policy_I.sum())
        else:
            place_I = np.linspace(-1, 1, 40)
            weight_I = self.largest**place_I

            def logger(tilt: float) -> Array:
                p_I = np.exp(-2.4 * place_I**2 - tilt * place_I)
                return p_I / p_I.sum()

            logger_I = logger(
                float(brentq(lambda tilt: float(logger(tilt) @ weight_I) - 1, -10, 40))
            )  # type: ignore[arg-type]
            policy_I = logger_I * weight_I
        return logger_I, policy_I

    def rates(self) -> Array:
        """The rate of every item, shape [I]; the policy's mean is `rate`."""
        logger_I, policy_I = self.laws()
        rate_I = np.exp(np.random.default_rng(1).normal(0, self.spread, len(logger_I)))
        rate_I *= np.maximum(policy_I / logger_I, 0.1) ** self.better
        return rate_I * self.rate / float(policy_I @ rate_I)

    @property
    def slots(self) -> int:
        """How many slots of different users make `expected` effective outcomes."""
        logger_I, policy_I = self.laws()
        return int(self.expected * float(policy_I**2 / logger_I @ self.rates()) / self.rate**2)


@dataclass(frozen=True)
class Log:
    """Slots drawn in a setting: item, weight, outcome and user of each; the true value of the
    policy."""

    item_N: Rows
    weight_N: Array
    outcome_N: Array
    user_N: Rows
    policy_I: Array
    truth: float


def drawn(setting: Setting, rng: np.random.Generator) -> Log:
    """A log of this setting. Unseen choices happen at twice the policy's rate."""
    logger_I, policy_I = setting.laws()
    rate_I = setting.rates()
    if setting.heavy:
        users = max(60, setting.slots // 25)
        slots_U = np.maximum(
            1, np.rint(rng.lognormal(np.log(setting.slots / users) - 0.72, 1.2, users))
        ).astype(np.int64)
        level_U = rng.lognormal(-((1.6 * setting.spread) ** 2) / 2, 1.6 * setting.spread, users)
    else:
        users = setting.slots
        slots_U = np.ones(users, dtype=np.int64)
        level_U = np.ones(users)
    user_N = np.repeat(np.arange(users), slots_U)
    item_N = np.minimum(
        np.searchsorted(logger_I.cumsum(), rng.random(len(user_N))), len(logger_I) - 1
    )
    chance_N = np.minimum(rate_I[item_N] * level_U[user_N], 1.0)
    seen = 1 - setting.unseen
    return Log(
        item_N=item_N,
        weight_N=seen / setting.stated * (policy_I / logger_I)[item_N],
        outcome_N=(rng.random(len(user_N)) < chance_N).astype(float),
        user_N=user_N,
        policy_I=seen * policy_I,
        truth=seen * setting.rate + setting.unseen * 2 * setting.rate,
    )


def robust(log: Log) -> Estimate:
    """Doubly robust with shrunken item means, cross-fitted by user; unseen choices at the mean of
    all."""
    items = len(log.policy_I)
    fold_N = log.user_N % FOLDS
    cell_N = fold_N * items + log.item_N
    count_FI = np.bincount(cell_N, minlength=FOLDS * items).reshape(FOLDS, items)
    sum_FI = np.bincount(cell_N, weights=log.outcome_N, minlength=FOLDS * items).reshape(
        FOLDS, items
    )
    count_FI = count_FI.sum(axis=0) - count_FI
    sum_FI = sum_FI.sum(axis=0) - sum_FI
    mean_F = sum_FI.sum(axis=1) / count_FI.sum(axis=1)
    model_FI = (sum_FI + MEAN_SLOTS * mean_F[:, None]) / (count_FI + MEAN_SLOTS)
    direct_F = model_FI @ log.policy_I + (1 - log.policy_I.sum()) * mean_F
    return dr_mean(
        log.weight_N, log.outcome_N, model_FI[fold_N, log.item_N], direct_F[fold_N], log.user_N
    )


@dataclass(frozen=True)
class Tried:
    """One log: what was given by each estimator, now and by the rule before (null: refused), beside
    the truth."""

    truth: float
    now: dict[str, Estimate | None]
    before: dict[str, Estimate | None]
    diagnosis: Diagnosis


def tried(log: Log) -> Tried:
    """The estimates of a log by both rules."""
    arrays = log.weight_N, log.outcome_N, log.user_N
    diagnosis = Diagnosis.of(*arrays, outcomes_between=(0.0, 1.0))
    by = {
        "IPS": ips_mean(*arrays),
        "SNIPS": snips_mean(*arrays) if log.weight_N.any() else None,
        "doubly robust": robust(log),
    }
    now = {how: estimate if diagnosis.estimable else None for how, estimate in by.items()}
    if diagnosis.bias:
        now["IPS"] = None
    if by["doubly robust"].origin is None:  # on the wrong side of every outcome
        now["doubly robust"] = None
    off = abs(diagnosis.mean_weight - 1)
    gates = (
        diagnosis.n_eff >= MIN_SLOTS,
        diagnosis.users_eff >= MIN_USERS,
        diagnosis.outcomes >= MIN_OUTCOMES_ELSE,
        off <= MAX_OFF or off <= 4 * diagnosis.mean_weight_std_error,
    )
    before = {
        how: replace(estimate, df=None, origin=None) if estimate and all(gates) else None
        for how, estimate in by.items()
    }
    return Tried(log.truth, now, before, diagnosis)


def many(setting: Setting, simulations: int, seed: int) -> list[Tried]:
    """`simulations` logs of a setting."""
    return [
        tried(drawn(setting, np.random.default_rng([seed, simulation])))
        for simulation in range(simulations)
    ]


def held(trials: Sequence[Tried], how: str, *, before: bool = False) -> list[bool]:
    """Of the logs in which there was an estimate, whether its 95% interval holds the truth."""
    answers = [((trial.before if before else trial.now)[how], trial.truth) for trial in trials]
    ends = [(estimate.interval(), truth) for estimate, truth in answers if estimate is not None]
    return [low <= truth <= high for (low, high), truth in ends]


def share(words: str, hits: Sequence[bool], bar: str, least: float | None) -> dict[str, Any]:
    """A row of a share with its 95% interval, which is to be at least `least`."""
    value = float(np.mean(hits)) if len(hits) else 0.0
    low, high = wilson(value, len(hits))
    return {
        "claim": words,
        "value": value,
        "low": low,
        "high": high,
        "bar": bar,
        "ok": bool(least is None or value >= least),
        "seeds": len(hits),
        "command": COMMAND,
    }


def rare_rows(simulations: int, seed: int) -> Iterator[dict[str, Any]]:
    """Coverage and acceptance where outcomes are rare, by rate, largest weight and kind of
    users."""
    for rate, largest, heavy in product((0.01, 0.03), (20, 50), (False, True)):
        trials = [
            many(Setting(law, largest, rate, expected, heavy, better=better), simulations, seed)
            for law, expected, better in product(LAWS, EXPECTED, (0.0, 0.5))
        ]
        together = [trial for group in trials for trial in group]
        kind = "heavy users" if heavy else "a slot per user"
        where = f"off-policy, rate {rate:.0%}, weights up to {largest}, {kind}"
        least = 0.90 if heavy else 0.92
        for how in HOW:
            bar = 0.90 if how == "doubly robust" else least
            yield share(
                f"{where}: {how}, share of 95% intervals that hold the truth",
                held(together, how),
                f"at least {bar}",
                bar,
            )
        groups = [held(group, how) for group in trials for how in HOW]
        least_held = min(
            (hits for hits in groups if len(hits) >= simulations / 4), key=np.mean, default=[]
        )
        yield share(
            f"{where}: the least of these shares in one setting", least_held, "none: reported", None
        )
        old = held(together, "IPS", before=True)
        yield share(
            f"{where}: IPS, the same by the rule before: t from 10 effective outcomes on",
            old,
            "none: reported",
            None,
        )
        for how in ("IPS", "doubly robust"):
            given = [trial.now[how] is not None for trial in together]
            today = float(np.mean([trial.before[how] is not None for trial in together]))
            yield share(
                f"{where}: {how}, share of logs with an estimate",
                given,
                f"at least {today:.3f}, as before",
                today,
            )
        accepted = [
            [
                trial.now["IPS"].value / trial.truth - 1
                for trial in group
                if trial.now["IPS"] is not None
            ]
            for group in trials
        ]
        enough = [errors for errors in accepted if len(errors) >= 0.9 * simulations]
        if enough:
            errors = np.concatenate(enough)
            yield {
                "claim": f"{where}: IPS where 90% of logs have an estimate, mean relative error "
                "of those that have one",
                "value": float(errors.mean()),
                "low": float(errors.mean() - 1.96 * errors.std() / len(errors) ** 0.5),
                "high": float(errors.mean() + 1.96 * errors.std() / len(errors) ** 0.5),
                "bar": "within 0.05 of 0",
                "ok": bool(abs(errors.mean()) <= 0.05),
                "seeds": len(errors),
                "command": COMMAND,
            }


def common_rows(simulations: int, seed: int) -> Iterator[dict[str, Any]]:
    """Coverage where outcomes are common: nothing may be lost."""
    for rate, heavy in product((0.2, 0.4), (False, True)):
        trials = many(Setting("forty items", 8, rate, 1_000, heavy, spread=0.15), simulations, seed)
        where = (
            f"off-policy, rate {rate:.0%}, weights up to 8, "
            f"{'heavy users' if heavy else 'a slot per user'}"
        )
        for how in HOW:
            old = held(trials, how, before=True)
            bar = min(0.93, float(np.mean(old or [1.0])) - 0.01)
            yield share(
                f"{where}: {how}, share of 95% intervals that hold the truth",
                held(trials, how),
                f"at least {bar:.3f}",
                bar,
            )


def bias_rows(simulations: int, seed: int) -> Iterator[dict[str, Any]]:
    """What the log proves of its weights: refused where they are off, and nowhere else; the bound
    holds the truth."""
    fair = Setting("six items", 20, 0.03, 200)
    for words, setting, wanted in (
        ("propensities stated 3% too small", replace(fair, stated=0.97, expected=2_000), True),
        ("4% of the policy's choices never made", replace(fair, unseen=0.04, expected=1_500), True),
        ("right propensities", fair, False),
        ("right propensities, heavy users", replace(fair, heavy=True), False),
    ):
        trials = many(setting, simulations, seed)
        refused = [trial.now["IPS"] is None for trial in trials]
        what = "IPS refused" if wanted else "IPS given"
        hits = refused if wanted else [not one for one in refused]
        yield share(f"off-policy, {words}: share of logs with {what}", hits, "at least 0.95", 0.95)
        if setting.unseen:
            bounds = [(trial.diagnosis.value_bounds, trial.truth) for trial in trials]
            inside = [ends is not None and ends[0] <= truth <= ends[1] for ends, truth in bounds]
            yield share(
                f"off-policy, {words}: share of bounds that hold the truth",
                inside,
                "at least 0.95",
                0.95,
            )


def rows(simulations: int, seed: int) -> list[dict[str, Any]]:
    """Every claim on off-policy gates and intervals.

    Args:
        simulations: logs per setting.
        seed: of their luck.
    """
    return [
        *rare_rows(simulations, seed),
        *common_rows(simulations, seed),
        *bias_rows(max(simulations // 4, 5), seed),
    ]
