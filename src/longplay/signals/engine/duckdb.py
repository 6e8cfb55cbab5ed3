"""DuckDB, the embedded engine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import duckdb

from longplay.lake.lake import Lake
from longplay.signals.engine.dialect import Dialect


@dataclass(frozen=True)
class DuckDBDialect:
    """See `Dialect`."""

    codes_ids: bool = True
    cuts_up: bool = True

    def midnight(self, day: str) -> str:
        """See `Dialect`.

        >>> DUCKDB.dialect.midnight("day + 1")
        "cast((day + 1) * interval 1 day + timestamptz '1970-01-01 00:00:00+00' as timestamptz)"
        """
        epoch = "timestamptz '1970-01-01 00:00:00+00'"
        return f"cast(({day}) * interval 1 day + {epoch} as timestamptz)"

    def window_sums(
        self, amounts: Mapping[str, str], over: str, first: int
    ) -> tuple[list[str], dict[str, str]]:
        """See `Dialect`. Two sums are added up as one number of 128 bits, since a window costs more
        than what it adds; amounts are >= 0.

        >>> windows, columns = DuckDBDialect().window_sums({"sum_0": "plays", "sum_1": "saves"}, "over w", 0)
        >>> windows
        ['coalesce(sum(cast(plays as hugeint) + (cast(saves as hugeint) << 64)) over w, 0) as added_0']
        >>> columns["sum_1"]
        'cast(added_0 >> 64 as double) as sum_1'
        """
        windows, columns, made = list[str](), dict[str, str](), list(amounts)
        for one, other in zip_longest(made[::2], made[1::2]):
            added, total = f"added_{first + len(windows)}", f"cast({amounts[one]} as double)"
            columns[one] = f"{added} as {one}"
            if other is not None:
                total = (
                    f"cast({amounts[one]} as hugeint) + (cast({amounts[other]} as hugeint) << 64)"
                )
                columns[one], columns[other] = (
                    f"cast({added} & {2**64 - 1} as double) as {one}",
                    f"cast({added} >> 64 as double) as {other}",
                )
            windows.append(f"coalesce(sum({total}) {over}, 0) as {added}")
        return windows, columns


@dataclass(frozen=True)
class DuckDBEngine:
    """DuckDB in this process."""

    dialect: Dialect = DuckDBDialect()

    def connect(
        self, lake: Lake, memory_limit: str | None = None, spill: Path | None = None
    ) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """See `Engine`."""
        return lake.connect(memory_limit=memory_limit, spill=spill)


DUCKDB = DuckDBEngine()
