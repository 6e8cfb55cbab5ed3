"""Off-policy values: what a policy would have been worth if it had chosen one slot."""

from __future__ import annotations

import numpy as np
import polars as pl

from longplay.decisions import Policy, Ranker
from longplay.errors import ConfigError
from longplay.estimate import Estimate, Refusal
from longplay.lake.lake import Lake
from longplay.ope.diagnostics import Array, Diagnosis, weigh
from longplay.ope.estimators import clip_weights, dr_mean, ips_mean, origin_of, snips_mean
from longplay.ope.logged import Logged, Users, as_seen_by, logged_slots, own_choices, own_law
from longplay.ope.outcome_model import OutcomeModel, fit_outcome_model
from longplay.signals.outcomes.in_memory import Shown


def ips(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    clip: float | None = None,
) -> Estimate | Refusal:
    """Estimate the `one_step` value of `policy` per slot by inverse propensity scores, in the
    outcome's unit.

    The value of "in one slot choose as `policy` would, given the slots above it as logged; then
    follow the logger", averaged over all mature slots of the scored users on `surface`, each slot
    alike. Weight: pi(a | x, prefix) / pi0(a | x, prefix), pi recomputed on the logged contexts, pi0
    as logged; with the history the policy would have been given (`as_seen_by`) and without items
    that were not there yet. Interval clustered by user; of outcomes that lie on one side of 0, on
    the log scale (see `longplay.ope.estimators`). `Estimate.n` is users, `n_eff` effective users.
    Refused where the log proves that the mean weight is not 1, clipped or not: IPS is off by the
    same share.

    Args:
        policy: whose value is asked for.
        lake: the log, with decisions and their propensities.
        shown: `outcomes.on(lake.decisions)`; immature slots (null) do not count, in any arm or
            policy.
        surface: where; decisions elsewhere do not count. None: every surface counts.
        users: "held out" scores the fifth from whom nothing is learned. "all" scores everybody,
            five times the data: only for a policy that has learned nothing from this log (uniform,
            a law fixed beforehand, one trained on another log), as it would be praised for what it
            has seen. The estimand says so.
        clip: largest weight (> 0); what it cuts off biases the value low, and the estimand says how
            much that was.

    Returns:
        The estimate, or a `Refusal` that prints why the log cannot tell, with the numbers (see
        `diagnose`), and raises `NotEstimable` where its value is asked for.

    Raises:
        ConfigError: nothing was logged on this surface, or clip <= 0.
        DataError: `shown` is of another lake, or the policy cannot fill a slate in a logged
            context.
    """
    if clip is not None and not clip > 0:
        raise ConfigError(f"ips: clip={clip} given, expected a positive weight, e.g. 20, or None")
    logged, weight_N, diagnosis = _weights(policy, lake, shown, surface, users)
    refusal = _refusal(policy, shown, diagnosis) or _biased(policy, shown, diagnosis)
    if refusal is not None:
        return refusal
    how = "IPS"
    if clip is not None:
        weight_N, cut = clip_weights(weight_N, clip)
        how = f"IPS, weights clipped at {clip:g}: biased low, {cut:.1%} of the weight is cut off"
    return ips_mean(
        weight_N, logged.reward_N, logged.user_N, estimand=_estimand(policy, shown, how, users)
    )


def snips(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
) -> Estimate | Refusal:
    """Estimate the same value by self-normalised inverse propensity scores; arguments, estimand and
    errors as in `ips`.

    Divided by the mean weight instead of 1: steadier where weights vary, with a bias that falls as
    1 / effective slots. Of choices that the logger never makes it takes the outcome to be that of
    the others; where the log proves that there are such choices, the estimand names their share and
    between which bounds the value then lies.
    """
    logged, weight_N, diagnosis = _weights(policy, lake, shown, surface, users)
    refusal = _refusal(policy, shown, diagnosis)
    if refusal is not None:
        return refusal
    return snips_mean(
        weight_N,
        logged.reward_N,
        logged.user_N,
        estimand=_estimand(policy, shown, _snips_words(diagnosis), users),
    )


