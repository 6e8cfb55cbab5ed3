"""Every table's columns, in one place, and the one door that checks them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import polars as pl

from longplay.errors import DataError
from longplay.frames import Table, polars_frame
from longplay.ids import may_change
from longplay.lake.exact import YEAR_1_US, YEAR_9999_US, exact
from longplay.lake.row_checks import items_of, refuse_bad_rows, row_doubts

TIME = pl.Datetime("us", "UTC")
VECTOR = pl.List(pl.Float64)  # finite numbers; the vectors of one column of a lake are equally long

# What a user can do. Only ENGAGED kinds are activity: they open discoveries and count in measures.
KINDS = ("play", "skip", "save", "like", "follow", "purchase", "refund", "visit", "cancel")
ENGAGED = ("play", "save", "like", "follow", "purchase", "visit")
ORIGINS = ("organic", "recommended", "autoplay")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        dtype: its type.
        null: whether null is allowed.
        default: the value where the column is left out.
        ids: whether it holds ids (see `longplay.ids`).
        added: whether older lakes lack it; it is null there.
        digested: whether the digest of a batch counts it while it is empty. Not so for columns that
            came after batches had digests: a retry of an older batch keeps its digest.
    """

    dtype: pl.DataType | type[pl.DataType]
    null: bool = False
    default: object = None
    ids: bool = False
    added: bool = False
    digested: bool = True


TABLES: dict[str, dict[str, Column]] = {
    "events": {
        "event_id": Column(pl.String, ids=True),
        "user_id": Column(pl.String, ids=True),
        "item_id": Column(pl.String, null=True, ids=True),
        "creator_id": Column(pl.String, null=True, ids=True),
        "kind": Column(pl.String),
        "time": Column(TIME),
        "seconds": Column(pl.Float64, null=True),
        "surface": Column(pl.String, null=True),
        "origin": Column(pl.String, default="organic"),
        "session_id": Column(pl.String, null=True, ids=True),
        "decision_id": Column(pl.String, null=True, ids=True),
        "slot": Column(pl.Int32, null=True),
        # money or quantity, in the log's own unit
        "amount": Column(pl.Float64, null=True, added=True, digested=False),
        # defaults to `time`: a log without arrival times arrived at once
        "ingested_at": Column(TIME),
    },
    "decisions": {
        "decision_id": Column(pl.String, ids=True),
        "context_id": Column(pl.String, ids=True),
        "user_id": Column(pl.String, ids=True),
        "time": Column(TIME),
        "surface": Column(pl.String),
        "slate": Column(pl.List(pl.String), ids=True),  # in draw order
        "log_prob": Column(pl.List(pl.Float64)),  # per slot, conditional on the slots before
        "policy": Column(pl.String),  # name@version
        "reward_version": Column(pl.String, null=True),
        "trie_version": Column(pl.String, null=True),
        "temperature": Column(pl.Float64, default=1.0),
        "experiment": Column(pl.String, null=True),
        "arm": Column(pl.String, null=True),
        "arm_prob": Column(pl.Float64, null=True),
        "fallback": Column(pl.Boolean, default=False),
        "ingested_at": Column(TIME),
    },
    "contexts": {
        "context_id": Column(pl.String, ids=True),
        "user_id": Column(pl.String, ids=True),
        "time": Column(TIME),
        "surface": Column(pl.String),
        "slots": Column(pl.Int32),
        "prompt": Column(pl.String, null=True),
        "exclusions": Column(pl.List(pl.String), ids=True),
        "temperature": Column(pl.Float64, default=1.0),
        "trie_version": Column(pl.String, null=True),
        # item ids as the policy saw them, oldest first
        "history": Column(pl.List(pl.String), ids=True),
        "history_until": Column(TIME),
        # of each item of the history: when, what was done, on which surface
        "history_time": Column(pl.List(TIME), null=True, added=True),
        "history_kind": Column(pl.List(pl.String), null=True, added=True),
        "history_surface": Column(pl.List(pl.String), null=True, added=True),
        # the outcome that is asked for, in its signal's unit
        "want": Column(pl.Float64, null=True, added=True),
        # what made the exclusions: seen, creator or none; null: not stated
        "exclusion_rule": Column(pl.String, null=True, added=True),
        # what the service knew of the user at the context's time, as in `users`
        "user_vector": Column(VECTOR, null=True, added=True, digested=False),
        "user_attributes": Column(pl.String, null=True, added=True, digested=False),
        # items shown to the user before, across slates, oldest first, and when
        "shown": Column(pl.List(pl.String), null=True, ids=True, added=True, digested=False),
        "shown_time": Column(pl.List(TIME), null=True, added=True, digested=False),
    },
    "items": {
        "item_id": Column(pl.String, ids=True),
        "creator_id": Column(pl.String, null=True, ids=True),
        "title": Column(pl.String, null=True),
        "text": Column(pl.String, null=True),
        "tags": Column(pl.List(pl.String), null=True),
        "length": Column(pl.Float64, null=True, added=True),  # seconds
        "added_at": Column(TIME),
        "available": Column(pl.Boolean, default=True),
        # when this description arrived; defaults to `added_at`, see Lake.append
        "ingested_at": Column(TIME, added=True),
        "vector": Column(VECTOR, null=True, added=True, digested=False),  # embedding, factors
        # a flat JSON object of text, numbers and truth values
        "attributes": Column(pl.String, null=True, added=True, digested=False),
    },
    "users": {
        "user_id": Column(pl.String, ids=True),
        # a flat JSON object of text, numbers and truth values
        "attributes": Column(pl.String, null=True),
        "vector": Column(VECTOR, null=True),  # factors, as the service knows the user
        "added_at": Column(TIME),
        "ingested_at": Column(TIME),  # as in `items`
    },
    "quarantine": {
        "batch": Column(pl.String),
        "line": Column(pl.Int64),  # line of the source, counted from 1
        "reason": Column(pl.String),
        "row": Column(pl.String),  # the whole row as JSON, so that nothing is lost
    },
}

