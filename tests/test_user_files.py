"""Files that say what a service knows of its users and items: read, recognised, and never known too early."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.adapters import read_items, read_users
from longplay.lake.adapters.known_columns import attributes_of, columns_like, vector_of
from longplay.lake.adapters.known_roles import user_roles, vector_column
from longplay.lake.adapters.logged_slates import dated
from longplay.lake.adapters.user_files import dated_users
from longplay.run.config import load_config
from longplay.run.proposal import propose
from longplay.run.stages.ingest import Ingest, read_source

START = datetime(2026, 3, 1, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[2] / "shared/data"

# the same users in every shape that files have them in
LISTS = pl.DataFrame(
    {"user_id": ["1", "2"], "vector": [[0.5, -1.0], [0.25, 2.0]], "country": ["SE", None]}
)
NUMBERED = pl.DataFrame(
    {
        "user_id": [1, 2],
        "country": ["SE", None],
        "factor_1": [-1.0, 2.0],
        "factor_0": [0.5, 0.25],
    }
)
TEXTS = LISTS.with_columns(vector=pl.Series(["[0.5, -1]", "0.25 2"]))
PAIRS = [("1", [0.5, -1.0], '{"country":"SE"}'), ("2", [0.25, 2.0], None)]


def rows(users: pl.DataFrame | None) -> list[tuple]:
    assert users is not None
    return users.select("user_id", "vector", "attributes").sort("user_id").rows()


def written(frame: pl.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("frame", "name", "columns"),
    [
        (LISTS, "users.parquet", {}),
        (LISTS, "users.jsonl", {}),
        (LISTS.with_columns(pl.col("vector").list.to_array(2)), "array.parquet", {}),
        (TEXTS, "users.csv", {}),
        (NUMBERED, "users.parquet", {"vector": "factor_*"}),
        (NUMBERED, "users.csv", {"vector": "factor_*"}),
        (NUMBERED, "users.csv", {"vector": "factor_0, factor_1", "attributes": "country"}),
    ],
)
def test_users_are_the_same_in_every_shape(
    tmp_path: Path, frame: pl.DataFrame, name: str, columns: dict[str, str]
) -> None:
    source = read_users(written(frame, tmp_path / name), columns)
    assert rows(source.users) == PAIRS
    assert source.rejected.is_empty()


def test_plain_columns_become_attributes_and_empty_values_are_left_out() -> None:
    frame = pl.DataFrame(
        {
            "age": [31, None],
            "trial": [True, None],
            "plan": ["family", ""],
            "share": [0.5, float("nan")],
            "since": [START, None],
        }
    )
    texts, bad = attributes_of(frame, frame.columns)
    assert [None if text is None else json.loads(text) for text in texts] == [
        {
            "age": 31,
            "trial": True,
            "plan": "family",
            "share": 0.5,
            "since": "2026-03-01T00:00:00.000000+00:00",
        },
        None,
    ]
    assert not bad.any()


def test_a_column_of_objects_is_taken_as_it_is(tmp_path: Path) -> None:
    lines = ['{"user_id": 7, "attributes": {"plan": "solo"}}', '{"user_id": 8}', "", "{torn", "[1]"]
    file = tmp_path / "users.jsonl"
    file.write_text("\n".join(lines) + "\n")
    source = read_users(file)
    assert source.users is not None
    assert source.users.select("user_id", "attributes").rows() == [
        ("7", '{"plan": "solo"}'),
        ("8", None),
    ]
    assert source.rejected.select("line", "reason").rows() == [
        (4, "no JSON object"),
        (5, "no JSON object"),
    ]
    struct = pl.DataFrame({"user_id": ["7"], "attributes": [{"plan": "solo", "age": None}]})
    written(struct, tmp_path / "users.parquet")
    assert read_users(tmp_path / "users.parquet").users["attributes"].to_list() == [  # type: ignore[index]
        '{"plan":"solo"}'
    ]


@pytest.mark.parametrize(
    ("cells", "vector", "is_bad"),
    [
        ("[1, 2]", [1.0, 2.0], False),
        ("1;2e-1", [1.0, 0.2], False),
        (" ", None, False),
        (None, None, False),
        ("1, x", None, True),
        ("nan 1", None, True),
        ("1e999 1", None, True),
        ("[]", None, True),
    ],
)
def test_vectors_in_text(cells: str | None, vector: list[float] | None, is_bad: bool) -> None:
    frame = pl.DataFrame({"v": pl.Series([cells], dtype=pl.String)})
    vectors, bad = vector_of(frame, ["v"])
    assert (vectors.to_list(), bad.to_list()) == ([vector], [is_bad])


def test_numbered_columns_need_every_place_or_none() -> None:
    frame = pl.DataFrame({"f0": [1.0, None, 3.0, None], "f1": ["2", None, None, "x"]})
    vectors, bad = vector_of(frame, ["f0", "f1"])
    assert vectors.to_list() == [[1.0, 2.0], None, None, None]
    assert bad.to_list() == [False, False, True, True]


def test_bad_rows_are_set_aside_with_reason_and_line(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["1", None, "3", "4", "5"],
            "vector": ["1 2", "1 2", "one", "1 2", "1 2"],
            "attributes": [None, None, None, '{"a":[1]}', '{"a":1}'],
            "added_at": ["2026-03-01"] * 4 + ["soon"],
        }
    )
    source = read_users(written(frame, tmp_path / "u.csv"))
    assert source.users is not None
    assert source.users["user_id"].to_list() == ["1"]
    assert source.rejected.select("line", "reason").rows() == [
        (2, "missing user"),
        (3, "unparsable vector"),
        (4, "unparsable attributes"),
        (5, "unparsable added_at"),
    ]


@pytest.mark.parametrize(
    ("columns", "constants", "message"),
    [
        ({"user": "user_id"}, {}, "'user' is no column of users.*did you mean 'user_id'"),
        ({"user_id": "uid"}, {}, "user_id = 'uid', but .* has no column 'uid'"),
        ({"vector": "embedding_*"}, {}, "no column is named like 'embedding_.'"),
        ({}, {"user_id": "1"}, "'user_id' cannot be the same in every row"),
        ({}, {"added_at": "soon"}, "added_at = 'soon' is no time"),
    ],
)
def test_a_mapping_that_does_not_fit_is_answered(
    tmp_path: Path, columns: dict[str, str], constants: dict[str, str], message: str
) -> None:
    file = written(LISTS, tmp_path / "u.parquet")
    with pytest.raises(ConfigError, match=message):
        read_users(file, columns, constants=constants)


def test_columns_are_named_by_patterns_in_the_order_of_their_numbers() -> None:
    names = ["id", "f_10", "f_9", "f_0", "g_0"]
    assert columns_like("f_*", names) == ["f_0", "f_9", "f_10"]
    assert columns_like("g_0, f_9", names) == ["g_0", "f_9"]
    assert columns_like("a, b", ["a, b", "a"]) == ["a, b"]


# -- known from when -----------------------------------------------------------------------------


def test_descriptions_without_a_time_are_known_from_the_end_of_the_log_on() -> None:
    events = pl.DataFrame({"time": [START, START + timedelta(days=9)]})
    users = read_frame(LISTS)
    dated, notes = dated_users(users, events)
    assert dated["ingested_at"].to_list() == [START + timedelta(days=9)] * 2
    assert "2 descriptions of users have no time: they count as known from the end" in notes[0]
    with pytest.raises(DataError, match="no event says when the log ends; map added_at"):
        dated_users(users, None)
    at_noon = users.with_columns(added_at=pl.lit(START))
    assert dated_users(at_noon, None)[0]["ingested_at"].to_list() == [START] * 2


def test_item_vectors_without_a_time_are_known_from_the_end_of_the_log_on(tmp_path: Path) -> None:
    """What else describes the items is known from their first event on, as without vectors."""
    events = pl.DataFrame(
        {
            "event_id": ["e1", "e2", "e3"],
            "user_id": ["u"] * 3,
            "item_id": ["a", "a", "b"],
            "kind": ["play"] * 3,
            "time": [START, START + timedelta(days=8), START + timedelta(days=9)],
        }
    )
    items = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "vector": [[1.0], [2.0], None]}
    )
    file = written(items, tmp_path / "items.parquet")
    columns = {name: name for name in items.columns}

    def lake_of(**constants: str) -> Lake:
        source = read_items(file, columns, constants=constants)
        assert source.items is not None
        assert len(source.notes) == (0 if constants else 1)
        lake = Lake.memory()
        lake.append("log", events=events, items=dated(source.items, events, None))
        return lake

    def shown(lake: Lake, day: float) -> list[tuple]:
        view = lake.before(START + timedelta(days=day))
        return view.items.select("item_id", "title", "vector").rows()

    assert shown(lake_of(), 8.5) == [("a", "A", None), ("c", "C", None)]
    assert shown(lake_of(), 9.5) == [("a", "A", [1.0]), ("b", "B", [2.0]), ("c", "C", None)]
    known_before = lake_of(ingested_at="2020-01-01")
    assert shown(known_before, 8.5) == [("a", "A", [1.0]), ("c", "C", None)]
    assert known_before.items.height == 3


def test_items_that_are_described_again_keep_every_arrival(tmp_path: Path) -> None:
    days = [START, START + timedelta(days=5)]
    items = pl.DataFrame({"item_id": ["a", "a"], "vector": [[1.0], [2.0]], "ingested_at": days})
    file = written(items, tmp_path / "items.parquet")
    source = read_items(file, {name: name for name in items.columns})
    assert source.items is not None
    events = pl.DataFrame({"item_id": ["a"], "time": [START - timedelta(days=1)]})
    lake = Lake.memory()
    lake.append(
        "log", items=dated(source.items, events, None), watermark=days[1] + timedelta(days=9)
    )
    shown = [lake.before(day + timedelta(days=1)).items["vector"].to_list() for day in days]
    assert shown == [[[1.0]], [[2.0]]]


def read_frame(frame: pl.DataFrame) -> pl.DataFrame:
    empty = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    return frame.drop("country").with_columns(added_at=empty, ingested_at=empty)


# -- recognised in a folder ----------------------------------------------------------------------


def events_of(users: int = 40, days: int = 60) -> pl.DataFrame:
    """A play per user and day."""
    cells = [(user, day) for user in range(users) for day in range(days)]
    return pl.DataFrame(
        {
            "user": [f"{user}" for user, _ in cells],
            "track_id": [f"t{(user + day) % 30}" for user, day in cells],
            "artist": [f"a{(user + day) % 6}" for user, day in cells],
            "ts": [START + timedelta(days=day, minutes=user) for user, day in cells],
        }
    )


def knowledge(users: int = 40) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [f"{user}" for user in range(users)],
            "country": ["SE", "DE"] * (users // 2),
            "factor_0": np.arange(users) / 8,
            "factor_1": -np.arange(users) / 8,
        }
    )


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_init_recognises_users_and_item_vectors_and_what_it_writes_runs(
    tmp_path: Path, ending: str
) -> None:
    log = tmp_path / "log"
    events = written(events_of(), log / "plays.parquet")
    fitted = knowledge().with_columns(fitted_at=pl.lit("2026-03-05 00:00:00"))
    written(fitted, log / f"users.{ending}")
    tracks = pl.DataFrame(
        {
            "track_id": [f"t{n}" for n in range(30)],
            "title": [f"song {n}" for n in range(30)],
            "embedding": [[n / 4, 1.0, 0.0] for n in range(30)],
        }
    )
    written(tracks, log / "tracks.parquet")
    proposal = propose(log, tmp_path / "run.toml")
    assert 'columns = { user_id = "user", vector = "factor_*", added_at = "fitted_at" }' in (
        proposal.text
    )
    assert 'vector = "embedding"' in proposal.text
    assert f"users.{ending} says what the service knows of its users" in proposal.seen
    (tmp_path / "run.toml").write_text(proposal.text)
    config = load_config(tmp_path / "run.toml")
    source = read_source(config.of(Ingest), tmp_path)
    assert source.events is not None
    assert source.events.height == pl.scan_parquet(events).collect().height
    lake = Lake.memory()
    lake.append("log", **source.tables, rejected=source.rejected)
    assert lake.before(datetime(2026, 3, 5, tzinfo=UTC)).users.is_empty()
    assert lake.users.filter(user_id="3").select("vector", "attributes").row(0) == (
        [0.375, -0.375],
        '{"country":"DE"}',
    )
    assert lake.items.filter(item_id="t2")["vector"].to_list() == [[0.5, 1.0, 0.0]]


def test_a_file_of_users_with_a_date_of_signup_is_not_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    written(events_of(), log / "plays.parquet")
    people = knowledge().select("user", "country", created_at=pl.lit("2020-01-01"))
    written(people, log / "people.parquet")
    text = propose(log, tmp_path / "run.toml").text
    assert 'path = "log/plays.parquet"' in text
    assert 'path = "log/people.parquet"\ncolumns = { user_id = "user" }' in text


@pytest.mark.parametrize(
    ("frame", "column"),
    [
        ({"emb": [[1.0, 2.0]]}, "emb"),
        ({"tastes": [[1.0, 2.0], [3.0, 4.0]]}, "tastes"),  # by what it holds
        ({"tastes": [[1.0, 2.0], [3.0]]}, None),
        ({"tastes": [["a", "b"]]}, None),
        ({"embedding": ["0.1 0.2"]}, "embedding"),
        ({"embedding": ["a word"]}, None),
        ({"Factor1": [1.0], "Factor2": [2.0]}, "Factor*"),
        ({"week1": [1.0], "week2": [2.0]}, None),
        ({"f1": [1.0]}, None),
        ({"f1": ["a"], "f2": ["b"]}, None),
    ],
)
def test_vectors_are_recognised_by_name_and_content(
    frame: dict[str, Any], column: str | None
) -> None:
    assert vector_column(pl.DataFrame(frame)) == column


def test_a_log_of_events_is_no_file_of_users() -> None:
    assert user_roles(events_of()) is None
    assert user_roles(events_of().select("user", "ts")) is None
    assert user_roles(pl.DataFrame({"user": ["a", "b"]})) is None


# -- real files ----------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason=f"the public logs are not in {DATA}")
def test_demographics_of_complete_journey_are_attributes_of_its_households() -> None:
    folder = DATA / "complete_journey"
    demographics = pl.read_parquet(folder / "demographics.parquet")
    roles = user_roles(demographics)
    assert roles is not None
    assert (roles.columns, roles.is_certain) == ({"user_id": "household_id"}, True)
    source = read_users(folder / "demographics.parquet", roles.columns)
    assert source.users is not None
    assert (source.users.height, source.rejected.height) == (801, 0)
    assert source.notes[0].startswith("801 descriptions of users, 801 with attributes (age, income")
    for row in demographics.iter_rows(named=True):
        known = {name: value for name, value in row.items() if name != "household_id"}
        text = source.users.filter(user_id=row["household_id"])["attributes"][0]
        assert json.loads(text) == {
            name: value for name, value in known.items() if value is not None
        }
        if row["household_id"] == "1003":
            break
    products = read_items(
        folder / "products.parquet", {"item_id": "product_id", "attributes": "department, brand"}
    )
    assert products.items is not None
    assert products.items.filter(item_id="25671")["attributes"].to_list() == [
        '{"department":"GROCERY","brand":"National"}'
    ]
