"""Outcomes: a signal compiled to DuckDB SQL, right-censored. Immature is null, never 0."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from longplay.decisions import Decisions
from longplay.errors import DataError
from longplay.estimate import Estimate, clustered_mean
from longplay.lake.daily import create_daily, create_engaged, day_of
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.signals.signal import Signal

ENTRY_HORIZON = timedelta(days=1)
UNSURE_DAYS = 28  # a "first touch in the log" this early may be an old habit: `truncated` says so
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Outcomes:
    """One row per entry of a signal, as known at `as_of`.

    `frame` columns: user_id, item_id, creator_id (of the entry's event; null where it has none),
    time (of the entry), day (days since 1970-01-01), origin and surface of the entry's event, truncated
    (the log starts less than `novel_for` days before, 28 where it is null, so the "first touch" is not certain),
    value (null while immature), matures_at, days_observed (whole days of the window that have closed).

    `hits` are the days on which something counted: row of the entry, day of the window counted from
    0, amount; `trace()` lays them out.
    """

    signal: Signal
    frame: pl.DataFrame
    as_of: datetime
    hits: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] = field(repr=False)
    creators: pl.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return self.frame.height

    @property
    def value(self) -> NDArray[np.float64]:
        """Outcome per entry, shape [N]; NaN while immature."""
        return self.frame["value"].to_numpy().astype(float)

    @property
    def mature(self) -> NDArray[np.bool_]:
        """Whether each entry's window has closed, shape [N]."""
        return self.frame["value"].is_not_null().to_numpy()

    @property
    def keys(self) -> pl.Series:
        """What each entry is about: item or creator ids, by the signal's entry; user ids where it is about a user."""
        return self.frame[f"{self.signal.entry.of or 'user'}_id"]

    def trace(self, age: int | None = None) -> sparse.csr_matrix:
        """The daily amounts, sparse [N, days of the window]; days not yet observed are 0.

        With `age`, only the first `age` days of the window: an entry younger than that shows
        what it has (see `observed`).
        """
        row, day, amount = self.hits
        shape = (len(self), self.signal.days)
        if age is not None:
            keep = day < age
            row, day, amount = row[keep], day[keep], amount[keep]
        return sparse.csr_matrix((amount, (row, day)), shape=shape)

    def observed(self, age: int | None = None) -> NDArray[np.int64]:
        """Days of the window observed per entry, shape [N], at most `age`."""
        days_N = self.frame["days_observed"].to_numpy().astype(np.int64)
        return days_N if age is None else np.minimum(days_N, age)

    def where(self, mask: NDArray[np.bool_] | pl.Series) -> Outcomes:
        """Only the entries where `mask[N]` holds."""
        mask_N = np.asarray(mask, dtype=bool)
        new_row = np.cumsum(mask_N) - 1
        row, day, amount = self.hits
        keep = mask_N[row]
        return replace(self, frame=self.frame.filter(pl.Series(mask_N)), hits=(new_row[row[keep]], day[keep], amount[keep]))

    def entered(self, start: datetime | None = None, end: datetime | None = None) -> Outcomes:
        """Only entries with start <= time < end."""
        inside = pl.lit(True)
        if start is not None:
            inside = inside & (pl.col("time") >= start)
        if end is not None:
            inside = inside & (pl.col("time") < end)
        return self.where(self.frame.select(inside.alias("inside") & pl.col("time").is_not_null())["inside"])

    def base_rate(self) -> Estimate:
        """Mean value of the mature entries, clustered by user.

        Raises:
            DataError: no entry is mature.
        """
        mature = self.frame.filter(pl.col("value").is_not_null())
        if mature.is_empty():
            raise DataError(f"{self.signal.name}: none of {len(self):,} entries is mature at {self.as_of:%Y-%m-%d}; wait, or shorten the window")
        return clustered_mean(mature["value"].to_numpy(), mature["user_id"].to_numpy(), estimand=f"mean {self.signal.label} of mature entries")

    def maturity_curve(self) -> pl.DataFrame:
        """How the outcome builds up: day of the window, mean value had the window ended there.

        Over mature entries only. Columns: day, value.
        """
        mature_N = self.mature
        if not mature_N.any():
            return pl.DataFrame(schema={"day": pl.Int64, "value": pl.Float64})
        trace = self.where(mature_N).trace().tocsc()
        total_N, means = np.zeros(int(mature_N.sum())), []
        for day in range(self.signal.days):
            total_N += trace[:, [day]].toarray()[:, 0]
            means.append(_value(total_N, self.signal.threshold).mean())
        return pl.DataFrame({"day": np.arange(self.signal.days) + self.signal.window[0], "value": means})

    def on(self, decisions: Decisions | pl.DataFrame) -> Shown:
        """The outcomes joined to the slots that were shown, one row per slot.

        A slot's outcome is that of an entry by the same user about the shown creator (or item) within
        one day of the slot; a slot without entry is a true 0 once it is mature. Every slot matures
        when an entry made at the end of that day would have, whether or not there was one: otherwise
        recent slots would keep their zeros and lose their positives. A creator shown in several
        slots counts for each of them; where the shown item's creator is not known, neither is the value: null.

        Raises:
            DataError: the signal's entries are about users, so no slot owns them.
        """
        of = self.signal.entry.of
        if of is None:
            raise DataError(f"{self.signal.name}: entries of kind {self.signal.entry.kind} are about a user; on() needs discovery or exposure")
        frame = decisions.frame if isinstance(decisions, Decisions) else decisions
        slots = (
            frame.select("decision_id", "context_id", "user_id", "time", "slate", "log_prob")
            .with_columns(slot=pl.int_ranges(0, pl.col("slate").list.len(), dtype=pl.Int32))
            .explode("slate", "log_prob", "slot", empty_as_null=False)
            .rename({"slate": "item_id"})
            .with_row_index("row")
            .join(self.creators, on="item_id", how="left")
        )
        key = f"{of}_id"
        entries = self.frame.filter(pl.col(key).is_not_null()).select("user_id", key, pl.col("time").alias("entry_time"), "value").sort("entry_time")
        joined = slots.sort("time").join_asof(
            entries, left_on="time", right_on="entry_time", by=["user_id", key], strategy="forward", tolerance=ENTRY_HORIZON, check_sortedness=False
        )
        entered = pl.col("entry_time").is_not_null() & (pl.col("entry_time") < pl.col("time") + ENTRY_HORIZON)
        last_day = (pl.col("time") + ENTRY_HORIZON).dt.truncate("1d")
        joined = joined.with_columns(entered=entered, matures_at=last_day + pl.duration(days=self.signal.window[1] + 1)).with_columns(
            value=pl.when((pl.col("matures_at") <= self.as_of) & pl.col(key).is_not_null()).then(
                pl.when("entered").then(pl.col("value")).otherwise(0.0)
            )
        )
        columns = ["decision_id", "slot", "context_id", "user_id", "item_id", "creator_id", "time", "log_prob", "entered", "value", "matures_at"]
        return Shown(self.signal, joined.sort("row").select(*columns), self.as_of)

    def __str__(self) -> str:
        mature = int(self.mature.sum())
        rate = f", mean {self.base_rate()}" if mature else ""
        return f"{self.signal.label} at {self.as_of:%Y-%m-%d %H:%M}: mature {mature:,} of {len(self):,} entries{rate}"

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" + self.frame.head(10)._repr_html_()


@dataclass(frozen=True)
class Shown:
    """One row per slot shown, with what came of it; made by `Outcomes.on`.

    `frame` columns: decision_id, slot, context_id, user_id, item_id, creator_id, time, log_prob,
    entered (an entry followed within a day), value (null while immature, 0 without entry), matures_at.
    """

    signal: Signal
    frame: pl.DataFrame
    as_of: datetime

    def __len__(self) -> int:
        return self.frame.height

    def __str__(self) -> str:
        mature = self.frame.filter(pl.col("value").is_not_null())
        return (
            f"{self.signal.label} on {len(self):,} slots, {mature.height:,} mature; "
            f"an entry followed {self.frame['entered'].mean() or 0:.2%} of slots, value per mature slot {mature['value'].mean() or 0:.4g}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" + self.frame.head(10)._repr_html_()


def outcomes_of(signal: Signal, lake: Lake, as_of: datetime | None = None, enrolled: pl.DataFrame | None = None) -> Outcomes:
    """See `Signal.outcomes`.

    Args:
        enrolled: columns user_id and time (UTC), one row per user. An `enrolment` entry opens there and nowhere
            else; entries of other kinds are what they always are. See `signals.enrolled`, which checks the table.
    """
    given, as_of = as_of, lake.watermark if as_of is None else as_of
    if as_of.tzinfo is None:
        raise DataError(f"{signal.name}: as_of={as_of.isoformat()} has no time zone; give UTC")
    if as_of > lake.watermark:
        raise DataError(
            f"{signal.name}: as_of={as_of:%Y-%m-%d %H:%M} lies after the lake's watermark {lake.watermark:%Y-%m-%d %H:%M}; what came later is unknown"
        )
    view = lake if given is None else lake.before(given)  # without as_of the view keeps its own bounds, known_at too
    with view.connect(threads=None) as con:
        create_engaged(con)
        _create_creators(con)
        if enrolled is not None:
            con.register("enrolled", enrolled.select("user_id", "time").to_arrow())
        _create_entries(con, signal, enrolled is not None)
        if con.execute("select count(*) from entries").fetchone() == (0,):
            _explain_no_entries(con, signal, lake, as_of)
        hits = _hits(con, signal)
        frame = con.sql("select * exclude (row) from entries order by row").pl()
        creators = con.sql("select * from creators order by item_id").pl()
    row, day, amount = (hits[name].to_numpy() for name in ("row", "day", "amount"))
    total_N = np.bincount(row, weights=amount, minlength=frame.height).astype(float)  # without any hit bincount counts in integers
    start, stop = signal.window
    window_opens = (pl.col("day") + start).cast(pl.Date).cast(TIME)
    frame = (
        frame.with_columns(pl.col("time").cast(TIME), pl.Series("value", _value(total_N, signal.threshold), dtype=pl.Float64))
        .with_columns(
            matures_at=(pl.col("day") + stop + 1).cast(pl.Date).cast(TIME),
            days_observed=((pl.lit(as_of, dtype=TIME) - window_opens).dt.total_hours() // 24).clip(0, signal.days).cast(pl.Int32),
        )
        .with_columns(value=pl.when(pl.col("matures_at") <= as_of).then("value"))  # immature != 0: a zero would teach churn
    )
    return Outcomes(signal, frame, as_of, (row.astype(np.int64), day.astype(np.int64), amount.astype(float)), creators)


def _value(total_N: NDArray[np.float64], threshold: float | None) -> NDArray[np.float64]:
    """The outcome of each total, shape [N]; the slack forgives the rounding of fractions: three times 20 s are a minute."""
    return total_N if threshold is None else (total_N >= threshold - 1e-9).astype(float)


def _create_creators(con: duckdb.DuckDBPyConnection) -> None:
    """Create `creators`: item_id, creator_id as the catalogue has it, else as the item's last event does.

    Without the second a log that has no catalogue would lose every entry of the slots it showed, and call that a 0.
    """
    con.execute(
        """
        create or replace temp table creators as
        with listed as (select item_id, creator_id from items where creator_id is not null)
        select * from listed union all
        select item_id, arg_max(creator_id, (time, event_id)) as creator_id
        from events anti join listed using (item_id) where item_id is not null and creator_id is not null group by item_id
        """
    )


def _create_entries(con: duckdb.DuckDBPyConnection, signal: Signal, given: bool) -> None:
    """Create `entries`: row, user_id, item_id, creator_id, time, day, origin, surface, truncated.

    `given`: a view `enrolled` says when each user enrolled, so the log is not asked.
    """
    entry = signal.entry
    if entry.kind == "discovery":
        key = f"{entry.of}_id"
        gap = "s.previous is null" if entry.novel_for is None else f"(s.previous is null or s.day - s.previous > {entry.novel_for})"
        body = f"""
            with touches as (
                select user_id, {key} as key, day, min((time, event_id)) as first
                from engaged where {key} is not null group by all
            ), spaced as (select *, lag(day) over (partition by user_id, key order by day) as previous from touches)
            select e.user_id, e.item_id, e.creator_id, e.time, e.day, e.origin, e.surface,
                   e.day - (select min(day) from engaged) < {entry.novel_for or UNSURE_DAYS} and s.previous is null as truncated
            from spaced s join engaged e on e.user_id = s.user_id and e.event_id = s.first[2]
            where {gap}"""
    elif entry.kind == "exposure":
        body = f"""
            select d.user_id, d.item_id, c.creator_id, d.time, {day_of("d.time")} as day, 'recommended' as origin, d.surface, false as truncated
            from (select user_id, time, surface, decision_id, unnest(slate) as item_id, generate_subscripts(slate, 1) as slot from decisions) d
            left join creators c using (item_id)"""
    elif entry.kind == "user_day":
        body = """
            select user_id, null::varchar as item_id, null::varchar as creator_id, min(time) as time, day,
                   arg_min(origin, (time, event_id)) as origin, arg_min_null(surface, (time, event_id)) as surface, false as truncated
            from engaged group by user_id, day"""
    elif given:
        body = f"""
            select user_id, null::varchar as item_id, null::varchar as creator_id, time, {day_of("time")} as day,
                   'organic' as origin, null::varchar as surface, false as truncated
            from enrolled"""
    else:
        body = f"""
            with trial as (select user_id, min(time) as time from decisions where experiment is not null group by user_id),
            first as (select user_id, min(time) as time from engaged group by user_id)
            select user_id, null::varchar as item_id, null::varchar as creator_id, coalesce(trial.time, first.time) as time,
                   {day_of("coalesce(trial.time, first.time)")} as day, 'organic' as origin, null::varchar as surface, false as truncated
            from first full join trial using (user_id)"""
    con.execute(
        f"""create or replace temp table entries as
        select row_number() over (order by time, user_id, item_id, creator_id) - 1 as row, * from ({body}) order by row"""
    )


def _hits(con: duckdb.DuckDBPyConnection, signal: Signal) -> pl.DataFrame:
    """Row of the entry, day of the window (from 0) and amount, for every day on which something counted."""
    of = signal.measure.of
    create_daily(con, f"{of}_id" if of else None, signal.origins)
    amount = {"minutes": "micros / 60e6", "plays": "cast(plays as double)"}.get(signal.measure.kind, "cast(1 as double)")
    same_key = f"and daily.key = entries.{of}_id" if of else ""
    start, stop = signal.window
    return con.sql(
        f"""
        select entries.row, daily.day - entries.day - {start} as day, {amount} as amount
        from entries join daily on daily.user_id = entries.user_id {same_key}
             and daily.day between entries.day + {start} and entries.day + {stop}
        where {amount} > 0
        order by 1, 2
        """
    ).pl()


def _explain_no_entries(con: duckdb.DuckDBPyConnection, signal: Signal, lake: Lake, as_of: datetime) -> None:
    """Say why there is nothing to measure, where a reason can be known."""
    if con.execute("select count(*) from events").fetchone() == (0,):
        late = lake.before(as_of, known_at=datetime.max.replace(tzinfo=UTC)).events
        arrived = late["ingested_at"].min()
        if isinstance(arrived, datetime) and arrived > lake.watermark:  # everything came after the log had ended: a bulk load
            raise DataError(
                f"{signal.name}: {late.height:,} events happened before {as_of:%Y-%m-%d %H:%M} but none had arrived by then (ingested_at); "
                "leave ingested_at out if the log was loaded in bulk, or give signal.outcomes(lake.before(t, known_at=later))"
            )
    kind, of = signal.entry.kind, signal.entry.of
    if kind == "exposure" and con.execute("select count(*) from decisions").fetchone() == (0,):
        raise DataError(f"{signal.name}: the log has no decisions, so there are no exposures; enter by discovery() or user_day()")
    if of is not None:
        counts = con.execute(f"select count(*), count({of}_id) from engaged").fetchone()
        if counts and counts[0] and not counts[1]:
            raise DataError(f"{signal.name}: no event of this log has a {of}; map a column to {of}_id, or use the other of creator and item")
