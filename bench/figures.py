"""Draws the pictures of docs/worlds.md from the named worlds themselves, and the learning curves of
docs/semantic-ids.md from committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
import world as bench

from longplay.world import WORLDS, World

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
COLOURS = {"popular": "#858b94", "appeal": "#d97a06", "depth": "#3a7ec2", "knows all": "#109678"}
NAMES = [name for name in WORLDS if name != "tiny"]
USERS, ITEMS, SEED = 3_000, 600, 1
DRAWN = 120  # items in the picture of items: each is a path in the file


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    _save("worlds-items", items())
    _save("worlds-policies", policies())
    _save("beauty-curves", curves())
    _save(
        "worlds-facts",
        ((day_two() | explained()) & (active() | season()) & retention()).resolve_scale(
            color="independent"
        ),
    )


def items() -> alt.Chart:
    """Every item's appeal and depth, world by world."""
    rows = []
    for name in NAMES:
        catalogue = World.named(name, users=1, items=DRAWN, seed=SEED).catalogue
        rows += [
            {"world": name, "appeal": appeal, "depth": depth, "loop": loop}
            for appeal, depth, loop in zip(
                catalogue.appeal_I.tolist(),
                catalogue.depth_I.tolist(),
                catalogue.loop_I.tolist(),
                strict=True,
            )
        ]
    x = alt.X("appeal:Q", title="appeal: chance of a play", axis=alt.Axis(format="%", tickCount=4))
    y = alt.Y(
        "depth:Q",
        title="depth: habit per play",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(values=[0.1, 1, 10], grid=False),
    )
    size = alt.Size("loop:Q", title="autoplay plays that follow", scale=alt.Scale(range=[4, 90]))
    points = (
        alt.Chart(alt.Data(values=rows)).mark_point(filled=True, opacity=0.45).encode(x, y, size)
    )
    return points.properties(width=150, height=120).facet(
        facet=alt.Facet("world:N", sort=NAMES, title=None), columns=4
    )


def policies() -> alt.Chart:
    """What four policies come to in each world: plays per visit today, active days in the 56 days
    after."""
    rows = []
    for name in NAMES:
        found = bench.separate(name=name, seed=SEED, users=USERS, items=ITEMS, log_days=28)
        rows += [
            {
                "world": name,
                "policy": policy,
                "plays": found[f"{policy}: plays per visit"],
                "change": found[f"{policy}: active days"] / found["popular: active days"] - 1,
            }
            for policy in COLOURS
        ]
    x = alt.X(
        "plays:Q",
        title="plays per visit (today)",
        scale=alt.Scale(zero=True),
        axis=alt.Axis(tickCount=4),
    )
    y = alt.Y(
        "change:Q",
        title=["56-day active days", "against popular"],
        axis=alt.Axis(format="+.0%", tickCount=5),
    )
    colour = alt.Color(
        "policy:N",
        title="policy",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
    )
    base = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=120, opacity=1)
        .encode(x, y, colour)
    )
    return base.properties(width=150, height=120).facet(
        facet=alt.Facet("world:N", sort=NAMES, title=None), columns=4
    )


def _facts(name: str = "default") -> dict[str, Any]:
    return bench.facts_of(name=name, seed=SEED, users=USERS, items=ITEMS, days=112)


def day_two() -> alt.Chart:
    """How many active days discoveries come to that are, and are not, active on the day after."""
    found, most = _facts(), 20
    rows = [
        {"day after": label, "days": k, "share": share}
        for label, shares in zip(("not active", "active"), found["at_least"], strict=True)
        for k, share in enumerate(shares[:most], 1)
    ]
    x = alt.X(
        "days:Q",
        title="active days with the creator in days 1 to 59, at least",
        axis=alt.Axis(tickMinStep=1),
    )
    y = alt.Y("share:Q", title="share of discoveries", axis=alt.Axis(format="%"))
    colour = alt.Color(
        "day after:N",
        scale=alt.Scale(domain=["active", "not active"], range=["#109678", "#858b94"]),
        legend=None,
    )
    line = alt.Chart(alt.Data(values=rows)).mark_line().encode(x, y, colour)
    ends = [
        row | {"words": f"{row['day after']} on the day after"} for row in rows if row["days"] == 5
    ]
    words = (
        alt.Chart(alt.Data(values=ends))
        .mark_text(align="left", dx=6, dy=-8)
        .encode(x, y, colour, text="words:N")
    )
    return (line + words).properties(
        width=300,
        height=180,
        title=f"The day after says something: correlation {found['day_two_correlation']:.2f}",
    )


