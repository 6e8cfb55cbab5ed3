"""The differences between the definitions of two versions of a signal, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.sentence import bound_in_words, opener, title


@dataclass(frozen=True)
class ChangedPart:
    """A part of a definition that differs; prints as `window: days 1 to 28, now days 1 to 14`.

    Attributes:
        name: of the part.
        old: the old version's, in words.
        new: the new version's, in words.
    """

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old}, now {self.new}"


def changed_parts(old: Declaration, new: Declaration) -> tuple[ChangedPart, ...]:
    """The parts of the definition in which two signals differ, defaults resolved; empty where their
    versions are equal.

    >>> from longplay.signals import READY
    >>> from dataclasses import replace
    >>> print(*changed_parts(READY["habit"], replace(READY["habit"], window=(1, 14))))
    window: days 1 to 28, now days 1 to 14
    """
    parts = (ChangedPart(name, in_words(old), in_words(new)) for name, in_words in _PARTS.items())
    return tuple(part for part in parts if part.old != part.new)


def definition_lines(old: Declaration, new: Declaration) -> list[str]:
    """The sentences of both versions, and what differs in words."""
    if old.version == new.version:
        renamed = "" if old.name == new.name else f" under another name, {new.name}"
        return [
            f"{old.label}: {_sentence(old)}",
            f"the same definition{renamed}: nothing changes, and results of one are results of "
            "the other",
        ]
    return [
        f"old {old.label}: {_sentence(old)}",
        f"new {new.label}: {_sentence(new)}",
        *(f"changed {part}" for part in changed_parts(old, new)),
    ]


def _sentence(signal: Declaration) -> str:
    """A signal's sentence without its name."""
    return str(signal).split(": ", 1)[1]


def days_in_words(count: int | None) -> str:
    """A number of days.

    >>> days_in_words(1), days_in_words(28)
    ('1 day', '28 days')
    """
    return "1 day" if count == 1 else f"{count} days"


def _novelty(signal: Declaration) -> str:
    entry = signal.entry
    if entry.novel_for is None:
        return "none before in the log" if entry.is_discovery else "not asked"
    return f"none in {days_in_words(entry.novel_for)} before"


def _dormancy(signal: Declaration) -> str:
    if signal.entry.dormant_for is None:
        return "not asked"
    return f"{days_in_words(signal.entry.dormant_for)} or more before"


def _divisor(signal: Declaration) -> str:
    return "nothing" if signal.measure.per is None else title(signal.measure.per)


def _baseline(signal: Declaration) -> str:
    if signal.measure.baseline is None:
        return "none"
    return f"the user's own rate in {days_in_words(signal.measure.baseline)} before"


def _threshold(signal: Declaration) -> str:
    return bound_in_words(signal.measure, signal.threshold) or "none, the amount itself"


def _window(signal: Declaration) -> str:
    start, stop = signal.window
    return f"day {start}" if start == stop else f"days {start} to {stop}"


# name of a part -> its words for a signal; together they are all that is in the version
_PARTS: dict[str, Callable[[Declaration], str]] = {
    "entry": lambda signal: opener(signal.entry),
    "about": lambda signal: signal.entry.of or "the user",
    "new": _novelty,
    "dormant": _dormancy,
    "measure": lambda signal: title(signal.measure),
    "per": _divisor,
    "baseline": _baseline,
    "threshold": _threshold,
    "window": _window,
    "origins": lambda signal: ", ".join(sorted(signal.origins)),
}
