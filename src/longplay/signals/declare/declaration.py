"""The declaration of a signal: an outcome worth waiting for, checked, versioned, and printed as the
sentence it means."""

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
from longplay.signals.declare.checks import MAX_WINDOW_DAYS, kind_of, known_keys, one_of, whole
from longplay.signals.declare.entry import ENTRY_FIELDS, ENTRY_KINDS, EVER, Entry, entry_of
from longplay.signals.declare.measure import (
    BETTER,
    MEASURE_FIELDS,
    MEASURE_KINDS,
    Better,
    Measure,
    measure_of,
)
from longplay.signals.declare.sentence import sentence

SLACK = 1e-9  # of thresholds
PART_FIELDS = {"kind", "of", "event", "surface", "seconds"}  # of what a ratio divides by


@dataclass(frozen=True)
class Declaration:
    """What a signal says: everything but how it is computed. Users write `longplay.Signal`, which
    adds `outcomes`.

    Attributes: see `longplay.signals.signal.Signal`.
    """

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
        if (
            not isinstance(self.window, tuple | list)
            or len(self.window) != 2
            or not all(whole(day) for day in self.window)
        ):
            raise ConfigError(
                f"{where}: window={self.window!r} given, expected two whole days, first and last, "
                "e.g. (1, 28)"
            )
        start, stop = (int(day) for day in self.window)
        object.__setattr__(self, "window", (start, stop))
        if not 0 <= start <= stop <= MAX_WINDOW_DAYS:
            raise ConfigError(
                f"{where}: window={self.window} given, expected 0 <= first <= last <= "
                f"{MAX_WINDOW_DAYS}"
            )
        if self.origin is not None:
            if not isinstance(self.origin, tuple | list | set | frozenset) or not self.origin:
                raise ConfigError(
                    f"{where}: origin={self.origin!r} given, expected a list of some of "
                    f"{', '.join(ORIGINS)}"
                )
            for given in self.origin:
                one_of(where, "origin", given, ORIGINS)
            object.__setattr__(self, "origin", tuple(sorted(set(self.origin))))
        if not isinstance(self.gameable, bool):
            raise ConfigError(f"{where}: gameable={self.gameable!r} given, expected true or false")
        if self.better is None:
            object.__setattr__(self, "better", self.measure.better)
        one_of(where, "better", self.better, BETTER)
        self._check_fits(where)
        self._check_degenerate(where)
        self._check_reachable(where)

    def _check_parts(self, where: str) -> None:
        """Entry and measure must be what they are called."""
        entry, measure = cast(object, self.entry), cast(object, self.measure)
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
                f"{where}: entry={kind_of(entry)} given, expected an entry, e.g. {example}"
            )
        if not isinstance(measure, Measure):
            example = (
                f"{measure}(...)"
                if isinstance(measure, str) and measure in MEASURE_KINDS
                else 'days_with("creator") >= 3'
            )
            raise ConfigError(
                f"{where}: measure={kind_of(measure)} given, expected a measure, e.g. {example}"
            )

    def _check_fits(self, where: str) -> None:
        """Entry, measure and origin must fit each other."""
        entry, measure = self.entry, self.measure
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
            how = "given" if self.origin is not None else "is what counts where none is given"
            raise ConfigError(
                f"{where}: origin={self.origins} {how}, expected all of {', '.join(ORIGINS)}: a "
                "session is a run of whatever the user does"
            )

    def _check_degenerate(self, where: str) -> None:
        """Refuse what its own entry would guarantee or cause."""
        entry, measure, start = self.entry, self.measure, self.window[0]
        days_asked = measure.of_activity or (measure.per is not None and measure.per.of_activity)
        if start == 0 and days_asked:
            raise ConfigError(
                f"{where}: window={self.window} given, expected it to start on day 1: on day 0 "
                "the entry's own event would count"
            )
        one_is_enough = (measure.threshold is not None and measure.threshold <= 1) or (
            measure.at_most is not None and measure.at_most < 1
        )
        surely = one_is_enough and measure.per is None and measure.baseline is None
        if start == 0 and (surely or measure.record.binary):
            own = self._counts_own_event()
            begun = measure.counts_sessions and (
                not entry.is_slot and (not entry.is_event or entry.event in ENGAGED)
            )
            if own or begun:
                raise ConfigError(
                    f"{where}: the entry's own event guarantees the outcome: on day 0 it counts "
                    "itself; "
                    "expected window=(1, ...), or a higher threshold"
                )
        shown = [origin for origin in self.origins if origin != "organic"]
        habitual = measure.of_activity and measure.of is not None
        if shown and habitual and not self.gameable:
            raise ConfigError(
                f"{where}: origin={self.origins} given, expected only 'organic': a habit that "
                f"counts {' and '.join(shown)} days counts the exposures "
                "it causes, so a policy makes it by showing again; if that is what you want to "
                "measure, declare gameable=True"
            )
        if self.gameable and not (shown and habitual):
            raise ConfigError(
                f"{where}: gameable=True given, expected false: it counts no days that showing "
                "could make"
            )
        if measure.baseline is not None and self._nothing_before(measure.baseline):
            raise ConfigError(
                f"{where}: baseline={measure.baseline} given, but in so many days before such an "
                "entry there is nothing of what is measured: "
                "the baseline is always 0; leave it out"
            )

    def _counts_own_event(self) -> bool:
        """Whether the event that opens an entry is one that the measure counts."""
        entry, measure = self.entry, self.measure
        return (
            entry.is_event
            and measure.counted == entry.event
            and (len(self.origins) == len(ORIGINS) or self.origins == (entry.origin,))
            and measure.surface in (None, entry.surface)
            and measure.seconds is None
        )

    def _nothing_before(self, days: int) -> bool:
        """Whether it takes such days before the entry's day for there to be an entry."""
        entry, measure = self.entry, self.measure
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
        """Refuse thresholds that no user can reach."""
        measure, days = self.measure, self.days
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
            unit = measure.record.unit or measure.record.plural
            what = f"{unit} there can be in" if not measure.counts_days else "days of"
            raise ConfigError(
                f"{where}: threshold={threshold:g} given, expected at most {most:,.0f}, the "
                f"{what} the window {self.window}"
            )

    @property
    def most(self) -> float | None:
        """The most that the measure can amount to in the window; null where it has no bound."""
        record = self.measure.record
        return None if record.most is None else record.most * -(-self.days // record.days_each)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that count, defaults resolved."""
        return (
            self.origin
            if self.origin is not None
            else (("organic",) if self.measure.of_activity else ORIGINS)
        )

    @property
    def threshold(self) -> float | None:
        """The amount that makes the outcome 1; null where the outcome is the amount itself.
        `returned` and `cancelled` are 1."""
        if self.measure.record.binary and self.measure.threshold is None:
            return 1.0
        return self.measure.threshold

    @property
    def binary(self) -> bool:
        """Whether the outcome is 0 or 1."""
        return self.threshold is not None or self.measure.at_most is not None

    def outcome_of(self, amount_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outcome of each amount, shape [N]: the amount itself, or whether it is enough.

        The slack forgives the rounding of fractions: three times 20 s are a minute.
        """
        if self.measure.at_most is not None:
            return (amount_N <= self.measure.at_most + SLACK).astype(float)
        if self.threshold is not None:
            return (amount_N >= self.threshold - SLACK).astype(float)
        return amount_N

    @property
    def lower_is_better(self) -> bool:
        """Whether a fall is a gain."""
        return self.better == "lower"

    @property
    def days(self) -> int:
        """Length of the window in days."""
        return self.window[1] - self.window[0] + 1

    @property
    def additive(self) -> bool:
        """Whether the outcome is the sum of its daily trace, or whether that sum reaches the
        threshold."""
        return (
            self.measure.record.additive
            and self.measure.at_most is None
            and self.measure.per is None
            and self.measure.baseline is None
        )

    @property
    def version(self) -> str:
        """Eight hex digits of the SHA-256 of the definition (everything but the name), defaults
        resolved.

        `better` is a part of it where it is not what the measure says.
        """
        definition: dict[str, Any] = self._definition() | {"origin": sorted(self.origins)}
        definition.pop("gameable", None)  # it says what entry, measure and origin say already
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
        for key, value in definition.items():
            lines.append(f"{key} = {_toml(value)}")
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
        """Every signal declared in `text` under `[signals.NAME]`, in its order."""
        if not isinstance(cast(object, text), str):
            raise ConfigError(
                f"signal: {kind_of(text)} given, expected TOML as text; of a file, "
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
        """A signal from parsed TOML: keys entry, measure and optionally window, origin, gameable
        and better.

        What a table leaves out is what the call of its kind's name leaves out in Python: `{ kind =
        "exposure" }` is `exposure()`. As TOML has no null, `novel_for = "ever"` is a discovery's
        `novel_for=None`.

        Raises:
            ConfigError: a definition that is impossible; the message names the signal.
        """
        where = f"signals.{name}"
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"{where}: {table!r} given, expected a table with the keys entry, measure, window "
                "and origin"
            )
        known_keys(
            where,
            table,
            {"entry", "measure", "window", "origin", "gameable", "better"},
            required={"entry", "measure"},
        )
        entry = _part(f"{where}.entry", table["entry"], set(ENTRY_FIELDS))
        measure = _part(
            f"{where}.measure",
            table["measure"],
            set(MEASURE_FIELDS),
        )
        if "per" in measure:
            measure["per"] = _part(f"{where}.measure.per", measure["per"], PART_FIELDS)
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
        definition: dict[str, Any] = {
            "entry": {
                name: value
                for name in ENTRY_FIELDS
                if (value := getattr(self.entry, name)) is not None
            },
            "measure": self.measure.definition(),
            "window": list(self.window),
        }
        definition |= {"origin": list(self.origin)} if self.origin is not None else {}
        definition |= {"gameable": True} if self.gameable else {}
        return definition | ({"better": self.better} if self.better != self.measure.better else {})


def _part(where: str, given: Any, keys: set[str]) -> dict[str, Any]:
    if isinstance(given, str):
        given = {"kind": given}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: {given!r} given, expected a table such as {{ kind = ... }}")
    known_keys(where, given, keys, required={"kind"})
    return dict(given)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(
                f"{key} = {_toml(inner)}" for key, inner in cast(dict[str, object], value).items()
            )
            + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return json.dumps(value)
