"""Logged slates with the probability of every slot, one row per slot or per slate; and catalogues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.cells import constant_time, ids, numbers, seconds_of, text, times
from longplay.lake.adapters.known_columns import attributes_of, columns_like, vector_of
from longplay.lake.adapters.layout import close, header_advice
from longplay.lake.adapters.record_files import ADDED, FAULT, FILE, LINE, TEXT, read_rows
from longplay.lake.adapters.source import Source
from longplay.lake.schema import TIME, conform, empty

# of one slot; the others are of the whole slate
SLOT_COLUMNS = (
    "slot",
    "item_id",
    "propensity",
    "log_prob",
)
TEXT_COLUMNS = (
    "surface",
    "policy",
    "experiment",
    "arm",
    "reward_version",
    "trie_version",
    "context_id",
)
NUMBER_COLUMNS = ("arm_prob", "temperature")
DECISION_COLUMNS = (
    "decision_id",
    "user_id",
    "time",
    "ingested_at",
    *TEXT_COLUMNS,
    *NUMBER_COLUMNS,
    *SLOT_COLUMNS,
)
DEFAULTS = {"surface": "home", "policy": "logged@log"}
CATALOGUE_COLUMNS = (
    "item_id",
    "creator_id",
    "title",
    "text",
    "tags",
    "length",
    "added_at",
    "ingested_at",
    "available",
    "vector",
    "attributes",
)
CONSTANTS = ("surface", "policy", "experiment", "creator_id")
DESCRIBED_TIMES = ("added_at", "ingested_at")
SLATE_REASONS = (
    "missing decision id",
    "missing user",
    "unparsable time",
    "missing item",
    "no propensity in (0, 1]",
    "rows of a slate disagree",
    "an item twice in a slate",
    "slots are not 0, 1, 2, ...",
    "items and propensities are not equally many",
)
SLACK = 1e-9  # of a propensity above 1: the rounding of a sum


def read_decisions(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, str] = {},
    time_format: str | None = None,
    time_zone: str = "UTC",
    separator: str | None = None,
    encoding: str | None = None,
) -> Source:
    """The decisions of a log and their contexts. A slate with a bad row goes to `rejected` whole,
    with the reason.

    Rows are slots in long shape: the rows of one `decision_id` are one slate. Where the column of
    `item_id` holds lists, a row is a whole slate, and the column of `propensity` or `log_prob`
    holds lists as long. Without `decision_id` every row is a decision of its own.

    A slate is rejected where a row has no user, time, item or propensity, a propensity outside (0,
    1] or a log_prob above 0, where slots are not 0, 1, 2, ..., an item stands in it twice, or its
    rows disagree on user, time, surface, policy or arm. A context is made of every decision: as
    many slots as the slate has, nothing excluded, and no history up to its time, so that a policy
    that reads histories is given those of the lake.

    Args:
        path: as of `read_table`.
        columns: longplay column -> source column: user_id, time, item_id, and propensity in (0, 1]
            or log_prob <= 0, natural logarithm, of the slot given the slots above it, must be
            there. decision_id, slot (from 0; default the order of the rows), surface (default
            "home"), policy, experiment, arm, arm_prob (share of users in the arm) and ingested_at
            may.
        constants: longplay column -> the value of every row, e.g. {"surface": "home"}.
        time_format: as of `read_table`.
        time_zone: as of `read_table`.
        separator: as of `read_table`.
        encoding: as of `read_table`.

    Raises:
        ConfigError: the mapping names what is not there or leaves out what must be.
        DataError: a file cannot be read.
    """
    read = read_rows(path, separator=separator, encoding=encoding)
    rows = read.filter(pl.col(FAULT).is_null())
    _check_columns(
        path, rows, columns, constants, DECISION_COLUMNS, needed=("user_id", "time", "item_id")
    )
    if ("propensity" in columns) == ("log_prob" in columns):
        raise ConfigError(
            "decisions.columns: map one of propensity, in (0, 1], and log_prob, its natural "
            "logarithm; "
            f"{'both are' if 'propensity' in columns else 'neither is'} mapped"
        )
    slots = _slots(rows, columns, constants, time_format, time_zone)
    reasons = _reasons(slots)
    bad = (
        reasons.drop_nulls("reason")
        .group_by("decision_id", maintain_order=True)
        .agg(pl.col("reason").first(), pl.col("line").first())
    )
    whole_slates = slots.join(
        bad.select("decision_id"),
        on="decision_id",
        how="anti",
        maintain_order="left",
        nulls_equal=True,
    )
    decisions = _decisions(whole_slates)
    return Source(
        events=None,
        items=None,
        decisions=decisions,
        contexts=contexts_of(decisions),
        rejected=pl.concat([unreadable(read), _rejected(rows, slots, bad)]),
        rows=read.height,
        notes=_notes(decisions, bad, columns),
        has_origin=False,
        has_decisions=decisions.height > 0,
    )


def read_items(
    path: str | Path,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, str] = {},
    time_format: str | None = None,
    time_zone: str = "UTC",
    separator: str | None = None,
    encoding: str | None = None,
    length_unit: str = "s",
) -> Source:
    """A catalogue: one row per item, the last where it has several, or one per item and arrival
    where `ingested_at` is mapped. Rows without an id go to `rejected`.

    Args:
        path: a file, a folder or a pattern of Parquet or CSV files, or a file with a JSON object
            per line (.jsonl, .ndjson).
        columns: longplay column -> source column: item_id, and some of creator_id, title, text,
            tags (a list, or text split at | ; ,), length, added_at, ingested_at (when a row
            arrived; default `added_at`), available, vector (a column of lists, of text such as
            "0.1 -2", or a pattern of numeric columns such as "factor_*"; one that cannot be read is
            not known) and attributes (a column of JSON objects, or columns such as "genre, year").
            `added_at` is null where it is not mapped: see `dated`.
        constants: longplay column -> the value of every row, such as creator_id; of `added_at` and
            `ingested_at` a time in ISO 8601.
        time_format: as of `read_table`.
        time_zone: as of `read_table`.
        separator: as of `read_table`.
        encoding: as of `read_table`.
        length_unit: "us", "ms", "s" or "min". The others: as of `read_table`.

    Raises:
        ConfigError: the mapping names what is not there or leaves out item_id.
        DataError: a file cannot be read.
    """
    read = read_rows(path, separator=separator, encoding=encoding, json_lines=True)
    rows = read.filter(pl.col(FAULT).is_null())
    constant_columns = (*CONSTANTS, *DESCRIBED_TIMES)
    _check_columns(
        path, rows, columns, constants, CATALOGUE_COLUMNS, ("item_id",), constant_columns
    )
    filled = {"item_id": ids(rows[columns["item_id"]]).alias("item_id")}
    notes = []
    for name, reader in (("vector", vector_of), ("attributes", attributes_of)):
        if name in columns:
            filled[name], bad = reader(rows, columns_like(columns[name], _source_columns(rows)))
            if count := int(bad.sum()):
                notes.append(f"{count:,} items have {name} that cannot be read: taken as not known")
    for name, source in columns.items():
        if name == "tags":
            filled[name] = _tags(rows[source])
        elif name == "length":
            seconds, _ = seconds_of(rows[source], length_unit)
            filled[name] = seconds.set(~((seconds > 0) & seconds.is_finite()).fill_null(True), None)
        elif name in DESCRIBED_TIMES:
            filled[name] = times(rows[source], time_format, time_zone)
        elif name == "available":
            filled[name] = (
                rows[source]
                .cast(pl.String)
                .str.to_lowercase()
                .is_in(["true", "1", "yes", "t", "y"])
            )
        elif name == "creator_id":
            filled[name] = ids(rows[source])
        elif name not in filled:
            filled[name] = text(rows[source])
    items = pl.DataFrame([values.alias(name) for name, values in filled.items()])
    for name, value in constants.items():
        if name in DESCRIBED_TIMES:
            constant = constant_time(name, value, time_zone, items.height)
        else:
            constant = pl.lit(value)
        items = items.with_columns(constant.alias(name))
    items = _with_column(items, "added_at")
    if "vector" in columns and not set(DESCRIBED_TIMES) & (columns.keys() | constants.keys()):
        notes.append(
            "item vectors have no time: they count as known from the end of the log on, and "
            "nothing before it sees them; map added_at or ingested_at to say from when they were "
            "known"
        )
    anonymous = items["item_id"].is_null()
    rejected = pl.concat(
        [unreadable(read), as_rejected(rows.filter(anonymous), pl.lit("missing item"))]
    )
    of_one_description = ["item_id", "ingested_at"] if "ingested_at" in columns else ["item_id"]
    items = items.filter(~anonymous).unique(of_one_description, keep="last", maintain_order=True)
    return Source(
        events=None,
        items=items,
        rejected=rejected,
        rows=read.height,
        notes=tuple(notes),
        has_origin=False,
        has_decisions=False,
    )


def dated(
    items: pl.DataFrame, events: pl.DataFrame | None, decisions: pl.DataFrame | None
) -> pl.DataFrame:
    """A catalogue in which every item has `added_at`: by default its first event or slate, else
    the log's first time.

    A vector that has no time is known from the end of the log on, since it may come from all of the
    log: its item is described twice, at first without it.
    """
    seen = []
    if events is not None:
        seen.append(events.select("item_id", "time").drop_nulls())
    if decisions is not None:
        seen.append(decisions.select(pl.col("slate").alias("item_id"), "time").explode("item_id"))
    if not seen or not sum(frame.height for frame in seen):
        raise DataError("items: no event and no decision says when the log begins; map added_at")
    first = pl.concat(seen).group_by("item_id").agg(pl.col("time").min().alias("first"))
    begins = first["first"].min()
    added_at = pl.coalesce("added_at", "first", pl.lit(begins, dtype=TIME))
    arrived = pl.coalesce("ingested_at", added_at)
    dated_items = (
        _with_column(items, "ingested_at")
        .join(first, on="item_id", how="left", maintain_order="left")
        .with_columns(
            added_at=added_at,
            ingested_at=arrived,
            is_dated=pl.any_horizontal(pl.col(name).is_not_null() for name in DESCRIBED_TIMES),
        )
        .drop("first")
    )
    if "vector" in items.columns:
        late = dated_items.filter(pl.col("vector").is_not_null() & ~pl.col("is_dated"))
        log = [frame["time"].max() for frame in (events, decisions) if frame is not None]
        end = pl.lit(max(time for time in log if isinstance(time, datetime)), dtype=TIME)
        without = pl.when("is_dated").then("vector").alias("vector")
        dated_items = pl.concat(
            [dated_items.with_columns(without), late.with_columns(ingested_at=end)]
        )
    dated_items = dated_items.drop("is_dated")
    return conform(dated_items, "items").sort("item_id", "ingested_at", maintain_order=True)


def _with_column(items: pl.DataFrame, name: str) -> pl.DataFrame:
    """The items with a column of times, null where they lack it."""
    if name in items.columns:
        return items
    return items.with_columns(pl.lit(None, dtype=TIME).alias(name))


def with_creators(source: Source) -> Source:
    """The source, with missing creators of events filled in from the catalogue."""
    if source.events is None or source.items is None:
        return source
    by_item = source.items.select("item_id", catalogue_creator="creator_id").drop_nulls()
    by_item = by_item.unique("item_id", keep="last", maintain_order=True)
    if by_item.is_empty():
        return source
    events = source.events.join(by_item, on="item_id", how="left", maintain_order="left")
    if "creator_id" in source.events.columns:
        event_creator = pl.col("creator_id")
    else:
        event_creator = pl.lit(None, dtype=pl.String)
    creator = pl.coalesce(event_creator, "catalogue_creator")
    events = events.with_columns(creator_id=creator).drop("catalogue_creator")
    notes = tuple(note for note in source.notes if not note.startswith("no creator column"))
    return replace(
        source,
        events=events,
        notes=(*notes, "events without a creator have that of their item in the catalogue"),
    )


def contexts_of(decisions: pl.DataFrame) -> pl.DataFrame:
    """A context per decision: its slots, nothing excluded, no history up to its time."""
    nothing = pl.lit([], dtype=pl.List(pl.String))
    frame = decisions.select(
        "context_id",
        "user_id",
        "time",
        "surface",
        "temperature",
        slots=pl.col("slate").list.len().cast(pl.Int32),
        exclusions=nothing,
        history=nothing,
        history_until="time",
    )
    return conform(frame, "contexts")


def _check_columns(
    path: str | Path,
    rows: pl.DataFrame,
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    allowed: tuple[str, ...],
    needed: tuple[str, ...],
    constant_columns: tuple[str, ...] = CONSTANTS,
) -> None:
    has = _source_columns(rows)
    for name in columns:
        if name not in allowed:
            raise ConfigError(
                f"columns: {name!r} is no column of longplay{close(name, allowed)}; expected some "
                f"of {', '.join(allowed)}"
            )
    for name, source in columns.items():
        if source not in has and name not in ("vector", "attributes"):
            absent = f"{path} has no column {source!r}{close(source, has)}"
            raise ConfigError(
                f"columns: {name} = {source!r}, but {absent}; it has "
                f"{', '.join(has)}{header_advice(has)}"
            )
    for name in constants:
        if name not in constant_columns or name not in allowed or name in columns:
            raise ConfigError(
                f"constants: {name!r} cannot be the same in every row here; expected some of "
                f"{', '.join(constant_columns)} that are not mapped"
            )
    for name in needed:
        if name not in columns:
            raise ConfigError(
                f"columns: {name!r} is not mapped; name the column of {path} that holds it. It "
                f"has {', '.join(has)}"
            )


def _source_columns(rows: pl.DataFrame) -> list[str]:
    """The source's own columns."""
    return [name for name in rows.columns if name not in ADDED]


