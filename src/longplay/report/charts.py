"""Charts of the report: pure functions from rows to Vega-Lite specifications. Colours of ink, grid
and paper come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from longplay.report.blocks import Chart

Row = Mapping[str, Any]

MODEL_COLOURS = {
    "prior alone": "#858b94",
    "progressive": "#8457c6",
    "personal": "#c2553a",
    "sequence": "#5f9e4c",
    "auto_surrogate": "#cf4f86",
    "day_two": "#a98307",
    "matured_only": "#3f8ea3",
    "ridge": "#5c8a3a",
}
MAIN, FAINT = "#3a7ec2", "#858b94"
INK = "currentColor"
CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', sans-serif",
    "view": {"stroke": None},
    "padding": {"left": 4, "right": 8, "top": 4, "bottom": 4},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "tickSize": 4,
        "labelPadding": 4,
        "grid": False,
        "labelLimit": 220,
        "labelOverlap": True,
    },
    "axisX": {"titlePadding": 6},
    "axisY": {
        "grid": True,
        "domain": False,
        "ticks": False,
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "end",
        "titleX": 0,
        "titleY": -9,
        "titleBaseline": "bottom",
    },
}


def activity(rows: Sequence[Row]) -> Chart:
    """Active users per day, and their trailing 7-day mean; rows hold day, users, mean."""
    base = alt.Chart(_data(rows))
    x = alt.X(
        "utcyearmonthdate(day):T",
        title=None,
        axis=alt.Axis(format="%b %Y", tickCount="month", labelOverlap="greedy"),
    )
    tips = [
        alt.Tooltip("utcyearmonthdate(day):T", title="day", format="%a %d %b %Y"),
        _tip("users"),
        _tip("mean", "7-day mean", ",.1f"),
    ]
    y = alt.Y(
        "users:Q",
        title="active users per day",
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(zero=True, nice=True),
    )
    raw = (
        base.transform_filter("datum.users > 0")
        .mark_point(filled=True, size=9, opacity=0.55, color=FAINT)
        .encode(x, y)
    )
    mean = base.mark_line(strokeWidth=2.2, color=MAIN).encode(x, alt.Y("mean:Q"))
    touch = base.mark_point(opacity=0, size=70).encode(x, y, tooltip=tips)
    return _chart(
        alt.layer(raw, mean, touch),
        "Daily active users: each day (dots) and 7-day mean (line)",
        f"Line chart of active users per day over {len(rows)} days with their 7-day mean.",
        210,
    )


def retention(rows: Sequence[Row]) -> Chart:
    """Share of users who came back, by week after their first event; rows hold week, share, low,
    high, users."""
    base = alt.Chart(_data(rows))
    x = alt.X(
        "week:Q",
        title="week after the first event",
        axis=alt.Axis(tickMinStep=1, format="d"),
        scale=alt.Scale(nice=False),
    )
    band = base.mark_area(opacity=0.2, color=MAIN).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"))
    y = alt.Y(
        "share:Q",
        title="share of users active in that week",
        axis=alt.Axis(format="%", tickCount=5),
        scale=alt.Scale(zero=True),
    )
    line = base.mark_line(strokeWidth=2.2, color=MAIN).encode(x, y)
    points = base.mark_point(filled=True, size=34, opacity=1, color=MAIN).encode(
        x,
        y,
        tooltip=[
            _tip("week"),
            _tip("share", "active", ".1%"),
            _tip("users", "users observed that long"),
        ],
    )
    return _chart(
        alt.layer(band, line, points),
        "Retention by week after the first event, with 95% band",
        f"Line chart of the share of users active in each of {len(rows)} weeks after their first "
        "event.",
        210,
    )


def maturity(rows: Sequence[Row], marks: Sequence[Row], *, share: bool, name: str) -> Chart:
    """A signal's mean value had its window ended at each day; `marks` hold day, value, text of days
    worth a label."""
    y_axis = alt.Axis(format="%" if share else ",.3~g", tickCount=5)
    x = alt.X(
        "day:Q",
        title="day of the window",
        axis=alt.Axis(tickMinStep=1, format="d"),
        scale=alt.Scale(nice=False),
    )
    y = alt.Y(
        "value:Q",
        title="share of entries so far" if share else "mean value so far",
        axis=y_axis,
        scale=alt.Scale(zero=True),
    )
    tips = [_tip("day"), _tip("value", "value so far", ".2%" if share else ",.3~g")]
    line = alt.Chart(_data(rows)).mark_line(strokeWidth=2.2, color=MAIN).encode(x, y)
    touch = alt.Chart(_data(rows)).mark_point(opacity=0, size=60).encode(x, y, tooltip=tips)
    dots = (
        alt.Chart(_data(marks)).mark_point(filled=True, size=46, opacity=1, color=MAIN).encode(x, y)
    )
    words = (
        alt.Chart(_data(marks))
        .mark_text(align="right", dx=-8, dy=-5, fontSize=11, color=INK)
        .encode(x, y, text="text:N")
    )
    return _chart(
        alt.layer(line, dots, words, touch),
        f"How {name} builds up over its window",
        f"Line chart of the value of {name} by day of its window; "
        f"{'; '.join(str(mark['text']) for mark in marks)}.",
        190,
    )


def dots(
    rows: Sequence[Row],
    colours: Mapping[str, str],
    title: str,
    axis: str,
    *,
    zero_line: bool = False,
    names: Mapping[str, str] | None = None,
) -> Chart:
    """Values with their intervals, one line each; rows hold name, value, low, high, text."""
    order = [str(row["name"]) for row in rows]
    labelled = [
        dict(row) | {"label": (names or {}).get(str(row["name"]), row["name"])} for row in rows
    ]
    labels = [str(row["label"]) for row in labelled]
    base = alt.Chart(_data(labelled))
    y = alt.Y(
        "label:N",
        title=None,
        sort=labels,
        axis=alt.Axis(grid=False, labelPadding=8, labelFontSize=12),
    )
    x_axis = alt.Axis(grid=True, tickCount=5)
    colour = alt.Color(
        "name:N",
        legend=None,
        scale=alt.Scale(domain=order, range=[colours.get(name, FAINT) for name in order]),
    )
    x = alt.X("value:Q", title=axis, axis=x_axis, scale=alt.Scale(zero=True, nice=True))
    rule = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2.4)
        .encode(alt.X("low:Q", title=axis, axis=x_axis), alt.X2("high:Q"), y, colour)
    )
    point = base.mark_point(filled=True, size=75, opacity=1).encode(
        x, y, colour, tooltip=[_tip("label", " ", None), _tip("text", "value", None)]
    )
    words = base.mark_text(dy=-12, fontSize=11, color=INK).encode(x, y, text="text:N")
    layers: list[Any] = [rule, point, words]
    if zero_line:
        layers.insert(
            0,
            alt.Chart(_data([{"value": 0}]))
            .mark_rule(strokeDash=[3, 3], color=INK, opacity=0.6)
            .encode(x),
        )
    values = "; ".join(f"{row['label']} {row['text']}" for row in labelled)
    return _chart(
        alt.layer(*layers),
        title,
        f"Dots with 95% intervals of {axis}: {values}.",
        34 * len(rows) + 22,
    )


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    colours: Mapping[str, str],
    title: str,
    y_title: str,
    *,
    share: bool = False,
    zero: bool = True,
    faint: str | None = None,
    legend: bool = False,
) -> Chart:
    """A line chart over training steps.

    Args:
        series: (step, value) points by name.
        colours: by name of the series.
        title: of the chart.
        y_title: of the vertical axis.
        share: whether values are shares, drawn from 0 to 1.
        zero: whether the vertical axis begins at 0.
        faint: the series that is drawn thin, such as raw values behind their mean.
        legend: whether names stand in a legend instead of at the ends of the lines.
    """
    long = [
        {"series": name, "step": step, "value": value}
        for name, points in series.items()
        for step, value in points
    ]
    ends = [
        {"series": name, "step": points[-1][0], "value": points[-1][1]}
        for name, points in series.items()
        if points
    ]
    order = list(series)
    scale = alt.Scale(domain=order, range=[colours.get(name, MAIN) for name in order])
    colour = alt.Color("series:N", legend=_legend() if legend else None, scale=scale)
    most = max((row["step"] for row in long), default=1)
    x = alt.X(
        "step:Q",
        title="training step",
        axis=alt.Axis(tickMinStep=1, format="d", tickCount=6),
        scale=alt.Scale(domain=[min((row["step"] for row in long), default=0), most], nice=False),
    )
    y = alt.Y(
        "value:Q",
        title=None if legend else y_title,
        axis=alt.Axis(format="%" if share else ",.4~g", tickCount=5),
        scale=alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=zero, nice=True),
    )
    base = alt.Chart(_data(long))
    width = (
        alt.condition(f"datum.series === '{faint}'", alt.value(0.9), alt.value(2.2))
        if faint
        else alt.value(2.2)
    )
    opacity = (
        alt.condition(f"datum.series === '{faint}'", alt.value(0.5), alt.value(1))
        if faint
        else alt.value(1)
    )
    drawn = base.mark_line(point=False).encode(x, y, colour, strokeWidth=width, opacity=opacity)
    touch = base.mark_point(opacity=0, size=50).encode(
        x,
        y,
        tooltip=[
            _tip("series", " ", None),
            _tip("step"),
            _tip("value", "value", ".3~%" if share else ",.4~g"),
        ],
    )
    layers: list[Any] = [drawn, touch]
    labelled_ends = [
        row
        for row in sorted(ends, key=lambda row: -row["value"])
        if row["series"] != faint and len(order) > 1 and not legend
    ]
    # the upper label is moved up a little and the lower one down, so that close ends stay legible
    for place, row in enumerate(labelled_ends):
        words = alt.Chart(_data([row])).mark_text(
            align="left",
            dx=5,
            dy=(place - (len(labelled_ends) - 1) / 2) * 8,
            fontSize=11,
            fontWeight=600,
        )
        layers.append(words.encode(x, y, colour, text="series:N"))
    return _chart(
        alt.layer(*layers),
        title,
        f"Line chart of {y_title} over training steps: {', '.join(order)}.",
        190,
    )


def grouped(
    rows: Sequence[Row],
    colours: Mapping[str, str],
    title: str,
    axis: str,
    *,
    reference: tuple[float, str] | None = None,
) -> Chart:
    """Several values with intervals per policy.

    Rows hold name, label, how, value, low, high, text; `reference` is the place and name of a
    dashed line.
    """
    order = list(dict.fromkeys(str(row["name"]) for row in rows))
    ways = list(dict.fromkeys(str(row["how"]) for row in rows))
    labels = list(dict.fromkeys(str(row["label"]) for row in rows))
    base = alt.Chart(_data(_with_words(rows, reference)))
    y = alt.Y(
        "label:N",
        title=None,
        sort=labels,
        axis=alt.Axis(grid=False, labelPadding=8, labelFontSize=12),
        scale=alt.Scale(paddingInner=0.1, paddingOuter=0.1),
    )
    offset = alt.YOffset("how:N", sort=ways, scale=alt.Scale(paddingOuter=0.2))
    x_axis = alt.Axis(grid=True, tickCount=5)
    x = alt.X("value:Q", title=axis, axis=x_axis, scale=alt.Scale(zero=True, nice=True))
    colour = alt.Color(
        "name:N",
        legend=None,
        scale=alt.Scale(domain=order, range=[colours.get(name, FAINT) for name in order]),
    )
    shape = alt.Shape(
        "how:N",
        legend=None,
        scale=alt.Scale(
            domain=ways, range=["circle", "diamond", "square", "triangle-up"][: len(ways)]
        ),
    )
    rule = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2.2)
    rule = rule.encode(alt.X("low:Q", title=axis, axis=x_axis), alt.X2("high:Q"), y, offset, colour)
    tips = [_tip("label", " ", None), _tip("how", " ", None), _tip("text", "value", None)]
    point = base.mark_point(filled=True, size=75, opacity=1).encode(
        x, y, offset, colour, shape, tooltip=tips
    )
    words = [
        base.transform_filter(f"datum.align === '{align}'")
        .mark_text(dy=-11, align=align, fontSize=11, color=INK)
        .encode(alt.X("words_at:Q", title=axis), y, offset, text="words:N")
        for align in ("left", "right")
    ]
    layers: list[Any] = [rule, point, *words]
    if reference is not None:
        line = alt.Chart(_data([{"value": reference[0], "words": reference[1]}]))
        name = line.mark_text(
            align="left", dx=4, dy=-3, baseline="bottom", fontSize=11, color=INK
        ).encode(x, y=alt.value(0), text="words:N")
        layers = [
            line.mark_rule(strokeDash=[3, 3], color=INK, opacity=0.6).encode(x),
            *layers,
            *([name] if reference[1] else []),
        ]
    values = "; ".join(f"{row['label']}, {row['how']} {row['text']}" for row in rows)
    return _chart(
        alt.layer(*layers),
        title,
        f"Dots with 95% intervals of {axis}: {values}.",
        40 * len(rows) + 24,
    )


def _with_words(rows: Sequence[Row], reference: tuple[float, str] | None) -> list[dict[str, Any]]:
    """The rows with the anchors of their labels.

    A label reaches from an end of the interval towards the middle of the plot, so that it stays
    inside.
    """
    ends = [
        (row["value"], row["value"]) if row["low"] is None else (row["low"], row["high"])
        for row in rows
    ]
    shown = [end for pair in ends for end in pair]
    shown += [] if reference is None else [reference[0]]
    middle = (min(shown) + max(shown)) / 2
    worded = []
    for row, (low, high) in zip(rows, ends, strict=True):
        left = row["value"] < middle
        words = {
            "words": f"{row['how']} {row['text']}",
            "align": "left" if left else "right",
            "words_at": low if left else high,
        }
        worded.append(dict(row) | words)
    return worded


def reliability(rows: Sequence[Row], colour: str, name: str) -> Chart:
    """A reliability diagram: realised against predicted means by bin of belief, with 95% intervals.

    Rows hold predicted, realised, low, high, n.
    """
    top = max([float(row[key]) for row in rows for key in ("predicted", "high")] + [1e-9]) * 1.04
    scale = alt.Scale(domain=[0, top], nice=False)
    base = alt.Chart(_data(rows))
    x = alt.X(
        "predicted:Q", title="predicted", axis=alt.Axis(format=".2~g", tickCount=4), scale=scale
    )
    y = alt.Y(
        "realised:Q", title="realised", axis=alt.Axis(format=".2~g", tickCount=4), scale=scale
    )
    diagonal = (
        alt.Chart(_data([{"predicted": 0, "realised": 0}, {"predicted": top, "realised": top}]))
        .mark_line(strokeDash=[3, 3], strokeWidth=1, color=INK, opacity=0.6)
        .encode(x, y)
    )
    bars = base.mark_rule(strokeWidth=1.8, color=colour).encode(
        x, alt.Y("low:Q", title="realised", scale=scale), alt.Y2("high:Q")
    )
    tips = [
        _tip("predicted", "predicted", ".3f"),
        _tip("realised", "realised", ".3f"),
        _tip("n", "entries"),
    ]
    points = base.mark_point(filled=True, size=40, opacity=1, color=colour).encode(
        x, y, tooltip=tips
    )
    return _chart(
        alt.layer(diagonal, bars, points),
        f"{name}: reliability",
        f"Reliability of {name}: realised against predicted means in {len(rows)} bins, with the "
        "diagonal.",
        170,
    )


def coverage(rows: Sequence[Row], colour: str, name: str) -> Chart:
    """Coverage: the share of realised means inside intervals, against their nominal level.

    Rows hold level, share, low, high, items.
    """
    base = alt.Chart(_data(rows))
    scale = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X(
        "level:Q",
        title="level promised",
        axis=alt.Axis(format="%", tickCount=4),
        scale=alt.Scale(domain=[0.4, 1], nice=False),
    )
    y = alt.Y("share:Q", title="items inside", axis=alt.Axis(format="%", tickCount=4), scale=scale)
    diagonal = (
        alt.Chart(_data([{"level": 0.4, "share": 0.4}, {"level": 1, "share": 1}]))
        .mark_line(strokeDash=[3, 3], strokeWidth=1, color=INK, opacity=0.6)
        .encode(x, y)
    )
    bars = base.mark_rule(strokeWidth=1.8, color=colour).encode(
        x, alt.Y("low:Q", title="items inside", scale=scale), alt.Y2("high:Q")
    )
    points = base.mark_point(filled=True, size=40, opacity=1, color=colour).encode(
        x,
        y,
        tooltip=[_tip("level", "promised", ".0%"), _tip("share", "kept", ".0%"), _tip("items")],
    )
    return _chart(
        alt.layer(diagonal, bars, points),
        f"{name}: coverage of item means",
        f"Coverage of {name}: share of items inside against the level promised, with the diagonal.",
        170,
    )


def pit(rows: Sequence[Row], colour: str, name: str) -> Chart:
    """The histogram of probability integral transforms, with the flat line of perfect calibration.

    Rows hold low, high, ratio, n.
    """
    base = alt.Chart(_data(rows))
    x = alt.X(
        "low:Q",
        title="PIT",
        axis=alt.Axis(format=".1~f", tickCount=5),
        scale=alt.Scale(domain=[0, 1]),
    )
    y = alt.Y(
        "ratio:Q",
        title="entries / expected",
        axis=alt.Axis(format=".2~g", tickCount=4),
        scale=alt.Scale(zero=True),
    )
    bars = base.mark_rect(color=colour, opacity=0.75).encode(
        x,
        alt.X2("high:Q"),
        y,
        alt.Y2(datum=0),
        tooltip=[_tip("low", "from", ".1f"), _tip("high", "to", ".1f"), _tip("n", "entries")],
    )
    flat = (
        alt.Chart(_data([{"ratio": 1}]))
        .mark_rule(strokeDash=[3, 3], color=INK, opacity=0.8)
        .encode(y)
    )
    return _chart(
        alt.layer(bars, flat),
        f"{name}: PIT of single outcomes",
        f"Histogram of the probability integral transforms of {name} in {len(rows)} bins beside a "
        "flat line.",
        170,
    )


def daily(
    series: Mapping[str, Sequence[tuple[str, float]]],
    colours: Mapping[str, str],
    title: str,
    y_title: str,
) -> Chart:
    """Shares by calendar day, one line per series, with a legend; points hold (ISO day, share)."""
    long = [
        {"series": name, "day": day, "value": value}
        for name, points in series.items()
        for day, value in points
    ]
    order, base = list(series), alt.Chart(_data(long))
    colour = alt.Color(
        "series:N",
        legend=_legend(),
        scale=alt.Scale(domain=order, range=[colours.get(name, MAIN) for name in order]),
    )
    x = alt.X(
        "utcyearmonthdate(day):T",
        title=None,
        axis=alt.Axis(format="%-d %b", tickCount="week", labelOverlap="greedy"),
    )
    y = alt.Y(
        "value:Q",
        title=None,
        axis=alt.Axis(format="%", tickCount=5),
        scale=alt.Scale(zero=False, nice=True),
    )  # the key stands there
    tips = [
        _tip("series", " ", None),
        alt.Tooltip("utcyearmonthdate(day):T", title="to", format="%a %d %b %Y"),
        _tip("value", "share", ".1%"),
    ]
    touch = base.mark_point(opacity=0, size=50).encode(x, y, tooltip=tips)
    return _chart(
        alt.layer(base.mark_line(strokeWidth=2.2).encode(x, y, colour), touch),
        title,
        f"Line chart of {y_title} by day: {', '.join(order)}.",
        210,
    )


def _legend() -> alt.Legend:
    """A legend above the chart."""
    return alt.Legend(
        title=None,
        orient="top",
        direction="horizontal",
        symbolType="stroke",
        symbolStrokeWidth=2.2,
        labelColor=INK,
        labelLimit=400,
    )


def _data(rows: Sequence[Row]) -> alt.Data:
    """Rows as inline data of a chart."""
    return alt.Data(values=[dict(row) for row in rows])


def _tip(field: str, title: str | None = None, format: str | None = ",") -> alt.Tooltip:
    """A field in a tooltip."""
    if format is None:
        return alt.Tooltip(f"{field}:N", title=title or field)
    return alt.Tooltip(f"{field}:Q", title=title or field, format=format)


def _chart(layers: Any, title: str, description: str, height: int) -> Chart:
    """The chart of these layers, with a title and a description for screen readers."""
    spec = layers.properties(width="container", height=height, description=description).to_dict(
        validate=False
    )
    spec.pop("$schema", None)
    spec.pop("config", None)  # one configuration for the page
    return Chart(title, spec, height)
