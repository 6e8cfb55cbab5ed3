"""The calendar of day bitmaps: which day each bit stands for, and how long logs are cut into
eras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longplay.lake.daily import SHIFT_DAYS

BITS = 60  # days per word
ERA_WORDS = 6  # words of days in an era: about a year


@dataclass(frozen=True)
class Calendar:
    """The days that the bits of a bitmap stand for.

    Words are absolute: bit b of word i stands for day `base + 60 i + b`.

    A short log has one bitmap per unit, from day `base` on. A long log is cut into eras: a unit has
    a bitmap (a row with the column `era`) for each era in which it has anything, so that the size
    follows the events, not the years between them. There are two ways to cut:

    - Where the log is a few short stretches with long silences between them, each stretch is an era.
    - Else an era is `step` days. Its bitmaps also hold `lead` days before them, and as many days
      after as windows reach, so that one row answers every entry of the era's days.

    Attributes:
        base: the first day (since 1970) of the first word.
        words: words per bitmap, of 60 days each.
        step: days of an era; 0: there are none of this kind.
        lead: days that an era's bitmaps hold before its own first day.
        starts: the first day of each stretch, where stretches are the eras.

    >>> year = Calendar.of(20_000, 20_300)
    >>> year.words, year.is_long
    (6, False)
    >>> days_apart = ((12_000, 12_000), (20_000, 20_100))
    >>> stretches = Calendar.of(12_000, 20_100, reach=(28, 28), stretches=days_apart)
    >>> stretches.words, stretches.starts
    (2, (12000, 20000))
    >>> years = Calendar.of(12_000, 20_300, reach=(28, 28))
    >>> years.words, years.step, years.lead
    (8, 360, 60)
    """

    base: int
    words: int
    step: int = 0
    lead: int = 0
    starts: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        first: int,
        last: int,
        reach: tuple[int, int] = (0, 0),
        stretches: Sequence[tuple[int, int]] = (),
    ) -> Calendar:
        """The calendar of a log.

        Args:
            first: first day of the log, since 1970.
            last: last day of the log, since 1970.
            reach: how many days before and after an entry's day signals ask about.
            stretches: first and last day of each stretch of the log, with silences between them
                that are longer than any reach; empty: not known.
        """
        era_days = ERA_WORDS * BITS
        if last - first < era_days:
            return cls(first, max(last - first, 0) // BITS + 1)
        if stretches and all(stop - start < era_days for start, stop in stretches):
            longest = max(stop - start for start, stop in stretches)
            return cls(first, longest // BITS + 1, starts=tuple(start for start, _ in stretches))
        lead, tail = (-(-days // BITS) * BITS for days in reach)
        # eras are counted from 0, whatever the first day
        earlier_eras = (first + SHIFT_DAYS) // era_days
        base = first - lead - earlier_eras * era_days
        return cls(base, (lead + era_days + tail) // BITS, era_days, lead)

    @property
    def is_long(self) -> bool:
        """Whether the log is cut into eras."""
        return bool(self.step or self.starts)

    def columns(self, unit: str, name: str) -> list[str]:
        """The columns that hold a unit's bitmap of a feature, a word each."""
        return [f"{unit}_{name}_{word}" for word in range(self.words)]

    @property
    def era_words(self) -> range:
        """The words that hold the days of the era itself, without the days before and after."""
        if self.step:
            return range(self.lead // BITS, (self.lead + self.step) // BITS)
        return range(self.words)

    @property
    def era_key(self) -> str:
        """SQL of the column `era` with a comma before it; empty where a unit has one row."""
        return ", era" if self.is_long else ""

    @property
    def row_start(self) -> str:
        """SQL of the day that a row's first bit stands for."""
        if self.starts:
            whens = " ".join(f"when {era} then {start}" for era, start in enumerate(self.starts))
            return f"(case era {whens} end)"
        return f"({self.base} + era * {self.step})" if self.step else str(self.base)

    def era(self, day: str) -> str:
        """SQL of the era that a day (SQL) belongs to."""
        if self.starts:
            return self._by_stretch(day, range(len(self.starts)))
        return f"(({day} - {self.base + self.lead}) // {self.step})"

    def start(self, day: str) -> str:
        """SQL of the day of the first bit of the row that answers an entry of a day (SQL)."""
        if self.starts:
            return self._by_stretch(day, self.starts)
        return f"({self.base} + {self.era(day)} * {self.step})" if self.step else str(self.base)

    def same_era(self, table: str, day: str) -> str:
        """SQL of a join's further condition, from "and" on: the row of `table` belongs to the era
        of a day (SQL). Empty where a unit has one row."""
        return f" and {table}.era = {self.era(day)}" if self.is_long else ""

    def _by_stretch(self, day: str, values: Sequence[int]) -> str:
        """SQL of the value for a day's stretch: the last one that starts on the day or before it, or
        the first where none does.

        Args:
            day: SQL of the day.
            values: a value per stretch.
        """
        later = list(zip(self.starts[1:], values[1:], strict=True))[::-1]
        if not later:
            return f"({values[0]})"
        whens = " ".join(f"when {day} >= {start} then {value}" for start, value in later)
        return f"(case {whens} else {values[0]} end)"