def doubly_robust(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    seed: int = 0,
    draws: int | None = 4,
) -> Estimate | Refusal:
    """Estimate the same value with propensities and an outcome model, E[q(x, prefix, own choice)] +
    mean(w (r - q)); estimand and errors as in `ips`.

    q is an outcome model of its own, cross-fitted by user on the scored slots
    (`ope.outcome_model`). Unbiased as `ips` is, and narrower the more of the outcome q explains.
    The expectation over the policy's own choice is sampled: full slates are drawn by
    `policy.decide`, and in each slot the first item outside the logged prefix is a draw of pi(. |
    x, prefix); see `decisions.outside`. That is exact where slates are drawn without replacement
    from one item law per context (Plackett-Luce), as every policy of longplay does; for another law
    use `ips` or `snips`.

    Args:
        policy: whose value is asked for.
        lake: the log, with decisions and their propensities.
        shown: as of `ips`.
        surface: as of `ips`.
        users: as of `ips`.
        seed: of the draws.
        draws: own slates per context (>= 1); their noise is inside the interval. None: no draws,
            the expectation is summed over the policy's whole law; for catalogues and logs of up to
            `logged.LAW_CELLS` slots x items.
    """
    if draws is not None and draws < 1:
        raise ConfigError(
            f"doubly_robust: draws={draws} given, expected at least 1 slate per context"
        )
    logged, weight_N, diagnosis = _weights(policy, lake, shown, surface, users, seed)
    refusal = _refusal(policy, shown, diagnosis)
    if refusal is not None:
        return refusal
    return _possible(
        policy,
        shown,
        logged,
        doubly_robust_mean(policy, lake, shown, logged, weight_N, seed, draws, diagnosis),
    )


def doubly_robust_mean(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    logged: Logged,
    weight_N: Array,
    seed: int = 0,
    draws: int | None = 4,
    diagnosis: Diagnosis | None = None,
) -> Estimate:
    """The doubly robust mean of slots whose weights are known, whatever `diagnose` says of them;
    `doubly_robust` asks it first.

    Args:
        policy: whose value is asked for.
        lake: the log, for the outcome model.
        shown: outcomes of the slots shown (`Outcomes.on`).
        logged: the slots and their weights, of `logged_slots` and `weigh`.
        weight_N: the slots and their weights, of `logged_slots` and `weigh`.
        seed: as of `doubly_robust`.
        draws: as of `doubly_robust`.
        diagnosis: of the same weights; the estimand says what it knows of choices that the logger
            never makes.
    """
    how = "doubly robust" + _unseen_words(diagnosis, "of which the model alone speaks")
    model = fit_outcome_model(lake, shown.signal, logged)
    direct_N = (
        _expected(policy, logged, model)
        if draws is None
        else _sampled(policy, logged, model, seed, draws)
    )
    return dr_mean(
        weight_N,
        logged.reward_N,
        model.predict(logged.items),
        direct_N,
        logged.user_N,
        estimand=_estimand(policy, shown, how, logged.users),
    )


def _sampled(policy: Policy, logged: Logged, model: OutcomeModel, seed: int, draws: int) -> Array:
    """The mean of q over `draws` of the policy's own choices in every slot, shape [N]."""
    direct_N = np.zeros(len(logged))
    for draw in range(
        draws
    ):  # a generator each: within one call a context's slate is always the same
        choice_M, _ = own_choices(policy, logged, np.random.default_rng([seed, draw]))
        direct_N += model.predict(choice_M.gather(logged.places)) / draws
    return direct_N


def _expected(policy: Policy, logged: Logged, model: OutcomeModel) -> Array:
    """E[q(x, prefix, own choice)] of every slot, summed over the policy's law, shape [N]."""
    if not isinstance(policy, Ranker):
        raise ConfigError(
            f"draws=None given, but {policy.name} does not state its law over the catalogue "
            "(`index`, `item_log_prob`); give draws"
        )
    law_NI = own_law(policy, logged)
    direct_N = np.zeros(len(logged))
    for row, item in enumerate(policy.index.ids):
        direct_N += law_NI[:, row] * model.predict(pl.Series([item]).new_from_index(0, len(logged)))
    return direct_N


