"""A kind of measure or entry is a record: nothing else in the package asks for it by name."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import longplay
from longplay.attribution.rules import RULE_KINDS
from longplay.signals import READY, Signal
from longplay.signals.declare.entry_kinds import ENTRIES
from longplay.signals.declare.measure_kinds import MEASURES
from longplay.signals.declare.sentence import unit

# 48 declarations with what they were when kinds became records: versions are for ever.
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


def test_the_declarations_kept_cover_every_ready_signal_and_every_first_kind() -> None:
    signals = [Signal.from_toml(declared["toml"]) for declared in DECLARED]
    assert {signal.name for signal in signals} >= set(READY)
    assert {signal.entry.kind for signal in signals} == set(ENTRIES)
    assert {signal.measure.kind for signal in signals} == {
        *("active_days", "returned", "days_with", "time_to_return", "minutes", "plays", "saves"),
        *("skips", "cancelled", "count", "sessions", "completion", "habits"),
    }
    assert {signal.measure.kind for signal in signals} <= set(MEASURES)


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
