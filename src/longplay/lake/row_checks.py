"""Checks of rows, table by table: what a value cannot be, and what is expected instead."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NoReturn

import polars as pl

from longplay.errors import DataError

# rule of exclusions -> what of the past is not shown again
RULES = {
    "seen": "item_id",
    "creator": "creator_id",
    "none": None,
}
# table -> its column of vectors, which are all equally long
VECTORS = {"items": "vector", "users": "vector", "contexts": "user_vector"}
ROUNDING = 1e-9  # log-probabilities up to this far above 0 are roundings of 0


@dataclass(frozen=True)
class Check:
    """A condition that no valid row meets, and the text of its error.

    Attributes:
        column: the column whose value an error shows.
        bad: true for a row that cannot be; null counts as fine.
        wrong: what is wrong with it, after "rows have".
        expected: what to give instead.
        subject: what errors count.
        any_bad: whether any row is bad, where this is cheaper to ask than row by row.
    """

    column: str
    bad: pl.Expr
    wrong: str
    expected: str
    subject: str = "of {rows:,} rows"
    any_bad: pl.Expr | None = None

    @property
    def doubt(self) -> pl.Expr:
        """Whether any row is bad."""
        return self.bad.fill_null(False).any() if self.any_bad is None else self.any_bad


def flat_items(lists: pl.Series) -> pl.Series:
    """The items of all lists, one after the other; an empty or a missing list has none.

    >>> flat_items(pl.Series([["a", None], [], None])).to_list()
    ['a', None]
    """
    return lists.explode(empty_as_null=False, keep_nulls=False)


def items_of(column: str) -> pl.Expr:
    """An expression with the items of all lists of a column, one after the other."""
    return pl.col(column).explode(empty_as_null=False, keep_nulls=False)


def _number(column: str, fine: pl.Expr, expected: str) -> Check:
    """Check that the values of a column are finite and `fine`."""
    return Check(column, ~(pl.col(column).is_finite() & fine), f"an impossible {column}", expected)


def _as_long(column: str, reference: str) -> Check:
    bad = pl.col(column).list.len() != pl.col(reference).list.len()
    return Check(
        column,
        bad,
        f"a {column} of another length than their {reference}",
        f"as many as in {reference}",
    )


def _vector(column: str) -> Check:
    """Check that a column's vectors hold finite numbers, at least one."""
    values = pl.col(column)
    broken = ~pl.element().is_finite().fill_null(True)
    return Check(
        column,
        (values.list.len() == 0) | values.list.eval(broken).list.any(),
        f"an impossible {column}",
        "at least one number, all of them finite, or null where it is not known",
        any_bad=(values.list.len() == 0).any() | (~items_of(column).is_finite()).any(),
    )


def _attributes(column: str) -> Check:
    """Check that a column's texts are flat JSON objects."""
    return Check(
        column,
        pl.col(column).map_batches(_not_flat, return_dtype=pl.Boolean),
        f"{column} that cannot be read",
        'a flat JSON object of text, numbers and truth values, e.g. {"country": "SE", "plan": '
        '"family"}, without the keys that are not known, or null',
    )


def _not_flat(texts: pl.Series) -> pl.Series:
    """Whether each text is no flat JSON object; null counts as fine."""
    if texts.null_count() == len(texts):
        return pl.Series(texts.name, [False], dtype=pl.Boolean).new_from_index(0, len(texts))
    bad = [text for text in texts.drop_nulls().unique() if not is_flat_object(text)]
    return texts.is_in(bad)


def is_flat_object(text: str) -> bool:
    """Whether a text is a flat JSON object of text, finite numbers and truth values.

    >>> is_flat_object('{"country": "SE", "age": 31, "trial": false}')
    True
    >>> is_flat_object('{"plan": null}'), is_flat_object('{"a": {"b": 1}}'), is_flat_object("[1]")
    (False, False, False)
    """
    if not text.lstrip().startswith("{"):
        return False
    try:
        # a list of pairs, so that a key that stands twice is seen
        pairs = _READER.decode(text)
        # half of a pair of code units is JSON, and no text
        "".join(part for pair in pairs for part in pair if isinstance(part, str)).encode()
    except (ValueError, RecursionError):
        return False
    return len(dict(pairs)) == len(pairs) and all(_is_plain(value) for _, value in pairs)


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int)  # truth values are whole numbers to Python


