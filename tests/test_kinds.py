"""A kind of measure or entry is a record: nothing else in the package asks for it by name."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

import longplay
from longplay.attribution.rules import RULE_KINDS
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.signals import (
    READY,
    Entry,
    Measure,
    Signal,
    active_days,
    active_weeks,
    cancelled,
    completion,
    days_with,
    discovery,
    distinct,
    enrolment,
    event,
    plays,
    returned,
    sessions,
    skips,
    time_to_return,
)
from longplay.signals.declare.entry_kinds import ENTRIES
from longplay.signals.declare.measure_kinds import MEASURES
from longplay.signals.declare.sentence import unit
from longplay.signals.outcomes.definition_diff import changed_parts

# Declarations with what they were when they could first be made: versions are for ever. The first
# 48 are older than the records of kinds.
DECLARED: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("signals_as_declared.json").read_text()
)


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared["sentence"][:30])
def test_a_declaration_keeps_its_version_its_words_and_its_toml(declared: dict[str, Any]) -> None:
    signal = Signal.from_toml(declared["toml"])
    assert signal.version == declared["version"]
    assert str(signal) == declared["sentence"]
    assert signal.to_toml() == declared["toml"]
    assert unit(signal) == declared["unit"]
    assert (signal.better, signal.additive) == (declared["better"], declared["additive"])


def test_the_declarations_kept_cover_every_ready_signal_and_every_kind() -> None:
    signals = [Signal.from_toml(declared["toml"]) for declared in DECLARED]
    assert {signal.name for signal in signals} >= set(READY)
    assert {signal.entry.kind for signal in signals} == set(ENTRIES)
    assert {signal.measure.kind for signal in signals} == set(MEASURES)


# -- no name of a kind is asked for
# ------------------------------------------------------------------------------

SOURCE = Path(longplay.__file__).parent
RECORDS = ("MEASURES", "ENTRIES", "RULES")  # the tables of records, looked up by a kind itself


def _is_kind(node: ast.expr) -> bool:
    """Whether an expression is `x.kind`."""
    return isinstance(node, ast.Attribute) and node.attr == "kind"


def _names(node: ast.expr) -> set[str]:
    """The strings in a constant, or in a tuple, list or set of constants."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {
        part.value
        for part in parts
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def _asks_kind(node: ast.AST) -> bool:
    """Whether a piece of code branches on the name of a kind: by comparison, by `match`, or by
    looking it up in a table."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        of_kind = any(isinstance(side, ast.Name) and side.id == "kind" for side in sides)
        kinds = {*MEASURES, *ENTRIES, *RULE_KINDS}
        return any(map(_is_kind, sides)) or (
            of_kind and any(_names(side) & kinds for side in sides)
        )
    if isinstance(node, ast.Match):
        return _is_kind(node.subject) or (
            isinstance(node.subject, ast.Name) and node.subject.id == "kind"
        )
    if isinstance(node, ast.Subscript):
        return _is_kind(node.slice) and ast.unparse(node) not in {
            f"{table}[self.kind]" for table in RECORDS
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        looked_up = node.func.attr in ("get", "pop", "setdefault", "startswith", "endswith")
        return looked_up and (any(map(_is_kind, node.args)) or _is_kind(node.func.value))
    return False


def asked_kinds(source: str) -> list[int]:
    """Lines of a program that branch on the name of a kind."""
    tree = ast.parse(source)
    return sorted({node.lineno for node in ast.walk(tree) if _asks_kind(node)})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        'x = signal.entry.kind == "discovery"',
        'x = "discovery" != entry.kind',
        'x = measure.kind in ("minutes", "plays")',
        "x = self.kind not in NAMES",
        'kind = signal.entry.kind\nx = kind == "exposure"',
        'kind, of = entry.kind, entry.of\nx = kind in {"days_with"}',
        'match entry.kind:\n    case "discovery": pass',
        'match kind:\n    case "discovery": pass',
        "x = TABLE[measure.kind]",
        "x = TABLE.get(measure.kind, 1)",
        'x = signal.measure.kind.startswith("days")',
        'x = rule.kind == "recency"',
    ],
)
def test_a_branch_on_the_name_of_a_kind_is_seen(line: str) -> None:
    assert asked_kinds(line)


@pytest.mark.parametrize(
    "line",
    [
        'raise ConfigError(f"{entry.kind} given")',
        'x = kind == "play"',
        "x = record.reads",
        "x = READS[measure.record.reads]",
        "x = MEASURES[self.kind]",
        "x = entry.is_discovery",
    ],
)
def test_what_names_a_kind_without_asking_for_it_is_not_seen(line: str) -> None:
    assert not asked_kinds(line)


@pytest.mark.parametrize(
    "file",
    sorted(SOURCE.rglob("*.py")),
    ids=lambda file: str(file.relative_to(SOURCE)),
)
def test_no_file_asks_for_a_kind_by_name(file: Path) -> None:
    lines = asked_kinds(file.read_text())
    assert not lines, (
        f"{file}: line {lines[0]} asks for a kind by its name; ask an attribute of its record "
        "(measure.record, entry.record), see signals/declare/measure_kinds.py"
    )


# -- what is declared anew, in words and refused
# ------------------------------------------------------------------------------

SAYS = [
    (
        Signal("s", enrolment(), active_weeks() >= 3),
        "the share where the user is active in at least 3 weeks, organically, in days 1 to 28",
    ),
    (
        Signal("s", discovery(), active_weeks("creator")),
        "the mean number of weeks active with that creator, organically, in days 1 to 28",
    ),
    (
        Signal("s", enrolment(), distinct("item", event="save") >= 1),
        "the share with at least 1 different item engaged with (only saves) in days 1 to 28",
    ),
    (
        Signal("s", discovery(), skips("creator") <= 0),
        "the share with at most 0 skips of that creator in days 1 to 28 after",
    ),
    (
        Signal("s", enrolment(), active_days() <= 1),
        "the share where the user is active on at most 1 day, organically, in days 1 to 28",
    ),
    (
        Signal("s", discovery(), days_with("creator", surface="home", seconds=30) >= 3),
        "active with that creator (only on 'home' of 30 s or more) on at least 3 days, organically",
    ),
    (
        Signal("s", event("play", of="creator", origin="organic", surface="search"), plays()),
        "of a user's plays (organic, on 'search') of a creator, the mean number of plays in days",
    ),
]


@pytest.mark.parametrize(("signal", "words"), SAYS, ids=[str(n) for n in range(len(SAYS))])
def test_a_sentence_says_what_narrows_a_signal(signal: Signal, words: str) -> None:
    assert words in str(signal)
    assert Signal.from_toml(signal.to_toml()) == signal
    assert Signal.from_toml(signal.to_toml()).version == signal.version


def test_whatever_narrows_a_signal_makes_another_version_and_is_listed_in_a_diff() -> None:
    plain = Signal("s", event("play", of="creator"), days_with("creator"))
    others = [
        replace(plain, entry=event("play", of="creator", origin="organic")),
        replace(plain, entry=event("play", of="creator", surface="search")),
        replace(plain, measure=days_with("creator", event="save")),
        replace(plain, measure=days_with("creator", surface="home")),
        replace(plain, measure=days_with("creator", seconds=30)),
        replace(plain, measure=days_with("creator") <= 2, better=None),
        replace(plain, measure=days_with("creator") >= 2),
        replace(plain, measure=active_weeks("creator")),
    ]
    assert len({signal.version for signal in [plain, *others]}) == 1 + len(others)
    for signal in others:
        assert changed_parts(plain, signal), signal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: active_days(event="skip"), "event='skip' given, expected one of play, save, like"),
        (lambda: active_days(surface=""), "surface='' given, expected the name of a surface"),
        (lambda: active_days(seconds=0), "seconds=0 given, expected the least that an event lasts"),
        (lambda: active_days(seconds=True), "seconds=True given"),
        (lambda: plays(seconds=86_401), "above 0 and at most 86,400"),
        (
            lambda: Measure("sessions", surface="home"),
            "surface='home' given, expected none: sessions does not ask for the surface",
        ),
        (lambda: Measure("plays", event="save"), "only a count and measures of activity have one"),
        (lambda: Measure("plays", threshold=2, at_most=3), "expected one of them; two bounds are"),
        (lambda: plays() <= -1, "at_most=-1 given, expected a number that is at least 0"),
        (lambda: plays() <= True, "at_most=True given"),
        (lambda: (plays() >= 1) <= 3, "plays has the threshold 1 already"),
        (lambda: returned() <= 0, "returned has a yes or no already; use active_days() <= k"),
        (lambda: cancelled() <= 0, "cancelled has a yes or no already; use count('cancel') <= 0"),
        (lambda: time_to_return() <= 7, "use returned() and window=(1, k)"),
        (lambda: completion() <= 1, "at_most=1 given, expected less than 1"),
        (lambda: distinct(cast(Any, "user")), "of='user' given, expected one of creator, item"),
        (lambda: distinct() / sessions(), "distinct in a ratio given, expected amounts"),
        (lambda: active_weeks().above_baseline(7), "active_weeks has no daily rate"),
        (
            lambda: Signal("s", discovery(), distinct("item")),
            "distinct given, which count over all items, but the entry is about one",
        ),
        (
            lambda: Signal("s", enrolment(), active_weeks() >= 3, (1, 14)),
            "threshold=3 given, expected at most 2, the weeks there can be in the window (1, 14)",
        ),
        (
            lambda: Signal("s", enrolment(), active_days() <= 14, (1, 14)),
            "at_most=14 given, expected less than 14, the most there can be in the window (1, 14)",
        ),
        (
            lambda: Signal("s", enrolment(), active_weeks(), (0, 14)),
            "expected it to start on day 1",
        ),
        (
            lambda: Signal("s", discovery(), active_weeks("creator"), origin=("recommended",)),
            "declare gameable=True",
        ),
        (
            lambda: Signal("s", event("play", origin="organic"), plays() <= 0, (0, 7)),
            "the entry's own event guarantees the outcome",
        ),
        (
            lambda: Signal("s", event("play", surface="home"), plays(surface="home") >= 1, (0, 7)),
            "the entry's own event guarantees the outcome",
        ),
        (
            lambda: Entry("discovery", "creator", origin="recommended"),
            "discovery is opened by activity wherever it came from; use event(kind, origin=",
        ),
        (lambda: event("play", origin="radio"), "origin='radio' given, expected one of organic"),
        (lambda: event("play", surface=""), "surface='' given, expected the name of a surface"),
    ],
)
def test_what_is_unknown_or_pointless_is_refused_in_words(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        make()


def test_an_event_that_need_not_count_guarantees_nothing() -> None:
    for entry, measure in (
        (event("play"), plays(surface="home") >= 1),
        (event("play", surface="search"), plays(surface="home") >= 1),
        (event("play", surface="home"), plays(surface="home", seconds=30) >= 1),
    ):
        assert Signal("s", entry, measure, (0, 7)).binary


def test_a_baseline_before_an_entry_of_another_surface_is_not_always_0() -> None:
    entry = event("play", novel_for=28, surface="search")
    Signal("s", entry, plays().above_baseline(7))
    with pytest.raises(ConfigError, match="the baseline is always 0"):
        Signal("s", entry, plays(surface="search").above_baseline(7))


def test_a_log_without_the_surface_or_seconds_says_nothing_of_them() -> None:
    events = pl.DataFrame(
        {
            "event_id": ["a", "b"],
            "user_id": "u1",
            "kind": "play",
            "time": [datetime(2028, 3, 1, tzinfo=UTC), datetime(2028, 3, 2, tzinfo=UTC)],
            "surface": "home",
        }
    )
    lake = Lake.memory()
    lake.append("all", events=events, watermark=datetime(2028, 5, 1, tzinfo=UTC))
    with pytest.raises(DataError, match="no event on surface 'search', so the outcome of every"):
        Signal("s", enrolment(), active_days(surface="search")).outcomes(lake)
    with pytest.raises(DataError, match="no event with seconds"):
        Signal("s", enrolment(), active_days(seconds=30)).outcomes(lake)
    with pytest.raises(DataError, match="no event of kind 'save'"):
        Signal("s", enrolment(), active_days(event="save")).outcomes(lake)
    found = Signal("s", enrolment(), active_days(surface="home"), (1, 7)).outcomes(lake)
    assert found.value.tolist() == [1.0]
