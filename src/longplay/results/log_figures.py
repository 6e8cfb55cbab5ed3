"""Results of the stages `ingest` and `simulate`: the log at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.results.record import StageResult


@dataclass(frozen=True)
class LogSource:
    """Where a log comes from.

    Attributes:
        format: of the file, or that it is simulated.
        name: of the file, or the seed.
        rows: rows read.
    """

    format: str
    name: str
    rows: int


@dataclass(frozen=True)
class DayOfLog:
    """Activity of one UTC day.

    Attributes:
        day: ISO date.
        users: users with an engaged event.
        events: engaged events.
    """

    day: str
    users: int
    events: int


@dataclass(frozen=True)
class WeekOfUsers:
    """Retention of one week after users' first day.

    Attributes:
        week: 0 is the first day itself, 1 the seven days after it.
        share: of the users who were active in it, 0..1.
        users: users whose week had ended.
    """

    week: int
    share: float
    users: int


@dataclass(frozen=True)
class LogFigures:
    """A log at a glance; see `lake.glance.glance`.

    Attributes:
        events: events.
        users: users with an event.
        items: items of the catalogue.
        decisions: logged slates.
        quarantined: rows set aside.
        first: time of the first event, null where there is none.
        last: time of the last event, null where there is none.
        watermark: the moment up to which the log is complete.
        kinds: events by kind.
        origins: events by origin.
        activity: one row per day with an engaged event.
        long_days: a sentence on days of more than 24 hours, null where there is none.
        creators: a sentence on events and catalogue that disagree; empty where they agree.
        retention: one row per week.
    """

    events: int
    users: int
    items: int
    decisions: int
    quarantined: int
    first: str | None
    last: str | None
    watermark: str
    kinds: Mapping[str, int]
    origins: Mapping[str, int]
    activity: tuple[DayOfLog, ...]
    long_days: str | None
    creators: str
    retention: tuple[WeekOfUsers, ...]


@dataclass(frozen=True)
class LogResult(LogFigures, StageResult):
    """A log at a glance, and how it was read.

    Attributes:
        source: where the log comes from.
        rejected: rows set aside by reason.
        notes: sentences on what the reader decided.
        has_origin: whether the log says where events come from.
        has_decisions: whether the log says what was shown.
    """

    source: LogSource
    rejected: Mapping[str, int]
    notes: tuple[str, ...]
    has_origin: bool
    has_decisions: bool


@dataclass(frozen=True)
class IngestResult(LogResult, stage="ingest"):
    """The log of the user's own service."""


@dataclass(frozen=True)
class SimulateResult(LogResult, stage="simulate"):
    """The log of a simulated service.

    Attributes:
        exclude: what its slates leave out: seen, creator or none.
    """

    exclude: str
