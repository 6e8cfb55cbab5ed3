"""What one file holds: the records that can be read, and those that cannot."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

NOT_TEXT = "wrong encoding"
FAULTS = pl.Schema({"line": pl.Int64, "reason": pl.String, "text": pl.String})


@dataclass(frozen=True)
class Records:
    """The records of one file.

    `rows` has a column per name of the file; `lines` are their lines: records counted from 1, a
    header not counted, blank lines counted. `faults` has the line, reason and text of every record
    that cannot be read. `blank` counts records with nothing in them, which are in neither.
    `doubled` are the names that stand more than once.
    """

    rows: pl.DataFrame
    lines: pl.Series
    faults: pl.DataFrame
    blank: int = 0
    doubled: frozenset[str] = frozenset()