def _no_number(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(constant)


_READER = json.JSONDecoder(object_pairs_hook=list, parse_constant=_no_number)


def _showings() -> tuple[Check, ...]:
    """Checks of the items that were shown before a context."""
    times = pl.col("shown_time")
    backwards = pl.element().diff() < pl.duration(microseconds=0)
    return (
        Check(
            "shown_time",
            times.is_not_null() & pl.col("shown").is_null(),
            "times of showings without the items shown",
            "as many items in shown, or null in both",
        ),
        _as_long("shown_time", "shown"),
        Check(
            "shown_time",
            times.list.max() >= pl.col("time"),
            "a showing at or after their time",
            "only showings before the context's time",
        ),
        Check(
            "shown_time",
            times.list.eval(backwards).list.any(),
            "showings in another order than that of time",
            "the oldest showing first",
        ),
    )


CHECKS: dict[str, tuple[Check, ...]] = {
    "decisions": (
        Check(
            "slate",
            pl.col("slate").list.n_unique() != pl.col("slate").list.len(),
            "an item twice in their slate",
            "slates drawn without replacement",
        ),
        Check(
            "log_prob",
            pl.col("slate").list.len() != pl.col("log_prob").list.len(),
            "more or fewer log-probabilities than items",
            "one per slot",
            subject="slates",
        ),
        Check(
            "log_prob",
            pl.col("log_prob")
            .list.eval(~(pl.element().is_finite() & (pl.element() <= ROUNDING)).fill_null(False))
            .list.any(),
            "an impossible log-probability",
            "for every slot the natural logarithm of a probability in (0, 1]: a finite number at "
            "most 0; what was shown had a chance",
            any_bad=(
                ~(items_of("log_prob").is_finite() & (items_of("log_prob") <= ROUNDING))
            ).any(),
        ),
        _number("temperature", pl.col("temperature") > 0, "a number above 0"),
        _number(
            "arm_prob",
            (pl.col("arm_prob") > 0) & (pl.col("arm_prob") <= 1),
            "a probability in (0, 1], or null outside experiments",
        ),
    ),
    "contexts": (
        Check("slots", pl.col("slots") < 0, "fewer than 0 slots", "0 or more"),
        *(
            _as_long(column, "history")
            for column in ("history_time", "history_kind", "history_surface")
        ),
        _number("temperature", pl.col("temperature") > 0, "a number above 0"),
        _number("want", pl.lit(True), "a number in the unit of the outcome, or null"),
        Check(
            "exclusion_rule",
            ~pl.col("exclusion_rule").is_in(list(RULES)),
            "an unknown rule of exclusions",
            f"one of {', '.join(RULES)}, or null",
        ),
        _vector("user_vector"),
        _attributes("user_attributes"),
        *_showings(),
    ),
    "items": (
        Check(
            "length",
            ~(pl.col("length").is_finite() & (pl.col("length") > 0)),
            "a length that is no duration",
            "seconds above 0, or null where it is not known",
        ),
        _vector("vector"),
        _attributes("attributes"),
    ),
    "users": (_vector("vector"), _attributes("attributes")),
}

# lists without a null among their items
WITHOUT_HOLES: dict[str, tuple[str, ...]] = {
    "decisions": ("slate", "log_prob"),
    "contexts": (
        "exclusions",
        "history",
        "history_time",
        "history_kind",
        "user_vector",
        "shown",
        "shown_time",
    ),
    "items": ("tags", "vector"),
    "users": ("vector",),
}


def row_doubts(table: str, columns: Collection[str]) -> pl.Expr:
    """Whether `refuse_bad_rows` would refuse or change any row of a frame.

    Args:
        table: its name.
        columns: the columns to check; the others hold nothing that a check could name.
    """
    lists = [column for column in WITHOUT_HOLES.get(table, ()) if column in columns]
    checks = [check for check in CHECKS.get(table, ()) if check.column in columns]
    doubts = _doubts(lists, checks)
    if table == "decisions":
        doubts.append((items_of("log_prob") > 0).any())
    if table in VECTORS and VECTORS[table] in columns:
        length = pl.col(VECTORS[table]).list.len()
        doubts.append(length.min() != length.max())
    return pl.any_horizontal(*doubts) if doubts else pl.lit(False)


def _doubts(lists: Iterable[str], checks: Iterable[Check]) -> list[pl.Expr]:
    """Whether a list has a hole, per column of lists; then whether any row is bad, per check."""
    holes = [items_of(column).null_count() > 0 for column in lists]
    return holes + [check.doubt for check in checks]


def refuse_bad_rows(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame`, after every check. Log-probabilities above 0 by rounding are set to 0.

    Args:
        frame: rows of the table's own columns and types.
        table: its name.

    Raises:
        DataError: a row that some check names, a hole in a list, or vectors of different lengths.
    """
    if frame.is_empty():
        return frame
    lists = WITHOUT_HOLES.get(table, ())
    checks = CHECKS.get(table, ())
    if not lists and not checks:
        return frame
    answers = frame.select(
        doubt.alias(str(place)) for place, doubt in enumerate(_doubts(lists, checks))
    ).row(0)
    for column, has_holes in zip(lists, answers):
        if has_holes:
            bad = pl.col(column).list.drop_nulls().list.len() != pl.col(column).list.len()
            raise _error(
                frame,
                table,
                Check(
                    column,
                    bad,
                    f"an empty place in their {column}",
                    "no null and no empty id in a list",
                ),
            )
    failed = answers[len(lists) :]
    for check, has_bad_rows in zip(checks, failed):
        if has_bad_rows:
            raise _error(frame, table, check)
    if table in VECTORS:
        _refuse_uneven_vectors(frame, table)
    if table == "decisions" and (flat_items(frame["log_prob"]) > 0).any():
        frame = frame.with_columns(
            pl.col("log_prob").list.eval(pl.min_horizontal(pl.element(), 0.0))
        )
    return frame


def _refuse_uneven_vectors(frame: pl.DataFrame, table: str) -> None:
    """Raise where the vectors of a table are not all equally long."""
    column = VECTORS[table]
    key = f"{table[:-1]}_id"
    vectors = frame.select(key, pl.col(column).list.len().alias("length")).drop_nulls("length")
    if vectors["length"].n_unique() > 1:
        first_key, first_length = vectors.row(0)
        other_key, other_length = vectors.filter(pl.col("length") != first_length).row(0)
        raise DataError(
            f"{table}: {column} has {first_length} numbers for {first_key!r} and {other_length} "
            f"for {other_key!r}; expected equally many in all rows; give all vectors from one "
            "model, or null"
        )


def refuse_other_lengths(frame: pl.DataFrame, table: str, stored_length: int | None) -> None:
    """Raise where the vectors of a table are longer or shorter than those in the lake.

    Args:
        frame: checked rows, whose vectors are equally long.
        table: its name.
        stored_length: numbers per vector in the lake; None where it holds none.
    """
    column = VECTORS.get(table)
    if column is None or stored_length is None:
        return
    vectors = frame.drop_nulls(column)
    if vectors.height and (length := len(vectors[column][0])) != stored_length:
        raise DataError(
            f"{table}: {column} has {length} numbers, first for {vectors[f'{table[:-1]}_id'][0]!r}, "
            f"and {stored_length} in the lake; expected equally many in all of a lake. Nothing was "
            "written; give vectors of that length, or append to a new lake"
        )


def refuse_long_slates(decisions: pl.DataFrame | None, contexts: pl.DataFrame | None) -> None:
    """Raise where a slate holds more items than its context has slots. Fewer are fine: a page may
    withhold rows.

    Args:
        decisions: rows of the decisions table, or None.
        contexts: of the contexts table, or None; decisions whose context is not among them are not
            checked.

    Raises:
        DataError: a slate that is longer than its context allows.
    """
    if decisions is None or contexts is None:
        return
    joined = decisions.select("decision_id", "context_id", "slate").join(
        contexts.select("context_id", "slots"), on="context_id", how="inner"
    )
    too_long = joined.filter(pl.col("slate").list.len() > pl.col("slots"))
    if too_long.height:
        first = too_long.row(0, named=True)
        raise DataError(
            f"decisions: {too_long.height:,} of {joined.height:,} slates are longer than their "
            f"context, first {first['decision_id']!r} with "
            f"{len(first['slate'])} items for {first['slots']} slots; expected at most as many "
            "items as slots"
        )


def _error(frame: pl.DataFrame, table: str, check: Check) -> DataError:
    bad_rows = frame.filter(check.bad.fill_null(False))
    first = bad_rows.row(0, named=True)
    key = repr(first[f"{table[:-1]}_id"])
    if "policy" in first:
        key += f" of {first['policy']}"
    count = f"{bad_rows.height:,} {check.subject.format(rows=frame.height)}"
    return DataError(
        f"{table}: {count} have {check.wrong}, first {key} with {_short(first[check.column])}; "
        f"expected {check.expected}"
    )


def _short(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 80 else written[:77] + "..."
