"""Translation of the engine's SQL from DuckDB to Spark.

sqlglot translates the text. Where that is not enough, the functions in `REWRITES` change the syntax
tree, each for one difference between the two engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import sqlglot
from sqlglot import exp

from longplay.lake.daily import EPOCH

BIT_OPERATORS = (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor)
FUNCTIONS = {  # DuckDB's name of a function -> Spark's
    "epoch_us": "unix_micros",
    "make_timestamptz": "timestamp_micros",
    "arg_min_null": "min_by",
}


def _stars(tree: exp.Expr) -> None:
    """`* replace (x as c)` becomes `* except (c), x as c`: Spark has no replace.

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


def _fractions(tree: exp.Expr) -> None:
    """`0.5` becomes a double: Spark reads it as a decimal, whose quotients are rounded."""
    for literal in list(tree.find_all(exp.Literal)):
        if not literal.is_string and "." in literal.this and "e" not in literal.this.lower():
            literal.replace(exp.cast(exp.Literal.string(literal.this), "double"))


def _times(tree: exp.Expr) -> None:
    """A time literal becomes its microseconds: Spark cannot read an offset of two digits."""
    for cast in list(tree.find_all(exp.Cast)):
        text = cast.this
        if cast.is_type("timestamptz") and isinstance(text, exp.Literal) and text.is_string:
            micros = (datetime.fromisoformat(text.this) - EPOCH) // datetime.resolution
            cast.replace(exp.func("timestamp_micros", exp.Literal.number(micros)))


def _functions(tree: exp.Expr) -> None:
    """Functions that Spark has under another name are renamed."""
    for call in list(tree.find_all(exp.Anonymous)):
        if (name := FUNCTIONS.get(str(call.this).lower())) is not None:
            call.set("this", name)
    for call in list(tree.find_all(exp.Length)):  # the engine uses it on lists only
        call.replace(exp.Anonymous(this="size", expressions=[call.this]))


def _shifts(tree: exp.Expr) -> None:
    """The distance of a shift becomes an int: Spark takes no other type."""
    for shift in list(tree.find_all(exp.BitwiseLeftShift, exp.BitwiseRightShift)):
        shift.set("expression", exp.cast(exp.paren(shift.expression, copy=False), "int"))


def _bits(tree: exp.Expr) -> None:
    """Bit operators get brackets: DuckDB reads them from left to right, Spark by precedence."""
    for operator in list(tree.find_all(*BIT_OPERATORS)):
        if isinstance(operator.parent, BIT_OPERATORS):
            operator.replace(exp.paren(operator.copy()))


def _generators(tree: exp.Expr) -> None:
    """A cast of a list's elements moves inside the list: Spark's `explode` may not be nested."""
    for cast in list(tree.find_all(exp.Cast)):
        explode = cast.this
        if isinstance(explode, exp.Explode):
            kind = exp.DataType.build(f"array<{cast.to.sql('spark')}>", dialect="spark")
            explode.set("this", exp.Cast(this=explode.this, to=kind))
            cast.replace(explode)


def _places(tree: exp.Expr) -> None:
    """A list's elements with their places become a `lateral view`: Spark allows one generator per
    select."""
    for place in list(tree.find_all(exp.Anonymous)):
        if str(place.this).lower() != "generate_subscripts":
            continue
        select = place.find_ancestor(exp.Select)
        assert select is not None
        elements = next(
            explode for column in select.expressions for explode in column.find_all(exp.Explode)
        )
        columns = [exp.to_identifier("place"), exp.to_identifier("element")]
        view = exp.Lateral(
            this=exp.Anonymous(this="posexplode", expressions=[elements.this]),
            view=True,
            alias=exp.TableAlias(this=exp.to_identifier("placed"), columns=columns),
        )
        elements.replace(exp.column("element", "placed"))
        place.replace(exp.column("place", "placed") + 1)  # counted from 1, as DuckDB's are
        select.append("laterals", view)


REWRITES: tuple[Callable[[exp.Expr], None], ...] = (
    _stars,
    _fractions,
    _times,
    _functions,
    _shifts,
    _bits,
    _generators,
    _places,
)


@dataclass(frozen=True)
class Statement:
    """A translated statement.

    Attributes:
        verb: "select", "table" or "view" (create), "insert", "copy" (to Parquet) or "drop".
        name: of the table or view, or of the place to copy to; empty for a select.
        text: the rows, as Spark SQL; empty for a drop.
    """

    verb: str
    name: str
    text: str


@lru_cache(maxsize=4096)
def translated(text: str) -> Statement:
    """A statement of DuckDB, translated for Spark.

    >>> translated("select * replace (day // 60 as day), 1.5 as x from words").text
    "SELECT * EXCEPT (day), CAST('1.5' AS DOUBLE) AS x, day DIV 60 AS day FROM words"
    >>> translated("create or replace temp table days as select epoch_us(time) >> 2 as d from events")
    Statement(verb='table', name='days', text='SELECT SHIFTRIGHT(UNIX_MICROS(time), CAST((2) AS INT)) AS d FROM events')
    >>> print(translated("select unnest(slate) as i, generate_subscripts(slate, 1) as n from d").text)
    SELECT placed.element AS i, placed.place + 1 AS n FROM d LATERAL VIEW POSEXPLODE(slate) placed AS place, element
    """
    tree = sqlglot.parse_one(text, read="duckdb")
    if isinstance(tree, exp.Drop):
        return Statement("drop", next(tree.find_all(exp.Table)).name, "")
    verb = "select"
    name = ""
    query = tree
    if isinstance(tree, exp.Create):
        verb = str(tree.kind).lower()
        name = tree.this.name
        query = tree.expression
    elif isinstance(tree, exp.Insert):
        verb = "insert"
        name = tree.this.name
        query = tree.expression
    elif isinstance(tree, exp.Copy):
        verb = "copy"
        name = tree.args["files"][0].this
        query = tree.this.this
    for rewrite in REWRITES:
        rewrite(query)
    return Statement(verb, name, query.sql("spark"))