def estimates(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    seed: int = 0,
    draws: int | None = 4,
) -> tuple[Diagnosis, dict[str, Estimate | Refusal]]:
    """`diagnose`, `ips`, `snips` and `doubly_robust` at once, by name; the policy is asked for its
    probabilities once."""
    logged, weight_N, diagnosis = _weights(policy, lake, shown, surface, users, seed)
    refusal = _refusal(policy, shown, diagnosis)
    if refusal is not None:
        return diagnosis, {"IPS": refusal, "SNIPS": refusal, "doubly robust": refusal}
    by_ips = _biased(policy, shown, diagnosis)
    if by_ips is None:
        by_ips = ips_mean(
            weight_N,
            logged.reward_N,
            logged.user_N,
            estimand=_estimand(policy, shown, "IPS", users),
        )
    by_snips = snips_mean(
        weight_N,
        logged.reward_N,
        logged.user_N,
        estimand=_estimand(policy, shown, _snips_words(diagnosis), users),
    )
    robust = doubly_robust_mean(policy, lake, shown, logged, weight_N, seed, draws, diagnosis)
    return diagnosis, {
        "IPS": by_ips,
        "SNIPS": by_snips,
        "doubly robust": _possible(policy, shown, logged, robust),
    }


def diagnose(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    seed: int = 0,
) -> Diagnosis:
    """What the log can say about `policy`: weights, overlap, propensities. Prints as a short text;
    `reasons` is empty where it is enough.

    Raises:
        ConfigError: nothing was logged on this surface.
        DataError: `shown` is of another lake.
    """
    return _weights(policy, lake, shown, surface, users, seed)[2]


def _weights(
    policy: Policy, lake: Lake, shown: Shown, surface: str | None, users: Users, seed: int = 0
) -> tuple[Logged, Array, Diagnosis]:
    """The slots that are scored, their weights, and what these say."""
    logged = as_seen_by(policy, logged_slots(lake, shown, surface, users), lake)
    weight_N, diagnosis = weigh(policy, logged, seed, shown.signal)
    return logged, weight_N, diagnosis


def _refusal(policy: Policy, shown: Shown, diagnosis: Diagnosis) -> Refusal | None:
    """Why there is no estimate at all, if a gate is not passed."""
    if diagnosis.estimable:
        return None
    why = f"{policy.name}: not estimable: " + "; and ".join(diagnosis.reasons)
    return Refusal(why, f"one_step value of {policy.name} per slot, {shown.signal.label}")


def _biased(policy: Policy, shown: Shown, diagnosis: Diagnosis) -> Refusal | None:
    """Why there is no estimate by IPS, if the log proves that its weights are off."""
    if not diagnosis.bias:
        return None
    why = (
        f"{policy.name}: not estimable by IPS: {diagnosis.bias}; correct the log, or take SNIPS "
        "or doubly robust"
    )
    return Refusal(why, f"one_step value of {policy.name} per slot, {shown.signal.label} (IPS)")


def _possible(policy: Policy, shown: Shown, logged: Logged, robust: Estimate) -> Estimate | Refusal:
    """The doubly robust estimate, or a refusal where it lies beyond every outcome: what its model
    got wrong outweighs the log."""
    origin, side = origin_of(logged.reward_N)
    if side == 0 or side * (robust.value - origin) > 0:
        return robust
    where = "below" if side > 0 else "above"
    why = (
        f"{policy.name}: not estimable by doubly robust: {robust.value:.3g} lies {where} every "
        f"outcome, expected beyond {origin:g}: the outcome "
        "model's errors outweigh the few outcomes; take SNIPS, or wait until more has matured"
    )
    return Refusal(why, robust.estimand)


def _snips_words(diagnosis: Diagnosis) -> str:
    return "SNIPS" + _unseen_words(diagnosis, "taken to be like the others")


def _unseen_words(diagnosis: Diagnosis | None, taken: str) -> str:
    """What the estimand has to say of choices that the logger never makes, where the log proves
    that there are some."""
    if diagnosis is None or not diagnosis.bias or diagnosis.mean_weight > 1:
        return ""
    return (
        f"; {1 - diagnosis.mean_weight:.1%} of the choices are never logged, {taken}: "
        f"{diagnosis.bound}"
    )


def _estimand(policy: Policy, shown: Shown, how: str, users: Users) -> str:
    whose = ", all users" if users == "all" else ""
    return f"one_step value of {policy.name} per slot, {shown.signal.label} ({how}{whose})"
