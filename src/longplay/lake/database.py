"""DuckDB, opened in one place: configured, and then locked, so that no text that reaches it later
changes its settings."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from longplay.errors import ConfigError
from longplay.lake.daily import quoted

MEMORY = re.compile(
    r"\s*\d+(\.\d+)?\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\s*", re.ASCII | re.IGNORECASE
)
MOST_THREADS = 1024


def connected(
    threads: int | None = None, memory_limit: str | None = None, spill: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A new DuckDB database in memory, in UTC, whose settings are locked and which installs no
    extensions.

    Args:
        threads: at most this many, 1 to 1,024; default all processors.
        memory_limit: of DuckDB's buffers, as a number and a unit: "4GB", "500 MB", "1.5GiB". Beyond
            it, it spills.
        spill: folder for what does not fit into memory; DuckDB's own default otherwise.

    Raises:
        ConfigError: a memory limit or a number of threads of another form.
    """
    if memory_limit is not None and not (
        isinstance(memory_limit, str) and MEMORY.fullmatch(memory_limit)
    ):
        raise ConfigError(
            f'memory_limit={memory_limit!r} given, expected a number and a unit, e.g. "4GB" or '
            '"500MB"'
        )
    if threads is not None and (
        not isinstance(threads, int)
        or isinstance(threads, bool)
        or not 1 <= threads <= MOST_THREADS
    ):
        raise ConfigError(
            f"threads={threads!r} given, expected a whole number from 1 to {MOST_THREADS:,}"
        )
    con = duckdb.connect()
    try:
        if memory_limit is not None:
            con.execute(f"set memory_limit = {quoted(memory_limit.strip())}")
        if spill is not None:
            con.execute(f"set temp_directory = {quoted(spill)}")
        if threads is not None:
            con.execute(f"set threads = {threads}")
        con.execute("set TimeZone = 'UTC'")
        con.execute("set preserve_insertion_order = false")
        con.execute("set autoinstall_known_extensions = false")
        # DuckDB writes its progress bar to standard output and so into logs; callers show progress.
        # It is asked first: in Jupyter without ipywidgets DuckDB has no bar, and setting it fails
        if con.execute("select current_setting('enable_progress_bar')").fetchone() == (True,):
            con.execute("set enable_progress_bar = false")
        con.execute("set lock_configuration = true")
    except BaseException:
        con.close()
        raise
    return con
