"""The event lake: what happened, on disk or in memory, seen only as of a time."""

from longplay.lake.lake import Appended, Lake

__all__ = ["Appended", "Lake"]
