"""Draws the pictures of docs/worlds.md from the named worlds themselves: appeal and depth, what policies come to, what logs look like."""

from __future__ import annotations

from pathlib import Path

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
    _save("worlds-facts", season() | retention())


def items() -> alt.Chart:
    """Every item's appeal and depth, world by world."""
    rows = []
    for name in NAMES:
        catalogue = World.named(name, users=1, items=DRAWN, seed=SEED).catalogue
        rows += [
            {"world": name, "appeal": appeal, "depth": depth, "loop": loop}
            for appeal, depth, loop in zip(catalogue.appeal_I.tolist(), catalogue.depth_I.tolist(), catalogue.loop_I.tolist(), strict=True)
        ]
    x = alt.X("appeal:Q", title="appeal: chance of a play", axis=alt.Axis(format="%", tickCount=4))
    y = alt.Y("depth:Q", title="depth: habit per play", scale=alt.Scale(type="log"), axis=alt.Axis(values=[0.1, 1, 10], grid=False))
    size = alt.Size("loop:Q", title="autoplay plays that follow", scale=alt.Scale(range=[4, 90]))
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, opacity=0.45).encode(x, y, size)
    return points.properties(width=150, height=120).facet(facet=alt.Facet("world:N", sort=NAMES, title=None), columns=4)


def policies() -> alt.Chart:
    """What four policies come to in each world: plays per visit today, active days in the 56 days after."""
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
    x = alt.X("plays:Q", title="plays per visit (today)", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4))
    y = alt.Y("change:Q", title=["56-day active days", "against popular"], axis=alt.Axis(format="+.0%", tickCount=5))
    colour = alt.Color("policy:N", title="policy", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())))
    base = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=120, opacity=1).encode(x, y, colour)
    return base.properties(width=150, height=120).facet(facet=alt.Facet("world:N", sort=NAMES, title=None), columns=4)


def season() -> alt.Chart:
    """Visits by weekday in the default world."""
    found = bench.facts_of(name="default", seed=SEED, users=USERS, items=ITEMS, days=112)
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    rows = [{"day": day, "visits": visits} for day, visits in zip(days, found["weekday"], strict=True)]
    y = alt.Y("visits:Q", title="visits, relative to the mean", scale=alt.Scale(domain=[0.9, 1.1], clamp=True))
    line = alt.Chart(alt.Data(values=rows)).mark_line(point=True, color="#3a7ec2").encode(alt.X("day:N", sort=days, title=None), y)
    return line.properties(width=300, height=180, title="A weekly season")


def retention() -> alt.Chart:
    """Share of the first week's users who come back, by week, in every world."""
    rows = []
    for name in NAMES:
        found = bench.facts_of(name=name, seed=SEED, users=USERS, items=ITEMS, days=112)
        rows += [{"world": name, "week": week + 1, "share": share} for week, share in enumerate(found["retention"])]
    x = alt.X("week:Q", title="week after the first", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("share:Q", title="share of the first week's users active", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    line = alt.Chart(alt.Data(values=rows)).mark_line().encode(x, y, alt.Color("world:N", sort=NAMES, title="world"))
    return line.properties(width=300, height=180, title="Retention, convex")


def _save(name: str, chart: alt.TopLevelMixin) -> None:
    spec = chart.properties(background="white").to_dict() if hasattr(chart, "properties") else chart.to_dict()
    (FIGURES / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(spec))


if __name__ == "__main__":
    main()
