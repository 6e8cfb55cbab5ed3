"""Attribution rules: the weight that each exposure gets, and shares that sum exactly to the amount.

Axes: T touches (an exposure that may be credited for an entry), sorted by entry and then from the
earliest to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.errors import ConfigError
from longplay.signals.declare.checks import check_choice
from longplay.signals.declare.declaration import Declaration

LOOKBACK_DAYS = 28


@dataclass(frozen=True)
class RuleKind:
    """Properties of all rules of a kind.

    Attributes:
        name: the kind, and the function that declares it.
        weigh: the weight of each touch; see `weights`.
        words: how the rule prints, a template of its fields.
        has_half_life: whether the kind has a half-life.
        has_ends: whether the kind has ends.
        own_event: whether it needs to know which exposure the entry's own event came from.
    """

    name: str
    weigh: Callable[[pl.DataFrame, Rule, pl.DataFrame], Float]
    words: str
    has_half_life: bool = False
    has_ends: bool = False
    own_event: bool = False


@dataclass(frozen=True)
class Rule:
    """How one outcome is shared out over the touches that preceded it.

    Attributes:
        kind: last_touch and first_touch give all of it to that touch. discovery_touch gives it to
            the exposure that the entry's own event names by its `decision_id` and `slot`; if the
            event names none of the decisions, to the last touch on the event's surface, where the
            event was recommended; else to nobody. position gives the share `ends` to the first and
            to the last touch, and the rest in equal parts to those between. recency halves the
            weight of a touch with every `half_life` of age.
        half_life: days, for recency.
        ends: share in (0, 0.5], for position.

    >>> print(Rule("recency", half_life=3.0)), print(Rule("last_touch"))
    recency (half-life 3 days)
    last_touch
    (None, None)
    """

    kind: str
    half_life: float = 7.0
    ends: float = 0.4

    def __post_init__(self) -> None:
        check_choice("rule", "kind", self.kind, RULE_KINDS)
        for name, value, most in (
            ("half_life", self.half_life, 10_000.0),
            ("ends", self.ends, 0.5),
        ):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= most
            ):
                raise ConfigError(
                    f"rule: {name}={value!r} given, expected a number above 0, at most {most:g}"
                )
        if not self.record.has_half_life and self.half_life != 7.0:
            raise ConfigError(
                f"rule: half_life={self.half_life:g} given, expected none: only recency has one, "
                f"not {self.kind}"
            )
        if not self.record.has_ends and self.ends != 0.4:
            raise ConfigError(
                f"rule: ends={self.ends:g} given, expected none: only position has them, not "
                f"{self.kind}"
            )

    def __str__(self) -> str:
        days = "day" if self.half_life == 1 else "days"
        return self.record.words.format(half_life=self.half_life, days=days, ends=self.ends)

    @property
    def record(self) -> RuleKind:
        """The properties of the rule's kind."""
        return RULES[self.kind]

    def fits(self, signal: Declaration) -> bool:
        """Whether the rule applies to the signal. A discovery touch needs an entry that an event
        about a creator or item opened."""
        opened_by_event = not signal.entry.is_slot and signal.entry.of is not None
        return opened_by_event or not self.record.own_event


def last_touch() -> Rule:
    """Rule: the last touch gets all."""
    return Rule("last_touch")


def first_touch() -> Rule:
    """Rule: the first touch within the lookback gets all."""
    return Rule("first_touch")


def discovery_touch() -> Rule:
    """Rule: the touch that the entry's own event came from gets all; nobody does where the user
    found it without being shown."""
    return Rule("discovery_touch")


def position(ends: float = 0.4) -> Rule:
    """Rule: the first and the last touch get the share `ends` each, those between equal parts of the
    rest. Two touches get half each.

    Args:
        ends: share in (0, 0.5].
    """
    return Rule("position", ends=ends)


def recency(half_life: float = 7.0) -> Rule:
    """Rule: a touch that is `half_life` days older gets half as much."""
    return Rule("recency", half_life=half_life)


