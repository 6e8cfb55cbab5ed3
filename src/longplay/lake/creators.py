"""Whose work an event is about: the creator that the event names, else the catalogue's creator of
its item.

The usual star schema has item ids in the events and creators in the catalogue. Both are read as of
the view.
"""

from __future__ import annotations

import polars as pl

from longplay.lake.connection import Connection
from longplay.lake.daily import first_row
from longplay.lake.lake import Lake

# SQL condition of events whose creator is looked up in the catalogue
LACKS_CREATOR = "creator_id is null and item_id is not null"

_LACKING: dict[
    int, tuple[tuple[int, ...], bool]
] = {}  # lake's store -> its state, and whether any of its events lacks a creator


def create_listed(con: Connection) -> None:
    """Create the table `listed` (item_id, creator_id): the catalogue's items that have a
    creator."""
    con.execute(
        "create or replace temp table listed as select item_id, creator_id from items where "
        "creator_id is not null"
    )


def any_lacks_creator(con: Connection, events: str = "events") -> bool:
    """Whether any event has an item but no creator.

    Args:
        con: DuckDB connection.
        events: what can be selected from, with columns item_id and creator_id.
    """
    return first_row(con, f"select 1 from {events} where {LACKS_CREATOR} limit 1") is not None


def prepare_creators(con: Connection, lake: Lake, slots: bool = False) -> bool:
    """Create the tables that give the creator of an event or a slot.

    Args:
        con: DuckDB connection of `lake`.
        lake: a view.
        slots: also create `creators`, for the items of slots.

    Returns:
        Whether creators are to be read `with_listed`: some event lacks what the catalogue may know.
        Asked once of a state of the log.
    """
    create_listed(con)
    if slots:
        create_creators(con)
    store, state = lake.key[:2]
    if store not in _LACKING or _LACKING[store][0] != state:
        _LACKING[store] = (state, any_lacks_creator(con, "_all_events"))
    return _LACKING[store][1]


def with_listed(events: str) -> str:
    """SQL after "from": `events` (a name, or SQL in brackets) with missing creators from the table
    `listed`.

    >>> select, join = with_listed("events").split(" from ")
    >>> select
    '(select e.* replace (coalesce(e.creator_id, l.creator_id) as creator_id)'
    >>> join
    'events e left join listed l on l.item_id = e.item_id)'
    """
    columns = "e.* replace (coalesce(e.creator_id, l.creator_id) as creator_id)"
    return f"(select {columns} from {events} e left join listed l on l.item_id = e.item_id)"


def create_creators(con: Connection) -> None:
    """Create the table `creators` (item_id, creator_id) from `listed`: the catalogue's creator,
    else that of the item's last event.

    Without the second a log that has no catalogue would lose every entry of the slots it showed,
    and call that a 0.
    """
    con.execute(
        """
        create or replace temp table creators as
        select * from listed union all
        select item_id, arg_max(creator_id, (time, event_id)) as creator_id
        from events anti join listed using (item_id)
        where item_id is not null and creator_id is not null
        group by item_id
        """
    )


def named_events(lake: Lake) -> pl.DataFrame:
    """The lake's events, oldest first, with missing creators filled in from the catalogue."""
    events = lake.events
    lacking = pl.col("creator_id").is_null() & pl.col("item_id").is_not_null()
    if not events.select(lacking.any()).item():
        return events
    listed = _listed(lake).rename({"creator_id": "listed"})
    joined = events.join(listed, on="item_id", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("creator_id", "listed").alias("creator_id")).drop(
        "listed"
    )


def item_creators(lake: Lake) -> pl.DataFrame:
    """The creator of every item of the catalogue or of an event: the catalogue's, else that of its
    last event. Columns item_id, creator_id.

    Null where neither knows it. First the catalogue by item id, then what only events have, oldest
    first.
    """
    listed = _listed(lake)
    events = lake.events.filter(pl.col("item_id").is_not_null())
    event_creators = (
        events.filter(pl.col("creator_id").is_not_null())
        .sort("time", "event_id")
        .group_by("item_id")
        .agg(pl.col("creator_id").last())
    )
    creators = pl.concat([listed, event_creators.join(listed, on="item_id", how="anti")])
    items = (
        pl.concat([lake.items["item_id"], events["item_id"]]).unique(maintain_order=True).to_frame()
    )
    return items.join(creators, on="item_id", how="left", maintain_order="left")


def creator_disagreements(lake: Lake) -> pl.DataFrame:
    """Items for which events and the catalogue name different creators. The event's creator counts.

    Returns:
        Columns item_id, event_creator, catalogue_creator, events (how many name that creator); most
        events first.
    """
    with lake.connect() as con:
        create_listed(con)
        return con.sql(
            """
            select
                item_id,
                e.creator_id as event_creator,
                l.creator_id as catalogue_creator,
                count(*) as events
            from events e join listed l using (item_id)
            where e.creator_id <> l.creator_id
            group by all order by events desc, item_id, event_creator
            """
        ).pl()


def disagreement_note(lake: Lake) -> str:
    """One sentence on where events and the catalogue name different creators; empty where they
    agree."""
    differing = creator_disagreements(lake)
    if differing.is_empty():
        return ""
    item, event_creator, catalogue_creator, _ = differing.row(0)
    return (
        f"{differing['events'].sum():,} events of {differing['item_id'].n_unique():,} items name "
        "another creator than the catalogue "
        f"(most of item {item!r}: {event_creator!r} in events, {catalogue_creator!r} in the "
        "catalogue); the event's own counts"
    )


def _listed(lake: Lake) -> pl.DataFrame:
    return lake.items.filter(pl.col("creator_id").is_not_null()).select("item_id", "creator_id")