def _slots(
    rows: pl.DataFrame,
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    time_format: str | None,
    time_zone: str,
) -> pl.DataFrame:
    """One row per slot: decision_id, line, slot, item_id, log_prob, and the columns of its
    slate."""
    probability = "propensity" if "propensity" in columns else "log_prob"
    lists = isinstance(rows[columns["item_id"]].dtype, pl.List)
    if lists != isinstance(rows[columns[probability]].dtype, pl.List):
        raise ConfigError(
            f"decisions.columns: item_id and {probability} must both hold lists, or neither"
        )
    filled = {name: text(rows[columns[name]]) for name in TEXT_COLUMNS if name in columns}
    filled |= {
        name: numbers(rows[columns[name]], pl.Float64)[0]
        for name in NUMBER_COLUMNS
        if name in columns
    }
    filled |= {
        name: times(rows[columns[name]], time_format, time_zone)
        for name in ("time", "ingested_at")
        if name in columns
    }
    filled["user_id"] = ids(rows[columns["user_id"]])
    frame = pl.DataFrame([values.alias(name) for name, values in filled.items()]).with_columns(
        rows[LINE].alias("line")
    )
    frame = frame.with_columns(
        pl.lit(value).alias(name)
        for name, value in (DEFAULTS | dict(constants)).items()
        if name not in columns
    )
    own_id = rows.select(pl.format("{}:{}", FILE, LINE)).to_series()
    frame = frame.with_columns(
        decision_id=ids(rows[columns["decision_id"]]) if "decision_id" in columns else own_id
    )
    items = rows[columns["item_id"]]
    chances = rows[columns[probability]]
    if lists:
        frame = frame.with_columns(
            items.alias("item_id"), chances.alias("chance"), chances.list.len().alias("length")
        )
        frame = (
            frame.filter(pl.col("item_id").list.len() == pl.col("length"))
            .explode("item_id", "chance")
            .with_columns(slot=pl.int_range(pl.len()).over("line"))
        )
        items = frame["item_id"]
        chances = frame["chance"]
    elif "slot" in columns:
        frame = frame.with_columns(numbers(rows[columns["slot"]], pl.Int64)[0].alias("slot"))
    else:
        frame = frame.with_columns(slot=pl.int_range(pl.len()).over("decision_id"))
    chance = numbers(chances, pl.Float64)[0].to_numpy()
    if probability == "propensity":
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = np.where(
                (chance > 0) & (chance <= 1 + SLACK), np.log(np.minimum(chance, 1.0)), np.nan
            )
    usable = np.isfinite(chance) & (chance <= SLACK)
    log_prob = pl.Series("log_prob", np.where(usable, np.minimum(chance, 0.0), np.nan)).fill_nan(
        None
    )
    return frame.with_columns(ids(items).alias("item_id"), log_prob).sort(
        "decision_id", "slot", maintain_order=True
    )


