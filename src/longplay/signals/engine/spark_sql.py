"""The engine's SQL, written for DuckDB, in Spark's dialect.

sqlglot translates the text. What it does not carry over is rewritten on the syntax tree by the
short functions in `REWRITES`, each for one difference between the two engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import sqlglot
from sqlglot import exp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BIT_OPERATORS = (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor)
FUNCTIONS = {  # DuckDB's name of a function -> Spark's
    "epoch_us": "unix_micros",
    "make_timestamptz": "timestamp_micros",
    "arg_min_null": "min_by",
}


def _stars(tree: exp.Expression) -> None:
    """`* replace (x as c)` is `* except (c), x as c`: Spark has no replace.

    The order of columns changes, which nothing in the engine reads.
    """
    for star in list(tree.find_all(exp.Star)):
        replaced = star.args.get("replace")
        if not replaced:
            continue
        select = star.find_ancestor(exp.Select)
        assert select is not None
        names = [exp.to_identifier(alias.alias) for alias in replaced]
        star.set("replace", None)
        star.set("except_", [*(star.args.get("except_") or []), *names])
        for alias in replaced:
            select.append("expressions", alias)


def _fractions(tree: exp.Expression) -> None:
    """`0.5` is a double: Spark reads it as a decimal, whose quotients are rounded."""
    for literal in list(tree.find_all(exp.Literal)):
        if not literal.is_string and "." in literal.this and "e" not in literal.this.lower():
            literal.replace(exp.cast(exp.Literal.string(literal.this), "double"))


def _times(tree: exp.Expression) -> None:
    """A time is its microseconds: Spark does not read an offset of two digits."""
    for cast in list(tree.find_all(exp.Cast)):
        text = cast.this
        if cast.is_type("timestamptz") and isinstance(text, exp.Literal) and text.is_string:
            micros = (datetime.fromisoformat(text.this) - EPOCH) // datetime.resolution
            cast.replace(exp.func("timestamp_micros", exp.Literal.number(micros)))


def _functions(tree: exp.Expression) -> None:
    """Functions of the same meaning under another name."""
    for call in list(tree.find_all(exp.Anonymous)):
        if (name := FUNCTIONS.get(str(call.this).lower())) is not None:
            call.set("this", name)
    for call in list(tree.find_all(exp.Length)):  # the engine asks it of lists alone
        call.replace(exp.Anonymous(this="size", expressions=[call.this]))


def _shifts(tree: exp.Expression) -> None:
    """Spark shifts by an int alone."""
    for shift in list(tree.find_all(exp.BitwiseLeftShift, exp.BitwiseRightShift)):
        shift.set("expression", exp.cast(exp.paren(shift.expression, copy=False), "int"))


def _bits(tree: exp.Expression) -> None:
    """Operators on bits get brackets: DuckDB reads them from left to right, Spark does not."""
    for operator in list(tree.find_all(*BIT_OPERATORS)):
        if isinstance(operator.parent, BIT_OPERATORS):
            operator.replace(exp.paren(operator.copy()))


def _generators(tree: exp.Expression) -> None:
    """Rows of a list: the conversion goes inside, since Spark's `explode` may not be nested; a list
    with the places of its elements is one generator."""
    for cast in list(tree.find_all(exp.Cast)):
        if isinstance(explode := cast.this, exp.Explode):
            kind = exp.DataType.build(f"array<{cast.to.sql('spark')}>", dialect="spark")
            explode.set("this", exp.Cast(this=explode.this, to=kind))
            cast.replace(explode)
    for select in list(tree.find_all(exp.Select)):
        columns = {column.output_name: column for column in select.expressions}
        places = [
            (name, column)
            for name, column in columns.items()
            if (call := column.unalias()).sql().lower().startswith("generate_subscripts(")
        ]
        for name, place in places:
            elements = next(
                column for column in select.expressions if isinstance(column.unalias(), exp.Explode)
            )
            values = elements.unalias().this
            table = exp.TableAlias(
                this=exp.to_identifier("placed"),
                columns=[exp.to_identifier("place"), exp.to_identifier("element")],
            )
            view = exp.Lateral(
                this=exp.Anonymous(this="posexplode", expressions=[values.copy()]),
                view=True,
                alias=table,
            )
            elements.replace(exp.alias_(exp.column("element", "placed"), elements.output_name))
            place.replace(exp.alias_(exp.column("place", "placed") + 1, name))
            select.append("laterals", view)


REWRITES: tuple[Callable[[exp.Expression], None], ...] = (
    _stars,
    _fractions,
    _times,
    _functions,
    _shifts,
    _bits,
    _generators,
)


@dataclass(frozen=True)
class Statement:
    """A translated statement.

    Attributes:
        verb: "select", "table" or "view" (create), "insert" or "drop".
        name: of the table or view; empty for a select.
        text: the rows, as Spark SQL; empty for a drop.
    """

    verb: str
    name: str
    text: str


@lru_cache(maxsize=4096)
def translated(text: str) -> Statement:
    """A statement of DuckDB in Spark's SQL.

    >>> translated("select * replace (day // 60 as day), 1.5 as x from words").text
    "SELECT * EXCEPT (day), CAST('1.5' AS DOUBLE) AS x, day DIV 60 AS day FROM words"
    >>> translated("create or replace temp table days as select epoch_us(time) >> 2 as d from events")
    Statement(verb='table', name='days', text='SELECT SHIFTRIGHT(UNIX_MICROS(time), CAST((2) AS INT)) AS d FROM events')
    >>> translated("select unnest(slate) as item_id, generate_subscripts(slate, 1) as slot from d").text
    'SELECT placed.element AS item_id, placed.place + 1 AS slot FROM d LATERAL VIEW POSEXPLODE(slate) placed AS place, element'
    """
    tree = sqlglot.parse_one(text, read="duckdb")
    if isinstance(tree, exp.Drop):
        return Statement("drop", next(tree.find_all(exp.Table)).name, "")
    verb, name, query = "select", "", tree
    if isinstance(tree, exp.Create):
        verb, name, query = str(tree.kind).lower(), tree.this.name, tree.expression
    elif isinstance(tree, exp.Insert):
        verb, name, query = "insert", tree.this.name, tree.expression
    for rewrite in REWRITES:
        rewrite(query)
    return Statement(verb, name, query.sql("spark"))