# the tables that `Lake.append` takes; the lake fills the others
APPENDED = tuple(table for table in TABLES if table != "quarantine")
# tables with a row per description -> the id of what is described (see `lake.descriptions`)
DESCRIBED = {"items": "item_id", "users": "user_id"}
TIME_COLUMN = {table: "added_at" if table in DESCRIBED else "time" for table in APPENDED}
# the order of a table's rows in a view
ORDER = {
    table: [DESCRIBED[table]] if table in DESCRIBED else ["time", f"{table[:-1]}_id"]
    for table in APPENDED
} | {"quarantine": ["batch", "line"]}
DTYPES = {
    table: pl.Schema({name: column.dtype for name, column in columns.items()})
    for table, columns in TABLES.items()
}


def empty(table: str) -> pl.DataFrame:
    """The table with no rows and every column."""
    return pl.DataFrame(schema=DTYPES[table])


def conform(rows: Table, table: str) -> pl.DataFrame:
    """Rows with exactly the table's columns, types and order; optional columns are filled in.

    Nothing is guessed. Values convert where they stay what they are: 3.0 to 3, an int64 to an int32
    that holds it, a time in another zone to UTC, ids to text (see `longplay.ids`). Numbers or text
    for times, times without a zone, text for numbers, and whatever would be rounded are refused.
    Rounding above 0 of a log-probability (at most 1e-9) becomes 0.

    Args:
        rows: a frame of polars, pandas or pyarrow (see `longplay.frames`).
        table: its name, a key of `TABLES`.

    Raises:
        DataError: a column that is unknown or missing, a type or a value that does not convert, or
            (except in events, whose rows are sifted one by one) a null or a value that cannot be
            (see `longplay.lake.row_checks`).
    """
    frame = polars_frame(rows, table)
    columns = TABLES[table]
    if unknown := [name for name in frame.columns if name not in columns]:
        raise DataError(
            f"{table}: unknown column {unknown[0]!r}; expected some of {', '.join(columns)}"
        )
    happened = TIME_COLUMN.get(table)
    if (
        "ingested_at" in columns
        and "ingested_at" not in frame.columns
        and happened in frame.columns
    ):
        frame = frame.with_columns(ingested_at=pl.col(happened))
    if (clear := _clear(frame, table)) is not None:
        return clear
    plain = _plain_ids(frame, columns)
    ready: list[pl.Series] = []
    for name, column in columns.items():
        if name in plain:
            values = frame[name]
        elif name in frame.columns:
            values = exact(frame[name], column.dtype, ids=column.ids, table=table)
        elif column.null or column.default is not None:
            values = pl.Series(name, [column.default], dtype=column.dtype).new_from_index(
                0, frame.height
            )
        else:
            raise DataError(
                f"{table}: column {name!r} is missing; given "
                f"{', '.join(frame.columns) or 'no columns'}"
            )
        if not column.null and table != "events" and (nulls := values.null_count()):
            raise DataError(
                f"{table}: {nulls} of {frame.height} rows have no {name!r}; expected every row to "
                "have one"
            )
        ready.append(values)
    return refuse_bad_rows(pl.DataFrame(ready), table)


