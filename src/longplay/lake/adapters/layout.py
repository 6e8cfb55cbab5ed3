"""The layout of a log: which column has which role, in which words and units, checked against the
data."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches

import polars as pl

from longplay.errors import ConfigError
from longplay.lake.adapters.cells import UNITS
from longplay.lake.schema import KINDS, ORIGINS, TABLES
from longplay.lake.sift import EARLIEST

EVENT_COLUMNS = TABLES["events"]
ITEM_COLUMNS = ("title", "text", "tags", "length")
VOCABULARIES = {"kind": KINDS, "origin": ORIGINS}  # columns whose words a log may translate
UNIT_COLUMNS = ("seconds", "length")
CONSTANT_COLUMNS = [
    name
    for name, column in EVENT_COLUMNS.items()
    if column.dtype == pl.String and name not in ("event_id", "user_id")
]
SEPARATORS = {
    ";": ";",
    "\t": "\\t",
    "|": "|",
}  # separators other than the comma, as TOML writes them


@dataclass(frozen=True)
class Layout:
    """Which columns of a log hold longplay's columns; the arguments of `read_table`.

    `translations` is longplay column -> {source word: longplay word}, of `kind` and `origin`;
    `units` is longplay column -> unit, of `seconds` and `length`.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    time_format: str | None = None
    time_zone: str = "UTC"
    translations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    earliest: datetime = EARLIEST

    @property
    def described(self) -> dict[str, str]:
        """The source column of each column that describes items."""
        return {name: source for name, source in self.columns.items() if name in ITEM_COLUMNS}

    def says(self, name: str) -> bool:
        """Whether the log or the caller gives values of a column of longplay."""
        return name in self.columns or name in self.constants

    def check(
        self, log: str, source_columns: Collection[str], judged: Collection[str] = ()
    ) -> None:
        """Raise unless longplay and the log have every given name and word.

        Args:
            log: names the log in messages.
            source_columns: the columns it has.
            judged: columns that an adapter added.

        Raises:
            ConfigError: a name or a word is unknown, stands twice or is missing.
        """
        self._check_names()
        if self.earliest.tzinfo is None:
            raise ConfigError(
                f"earliest = {self.earliest.isoformat()} has no time zone; give UTC, e.g. "
                "datetime(..., tzinfo=UTC)"
            )
        for name, source in self.columns.items():
            if source not in source_columns and source not in judged:
                absent = f"{log} has no column {source!r}{close(source, list(source_columns))}"
                raise ConfigError(
                    f"columns: {name} = {source!r}, but {absent}; it has "
                    f"{', '.join(source_columns)}{header_advice(source_columns)}"
                )
        for name in ("user_id", "time", "kind"):
            if not self.says(name):
                if name == "kind":
                    other = ", or constants = {'kind': 'play'} if every row is of one kind"
                else:
                    other = ""
                has = ", ".join(source_columns)
                raise ConfigError(
                    f"columns: {name!r} is not mapped; name the column of {log} that holds "
                    f"it{other}. It has {has}"
                )

    def _check_names(self) -> None:
        mappable = [*EVENT_COLUMNS, *ITEM_COLUMNS]
        for name in self.columns:
            if name not in mappable:
                raise ConfigError(
                    f"columns: {name!r} is no column of longplay{close(name, mappable)}; expected "
                    f"some of {', '.join(mappable)}"
                )
        for name, value in self.constants.items():
            if name not in CONSTANT_COLUMNS:
                expected = f"expected some of {', '.join(CONSTANT_COLUMNS)}"
                raise ConfigError(
                    f"constants: {name!r} cannot be the same in every "
                    f"row{close(name, CONSTANT_COLUMNS)}; {expected}"
                )
            if name in self.columns:
                raise ConfigError(
                    f"constants: {name} = {value!r}, but columns maps {name} to "
                    f"{self.columns[name]!r}; keep one of the two"
                )
            _check_word(f"constants: {name}", value, VOCABULARIES.get(name))
        for name, words in self.translations.items():
            for word, meaning in words.items():
                _check_word(f"{name}s: {word}", meaning, VOCABULARIES[name])
            if words and name not in self.columns:
                raise ConfigError(
                    f"{name}s: {next(iter(words))!r} is translated, but columns maps no {name!r}; "
                    f"map its column, or leave {name}s out"
                )
        for name, unit in self.units.items():
            if unit not in UNITS:
                raise ConfigError(
                    f"{name}_unit = {unit!r} is unknown{close(unit, list(UNITS))}; expected one "
                    f"of {', '.join(UNITS)}"
                )
            if unit != "s" and name not in self.columns:
                raise ConfigError(
                    f"{name}_unit = {unit!r}, but columns maps no {name!r}; map its column, or "
                    f"leave {name}_unit out"
                )


def close(name: str, names: Sequence[str]) -> str:
    """The question whether the closest name was meant; empty where none is close.

    >>> close("usr_id", ["user_id", "time"])
    " (did you mean 'user_id'?)"
    """
    near = get_close_matches(name, names, n=1, cutoff=0.5) or [
        other for other in names if other.lower() == name.lower()
    ]
    return f" (did you mean {near[0]!r}?)" if near else ""


def header_advice(names: Collection[str]) -> str:
    """Advice for a CSV file whose header looks like data. Empty where it looks like names.

    >>> header_advice(["who;what;ts"])
    '; they look separated by ";": give separator = ";"'
    >>> header_advice(["196", "242", "3", "881250949"])
    '; they look like a row, not like names: put a header line in front of it'
    """
    header = ",".join(names)
    if "::" in header:
        return (
            '; they look separated by "::": replace it by one character, such as a tab, in the '
            "file first"
        )
    for mark, text in SEPARATORS.items():
        if header.count(mark) >= len(names):
            return f'; they look separated by "{text}": give separator = "{text}"'
    if len(names) == 1 and " " in header.strip():
        return (
            '; they look separated by spaces: give separator = " ", with runs of spaces '
            "replaced by one first"
        )
    if any(re.match(r"\d{4}-\d\d-\d\d", name) for name in names) or sum(
        name.replace(".", "").isdigit() for name in names
    ) * 2 > len(names):
        return "; they look like a row, not like names: put a header line in front of it"
    return ""


def _check_word(where: str, word: str, allowed: Sequence[str] | None) -> None:
    if allowed is not None and word not in allowed:
        raise ConfigError(
            f"{where} = {word!r} is unknown{close(word, allowed)}; expected one of "
            f"{', '.join(allowed)}"
        )
