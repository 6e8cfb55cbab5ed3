"""What every adapter returns: tables ready for the lake, with notes on the log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl


@dataclass(frozen=True)
class Source:
    """A log in longplay's format. Append it with `lake.append(batch, **source.tables,
    rejected=source.rejected)`.

    Attributes:
        events: the columns of `schema.TABLES["events"]` that the log could fill, and `line`: the
            row's number in its file, counted from 1. None where the source holds no events.
        items: the catalogue that the source holds or its events imply, or None.
        users: what the service knows of its users; None where the source does not say.
        decisions: what was shown, and what the policy saw; None where the source does not say.
        contexts: what was shown, and what the policy saw; None where the source does not say.
        rejected: `line`, `reason` and `row` (the whole source row as JSON, with its file) of every
            row that was set aside.
        rows: rows read; every one is used or rejected.
        notes: sentences for the report.
        has_origin: the log says how each event came about.
        has_decisions: it holds slates with their propensities, without which there is no off-policy
            estimate.
        complete_until: before this time nothing is missing; None: up to the last row.
    """

    events: pl.DataFrame | None
    items: pl.DataFrame | None
    rejected: pl.DataFrame
    rows: int
    notes: tuple[str, ...]
    has_origin: bool
    has_decisions: bool
    decisions: pl.DataFrame | None = None
    contexts: pl.DataFrame | None = None
    complete_until: datetime | None = None
    users: pl.DataFrame | None = None

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        """The tables that the source holds, by the names of `Lake.append`."""
        held = {
            "events": self.events,
            "items": self.items,
            "users": self.users,
            "decisions": self.decisions,
            "contexts": self.contexts,
        }
        return {name: frame for name, frame in held.items() if frame is not None}

    def joined(self, other: Source) -> Source:
        """Both sources as one log. Of a table that both hold, `other`'s rows are taken, and items
        that only this source has."""
        items = other.items if self.items is None else self.items
        if self.items is not None and other.items is not None:
            only_here = self.items.join(other.items, on="item_id", how="anti")
            items = pl.concat([other.items, only_here]).sort("item_id")
        without_decisions = tuple(
            note
            for note in self.notes
            if not (other.has_decisions and note.startswith("no decisions"))
        )
        return replace(
            self,
            events=self.events if other.events is None else other.events,
            items=items,
            users=self.users if other.users is None else other.users,
            decisions=self.decisions if other.decisions is None else other.decisions,
            contexts=self.contexts if other.contexts is None else other.contexts,
            rejected=pl.concat([self.rejected, other.rejected]),
            rows=self.rows + other.rows,
            notes=without_decisions + other.notes,
            has_decisions=self.has_decisions or other.has_decisions,
        )

    def __str__(self) -> str:
        counts = [
            f"{frame.height:,} {name}" for name, frame in self.tables.items() if name != "contexts"
        ]
        head = f"{self.rows:,} rows: {', '.join([*counts, f'{self.rejected.height:,} rejected'])}"
        return "\n".join([head, *(f"- {note}" for note in self.notes)])
