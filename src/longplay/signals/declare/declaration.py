"""The declaration of a signal: a delayed outcome, checked, versioned, and printed as the sentence it
means."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from longplay.errors import ConfigError
from longplay.lake.schema import ENGAGED, ORIGINS
from longplay.names import file_name
from longplay.signals.declare.checks import (
    MAX_WINDOW_DAYS,
    check_choice,
    check_keys,
    described,
    is_whole_number,
)
from longplay.signals.declare.entry import ENTRY_FIELDS, ENTRY_KINDS, EVER, Entry, entry_of
from longplay.signals.declare.measure import (
    BETTER,
    MEASURE_FIELDS,
    MEASURE_KINDS,
    Better,
    Measure,
)
from longplay.signals.declare.measure_functions import measure_of
from longplay.signals.declare.sentence import sentence

SLACK = 1e-9  # of thresholds: three times 20 s are a minute, whatever the rounding
DIVISOR_FIELDS = {"kind", "of", "event", "surface", "seconds"}


@dataclass(frozen=True)
class Declaration:
    """A signal without its computation. Users write `longplay.Signal`, which adds `outcomes` and
    documents the attributes."""

    name: str
    entry: Entry
    measure: Measure
    window: tuple[int, int] = (1, 28)
    origin: tuple[str, ...] | None = None
    gameable: bool = False
    better: Better | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(
            r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.name
        ):
            raise ConfigError(
                f"signal: name={self.name!r} given, expected a letter, then up to 63 letters, "
                "digits, - or _"
            )
        file_name(self.name, "signal")
        where = f"signal {self.name}"
        self._check_parts(where)
        object.__setattr__(self, "window", self._checked_window(where))
        if self.origin is not None:
            object.__setattr__(self, "origin", self._checked_origins(where))
        if not isinstance(self.gameable, bool):
            raise ConfigError(f"{where}: gameable={self.gameable!r} given, expected true or false")
        if self.better is None:
            object.__setattr__(self, "better", self.measure.better)
        check_choice(where, "better", self.better, BETTER)
        self._check_fits(where)
        self._check_activity(where)
        self._check_own_event(where)
        self._check_gameable(where)
        self._check_baseline(where)
        self._check_reachable(where)

    def _checked_window(self, where: str) -> tuple[int, int]:
        """The window as two whole numbers of Python."""
        if (
            not isinstance(self.window, tuple | list)
            or len(self.window) != 2
            or not all(is_whole_number(day) for day in self.window)
        ):
            raise ConfigError(
                f"{where}: window={self.window!r} given, expected two whole days, first and last, "
                "e.g. (1, 28)"
            )
        start, stop = (int(day) for day in self.window)
        if not 0 <= start <= stop <= MAX_WINDOW_DAYS:
            raise ConfigError(
                f"{where}: window={(start, stop)} given, expected 0 <= first <= last <= "
                f"{MAX_WINDOW_DAYS}"
            )
        return start, stop

    def _checked_origins(self, where: str) -> tuple[str, ...]:
        """The declared origins in order, each once."""
        if not isinstance(self.origin, tuple | list | set | frozenset) or not self.origin:
            raise ConfigError(
                f"{where}: origin={self.origin!r} given, expected a list of some of "
                f"{', '.join(ORIGINS)}"
            )
        for origin in self.origin:
            check_choice(where, "origin", origin, ORIGINS)
        return tuple(sorted(set(self.origin)))

    def _check_parts(self, where: str) -> None:
        """Raise unless entry and measure are of their types."""
        entry = cast(object, self.entry)
        measure = cast(object, self.measure)
        if isinstance(entry, Measure) and isinstance(measure, Entry):
            raise ConfigError(
                f"{where}: entry and measure are swapped; expected Signal(name, entry, measure, "
                "window)"
            )
        if not isinstance(entry, Entry):
            example = (
                f"{entry}(...)"
                if isinstance(entry, str) and entry in ENTRY_KINDS
                else "discovery()"
            )
            raise ConfigError(
                f"{where}: entry={described(entry)} given, expected an entry, e.g. {example}"
            )
        if not isinstance(measure, Measure):
            example = (
                f"{measure}(...)"
                if isinstance(measure, str) and measure in MEASURE_KINDS
                else 'days_with("creator") >= 3'
            )
            raise ConfigError(
                f"{where}: measure={described(measure)} given, expected a measure, e.g. {example}"
            )

    def _check_fits(self, where: str) -> None:
        """Raise unless entry, measure and origin fit each other."""
        entry = self.entry
        measure = self.measure
        for part in (measure, measure.per):
            if part is None or part.of is None or part.record.over_keys:
                continue
            if entry.of is None:
                raise ConfigError(
                    f"{where}: measure of={part.of!r} given, but {entry.kind} has none; expected "
                    "discovery() or exposure(), or event(of=...)"
                )
            if entry.of == "creator" and part.of == "item":
                raise ConfigError(
                    f"{where}: measure of='item' given, expected 'creator', which the entry is "
                    "about; or enter by item"
                )
        if measure.record.over_keys and entry.of is not None:
            raise ConfigError(
                f"{where}: {measure.kind} given, which count over all {measure.of}s, but the entry is "
                "about one; expected user_day() or enrolment()"
            )
        parts = [part for part in (measure, measure.per) if part is not None]
        if any(part.counts_sessions for part in parts) and len(self.origins) < len(ORIGINS):
            source = "given" if self.origin is not None else "is what counts where none is given"
            raise ConfigError(
                f"{where}: origin={self.origins} {source}, expected all of {', '.join(ORIGINS)}: a "
                "session is a run of whatever the user does"
            )

    def _check_activity(self, where: str) -> None:
        """Raise where days with activity are counted from day 0 on, which the entry makes active."""
        parts = (self.measure, self.measure.per)
        if self.window[0] == 0 and any(part is not None and part.of_activity for part in parts):
            raise ConfigError(
                f"{where}: window={self.window} given, expected it to start on day 1: on day 0 "
                "the entry's own event would count"
            )

    def _check_own_event(self, where: str) -> None:
        """Raise where the entry's own event is enough for the outcome to be known."""
        if self.window[0] > 0:
            return
        entry = self.entry
        measure = self.measure
        is_one_enough = (measure.threshold is not None and measure.threshold <= 1) or (
            measure.at_most is not None and measure.at_most < 1
        )
        is_plain = measure.per is None and measure.baseline is None
        if not (is_one_enough and is_plain) and not measure.record.binary:
            return
        opens_session = measure.counts_sessions and (
            not entry.is_slot and (not entry.is_event or entry.event in ENGAGED)
        )
        if self._counts_own_event() or opens_session:
            raise ConfigError(
                f"{where}: the entry's own event guarantees the outcome: on day 0 it counts "
                "itself; "
                "expected window=(1, ...), or a higher threshold"
            )

    def _check_gameable(self, where: str) -> None:
        """Raise where a policy can cause the outcome by showing, and the user has not said so."""
        measure = self.measure
        caused_origins = [origin for origin in self.origins if origin != "organic"]
        is_habit = measure.of_activity and measure.of is not None
        if caused_origins and is_habit and not self.gameable:
            raise ConfigError(
                f"{where}: origin={self.origins} given, expected only 'organic': a habit that "
                f"counts {' and '.join(caused_origins)} days counts the exposures "
                "it causes, so a policy makes it by showing again; if that is what you want to "
                "measure, declare gameable=True"
            )
        if self.gameable and not (caused_origins and is_habit):
            raise ConfigError(
                f"{where}: gameable=True given, expected false: it counts no days that showing "
                "could make"
            )

    def _check_baseline(self, where: str) -> None:
        """Raise where the entry allows nothing in the days of the baseline."""
        days = self.measure.baseline
        if days is not None and self._has_empty_past(days):
            raise ConfigError(
                f"{where}: baseline={days} given, but in so many days before such an "
                "entry there is nothing of what is measured: "
                "the baseline is always 0; leave it out"
            )

    def _counts_own_event(self) -> bool:
        """Whether the measure counts the event that opens an entry."""
        entry = self.entry
        measure = self.measure
        return (
            entry.is_event
            and measure.counted == entry.event
            and (len(self.origins) == len(ORIGINS) or self.origins == (entry.origin,))
            and measure.surface in (None, entry.surface)
            and measure.seconds is None
        )

    def _has_empty_past(self, days: int) -> bool:
        """Whether the entry itself requires that the measure is 0 in the `days` days before it."""
        entry = self.entry
        measure = self.measure
        if measure.of != entry.of:
            return False
        if entry.is_discovery:
            return measure.needs_activity and (entry.novel_for or days) >= days
        if entry.is_user_day:
            return measure.needs_activity and (entry.dormant_for or 0) >= days
        is_of_entry = (
            entry.is_event
            and measure.counted == entry.event
            and (entry.origin is None or self.origins == (entry.origin,))
            and (entry.surface is None or measure.surface == entry.surface)
        )
        return is_of_entry and (entry.novel_for or 0) >= days

    def _check_reachable(self, where: str) -> None:
        """Raise where no user can reach the threshold, or all stay below `at_most`."""
        measure = self.measure
        days = self.days
        if measure.days is not None and measure.days > days:
            raise ConfigError(
                f"{where}: days={measure.days} given, expected at most {days}, the days of the "
                f"window {self.window}"
            )
        most = self.most if measure.per is None else None
        if most is not None and measure.at_most is not None and measure.at_most >= most:
            raise ConfigError(
                f"{where}: at_most={measure.at_most:g} given, expected less than {most:,.0f}, "
                f"the most there can be in the window {self.window}"
            )
        threshold = measure.threshold
        if threshold is None:
            return
        if measure.per is not None:
            of_active_days = measure.per.counts_days and measure.per.of is None
            if measure.counts_days and of_active_days and threshold > 1:
                raise ConfigError(
                    f"{where}: threshold={threshold:g} given, expected at most 1, the most of "
                    "days per active day"
                )
            return
        if most is not None and threshold > most:
            limit = f"the days of the window {self.window}"
            if not measure.counts_days:
                unit = measure.record.unit or measure.record.plural
                limit = f"the {unit} there can be in the window {self.window}"
            raise ConfigError(
                f"{where}: threshold={threshold:g} given, expected at most {most:,.0f}, {limit}"
            )

    @property
    def most(self) -> float | None:
        """The largest amount that the measure can have in the window; null where there is no bound."""
        record = self.measure.record
        if record.most is None:
            return None
        return record.most * -(-self.days // record.days_each)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that count: those declared, or the measure's default."""
        if self.origin is not None:
            return self.origin
        return ("organic",) if self.measure.of_activity else ORIGINS

    @property
    def threshold(self) -> float | None:
        """The amount that makes the outcome 1; null where the outcome is the amount itself. That of
        `returned` and `cancelled` is 1."""
        if self.measure.record.binary and self.measure.threshold is None:
            return 1.0
        return self.measure.threshold

    @property
    def binary(self) -> bool:
        """Whether the outcome is 0 or 1."""
        return self.threshold is not None or self.measure.at_most is not None

    def outcome_of(self, amount_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outcome of each amount, shape [N]: the amount itself, or 1 where it meets the
        threshold and 0 where it does not, up to `SLACK`."""
        if self.measure.at_most is not None:
            return (amount_N <= self.measure.at_most + SLACK).astype(float)
        if self.threshold is not None:
            return (amount_N >= self.threshold - SLACK).astype(float)
        return amount_N

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower outcome is better."""
        return self.better == "lower"

    @property
    def days(self) -> int:
        """Length of the window in days."""
        return self.window[1] - self.window[0] + 1

    @property
    def additive(self) -> bool:
        """Whether the outcome is the sum of its daily trace, or 1 where that sum reaches the
        threshold."""
        return (
            self.measure.record.additive
            and self.measure.at_most is None
            and self.measure.per is None
            and self.measure.baseline is None
        )

    @property
    def version(self) -> str:
        """Eight hex digits of the SHA-256 of the definition: everything but the name, with origins
        and threshold resolved. `better` is part of it where it differs from the measure's own.
        """
        definition: dict[str, Any] = self._definition() | {"origin": sorted(self.origins)}
        definition.pop("gameable", None)  # entry, measure and origin imply it
        if self.threshold is not None and self.measure.record.takes_threshold:
            definition["measure"] = definition["measure"] | {"threshold": self.threshold}
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def _no_threshold(self, threshold: object) -> Self:
        raise ConfigError(
            f"signal {self.name}: compared with {threshold!r}, expected the threshold on its "
            f"measure: Signal({self.name!r}, entry, measure >= k)"
        )

    __ge__ = __gt__ = __le__ = __lt__ = _no_threshold

    def __str__(self) -> str:
        return f"{self.name}: {sentence(self)}"

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{escape(self.name)}</b> <small>@{self.version}</small>: "
            f"{escape(sentence(self))}</p>"
        )

    def to_toml(self) -> str:
        """The declaration as a TOML table `[signals.NAME]`; `from_toml` reads it back."""
        lines = [f"[signals.{self.name}]"]
        definition = self._definition()
        if self.entry.is_discovery and self.entry.novel_for is None:
            definition["entry"] |= {"novel_for": EVER}
        lines += [f"{key} = {_toml(value)}" for key, value in definition.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The one signal declared in `text` under `[signals.NAME]`.

        Raises:
            ConfigError: not TOML, not exactly one signal, or a definition that is impossible.
        """
        signals = cls.all_from_toml(text)
        if len(signals) != 1:
            raise ConfigError(
                f"signals: {len(signals)} tables given, expected exactly one table [signals.NAME]"
            )
        return signals[0]

    @classmethod
    def all_from_toml(cls, text: str) -> list[Self]:
        """The signals declared in `text` under `[signals.NAME]`, in order.

        Raises:
            ConfigError: not TOML, or a definition that is impossible.
        """
        if not isinstance(cast(object, text), str):
            raise ConfigError(
                f"signal: {described(text)} given, expected TOML as text; of a file, "
                "Path(file).read_text()"
            )
        try:
            tables = tomllib.loads(text).get("signals", {})
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"signal: not TOML: {error}") from error
        if not isinstance(tables, Mapping):
            raise ConfigError(
                f"signals: {tables!r} given, expected exactly one table [signals.NAME], or several"
            )
        return [cls.from_mapping(name, table) for name, table in tables.items()]

    @classmethod
    def from_mapping(cls, name: str, table: Mapping[str, Any]) -> Self:
        """A signal from parsed TOML.

        Keys that the tables of entry and measure leave out have the defaults of the kind's function
        in Python: `{ kind = "exposure" }` is `exposure()`. TOML has no null, so a discovery's
        `novel_for=None` is written `novel_for = "ever"`.

        Args:
            name: of the signal.
            table: keys entry, measure and optionally window, origin, gameable and better.

        Raises:
            ConfigError: a definition that is impossible; the message names the signal.
        """
        where = f"signals.{name}"
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"{where}: {table!r} given, expected a table with the keys entry, measure, window "
                "and origin"
            )
        check_keys(
            where,
            table,
            {"entry", "measure", "window", "origin", "gameable", "better"},
            required={"entry", "measure"},
        )
        entry = _part(f"{where}.entry", table["entry"], set(ENTRY_FIELDS))
        measure = _part(f"{where}.measure", table["measure"], set(MEASURE_FIELDS))
        if "per" in measure:
            measure["per"] = _part(f"{where}.measure.per", measure["per"], DIVISOR_FIELDS)
        try:
            parts = entry_of(entry), measure_of(measure)
        except ConfigError as error:
            raise ConfigError(f"signal {name}: {error}") from error
        return cls(
            name,
            *parts,
            table.get("window", (1, 28)),
            table.get("origin"),
            table.get("gameable", False),
            table.get("better"),
        )

    def _definition(self) -> dict[str, Any]:
        """The declaration as a table, without the name and what is at its default."""
        entry_fields = {name: getattr(self.entry, name) for name in ENTRY_FIELDS}
        definition: dict[str, Any] = {
            "entry": {name: value for name, value in entry_fields.items() if value is not None},
            "measure": self.measure.definition(),
            "window": list(self.window),
        }
        if self.origin is not None:
            definition["origin"] = list(self.origin)
        if self.gameable:
            definition["gameable"] = True
        if self.better != self.measure.better:
            definition["better"] = self.better
        return definition


def _part(where: str, part: Any, keys: set[str]) -> dict[str, Any]:
    """The table of an entry or a measure; a text is the kind of one without further keys."""
    if isinstance(part, str):
        part = {"kind": part}
    if not isinstance(part, Mapping):
        raise ConfigError(f"{where}: {part!r} given, expected a table such as {{ kind = ... }}")
    check_keys(where, part, keys, required={"kind"})
    return dict(part)


def _toml(value: object) -> str:
    """A value as TOML.

    >>> print(_toml({"kind": "plays", "days": [1, 2]}))
    { kind = "plays", days = [1, 2] }
    """
    if isinstance(value, dict):
        table = cast(dict[str, object], value)
        pairs = ", ".join(f"{key} = {_toml(inner)}" for key, inner in table.items())
        return f"{{ {pairs} }}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(inner) for inner in value)}]"
    return json.dumps(value)
