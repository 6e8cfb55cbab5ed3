"""Any Parquet or CSV log with a column mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError
from longplay.lake.adapters.rows import FILE, KIND, LINE, read_rows
from longplay.lake.adapters.source import Source
from longplay.lake.adapters.values import ids, numbers, text, times
from longplay.lake.schema import KINDS, ORIGINS, TABLES, conform
from longplay.lake.sift import sift

EVENT_COLUMNS = TABLES["events"]
ITEM_COLUMNS = ("title", "text", "tags", "length")
TIME_COLUMNS = ("time", "ingested_at")
BETWEEN = "\x1f"  # ASCII's unit separator: no tag holds it
NUMBER_COLUMNS = {name: column.dtype for name, column in EVENT_COLUMNS.items() if name in ("seconds", "slot")}


def read_table(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, str] = {},
    time_format: str | None = None,
    time_zone: str = "UTC",
    kinds: Mapping[str, str] | None = None,
) -> Source:
    """The events and items of a log; rows that are no event are in `rejected` with reason and line.

    Lines are rows of their file counted from 1, the header of a CSV file not counted: line 1 is what
    an editor shows as line 2. A file whose name starts with "_" or "." is passed over in a folder.

    Args:
        path: a .parquet, .csv or .csv.gz file, a folder of them, or a pattern such as "logs/2026-*.parquet".
        columns: longplay column -> source column, e.g. {"user_id": "customer", "time": "ts"}; `user_id` and
            `time` must be there, `title`, `text`, `tags` (a list, or text split at | ; ,) and `length` (seconds) describe
            items. A length that is no number above 0 is taken as not known, and a note says how many are.
        constants: longplay column -> the value of every row, e.g. {"kind": "play"}.
        time_format: a strftime pattern, or epoch_s, epoch_ms, epoch_us; default ISO 8601.
        time_zone: of times that carry no offset.
        kinds: source kind -> longplay kind, e.g. {"stream": "play"}; a kind not named here stays as it is.

    Raises:
        ConfigError: the mapping names what is not there, leaves out what must be, or no time parses.
        DataError: a file cannot be read, or ids are not exact.
    """
    return map_rows(read_rows(path), str(path), columns, constants=constants, time_format=time_format, time_zone=time_zone, kinds=kinds or {})


def map_rows(
    rows: pl.DataFrame,
    origin: str,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, str],
    time_format: str | None = None,
    time_zone: str = "UTC",
    kinds: Mapping[str, str],
) -> Source:
    """`read_table` on rows that were read already (`rows.read_rows`); `origin` names them in errors."""
    source_columns = [name for name in rows.columns if name not in (FILE, LINE, KIND)]
    _check_mapping(origin, source_columns, columns, constants, kinds)
    candidates, broken = _candidates(rows, columns, constants, time_format, time_zone, kinds)
    refused = _judge(candidates, broken)
    kept = ~pl.int_range(rows.height, eager=True).is_in(refused["at"].implode())
    kept_rows = rows.filter(kept)
    events = candidates.filter(kept).with_columns(kept_rows[LINE].alias("line"))
    described = {name: source for name, source in columns.items() if name in ITEM_COLUMNS}
    describes_items = "item_id" in columns and (described or "creator_id" in columns or "creator_id" in constants)
    return Source(
        events=events,
        items=_items(events, kept_rows, described) if describes_items else None,
        rejected=_rejected(rows, refused),
        rows=rows.height,
        notes=_notes(source_columns, columns, constants, time_zone, _no_lengths(kept_rows, described)),
        has_origin="origin" in columns,
        has_decisions=False,
    )


def _check_mapping(
    origin: str, source_columns: list[str], columns: Mapping[str, str], constants: Mapping[str, str], kinds: Mapping[str, str]
) -> None:
    mappable = [*EVENT_COLUMNS, *ITEM_COLUMNS]
    for name in columns:
        if name not in mappable:
            raise ConfigError(f"columns: {name!r} is no column of longplay{_close(name, mappable)}; expected some of {', '.join(mappable)}")
    for name, source in columns.items():
        if source not in source_columns and source != KIND:
            absent = f"{origin} has no column {source!r}{_close(source, source_columns)}"
            raise ConfigError(f"columns: {name} = {source!r}, but {absent}; it has {', '.join(source_columns)}")
    for name, value in constants.items():
        allowed = [column for column, spec in EVENT_COLUMNS.items() if spec.dtype == pl.String and column not in ("event_id", "user_id")]
        if name not in allowed:
            raise ConfigError(f"constants: {name!r} cannot be the same in every row{_close(name, allowed)}; expected some of {', '.join(allowed)}")
        if name in columns:
            raise ConfigError(f"constants: {name} = {value!r}, but columns maps {name} to {columns[name]!r}; keep one of the two")
        words = {"kind": KINDS, "origin": ORIGINS}.get(name)
        if words is not None and value not in words:
            raise ConfigError(f"constants: {name} = {value!r} is unknown{_close(value, words)}; expected one of {', '.join(words)}")
    for given, kind in kinds.items():
        if kind not in KINDS:
            raise ConfigError(f"kinds: {given} = {kind!r} is unknown{_close(kind, KINDS)}; expected one of {', '.join(KINDS)}")
    for name in ("user_id", "time", "kind"):
        if name not in columns and name not in constants:
            other = ", or constants = {'kind': 'play'} if every row is of one kind" if name == "kind" else ""
            has = ", ".join(source_columns)
            raise ConfigError(f"columns: {name!r} is not mapped; name the column of {origin} that holds it{other}. It has {has}")


def _close(name: str, names: Sequence[str]) -> str:
    found = get_close_matches(name, names, n=1, cutoff=0.5) or [other for other in names if other.lower() == name.lower()]
    return f" (did you mean {found[0]!r}?)" if found else ""


def _candidates(
    rows: pl.DataFrame, columns: Mapping[str, str], constants: Mapping[str, str], time_format: str | None, time_zone: str, kinds: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.Series]:
    """Every row as an event, good or bad, and per row the reason why a number in it could not be read, or null."""
    filled: dict[str, pl.Series] = {}
    broken = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, rows.height)
    for name, source in columns.items():
        values = rows[source]
        if name in TIME_COLUMNS:
            filled[name] = times(values, time_format, time_zone)
            if values.len() > values.null_count() and filled[name].null_count() == rows.height:
                example = values.drop_nulls()[0]
                given = f"none of its {rows.height:,} values is a time as {time_format or 'ISO 8601'}"
                raise ConfigError(f"{name} = {source!r}: {given}, first {example!r}; give time_format")
        elif name in NUMBER_COLUMNS:
            filled[name], bad = numbers(values, NUMBER_COLUMNS[name])
            broken = broken.zip_with(~bad | broken.is_not_null(), pl.Series([f"unparsable {name}"]).new_from_index(0, rows.height))
        elif name in EVENT_COLUMNS:
            filled[name] = ids(values)
    if "event_id" not in columns:
        filled["event_id"] = rows.select(pl.format("{}:{}", FILE, LINE)).to_series()
    if "kind" in filled:
        filled["kind"] = filled["kind"].replace(dict(kinds))
    frame = pl.DataFrame([values.alias(name) for name, values in filled.items()])
    return conform(frame.with_columns(pl.lit(value).alias(name) for name, value in constants.items()), "events"), broken


def _judge(candidates: pl.DataFrame, broken: pl.Series) -> pl.DataFrame:
    """Position from 0 (`at`) and `reason` of every row that is no event. The lake's own sift judges them, but
    here, where the source's row is still at hand for the quarantine."""
    readable = broken.is_null()
    at = pl.int_range(candidates.height, eager=True)
    _, bad = sift(candidates.filter(readable), pl.Series([], dtype=pl.String), None, at.filter(readable))
    unreadable = pl.DataFrame({"at": at.filter(~readable), "reason": broken.filter(~readable)})
    return pl.concat([unreadable, bad.select(pl.col("line").alias("at"), "reason")]).sort("at")


