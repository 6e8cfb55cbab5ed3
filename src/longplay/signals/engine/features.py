"""Features: what is summed per user and day, as SQL over events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from longplay.lake.daily import ENGAGED_TEST, quoted
from longplay.lake.schema import ENGAGED, ORIGINS
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.measure import Measure
from longplay.signals.declare.measure_kinds import Reads

# Seconds and shares are summed as whole numbers below 2^53, so that no sum depends on the order of
# rows.
SHARE = 1e9
MICROS = 1e6


@dataclass(frozen=True)
class Feature:
    """What is summed per day: `amount` of every event that matches the feature's filters.

    Attributes:
        name: the column of the sum.
        kinds: kinds of event that match.
        origins: origins of event that match.
        condition: SQL of a further filter, over the event and its item's length; empty: none.
        amount: SQL of the whole number that each matching event adds.
        needs: kinds of event of which the log must hold at least one, or the sum would mean
            nothing; empty: any.
        needs_seconds: the log must also hold an event with seconds.
        needs_length: `condition` reads the item's length.
        needs_amount: the log must hold a matching event with an amount.
        needs_surface: the log must also hold an event on this surface; null: on any.
        scale: the sum divided by this is in the unit of the measure.
    """

    name: str
    kinds: tuple[str, ...]
    origins: tuple[str, ...] = ORIGINS
    condition: str = ""
    amount: str = "1"
    needs: tuple[str, ...] = ()
    needs_seconds: bool = False
    needs_length: bool = False
    needs_amount: bool = False
    needs_surface: str | None = None
    scale: float = 1.0

    @property
    def any_origin(self) -> bool:
        """Whether events match whatever their origin, and without one."""
        return len(self.origins) == len(ORIGINS)

    def test(self, passed: Feature | None = None) -> str:
        """SQL condition that an event matches the feature's filters.

        Args:
            passed: a feature that the event matches; its filters are left out.

        >>> plays = Feature("plays", ("play",), ("organic",))
        >>> plays.test()
        "kind = 'play' and origin = 'organic'"
        >>> plays.test(passed=Feature("plays_any", ("play",)))
        "origin = 'organic'"
        """
        tests = []
        if passed is None or passed.kinds != self.kinds:
            tests.append(_is_in("kind", self.kinds))
        if self.condition and (passed is None or passed.condition != self.condition):
            tests.append(self.condition)
        if not self.any_origin and (passed is None or passed.origins != self.origins):
            tests.append(_is_in("origin", self.origins))
        return " and ".join(tests) or "true"

    def narrows(self, other: Feature) -> bool:
        """Whether the events that match this feature are a proper part of those that match the
        other, as far as the filters show."""
        is_within = (
            set(self.kinds) <= set(other.kinds)
            and set(self.origins) <= set(other.origins)
            and other.condition in ("", self.condition)
        )
        filters = (self.kinds, self.origins, self.condition)
        return is_within and filters != (other.kinds, other.origins, other.condition)


def widest(features: Iterable[Feature]) -> list[Feature]:
    """The fewest of these features that together match every event that any of them matches."""
    candidates = list(features)
    by_test = dict[str, Feature]()
    for feature in candidates:
        if not any(feature.narrows(other) for other in candidates):
            by_test.setdefault(feature.test(), feature)
    return list(by_test.values())


def _is_in(column: str, values: Sequence[str]) -> str:
    """SQL condition that a column has one of these values."""
    if tuple(values) == ENGAGED:
        return ENGAGED_TEST
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return f"{column} = {listed}" if len(values) == 1 else f"{column} in ({listed})"


def _sorted(origins: Sequence[str]) -> tuple[str, ...]:
    return tuple(origin for origin in ORIGINS if origin in origins)


def _name(stem: str, origins: Sequence[str]) -> str:
    """A feature's name: what it counts, and of which origins."""
    return f"{stem}_{'any' if len(origins) == len(ORIGINS) else '_'.join(sorted(origins))}"


