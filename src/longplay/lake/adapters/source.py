"""What every adapter returns: events and items ready for the lake, and what it had to say about the log."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Source:
    """A log in longplay's words; give it to the lake with
    `lake.append(batch, events=source.events, items=source.items, rejected=source.rejected)`.

    `events` has the columns of `schema.TABLES["events"]` that the log could fill, and `line`: the row's
    number in its file, counted from 1. `items` is the catalogue the events imply, or None. `rejected`
    holds `line`, `reason` and `row` (the whole source row as JSON, with its file) of every row that is not
    an event; events and rejected rows together are the `rows` read. `notes` are sentences for the
    report. `has_origin`: the log says how each event came about; `has_decisions`: it also holds
    slates with their propensities, without which there is no off-policy estimate.
    """

    events: pl.DataFrame
    items: pl.DataFrame | None
    rejected: pl.DataFrame
    rows: int
    notes: tuple[str, ...]
    has_origin: bool
    has_decisions: bool

    def __str__(self) -> str:
        items = "" if self.items is None else f", {self.items.height:,} items"
        head = f"{self.rows:,} rows: {self.events.height:,} events{items}, {self.rejected.height:,} rejected"
        return "\n".join([head, *(f"- {note}" for note in self.notes)])
