"""Lakes as older versions of longplay wrote them: their commits are a Delta table with a row per
batch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl
from deltalake import write_deltalake

from longplay.lake.schema import TABLES


def write_older_lake(
    folder: Path, batch: str, tables: Mapping[str, pl.DataFrame], watermark: datetime
) -> None:
    """One batch in `folder`; tables have the columns of their time."""
    versions = {f"{table}_version": -1 for table in TABLES}
    for table, frame in tables.items():
        write_deltalake(str(folder / table), frame.to_arrow())
        versions[f"{table}_version"] = 0
    commit = pl.DataFrame(
        {"seq": [1], "batch": [batch], "watermark": [watermark]}
        | {name: [version] for name, version in versions.items()}
    )
    write_deltalake(str(folder / "commits"), commit.to_arrow())
