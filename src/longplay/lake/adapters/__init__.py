"""From the logs people have to what `Lake.append` takes; an adapter reads, maps and sets aside, and writes nothing."""

from longplay.lake.adapters.retail import read_retail
from longplay.lake.adapters.rows import read_rows
from longplay.lake.adapters.source import Source
from longplay.lake.adapters.table import read_table

__all__ = ["Source", "read_retail", "read_rows", "read_table"]
