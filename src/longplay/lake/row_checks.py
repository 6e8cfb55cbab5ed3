"""Checks of rows, table by table: what a value cannot be, and what is expected instead."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from longplay.errors import DataError

# rule of exclusions -> what of the past is not shown again
RULES = {
    "seen": "item_id",
    "creator": "creator_id",
    "none": None,
}
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
    ),
    "items": (
        Check(
            "length",
            ~(pl.col("length").is_finite() & (pl.col("length") > 0)),
            "a length that is no duration",
            "seconds above 0, or null where it is not known",
        ),
    ),
}

# lists without a null among their items
WITHOUT_HOLES: dict[str, tuple[str, ...]] = {
    "decisions": ("slate", "log_prob"),
    "contexts": ("exclusions", "history", "history_time", "history_kind"),
    "items": ("tags",),
}


def row_doubts(table: str) -> pl.Expr:
    """Whether `refuse_bad_rows` would refuse or change any row of a frame."""
    doubts = _doubts(table)
    if table == "decisions":
        doubts.append((items_of("log_prob") > 0).any())
    return pl.any_horizontal(*doubts) if doubts else pl.lit(False)


def _doubts(table: str) -> list[pl.Expr]:
    """Whether a list has a hole, per column of `WITHOUT_HOLES`; then whether any row is bad, per
    check."""
    holes = [items_of(column).null_count() > 0 for column in WITHOUT_HOLES.get(table, ())]
    return holes + [check.doubt for check in CHECKS.get(table, ())]


def refuse_bad_rows(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame`, after every check. Log-probabilities above 0 by rounding are set to 0.

    Args:
        frame: rows of the table's own columns and types.
        table: its name.

    Raises:
        DataError: a row that some check names, or a hole in a list.
    """
    if frame.is_empty():
        return frame
    lists = WITHOUT_HOLES.get(table, ())
    checks = CHECKS.get(table, ())
    if not lists and not checks:
        return frame
    answers = frame.select(
        doubt.alias(str(place)) for place, doubt in enumerate(_doubts(table))
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
    if table == "decisions" and (flat_items(frame["log_prob"]) > 0).any():
        frame = frame.with_columns(
            pl.col("log_prob").list.eval(pl.min_horizontal(pl.element(), 0.0))
        )
    return frame


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
