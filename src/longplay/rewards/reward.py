"""The reward: weighted signals, caution and guardrails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from longplay.belief import Belief
from longplay.decisions import Contexts
from longplay.display import facts_html
from longplay.errors import ConfigError
from longplay.lake.lake import Lake
from longplay.rewards.early import EarlyReward, ValuesItems
from longplay.rewards.guardrails import Guarded, check_guardrails, guard_key
from longplay.signals.signal import Signal


@dataclass(frozen=True, eq=False)
class Reward:
    """What a policy is trained for: weighted signals, guardrails and caution.

    Attributes:
        objectives: weight per signal, finite, at least one not 0; a negative weight is a cost.
        guardrails: share in (0, 1] of the start's value that must be kept, per policy metric
            (`coverage(k)`, `top_creator()`) or signal (mean value of showing; where lower is better
            it may rise by 1 - share). Constraints, not weights: `reinforce` refuses weights that
            break one.
        caution: how many epistemic std are taken off the combined value, >= 0.

    >>> from longplay.signals import days_with, discovery
    >>> habit = Signal("habit", entry=discovery(), measure=days_with("creator") >= 3)
    >>> print(Reward({habit: 1.0}))
    1 x habit@bc08241b, caution 1
    >>> from longplay.rewards.guardrails import coverage
    >>> print(Reward({habit: 1.0}, guardrails={coverage(): 0.95}))
    1 x habit@bc08241b, caution 1, coverage@10 >= 95% of the start's
    >>> Reward({habit: 1.0}) == Reward({habit: 1.0}, caution=0.5)
    False
    """

    objectives: Mapping[Signal, float]
    guardrails: Mapping[Guarded, float] = field(default_factory=dict)
    caution: float = 1.0

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ConfigError(
                "reward: no objectives given, expected {signal: weight} with at least one signal"
            )
        for signal, weight in self.objectives.items():
            if not isinstance(signal, Signal):
                raise ConfigError(
                    f"reward: objective {signal!r} is no signal; expected {{signal: weight}}"
                )
            if (
                isinstance(weight, bool)
                or not isinstance(weight, int | float)
                or not np.isfinite(weight)
            ):
                raise ConfigError(
                    f"reward: weight {weight!r} of {signal.label} given, expected a finite number"
                )
        if not any(self.objectives.values()):
            raise ConfigError(
                "reward: every objective has weight 0, so there is nothing to learn from"
            )
        if len({signal.version for signal in self.objectives}) < len(self.objectives):
            raise ConfigError(
                "reward: two objectives have the same definition under different names; add their "
                "weights up"
            )
        if not np.isfinite(self.caution) or self.caution < 0:
            raise ConfigError(
                f"reward: caution={self.caution} given, expected a finite number >= 0 (how many "
                "std to subtract)"
            )
        check_guardrails(self.guardrails)
        object.__setattr__(
            self,
            "objectives",
            MappingProxyType({signal: float(weight) for signal, weight in self.objectives.items()}),
        )
        object.__setattr__(
            self,
            "guardrails",
            MappingProxyType({metric: float(bound) for metric, bound in self.guardrails.items()}),
        )

    @property
    def version(self) -> str:
        """Eight hex digits of the SHA-256 of the definition: signal versions with weights in any
        order, the caution, the guardrails."""
        weights = sorted((signal.version, weight) for signal, weight in self.objectives.items())
        bounds = sorted((guard_key(metric), bound) for metric, bound in self.guardrails.items())
        definition = [weights, float(self.caution), *([bounds] if bounds else [])]
        return hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:8]

    def combined(
        self,
        early: EarlyReward | Mapping[Signal, EarlyReward],
        contexts: Contexts,
        slates: pl.Series,
        lake: Lake,
    ) -> Belief:
        """The weighted sum of the signals' values of showing, [N, S]; take `.lower(reward.caution)`
        of it, not of its parts.

        Stds add up as the root of the sum of squares: the signals' errors are taken as independent.
        Its minimum is the weighted sum of the signals' minima (maxima where the weight is
        negative), so with one signal the bound never falls when the chance of an entry rises; with
        several that holds for the bound of each part.

        Args:
            early: the model of the one signal, or one model per signal.
            contexts: N of them.
            slates: of S items each, one per context.
            lake: the past, as of which items are familiar.

        Raises:
            ConfigError: an objective without a model, or a model of another signal.
        """
        models = _models(early, self.objectives, "objective")
        parts = [
            (weight, models[signal].value(contexts, slates, lake))
            for signal, weight in self.objectives.items()
            if weight
        ]
        return combine(parts)

    def combined_items(
        self,
        early: EarlyReward | Mapping[Signal, EarlyReward],
        contexts: Contexts,
        items: pl.Series,
        lake: Lake,
    ) -> Belief:
        """The weighted sum of the signals' values of showing each item alone in the first slot,
        [N, I]; see `combined`.

        Args:
            early: the model of the one signal, or one model per signal.
            contexts: N of them.
            items: I item ids.
            lake: the past, as of which items are familiar.

        Raises:
            ConfigError: an objective without a model, or a model of another signal.
        """
        models = _models(early, self.objectives, "objective")
        return combine(
            [
                (weight, item_value(models[signal], contexts, items, lake))
                for signal, weight in self.objectives.items()
                if weight
            ]
        )

    def guarded(
        self, early: EarlyReward | Mapping[Signal, EarlyReward]
    ) -> dict[Signal, EarlyReward]:
        """The early reward of each guardrail that is a signal.

        Raises:
            ConfigError: one of them has no model.
        """
        return _models(
            early, [metric for metric in self.guardrails if isinstance(metric, Signal)], "guardrail"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reward) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)

    def __reduce__(
        self,
    ) -> tuple[type[Reward], tuple[dict[Signal, float], dict[Guarded, float], float]]:
        # a read-only mapping does not pickle
        return Reward, (
            dict(self.objectives),
            dict(self.guardrails),
            self.caution,
        )

    def __str__(self) -> str:
        objectives = " + ".join(
            f"{weight:g} x {signal.label}" for signal, weight in self.objectives.items()
        )
        bounds = [
            f"{metric.label} >= {100 * bound:g}% of the start's"
            for metric, bound in self.guardrails.items()
        ]
        return ", ".join([objectives, f"caution {self.caution:g}", *bounds])

    def __repr__(self) -> str:
        return f"Reward({self})"

    def _repr_html_(self) -> str:
        objectives = {
            f"{weight:g} x {signal.label}": str(signal)
            for signal, weight in self.objectives.items()
        }
        bounds = {
            f"{metric.label}, guardrail": f"at least {100 * bound:g}% of the start's"
            for metric, bound in self.guardrails.items()
        }
        caution = {"caution": f"{self.caution:g} std of belief are subtracted"}
        return facts_html(f"Reward {self.version}", objectives | bounds | caution)


def _models(
    early: EarlyReward | Mapping[Signal, EarlyReward], wanted: Iterable[Signal], role: str
) -> dict[Signal, EarlyReward]:
    models = list(early.values()) if isinstance(early, Mapping) else [early]
    by_version = {model.signal.version: model for model in models}
    missing = [signal.label for signal in wanted if signal.version not in by_version]
    if missing:
        have = ", ".join(model.signal.label for model in models) or "none"
        raise ConfigError(
            f"reward: no early reward for {', '.join(missing)} (given: {have}); pass {{signal: "
            f"fitted model}}, one per {role}"
        )
    return {signal: by_version[signal.version] for signal in wanted}


def item_value(early: EarlyReward, contexts: Contexts, items: pl.Series, lake: Lake) -> Belief:
    """The value of showing each item alone in the first slot, [N, I]: of all at once where the early
    reward can, else of a slate for each pair."""
    if isinstance(early, ValuesItems):
        return early.item_value(contexts, items, lake)
    shape = len(contexts), len(items)
    row = np.repeat(np.arange(shape[0]), shape[1])
    alone = items.cast(pl.String).to_frame("item").select(pl.concat_list("item")).to_series()
    slates = pl.concat([alone] * shape[0]) if shape[0] else alone.clear()
    belief = early.value(contexts.take(row).with_slots(1), slates, lake)
    reshaped = {
        name: np.broadcast_to(getattr(belief, name), belief.mean.shape).reshape(shape)
        for name in ("mean", "std", "spread", "minimum", "maximum")
    }
    return replace(belief, **reshaped, keys=None)


def combine(parts: list[tuple[float, Belief]]) -> Belief:
    """The belief about a weighted sum of outcomes. Errors and single outcomes of the parts are
    taken as independent.

    >>> a = Belief(np.array([0.4]), np.array([0.3]), np.array([0.5]), 7, "a@1", maximum=1.0)
    >>> b = Belief(np.array([2.0]), np.array([0.4]), np.array([1.0]), 7, "b@1", maximum=5.0)
    >>> both = combine([(1.0, a), (-1.0, b)])
    >>> both.mean.tolist(), both.std.round(3).tolist(), both.minimum
    ([-1.6], [0.5], -5.0)
    """
    beliefs = [belief for _, belief in parts]
    ages = {belief.age for belief in beliefs}
    return Belief(
        mean=np.sum([weight * belief.mean for weight, belief in parts], axis=0),
        std=np.sqrt(np.sum([(weight * belief.std) ** 2 for weight, belief in parts], axis=0)),
        spread=np.sqrt(np.sum([(weight * belief.spread) ** 2 for weight, belief in parts], axis=0)),
        age=ages.pop() if len(ages) == 1 else -1,
        signal=" + ".join(f"{weight:g}*{belief.signal}" for weight, belief in parts),
        minimum=_sum(
            [
                weight * (belief.minimum if weight > 0 else belief.maximum)
                for weight, belief in parts
            ]
        ),
        keys=beliefs[0].keys,
        maximum=_sum(
            [
                weight * (belief.maximum if weight > 0 else belief.minimum)
                for weight, belief in parts
            ]
        ),
    )


def _sum(bounds: list[Any]) -> Any:
    return sum(bounds[1:], start=bounds[0])
