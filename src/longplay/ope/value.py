"""Off-policy values: what a policy would have been worth if it had chosen one slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.decisions import Policy, Ranker
from longplay.errors import ConfigError
from longplay.estimate import Estimate, Refusal
from longplay.lake.lake import Lake
from longplay.ope.diagnostics import Diagnosis, weigh
from longplay.ope.logged import Logged, Users, as_seen_by, logged_slots, own_choices, own_law
from longplay.ope.methods import (
    DOUBLY_ROBUST,
    IPS,
    METHODS,
    SNIPS,
    Evidence,
    Method,
    ModelValues,
    clipped_ips,
)
from longplay.ope.outcome_model import OutcomeModel, fit_outcome_model
from longplay.progress import Progress, ignore, reporting
from longplay.signals.outcomes.in_memory import Shown


def ips(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    clip: float | None = None,
    progress: Progress = None,
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
        progress: called with (steps done, steps); True or False: a progress line, or none; default:
            a line on a terminal or in a notebook.

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
    method = IPS if clip is None else clipped_ips(clip)
    with reporting("ips", "steps", progress) as report:
        question = _question(policy, lake, shown, surface, users, report=report)
        return question.answers([method])[method.name]


def snips(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    progress: Progress = None,
) -> Estimate | Refusal:
    """Estimate the same value by self-normalised inverse propensity scores; arguments, estimand and
    errors as in `ips`.

    Divided by the mean weight instead of 1: steadier where weights vary, with a bias that falls as
    1 / effective slots. Of choices that the logger never makes it takes the outcome to be that of
    the others; where the log proves that there are such choices, the estimand names their share and
    between which bounds the value then lies.
    """
    with reporting("snips", "steps", progress) as report:
        question = _question(policy, lake, shown, surface, users, report=report)
        return question.answers([SNIPS])[SNIPS.name]


def doubly_robust(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    seed: int = 0,
    draws: int | None = 4,
    progress: Progress = None,
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
        progress: as of `ips`.
    """
    if draws is not None and draws < 1:
        raise ConfigError(
            f"doubly_robust: draws={draws} given, expected at least 1 slate per context"
        )
    with reporting("doubly_robust", "steps", progress) as report:
        question = _question(policy, lake, shown, surface, users, seed, draws, report)
        return question.answers([DOUBLY_ROBUST])[DOUBLY_ROBUST.name]


