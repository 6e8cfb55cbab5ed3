"""The report: one HTML file that opens from disk, asks the network for nothing and is a function of
its inputs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from longplay.report.blocks import charts_of
from longplay.report.charts import CONFIG
from longplay.report.headline import headline
from longplay.report.sections import SECTIONS
from longplay.report.sections.ingest import period_of
from longplay.report.summary import facts, glossary, versions
from longplay.results import RunResults
from longplay.results.log_figures import LogResult, SimulateResult

_HERE = Path(__file__).parent
_FIGURE_AND_ENDS = re.compile(r"(.*\S) (\([^()]+ to [^()]+\))", re.DOTALL)
# Vega reads names as JavaScript strings, which a line or paragraph separator ends; other controls
# are in no font
_UNDRAWABLE = {code: "\ufffd" for code in (*range(32), 127) if chr(code) not in "\t\n"} | {
    0x2028: " ",
    0x2029: " ",
}


def render(name: str, results: RunResults) -> str:
    """The report of a run as HTML text; equal inputs give equal bytes.

    A stage without a result is named as missing; nothing is guessed.

    Args:
        name: of the run.
        results: of its finished stages.
    """
    candidates = (steps.section(results) for steps in SECTIONS)
    sections = [section for section in candidates if section is not None]
    head = headline(results, sections)
    plots = [] if head.plot is None else [head.plot]
    plots += [chart for section in sections for chart in charts_of(section.blocks)]
    drawn = list({id(chart): chart for chart in plots}.values())  # the head's may be a section's
    log = results.find(LogResult)
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts_json = inert_json({"config": CONFIG, "charts": [chart.spec for chart in drawn]})
    places = {id(chart): place for place, chart in enumerate(drawn)}
    return environment.get_template("page.html").render(
        name=name,
        source=None if log is None else log.source,
        period=period_of(log),
        head=head,
        facts=facts(results),
        sections=sections,
        place_of=lambda chart: places[id(chart)],
        breakable=_breakable,
        glossary=glossary(results),
        versions=versions(results),
        command=_command(name, results),
        longplay_version=_version(),
        style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),
        charts_json=charts_json,
        bundle=bundle(),
        security_policy=_security_policy,
    )


def inert_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: no character in it can end the element, no NaN,
    and no text that Vega cannot read."""
    text = json.dumps(_drawable(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def bundle() -> Markup:
    """Vega, Vega-Lite and vega-embed as one script, safe inside a script element."""
    text = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]  (its stub forgets that the snippet has a default)
    return Markup(text.replace("</script", "<\\/script"))


def _breakable(cell: str) -> Markup | str:
    """A figure whose interval may stand on a line of its own, in one piece.

    >>> str(_breakable("+0.62 (0.33 to 0.91)"))
    '+0.62 <span class="whole">(0.33 to 0.91)</span>'
    """
    parts = _FIGURE_AND_ENDS.fullmatch(cell)
    if parts is None:
        return cell
    return Markup('{} <span class="whole">{}</span>').format(parts[1], parts[2])


def _version() -> str:
    """Of the installed package: the report stands below the public door and may not import it."""
    try:
        return metadata.version("longplay")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _security_policy(scripts: tuple[str, ...]) -> Markup:
    """Nothing may be fetched, and only these scripts may run: what data says can never become
    code."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return Markup(
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )


def _drawable(value: Any) -> Any:
    """Null for a number that is not finite; text without what Vega takes for the end of a line, and
    without control characters."""
    if isinstance(value, Mapping):
        return {_drawable(str(key)): _drawable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_drawable(inner) for inner in value]
    if isinstance(value, str):
        return value.translate(_UNDRAWABLE)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _command(name: str, results: RunResults) -> str:
    """The command that makes the page again."""
    simulated = results.find(SimulateResult) is not None
    demos = {"demo": "longplay demo", "demo-quick": "longplay demo --quick"}
    return demos.get(name, "longplay run run.toml") if simulated else "longplay run run.toml"
