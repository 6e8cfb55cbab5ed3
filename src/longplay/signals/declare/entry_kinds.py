"""The kinds of entries, one record each. A new entry begins as a record here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# What opens an entry: activity, an event of the declared kind, or a slot that is shown.
Opener = Literal["activity", "event", "slot"]


@dataclass(frozen=True)
class EntryKind:
    """The properties of all entries of a kind.

    Attributes:
        name: the kind, and the function that declares it.
        opened_by: what opens an entry.
        sentence: what a signal's sentence says of the entry; `{a}` is the article of `{of}`.
        title: the name in a list.
        fields: the fields of `Entry` that may be declared.
        required: those of them that must be declared.
        first_touch: only the first touch of a creator or item opens an entry, so that familiar ones
            open none, and an entry near the log's beginning may be truncated.
        per_day: there is one entry per user and active day.
        per_user: there is one entry per user; an experiment may give its time.
    """

    name: str
    opened_by: Opener
    sentence: str
    title: str
    fields: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    first_touch: bool = False
    per_day: bool = False
    per_user: bool = False

    @property
    def is_slot(self) -> bool:
        """Whether an entry is a slot that was shown."""
        return self.opened_by == "slot"


ENTRIES = MappingProxyType(
    {
        record.name: record
        for record in (
            EntryKind(
                "discovery",
                opened_by="activity",
                sentence="of a user's discoveries of {a} {of} ({first})",
                title="a discovery",
                fields=("of", "novel_for"),
                required=("of",),
                first_touch=True,
            ),
            EntryKind(
                "exposure",
                opened_by="slot",
                sentence="of the slots that show a user some {of}",
                title="a slot that is shown",
                fields=("of",),
                required=("of",),
            ),
            EntryKind(
                "user_day",
                opened_by="activity",
                sentence="of the days on which a user is active{dormant}",
                title="an active day",
                fields=("dormant_for",),
                per_day=True,
            ),
            EntryKind(
                "enrolment",
                opened_by="activity",
                sentence="of users, from their enrolment (first exposure in a trial, else first "
                "event)",
                title="enrolment",
                per_user=True,
            ),
            EntryKind(
                "event",
                opened_by="event",
                sentence="of a user's {events}{where}{of_key}{first_event}",
                title="a {event}{where}",
                fields=("of", "novel_for", "event", "origin", "surface"),
                required=("event",),
            ),
        )
    }
)
