"""Numbers and tables in words: the same cells for the terminal and for a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import polars as pl

Rows = Sequence[Sequence[str]]


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, thousands set apart.

    >>> number(0.01234), number(12345.6), number(float("nan")), number(3.0)
    ('0.0123', '12,346', '-', '3')
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def percent(share: float, *, signed: bool = False) -> str:
    """A share as per cent with at most three significant digits.

    >>> percent(0.01), percent(0.50321), percent(-0.02, signed=True), percent(0.031, signed=True)
    ('1%', '50.3%', '-2%', '+3.1%')
    """
    words = f"{number(100 * share)}%"
    return f"+{words}" if signed and share > 0 else words


def interval(low: float, high: float) -> str:
    """Both ends with as many decimals as two significant digits of the half-width need.

    >>> interval(-0.0123, 0.2), interval(1.0, 1.0)
    ('[-0.01, 0.20]', '[1, 1]')
    """
    half = (high - low) / 2
    if not (math.isfinite(half) and half > 0):
        return f"[{number(low)}, {number(high)}]"
    decimals = int(min(max(1 - math.floor(math.log10(half)), 0), 8))
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]"


def percent_interval(low: float, high: float) -> str:
    """An interval of shares, in per cent.

    >>> percent_interval(-0.012, 0.03)
    '[-1.2%, 3.0%]'
    """
    ends = interval(100 * low, 100 * high)[1:-1].split(", ")
    return f"[{ends[0]}%, {ends[1]}%]"


def plus_minus(value: float, half: float) -> str:
    """A value and its half-width, with as many decimals as two significant digits of the half-width
    need.

    >>> plus_minus(0.3141, 0.0402), plus_minus(2.0, 0.0)
    ('0.314 ± 0.040', '2 ± 0')
    """
    if not (math.isfinite(half) and half > 0):
        return f"{value:.4g} ± {half:.2g}"
    decimals = int(min(max(1 - math.floor(math.log10(half)), 0), 8))
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def value_and_ends(value: float, low: float, high: float) -> tuple[str, str]:
    """A value, and the two ends of its interval, with as many decimals as two digits of the nearer
    distance need.

    >>> value_and_ends(0.0213, 0.0121, 0.0389), value_and_ends(0.02, 0.0, math.inf)
    (('0.0213', '0.0121 to 0.0389'), ('0.02', '0 to inf'))
    """
    near = min(value - low, high - value)
    if not (math.isfinite(low) and math.isfinite(high) and near > 0):
        return f"{value:.4g}", f"{low:.4g} to {high:.4g}"
    decimals = int(min(max(1 - math.floor(math.log10(near)), 0), 8))
    return f"{value:.{decimals}f}", f"{low:.{decimals}f} to {high:.{decimals}f}"


def text_table(head: Sequence[str], rows: Rows) -> str:
    """Columns set apart by two blanks, the first to the left, the others to the right.

    >>> print(text_table(["who", "n"], [["a", "10"], ["bc", "9"]]))
    who   n
    a    10
    bc    9
    """
    lines = [head, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html_table(head: Sequence[str], rows: Rows) -> str:
    """The same as an HTML table; every cell is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def facts_text(title: str, facts: Mapping[str, str]) -> str:
    """What an object says of itself on a terminal: a title, then a line per fact.

    Args:
        title: what it is.
        facts: value by name.

    >>> print(facts_text("World, seed 7", {"users": "300", "items": "120"}))
    World, seed 7
      users  300
      items  120
    """
    width = max(map(len, facts), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in facts.items())])


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """The same for a notebook; all text is escaped, and colours are the notebook's own.

    >>> facts_html("a < b", {"n": "1"})
    '<p>a &lt; b</p><table><tbody><tr><th style="text-align: left">n</th><td style="text-align: left">1</td></tr></tbody></table>'
    """
    left = 'style="text-align: left"'
    rows = (
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    return f"<p>{escape(title)}</p><table><tbody>{''.join(rows)}</tbody></table>"


def table_html(title: str, frame: pl.DataFrame, shown: int = 10) -> str:
    """A title and the first rows of a frame for a notebook; all text is escaped.

    Args:
        title: what the rows are.
        frame: the rows.
        shown: how many of them are drawn.
    """
    return f"<p>{escape(title)}</p>{frame.head(shown)._repr_html_()}"
