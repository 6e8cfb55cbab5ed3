"""Redraw docs/benchmarks.md and the README's table of claims from bench/results/*.json, docs/layout.md
and docs/api; `--run` recomputes the results first."""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api
import layout

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- claims: drawn by `make bench` -->", "<!-- end of claims -->"
SCRIPTS = (
    "signals",
    "signals_spark",
    "verdicts",
    "impatient",
    "reinforce",
    "world",
    "demo",
    "attribution",
    "serving",
    "smollm2",
    "beauty",
    "retail_table",
    "retail_kl",
    "retail",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Headline:
    """A row of the README's table: one measured figure beside its anchor.

    Attributes:
        bench: file of bench/results the figure is read from, without its suffix
        claim: the row of that file
        words: what was measured, in the README's words
        anchor: what it is compared with; `{}` stands for the figures of `anchors`
        anchors: further rows of the same file, quoted in `anchor`
        difference: the row that says whether the figure is ahead of its anchor; without one the row's bar decides
        percent: whether figures are shares, written as percentages
    """

    bench: str
    claim: str
    words: str
    anchor: str
    anchors: tuple[str, ...] = ()
    difference: str | None = None
    percent: bool = False


BEAUTY = "Amazon Beauty, test R@10: "
BEAUTY_NEW = "Amazon Beauty, items of the history left out, test R@10: "
OURS = "generative, softmax over children (24 CPU minutes, 1.91M parameters)"
SASREC = "SASRec, full softmax (28 CPU minutes, 0.88M parameters)"
LESS = "generative, softmax over children less SASRec, full softmax"
HEADLINES = (
    Headline(
        "demo",
        "demo: reinforced on habit less incumbent, true active days in 28, relative",
        "Demo, 10 seeds: true active days, reinforced on habit less the incumbent",
        "reinforced on clicks: {}",
        ("demo: reinforced on clicks less incumbent, true active days in 28, relative",),
        percent=True,
    ),
    Headline(
        "signals",
        "10M events: CPU of a ready signal over the best SQL by hand, median of 13",
        "Ready signals on 10M events: CPU time, as a multiple of the anchor's",
        "the best SQL by hand, per signal",
    ),
    Headline(
        "serving",
        "small, 193-token prompts, batch 1, 10 beams, 10k items: CPU of Hugging Face generate over ours",
        "Ten best of 10,000 items, one request: times less CPU than the anchor",
        "Hugging Face `generate`; {} where it gets our prompt cache and kernels",
        (
            "small, 193-token prompts, batch 1, 10 beams, 10k items: CPU of generate, handed prompts "
            "encoded once and our kernels, over ours",
        ),
    ),
    Headline(
        "beauty",
        BEAUTY_NEW + OURS,
        "Amazon Beauty, recall@10, items of the history left out",
        "SASRec run here {}; published, not yet run here: SASRec .0921, eSASRec .0928 (arXiv 2508.06450)",
        (BEAUTY_NEW + SASREC,),
        BEAUTY_NEW + LESS,
    ),
    Headline(
        "beauty",
        BEAUTY + OURS,
        "Amazon Beauty, recall@10, all items ranked",
        "SASRec run here {}",
        (BEAUTY + SASREC,),
        BEAUTY + LESS,
    ),
    Headline(
        "retail",
        "retail: habit NDCG@10, reinforced",
        "A shop's log, habit-weighted NDCG@10, reinforced",
        "the same model, reward-weighted {}",
        ("retail: habit NDCG@10, reward-weighted",),
        "retail: habit NDCG@10, reinforced less reward-weighted",
    ),
    Headline(
        "impatient",
        "MAE of stickiness, 1000 traces, 10 days observed, truth: population",
        "Early belief after 10 of 59 days, mean error in days",
        "published .24 (arXiv 2307.09943)",
    ),
    Headline(
        "attribution",
        "attribution: share of the holdout's estimates within 1.96 standard errors of the truth (both errors)",
        "Attribution: share of holdout estimates within their 95% error of the truth",
        "at least 90%",
        percent=True,
    ),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--run", action="store_true", help="recompute every result (slow)")
    if options.parse_args().run:
        for script in SCRIPTS:
            subprocess.run(
                [
                    sys.executable,
                    str(ROOT / "bench" / f"{script}.py"),
                    "--json",
                    str(RESULTS / f"{script}.json"),
                ],
                check=True,
            )
    rows = results()
    PAGE.write_text(page(rows))
    readme = ROOT / "README.md"
    readme.write_text(with_claims(readme.read_text(), rows))
    layout.main()
    api.main()


def results() -> dict[str, list[Row]]:
    """Rows of every file of bench/results, by the name of their bench."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def with_claims(readme: str, results: dict[str, list[Row]]) -> str:
    """The README with its table of claims drawn anew."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", *headline_table(results), "", END]) + after