def _clear(frame: pl.DataFrame, table: str) -> pl.DataFrame | None:
    """The conformed frame, where every column has its type already and one query finds nothing to
    convert and nothing wrong; else None.

    Most tables are made by this package and pass here, with one query instead of several.
    """
    filled = tuple(name for name in frame.columns if not _is_all_null(frame[name], table))
    selection = _selection(table, filled)
    if selection is None:
        return None
    selected = frame.select(selection)
    if selected.schema != DTYPES[table] or selected.select(_doubts(table, filled)).item():
        return None
    return selected


def _is_all_null(values: pl.Series, table: str) -> bool:
    """Whether a column of the right type that may be null has no value. It is as good as left
    out: nothing of it needs a check."""
    column = TABLES[table][values.name]
    return column.null and values.null_count() == len(values) and values.dtype == column.dtype


@cache
def _selection(table: str, given_columns: tuple[str, ...]) -> list[pl.Expr] | None:
    """The table's columns in order, with the defaults of those that are not given; None where a
    required one is missing."""
    selection = []
    for name, column in TABLES[table].items():
        if name in given_columns:
            selection.append(pl.col(name))
        elif column.null or column.default is not None:
            selection.append(pl.lit(column.default, dtype=column.dtype).alias(name))
        else:
            return None
    return selection


@cache
def _doubts(table: str, filled_columns: tuple[str, ...]) -> pl.Expr:
    """Whether a frame of the table's columns and types has a value that is to be converted or
    refused. Columns that are not filled hold their default, which is fine."""
    doubts = []
    for name in filled_columns:
        column = TABLES[table][name]
        is_list = isinstance(column.dtype, pl.List)
        values = items_of(name) if is_list else pl.col(name)
        if column.ids:
            doubts.append(may_change(values).any())
        if column.dtype in (TIME, pl.List(TIME)):
            count = values.to_physical()
            doubts.append(((count < YEAR_1_US) | (count > YEAR_9999_US)).any())
        if not column.null and table != "events":
            doubts.append(pl.col(name).null_count() > 0)
    return pl.any_horizontal(*doubts, row_doubts(table, filled_columns))


def _plain_ids(frame: pl.DataFrame, columns: dict[str, Column]) -> set[str]:
    """Text columns that the rule for ids would not change, checked in one query."""
    changes = []
    for name, column in columns.items():
        if column.ids and name in frame.columns and frame.schema[name] == column.dtype:
            items = pl.col(name) if column.dtype == pl.String else items_of(name)
            changes.append(may_change(items).any().alias(name))
    if not changes:
        return set()
    changed = frame.select(changes).row(0, named=True)
    return {name for name, any_changes in changed.items() if not any_changes}


def conform_events(rows: Table) -> tuple[pl.DataFrame, pl.Series | None]:
    """Events as `conform` returns them, and their line numbers in the source. Null without a column
    `line`.

    Raises:
        DataError: as `conform`, or lines that are no whole numbers.
    """
    frame = polars_frame(rows, "events")
    if "line" not in frame.columns:
        return conform(frame, "events"), None
    lines = exact(frame["line"], pl.Int64, ids=False, table="events")
    return conform(frame.drop("line"), "events"), lines
