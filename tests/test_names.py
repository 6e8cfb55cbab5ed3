"""Hostile names: refused in words, or shown as the text they are, wherever a name can go."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from test_cli import invoke
from test_report import looped, render
from test_run import TINY

import longplay as lp
from longplay import cli
from longplay.attribution.credits import compare_rules
from longplay.audits import Audit, Verdict
from longplay.belief import Belief
from longplay.decisions import Contexts, Decisions, Frozen
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, Refusal
from longplay.experiments import Experiment
from longplay.experiments.enrolment import Check
from longplay.experiments.holdout import Holdout
from longplay.experiments.holdout import RuleLine as HoldoutLine
from longplay.experiments.power import Plan
from longplay.experiments.readout import Line, Readout, ShipDecision
from longplay.lake import Lake
from longplay.lake.daily import identifier, quoted
from longplay.lake.database import connected
from longplay.names import MOST_BYTES, file_name
from longplay.ope.diagnostics import Diagnosis
from longplay.policies.generative_policy import Generative
from longplay.policies.simple import Popular, Uniform
from longplay.run.config import parse_config
from longplay.signals import Signal, days_with, discovery
from longplay.signals.store.signal_store import SignalStore
from longplay.world import World
from longplay.world.checking.simulator_report import RuleResult, SimulatorReport
from longplay.world.truth.paired import PairedTruth

SOURCE = Path(__file__).resolve().parents[1] / "src" / "longplay"
HTML = [
    "<b>bold</b>",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--",
    "-->",
    "<![CDATA[x]]>",
    "<img src=x onerror=alert(1)>",
    "</p><h1>",
    "</td></tr></table>",
    "' onmouseover='alert(1)",
    '" onmouseover="alert(1)',
    "><svg/onload=alert(1)>",
    "&lt;b&gt;",
    "&#x3c;b&#x3e;",
    "<style>*{display:none}</style>",
    "</style>",
    "<iframe src=//x>",
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "</title><b>",
    "`",
    "<?php echo 1 ?>",
    "{{ 7*7 }}",
    "{% raw %}",
    "${7*7}",
    "#{7*7}",
]
SQL = [
    "'",
    "''",
    '"',
    '""',
    "x'; drop table events; --",
    'x"; drop table events; --',
    "x') or 1=1 --",
    "\\'",
    "/* x */",
    "-- x",
    ";",
    "$1",
    "?",
    "null",
    "NaN",
    "select",
    "events",
    "1GB'; create table stolen as select 1; --",
    "U&'\\0027'",
    "$$x$$",
]
PATHS = [
    "../x",
    "../../../x",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..\\x",
    "C:\\x",
    "C:x",
    "~/x",
    "//host/x",
    "file:///x",
    ".hidden",
    "x/",
    "/",
    "x/../y",
    "./x",
    "a*b",
    "a?b",
    "a[b]",
    "a|b",
    "a<b",
    "a>b",
    "a:b",
    'a"b',
    " x",
    "x ",
    "x.",
    "...",
]
DEVICES = ["CON", "nul", "aux.txt", "COM1", "lpt9", "PRN", "com¹", "CONIN$"]
CONTROLS = [
    "",
    "a\x00b",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x1b[31mred",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u2029b",
    "a\u202egnp.exe",
    "a\u200fb",
    "\ufeffx",
    "a\u200bb",
    "a\u2066b",
    "a\udc80b",
]
LONG = ["x" * 101, "x" * 10_000, "ж" * 101, "漢" * 90]
MARKUP = [
    "[bold]x[/bold]",
    "[red]",
    "[/]",
    "[link=https://x]y[/link]",
    "%s%n%x",
    "{0}",
    "{name}",
    "%(x)s",
    "\\u0041",
]
HOSTILE = [*HTML, *SQL, *PATHS, *DEVICES, *CONTROLS, *LONG, *MARKUP]
PLAIN = [
    "habit",
    "Gewöhnung",
    "привычка",
    "習慣",
    "عادة",
    "हिन्दी",
    "clicks-2 weeks",
    "a.b_c+d",
    "😀 happy",
    "👩\u200d👩",
    "it's",
    "50%",
    "x" * 100,
]
SHOWN = [*HOSTILE, *PLAIN]  # names as they may stand in a log, whose ids are free
IN_LOGS = [
    name for name in SHOWN if name.isprintable() or "\udc80" not in name
]  # UTF-8 holds no lone surrogates


def test_there_are_enough_hostile_names() -> None:
    assert len(set(HOSTILE)) >= 100


# -- the check of names
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_pass_and_are_files(name: str, tmp_path: Path) -> None:
    assert file_name(name, "name") == name
    (tmp_path / f"{name}@12345678.parquet.new").write_text("x")
    (tmp_path / name).mkdir()


def test_a_name_that_passes_stays_in_its_folder_and_others_are_refused_in_words(
    tmp_path: Path,
) -> None:
    refusals = []
    for name in HOSTILE:
        try:
            file_name(name, "a rival")
        except ConfigError as error:
            refusals.append(str(error))
            continue
        inside = tmp_path / name
        inside.write_text("x")
        assert [file.name for file in tmp_path.iterdir()] == [name]
        inside.unlink()
    for words in refusals:
        assert words.startswith("a rival: ")
        assert words.isprintable()
        assert len(words) < 500
    assert len(refusals) >= len([*PATHS, *DEVICES, *CONTROLS, *LONG])


@given(st.text(max_size=120))
def test_whatever_passes_is_one_part_of_a_path(name: str) -> None:
    try:
        file_name(name, "name")
    except ConfigError:
        return
    assert Path("folder", name).parent == Path("folder")
    assert os.path.normpath(os.path.join("folder", name)) == os.path.join("folder", name)
    assert 0 < len(os.fsencode(name)) <= MOST_BYTES
    assert "\x00" not in name


def test_names_of_another_type_are_refused() -> None:
    for name in (None, 1, b"x", Path("x")):
        with pytest.raises(ConfigError, match="expected a name as text"):
            file_name(name, "name")


# -- where names become paths: run.toml
# ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../../x", "a/b", "..", "", "CON", "a\\b", ".x", "x" * 101, "a\u2028b"]
)
def test_names_in_a_run_that_would_become_paths_are_refused(name: str) -> None:
    quoted_name = json.dumps(name)
    with pytest.raises(ConfigError, match=r"run\.name"):
        parse_config(TINY.replace('name = "tiny"', f"name = {quoted_name}"), "run.toml")
    rival = f"[reward]\nrivals = {{ {quoted_name} = {{ habit = 1.0 }} }}"
    with pytest.raises(ConfigError, match=r"reward\.rivals"):
        parse_config(TINY.replace("[reward]", rival), "run.toml")
    with pytest.raises(ConfigError):
        parse_config(
            TINY.replace('north_star = "active"', f'north_star = "active"\narms = [{quoted_name}]'),
            "run.toml",
        )
    with pytest.raises(ConfigError):
        parse_config(
            TINY
            + f'\n[signals.{quoted_name}]\nentry = {{ kind = "enrolment" }}\nmeasure = {{ kind = '
            f'"active_days" }}\n',
            "run.toml",
        )


def test_names_of_every_script_are_allowed_in_a_run() -> None:
    config = parse_config(
        TINY.replace('name = "tiny"', 'name = "Gewöhnung 2"').replace(
            "[reward]", '[reward]\nrivals = { "習慣" = { habit = 1.0 } }'
        ),
        "",
    )
    assert (config.run.name, list(config.reward.rivals)) == ("Gewöhnung 2", ["習慣"])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_signal_is_a_safe_name_or_refused(name: str) -> None:
    try:
        signal = Signal(name, entry=discovery(), measure=days_with("creator") >= 3)
    except ConfigError:
        return
    assert file_name(signal.label, "label")


def test_the_command_line_refuses_a_rival_that_leaves_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "a/b/c"
    inside.mkdir(parents=True)
    (inside / "run.toml").write_text(
        TINY.replace("[reward]", '[reward]\nrivals = { "../../../x" = { habit = 1.0 } }')
    )
    result = invoke("run", str(inside / "run.toml"), "--folder", str(inside / "run"))
    assert result.exit_code == 2
    assert "'../../../x'" in result.output
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [inside / "run.toml"]


# -- SQL
# -----------------------------------------------------------------------------------------------


def test_literals_and_identifiers_hold_any_text() -> None:
    with connected() as con:
        for name in SHOWN:
            if "\udc80" in name or "\x00" in name:
                continue
            assert con.execute(f"select {quoted(name)}").fetchall() == [(name,)]
            if name:
                con.execute(
                    f"create or replace temp table {identifier('t' + name)} as select 1 as "
                    f"{identifier(name)}"
                )
                assert con.execute(
                    f"select {identifier(name)} from {identifier('t' + name)}"
                ).fetchall() == [(1,)]


@pytest.mark.parametrize(
    "limit",
    [
        "1GB'; create table stolen as select 1; --",
        "1GB' ",
        "",
        "GB",
        "-1GB",
        "1 GB; set x",
        "1e9GB",
        "lots",
        "1GB\x00",
        "١GB",
        5,
        b"1GB",
    ],
)
def test_a_memory_limit_is_a_number_and_a_unit(limit: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"memory_limit=.*expected a number and a unit"),
        Lake.memory().connect(memory_limit=limit),
    ):
        pass
    store = SignalStore(tmp_path / "store", Lake.open(tmp_path / "lake"), [])
    with pytest.raises((ConfigError, DataError)):
        store.update(memory_limit=limit)


@pytest.mark.parametrize("limit", ["1GB", "500MB", "1.5GiB", " 2 gb ", "100000KB"])
def test_memory_limits_that_are_meant_are_taken(limit: str) -> None:
    with Lake.memory().connect(memory_limit=limit, threads=1) as con:
        (row,) = con.execute("select current_setting('memory_limit')").fetchall()
        assert row[0].endswith("iB")


@pytest.mark.parametrize("threads", [0, -1, "1; drop", True, 1.5, 10**6])
def test_threads_are_a_whole_number(threads: Any) -> None:
    with pytest.raises(ConfigError, match="threads="), Lake.memory().connect(threads=threads):
        pass


def test_settings_are_locked_in_every_connection() -> None:
    for open_ in (lambda: Lake.memory().connect(), connected):
        with open_() as con:
            assert con.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
            for setting in (
                "memory_limit = '2GB'",
                "TimeZone = 'CET'",
                "lock_configuration = false",
                "autoinstall_known_extensions = true",
            ):
                with pytest.raises(duckdb.Error, match="locked"):
                    con.execute(f"set {setting}")


def test_duckdb_draws_no_bar_of_its_own() -> None:
    """Where no file is run (a notebook, `python -c`) DuckDB draws one into standard output, and
    so into logs."""
    code = (
        "from longplay.lake.database import connected; "
        "print(connected().execute(\"select current_setting('enable_progress_bar')\").fetchall())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[(False,)]\n"


def test_outcomes_are_computed_in_jupyter_without_ipywidgets() -> None:
    """There DuckDB has no progress bar, and an error for whoever switches it off."""
    code = (
        "import sys, types\n"
        "sys.modules['ipywidgets'] = None\n"  # cannot be imported
        "shell = types.SimpleNamespace(config={'IPKernelApp': {}})\n"
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: shell)\n"
        "from longplay.lake.database import connected\n"
        "print(connected().execute(\"select current_setting('enable_progress_bar')\").fetchall())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[(False,)]\n"


def test_duckdb_is_opened_in_one_place() -> None:
    opened = [
        file.relative_to(SOURCE).as_posix()
        for file in SOURCE.rglob("*.py")
        if "duckdb.connect(" in file.read_text()
    ]
    assert opened == ["lake/database.py"]


def test_ids_and_surfaces_of_a_log_are_never_sql() -> None:
    """Every hostile name as user, creator, item and surface: the outcomes are those of the same log
    with plain names."""
    names = [name for name in IN_LOGS if name and "\x00" not in name]
    days = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in (1, 3, 5, 30)]

    def outcomes(rename: Callable[[int], str]) -> pl.DataFrame:
        lake = Lake.memory()
        rows = [
            {
                "event_id": f"{k}-{n}",
                "user_id": rename(k),
                "item_id": rename(k),
                "creator_id": rename(k),
                "kind": "play",
                "time": day,
                "surface": rename(k),
            }
            for k in range(len(names))
            for n, day in enumerate(days)
        ]
        lake.append(
            "log", events=pl.DataFrame(rows, schema_overrides={"time": pl.Datetime("us", "UTC")})
        )
        signal = Signal(
            "habit", entry=discovery(), measure=days_with("creator") >= 2, window=(1, 20)
        )
        return signal.outcomes(lake).frame.select("user_id", "value", "creator_id")

    hostile, plain = outcomes(lambda k: names[k]), outcomes(lambda k: f"n{k}")
    translated = plain.with_columns(
        pl.col("user_id", "creator_id").replace_strict(
            {f"n{k}": name for k, name in enumerate(names)}
        )
    )
    assert hostile.sort("user_id", "value").equals(
        translated.sort("user_id", "value"), null_equal=True
    )
    assert hostile.height == len(names)


# -- notebooks: every class that shows itself as HTML
# --------------------------------------------------


class Elements(HTMLParser):
    """Start tags with the names of their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.odd: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(("/" + tag, ()))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    def handle_decl(self, decl: str) -> None:
        self.odd.append(decl)

    def handle_pi(self, data: str) -> None:
        self.odd.append(data)

    def unknown_decl(self, data: str) -> None:
        self.odd.append(data)