def page(results: dict[str, list[Row]]) -> str:
    """Text of docs/benchmarks.md: one table of claims, what falls short, then every bench's rows folded."""
    short = [row for rows in results.values() for row in rows if not row["ok"]]
    lines = [
        "# Benchmarks",
        "",
        "Drawn by `make bench` from `bench/results/`. Every row is a measured claim with its 95% "
        "interval and the bar it",
        "was held to. Beside timings stand the least and the most of their rounds, in place of an interval.",
        "",
        "## The claims",
        "",
        *headline_table(results),
        "",
        f"## What falls short of its bar ({len(short)} of {sum(map(len, results.values()))} rows)",
        "",
        *table(short),
        "",
        "## Every row, by bench",
        "",
    ]
    for bench, rows in results.items():
        held = [row for row in rows if _has_bar(row)]
        met = sum(bool(row["ok"]) for row in held)
        count = f"{len(rows)} rows, {met} of {len(held)} bars met"
        commands = ", ".join(f"`{command}`" for command in dict.fromkeys(map(_command, rows)))
        lines += [
            f"### {bench}",
            "",
            _question(bench),
            "",
            f"Recompute: {commands}",
            "",
            '<details markdown="1">',
            f"<summary>{count}</summary>",
            "",
            *table([row for row in rows if "grid" not in row]),
            "",
            "</details>",
            "",
            *grids(rows),
        ]
    return "\n".join(lines)


def headline_table(results: dict[str, list[Row]]) -> list[str]:
    """The README's table: measured figure, anchor, and how the two compare."""
    lines = [
        "| what was measured | here, 95% interval | beside | result |",
        "|---|---|---|---|",
    ]
    for headline in HEADLINES:
        rows = {row["claim"]: row for row in results[headline.bench]}
        row = rows[headline.claim]
        quoted = [_figure(rows[claim], headline.percent) for claim in headline.anchors]
        lines.append(
            f"| {headline.words} | {_figure(row, headline.percent)} | "
            f"{headline.anchor.format(*quoted)} | {_standing(headline, rows)} |"
        )
    return lines


def _standing(headline: Headline, rows: dict[str, Row]) -> str:
    """Whether a figure meets its bar, or where it stands beside its anchor."""
    if headline.difference is None:
        return "met" if rows[headline.claim]["ok"] else "**falls short**"
    difference = rows[headline.difference]
    if difference["low"] > 0:
        return "ahead"
    if difference["high"] < 0:
        return "**behind**"
    return "no difference shown"


def table(rows: list[Row]) -> list[str]:
    """Markdown rows: claim, value with interval, bar, met."""
    lines = ["| claim | value | 95% interval | bar | met | seeds |", "|---|---|---|---|---|---|"]
    for row in rows:
        low, high = row["low"], row["high"]
        interval = "" if low is None or high is None else f"{_short(low)} to {_short(high)}"
        met = "–"
        if _has_bar(row):
            met = "yes" if row["ok"] else "**no**"
        lines.append(
            f"| {row['claim']} | {_short(row['value'])} | {interval} | {row['bar']} | {met} | "
            f"{row['seeds']} |"
        )
    return lines


def grids(rows: list[Row]) -> list[str]:
    """Folded tables of the rows that say where they stand in one: `grid` with table, row and column."""
    lines: list[str] = []
    placed = [row for row in rows if "grid" in row]
    for title in dict.fromkeys(row["grid"]["table"] for row in placed):
        cells = {
            (row["grid"]["row"], row["grid"]["column"]): _figure(row, percent=False)
            for row in placed
            if row["grid"]["table"] == title
        }
        names = dict.fromkeys(name for name, _ in cells)
        columns = dict.fromkeys(column for _, column in cells)
        lines += [
            '<details markdown="1">',
            f"<summary>{title}</summary>",
            "",
            f"| | {' | '.join(columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for name in names:
            figures = [cells.get((name, column), "") for column in columns]
            lines.append(f"| {name} | {' | '.join(figures)} |")
        lines += ["", "</details>", ""]
    return lines


def _command(row: Row) -> str:
    return row["command"]


def _has_bar(row: Row) -> bool:
    return not str(row["bar"]).startswith("none")


def _question(bench: str) -> str:
    """What a bench asks: the first paragraph of its docstring."""
    text = ast.get_docstring(ast.parse((ROOT / "bench" / f"{bench}.py").read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _figure(row: Row, percent: bool) -> str:
    """A value with its interval: `0.0875 [0.0841, 0.0908]`, or in percent."""
    write = _percent if percent else _three
    if row["low"] is None:
        return write(row["value"])
    return f"{write(row['value'])} [{write(row['low'])}, {write(row['high'])}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%".replace("-", "−")


def _three(value: float) -> str:
    """Three significant digits, and the zeros that they need."""
    return f"{value:#.3g}".rstrip(".")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
