"""A log of any size in a folder, for benches of signals: 180 days, a batch a day, made by hashing
so that it needs no memory.

Shaped like the log of the simulated service (1.4 events per user, creator and day there, 1.8 here;
42% of users a day): users of very different activity, each with 30 favourites that make 70% of what
is played, the rest by popularity; plays in runs of two; sessions that run on after a break; organic
half.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl

from longplay.lake import Lake
from longplay.lake.schema import DTYPES
from longplay.lake.storage import FolderStore

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 180
ITEMS = 100_000
_PER_DAY = 0.42 * 6.1  # events per user and day


def big_log(events: int, folder: Path, days: int = DAYS) -> Lake:
    """A lake of about `events` events in `days` days; one that is there already is opened."""
    done = folder / "whole"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        store = FolderStore(folder)
        append_catalogue(store)
        for day in range(days):
            append_day(store, events, day)
        done.touch()
    return Lake.open(folder)


def append_catalogue(store: FolderStore) -> None:
    """Add the items that there are, ten by each creator."""
    numbers = pl.Series("number", range(ITEMS), dtype=pl.Int64).to_frame()
    item, creator = (
        pl.lit(letter) + number.cast(pl.String).str.zfill(width)
        for letter, number, width in (("i", pl.col("number"), 6), ("c", pl.col("number") // 10, 5))
    )
    known = {
        "item_id": item,
        "creator_id": creator,
        "added_at": pl.lit(START),
        "available": pl.lit(True),
    }
    frame = numbers.select(
        known.get(name, pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in DTYPES["items"].items()
    )
    with store.writing():
        store.commit("catalogue", {"items": frame}, START)


def append_day(store: FolderStore, events: int, day: int) -> None:
    """Add one day's batch. Ids are new by construction, so the lake's search for known ids, which
    costs a scan per batch, is left out."""
    with store.writing():
        store.commit(
            f"day-{day}", {"events": day_of_events(events, day)}, START + timedelta(days=day + 1)
        )


def day_of_events(events: int, day: int) -> pl.DataFrame:
    """The events of one day, by time."""
    users = max(int(events / (DAYS * _PER_DAY)), 1)

    def u(*parts: object) -> str:  # uniform in [0, 1)
        return f"(hash({', '.join(map(str, parts))}) / 18446744073709551616.0)"

    favourite = f"hash(u, cast(floor(power(z, 2) * 30) as int)) % {ITEMS}"
    popular = f"cast(floor(power(z, 3) * {ITEMS}) as bigint)"
    second = (
        "cast((h * 0.9 * 86400 + k * 200 + case when k >= 8 then 4000 else 0 end) as bigint) "
        "% 86400"
    )
    sql = f"""
        with active as (
            select i as u from range({users}) t(i)
            where {u("i", "'p'")} * .6 + .12 > {u("i", day, "'a'")}
        ),
        plays as (
            select u, unnest(range(1 + cast(floor(-ln(1 - {u("u", day, "'n'")}) * 4.6) as int))) as k
            from active
        ),
        drawn as (
            select u, k,
                   {u("u", day, "k // 2", "'c'")} as c, {u("u", day, "k // 2", "'z'")} as z,
                   {u("u", day, "k", "'q'")} as q, {u("u", day, "k", "'s'")} as s,
                   {u("u", day, "'h'")} as h
            from plays
        ),
        items as (select *, case when c < .7 then {favourite} else {popular} end as i from drawn),
        kinds as (
            select *,
                   case when q < .80 then 'play' when q < .9 then 'skip' when q < .94 then 'save'
                        when q < .95 then 'like' when q < .9998 then 'visit' else 'cancel' end as kind,
                   kind in ('visit', 'cancel') as no_item
            from items
        )
        select 'e{day:03d}-' || u || '-' || k as event_id, 'u' || lpad(u::varchar, 7, '0') as user_id,
               case when not no_item then 'i' || lpad(i::varchar, 6, '0') end as item_id,
               case when not no_item then 'c' || lpad((i // 10)::varchar, 5, '0') end as creator_id,
               kind, timestamptz '{START + timedelta(days=day)}' + to_seconds({second}) as time,
               case when kind = 'play' then 30 + s * 170 end as seconds,
               case when s < .5 then 'home' when s < .7 then 'search' else 'library' end as surface,
               case when c < .5 then 'organic' when c < .85 then 'recommended' else 'autoplay' end as origin,
               's{day:03d}-' || u as session_id, null as decision_id, null as slot, null as amount,
               timestamptz '{START + timedelta(days=day + 1)}' as ingested_at
        from kinds order by time, event_id"""
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        frame = con.sql(sql).pl()
    return frame.select(pl.col(name).cast(dtype) for name, dtype in DTYPES["events"].items())