def activity(origins: Sequence[str] = ORIGINS) -> Feature:
    """The feature that counts engaged events."""
    return Feature(_name("active", origins), ENGAGED, _sorted(origins))


def events_of(kind: str, origins: Sequence[str] = ORIGINS) -> Feature:
    """The feature that counts events of a kind."""
    return Feature(_name(kind, origins), (kind,), _sorted(origins), needs=(kind,))


TOUCHED = activity()
# not a sum over events: see `EventRows` in engine/event_source.py
SESSIONS = Feature("sessions", ())
_TIMED = "seconds is not null and length is not null"


def feature_of(measure: Measure, origins: Sequence[str]) -> Feature:
    """The feature that a measure sums per day; of a ratio, its numerator's."""
    event = measure.event if measure.record.reads in ("activity", "seconds") else None
    all_events = _READS[measure.record.reads](measure, origins)
    return narrowed(all_events, measure, event, measure.seconds)


def narrowed(
    feature: Feature,
    declared: Measure | Entry,
    event: str | None = None,
    seconds: float | None = None,
) -> Feature:
    """The feature over fewer events. Its name ends in a digest of the filters, because stored
    roll-ups are found by name.

    Args:
        feature: what is narrowed.
        declared: only events on its surface, if it declares one.
        event: only events of this kind; null: of all kinds of the feature.
        seconds: only events that last at least so long; null: of any length.
    """
    tests = []
    if declared.surface:
        tests.append(f"surface is not distinct from {quoted(declared.surface)}")
    if seconds is not None:
        tests.append(f"coalesce(seconds, 0) >= {seconds!r}")
    if not tests and event is None:
        return feature
    condition = " and ".join([*filter(None, [feature.condition]), *tests])
    digest = hashlib.sha256(f"{event} {condition}".encode()).hexdigest()[:12]
    return replace(
        feature,
        name=f"{feature.name}_{digest}",
        kinds=feature.kinds if event is None else (event,),
        needs=feature.needs if event is None else (event,),
        condition=condition,
        needs_seconds=feature.needs_seconds or seconds is not None,
        needs_surface=declared.surface,
    )


def _engaged_seconds(measure: Measure, origins: Sequence[str]) -> Feature:
    return Feature(
        _name("micros", origins),
        ENGAGED,
        _sorted(origins),
        amount=f"cast(coalesce(round(seconds * {MICROS}), 0) as bigint)",
        needs_seconds=True,
        scale=60 * MICROS,
    )


def _played_shares(measure: Measure, origins: Sequence[str]) -> Feature:
    return Feature(
        _name("share", origins),
        ("play",),
        _sorted(origins),
        condition=_TIMED,
        amount=f"cast(round(least(seconds / length, 1) * {SHARE}) as bigint)",
        needs=("play",),
        needs_length=True,
        scale=SHARE,
    )


def _amounts(measure: Measure, origins: Sequence[str]) -> Feature:
    event = str(measure.event)
    return Feature(
        _name(f"amount_{event}", origins),
        (event,),
        _sorted(origins),
        amount=f"cast(round(coalesce(amount, 0) * {MICROS}) as bigint)",
        needs=(event,),
        needs_amount=True,
        scale=MICROS,
    )


# The feature of each kind of reading. A measure that reads something new adds its case here.
_READS: dict[Reads, Callable[[Measure, Sequence[str]], Feature]] = {
    "activity": lambda measure, origins: activity(origins),
    "events": lambda measure, origins: events_of(str(measure.counted), origins),
    "seconds": _engaged_seconds,
    "sessions": lambda measure, origins: SESSIONS,
    "shares": _played_shares,
    "amounts": _amounts,
}


def divisor_of(measure: Measure, origins: Sequence[str]) -> Feature | None:
    """The feature that a ratio is divided by; null where the measure is no ratio."""
    if measure.record.is_mean:
        timed_plays = Feature(
            _name("lasted", origins),
            ("play",),
            _sorted(origins),
            _TIMED,
            needs=("play",),
            needs_length=True,
        )
        return narrowed(timed_plays, measure)
    return None if measure.per is None else feature_of(measure.per, origins)
