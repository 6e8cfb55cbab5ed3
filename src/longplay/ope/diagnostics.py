"""Diagnosis of a log: weights, overlap and propensities, and when an estimate must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from longplay.arrays import Float
from longplay.decisions import Policy
from longplay.display import number
from longplay.estimate import Estimate, clustered_mean
from longplay.ope.estimators import effective_users, ips_mean, kish, usual
from longplay.ope.logged import Logged, Users, own_choices, slot_log_prob
from longplay.signals.declare.declaration import Declaration

MIN_SLOTS = (
    100  # effective slots: the mean weight is then known to about a tenth, the width of MAX_OFF
)
MIN_USERS = 30  # effective users
# Effective outcomes: slots with another outcome than the most common one, and the users who had
# them. Where these are rare and all lie on one side of it, the interval is wide enough from 3 on
# (bench/verdicts.py: 95% intervals cover .92 and more). A higher gate would let those pass whom
# luck gave many outcomes. Else the interval is Student's t: it covers .80 with 2 to 5 of them, .88
# with 5 to 10, .91 with 10 to 20, .93 beyond.
MIN_OUTCOMES = 3
MIN_OUTCOMES_ELSE = 10
NONE_OF = -np.log(
    0.025
    # outcomes expected of which 97.5% of draws would show one: none of n users, at most this / n of
    # them
)
MAX_OFF = (
    0.1  # how far the mean weight may lie from 1, if it also does by MAX_OFF_ERRORS standard errors
)
MAX_OFF_IPS = 0.005  # the same for IPS, whose error is as large as the mean weight's
MAX_OFF_ERRORS = 4.0
# nats by which the first slots may be likelier under the policy than its own draws, if it also is
# by MAX_OFF_ERRORS standard errors
MAX_GAP = 0.1
MIN_SUPPORT = 0.9  # share of the policy's own choices that the log has shown to somebody
# share of logged slots with propensity 1: a last slot with one item left is one, a greedy log is
# full of them
MAX_CERTAIN = 0.5
SUPPORT_CONTEXTS = 2_000  # contexts in which the policy's own choices are looked at


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How well a log supports the off-policy value of a policy.

    Attributes:
        policy: its name.
        surface: where the slots were shown, or `every surface`.
        slots: mature slots of the scored users on the surface, and those users.
        users: mature slots of the scored users on the surface, and those users.
        decisions: of anybody on the surface.
        immature: further slots whose outcome is not known yet.
        missing: mature slots whose context was not logged.
        unusable: slots without a propensity in (0, 1].
        mean_weight: 1 in expectation where propensities are right and support is full; clustered by
            user.
        mean_weight_std_error: 1 in expectation where propensities are right and support is full;
            clustered by user.
        gap: of first slots, mean of weight x log pi(what was logged), less the mean log pi of the
            policy's own draws there, nats; clustered by user. 0 in expectation where the log was
            drawn by the propensities it holds. The mean weight alone cannot tell that of a policy
            near the logger: whatever was drawn, pi and the logged propensity of it are the same.
        gap_std_error: of first slots, mean of weight x log pi(what was logged), less the mean log
            pi of the policy's own draws there, nats; clustered by user. 0 in expectation where the
            log was drawn by the propensities it holds. The mean weight alone cannot tell that of a
            policy near the logger: whatever was drawn, pi and the logged propensity of it are the
            same.
        n_eff: effective slots, by Kish's formula.
        users_eff: effective users, by their summed weights, the `n_eff` of an estimate.
        outcomes: effective outcomes: Kish's effective number of slots with another outcome than the
            most common one, by weight x distance.
        outcome_users: the effective users who had them, by the sum of the same.
        one_side: whether most slots have the most common outcome and all others lie on one side of
            it.
        max_weight: the largest weight.
        certain: share of logged slots with propensity 1 (log_prob 0).
        support: share of the policy's own choices, given the slots above as logged, that the log
            has shown to anybody on the surface.
        unknown: share of logged slots with an item outside the policy's catalogue; their weight is
            0.
        scored: whose slots: those of held-out users, or of all.
        seen: mean of weight x outcome: what those of the policy's choices that the logger makes too
            contribute to its value.
        least: what an outcome can be, by the signal; where it has no such bound, the least and the
            most in the log.
        most: what an outcome can be, by the signal; where it has no such bound, the least and the
            most in the log.
    """

    policy: str
    surface: str
    decisions: int
    slots: int
    users: int
    immature: int
    missing: int
    unusable: int
    mean_weight: float
    mean_weight_std_error: float
    gap: float
    gap_std_error: float
    n_eff: float
    users_eff: float
    outcomes: float
    max_weight: float
    certain: float
    support: float
    unknown: float
    scored: Users = "held out"
    outcome_users: float = 0.0
    one_side: bool = False
    seen: Estimate | None = None
    least: float = 0.0
    most: float = 0.0

    @classmethod
    def of(
        cls,
        weight_N: Float,
        reward_N: Float,
        user_N: ArrayLike,
        *,
        policy: str = "policy",
        surface: str = "every surface",
        decisions: int | None = None,
        immature: int = 0,
        missing: int = 0,
        unusable: int = 0,
        gap: Estimate | None = None,
        certain: float = 0.0,
        support: float = 1.0,
        unknown: float = 0.0,
        outcomes_between: tuple[float, float] | None = None,
        scored: Users = "held out",
    ) -> Diagnosis:
        """The diagnosis of N slots from their weights and outcomes. `weigh` makes one from a log.

        Args:
            weight_N: of each slot its weight (>= 0), its outcome and its user, shape [N].
            reward_N: of each slot its weight (>= 0), its outcome and its user, shape [N].
            user_N: of each slot its weight (>= 0), its outcome and its user, shape [N].
            policy: as in `Diagnosis`.
            surface: as in `Diagnosis`.
            decisions: null: as many as slots.
            immature: as in `Diagnosis`.
            missing: as in `Diagnosis`.
            unusable: as in `Diagnosis`.
            gap: as in `Diagnosis`.
            certain: as in `Diagnosis`.
            support: as in `Diagnosis`.
            unknown: as in `Diagnosis`.
            outcomes_between: the least and the most that an outcome can be; null: those of
                `reward_N`.
            scored: as in `Diagnosis`.
        """
        slots = len(weight_N)
        mean = clustered_mean(weight_N, user_N) if slots else None
        if outcomes_between is None:
            outcomes_between = (float(reward_N.min(initial=0.0)), float(reward_N.max(initial=0.0)))
        common, side = usual(reward_N)
        distance_N = weight_N * np.abs(reward_N - common)
        return cls(
            policy=policy,
            surface=surface,
            decisions=slots if decisions is None else decisions,
            slots=slots,
            users=mean.n if mean else 0,
            immature=immature,
            missing=missing,
            unusable=unusable,
            mean_weight=mean.value if mean else np.nan,
            mean_weight_std_error=mean.std_error if mean else np.nan,
            gap=gap.value if gap else np.nan,
            gap_std_error=gap.std_error if gap else np.nan,
            n_eff=kish(weight_N),
            users_eff=effective_users(weight_N, user_N),
            outcomes=kish(distance_N),
            max_weight=float(weight_N.max(initial=0.0)),
            certain=certain,
            support=support,
            unknown=unknown,
            outcome_users=effective_users(distance_N, user_N),
            one_side=side != 0,
            seen=ips_mean(weight_N, reward_N, user_N) if slots else None,
            least=outcomes_between[0],
            most=outcomes_between[1],
            scored=scored,
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons against any estimate, the most basic first; empty where there are none."""
        if self.decisions == 0:
            return (
                "the log has no decisions, so no propensities; log every slate with the "
                "log-probability of its slots",
            )
        if self.missing:
            return (
                f"{self.missing:,} of {self.slots + self.missing:,} mature slots have no logged "
                "context, so the policy's probabilities are unknown "
                "there; log a context with every decision, or pass outcomes.on(the decisions that "
                "have one)",
            )
        if self.slots == 0:
            whose = " of a held-out user" if self.scored == "held out" else ""
            return (
                f"no slot{whose} is mature on {self.surface!r} ({self.immature:,} are immature); "
                "wait, or shorten the signal's window",
            )
        if self.unusable:
            return (
                f"{self.unusable:,} of {self.slots:,} logged slots have no propensity in (0, 1]; "
                "log log_prob as the slate was drawn",
            )
        if self.certain > MAX_CERTAIN:
            return (
                f"{self.certain:.0%} of logged slots have propensity 1: a greedy log shows no "
                "alternatives; log a policy that samples",
            )
        reasons = []
        if self.n_eff < MIN_SLOTS or self.users_eff < MIN_USERS:
            reasons.append(
                f"n_eff = {self.n_eff:,.0f} of {self.slots:,} slots, {self.users_eff:,.0f} of "
                f"{self.users:,} users; at least {MIN_SLOTS} and "
                f"{MIN_USERS} are needed: log longer, explore more, or evaluate a policy nearer "
                "to the logger"
            )
        if self.outcomes < self.outcomes_needed:
            reasons.append(
                f"only {self.outcomes:.1f} effective slots have another outcome than the most "
                f"common one; at least {self.outcomes_needed} are "
                "needed: wait until more has matured, or take a signal that varies more. Till "
                f"then, {self.bound}"
            )
        elif self.one_side and self.outcome_users < MIN_OUTCOMES:
            reasons.append(
                f"only {self.outcome_users:.1f} effective users have another outcome than the "
                f"most common one; at least {MIN_OUTCOMES} are "
                "needed: wait until more has matured, or take a signal that varies more. Till "
                f"then, {self.bound}"
            )
        if self.support < MIN_SUPPORT:
            reasons.append(
                f"the log has shown only {self.support:.0%} of what the policy would show; at "
                f"least {MIN_SUPPORT:.0%} is needed: explore more. "
                f"Whatever comes of the rest (unseen mass), {self.bound}"
            )
        if self._is_off(MAX_OFF):
            reasons.append(
                f"the {self._mean_weight}: the logged propensities "
                "are not those of the draw (sorted, unmasked, or without the slots before), or "
                "the logger never shows what the policy would"
                + (f". If it never shows it, {self.bound}" if self.mean_weight < 1 else "")
            )
        if abs(self.gap) > MAX_GAP and abs(self.gap) > MAX_OFF_ERRORS * self.gap_std_error:
            reasons.append(
                f"what was logged is {self.gap:+.2f} ± {self.gap_std_error:.2f} nats (standard "
                "error) likelier under the policy than its own draws "
                "are, expected 0: the slates were not drawn by the logged propensities (greedy, "
                "beam search, sorted, another temperature)"
            )
        return tuple(reasons)

    @property
    def outcomes_needed(self) -> int:
        """The minimum number of effective outcomes for an interval."""
        return MIN_OUTCOMES if self.one_side else MIN_OUTCOMES_ELSE

    def _is_off(self, far: float) -> bool:
        off = abs(self.mean_weight - 1)
        return off > far and off > MAX_OFF_ERRORS * self.mean_weight_std_error

    @property
    def _mean_weight(self) -> str:
        return (
            f"mean weight is {self.mean_weight:.4f} ± {self.mean_weight_std_error:.4f} "
            "(standard error), expected 1"
        )

    @property
    def bias(self) -> str:
        """Why IPS is biased, where the weights prove it; empty where they do not.

        The mean weight estimates what IPS makes of an outcome that is always 1. SNIPS divides by it
        and doubly robust weighs only what its model leaves over, so these are refused at `MAX_OFF`
        alone.
        """
        if not self._is_off(MAX_OFF_IPS):
            return ""
        if self.mean_weight > 1:
            return (
                f"the {self._mean_weight}: the logged propensities are too small, and IPS "
                f"counts every outcome {self.mean_weight:.4f} times"
            )
        return (
            f"the {self._mean_weight}: the logger never makes about {1 - self.mean_weight:.1%} of "
            "the policy's choices (unseen mass), which IPS "
            "counts as 0, or the logged propensities are too large. If it never makes them, "
            f"{self.bound}"
        )

    @property
    def unseen_at_most(self) -> float:
        """Unseen mass: the largest share of the policy's choices that the logger never makes, by
        the 95% interval of the mean weight.

        Where propensities are right, 1 less the mean weight estimates this share. NaN where nothing
        was logged.
        """
        weight = Estimate(
            self.mean_weight, self.mean_weight_std_error, self.users, self.users_eff, "mean weight"
        )
        return min(max(1 - weight.interval()[0], 0.0), 1.0) if self.users else np.nan

    @property
    def value_bounds(self) -> tuple[float, float] | None:
        """The lowest and highest possible value of the policy, whatever the outcomes of choices
        that the logger never makes.

        From the 95% interval of what the seen choices contribute, and the largest unseen share at
        the least and the most that an outcome can be. Where nothing has happened yet: as if every
        effective user were as likely to have had the most. Null where nothing was logged.
        """
        if self.seen is None:
            return None
        low, high = self.seen.interval()
        if self.outcomes == 0 and self.seen.value == 0 and self.users_eff > 0:
            high = max(self.most, 0.0) * NONE_OF / self.users_eff
        low += self.unseen_at_most * min(self.least, 0.0)
        high += self.unseen_at_most * max(self.most, 0.0)
        return max(low, self.least), min(high, self.most)

    @property
    def bound(self) -> str:
        """The bound in words; empty where nothing was logged."""
        if self.value_bounds is None:
            return ""
        low, high = self.value_bounds
        return (
            f"the value lies between {number(low)} and {number(high)} (95%, outcomes from "
            f"{number(self.least)} to {number(self.most)})"
        )

    @property
    def lacks(self) -> str:
        """The figure that a refusal depends on, in a few words for a table. Empty where nothing
        is refused, or the log itself is at fault."""
        if not self.reasons or self.slots == 0:
            return ""
        if self.outcomes < self.outcomes_needed or (
            self.one_side and self.outcome_users < MIN_OUTCOMES
        ):
            return f"{min(self.outcomes, self.outcome_users):.1f} effective outcomes"
        if self.n_eff < MIN_SLOTS:
            return f"n_eff {self.n_eff:,.0f} slots"
        if self.users_eff < MIN_USERS:
            return f"n_eff {self.users_eff:,.0f} users"
        if self.support < MIN_SUPPORT:
            return f"support {self.support:.0%}"
        return "propensities not those of the draw"

    @property
    def estimable(self) -> bool:
        """Whether the log can support an estimate: no reason stands against it."""
        return not self.reasons

    def __str__(self) -> str:
        whose = "held-out users" if self.scored == "held out" else "users, all there are"
        lines = [
            f"{self.policy} on {self.surface!r}: {self.slots:,} mature slots of {self.users:,} "
            f"{whose} ({self.immature:,} slots immature)",
            f"weights: mean {self.mean_weight:.3f} ± {self.mean_weight_std_error:.3f} (standard "
            f"error), largest {self.max_weight:,.1f}; "
            f"effective: {self.n_eff:,.0f} slots, {self.users_eff:,.0f} users, "
            f"{self.outcomes:,.1f} outcomes other than the most common, "
            f"{self.outcome_users:,.1f} users with one",
            f"likelihood of first slots less that of its own draws: {self.gap:+.3f} ± "
            f"{self.gap_std_error:.3f} nats (standard error)",
            f"support: {self.support:.1%} of its own choices were ever shown; {self.unknown:.1%} "
            "of logged slots lie outside its catalogue; "
            f"{self.certain:.1%} have propensity 1",
        ]
        if self.seen is not None:
            lines.append(
                f"unseen mass: the logger never makes at most {self.unseen_at_most:.1%} of its "
                f"choices; whatever comes of these, {self.bound}"
            )
        if not self.estimable:
            lines.append("not estimable: " + "; and ".join(self.reasons))
        elif self.bias:
            lines.append(f"estimable, but not by IPS: {self.bias}")
        else:
            lines.append("estimable")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "<p>" + escape(str(self)).replace("\n", "<br>") + "</p>"


def weigh(
    policy: Policy, logged: Logged, seed: int = 0, signal: Declaration | None = None
) -> tuple[Float, Diagnosis]:
    """The weights pi / pi0 of the mature slots, shape [N], and their diagnosis. A weak log raises
    no error.

    Args:
        policy: whose value is asked for.
        logged: mature slots with their propensities (`logged_slots`).
        seed: of the policy's own draws.
        signal: whose outcomes these are, for what an outcome can be; null: what the log holds.
    """
    log_prob_M, in_catalogue_M = slot_log_prob(policy, logged)
    usable_N = np.isfinite(logged.log_prob_N) & (logged.log_prob_N <= 1e-9)
    log_ratio_N = np.where(usable_N, log_prob_M[logged.places] - logged.log_prob_N, -np.inf)
    weight_N = np.exp(np.minimum(log_ratio_N, 300.0))
    nothing = len(logged) == 0
    support, gap = _own_draws(policy, logged, weight_N, log_prob_M, seed)
    return weight_N, Diagnosis.of(
        weight_N,
        logged.reward_N,
        logged.user_N,
        policy=policy.name,
        surface=logged.surface,
        decisions=logged.decisions,
        immature=logged.immature,
        missing=logged.missing,
        unusable=int((~usable_N).sum()),
        gap=gap,
        certain=np.nan if nothing else float(np.mean(logged.log_prob_N >= -1e-9)),
        support=support,
        unknown=np.nan if nothing else float(np.mean(~in_catalogue_M[logged.places])),
        outcomes_between=None if signal is None else outcome_range(signal, logged.reward_N),
        scored=logged.users,
    )


def _own_draws(
    policy: Policy, logged: Logged, weight_N: Float, log_prob_M: Float, seed: int
) -> tuple[float, Estimate | None]:
    """`support` and its gap, from draws of the policy on up to `SUPPORT_CONTEXTS` logged contexts;
    see `Diagnosis`."""
    if len(logged) == 0:
        return np.nan, None
    rows = np.unique(np.linspace(0, len(logged.contexts) - 1, SUPPORT_CONTEXTS).astype(np.int64))
    rows = rows[logged.lengths_D[rows] > 0]
    choice_M, draw_log_prob_R = own_choices(
        policy, logged, np.random.default_rng([seed, 2**31]), rows
    )
    support = (
        choice_M.to_frame("item")
        .select(pl.col("item").is_in(logged.shown.implode()))
        .to_series()
        .mean()
    )
    # mature first slots of these contexts
    first_N = np.flatnonzero((logged.slot_N == 0) & np.isin(logged.decision_N, rows))
    draw_log_prob_N = draw_log_prob_R[np.searchsorted(rows, logged.decision_N[first_N])]
    if not len(first_N) or not np.isfinite(draw_log_prob_N).all():
        return float(support or 0.0), None  # type: ignore[arg-type]
    # taken off both sides: the noise of the mean weight would drown the difference
    centre = float(draw_log_prob_N.mean())
    likely_N = np.where(weight_N[first_N] > 0, log_prob_M[logged.places[first_N]], centre)
    gap = clustered_mean(
        weight_N[first_N] * (likely_N - centre) - (draw_log_prob_N - centre), logged.user_N[first_N]
    )
    return float(support or 0.0), gap  # type: ignore[arg-type]


def outcome_range(signal: Declaration, reward_N: Float) -> tuple[float, float]:
    """The lowest and highest possible outcome of `signal`; where it has no bound, the lowest and
    highest of `reward_N`.

    >>> from longplay.signals import Signal, days_with, exposure
    >>> outcome_range(Signal("seen", entry=exposure(), measure=days_with("creator"), window=(1, 28)), np.zeros(3))
    (0.0, 28.0)
    """
    measure = signal.measure
    if measure.threshold is not None:
        return 0.0, 1.0
    least = 0.0 if measure.baseline is None else float(reward_N.min(initial=0.0))
    if not measure.counts_days or measure.per is not None or measure.baseline is not None:
        return least, float(reward_N.max(initial=0.0))
    return least, 1.0 if signal.binary else float(signal.days)
