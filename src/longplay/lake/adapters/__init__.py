"""From the logs people have to what `Lake.append` takes; an adapter reads, maps and sets aside, and
writes nothing."""

from longplay.lake.adapters.lake_copy import read_lake
from longplay.lake.adapters.logged_slates import read_decisions, read_items
from longplay.lake.adapters.open_bandit import read_open_bandit
from longplay.lake.adapters.record_files import read_rows
from longplay.lake.adapters.retail import read_retail
from longplay.lake.adapters.source import Source
from longplay.lake.adapters.table import read_table
from longplay.lake.adapters.user_files import read_users

__all__ = [
    "Source",
    "read_decisions",
    "read_items",
    "read_lake",
    "read_open_bandit",
    "read_retail",
    "read_rows",
    "read_table",
    "read_users",
]
