"""Any Parquet or CSV log with a column mapping."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError
from longplay.lake.adapters.cells import (
    ids,
    numbers,
    seconds_of,
    text,
    time_format_like,
    times,
    words,
)
from longplay.lake.adapters.layout import EVENT_COLUMNS, VOCABULARIES, Layout
from longplay.lake.adapters.record_files import FAULT, FILE, JUDGED, LINE, TEXT, Rows, read_source
from longplay.lake.adapters.source import Source
from longplay.lake.daily import DAY_SECONDS, long_days
from longplay.lake.schema import conform
from longplay.lake.sift import EARLIEST, advice, sift

TIME_COLUMNS = ("time", "ingested_at")
BETWEEN = "\x1f"  # ASCII's unit separator, which no tag holds
NOT_KNOWN = ("null", "none", "nan", "n/a", "\\n", "undefined")
NUMBER_COLUMNS = {
    name: column.dtype
    for name, column in EVENT_COLUMNS.items()
    if name in ("seconds", "slot", "amount")
}


def read_table(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, str] = {},
    time_format: str | None = None,
    time_zone: str = "UTC",
    kinds: Mapping[str, str] | None = None,
    origins: Mapping[str, str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    seconds_unit: str = "s",
    length_unit: str = "s",
    earliest: datetime = EARLIEST,
) -> Source:
    """The events and items of a log. Invalid rows are in `rejected` with reason and line.

    A line is a record of its file counted from 1. The header of a CSV file is not counted, so that
    line 1 is what an editor shows as line 2; a record with line breaks in quotes is one; blank
    lines are counted and passed over. A CSV record with too many or too few fields, a NUL byte,
    bytes of another encoding or a quote that is never closed costs itself. In a folder, empty files
    and files whose name starts with "_" or "." are passed over. Files need to agree only in the
    columns that are mapped; folders named key=value are a column `key`.

    Args:
        path: a Parquet (.parquet, .pq) or CSV file (.csv, .tsv, also .gz; .txt, .dat), a folder of
            them, or a pattern such as "logs/2026-*.parquet".
        columns: longplay column -> source column, e.g. {"user_id": "customer", "time": "ts"};
            `user_id` and `time` must be there, `title`, `text`, `tags` (a list, or text split at |
            ; ,) and `length` describe items; a mapped `item_id` alone makes items too. A length
            that is no number above 0 is taken as not known, and a note says how many are.
        constants: longplay column -> the value of every row, e.g. {"kind": "play"}.
        time_format: a strftime pattern, or epoch_s, epoch_ms, epoch_us, epoch_ns; default ISO 8601.
        time_zone: of times that carry no offset.
        kinds: source kind -> longplay kind, e.g. {"stream": "play"}; a kind not named here stays as
            it is; "" is an empty value.
        origins: source origin -> longplay origin, e.g. {"search": "organic"}, as `kinds`.
        separator: what stands between the fields of a CSV file, one ASCII character; None: a comma,
            in .tsv files a tab.
        encoding: of CSV files, e.g. "utf-16", "latin-1" or "windows-1252"; None: UTF-8.
        seconds_unit: of the column mapped to `seconds`: "us", "ms", "s" or "min"; a column of
            durations knows its own.
        length_unit: of the column mapped to `length`, as `seconds_unit`.
        earliest: rows with a time before this, UTC, are set aside; give `Lake.append` the same.

    Raises:
        ConfigError: the mapping names what is not there, leaves out what must be, or no time or no
            number parses.
        DataError: a file cannot be read or is empty, a file lacks a mapped column, or ids are not
            exact.
    """
    layout = Layout(
        columns=columns,
        constants=constants,
        time_format=time_format,
        time_zone=time_zone,
        translations={"kind": kinds or {}, "origin": origins or {}},
        units={"seconds": seconds_unit, "length": length_unit},
        earliest=earliest,
    )
    return map_rows(
        read_source(path, separator=separator, encoding=encoding, needed=set(columns.values())),
        str(path),
        layout,
    )


def map_rows(source: Rows, log: str, layout: Layout) -> Source:
    """The result of `read_table` for rows already read by `rows.read_source`. `log` is their
    name in errors."""
    rows = source.table
    layout.check(log, source.columns, [name for name in rows.columns if name in JUDGED])
    candidates, broken = _candidates(rows, layout)
    refused = _judge(candidates, broken, layout.earliest)
    is_event = ~pl.int_range(rows.height, eager=True).is_in(refused["at"].implode())
    kept_rows = rows.filter(is_event)
    events = candidates.filter(is_event).with_columns(kept_rows[LINE].alias("line"))
    return Source(
        events=events,
        items=_items(events, kept_rows, layout) if layout.says("item_id") else None,
        rejected=_rejected(rows, refused),
        rows=rows.height,
        notes=_notes(source, kept_rows, events, refused, layout),
        has_origin=layout.says("origin"),
        has_decisions=False,
    )


def _candidates(rows: pl.DataFrame, layout: Layout) -> tuple[pl.DataFrame, pl.Series]:
    """Every row as an event, valid or not, and the reason why a number of it could not be read
    (null: all could)."""
    filled: dict[str, pl.Series] = {}
    broken = rows[FAULT].cast(pl.String)
    for name, source in layout.columns.items():
        values = rows[source]
        if name in TIME_COLUMNS:
            filled[name] = times(values, layout.time_format, layout.time_zone)
            if values.len() > values.null_count() and filled[name].null_count() == rows.height:
                raise ConfigError(f"{name} = {source!r}: {_no_times(values, layout.time_format)}")
        elif name in NUMBER_COLUMNS:
            if name == "seconds":
                filled[name], bad = seconds_of(values, layout.units.get(name, "s"))
            else:
                filled[name], bad = numbers(values, NUMBER_COLUMNS[name])
            if bad.any() and bad.sum() == values.len() - values.null_count():
                raise ConfigError(
                    f"{name} = {source!r}: "
                    f"{_no_numbers(values, NUMBER_COLUMNS[name] != pl.Float64)}"
                )
            broken = broken.zip_with(
                ~bad | broken.is_not_null(),
                pl.Series([f"unparsable {name}"]).new_from_index(0, rows.height),
            )
        elif name in VOCABULARIES:
            filled[name] = words(values)
        elif name in EVENT_COLUMNS:
            filled[name] = ids(values)
    if "event_id" not in layout.columns:
        filled["event_id"] = rows.select(pl.format("{}:{}", FILE, LINE)).to_series()
    for name, translation in layout.translations.items():
        if name in filled:
            translated = filled[name].replace(dict(translation))
            filled[name] = (
                translated.fill_null(translation[""]) if "" in translation else translated
            )
    frame = pl.DataFrame([values.alias(name) for name, values in filled.items()])
    return conform(
        frame.with_columns(pl.lit(value).alias(name) for name, value in layout.constants.items()),
        "events",
    ), broken


def _no_times(values: pl.Series, time_format: str | None) -> str:
    """Error text for a column in which no value is a time."""
    present_values = values.drop_nulls()
    words = (
        f"none of its {present_values.len():,} values is a time as {time_format or 'ISO 8601'}, "
        f"first {present_values[0]!r}; give time_format"
    )
    suggestion = time_format_like(str(present_values[0]))
    if suggestion in (None, time_format):
        return words
    return f'{words}, e.g. time_format = "{suggestion}"'


def _no_numbers(values: pl.Series, integral: bool) -> str:
    """Error text for a column in which no value is a number."""
    present_values = values.drop_nulls()
    if integral:
        expected = "whole numbers"
    else:
        expected = "numbers with a decimal point and without separators of thousands"
    return (
        f"none of its {present_values.len():,} values can be read, first {present_values[0]!r}; "
        f"expected {expected}"
    )


def _judge(candidates: pl.DataFrame, broken: pl.Series, earliest: datetime) -> pl.DataFrame:
    """Position from 0 (`at`) and `reason` of every invalid row. The checks of `lake.sift` run here,
    since only here the source row is at hand for the quarantine."""
    readable = broken.is_null()
    at = pl.int_range(candidates.height, eager=True)
    _, bad = sift(
        candidates.filter(readable),
        pl.Series([], dtype=pl.String),
        None,
        at.filter(readable),
        earliest,
    )
    unreadable = pl.DataFrame({"at": at.filter(~readable), "reason": broken.filter(~readable)})
    return pl.concat([unreadable, bad.select(pl.col("line").alias("at"), "reason")]).sort("at")


def _rejected(rows: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    """The invalid rows in the shape of the quarantine, unreadable records as their text."""
    raw = rows[refused["at"]].with_columns(pl.selectors.binary().bin.encode("hex"))
    fields = pl.struct(pl.exclude(LINE, *JUDGED, FAULT, TEXT)).struct.json_encode()
    record = pl.struct(TEXT, FILE).struct.json_encode()
    row = pl.when(pl.col(FAULT).is_null()).then(fields).otherwise(record)
    return (
        raw.select(pl.col(LINE).alias("line"), row.alias("row"))
        .with_columns(refused["reason"])
        .select("line", "reason", "row")
    )


def _items(events: pl.DataFrame, rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """One row per item: its most frequent creator, description and length, added at its first
    event. Ties go to the first in the alphabet and the shortest."""
    described = layout.described
    lists = [name for name, source in described.items() if isinstance(rows[source].dtype, pl.List)]
    written: dict[str, pl.Series] = {}
    for name, source in described.items():
        if name == "length":
            continue
        if name in lists:
            written[name] = rows[source].cast(pl.List(pl.String)).list.join(BETWEEN)
        else:
            written[name] = text(rows[source])
    if "length" in described:
        written["length"] = _lengths(rows, layout)[0]
    seen = events.select("item_id", "creator_id", "time").with_columns(
        values.alias(name) for name, values in written.items()
    )
    seen = seen.filter(pl.col("item_id").is_not_null())
    items = seen.group_by("item_id").agg(pl.col("time").min().alias("added_at"))
    for name in ("creator_id", *described):
        counted = (
            seen.filter(pl.col(name).is_not_null())
            .group_by("item_id", name)
            .len()
            .sort("len", name, descending=[True, False])
        )
        items = items.join(
            counted.group_by("item_id", maintain_order=True).agg(pl.col(name).first()),
            on="item_id",
            how="left",
        )
    if "tags" in described:
        tags = (
            pl.col("tags") if "tags" in lists else pl.col("tags").str.replace_all("[|;,]", BETWEEN)
        )
        tag = pl.element().str.strip_chars()
        items = items.with_columns(tags.str.split(BETWEEN).list.eval(tag.filter(tag != "")))
    return conform(items, "items").sort("item_id")


def _lengths(rows: pl.DataFrame, layout: Layout) -> tuple[pl.Series, pl.Series]:
    """Length of each row's item in seconds, null where it is no number above 0, and a mask of
    these. Their events are kept."""
    seconds, bad = seconds_of(rows[layout.columns["length"]], layout.units.get("length", "s"))
    usable = ((seconds > 0) & seconds.is_finite()).fill_null(True)
    return seconds.set(~usable, None), bad | ~usable


def _notes(
    source: Rows,
    kept_rows: pl.DataFrame,
    events: pl.DataFrame,
    refused: pl.DataFrame,
    layout: Layout,
) -> tuple[str, ...]:
    notes = list(source.notes)
    if "event_id" not in layout.columns:
        notes.append(
            "no event id column: ids are file and row number, so the same file under another name "
            "would count twice"
        )
    if "origin" in layout.constants:
        notes.append(
            f"no origin column: all events count as {layout.constants['origin']}, as declared"
        )
    elif "origin" not in layout.columns:
        notes.append("no origin column: all events count as organic")
    if "ingested_at" not in layout.columns:
        notes.append("no arrival times: every event is taken as known when it happened")
    if events.is_empty():
        notes.append("no row is an event: there is nothing to learn from")
    notes.append(
        "no decisions with propensities in this log: no off-policy estimate can be made from it"
    )
    if not layout.says("creator_id"):
        notes.append("no creator column: no habit with a creator can be seen")
    if refused.height:
        notes.append(_refusals(refused))
    notes.extend(_nobody(events))
    if (days := long_days(events)) is not None:
        notes.append(str(days))
    if "length" in layout.columns:
        notes.extend(_length_notes(*_lengths(kept_rows, layout)))
    if layout.time_zone != "UTC":
        notes.append(
            f"times without an offset are taken as {layout.time_zone}; an hour that occurs twice "
            "is taken as its first"
        )
    if unused := [name for name in source.columns if name not in layout.columns.values()]:
        notes.append(f"columns not used: {', '.join(unused)}")
    return tuple(notes)


def _nobody(events: pl.DataFrame) -> list[str]:
    """A note for each word such as "unknown" that stands in place of a user id."""
    ids_of_nobody = (
        events.filter(pl.col("user_id").str.to_lowercase().is_in(NOT_KNOWN))["user_id"]
        .value_counts()
        .sort("user_id")
    )
    return [
        f"user {word!r} has {count:,} events: if it means not known, leave it empty in the source"
        for word, count in ids_of_nobody.iter_rows()
    ]


def _length_notes(lengths: pl.Series, bad: pl.Series) -> list[str]:
    notes = []
    if unknown := int(bad.sum()):
        have = "row has" if unknown == 1 else "rows have"
        notes.append(
            f"{unknown:,} {have} a length that is no number of seconds above 0: taken as not known"
        )
    median = lengths.median()
    if isinstance(median, float) and median > DAY_SECONDS:
        notes.append(
            'most lengths are above 24 hours: the unit may be milliseconds, length_unit = "ms"'
        )
    return notes


def _refusals(refused: pl.DataFrame) -> str:
    """The number of rejected rows by reason, and advice."""
    counts = refused.group_by("reason").len().sort("len", "reason", descending=[True, False])
    reasons = dict(counts.iter_rows())
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    to_do = advice(reasons)
    are = "row is" if refused.height == 1 else "rows are"
    return f"{refused.height:,} {are} set aside: {listed}" + (f"; {to_do}" if to_do else "")