def explained() -> alt.Chart:
    """How much of the noise of the 59-day total the first days explain, in every world."""
    rows = [{"days": k, "share": share} for k, share in enumerate(_facts()["explained"], 1)]
    x, y = (
        alt.X("days:Q", title="days observed"),
        alt.Y("share:Q", title="variance explained", axis=alt.Axis(format="%")),
    )
    line = alt.Chart(alt.Data(values=rows)).mark_line(color="#3a7ec2").encode(x, y)
    ten = rows[9]
    point = (
        alt.Chart(alt.Data(values=[ten]))
        .mark_point(filled=True, size=70, color="#3a7ec2")
        .encode(x, y)
    )
    words = point.mark_text(align="left", dx=8, dy=8).encode(
        text=alt.value(f"10 days: {ten['share']:.0%}")
    )
    return (line + point + words).properties(
        width=300, height=180, title="Ten days explain over half"
    )


def active() -> alt.Chart:
    """The share of discoveries that are active with the creator, day by day."""
    found = _facts()
    rows = [{"day": k, "share": share} for k, share in enumerate(found["active"], 1)]
    x = alt.X("day:Q", title="day after the discovery")
    y = alt.Y("share:Q", title="share active with the creator", axis=alt.Axis(format="%"))
    late = (
        alt.Chart(alt.Data(values=[{"from": 30, "to": 59}]))
        .mark_rect(opacity=0.12, color="#d97a06")
        .encode(alt.X("from:Q"), alt.X2("to:Q"))
    )
    line = alt.Chart(alt.Data(values=rows)).mark_line(color="#3a7ec2").encode(x, y)
    title = f"{found['return_30_59']:.0%} of discoveries return in days 30 to 59"
    return (late + line).properties(width=300, height=180, title=title)


def season() -> alt.Chart:
    """Visits by weekday in the default world."""
    found = _facts()
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    rows = [
        {"day": day, "visits": visits} for day, visits in zip(days, found["weekday"], strict=True)
    ]
    y = alt.Y(
        "visits:Q",
        title="visits, relative to the mean",
        scale=alt.Scale(domain=[0.9, 1.1], clamp=True),
    )
    line = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True, color="#3a7ec2")
        .encode(alt.X("day:N", sort=days, title=None), y)
    )
    return line.properties(width=300, height=180, title="A weekly season")


def retention() -> alt.Chart:
    """Share of the first week's users who come back, by week, in every world."""
    rows = []
    for name in NAMES:
        found = _facts(name)
        rows += [
            {"world": name, "week": week + 1, "share": share}
            for week, share in enumerate(found["retention"])
        ]
    x = alt.X("week:Q", title="week after the first", axis=alt.Axis(tickMinStep=1))
    y = alt.Y(
        "share:Q",
        title="share of users active",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(zero=False),
    )
    line = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(x, y, alt.Color("world:N", sort=NAMES, title="world"))
    )
    return line.properties(
        width=300, height=180, title="Retention of the first week's users, convex"
    )


def curves() -> alt.Chart:
    """Validation NDCG@10 on Amazon Beauty against CPU time, of every training of
    bench/results/beauty.json."""
    results = json.loads((Path(__file__).parent / "results" / "beauty.json").read_text())
    rows = [
        {
            "model": row["claim"]
            .removeprefix("Amazon Beauty: learning curve, ")
            .rpartition(", best")[0],
            "seed": seed,
            "minutes": minutes,
            "ndcg": ndcg,
        }
        for row in results
        if "curves" in row
        for seed, curve in enumerate(row["curves"])
        for minutes, ndcg in curve
    ]
    names = list(dict.fromkeys(row["model"] for row in rows))
    greys, hues = (
        iter(["#858b94", "#3d4248"]),
        iter(["#109678", "#d97a06", "#b8463c", "#3a7ec2", "#7b4fb3"]),
    )
    scale = alt.Scale(
        domain=names, range=[next(greys if name.startswith("SASRec") else hues) for name in names]
    )
    x, y = (
        alt.X("minutes:Q", title="CPU minutes of training"),
        alt.Y("ndcg:Q", title="validation NDCG@10", axis=alt.Axis(format=".3f")),
    )
    colour = alt.Color(
        "model:N", sort=names, title=None, scale=scale, legend=alt.Legend(labelLimit=400)
    )
    line = alt.Chart(alt.Data(values=rows)).mark_line().encode(x, y, colour, detail="seed:N")
    return line.properties(width=460, height=240)


def _save(name: str, chart: alt.TopLevelMixin) -> None:
    spec = (
        chart.properties(background="white").to_dict()
        if hasattr(chart, "properties")
        else chart.to_dict()
    )
    (FIGURES / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(spec))


if __name__ == "__main__":
    main()
