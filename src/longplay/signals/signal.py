"""A signal: an outcome worth waiting for, declared as data, that prints as the sentence it means."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from longplay.errors import ConfigError
from longplay.lake.schema import ORIGINS

if TYPE_CHECKING:
    from longplay.lake.lake import Lake
    from longplay.signals.outcomes import Outcomes

Key = Literal["creator", "item"]
MAX_WINDOW_DAYS = 365


@dataclass(frozen=True)
class Entry:
    """What opens a window: `kind` is discovery, exposure, user_day or enrolment.

    Attributes:
        kind: what opens it. of: creator or item, for discovery and exposure; else null.
        novel_for: a discovery is a first touch in this many days; null: the first touch in the log.
    """

    kind: Literal["discovery", "exposure", "user_day", "enrolment"]
    of: Key | None = None
    novel_for: int | None = None

    def __post_init__(self) -> None:
        _one_of("entry", "kind", self.kind, ("discovery", "exposure", "user_day", "enrolment"))
        if self.kind in ("discovery", "exposure"):
            _one_of("entry", "of", self.of, ("creator", "item"))
        elif self.of is not None:
            raise ConfigError(f"entry: of={self.of!r} given, expected none: only discovery and exposure have one, not {self.kind}")
        if self.novel_for is not None and (self.kind != "discovery" or not _whole(self.novel_for) or not 1 <= self.novel_for <= MAX_WINDOW_DAYS):
            raise ConfigError(f"entry: novel_for={self.novel_for!r} given, expected 1 to {MAX_WINDOW_DAYS} whole days, and only for a discovery")

    @property
    def unit(self) -> str:
        """What one entry is about: `user`, `user x creator` or `user x item`."""
        return f"user x {self.of}" if self.of else "user"


@dataclass(frozen=True)
class Measure:
    """What is counted in the window; `measure >= k` makes it a yes or no.

    Attributes:
        kind: active_days, returned, days_with, minutes or plays.
        of: count only what concerns the entry's own creator or item; null: whatever the user does.
        threshold: null for the amount itself, else the outcome is 1 where the amount reaches it, 0 where not.
    """

    kind: Literal["active_days", "returned", "days_with", "minutes", "plays"]
    of: Key | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        _one_of("measure", "kind", self.kind, ("active_days", "returned", "days_with", "minutes", "plays"))
        if self.kind in ("active_days", "returned") and self.of is not None:
            raise ConfigError(f"measure: of={self.of!r} given, expected none: {self.kind} counts whatever the user does; use days_with")
        if self.of is not None or self.kind == "days_with":
            _one_of("measure", "of", self.of, ("creator", "item"))
        if self.threshold is not None:
            number = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
            if not number or not 0 < self.threshold < math.inf:
                raise ConfigError(f"measure: threshold={self.threshold!r} given, expected a positive number: 0 is always reached")
            object.__setattr__(self, "threshold", float(self.threshold))  # 3 and 3.0 are one definition, so one version

    def __ge__(self, threshold: float) -> Measure:
        if self.threshold is not None:
            raise ConfigError(f"measure: threshold={threshold!r} given, expected none: {self.kind} has the threshold {self.threshold:g} already")
        return replace(self, threshold=threshold)

    @property
    def counts_days(self) -> bool:
        """Whether the daily amount is 0 or 1 (was the user active that day) rather than a quantity."""
        return self.kind in ("active_days", "returned", "days_with")


@dataclass(frozen=True)
class Signal:
    """A declared outcome (METHODS "Reward contract"): defined once all of its parts are.

    Days are UTC calendar days counted from the entry's own day, which is day 0; `window=(1, 28)`
    is days 1 to 28, both included, and closes at the midnight that ends day 28. Until then the
    outcome is immature: null, never 0.

    Args:
        name: what people call it; not part of the version.
        entry: what opens the window. measure: what is counted in it.
        window: first and last day, 0 <= first <= last <= 365; from 1 on for measures that count days.
        origin: which origins count; default organic for active_days, returned and days_with (a
            policy must not manufacture days by showing), all origins for minutes and plays.

    Raises:
        ConfigError: a definition that is impossible, or that its own entry would guarantee.

    >>> habit = Signal("habit", entry=discovery(novel_for=28), measure=days_with("creator") >= 3, window=(1, 28))
    >>> print(habit)  # doctest: +NORMALIZE_WHITESPACE
    habit: of a user's discoveries of a creator (first touch in 28 days), the share where the user is active with
    that creator on at least 3 days, organically, in days 1 to 28 after
    >>> Signal.from_toml(habit.to_toml()) == habit
    True
    """

    name: str
    entry: Entry
    measure: Measure
    window: tuple[int, int] = (1, 28)
    origin: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.name):
            raise ConfigError(f"signal: name={self.name!r} given, expected a letter, then up to 63 letters, digits, - or _")
        where = f"signal {self.name}"
        if not isinstance(self.window, tuple | list) or len(self.window) != 2 or not all(_whole(day) for day in self.window):
            raise ConfigError(f"{where}: window={self.window!r} given, expected two whole days, e.g. (1, 28)")
        object.__setattr__(self, "window", tuple(self.window))
        start, stop = self.window
        if not 0 <= start <= stop <= MAX_WINDOW_DAYS:
            raise ConfigError(f"{where}: window={self.window} given, expected 0 <= first <= last <= {MAX_WINDOW_DAYS}")
        if start == 0 and self.measure.counts_days:
            raise ConfigError(f"{where}: window={self.window} given, expected it to start on day 1: on day 0 the entry's own event would count")
        days, threshold = stop - start + 1, self.measure.threshold
        if self.measure.counts_days and threshold is not None and threshold > days:
            raise ConfigError(f"{where}: threshold={threshold:g} given, expected at most {days}, the days of the window {self.window}")
        if self.measure.of is not None and self.entry.of is None:
            raise ConfigError(f"{where}: measure of={self.measure.of!r} given, but {self.entry.kind} has none; expected discovery() or exposure()")
        if self.entry.of == "creator" and self.measure.of == "item":
            raise ConfigError(f"{where}: measure of='item' given, expected 'creator', which the entry is about; or enter by item")
        if self.origin is not None:
            if not isinstance(self.origin, tuple | list | set | frozenset) or not self.origin:
                raise ConfigError(f"{where}: origin={self.origin!r} given, expected a list of some of {', '.join(ORIGINS)}")
            for given in self.origin:
                _one_of(where, "origin", given, ORIGINS)
            object.__setattr__(self, "origin", tuple(sorted(set(self.origin))))

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that count, defaults resolved."""
        return self.origin if self.origin is not None else (("organic",) if self.measure.counts_days else ORIGINS)

    @property
    def threshold(self) -> float | None:
        """The amount that makes the outcome 1; null where the outcome is the amount itself. `returned` is one day."""
        return 1.0 if self.measure.kind == "returned" and self.measure.threshold is None else self.measure.threshold

    @property
    def binary(self) -> bool:
        """Whether the outcome is 0 or 1."""
        return self.threshold is not None

    @property
    def days(self) -> int:
        """Length of the window in days."""
        return self.window[1] - self.window[0] + 1

    @property
    def version(self) -> str:
        """Eight hex digits of the SHA-256 of the definition (everything but the name), defaults resolved."""
        definition: dict[str, Any] = self._definition() | {"origin": sorted(self.origins)}
        if self.threshold is not None:
            definition["measure"] = definition["measure"] | {"threshold": self.threshold}
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def outcomes(self, lake: Lake, as_of: datetime | None = None) -> Outcomes:
        """The signal's value for every entry known at `as_of` (UTC; default the lake's watermark), immature ones null.

        Raises:
            DataError: the lake cannot answer (no creators, no decisions), or `as_of` lies after its watermark.
        """
        from longplay.signals.outcomes import outcomes_of  # heavy imports (DuckDB) only when data is touched

        return outcomes_of(self, lake, as_of)

    def __str__(self) -> str:
        return f"{self.name}: {_entry_words(self.entry)}, {_measure_words(self)} {_window_words(self.window)} after"

    def _repr_html_(self) -> str:
        name, sentence = str(self).split(": ", 1)
        return f"<p><b>{name}</b> <small>@{self.version}</small>: {sentence}</p>"

    def to_toml(self) -> str:
        """The declaration as a TOML table `[signals.NAME]`; `from_toml` reads it back."""
        lines = [f"[signals.{self.name}]"]
        for key, value in self._definition().items():
            lines.append(f"{key} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The one signal declared in `text` under `[signals.NAME]`.

        Raises:
            ConfigError: not TOML, not exactly one signal, or a definition that is impossible.
        """
        try:
            tables = tomllib.loads(text).get("signals", {})
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"signal: not TOML: {error}") from error
        if not isinstance(tables, Mapping) or len(tables) != 1:
            given = f"{len(tables)} tables" if isinstance(tables, Mapping) else repr(tables)
            raise ConfigError(f"signals: {given} given, expected exactly one table [signals.NAME]")
        ((name, table),) = tables.items()
        return cls.from_mapping(name, table)

    @classmethod
    def from_mapping(cls, name: str, table: Mapping[str, Any]) -> Self:
        """A signal from parsed TOML: keys entry, measure, window and optionally origin."""
        where = f"signals.{name}"
        if not isinstance(table, Mapping):
            raise ConfigError(f"{where}: {table!r} given, expected a table with the keys entry, measure, window and origin")
        _known_keys(where, table, {"entry", "measure", "window", "origin"}, required={"entry", "measure"})
        parts: dict[str, Any] = {}
        for part, kind, keys in (("entry", Entry, {"kind", "of", "novel_for"}), ("measure", Measure, {"kind", "of", "threshold"})):
            given: Any = table[part]
            if isinstance(given, str):
                given = {"kind": given}
            if not isinstance(given, Mapping):
                raise ConfigError(f"{where}.{part}: {given!r} given, expected a table such as {{ kind = ... }}")
            _known_keys(f"{where}.{part}", given, keys, required={"kind"})
            parts[part] = kind(**dict(given))
        return cls(name, parts["entry"], parts["measure"], table.get("window", (1, 28)), table.get("origin"))

    def _definition(self) -> dict[str, Any]:
        entry = {"kind": self.entry.kind, "of": self.entry.of, "novel_for": self.entry.novel_for}
        measure = {"kind": self.measure.kind, "of": self.measure.of, "threshold": self.measure.threshold}
        definition: dict[str, Any] = {
            "entry": {key: value for key, value in entry.items() if value is not None},
            "measure": {key: value for key, value in measure.items() if value is not None},
            "window": list(self.window),
        }
        return definition | ({"origin": list(self.origin)} if self.origin is not None else {})


def discovery(novel_for: int | None = 28, of: Key = "creator") -> Entry:
    """Entry: a user's first touch with a creator (or item) in `novel_for` days; null: the first in the log.

    A touch is any engaged event (play, save, like, follow, purchase, visit) of any origin.
    """
    return Entry("discovery", of, novel_for)


def exposure(of: Key = "creator") -> Entry:
    """Entry: every slot shown; needs a log with decisions."""
    return Entry("exposure", of)


def user_day() -> Entry:
    """Entry: every day on which a user is active."""
    return Entry("user_day")


def enrolment() -> Entry:
    """Entry: a user's first exposure in a trial, else the user's first event."""
    return Entry("enrolment")


def active_days() -> Measure:
    """Measure: days on which the user is active, 0 to the window's length."""
    return Measure("active_days")


def returned() -> Measure:
    """Measure: whether the user is active on any day of the window, 0 or 1."""
    return Measure("returned")


def days_with(of: Key) -> Measure:
    """Measure: days on which the user is active with the entry's own creator or item."""
    return Measure("days_with", of)


def minutes(of: Key | None = None) -> Measure:
    """Measure: minutes engaged, of everything or of the entry's own creator or item."""
    return Measure("minutes", of)


def plays(of: Key | None = None) -> Measure:
    """Measure: number of plays, of everything or of the entry's own creator or item."""
    return Measure("plays", of)


def _entry_words(entry: Entry) -> str:
    match entry.kind:
        case "discovery":
            first = "first touch in the log" if entry.novel_for is None else f"first touch in {entry.novel_for} days"
            article = "an" if entry.of == "item" else "a"
            return f"of a user's discoveries of {article} {entry.of} ({first})"
        case "exposure":
            return f"of the slots that show a user some {entry.of}"
        case "user_day":
            return "of the days on which a user is active"
        case _:
            return "of users, from their enrolment (first exposure in a trial, else first event)"


def _measure_words(signal: Signal) -> str:
    measure = signal.measure
    ours = f" with that {measure.of}" if measure.of else ""
    how = f", {' or '.join(_ORIGIN_WORDS[origin] for origin in signal.origins)}," if len(signal.origins) < len(ORIGINS) else ""
    if measure.kind == "returned":
        times = "" if signal.threshold in (None, 1) else f" on at least {_number(signal.threshold)} days"
        return f"the share where the user is active again{times}{how} in"
    what = {"active_days": "days active", "days_with": "days active", "minutes": "minutes", "plays": "plays"}[measure.kind]
    if measure.threshold is None:
        return f"the mean number of {what}{ours}{how} in"
    counted = "days" if measure.counts_days else what
    amount = f"at least {_number(measure.threshold)} " + (counted[:-1] if measure.threshold == 1 else counted)
    return f"the share where the user is active{ours} on {amount}{how} in" if measure.counts_days else f"the share with {amount}{ours}{how} in"


def _number(threshold: float) -> str:
    return str(int(threshold)) if threshold.is_integer() else repr(threshold)  # every digit: the sentence is the definition


_ORIGIN_WORDS = {"organic": "organically", "recommended": "when recommended", "autoplay": "by autoplay"}


def _window_words(window: tuple[int, int]) -> str:
    start, stop = window
    return f"day {start}" if start == stop else f"days {start} to {stop}"


def _whole(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _one_of(where: str, key: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"{where}: {key}={given!r} given, expected one of {', '.join(allowed)}")


def _known_keys(where: str, table: Mapping[str, Any], keys: set[str], required: set[str]) -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(f"{where}.{key}: unknown key; expected some of {', '.join(sorted(keys))}")
    for key in sorted(required - set(table)):
        raise ConfigError(f"{where}.{key}: missing; a signal is only defined once it is given")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in cast(dict[str, object], value).items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return json.dumps(value)