HABIT = Signal(
    "habit", entry=discovery(novel_for=14), measure=days_with("creator") >= 2, window=(1, 10)
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Called:
    """A policy of which only the name is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture(scope="module")
def showing() -> dict[str, Callable[[str], Any]]:
    """By class: an object that carries a name wherever it can."""
    world = World(users=80, items=40, seed=5)
    lake = world.run(Popular(slate=5, explore=0.2), days=30)
    outcomes = HABIT.outcomes(lake)
    early = lp.ProgressiveReward(HABIT).fit(lake, outcomes)
    shown = outcomes.on(lake.decisions)
    credits = lp.credit(outcomes, lake.decisions, "position")
    comparison = compare_rules(outcomes, lake.decisions)
    other = Signal(
        "habit", entry=discovery(novel_for=14), measure=days_with("creator") >= 3, window=(1, 10)
    )
    diff = lp.diff(HABIT, other, lake)

    def of_frame(kind: type[Any], frame: pl.DataFrame) -> Any:
        """With names that its checks would refuse."""
        shown = object.__new__(kind)
        object.__setattr__(shown, "frame", frame)
        return shown

    def with_policy(world: World, policy: Any) -> World:
        shown = copy.copy(world)
        shown.policy = policy
        return shown

    def named(frame: pl.DataFrame, name: str, *columns: str) -> pl.DataFrame:
        return frame.with_columns(pl.lit(name).alias(column) for column in columns)

    def estimate(name: str) -> Estimate:
        return Estimate(0.3, 0.02, n=100, n_eff=90.0, estimand=name)

    def diagnosis(name: str) -> Diagnosis:
        return Diagnosis(
            name, name, 9, 0, 0, 3, 0, 0, 1.0, 0.1, 0.0, 0.1, 0.0, 0.0, 0.0, 2.0, 0.1, 0.2, 0.1
        )

    def verdict(name: str) -> Verdict:
        return Verdict(name, estimate(name), None, None, "unknown", "undecided", name)

    def readout(name: str) -> Readout:
        line = Line(name, name, "success", None, (5, 5), (0, 0), NOW, "not estimable", None, name)
        decision = ShipDecision(name, "keep running", name)
        return Readout(name, NOW, (line,), (Check(name, False, False, name),), (decision,))

    def holdout(name: str) -> Holdout:
        lines = tuple(
            HoldoutLine(rule, part, estimate(name), estimate(name), estimate(name), 0.1)
            for rule in (name, "other")
            for part in ("everything", name)
        )
        return Holdout(
            HABIT, lines, ("everything", name), estimate(name), (), {name: 5}, 7, NOW, None
        )

    return {
        "Audit": lambda name: Audit(name, name, name, 0.01, 7, 0.95, NOW, (verdict(name),)),
        "Belief": lambda name: Belief(
            np.ones(2),
            np.ones(2),
            np.ones(2),
            7,
            name,
            keys=pl.DataFrame({"item_id": [name, name]}),
        ),
        "Contexts": lambda name: of_frame(
            Contexts, named(lake.contexts.head(2), name, "context_id", "user_id", "surface")
        ),
        "Decisions": lambda name: of_frame(
            Decisions, named(lake.decisions.head(2), name, "user_id", "surface", "policy")
        ),
        "EarlyModel": lambda name: early,  # the name of its signal is checked, too
        "Frozen": lambda name: Frozen(Called(name)),
        "Generative": lambda name: Generative(base=name, alarms=(name,), curve=({name: 1.0},)),
        "Lake": lambda name: lake,  # its folder: see below
        "Popular": lambda name: Popular().adapt(
            named(lake.items.head(1), name or "x", "item_id"), lake.events
        ),
        "Reward": lambda name: lp.Reward({HABIT: 1.0}, guardrails={lp.coverage(): 0.9}),
        "Page": lambda name: lp.Page({name: Called(name)}, {name: 2}),
        "Service": lambda name: with_policy(world, Called(name)),
        "Uniform": lambda name: Uniform(),
        "Comparison": lambda name: replace(comparison, frame=named(comparison.frame, name, "rule")),
        "Credits": lambda name: replace(
            credits, frame=named(credits.frame, name, "surface", "user_id"), baseline=name
        ),
        "ShipDecision": lambda name: ShipDecision(name, "keep running", name),
        "Diagnosis": diagnosis,
        "Diff": lambda name: replace(
            diff, segments=named(diff.segments, name, "segment"), difference=Refusal(name, name)
        ),
        "Estimate": estimate,
        "Experiment": lambda name: Experiment(
            control=Uniform(), treatment={name or "x": Uniform()}, salt=name or "x"
        ),
        "Holdout": holdout,
        "Outcomes": lambda name: replace(
            outcomes, frame=named(outcomes.frame, name, "user_id", "creator_id", "surface")
        ),
        "Plan": lambda name: Plan(
            name, 0.01, 1.0, 1.0, 0.9, 100, 3.0, (5,), 5, 0.1, 7, 0.05, 0.8, 0.5
        ),
        "Readout": readout,
        "Refusal": lambda name: Refusal(name, estimand=name),
        "Shown": lambda name: replace(
            shown, frame=named(shown.frame, name, "user_id", "item_id", "creator_id")
        ),
        "SimulatorReport": lambda name: SimulatorReport(
            name, name, (RuleResult(name, False, name, name), RuleResult("kept", True, name))
        ),
        "PairedTruth": lambda name: PairedTruth(
            (name, "other"),
            (HABIT,),
            pl.DataFrame(
                {
                    "signal": [HABIT.name] * 4,
                    "policy": [name, name, "other", "other"],
                    "user_id": ["u1", "u2", "u1", "u2"],
                    "value": [1.0, 2.0, 0.0, 2.0],
                }
            ),
        ),
        "Declaration": lambda name: HABIT,  # its name is checked: letters, digits, - and _
    }


def test_every_class_that_shows_itself_is_here(showing: dict[str, Callable[[str], Any]]) -> None:
    found = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(item, ast.FunctionDef) and item.name == "_repr_html_"
                for item in node.body
            ):
                found.add(node.name)
    assert showing.keys() == found


@pytest.mark.parametrize(
    "kind",
    [
        "Audit",
        "Belief",
        "Comparison",
        "Credits",
        "ShipDecision",
        "Diagnosis",
        "Diff",
        "Estimate",
        "Experiment",
        "Holdout",
        "Outcomes",
        "Plan",
        "Readout",
        "Refusal",
        "Shown",
        "SimulatorReport",
        "PairedTruth",
        "Declaration",
        "Contexts",
        "Decisions",
        "EarlyModel",
        "Frozen",
        "Generative",
        "Lake",
        "Popular",
        "Reward",
        "Page",
        "Service",
        "Uniform",
    ],
)
def test_no_name_becomes_an_element_or_an_attribute(
    kind: str, showing: dict[str, Callable[[str], Any]]
) -> None:
    make = showing[kind]
    expected = Elements(make("plain")._repr_html_())
    assert expected.odd == []
    for name in IN_LOGS:
        lines = name.count("\n") if kind == "Diagnosis" else 0  # its lines are set apart by <br>
        elements = Elements(make(name)._repr_html_())
        tags = elements.tags if not lines else [tag for tag in elements.tags if tag[0] != "br"]
        assert tags == [tag for tag in expected.tags if not lines or tag[0] != "br"], name
        assert elements.odd == [], name


def test_the_folder_of_a_lake_is_text(tmp_path: Path) -> None:
    for name in ("<b>bold<", "it's", 'a"b', "&lt;b&gt;"):
        elements = Elements(Lake.open(tmp_path / name)._repr_html_())
        drawn = {"p", "table", "tbody", "tr", "th", "td"}
        assert {tag for tag, _ in elements.tags} == drawn | {f"/{tag}" for tag in drawn}
        assert f"Lake in {tmp_path / name}" in "".join(elements.text)


def test_a_name_is_shown_as_the_text_it_is(showing: dict[str, Callable[[str], Any]]) -> None:
    for name in ("<b>bold</b>", "&lt;b&gt;", "it's", 'a"b', "a\u202egnp"):
        assert name in "".join(Elements(showing["ShipDecision"](name)._repr_html_()).text)
        assert name in "".join(Elements(showing["Readout"](name)._repr_html_()).text)


# -- the report
# ----------------------------------------------------------------------------------------


def renamed(value: Any, name: str) -> Any:
    """The results of a run whose rival `clicks` has another name, wherever it stands."""
    if isinstance(value, dict):
        return {
            (name if key == "clicks" else key): renamed(inner, name) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [renamed(inner, name) for inner in value]
    return value.replace("clicks", name) if isinstance(value, str) else value


def charts_of(page: str) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)


def test_the_report_holds_no_element_that_is_not_of_its_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "longplay.report.bundle", lambda: Markup("0")
    )  # a megabyte that is the same every time
    expected = Elements(without_scripts(render("run", looped("plain"))))
    for start in range(
        0, len(IN_LOGS), 10
    ):  # ten names to a page as text, the first of them as a rival's name
        name, title = IN_LOGS[start] or "plain", " | ".join(IN_LOGS[start : start + 10])
        page = render(title, renamed(looped(title), name))
        assert page.count("<script") == page.count("</script>") == 3, name
        elements = Elements(without_scripts(page))
        assert elements.tags == expected.tags, name
        assert elements.odd == expected.odd, name
        text = json.dumps(charts_of(page), ensure_ascii=False)
        assert not {"\u2028", "\u2029"} & set(text), name


@pytest.mark.parametrize(
    "name",
    [
        "a\u2028b",
        "a\u2029b",
        "it's",
        'a"b',
        "a\\b",
        "a.b",
        "a[0]",
        "</script>",
        "a\x00b",
        "__proto__",
        "{{x}}",
        "a\u202eb",
    ],
)
def test_charts_of_hostile_names_are_drawn(name: str) -> None:
    """Vega reads names as JavaScript strings, which U+2028 ends: such charts were left empty."""
    charts = charts_of(render("run", renamed(looped(name), name)))
    for spec in charts["charts"]:
        assert "<svg" in vl_convert.vegalite_to_svg({**spec, "config": charts["config"]})


# -- the terminal
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_LOGS)
def test_the_command_line_shows_a_name_as_it_is_or_refuses_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "run_stages", lambda *_, **__: {})
    escapes = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in name)
    (tmp_path / "run.toml").write_text(TINY.replace('name = "tiny"', f'name = "{escapes}"'))
    result = invoke("run", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "run"))
    assert result.exit_code in (0, 2), result.output
    assert "\x1b[31m" not in result.output
    if result.exit_code == 0:
        assert name in result.output.replace("\n", "")
    else:
        assert "run.name" in result.output
