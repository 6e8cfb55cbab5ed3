"""A longplay lake as a source: its current content is copied, and nothing is written to it."""

from __future__ import annotations

from pathlib import Path

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.source import Source
from longplay.lake.lake import Lake


def read_lake(path: str | Path) -> Source:
    """Events, items, users, decisions and contexts of the lake in the folder `path`, as of its
    watermark. Every description of items and users is copied, so that the copy knew at each moment
    what the lake knew.

    Raises:
        ConfigError: no lake there.
        DataError: it is empty.
    """
    folder = Path(path).expanduser()
    if not (folder / "commits").is_dir():
        raise ConfigError(
            f"{folder}: no lake of longplay (a folder with `commits`); give the folder that "
            "`Lake.open` was given"
        )
    lake = Lake.open(folder).fixed()
    if lake.events.is_empty() and lake.decisions.is_empty():
        raise DataError(
            f"{folder}: the lake shows no event and no decision before its watermark "
            f"{lake.watermark:%Y-%m-%d %H:%M}"
        )
    events = lake.events
    decisions = lake.decisions
    shows_decisions = decisions.height > 0
    return Source(
        events=events,
        items=lake.descriptions("items"),
        users=None if lake.users.is_empty() else lake.descriptions("users"),
        decisions=decisions if shows_decisions else None,
        contexts=lake.contexts if shows_decisions else None,
        rejected=lake.quarantine.select("line", "reason", "row").clear(),
        rows=events.height,
        notes=(
            f"copied from the lake {folder.name}, complete up to {lake.watermark:%Y-%m-%d %H:%M} "
            "UTC",
        ),
        has_origin=events["origin"].n_unique() > 1,
        has_decisions=shows_decisions,
        complete_until=lake.watermark,
    )
