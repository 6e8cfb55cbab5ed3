"""Result of the stage `outcomes`: every declared signal on the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.estimate import Estimate
from longplay.results.record import StageResult, flattened


@dataclass(frozen=True)
class MaturityDay:
    """The mean outcome if the window ended at this day.

    Attributes:
        day: of the window.
        value: mean outcome, in the signal's unit.
    """

    day: int
    value: float


@dataclass(frozen=True)
class KnownOutcomes:
    """What is known of a signal's outcomes at some moment.

    Attributes:
        as_of: the moment.
        entries: entries up to it.
        mature: those whose window has closed.
        truncated: those so near the log's begin that they may be none.
        base_rate: mean outcome of the mature ones that are certain, null where there is none.
    """

    as_of: str
    entries: int
    mature: int
    truncated: int
    base_rate: Estimate | None


@dataclass(frozen=True)
class SignalFigures(KnownOutcomes):
    """A signal on the complete log.

    Attributes:
        label: `name@version`.
        sentence: what it means.
        unit: what one outcome is of.
        binary: whether outcomes are 0 or 1.
        days: of its window.
        toml: its declaration.
        maturity: how it builds up over its window.
        at_training: what is known when training ends.
    """

    label: str
    sentence: str
    unit: str
    binary: bool
    days: int
    toml: str
    maturity: tuple[MaturityDay, ...]
    at_training: KnownOutcomes


@dataclass(frozen=True)
class OutcomesResult(StageResult, stage="outcomes"):
    """Every declared signal by name."""

    signals: Mapping[str, SignalFigures] = flattened()