def _rejected(rows: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    raw = rows[refused["at"]]
    row = pl.struct(pl.exclude(LINE, KIND)).struct.json_encode()
    as_text = raw.with_columns(pl.selectors.binary().bin.encode("hex"))
    return as_text.select(pl.col(LINE).alias("line"), row.alias("row")).with_columns(refused["reason"]).select("line", "reason", "row")


def _items(events: pl.DataFrame, rows: pl.DataFrame, described: Mapping[str, str]) -> pl.DataFrame:
    """One row per item: its most frequent creator, description and length, of equals the first in the alphabet and the shortest; added at its
    first event."""
    lists = [name for name, source in described.items() if isinstance(rows[source].dtype, pl.List)]
    written = {
        name: rows[source].cast(pl.List(pl.String)).list.join(BETWEEN) if name in lists else text(rows[source])
        for name, source in described.items()
        if name != "length"
    }
    if "length" in described:
        written["length"] = _lengths(rows[described["length"]])[0]
    told = events.select("item_id", "creator_id", "time").with_columns(values.alias(name) for name, values in written.items())
    told = told.filter(pl.col("item_id").is_not_null())
    items = told.group_by("item_id").agg(pl.col("time").min().alias("added_at"))
    for name in ("creator_id", *described):
        counted = told.filter(pl.col(name).is_not_null()).group_by("item_id", name).len().sort("len", name, descending=[True, False])
        items = items.join(counted.group_by("item_id", maintain_order=True).agg(pl.col(name).first()), on="item_id", how="left")
    if "tags" in described:
        tags = pl.col("tags") if "tags" in lists else pl.col("tags").str.replace_all("[|;,]", BETWEEN)
        tag = pl.element().str.strip_chars()
        items = items.with_columns(tags.str.split(BETWEEN).list.eval(tag.filter(tag != "")))
    return conform(items, "items").sort("item_id")


def _lengths(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(seconds above 0, which of the values are there but are no such number); those are null. The event beside it is kept: it happened."""
    seconds, bad = numbers(values, pl.Float64)
    negative = (seconds <= 0).fill_null(False)
    return seconds.set(negative, None), bad | negative


def _no_lengths(rows: pl.DataFrame, described: Mapping[str, str]) -> int:
    """Rows whose length is no duration."""
    return int(_lengths(rows[described["length"]])[1].sum()) if "length" in described else 0


def _notes(source_columns: list[str], columns: Mapping[str, str], constants: Mapping[str, str], time_zone: str, no_lengths: int) -> tuple[str, ...]:
    notes = []
    if "event_id" not in columns:
        notes.append("no event id column: ids are file and row number, so the same file under another name would count twice")
    if "origin" in constants:
        notes.append(f"no origin column: all events count as {constants['origin']}, as declared")
    elif "origin" not in columns:
        notes.append("no origin column: all events count as organic")
    if "ingested_at" not in columns:
        notes.append("no arrival times: every event is taken as known when it happened")
    notes.append("no decisions with propensities in this log: no off-policy estimate can be made from it")
    if "creator_id" not in columns and "creator_id" not in constants:
        notes.append("no creator column: no habit with a creator can be seen")
    if no_lengths:
        notes.append(f"{no_lengths:,} rows have a length that is no number of seconds above 0: taken as not known")
    if time_zone != "UTC":
        notes.append(f"times without an offset are taken as {time_zone}; an hour that occurs twice is taken as its first")
    if unused := [name for name in source_columns if name not in columns.values()]:
        notes.append(f"columns not used: {', '.join(unused)}")
    return tuple(notes)
