"""Lakes written before the log of commits: their commits were a Delta table with a row per
batch."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from longplay.errors import DataError
from longplay.lake import delta
from longplay.lake.commits import FOLDER, Commit, TableChange

LEGACY_TABLES = ("events", "decisions", "contexts", "items", "quarantine")
COLUMNS = {"seq", "batch", "watermark", *(f"{table}_version" for table in LEGACY_TABLES)}


def legacy_commits(lake: Path) -> tuple[Commit, ...]:
    """The commits of an older lake, oldest first; the last one names all files, without digests.
    None where there are none.

    Raises:
        DataError: the folder `commits` holds another table, or one that cannot be read.
    """
    folder = lake / FOLDER
    if not (folder / delta.LOG_FOLDER).is_dir():
        return ()
    try:
        table = DeltaTable(str(folder))
        rows = pl.read_parquet([str(folder / name) for name in delta.names_of(table)], glob=False)
    except Exception as error:  # what a damaged log raises depends on the damage
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"lake: {folder} cannot be read as the log of commits of an older lake ({reason})"
        ) from error
    if not set(rows.columns) >= COLUMNS:
        raise DataError(
            f"lake: {folder} is another program's table; choose a new or empty folder for the lake"
        )
    rows = rows.sort("seq")
    commits = [
        Commit(row["seq"], row["batch"], None, row["watermark"], {})
        for row in rows.iter_rows(named=True)
    ]
    if not commits:
        return ()
    versions = rows.row(-1, named=True)
    last = commits[-1]
    changes = {
        table: _all_files(lake, table, versions[f"{table}_version"])
        for table in LEGACY_TABLES
        if versions[f"{table}_version"] >= 0
    }
    return (*commits[:-1], Commit(last.seq, last.batch, None, last.watermark, changes))


def _all_files(lake: Path, table: str, version: int) -> TableChange:
    """Every file of a table's version; older lakes recorded neither sizes nor digests."""
    try:
        names = delta.names_of(DeltaTable(str(lake / table), version=version))
        files = [delta.described(lake / table, table, name, digest=False) for name in sorted(names)]
    except Exception as error:  # what a damaged log raises depends on the damage
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"lake: {lake / table} cannot be read at version {version} ({reason})"
        ) from error
    return TableChange(version, tuple(files))
