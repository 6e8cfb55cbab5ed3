"""How figures are written, in the terminal, in a notebook and in the report alike: numbers,
percentages, intervals, durations, tables.

An estimate has as many decimals as two significant digits of the distance to the nearer end of its
interval need, wherever it is written (`decimals_of`). An interval is written `low to high`. A number
that has no interval has three significant digits. The report writes the minus sign of print, the
terminal a hyphen, which can be copied into a program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import polars as pl

Rows = Sequence[Sequence[str]]
MOST_DECIMALS = 8
ROUNDING = 1e-9  # relative
NO_WIDTH = 1e-6  # relative to the value: what cancelling variances may leave of an interval
# an interval whose middle lies further from the value than this share of its half-width is written
# by its ends
LOPSIDED = 0.1


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, thousands set apart.

    >>> number(0.01234), number(12345.6), number(float("nan")), number(3.0)
    ('0.0123', '12,346', '-', '3')
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def percent(share: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """A share in percent, with at most three significant digits or in fixed decimals.

    Args:
        share: 0.5 is half; null or not finite: `n/a`.
        decimals: of the per cent; default as many as three significant digits need.
        signed: whether a gain has a plus.

    >>> percent(0.01), percent(0.50321), percent(0.0042), percent(-0.02, signed=True)
    ('1%', '50.3%', '0.42%', '-2%')
    >>> percent(0.8427, 0), percent(0.031, signed=True), percent(None)
    ('84%', '+3.1%', 'n/a')
    """
    if share is None or not math.isfinite(share):
        return "n/a" if share is None or math.isnan(share) else f"{number(share)}%"
    words = number(100 * share) if decimals is None else _fixed(100 * share, decimals)
    return f"+{words}%" if signed and share > 0 else f"{words}%"


def interval(low: float, high: float) -> str:
    """Both ends of an interval, in the decimals that an estimate in its middle would have.

    >>> interval(-0.0123, 0.2), interval(1.0, 1.0), interval(0.0004, 0.0204)
    ('-0.01 to 0.20', '1 to 1', '0.0004 to 0.0204')
    """
    return value_and_ends((low + high) / 2, low, high)[1]


def percent_interval(low: float, high: float) -> str:
    """An interval of shares, in percent.

    >>> percent_interval(-0.012, 0.03)
    '-1.2% to 3.0%'
    """
    return "% to ".join(interval(100 * low, 100 * high).split(" to ")) + "%"


def plus_minus(value: float, half: float) -> str:
    """A value and the half-width of its interval.

    >>> plus_minus(0.3141, 0.0402), plus_minus(2.0, 0.0)
    ('0.314 ± 0.040', '2 ± 0')
    """
    if not (math.isfinite(half) and half > 0):
        return f"{value:.4g} ± {half:.2g}"
    decimals = _decimals_for(half)
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def value_and_ends(value: float, low: float, high: float) -> tuple[str, str]:
    """A value, and the two ends of its interval, in the same decimals.

    >>> value_and_ends(0.0213, 0.0121, 0.0389), value_and_ends(0.02, 0.0, math.inf)
    (('0.0213', '0.0121 to 0.0389'), ('0.02', '0 to inf'))
    """
    width = high - low
    if not (math.isfinite(width) and width > NO_WIDTH * abs(value)):
        return number(value), f"{number(low)} to {number(high)}"
    decimals = decimals_of(Bounded(value, low, high))
    return _fixed(value, decimals), f"{_fixed(low, decimals)} to {_fixed(high, decimals)}"


def value_with_ends(value: float, low: float, high: float) -> str:
    """A value with its interval in brackets, for a terminal.

    >>> value_with_ends(-0.8981, -1.204, -0.592)
    '-0.90 (-1.20 to -0.59)'
    """
    text, ends = value_and_ends(value, low, high)
    return f"{text} ({ends})"


def percent_and_ends(share: float, low: float, high: float) -> tuple[str, str]:
    """A relative difference with its sign, and the two ends of its interval, in per cent.

    >>> percent_and_ends(0.0342, 0.007, 0.062), percent_and_ends(-0.0763, -0.101, -0.051)
    (('+3.4%', '0.7% to 6.2%'), ('-7.6%', '-10.1% to -5.1%'))
    """
    text, ends = value_and_ends(100 * share, 100 * low, 100 * high)
    sign = "+" if share > 0 else ""
    return f"{sign}{text}%", ends.replace(" to ", "% to ") + "%"


@dataclass(frozen=True)
class Bounded:
    """A figure with its interval; the ends are null where it has none.

    >>> Bounded.around(0.5, 0.1).interval, Bounded(0.5).interval
    ((0.304, 0.696), None)
    """

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def around(cls, value: float, std_error: float | None) -> Bounded:
        """A figure with the normal 95% interval of its standard error; without one where that is
        null."""
        if std_error is None:
            return cls(value)
        return cls(value, value - 1.96 * std_error, value + 1.96 * std_error)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the interval; null where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def scaled(self, factor: float) -> Bounded:
        """The figure and its ends in another unit."""
        low = None if self.low is None else self.low * factor
        high = None if self.high is None else self.high * factor
        return Bounded(self.value * factor, low, high)

    def row(self) -> dict[str, float | None]:
        """Value, low and high by name, for a chart."""
        return {"value": self.value, "low": self.low, "high": self.high}


def decimal(value: float | None, decimals: int | None = None) -> str:
    """A number in fixed decimals with the minus sign of print; `n/a` where it is missing.

    Args:
        value: the number.
        decimals: default none for a whole number, else as many as show three significant digits.

    >>> decimal(-1234.5, 1), decimal(0.012345), decimal(0.25), decimal(None)
    ('−1,234.5', '0.0123', '0.250', 'n/a')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if decimals is None:
        decimals = 0 if isinstance(value, int) or not value else max(0, 2 - _magnitude(value))
    return printed(_fixed(value, decimals))


