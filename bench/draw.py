"""Redraw docs/benchmarks.md and the README's table of claims from bench/results/*.json; `--run`
recomputes them first."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- claims: drawn by `make bench` -->", "<!-- end of claims -->"
SCRIPTS = (
    "signals",
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
    rows = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    page = [
        "# Benchmarks",
        "",
        "Drawn by `make bench` from `bench/results/`; rows that fall short are here too.",
        "",
    ]
    page += [
        "Beside timings stand the least and the most of their rounds, in place of an interval.",
        "",
    ]
    for name, claims in rows.items():
        page += [f"## {name}", "", *table(claims), ""]
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(page))
    readme = (ROOT / "README.md").read_text()
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    chosen = [row for claims in rows.values() for row in claims if row.get("readme")]
    (ROOT / "README.md").write_text(
        "\n".join([before + BEGIN, "", *table(chosen), "", END]) + after
    )


def table(rows: list[dict[str, object]]) -> list[str]:
    """Markdown rows: claim, value with interval, bar, met."""
    lines = [
        "| claim | value | 95% interval | bar | met | seeds | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["low"], row["high"]
        interval = "" if low is None or high is None else f"{_short(low)} to {_short(high)}"
        met = "–" if str(row["bar"]).startswith("none") else "yes" if row["ok"] else "**no**"
        lines.append(
            f"| {row['claim']} | {_short(row['value'])} | {interval} | {row['bar']} | {met} | "
            f"{row['seeds']} | `{row['command']}` |"
        )
    return lines


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
