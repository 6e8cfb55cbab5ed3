"""Callers ask a policy by protocol: what it says is used, and where it says nothing there is a default."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from longplay.decisions import (
    DEFAULT_SLOTS,
    Catalogued,
    Frozen,
    MayShowFewer,
    Ranker,
    Slated,
    index_of,
    shows_fewer,
    slots_of,
)
from longplay.policies.page import Page
from longplay.policies.simple import Popular, Uniform

SOURCE = Path(__file__).resolve().parents[1] / "src/longplay"
ROOMS = ["decisions", "policies", "learning", "ope", "experiments", "rewards", "world", "audits"]
MODULES = ["ranking.py"]
FILES = sorted(
    [file for room in ROOMS for file in (SOURCE / room).rglob("*.py")]
    + [SOURCE / module for module in MODULES]
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_attribute_is_asked_for_by_its_name_as_text(file: Path) -> None:
    """`getattr(policy, "slate", 5)` hides what a caller needs; a Protocol says it."""
    asked = [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("getattr", "hasattr")
        and len(call.args) > 1
        and isinstance(call.args[1], ast.Constant)
    ]
    assert not asked, "ask a Protocol of decisions/protocols.py: " + "; ".join(asked)


@dataclass(frozen=True)
class Silent:
    """A policy from elsewhere that says nothing of slots or items."""

    name: str = "silent@1"


@dataclass(frozen=True)
class OtherIndex:
    """A policy from elsewhere that uses the word `index` for something else."""

    index: int = 3


CATALOGUE = pl.DataFrame({"item_id": ["a", "b", "c"]})
NO_EVENTS = pl.DataFrame(schema={"kind": pl.String, "item_id": pl.String})


def test_slots_are_what_the_policy_says_else_the_default() -> None:
    assert slots_of(Popular(slate=3)) == 3
    assert slots_of(Silent()) == DEFAULT_SLOTS == 5
    assert slots_of(Frozen(Popular(slate=3))) == 3
    assert isinstance(Popular(), Slated)
    assert not isinstance(Silent(), Slated)


def test_only_a_page_with_a_withheld_row_shows_fewer() -> None:
    page = Page({"known": Uniform(), "new": Uniform()}, {"known": 3, "new": 2})
    assert not shows_fewer(page)
    assert shows_fewer(page.without("new"))
    assert shows_fewer(Frozen(page.without("new")))
    assert not shows_fewer(Silent())
    assert isinstance(page, MayShowFewer)


def test_items_are_known_where_the_policy_says_them() -> None:
    fitted = Uniform().adapt(CATALOGUE, NO_EVENTS)
    assert isinstance(fitted, Ranker)
    assert isinstance(fitted, Catalogued)
    assert index_of(fitted) is fitted.index
    assert index_of(Frozen(fitted)) is fitted.index
    assert index_of(Silent()) is None
    assert index_of(OtherIndex()) is None
    assert not isinstance(Frozen(fitted), Ranker)  # it does not state its law over the catalogue
