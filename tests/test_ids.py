"""An id is one text, whatever type it comes in: in tables, in adapters, in policies and in
experiments."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

import longplay as lp
from longplay.decisions import Contexts, ope_users
from longplay.errors import DataError
from longplay.frames import polars_series
from longplay.ids import ids, ids_of
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.lake.adapters.cells import ids as ids_of_adapters

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRIAL = lp.Experiment(control=lp.Uniform(), treatment=lp.Uniform(), salt="2026-11")


def test_adapters_and_the_lake_share_one_rule() -> None:
    assert ids_of_adapters is ids


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([12345, -1], ["12345", "-1"]),
        ([12345.0, None, float("nan")], ["12345", None, None]),
        (["12345.0", "007", "", "v1.0", "1.50"], ["12345", "007", None, "v1.0", "1.50"]),
        ([2**63], [str(2**63)]),
        ([Decimal("12345.00")], ["12345"]),
        (
            [12345, "12345", 12345.0, None, np.int64(12345)],
            ["12345", "12345", "12345", None, "12345"],
        ),
        (np.array([12345.0, 7.0], dtype=np.float32), ["12345", "7"]),
        (pd.Series([12345, None]), ["12345", None]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pa.array([5, None]), ["5", None]),
        ([], []),
    ],
)
def test_ids_are_one_text(values: Any, expected: list[str | None]) -> None:
    assert ids(polars_series(values, "who")).to_list() == expected


@pytest.mark.parametrize(
    "values",
    [
        [True],
        [1, True],
        [2.0**53],
        [float("inf")],
        np.array([2.0**24], dtype=np.float32),
        [["u"]],
        [b"u"],
        [NOON],
        [{"u": 1}, 2],
        [object()],
    ],
)
def test_what_has_no_exact_text_is_no_id(values: Any) -> None:
    with pytest.raises(DataError, match=r"who.*(convert it first|store it as integers or text)"):
        ids(polars_series(values, "who"))


@examples(100)
@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_is_the_same_user_in_every_type(user: int) -> None:
    ways = [
        [user],
        [float(user)],
        [str(user)],
        [f"{user}.0"],
        [np.int64(user)],
        np.array([user]),
        np.array([float(user)]),
        pl.Series([user]),
    ]
    ways += [
        pl.Series([float(user)]),
        pd.Series([user]),
        pd.Series([float(user)]),
        pd.Index([user]),
        pl.Series([user, "x"], dtype=pl.Object)[:1],
    ]
    assert {ids_of(way)[0] for way in ways} == {str(user)}
    assert len({int(TRIAL.assign(way)[0]) for way in ways}) == 1


def test_arms_are_those_of_the_text() -> None:
    users = range(200)
    arms = TRIAL.assign(pl.Series([str(user) for user in users]))
    assert 0 < arms.sum() < 200
    for way in (
        list(users),
        [float(user) for user in users],
        np.arange(200),
        pd.Series(users),
        pd.Series(users, dtype=float),
        pa.array(users),
    ):
        assert TRIAL.assign(way).tolist() == arms.tolist()
    mixed = [str(user) if user % 2 else user for user in users]
    assert TRIAL.assign(mixed).tolist() == arms.tolist()
    assert TRIAL.assign(pd.Series(mixed, dtype=object)).tolist() == arms.tolist()
    assert TRIAL.assign([]).tolist() == []


@pytest.mark.parametrize(
    "users",
    [[None], [""], [float("nan")], ["u", None], [True], "u1", 5, np.zeros((2, 2)), [2.0**60]],
)
def test_nobody_is_assigned_by_an_id_that_is_missing_or_no_id(users: Any) -> None:
    with pytest.raises(DataError):
        TRIAL.assign(users)


def test_who_is_held_out_does_not_depend_on_the_type_of_the_id() -> None:
    assert (
        ope_users(pl.Series(range(100))).tolist()
        == ope_users(pl.Series([str(user) for user in range(100)])).tolist()
    )


def test_contexts_and_catalogues_take_ids_of_any_type() -> None:
    contexts = Contexts.of(
        [1, 2.0, "3"], NOON, slots=1, history=[[7], [8.0], []], exclusions=pl.Series([[7], [], [8]])
    )
    assert contexts.frame["user_id"].to_list() == ["1", "2", "3"]
    assert contexts.frame["exclusions"].to_list() == [["7"], [], ["8"]]
    assert ItemIndex([7, 8]).rows(pl.Series([8.0, 7.0, 9.0])).tolist() == [1, 0, -1]


def test_tables_meet_whatever_the_types_of_their_ids() -> None:
    lake = Lake.memory()
    events = pl.DataFrame(
        {
            "event_id": [1, 2],
            "user_id": [12345.0, 7.0],
            "item_id": [7.0, None],
            "kind": "play",
            "time": [NOON, NOON],
        }
    )
    items = pl.DataFrame({"item_id": [7], "creator_id": ["99.0"], "added_at": [NOON]})
    key = {"context_id": [5.0], "user_id": [12345], "time": [NOON], "surface": ["home"]}
    decisions = pl.DataFrame(
        key
        | {"decision_id": [1], "slate": [[7.0, 8.0]], "log_prob": [[-1.0, -1.0]], "policy": ["p@1"]}
    )
    contexts = pl.DataFrame(
        key | {"slots": [2], "exclusions": [[9]], "history": [["7.0"]], "history_until": [NOON]}
    )
    lake.append("b", events=events, items=items, decisions=decisions, contexts=contexts)
    assert lake.events.select("event_id", "user_id", "item_id").rows() == [
        ("1", "12345", "7"),
        ("2", "7", None),
    ]
    assert lake.items.select("item_id", "creator_id").rows() == [("7", "99")]
    assert lake.decisions.select("decision_id", "context_id", "user_id", "slate").rows() == [
        ("1", "5", "12345", ["7", "8"])
    ]
    assert lake.contexts.select("context_id", "exclusions", "history").rows() == [
        ("5", ["9"], ["7"])
    ]
    with pytest.raises(DataError, match="events: column 'user_id': Boolean given for ids"):
        lake.append("c", events=events.with_columns(user_id=True))
