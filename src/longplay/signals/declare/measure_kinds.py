"""The kinds of measures, one record each. A new measure begins as a record here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from longplay.lake.schema import ENGAGED, KINDS

Better = Literal["higher", "lower"]
# What of a user's events is summed per day.
Reads = Literal["activity", "events", "seconds", "sessions", "shares", "amounts"]
# How the daily sums of a window become the amount: the number of days with anything, the first such
# day, the sum, the number of creators (or items) with enough days, the number of weeks with anything
How = Literal["days", "first", "sum", "habits", "weeks"]

NARROWED = ("event", "surface", "seconds")  # fields that count fewer events
MEAN = "the mean number of {amount}{about}{base}{how}"
SHARE = "the share with {bound} {amount}{about}{base}{how}"
SHARE_ACTIVE = "the share where the user is active{about} on {bound} {days}{base}{how}"


@dataclass(frozen=True)
class MeasureKind:
    """The properties of all measures of a kind.

    Attributes:
        name: the kind, and the function that declares it.
        reads: what of a user's events is summed per day.
        how: how the daily sums become the amount.
        plural: the unit of the amount, in the plural: "plays".
        singular: the same in the singular.
        fields: the fields of `Measure` that may be declared, apart from the threshold.
        required: those of them that must be declared.
        event: the kind of event that is counted; null: any, or the declared one.
        events: the kinds of event that may be declared.
        better: which direction is better; null: it depends on the kind of event.
        organic: only organic activity counts unless `origin` says otherwise, because the measure is
            about the days with activity.
        binary: the outcome is 0 or 1 without a threshold.
        takes_threshold: a threshold may be declared.
        has_rate: the amount has a daily rate, so it may be part of a ratio or have a baseline.
        additive: the outcome is the sum of its daily trace.
        whole_numbers: the amount is a whole number.
        is_share: the amount is a share of 1.
        is_mean: the amount is a mean over events, so a ratio without another measure.
        over_keys: it counts creators (or items), not events of the entry's own.
        most: the largest amount in `days_each` days; null: no bound.
        days_each: the days that `most` is about: 7 for a week.
        fixed_days: the active days that make a creator (or item) count, where they are not
            declared.
        about_key: the kind to use instead for one creator or item.
        unit: of the amount; null: its plural.
        title: the name in a list; null: the kind's name.
        title_of: the name in a list where it is about one creator or item; null: "TITLE of that
            creator".
        linked: the word between the amount and the creator or item that it is about.
        mean: the sentence of the amount.
        share: the sentence with a threshold.
        mean_ratio: the sentence of a ratio with this numerator.
        share_ratio: the same with a threshold.
    """

    name: str
    reads: Reads
    how: How
    plural: str
    singular: str
    fields: tuple[str, ...] = ("of",)
    required: tuple[str, ...] = ()
    event: str | None = None
    events: tuple[str, ...] = KINDS
    better: Better | None = None
    organic: bool = False
    binary: bool = False
    takes_threshold: bool = True
    has_rate: bool = True
    additive: bool = True
    whole_numbers: bool = True
    is_share: bool = False
    is_mean: bool = False
    over_keys: bool = False
    most: float | None = None
    days_each: int = 1
    fixed_days: int | None = None
    about_key: str | None = None
    unit: str | None = None
    title: str | None = None
    title_of: str | None = None
    linked: str = "with"
    mean: str = MEAN
    share: str = SHARE
    mean_ratio: str = "the mean number of {each}{how}"
    share_ratio: str = "the share with {bound} {each}{how}"

    @property
    def counts_days(self) -> bool:
        """Whether the daily amount is 0 or 1: was the user active that day."""
        return self.how == "days"

    @property
    def is_first_day(self) -> bool:
        """Whether the amount is the first active day, right-censored at the window's last day."""
        return self.how == "first"

    def counts_events_of(self, event: str) -> bool:
        """Whether this kind of measure counts this kind of event, and no other."""
        return self.reads == "events" and self.event == event


