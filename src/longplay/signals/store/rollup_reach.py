"""Which days and rows of the roll-ups matter to the entries of some days."""

from __future__ import annotations

from collections.abc import Sequence

from longplay.signals.declare.declaration import Declaration
from longplay.signals.engine.beginnings import Beginnings
from longplay.signals.engine.features import SESSIONS
from longplay.signals.engine.parts import is_unknown, parts_of

EVER_DAYS = 10**6


def days_to_read(
    signals: Sequence[Declaration],
    entered: tuple[int, int],
    first: int,
    until: int,
    beginnings: Beginnings,
) -> dict[str, tuple[int, int]]:
    """Roll-up -> first and last day that matter to the entries of some days.

    Args:
        signals: to be computed.
        entered: first and last entry day.
        first: the first day of the log.
        until: the midnight up to which events are counted.
        beginnings: of the log. Where it began long enough before, all that matters of an entry's
            past is the days in which it must be new.
    """
    reach: dict[str, tuple[int, int]] = {"user": (0, 0)}

    def widen(unit: str, low: int, high: int) -> None:
        widest_low, widest_high = reach.get(unit, (0, 0))
        reach[unit] = (min(low, widest_low), max(high, widest_high))

    for signal in signals:
        entry = signal.entry
        reads_all = entry.is_enrolment or entry.looks_back_forever
        if entry.novel_for is not None:
            reads_all = reads_all or not beginnings.covers_all(*entered, entry.novel_for)
        widen(entry.of or "user", -EVER_DAYS if reads_all else -(entry.novel_for or 0), 0)
        if is_unknown(signal, entered[0], until):
            continue
        for part in parts_of(signal):
            widen(part.unit, part.low, part.high)
            if part.feature is SESSIONS:
                # a session that began the day before may continue
                widen("sessions", part.low - 1, part.high)
    earliest = min(first, entered[0])
    return {
        unit: (max(entered[0] + low, earliest), min(entered[1] + high, until - 1))
        for unit, (low, high) in reach.items()
    }


def reads_own_pairs(signal: Declaration) -> bool:
    """Whether a signal reads the roll-ups by creator or item only for the pairs of its entries."""
    entry = signal.entry
    if entry.of is None or not (entry.is_discovery or entry.is_event):
        return False
    units = {part.unit for part in parts_of(signal)}
    return units <= {entry.of, "user"}