def _reasons(slots: pl.DataFrame) -> pl.DataFrame:
    """decision_id, line and the first reason to reject each slot, null for a valid one."""
    of_slate = [
        name
        for name in ("user_id", "time", *TEXT_COLUMNS, *NUMBER_COLUMNS)
        if name in slots.columns
    ]
    disagrees = [pl.col(name).n_unique().over("decision_id") > 1 for name in of_slate]
    checks = {
        "missing decision id": pl.col("decision_id").is_null(),
        "missing user": pl.col("user_id").is_null(),
        "unparsable time": pl.col("time").is_null(),
        "missing item": pl.col("item_id").is_null(),
        "no propensity in (0, 1]": pl.col("log_prob").is_null(),
        "rows of a slate disagree": pl.any_horizontal(disagrees),
        "an item twice in a slate": pl.struct("decision_id", "item_id").is_duplicated(),
        "slots are not 0, 1, 2, ...": (
            pl.col("slot") != pl.int_range(pl.len()).over("decision_id")
        ).fill_null(True),
    }
    reason = pl.coalesce(
        *(pl.when(test.fill_null(False)).then(pl.lit(name)) for name, test in checks.items())
    )
    return slots.select("decision_id", "line", reason.alias("reason"))


def _decisions(slots: pl.DataFrame) -> pl.DataFrame:
    if slots.is_empty():
        return empty("decisions")
    of_slate = [
        name
        for name in slots.columns
        if name not in ("decision_id", "line", "slot", "item_id", "log_prob", "chance", "length")
    ]
    slates = slots.group_by("decision_id", maintain_order=True).agg(
        pl.col("item_id").alias("slate"),
        pl.col("log_prob"),
        *(pl.col(name).first() for name in of_slate),
    )
    if "context_id" not in slates.columns:
        slates = slates.with_columns(context_id="c:" + pl.col("decision_id"))
    return conform(slates, "decisions").sort("time", "decision_id")


