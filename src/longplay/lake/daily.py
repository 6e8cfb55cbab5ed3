"""Daily roll-ups: what every signal is computed from. One row per user, key, day and origin."""

from __future__ import annotations

import duckdb

from longplay.lake.schema import ENGAGED

# epoch() of a timestamptz is in seconds; floor keeps days before 1970 right
DAY = "cast(floor(epoch({time}) / 86400) as integer)"


def day_of(time: str) -> str:
    """SQL for the UTC calendar day (days since 1970-01-01, integer) of a timestamp column."""
    return DAY.format(time=time)


def create_engaged(con: duckdb.DuckDBPyConnection) -> None:
    """Create the view `engaged`: events that are activity, with their `day`."""
    kinds = ", ".join(f"'{kind}'" for kind in ENGAGED)
    con.execute(f"create or replace view engaged as select *, {day_of('time')} as day from events where kind in ({kinds})")


def create_daily(con: duckdb.DuckDBPyConnection, key: str | None, origins: tuple[str, ...]) -> None:
    """Create the table `daily`: user_id, key, day, plays, micros per user, `key` column (or null) and day.

    Only events of `origins` count. `micros` is engaged time in microseconds, an integer so that
    sums do not depend on the order of rows; a row exists where there was at least one event.
    """
    listed = ", ".join(f"'{origin}'" for origin in origins)
    named = key if key is not None else "cast(null as varchar)"
    has_key = f" and {key} is not null" if key is not None else ""
    con.execute(
        f"""
        create or replace temp table daily as
        select user_id, {named} as key, day,
               cast(count(*) filter (kind = 'play') as bigint) as plays,
               cast(coalesce(sum(cast(round(seconds * 1e6) as bigint)), 0) as bigint) as micros
        from engaged where origin in ({listed}){has_key}
        group by all
        """
    )