def weights(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    """The weight of each touch among those of its entry, shape [T], not normalised; 0 is no credit.

    Args:
        touches: columns of `touches_of`, T rows.
        rule: how the outcome is shared out.
        entries: `Outcomes.frame`.
    """
    return rule.record.weigh(touches, rule, entries)


def _last(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    return (touches["position"] == touches["touches"]).to_numpy().astype(float)


def _first(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    return (touches["position"] == 1).to_numpy().astype(float)


def _by_position(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    place_T = touches["position"].to_numpy().astype(float)
    count_T = touches["touches"].to_numpy().astype(float)
    end_T = (place_T == 1) | (place_T == count_T)
    between_T = (1 - 2 * rule.ends) / np.maximum(count_T - 2, 1)
    return np.where(count_T <= 2, 1.0, np.where(end_T, rule.ends, between_T))


def _by_age(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    # by age over the youngest: whole lookbacks of half-lives must not all underflow to 0
    youngest_T = touches.select(pl.col("age").min().over("entry"))["age"].to_numpy()
    return np.exp2(-(touches["age"].to_numpy() - youngest_T) / rule.half_life)


def _own_event(touches: pl.DataFrame, rule: Rule, entries: pl.DataFrame) -> Float:
    event = (
        entries.select(event_origin="origin", event_surface="surface")
        .with_row_index("entry")
        .with_columns(pl.col("entry").cast(pl.Int64))
    )
    at = touches.select("entry", "surface", "position", "named").join(
        event, on="entry", how="left", maintain_order="left"
    )
    on_its_surface = (pl.col("event_origin") == "recommended") & (
        pl.col("surface") == pl.col("event_surface")
    )
    possible_T = pl.coalesce("named", on_its_surface.fill_null(False))
    last_T = at.with_columns(possible=pl.when(possible_T).then("position")).select(
        (pl.col("possible") == pl.col("possible").max().over("entry"))
        .fill_null(False)
        .alias("last")
    )["last"]
    return last_T.to_numpy().astype(float)


RULES = MappingProxyType(
    {
        record.name: record
        for record in (
            RuleKind("last_touch", _last, "last_touch"),
            RuleKind("first_touch", _first, "first_touch"),
            RuleKind("discovery_touch", _own_event, "discovery_touch", own_event=True),
            RuleKind("position", _by_position, "position ({ends:.0%} to each end)", has_ends=True),
            RuleKind(
                "recency", _by_age, "recency (half-life {half_life:g} {days})", has_half_life=True
            ),
        )
    }
)
RULE_KINDS = tuple(RULES)


def apportion(due_T: Float, weight_T: Float, entry_T: Int) -> Float:
    """Shares of each entry's amount in proportion to the weights, shape [T]. The shares of an entry
    sum to its amount exactly, in any order.

    A double is a whole number of up to 2^53 units in its last place. Each part is a whole number of
    those units too: the difference of two neighbouring cumulative shares, rounded down. So the last
    part takes what rounding leaves over, and no sum of parts, in whatever order, ever needs more
    than 53 bits.

    Args:
        due_T: the entry's amount, repeated for each of its rows; NaN gives NaN.
        weight_T: >= 0, some above 0 in each entry.
        entry_T: ascending.

    >>> apportion(np.array([1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0]), np.array([4, 4, 4])).sum()
    np.float64(1.0)
    """
    if not len(entry_T):
        return np.empty(0)
    first_T = np.concatenate([[True], entry_T[1:] != entry_T[:-1]])
    start_T = np.maximum.accumulate(np.where(first_T, np.arange(len(entry_T)), 0))
    group_T = np.cumsum(first_T) - 1
    cumulative_T = np.empty(len(entry_T))
    lengths = np.diff(np.append(np.flatnonzero(first_T), len(entry_T)))
    # entry by entry, not one running sum over all: that would lose the digits of late entries
    rank_T = np.arange(len(entry_T)) - start_T
    running_G = np.zeros(len(lengths))
    order = np.argsort(rank_T, kind="stable")
    bounds = np.searchsorted(rank_T[order], np.arange(int(lengths.max()) + 1))
    for rank in range(int(lengths.max())):
        rows = order[bounds[rank] : bounds[rank + 1]]
        running_G[group_T[rows]] += weight_T[rows]
        cumulative_T[rows] = running_G[group_T[rows]]
    last_T = np.append(first_T[1:], True)
    share_T = np.where(last_T, 1.0, np.minimum(cumulative_T / running_G[group_T], 1.0))
    mantissa_T, exponent_T = np.frexp(np.abs(due_T))
    with np.errstate(invalid="ignore"):
        until_T = np.floor(share_T * mantissa_T * 2.0**53)
        part_T = until_T - np.where(first_T, 0.0, np.concatenate([[0.0], until_T[:-1]]))
        return np.copysign(np.ldexp(part_T, exponent_T - 53), due_T)