def printed(text: str) -> str:
    """A figure with the minus sign of print in the place of the hyphen.

    >>> printed(percent(-0.754))
    '−75.4%'
    """
    return text.replace("-", "−")


def decimals_of(figure: Bounded) -> int:
    """Decimals in which a figure and its interval are written.

    As many as two significant digits of the distance to the nearer end need, and more where an end
    would be written as 0 that is not 0. Without an interval three significant digits of the value.

    >>> decimals_of(Bounded(0.31, 0.27, 0.35)), decimals_of(Bounded(0.01, 0.0004, 0.0204))
    (3, 4)
    """
    if figure.interval is None:
        return max(0, min(MOST_DECIMALS, 2 - _magnitude(figure.value))) if figure.value else 0
    low, high = figure.interval
    nearer = min(figure.value - low, high - figure.value)
    if nearer <= 0:  # an end is the value itself
        nearer = (high - low) / 2
    decimals = _decimals_for(nearer) if nearer > 0 else 3
    while decimals < MOST_DECIMALS and any(
        end != 0 and round(end, decimals) == 0 for end in (low, high)
    ):
        decimals += 1
    return decimals


def with_interval(figure: Bounded) -> str:
    """Value and both ends of its interval, for the report; the value alone where there is no
    interval, or none of width.

    >>> with_interval(Bounded(0.031, 0.027, 0.035)), with_interval(Bounded(0.031))
    ('0.0310 (0.0270 to 0.0350)', '0.0310')
    """
    ends = figure.interval
    if ends is None or ends[1] <= ends[0]:
        return decimal(figure.value) if figure.value else "0"
    return printed(value_with_ends(figure.value, *ends))


def span(figure: Bounded) -> str:
    """Both ends of the interval, for the report; nothing where there is none.

    >>> span(Bounded(0.02, 0.010, 0.031)), span(Bounded(0.02))
    ('0.010 to 0.031', '')
    """
    if figure.interval is None:
        return ""
    decimals = decimals_of(figure)
    return " to ".join(decimal(end, decimals) for end in figure.interval)


def signed(figure: Bounded) -> str:
    """The value with its sign, in the decimals of its interval.

    >>> signed(Bounded(0.62, 0.33, 0.91)), signed(Bounded(-0.53, -0.84, -0.22))
    ('+0.62', '−0.53')
    """
    text = decimal(figure.value, decimals_of(figure))
    return f"+{text}" if figure.value > 0 else text


def share_of(value: float, figure: Bounded) -> str:
    """A share in per cent, in the decimals of the interval of `figure`.

    >>> share_of(0.2, Bounded(0.2, 0.19, 0.21))
    '20.0%'
    """
    return percent(value, max(0, min(3, decimals_of(figure) - 2)))


def duration(seconds: float) -> str:
    """A duration, e.g. of a stage.

    >>> duration(0.52), duration(83.2), duration(5400)
    ('0.5 s', '83 s', '90 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def listed(words: Sequence[str]) -> str:
    """Words listed in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"]), listed([])
    ('a, b and c', 'a', '')
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def text_table(head: Sequence[str], rows: Rows) -> str:
    """A table as text: columns two blanks apart, the first aligned left, the others right.

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
    """A table as HTML; every cell is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def facts_text(title: str, facts: Mapping[str, str]) -> str:
    """A title, then a line per fact: how objects print on a terminal.

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
    """`facts_text` as HTML for a notebook; all text is escaped, and colours are the notebook's.

    >>> title, table = facts_html("a < b", {"n": "1"}).split("<table>")
    >>> title
    '<p>a &lt; b</p>'
    >>> table.replace(' style="text-align: left"', "")
    '<tbody><tr><th>n</th><td>1</td></tr></tbody></table>'
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


def _decimals_for(distance: float) -> int:
    """Decimals that two significant digits of a positive distance need."""
    # 0.21 - 0.2 is a little less than 0.01, and needs no further decimal for that
    return max(0, min(MOST_DECIMALS, 1 - _magnitude(distance * (1 + ROUNDING))))


def _fixed(value: float, decimals: int) -> str:
    """A number in fixed decimals with a separator of thousands; never `-0`."""
    text = f"{value:,.{min(decimals, MOST_DECIMALS)}f}"
    return text if text.strip("-0.,") else text.lstrip("-")


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))