def doubly_robust_mean(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    logged: Logged,
    weight_N: Float,
    seed: int = 0,
    draws: int | None = 4,
    diagnosis: Diagnosis | None = None,
) -> Estimate:
    """The doubly robust mean of slots with known weights, without the checks of `diagnose`, which
    `doubly_robust` runs first.

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
    question = _Question(policy, lake, shown, logged, weight_N, diagnosis, seed, draws)
    return question.estimate(DOUBLY_ROBUST, question.evidence(with_model=True))


def _sampled(policy: Policy, logged: Logged, model: OutcomeModel, seed: int, draws: int) -> Float:
    """Mean of q over `draws` choices of the policy in every slot, [N]."""
    direct_N = np.zeros(len(logged))
    # one generator per draw: within one call a context always gets the same slate
    for draw in range(draws):
        choice_M, _ = own_choices(policy, logged, np.random.default_rng([seed, draw]))
        direct_N += model.predict(choice_M.gather(logged.places)) / draws
    return direct_N


def _expected(policy: Policy, logged: Logged, model: OutcomeModel) -> Float:
    """Expectation of q over the policy's choices in every slot, summed over its whole distribution,
    [N]."""
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
    methods: Sequence[Method] = METHODS,
    progress: Progress = None,
) -> tuple[Diagnosis, dict[str, Estimate | Refusal]]:
    """`diagnose`, and the estimate or refusal of every method by name. The policy computes its
    probabilities once.

    Args:
        policy: what is judged.
        lake: the log.
        shown: as of `ips`.
        surface: as of `ips`.
        users: as of `ips`.
        seed: as of `doubly_robust`.
        draws: as of `doubly_robust`.
        methods: rows of `ope.methods`; default IPS, SNIPS and doubly robust.
        progress: as of `ips`.
    """
    with reporting("off-policy estimates", "steps", progress) as report:
        question = _question(policy, lake, shown, surface, users, seed, draws, report)
        return question.diagnosed, question.answers(methods)


def diagnose(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    *,
    surface: str | None = "home",
    users: Users = "held out",
    seed: int = 0,
    progress: Progress = None,
) -> Diagnosis:
    """Diagnose what the log can say about `policy`: weights, overlap, propensities.

    The diagnosis prints as a short text; its `reasons` are empty where the log is enough.

    Args:
        policy: what would be judged.
        lake: the log.
        shown: as of `ips`.
        surface: as of `ips`.
        users: as of `ips`.
        seed: as of `doubly_robust`.
        progress: as of `ips`.

    Raises:
        ConfigError: nothing was logged on this surface.
        DataError: `shown` is of another lake.
    """
    with reporting("diagnose", "steps", progress) as report:
        return _question(policy, lake, shown, surface, users, seed, report=report).diagnosed


def _question(
    policy: Policy,
    lake: Lake,
    shown: Shown,
    surface: str | None,
    users: Users,
    seed: int = 0,
    draws: int | None = 4,
    report: Callable[..., None] = ignore,
) -> _Question:
    """The scored slots, their weights, and the diagnosis.

    `report` is called with (steps done, steps): slots are found, weights computed, and last the
    estimates, which the caller asks of the question.
    """
    report(0, 3)
    logged = as_seen_by(policy, logged_slots(lake, shown, surface, users), lake)
    report(1, 3)
    weight_N, diagnosis = weigh(policy, logged, seed, shown.signal)
    report(2, 3)
    return _Question(policy, lake, shown, logged, weight_N, diagnosis, seed, draws)


@dataclass(frozen=True)
class _Question:
    """An off-policy question: the value of `policy` in the logged slots."""

    policy: Policy
    lake: Lake
    shown: Shown
    logged: Logged
    weight_N: Float
    diagnosis: Diagnosis | None
    seed: int
    draws: int | None

    @property
    def diagnosed(self) -> Diagnosis:
        """The diagnosis, which `_question` always makes."""
        assert self.diagnosis is not None
        return self.diagnosis

    def answers(self, methods: Sequence[Method]) -> dict[str, Estimate | Refusal]:
        """The estimate or the refusal of every method, by name. The outcome model is fitted
        once."""
        if not self.diagnosed.estimable:
            why = "; and ".join(self.diagnosed.reasons)
            refusal = Refusal(f"{self.policy.name}: not estimable: {why}", self._estimand())
            return {method.name: refusal for method in methods}
        evidence = self.evidence(with_model=any(method.needs_model for method in methods))
        return {method.name: self._answer(method, evidence) for method in methods}

    def _answer(self, method: Method, evidence: Evidence) -> Estimate | Refusal:
        """The method's estimate, or a refusal where its requirements are not met."""
        refused = f"{self.policy.name}: not estimable by {method.name}: "
        if reason := method.refused_before(evidence):
            return Refusal(refused + reason, self._estimand(f" ({method.name})"))
        estimate = self.estimate(method, evidence)
        if reason := method.refused_after(evidence, estimate):
            return Refusal(refused + reason, estimate.estimand)
        return estimate

    def estimate(self, method: Method, evidence: Evidence) -> Estimate:
        """The method's estimate, whether or not its requirements are met."""
        whose = ", all users" if self.logged.users == "all" else ""
        estimand = self._estimand(f" ({method.how(evidence)}{whose})")
        return method.formula(evidence, estimand)

    def evidence(self, *, with_model: bool) -> Evidence:
        """Weights, outcomes and users of the slots; with `with_model` also the predictions of an
        outcome model."""
        logged = self.logged
        model = self._model_values() if with_model else None
        return Evidence(self.weight_N, logged.reward_N, logged.user_N, self.diagnosis, model)

    def _model_values(self) -> ModelValues:
        """Predictions of an outcome model, cross-fitted by user."""
        model = fit_outcome_model(self.lake, self.shown.signal, self.logged)
        if self.draws is None:
            policy_N = _expected(self.policy, self.logged, model)
        else:
            policy_N = _sampled(self.policy, self.logged, model, self.seed, self.draws)
        return ModelValues(model.predict(self.logged.items), policy_N)

    def _estimand(self, how: str = "") -> str:
        return f"one_step value of {self.policy.name} per slot, {self.shown.signal.label}{how}"