_ACTIVE_DAYS = MeasureKind(
    "active_days",
    reads="activity",
    how="days",
    plural="days active",
    singular="day active",
    fields=NARROWED,
    events=ENGAGED,
    organic=True,
    most=1,
    about_key="days_with",
    unit="days",
    share=SHARE_ACTIVE,
)
_RETURNED = MeasureKind(
    "returned",
    reads="activity",
    how="days",
    plural="days active",
    singular="day active",
    fields=NARROWED,
    events=ENGAGED,
    organic=True,
    binary=True,
    has_rate=False,
    most=1,
    about_key="days_with",
    unit="days",
    share="the share where the user is active again{more}{about}{how}",
)
_DAYS_WITH = MeasureKind(
    "days_with",
    reads="activity",
    how="days",
    plural="days active",
    singular="day active",
    fields=("of", *NARROWED),
    required=("of",),
    events=ENGAGED,
    organic=True,
    most=1,
    unit="days",
    title_of="days with that {of}",
    share=SHARE_ACTIVE,
)
_TIME_TO_RETURN = MeasureKind(
    "time_to_return",
    reads="activity",
    how="first",
    plural="days until a return",
    singular="day until a return",
    fields=("of", *NARROWED),
    events=ENGAGED,
    better="lower",
    organic=True,
    takes_threshold=False,
    has_rate=False,
    additive=False,
    unit="days",
    mean="the mean number of days until the user is active again{about}{how} at most {stop},",
)
_MINUTES = MeasureKind(
    "minutes",
    reads="seconds",
    how="sum",
    plural="minutes",
    singular="minute",
    fields=("of", *NARROWED),
    events=ENGAGED,
    whole_numbers=False,
    most=1_440,
)
_PLAYS = MeasureKind(
    "plays",
    reads="events",
    how="sum",
    plural="plays",
    singular="play",
    fields=("of", "surface", "seconds"),
    event="play",
    linked="of",
)
_SAVES = replace(_PLAYS, name="saves", plural="saves", singular="save", event="save")
_SKIPS = replace(_PLAYS, name="skips", plural="skips", singular="skip", event="skip")
_CANCELLED = MeasureKind(
    "cancelled",
    reads="events",
    how="sum",
    plural="cancellations",
    singular="cancellation",
    fields=(),
    event="cancel",
    binary=True,
    takes_threshold=False,
    has_rate=False,
    share="the share where the user cancels{how}",
)
_COUNT = MeasureKind(
    "count",
    reads="events",
    how="sum",
    plural="{events}",
    singular="{event}",
    fields=("of", *NARROWED),
    required=("event",),
    title="{event} events",
    linked="of",
)
_SESSIONS = MeasureKind(
    "sessions",
    reads="sessions",
    how="sum",
    plural="sessions",
    singular="session",
    fields=(),
    most=48,  # they lie more than 30 minutes apart
)
_COMPLETION = MeasureKind(
    "completion",
    reads="shares",
    how="sum",
    plural="shares of an item",
    singular="share of an item",
    fields=("of", "surface"),
    has_rate=False,
    additive=False,
    whole_numbers=False,
    is_share=True,
    is_mean=True,
    unit="share",
    linked="of",
    mean="the mean share of an item that a play{about} lasts{how}",
    share="the share where plays{about} last {bound} of an item on average{how}",
)
_HABITS = MeasureKind(
    "habits",
    reads="activity",
    how="habits",
    plural="{of}s that the user is active with on at least {days}",
    singular="{of} that the user is active with on at least {days}",
    fields=("of", "days", *NARROWED),
    required=("of", "days"),
    events=ENGAGED,
    organic=True,
    has_rate=False,
    over_keys=True,
    unit="{of}s",
    title_of="habits with {of}s of at least {days}",
)
_DISTINCT = MeasureKind(
    "distinct",
    reads="activity",
    how="habits",
    plural="different {of}s engaged with",
    singular="different {of} engaged with",
    fields=("of", *NARROWED),
    required=("of",),
    events=ENGAGED,
    has_rate=False,
    over_keys=True,
    fixed_days=1,
    unit="{of}s",
    title_of="different {of}s",
)
_ACTIVE_WEEKS = MeasureKind(
    "active_weeks",
    reads="activity",
    how="weeks",
    plural="weeks active",
    singular="week active",
    fields=("of", *NARROWED),
    events=ENGAGED,
    organic=True,
    has_rate=False,
    most=1,
    days_each=7,
    unit="weeks",
    title_of="weeks with that {of}",
    share="the share where the user is active{about} in {bound} {weeks}{how}",
)
_AMOUNT = MeasureKind(
    "amount",
    reads="amounts",
    how="sum",
    plural="amount of {events}",
    singular="amount of {events}",
    fields=("of", "event", "surface"),
    required=("event",),
    whole_numbers=False,
    title="amount of {event} events",
    linked="of",
    mean="the mean {amount}{about}{base}{how}",
    share="the share where the {amount}{about} comes to {bound}{base}{how}",
    mean_ratio="the mean {each}{how}",
    share_ratio="the share where the {each} comes to {bound}{how}",
)
MEASURES = MappingProxyType(
    {
        record.name: record
        for record in (
            _ACTIVE_DAYS,
            _RETURNED,
            _DAYS_WITH,
            _TIME_TO_RETURN,
            _MINUTES,
            _PLAYS,
            _SAVES,
            _SKIPS,
            _CANCELLED,
            _COUNT,
            _SESSIONS,
            _COMPLETION,
            _HABITS,
            _DISTINCT,
            _ACTIVE_WEEKS,
            _AMOUNT,
        )
    }
)
