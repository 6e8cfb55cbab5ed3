"""What a service knows of users and items: kept with the day it arrived, and never seen before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from older_lakes import write_older_lake
from polars.testing import assert_frame_equal

from longplay.decisions import Contexts, Frozen, reads_users, showings_of
from longplay.errors import ConfigError, DataError
from longplay.experiments import Experiment
from longplay.lake import Lake
from longplay.lake.adapters import read_lake
from longplay.lake.content import content_digest
from longplay.lake.known import as_matrix, item_vectors, user_vectors, users_as_known
from longplay.lake.repair import check, repair
from longplay.lake.schema import DTYPES, TIME, conform
from longplay.lake.storage import FolderStore
from longplay.policies.page import Page
from longplay.policies.simple import Uniform

START = datetime(2026, 3, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SWEDISH = '{"country":"SE","plan":"family"}'


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def users(*rows: tuple[str, int, int, list[float] | None, str | None]) -> pl.DataFrame:
    """Descriptions: user, minutes of addition and arrival, vector, attributes."""
    return pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "added_at": pl.Series([at(row[1]) for row in rows], dtype=TIME),
            "ingested_at": pl.Series([at(row[2]) for row in rows], dtype=TIME),
            "vector": pl.Series([row[3] for row in rows], dtype=pl.List(pl.Float64)),
            "attributes": pl.Series([row[4] for row in rows], dtype=pl.String),
        }
    )


@pytest.fixture(params=["memory", "folder"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake.memory() if request.param == "memory" else Lake.open(tmp_path / "lake")


# -- as of a time --------------------------------------------------------------------------------


def test_a_view_shows_the_description_that_had_arrived_last(lake: Lake) -> None:
    lake.append("a", users=users(("u1", 0, 0, [1.0, 2.0], SWEDISH)), watermark=at(10))
    lake.append(
        "b",
        users=users(("u1", 0, 20, [3.0, 4.0], None), ("u2", 5, 25, None, SWEDISH)),
        watermark=at(60),
    )
    shown = {
        minute: lake.before(at(minute)).users.select("user_id", "vector", "attributes").rows()
        for minute in (0, 1, 20, 25)
    }
    assert shown == {
        0: [],  # added at this moment: not before it
        1: [("u1", [1.0, 2.0], SWEDISH)],
        20: [("u1", [3.0, 4.0], None)],  # a description holds as a whole
        25: [("u1", [3.0, 4.0], None), ("u2", None, SWEDISH)],
    }
    assert lake.users["added_at"].to_list() == [at(0), at(5)]
    assert lake.before(at(30), known_at=at(19)).users["vector"].to_list() == [[1.0, 2.0]]


def test_without_an_arrival_a_description_is_known_just_after_the_log(lake: Lake) -> None:
    first = users(("u1", 0, 0, [1.0], None)).drop("ingested_at")
    lake.append("first", users=first, watermark=at(10))
    lake.append("again", users=users(("u1", 0, 0, [2.0], None)).drop("ingested_at"))
    assert lake.before(at(10)).users["vector"].to_list() == [[1.0]]
    assert lake.users.select("vector", "ingested_at").rows() == [([2.0], at(10) + TICK)]


def test_a_description_that_says_nothing_new_is_left_out(lake: Lake) -> None:
    lake.append("a", users=users(("u1", 0, 0, [1.0], SWEDISH)), watermark=at(9))
    done = lake.append("b", users=users(("u1", 0, 5, [1.0], SWEDISH), ("u1", 0, 7, [2.0], SWEDISH)))
    assert done.rows == {"users": 1}
    assert lake.descriptions("users")["ingested_at"].to_list() == [at(0), at(7)]


def test_a_late_description_is_compared_with_what_was_known_when_it_arrived(lake: Lake) -> None:
    """It says what the last one says, and was known earlier: it must not be lost."""
    lake.append(
        "a", users=users(("u1", 0, 0, [1.0], None), ("u1", 0, 9, [2.0], None)), watermark=at(20)
    )
    lake.append("late", users=users(("u1", 0, 5, [2.0], None)))
    assert user_vectors(lake, ["u1"] * 3, [at(4), at(6), at(10)]).tolist() == [[1.0], [2.0], [2.0]]
    lake.append("back", users=users(("u1", 0, 12, [3.0], None), ("u1", 0, 15, [2.0], None)))
    assert user_vectors(lake, ["u1"] * 2, [at(13), at(16)]).tolist() == [[3.0], [2.0]]


def test_of_equal_arrivals_the_last_batch_counts_however_many_there_are(lake: Lake) -> None:
    for number in range(4):
        lake.append(f"b{number}", users=users(("u1", 0, 3, [float(number)], None)), watermark=at(9))
    assert lake.users["vector"].to_list() == [[3.0]]
    arrivals = lake.descriptions("users")["ingested_at"].to_list()
    assert arrivals == [at(3) + number * TICK for number in range(4)]
    with lake.connect() as con:
        assert con.sql("select vector from users").fetchall() == [([3.0],)]


DESCRIPTIONS = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2"]),
        st.integers(0, 6),
        st.integers(0, 6),
        st.sampled_from([None, [1.0], [2.0]]),
        st.sampled_from([None, SWEDISH]),
    ),
    max_size=5,
)


@examples(24)
@given(batches=st.lists(DESCRIPTIONS, min_size=1, max_size=4))
def test_point_in_time_equals_a_plain_loop(
    batches: list[list[tuple[Any, ...]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lakes = Lake.memory(), Lake.open(tmp_path_factory.mktemp("lake"))
    for one in lakes:
        for number, rows in enumerate(batches):
            one.append(f"b{number}", users=users(*rows), watermark=at(60))
    everything = [row for rows in batches for row in rows]

    def known(user: str, minute: int) -> tuple[Any, Any] | None:
        """The last arrival by then, of equal ones the last in the order of batches and rows."""
        arrived = [row for row in everything if row[0] == user and row[2] <= minute]
        if not arrived or min(row[1] for row in arrived) > minute:
            return None
        latest = max(row[2] for row in arrived)
        *_, last = (row for row in arrived if row[2] == latest)
        return last[3], last[4]

    moments = [(user, minute) for user in ("u1", "u2", "u3") for minute in range(8)]
    # descriptions that arrive at one instant are moved on by microseconds: look after these
    a_moment_later = [at(minute) + timedelta(milliseconds=1) for _, minute in moments]
    expected = [known(user, minute) for user, minute in moments]
    plain = [(None, None) if row is None else row for row in expected]
    for one in lakes:
        answers = users_as_known(one, [user for user, _ in moments], a_moment_later)
        assert answers.rows() == plain
        for minute in range(8):
            moment = at(minute) + timedelta(milliseconds=1)
            view = one.before(moment, known_at=moment)
            seen = view.users.select("user_id", "vector", "attributes").rows()
            rows = [(user, known(user, minute)) for user in ("u1", "u2")]
            assert seen == [(user, *row) for user, row in rows if row is not None]
            if minute % 3 == 2:
                with view.connect(threads=1) as con:
                    sql = con.sql("select user_id, vector, attributes from users order by user_id")
                    assert sql.fetchall() == seen
    assert_frame_equal(lakes[0].users, lakes[1].users)
    assert_frame_equal(lakes[0].descriptions("users"), lakes[1].descriptions("users"))


def test_a_view_bounds_what_is_known_of_users(lake: Lake) -> None:
    """Whoever asks a view for a later time learns nothing from beyond the view."""
    lake.append(
        "a", users=users(("u1", 0, 1, [1.0], None), ("u1", 0, 5, [2.0], None)), watermark=at(9)
    )
    view = lake.before(at(3))
    assert user_vectors(view, ["u1"], at(9)).tolist() == [[1.0]]
    assert view.descriptions("users").height == 1
    assert user_vectors(lake.before(at(9), known_at=at(5)), ["u1"], at(9)).tolist() == [[2.0]]


def test_item_vectors_are_those_of_the_view(lake: Lake) -> None:
    items = pl.DataFrame(
        {
            "item_id": ["i1", "i2", "i1"],
            "added_at": [at(0)] * 3,
            "ingested_at": [at(0), at(0), at(5)],
            "vector": [[1.0, 2.0], None, [3.0, 4.0]],
            "attributes": ['{"genre":"jazz"}', None, '{"genre":"folk"}'],
        }
    )
    lake.append("a", items=items, watermark=at(9))
    nan = [float("nan")] * 2
    asked = ["i1", "i2", "i3", "i1"]
    np.testing.assert_array_equal(
        item_vectors(lake.before(at(2)), asked), [[1.0, 2.0], nan, nan, [1.0, 2.0]]
    )
    np.testing.assert_array_equal(item_vectors(lake, ["i1"]), [[3.0, 4.0]])
    assert lake.before(at(2)).items["attributes"].to_list() == ['{"genre":"jazz"}', None]
    assert item_vectors(Lake.memory(), ["i1"]).shape == (1, 0)


def test_vectors_of_different_lengths_are_refused_where_they_enter_and_where_they_are_read(
    lake: Lake,
) -> None:
    with pytest.raises(DataError, match="2 numbers for 'u1' and 1 for 'u2'; expected equally many"):
        lake.append("a", users=users(("u1", 0, 0, [1.0, 2.0], None), ("u2", 0, 0, [1.0], None)))
    lake.append("a", users=users(("u1", 0, 0, [1.0, 2.0], None)), watermark=at(9))
    with pytest.raises(DataError, match="1 numbers, first for 'u2', and 2 in the lake"):
        lake.append("b", users=users(("u2", 0, 0, [1.0], None)))
    lake.append("b", users=users(("u2", 0, 0, None, None), ("u3", 0, 0, [5.0, 6.0], None)))
    with pytest.raises(DataError, match="2 numbers for 'a' and 1 for 'c'"):
        as_matrix(pl.Series([[1.0, 2.0], None, [3.0]]), pl.Series(["a", "b", "c"]))


# -- what cannot be ------------------------------------------------------------------------------

FLAT = "a flat JSON object of text, numbers and truth values"
HOSTILE = {
    "nan": ({"vector": [[1.0, float("nan")]]}, "1 of 1 rows have an impossible vector, first 'u1'"),
    "infinite": ({"vector": [[float("-inf")]]}, "finite, or null where it is not known"),
    "empty": ({"vector": [[]]}, "at least one number"),
    "hole": ({"vector": [[1.0, None]]}, "an empty place in their vector"),
    "text": ({"vector": [["a"]]}, "column 'vector' is String .*expected Float64"),
    "a text": ({"vector": ["[1, 2]"]}, r"str.json_decode\(pl.List\(pl.Float64\)\)"),
    "struct": ({"attributes": [{"a": 1}]}, r"'attributes'\).struct.json_encode\(\)"),
    "one number": ({"vector": [1.0]}, "expected List.Float64.: a list in every row"),
    "truth": ({"vector": [[True]]}, "expected Float64"),
    "list": ({"attributes": ["[1]"]}, FLAT),
    "nested": ({"attributes": ['{"a":{"b":1}}']}, FLAT),
    "inner list": ({"attributes": ['{"a":[1]}']}, FLAT),
    "null value": ({"attributes": ['{"a":null}']}, "without the keys that are not known"),
    "JSON's NaN": ({"attributes": ['{"a":NaN}']}, FLAT),
    "beyond floats": ({"attributes": ['{"a":1e999}']}, FLAT),
    "twice": ({"attributes": ['{"a":1,"a":2}']}, FLAT),
    "torn": ({"attributes": ['{"a":']}, FLAT),
    "nothing": ({"attributes": [""]}, FLAT),
    "deep": ({"attributes": ['{"a":' * 100_000]}, FLAT),
    "long number": ({"attributes": ['{"a":' + "1" * 10_000 + "}"]}, FLAT),
    "half a pair": ({"attributes": ['{"a":"\\ud800"}']}, FLAT),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("table", ["users", "items"])
def test_what_cannot_be_known_is_refused_with_the_row(lake: Lake, table: str, case: str) -> None:
    columns, message = HOSTILE[case]
    key = f"{table[:-1]}_id"
    row = pl.DataFrame({key: ["u1"], "added_at": [at(0)], **columns}, strict=False)
    with pytest.raises(DataError, match=message) as refused:
        lake.append("a", **{table: row})
    assert str(refused.value).startswith(f"{table}: ")
    assert getattr(lake, table).is_empty()


@pytest.mark.parametrize(
    "text", ["{}", '{"a":"x","b":1,"c":-1.5e3,"d":true}', ' {"å": "\\u00e5"} ']
)
def test_flat_objects_are_taken_as_they_are(lake: Lake, text: str) -> None:
    lake.append("a", users=users(("u1", 0, 0, None, text)), watermark=at(9))
    assert lake.users["attributes"].to_list() == [text]


# -- on disk -------------------------------------------------------------------------------------


def test_a_lake_from_before_users_opens_and_grows(tmp_path: Path) -> None:
    later = ("vector", "attributes")
    items = pl.DataFrame({"item_id": ["i"], "added_at": [at(0)]})
    old = {"items": conform(items, "items").drop(later)}
    write_older_lake(tmp_path / "oldest", "old", old, at(2))
    store = FolderStore(tmp_path / "older")  # with a log of commits, and no users in it
    with store.writing():
        store.commit("old", old, at(2))
    for name in ("oldest", "older"):
        lake = Lake.open(tmp_path / name)
        assert lake.users.schema == DTYPES["users"]
        assert lake.users.is_empty()
        assert lake.items.schema == DTYPES["items"]
        assert not (tmp_path / name / "users").exists()
        assert check(tmp_path / name).damages == ()
        more = items.with_columns(
            item_id=pl.lit("j"), vector=pl.Series([[1.0]]), attributes=pl.lit(SWEDISH)
        )
        lake.append("new", items=more, users=users(("u1", 0, 0, [1.0], None)), watermark=at(9))
        for one in (lake, Lake.open(tmp_path / name)):
            assert one.items.select("item_id", *later).rows() == [
                ("i", None, None),
                ("j", [1.0], SWEDISH),
            ]
            assert one.users["vector"].to_list() == [[1.0]]
            with one.connect() as con:
                assert con.sql(
                    "select vector, attributes from items order by item_id"
                ).fetchall() == [
                    (None, None),
                    ([1.0], SWEDISH),
                ]
        assert check(tmp_path / name).damages == ()


def test_a_retry_of_a_batch_from_before_is_known_as_one() -> None:
    """Its digest was made without the columns that came later."""
    items = conform(pl.DataFrame({"item_id": ["i"], "added_at": [at(0)]}), "items")
    contexts = Contexts.of(["u1"], at(0), slots=1).frame
    later = ("user_vector", "user_attributes", "shown", "shown_time", "vector", "attributes")
    today = content_digest({"items": items, "contexts": contexts}, None)
    assert today == content_digest(
        {"items": items.drop(later, strict=False), "contexts": contexts.drop(later, strict=False)},
        None,
    )
    filled = items.with_columns(vector=pl.Series([[1.0]]))
    assert content_digest({"items": filled, "contexts": contexts}, None) != today


def test_a_damaged_users_file_is_named_and_repaired_back(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    lake = Lake.open(folder)
    lake.append("a", users=users(("u1", 0, 0, [1.0], None)), watermark=at(9))
    lake.append("b", users=users(("u1", 0, 5, [2.0], None)), watermark=at(9))
    newest = Path(lake.files("users")[-1])
    newest.write_bytes(newest.read_bytes()[:-1])
    assert [damage.path for damage in check(folder).damages] == [f"users/{newest.name}"]
    assert repair(folder).lost_batches == ("b",)
    assert Lake.open(folder).users["vector"].to_list() == [[1.0]]


def test_a_copy_knew_at_each_moment_what_its_lake_knew(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    event = {"event_id": ["e"], "user_id": ["u1"], "kind": ["play"], "time": [at(0)]}
    items = pl.DataFrame(
        {
            "item_id": ["i", "i"],
            "title": ["first", "second"],
            "added_at": [at(0)] * 2,
            "ingested_at": [at(0), at(5)],
        }
    )
    lake.append(
        "a",
        events=pl.DataFrame(event),
        items=items,
        users=users(("u1", 0, 0, [1.0], None), ("u1", 0, 5, [2.0], SWEDISH)),
        watermark=at(9),
    )
    source = read_lake(tmp_path / "lake")
    copy = Lake.memory()
    copy.append("copy", **source.tables, rejected=source.rejected, watermark=at(9))
    for minute in range(1, 9):
        for table in ("users", "items"):
            ours = getattr(copy.before(at(minute)), table)
            assert_frame_equal(ours, getattr(lake.before(at(minute)), table))


# -- contexts ------------------------------------------------------------------------------------


def test_contexts_carry_what_is_known_and_what_was_shown(lake: Lake) -> None:
    contexts = Contexts.of(
        ["u1", "u2"],
        at(9),
        slots=2,
        history=[["a", "b"], []],
        user_vector=np.array([[1.0, 2.0], [np.nan, np.nan]]),
        user_attributes=[SWEDISH, None],
        shown=[["a", "b", "a"], []],
        shown_time=[[at(1), at(1), at(8)], []],
    )
    columns = ("user_vector", "user_attributes", "shown", "shown_time")
    rows = [([1.0, 2.0], SWEDISH, ["a", "b", "a"], [at(1), at(1), at(8)]), (None, None, [], [])]
    assert contexts.frame.select(columns).rows() == rows
    assert contexts.reading(1).frame.select("history", *columns).rows() == [
        (["b"], *rows[0]),
        ([], *rows[1]),
    ]
    lake.append("a", contexts=contexts.frame)
    assert lake.before(at(10)).contexts.select(columns).rows() == rows
    with lake.connect() as con:
        sql = con.sql("select user_vector, shown, len(shown_time) from contexts order by user_id")
        assert sql.fetchall() == [([1.0, 2.0], ["a", "b", "a"], 3), (None, [], 0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"shown": [["a"]], "shown_time": [[at(9)]]}, "a showing at or after their time"),
        ({"shown": [["a", "b"]], "shown_time": [[at(2), at(1)]]}, "the oldest showing first"),
        ({"shown": [["a", "b"]], "shown_time": [[at(2)]]}, "as many as in shown"),
        ({"shown_time": [[at(2)]]}, "without the items shown"),
        ({"shown": [["a", None]]}, "an empty place in their shown"),
        ({"user_vector": [[float("nan")]]}, "an impossible user_vector"),
        ({"user_vector": np.array([[1.0, np.nan]])}, "an impossible user_vector"),
        ({"user_vector": [[1.0], [2.0]]}, "1 users but 2 of user_vector"),
        ({"user_attributes": ["SE"]}, FLAT),
    ],
)
def test_contexts_refuse_what_cannot_have_been(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Contexts.of(["u1"], at(9), slots=1, **columns)


def test_contexts_are_filled_with_what_was_known_at_their_time(lake: Lake) -> None:
    lake.append(
        "a",
        users=users(("u1", 0, 2, [1.0], SWEDISH), ("u1", 0, 5, [2.0], None)),
        watermark=at(99),
    )
    times = [at(1), at(3), at(7), at(7), at(3)]
    empty = Contexts.of(["u1", "u1", "u1", "u2", "u1"], times, slots=1)
    own = empty.frame.with_columns(user_vector=pl.Series([None] * 4 + [[7.0]]))
    filled = Contexts(own).known_from(lake).frame
    assert filled.select("user_vector", "user_attributes").rows() == [
        (None, None),
        ([1.0], SWEDISH),
        ([2.0], None),
        (None, None),
        ([7.0], SWEDISH),  # what was there is left
    ]
    assert_frame_equal(
        filled.drop("user_vector", "user_attributes"),
        empty.frame.drop("user_vector", "user_attributes"),
    )
    longer = empty.frame.with_columns(user_vector=pl.Series([[1.0, 2.0]] + [None] * 4))
    with pytest.raises(DataError, match="2 numbers for 'u1' and 1 for 'u1'"):
        Contexts(longer).known_from(lake)


# -- policies ------------------------------------------------------------------------------------


class Weary(Uniform):
    """A policy that says that it reads showings and users."""

    showings = 12
    reads_users = True


def test_wrapping_policies_pass_on_what_their_policies_read() -> None:
    assert (showings_of(Uniform()), reads_users(Uniform())) == (0, False)
    for wrapped in (
        Frozen(Weary()),
        Experiment(Uniform(), Weary(), salt="s"),
        Page({"a": Uniform(), "b": Weary()}, {"a": 1, "b": 1}),
        Frozen(Experiment(Frozen(Weary()), Uniform(), salt="s")),
    ):
        assert (showings_of(wrapped), reads_users(wrapped)) == (12, True)
    for wrapped in (Frozen(Uniform()), Experiment(Uniform(), Uniform(), salt="s")):
        assert (showings_of(wrapped), reads_users(wrapped)) == (0, False)


def test_only_tables_of_descriptions_have_descriptions() -> None:
    with pytest.raises(ConfigError, match="'events' given, expected one of items, users"):
        Lake.memory().descriptions("events")