def _rejected(rows: pl.DataFrame, slots: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """Every source row of a rejected slate, with the slate's reason, and rows whose lists have
    different lengths."""
    refused = (
        slots.select("decision_id", "line")
        .join(bad.select("decision_id", "reason"), on="decision_id", nulls_equal=True)
        .unique("line")
    )
    by_line = dict(refused.select("line", "reason").iter_rows())
    left = set(rows[LINE].to_list()) - set(slots["line"].to_list())
    by_line |= dict.fromkeys(left, "items and propensities are not equally many")
    chosen = rows.filter(pl.col(LINE).is_in(list(by_line)))
    return as_rejected(
        chosen,
        pl.col("line").replace_strict(by_line, return_dtype=pl.String) if by_line else pl.lit(""),
    )


def unreadable(read: pl.DataFrame) -> pl.DataFrame:
    """Records that could not be read, in the shape of the quarantine, with their raw text."""
    faults = read.filter(pl.col(FAULT).is_not_null())
    record = pl.struct(TEXT, FILE).struct.json_encode()
    return faults.select(
        pl.col(LINE).alias("line"),
        pl.col(FAULT).cast(pl.String).alias("reason"),
        record.alias("row"),
    )


def as_rejected(rows: pl.DataFrame, reason: pl.Expr) -> pl.DataFrame:
    """Rows of a source in the shape of the quarantine."""
    as_text = rows.with_columns(pl.selectors.binary().bin.encode("hex"))
    written = as_text.select(
        pl.col(LINE).alias("line"),
        pl.struct(pl.exclude(LINE, FAULT, TEXT)).struct.json_encode().alias("row"),
    )
    return written.with_columns(reason=reason).select("line", "reason", "row")


def _tags(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        return values.cast(pl.List(pl.String))
    tag = pl.element().str.strip_chars()
    return (
        values.cast(pl.String)
        .str.replace_all("[;,]", "|")
        .str.split("|")
        .list.eval(tag.filter(tag != ""))
    )


def _notes(
    decisions: pl.DataFrame, bad: pl.DataFrame, columns: Mapping[str, str]
) -> tuple[str, ...]:
    if decisions.height:
        notes = [f"{decisions.height:,} slates with the probability of every slot"]
    else:
        notes = ["no decisions: no slate could be read"]
    if bad.height:
        counts = bad.group_by("reason").len().sort("len", "reason", descending=[True, False])
        listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.iter_rows())
        notes.append(f"{bad.height:,} slates are set aside whole: {listed}")
    if "slot" not in columns and "decision_id" in columns:
        notes.append("no slot column: the slots of a slate are in the order of their rows")
    if "context_id" not in columns:
        notes.append(
            "contexts are made of the decisions: nothing was excluded, and histories are those of "
            "the lake"
        )
    return tuple(notes)
