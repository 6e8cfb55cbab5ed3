"""Entries: what opens a signal's window, and the functions that declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from longplay.errors import ConfigError
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals.declare.checks import check_choice, checked_days
from longplay.signals.declare.entry_kinds import ENTRIES, EntryKind

Key = Literal["creator", "item"]
KEYS = ("creator", "item")
EVER = "ever"  # in TOML, which has no null, a discovery's `novel_for=None`
ENTRY_KINDS = tuple(ENTRIES)


@dataclass(frozen=True)
class Entry:
    """What opens a window.

    Attributes:
        kind: a name of `ENTRIES`. Each kind has a function of its name.
        of: creator or item, for discovery, exposure and (if wanted) event; else null.
        novel_for: for a discovery, it is the first touch in this many days; null: in the log. For
            an event, it is the first of its kind in this many days; null: every event.
        event: for kind="event" the kind of event.
        dormant_for: for a user_day, it comes after at least this many days without activity.
        origin: for kind="event" only events of this origin.
        surface: for kind="event" only events on this surface.
    """

    kind: str
    of: Key | None = None
    novel_for: int | None = None
    event: str | None = None
    dormant_for: int | None = None
    origin: str | None = None
    surface: str | None = None

    def __post_init__(self) -> None:
        check_choice("entry", "kind", self.kind, ENTRY_KINDS)
        allowed = self.record.fields
        if "of" in self.record.required or ("of" in allowed and self.of is not None):
            check_choice("entry", "of", self.of, KEYS)
        elif self.of is not None:
            raise ConfigError(
                f"entry: of={self.of!r} given, expected none: only discovery and exposure have "
                f"one, and event may, not {self.kind}"
            )
        if self.novel_for is not None:
            if "novel_for" not in allowed:
                raise ConfigError(
                    f"entry: novel_for={self.novel_for!r} given, expected none: it is only for a "
                    "discovery or an event"
                )
            object.__setattr__(
                self, "novel_for", checked_days("entry", "novel_for", self.novel_for)
            )
        if "event" in self.record.required:
            check_choice("entry", "event", self.event, KINDS)
        elif self.event is not None:
            raise ConfigError(
                f"entry: event={self.event!r} given, expected none: it is only for entries of "
                f"kind event, not {self.kind}"
            )
        if self.dormant_for is not None:
            if "dormant_for" not in allowed:
                raise ConfigError(
                    f"entry: dormant_for={self.dormant_for!r} given, expected none: it is only "
                    f"for user_day, not {self.kind}"
                )
            object.__setattr__(
                self, "dormant_for", checked_days("entry", "dormant_for", self.dormant_for)
            )
        self._check_narrowed()

    def _check_narrowed(self) -> None:
        """Raise unless origin and surface are declared for an entry by event, and are possible."""
        for name in ("origin", "surface"):
            value = getattr(self, name)
            if value is not None and name not in self.record.fields:
                raise ConfigError(
                    f"entry: {name}={value!r} given, expected none: {self.kind} is opened by "
                    f"activity wherever it came from; use event(kind, {name}={value!r})"
                )
        if self.origin is not None:
            check_choice("entry", "origin", self.origin, ORIGINS)
        if self.surface is not None and (not isinstance(self.surface, str) or not self.surface):
            raise ConfigError(
                f"entry: surface={self.surface!r} given, expected the name of a surface"
            )

    @property
    def record(self) -> EntryKind:
        """The properties of the entry's kind."""
        return ENTRIES[self.kind]

    @property
    def is_slot(self) -> bool:
        """Whether an entry is a slot that was shown."""
        return self.record.is_slot

    @property
    def is_discovery(self) -> bool:
        """Whether an entry is the first touch of a creator or item."""
        return self.record.first_touch

    @property
    def is_enrolment(self) -> bool:
        """Whether there is one entry per user; an experiment may give its time."""
        return self.record.per_user

    @property
    def is_user_day(self) -> bool:
        """Whether an entry is a day of a user."""
        return self.record.per_day

    @property
    def is_event(self) -> bool:
        """Whether an entry is an event of the declared kind."""
        return self.record.opened_by == "event"

    @property
    def is_new(self) -> bool:
        """Whether an entry must be new: a first touch, or the first event of its kind in some
        days."""
        return self.is_discovery or self.novel_for is not None

    @property
    def looks_back_forever(self) -> bool:
        """Whether all earlier days of the log matter to an entry."""
        return self.dormant_for is not None or (self.is_discovery and self.novel_for is None)

    @property
    def unit(self) -> str:
        """What one entry is about: `user`, `user x creator`, `user x item`, or `slot` (of a slate that
        was shown)."""
        if self.is_slot:
            return "slot"
        return f"user x {self.of}" if self.of else "user"


def discovery(novel_for: int | None = 28, of: Key = "creator") -> Entry:
    """Entry: a user's first touch of a creator (or item) in `novel_for` days; null: in the log.

    A touch is any engaged event (play, save, like, follow, purchase, visit) of any origin.
    """
    return Entry("discovery", of, novel_for)


def exposure(of: Key = "creator") -> Entry:
    """Entry: every slot shown; needs a log with decisions."""
    return Entry("exposure", of)


def user_day(dormant_for: int | None = None) -> Entry:
    """Entry: every day on which a user is active; with `dormant_for`, only days after at least this
    many days without activity.

    A user's first active day in the log is never a return from dormancy, because the days before it
    are not known.
    """
    return Entry("user_day", dormant_for=dormant_for)


def enrolment() -> Entry:
    """Entry: a user's first exposure in an experiment, else the user's first event."""
    return Entry("enrolment")


def event(
    kind: str,
    of: Key | None = None,
    novel_for: int | None = None,
    *,
    origin: str | None = None,
    surface: str | None = None,
) -> Entry:
    """Entry: every event of a kind.

    Args:
        kind: play, skip, save, like, follow, purchase, refund, visit or cancel.
        of: the entry is about the event's creator or item; events without one open nothing.
        novel_for: only the first such event of the user (and creator or item) on a day, and only
            where there was none in this many days before; null: every event.
        origin: only events of this origin: organic, recommended or autoplay; null: of any.
        surface: only events on this surface, e.g. "search"; null: on any.
    """
    return Entry("event", of, novel_for, kind, origin=origin, surface=surface)


ENTRY_FIELDS = tuple(part.name for part in fields(Entry))


_DEFAULTS = {entry.kind: entry for entry in (discovery(), exposure(), user_day(), enrolment())}


def entry_of(table: Mapping[str, Any]) -> Entry:
    """The entry of a parsed TOML table. Keys that are left out have the defaults of the kind's
    function.

    Args:
        table: the keys are the fields of `Entry`; `kind` is required.

    >>> entry_of({"kind": "exposure"}) == exposure()
    True
    >>> entry_of({"kind": "discovery", "novel_for": "ever"}) == discovery(novel_for=None)
    True
    """
    default = _DEFAULTS.get(str(table["kind"]))
    declared = dict(table)
    if default is not None:
        declared = {"of": default.of, "novel_for": default.novel_for, **declared}
        if declared["novel_for"] == EVER and default.is_discovery:
            declared["novel_for"] = None
    return Entry(**declared)
