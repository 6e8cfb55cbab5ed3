"""A store's copy of what the catalogue says of items, which shows whether that has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from longplay.lake.creators import create_creators, create_listed
from longplay.lake.daily import first_row, quoted
from longplay.signals.engine.rollups import files_sql, paths
from longplay.signals.store.manifest import Manifest

COLUMNS = ("slot_creator", "event_creator", "length")


class CatalogueCopy:
    """The catalogue of a lake as it is now, beside the copy that outcomes were computed with.

    Creates the table `catalogue_now`: item_id, and the columns of `COLUMNS`.

    Args:
        con: connected to the lake.
        folder: of the store.
        old: the last manifest.
        columns: those of `COLUMNS` that signals read; at least one.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        folder: Path,
        old: Manifest,
        columns: Sequence[str],
    ) -> None:
        self.con = con
        self.folder = folder
        self.old_columns = old.catalogue
        self.columns = columns
        create_listed(con)
        slot_creators = "listed"
        if "slot_creator" in columns:
            create_creators(con)
            slot_creators = "creators"
        self._old_rows: str | None = None  # SQL to select from
        if old.catalogue_file is not None and old.until is not None:
            old.check(folder, [old.catalogue_file])
            self._old_rows = files_sql(paths(folder, [old.catalogue_file]))
        con.execute(
            "create or replace temp table catalogue_now as select item_id, slots.creator_id as "
            "slot_creator, listed.creator_id as event_creator, items.length from items full join "
            f"{slot_creators} slots using (item_id) left join listed using (item_id)"
        )

    def has_changed(self) -> bool:
        """Whether the catalogue says something else of an item than the copy, in a column that
        outcomes were computed from."""
        if self._old_rows is None:
            return False
        shared = [column for column in self.columns if column in self.old_columns]
        differs = " or ".join(f"old.{column} is distinct from now.{column}" for column in shared)
        changed_item = (
            f"select 1 from {self._old_rows} old left join catalogue_now now using (item_id) where "
            f"{differs or 'false'} limit 1"
        )
        return first_row(self.con, changed_item) is not None

    def forget(self) -> None:
        """Leave the old copy out of the new one."""
        self._old_rows = None

    def has_all(self, columns: Sequence[str]) -> bool:
        """Whether there is an old copy, and it has these columns."""
        return self._old_rows is not None and set(columns) <= set(self.old_columns)

    def write(self, file: str, decision_files: Sequence[str], event_files: Sequence[str]) -> None:
        """Write the new copy: the catalogue, and the items that it does not know of the old copy
        and of these files. Whose they are may be said later.

        Args:
            file: where to, relative to the folder.
            decision_files: files of decisions whose items are not in the old copy.
            event_files: files of events whose items are not in the old copy.
        """
        items = []
        if decision_files:
            items.append(f"select unnest(slate) as item_id from {files_sql(decision_files)}")
        if event_files:
            items.append(f"select item_id from {files_sql(event_files)} where item_id is not null")
        if self._old_rows is not None:
            items.append(f"select item_id from {self._old_rows}")
        rows = "from catalogue_now"
        if items:
            nulls = ", ".join(f"null as {column}" for column in COLUMNS)
            rows += (
                f" union all select distinct item_id, {nulls} from ({' union all '.join(items)}) "
                "anti join catalogue_now using (item_id)"
            )
        self.con.execute(f"copy ({rows}) to {quoted(self.folder / file)} (format parquet)")
