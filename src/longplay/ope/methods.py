"""The table of off-policy estimators: a name, a formula, and what each needs and refuses.

A new estimator is one file with a `Method` (its formula there, or in `estimators`) and one row of
`METHODS`. `value.estimates` and whatever reads its answers take it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.estimate import Estimate
from longplay.ope.diagnostics import Diagnosis
from longplay.ope.estimators import clip_weights, dr_mean, ips_mean, origin_of, snips_mean


@dataclass(frozen=True)
class ModelValues:
    """Predictions of an outcome model for N slots.

    Attributes:
        shown_N: of the item that was shown, fitted without the slot's user.
        policy_N: mean over the policy's choices in the slot.
    """

    shown_N: Float
    policy_N: Float


@dataclass(frozen=True)
class Evidence:
    """The data of an estimate: N mature slots of the scored users.

    Attributes:
        weight_N: pi / pi0 of what was shown, >= 0.
        reward_N: outcomes, in the signal's unit.
        user_N: whose slots they are.
        diagnosis: of the weights; null: none was made.
        model: of estimators that need one.
    """

    weight_N: Float
    reward_N: Float
    user_N: NDArray[np.generic]
    diagnosis: Diagnosis | None = None
    model: ModelValues | None = None

    @property
    def bias(self) -> str:
        """What the log proves about the weights (see `Diagnosis.bias`). Empty where it proves
        nothing."""
        return "" if self.diagnosis is None else self.diagnosis.bias


def _no_reason(evidence: Evidence) -> str:
    return ""


def _any_value(evidence: Evidence, estimate: Estimate) -> str:
    return ""


@dataclass(frozen=True)
class Method:
    """An estimator, and what it requires of a log.

    Attributes:
        name: in tables, results and messages.
        formula: the estimate, given the evidence and its estimand in words.
        how: the method in words, as the estimand has it.
        needs_model: whether the evidence must have an outcome model.
        refused_before: why this evidence gives no estimate; empty where it gives one. What refuses
            every estimator (`Diagnosis.reasons`) has been asked before.
        refused_after: why an estimate is impossible; empty where it is possible.
    """

    name: str
    formula: Callable[[Evidence, str], Estimate]
    how: Callable[[Evidence], str]
    needs_model: bool = False
    refused_before: Callable[[Evidence], str] = _no_reason
    refused_after: Callable[[Evidence, Estimate], str] = _any_value


def model_of(evidence: Evidence) -> ModelValues:
    """The outcome model's predictions, for an estimator with `needs_model`."""
    assert evidence.model is not None, "the method's row must say needs_model=True"
    return evidence.model


def unseen_words(evidence: Evidence, taken: str) -> str:
    """Addition to an estimand where the log proves that the policy makes choices that the logger
    never makes.

    Args:
        evidence: what the estimate is made of.
        taken: how the method takes their outcomes.
    """
    diagnosis = evidence.diagnosis
    if diagnosis is None or not diagnosis.bias or diagnosis.mean_weight > 1:
        return ""
    return (
        f"; {1 - diagnosis.mean_weight:.1%} of the choices are never logged, {taken}: "
        f"{diagnosis.bound}"
    )


def beyond_every_outcome(evidence: Evidence, estimate: Estimate) -> str:
    """Why an estimate is refused that lies beyond every possible outcome: the errors of its model
    outweigh the log. Empty where it does not."""
    origin, side = origin_of(evidence.reward_N)
    if side == 0 or side * (estimate.value - origin) > 0:
        return ""
    where = "below" if side > 0 else "above"
    return (
        f"{estimate.value:.3g} lies {where} every outcome, expected beyond {origin:g}: the outcome "
        "model's errors outweigh the few outcomes; take SNIPS, or wait until more has matured"
    )


def _refused_by_bias(evidence: Evidence) -> str:
    if not evidence.bias:
        return ""
    return f"{evidence.bias}; correct the log, or take SNIPS or doubly robust"


def _by_ips(evidence: Evidence, estimand: str) -> Estimate:
    return ips_mean(evidence.weight_N, evidence.reward_N, evidence.user_N, estimand=estimand)


def _by_snips(evidence: Evidence, estimand: str) -> Estimate:
    return snips_mean(evidence.weight_N, evidence.reward_N, evidence.user_N, estimand=estimand)


def _by_doubly_robust(evidence: Evidence, estimand: str) -> Estimate:
    model = model_of(evidence)
    return dr_mean(
        evidence.weight_N,
        evidence.reward_N,
        model.shown_N,
        model.policy_N,
        evidence.user_N,
        estimand=estimand,
    )


IPS = Method("IPS", _by_ips, lambda evidence: "IPS", refused_before=_refused_by_bias)
SNIPS = Method(
    "SNIPS",
    _by_snips,
    lambda evidence: "SNIPS" + unseen_words(evidence, "taken to be like the others"),
)
DOUBLY_ROBUST = Method(
    "doubly robust",
    _by_doubly_robust,
    lambda evidence: "doubly robust" + unseen_words(evidence, "of which the model alone speaks"),
    needs_model=True,
    refused_after=beyond_every_outcome,
)
METHODS = (IPS, SNIPS, DOUBLY_ROBUST)


def clipped_ips(clip: float) -> Method:
    """IPS with weights of at most `clip` (> 0). Its estimand states how much weight that
    removes."""

    def formula(evidence: Evidence, estimand: str) -> Estimate:
        weight_N, _ = clip_weights(evidence.weight_N, clip)
        return ips_mean(weight_N, evidence.reward_N, evidence.user_N, estimand=estimand)

    def how(evidence: Evidence) -> str:
        _, cut = clip_weights(evidence.weight_N, clip)
        return f"IPS, weights clipped at {clip:g}: biased low, {cut:.1%} of the weight is cut off"

    return Method("IPS", formula, how, refused_before=_refused_by_bias)
