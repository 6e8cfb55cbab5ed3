"""What enters through Python is exact: nothing is guessed, rounded or read from text, whichever
library made the frame."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from longplay.decisions import Contexts, Decisions
from longplay.errors import DataError
from longplay.lake import Lake

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Tables = dict[str, pl.DataFrame]


def tables() -> Tables:
    """One row of every table, each value as the schema has it."""
    key = {"context_id": ["x"], "user_id": ["u"], "time": [NOON], "surface": ["home"]}
    ids = pl.List(pl.String)
    return {
        "events": pl.DataFrame(
            {
                "event_id": ["e"],
                "user_id": ["u"],
                "item_id": ["i"],
                "kind": ["play"],
                "time": [NOON],
                "seconds": [3.0],
                "slot": [1],
            }
        ),
        "decisions": pl.DataFrame(
            key
            | {
                "decision_id": ["d"],
                "slate": [["i", "j"]],
                "log_prob": [[-1.0, -2.0]],
                "policy": ["p@1"],
            }
        ),
        "contexts": pl.DataFrame(
            key | {"slots": [2], "exclusions": [[]], "history": [["i"]], "history_until": [NOON]},
            schema_overrides={"exclusions": ids},
        ),
        "items": pl.DataFrame({"item_id": ["i"], "added_at": [NOON], "length": [180.0]}),
    }


def stored(table: str, frame: Any) -> pl.DataFrame:
    """What a lake holds of `table` after this frame was appended."""
    lake = Lake.memory()
    lake.append("b", **{table: frame}, watermark=NOON + timedelta(days=9), max_bad_share=1.0)
    return getattr(lake, table)


def with_column(table: str, column: str, values: Any) -> pl.DataFrame:
    return tables()[table].with_columns(
        pl.Series(column, values) if not isinstance(values, pl.Series) else values.alias(column)
    )


# -- times
# ------------------------------------------------------------------------------------------------


TIMES = [
    ("events", "time"),
    ("events", "ingested_at"),
    ("decisions", "time"),
    ("contexts", "time"),
    ("contexts", "history_until"),
    ("items", "added_at"),
]
WRONG_TIMES = {
    "seconds": pl.Series([1_772_366_400]),
    "float seconds": pl.Series([1_772_366_400.0]),
    "zone-less": pl.Series([NOON.replace(tzinfo=None)]),
    "text": pl.Series(["2026-03-01 12:00:00"]),
    "date": pl.Series([date(2026, 3, 2)]),
}


@pytest.mark.parametrize(("table", "column"), TIMES)
@pytest.mark.parametrize("kind", WRONG_TIMES)
def test_what_is_no_moment_is_refused_and_the_expression_in_the_error_makes_it_one(
    table: str, column: str, kind: str
) -> None:
    frame = with_column(table, column, WRONG_TIMES[kind])
    with pytest.raises(DataError, match=f"{table}: column '{column}'") as error:
        stored(table, frame)
    advice = str(error.value).rpartition("e.g. ")[2]
    moment = stored(table, frame.with_columns(eval(advice).alias(column)))[column][0]
    assert moment == (NOON if kind != "date" else NOON + timedelta(hours=12))


@pytest.mark.parametrize("kind", list(WRONG_TIMES))
def test_the_times_beside_a_history_are_moments_too(kind: str) -> None:
    with pytest.raises(DataError, match="contexts: column 'history_time'"):
        stored(
            "contexts",
            with_column("contexts", "history_time", pl.Series([WRONG_TIMES[kind].to_list()])),
        )


def test_a_moment_in_another_zone_or_unit_is_the_same_moment() -> None:
    berlin = pl.Series([NOON]).dt.convert_time_zone("Europe/Berlin")
    for unit in ("ms", "us", "ns"):
        assert stored("events", with_column("events", "time", berlin.dt.cast_time_unit(unit)))[
            "time"
        ].to_list() == [NOON]
    lists = pl.Series([[NOON]]).cast(pl.List(pl.Datetime("ns", "Asia/Kolkata")))
    assert stored("contexts", with_column("contexts", "history_time", lists))[
        "history_time"
    ].to_list() == [[NOON]]


def test_nanoseconds_that_would_be_lost_are_refused() -> None:
    frame = with_column(
        "events", "time", pl.Series([1_772_366_400_000_000_001]).cast(pl.Datetime("ns", "UTC"))
    )
    with pytest.raises(
        DataError,
        match=r"1 of 1 times have a part below a microsecond.*pl\.col\('time'\)\.dt\.truncate\('1us'\)",
    ):
        stored("events", frame)
    assert stored("events", frame.with_columns(pl.col("time").dt.truncate("1us")))[
        "time"
    ].to_list() == [NOON]


def test_times_that_no_calendar_holds_are_refused() -> None:
    with pytest.raises(DataError, match="outside the years 1 to 9999"):
        stored(
            "events",
            with_column("events", "time", pl.Series([2**62]).cast(pl.Datetime("us", "UTC"))),
        )
    with pytest.raises(DataError, match="outside the years 1 to 9999"):
        stored(
            "events",
            with_column("events", "time", pl.Series([2**62]).cast(pl.Datetime("ms", "UTC"))),
        )


# -- numbers
# ----------------------------------------------------------------------------------------------


def test_numbers_of_another_type_are_the_same_numbers() -> None:
    assert stored("events", with_column("events", "slot", [3.0]))["slot"].to_list() == [3]
    assert stored("events", with_column("events", "slot", pl.Series([7], dtype=pl.UInt8)))[
        "slot"
    ].to_list() == [7]
    assert stored("events", with_column("events", "seconds", [180]))["seconds"].to_list() == [180.0]
    assert stored("items", with_column("items", "length", [2**53]))["length"].to_list() == [2.0**53]
    assert stored("contexts", with_column("contexts", "slots", [2.0]))["slots"].to_list() == [2]
    assert stored("decisions", with_column("decisions", "log_prob", [[-1, -2]]))[
        "log_prob"
    ].to_list() == [[-1.0, -2.0]]
    assert stored("events", with_column("events", "seconds", pl.Series([None], dtype=pl.Null)))[
        "seconds"
    ].to_list() == [None]


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("events", "slot", [1.5], "1 of 1 values of Float64 do not fit Int32 exactly, first 1.5"),
        ("events", "slot", [2**31], "do not fit Int32 exactly, first 2147483648"),
        ("events", "slot", [float("nan")], "do not fit Int32 exactly"),
        ("events", "seconds", [2**53 + 1], "do not fit Float64 exactly, first 9007199254740993"),
        ("events", "seconds", [2**63 - 1], "do not fit Float64 exactly"),
        (
            "events",
            "seconds",
            ["180"],
            r"column 'seconds' is String \('180'\).*pl\.col\('seconds'\)\.cast\(pl\.Float64\)",
        ),
        ("events", "seconds", [True], "column 'seconds' is Boolean"),
        ("events", "seconds", [timedelta(seconds=3)], "total_microseconds"),
        ("events", "slot", ["1"], "column 'slot' is String"),
        (
            "items",
            "available",
            [1],
            r"column 'available' is Int64 \(1\).*pl\.col\('available'\) == 1",
        ),
        ("items", "available", ["true"], "column 'available' is String"),
        ("decisions", "fallback", [0.0], "column 'fallback' is Float64"),
        ("decisions", "surface", [1], "column 'surface' is Int64"),
        ("contexts", "slots", [-1], "fewer than 0 slots, first 'x' with -1"),
        (
            "contexts",
            "temperature",
            [0.0],
            "an impossible temperature, first 'x' with 0.0; expected a number above 0",
        ),
        ("contexts", "temperature", [float("nan")], "an impossible temperature"),
        ("contexts", "temperature", [float("inf")], "an impossible temperature"),
        ("decisions", "temperature", [-1.0], "an impossible temperature"),
        ("decisions", "arm_prob", [0.0], r"an impossible arm_prob.*\(0, 1\]"),
        ("decisions", "arm_prob", [1.1], "an impossible arm_prob"),
        ("decisions", "arm_prob", [float("nan")], "an impossible arm_prob"),
        ("contexts", "want", [float("nan")], "an impossible want"),
        ("contexts", "want", [float("inf")], "an impossible want"),
        ("items", "length", [0.0], "a length that is no duration"),
        ("items", "length", [float("nan")], "a length that is no duration"),
        ("items", "tags", [["a", None]], "an empty place in their tags"),
    ],
)
def test_numbers_and_truth_values_are_refused_where_they_would_change_or_cannot_be(
    table: str, column: str, value: list, message: str
) -> None:
    with pytest.raises(DataError, match=f"^{table}: .*{message}"):
        stored(table, with_column(table, column, value))


def test_seconds_of_events_that_are_no_numbers_are_sifted_row_by_row() -> None:
    lake = Lake.memory()
    done = lake.append(
        "b", events=with_column("events", "seconds", [float("nan")]), max_bad_share=1.0
    )
    assert dict(done.rejected) == {"seconds not finite": 1}


# -- slates
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"slate": [["i", "i"]]},
            r"1 of 1 rows have an item twice in their slate, first 'd' of p@1 with \['i', 'i'\]",
        ),
        ({"slate": [["i", None]]}, "an empty place in their slate"),
        ({"slate": [["i", ""]]}, "an empty place in their slate"),
        ({"slate": [["i"]]}, "1 slates have more or fewer log-probabilities than items"),
        ({"log_prob": [[-1.0, None]]}, "an empty place in their log_prob"),
        ({"log_prob": [[-1.0, float("nan")]]}, "an impossible log-probability"),
        ({"log_prob": [[-1.0, float("-inf")]]}, "an impossible log-probability"),
        ({"log_prob": [[-1.0, 0.1]]}, r"an impossible log-probability.*a finite number at most 0"),
        ({"slate": ["i,j"]}, "column 'slate' is String"),
        ({"user_id": [None]}, "1 of 1 rows have no 'user_id'"),
        ({"user_id": [""]}, "1 of 1 rows have no 'user_id'"),
    ],
)
def test_slates_that_cannot_have_been_drawn_are_refused_by_the_lake_and_by_decisions(
    change: dict[str, list], message: str
) -> None:
    frame = tables()["decisions"].with_columns(
        pl.Series(name, values, strict=False) for name, values in change.items()
    )
    with pytest.raises(DataError, match=message):
        stored("decisions", frame)
    with pytest.raises(DataError, match=message):
        Decisions(frame)


def test_what_rounding_left_above_zero_is_zero() -> None:
    frame = with_column("decisions", "log_prob", [[1e-12, -2.0]])
    assert Decisions(frame).log_prob.tolist() == [[0.0, -2.0]]
    assert stored("decisions", frame)["log_prob"].to_list() == [[0.0, -2.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": [["i", None]]}, "an empty place in their history"),
        ({"exclusions": [["i", ""]]}, "an empty place in their exclusions"),
        ({"history_time": [[NOON, NOON]]}, "a history_time of another length than their history"),
        ({"history_kind": [[]]}, "a history_kind of another length"),
        ({"history_surface": [["home", "home"]]}, "a history_surface of another length"),
        ({"temperature": [float("nan")]}, "an impossible temperature"),
    ],
)
def test_contexts_that_cannot_be_are_refused_by_the_lake_and_by_contexts(
    change: dict[str, list], message: str
) -> None:
    lists = {
        "history": pl.List(pl.String),
        "exclusions": pl.List(pl.String),
        "history_kind": pl.List(pl.String),
    }
    frame = tables()["contexts"].with_columns(
        pl.Series(name, values, dtype=lists.get(name)) for name, values in change.items()
    )
    with pytest.raises(DataError, match=message):
        stored("contexts", frame)
    with pytest.raises(DataError, match=message):
        Contexts(frame)


def test_a_slate_may_be_shorter_than_its_context_but_not_longer() -> None:
    both = tables()
    lake = Lake.memory()
    with pytest.raises(
        DataError,
        match="1 of 1 slates are longer than their context, first 'd' with 2 items for 1 slots",
    ):
        lake.append(
            "b", decisions=both["decisions"], contexts=both["contexts"].with_columns(slots=1)
        )
    lake.append("b", decisions=both["decisions"], contexts=both["contexts"].with_columns(slots=3))
    assert lake.decisions.height == 1


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_slate_may_not_be_longer_than_a_context_of_an_earlier_batch(
    in_folder: bool, tmp_path: Path
) -> None:
    both = tables()
    lake = Lake.open(tmp_path / "lake") if in_folder else Lake.memory()
    lake.append("a", contexts=both["contexts"].with_columns(slots=1))
    with pytest.raises(DataError, match="1 of 1 slates are longer than their context"):
        lake.append("b", decisions=both["decisions"])
    lake.append("c", decisions=both["decisions"].with_columns(context_id=pl.lit("not logged")))
    assert lake.decisions.height == 1


# -- frames of other libraries
# ----------------------------------------------------------------------------


def as_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(frame.to_dicts(), index=[17] * frame.height)


@pytest.mark.parametrize("table", list(tables()))
@pytest.mark.parametrize(
    "of",
    [
        as_pandas,
        lambda f: f.to_pandas(),
        lambda f: f.to_arrow(),
        lambda f: f.to_arrow().to_batches()[0],
        lambda f: f.lazy(),
    ],
)
def test_frames_of_every_library_give_the_same_rows(table: str, of: Any) -> None:
    frame = tables()[table]
    assert stored(table, of(frame)).equals(stored(table, frame))


def test_what_pandas_calls_missing_is_null() -> None:
    rows = {
        "event_id": ["a", "b"],
        "user_id": ["u", "u"],
        "kind": ["play", "play"],
        "time": pd.to_datetime([NOON, NOON]),
        "item_id": pd.Series([12345, None]),  # pandas makes floats of it
        "creator_id": [np.nan, "c"],
        "seconds": [np.nan, 3.5],
        "surface": pd.Series([pd.NA, "home"], dtype="string"),
        "slot": pd.Series([pd.NA, 4], dtype="Int64"),
        "ingested_at": [pd.Timestamp(NOON), pd.Timestamp(NOON)],
    }
    events = stored("events", pd.DataFrame(rows))
    columns = ("item_id", "creator_id", "seconds", "surface", "slot")
    assert [events[name].to_list() for name in columns] == [
        ["12345", None],
        [None, "c"],
        [None, 3.5],
        [None, "home"],
        [None, 4],
    ]
    unknown_time = pd.DataFrame(
        rows | {"time": [pd.NaT, pd.Timestamp(NOON)], "ingested_at": [pd.Timestamp(NOON)] * 2}
    )
    assert stored("events", unknown_time)["event_id"].to_list() == ["b"]


def test_pandas_columns_of_mixed_ids_follow_the_rule_and_other_mixtures_are_refused() -> None:
    frame = pd.concat([as_pandas(tables()["events"])] * 4, ignore_index=True)
    frame["event_id"], frame["user_id"] = (
        ["a", "b", "c", "d"],
        [12345, "12345", 12345.0, np.int64(12345)],
    )
    assert stored("events", frame)["user_id"].to_list() == ["12345"] * 4
    frame["user_id"] = [12345, True, "u", "v"]
    with pytest.raises(DataError, match=r"column 'user_id'.*Boolean given for ids"):
        stored("events", frame)
    frame["user_id"], frame["seconds"] = "u", [1, "two", 3, 4]
    with pytest.raises(DataError, match="events: column 'seconds' is Object"):
        stored("events", frame)
    frame["seconds"], frame["time"] = (
        1.0,
        pd.Series([NOON, NOON.replace(tzinfo=None), NOON, NOON], dtype=object),
    )
    with pytest.raises(DataError, match="some times have a time zone and some have none"):
        stored("events", frame)
    slates = as_pandas(tables()["decisions"])
    slates["slate"] = [[7, "j"]]
    assert stored("decisions", slates)["slate"].to_list() == [["7", "j"]]
    slates["slate"] = [np.array([7, 8])]
    assert stored("decisions", slates)["slate"].to_list() == [["7", "8"]]


@pytest.mark.parametrize("zone", ["+05:30", "Asia/Kolkata", "-03:30", "UTC"])
def test_arrow_times_with_offsets_of_half_an_hour_are_the_same_moments(zone: str) -> None:
    table = tables()["events"].to_arrow()
    times = table["time"].cast(pa.timestamp("us", zone))
    moved = table.set_column(table.column_names.index("time"), "time", times)
    assert stored("events", moved)["time"].to_list() == [NOON]
    lists = pa.array([[NOON]], pa.list_(pa.timestamp("us", zone)))
    context = tables()["contexts"].to_arrow().append_column("history_time", lists)
    assert stored("contexts", context)["history_time"].to_list() == [[NOON]]


def test_arrow_dictionaries_and_large_texts_are_text() -> None:
    table = tables()["events"].to_arrow()
    for name in ("user_id", "kind"):
        table = table.set_column(
            table.column_names.index(name), name, table[name].cast(pa.string()).dictionary_encode()
        )
    table = table.set_column(
        table.column_names.index("item_id"), "item_id", pa.array([7]).dictionary_encode()
    )
    assert stored("events", table).select("user_id", "kind", "item_id").row(0) == ("u", "play", "7")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [{"event_id": "e"}],
            r"events: a list given, expected a frame of polars, pandas or pyarrow.*pl\.DataFrame",
        ),
        ({"event_id": ["e"]}, "events: a dict given"),
        ("events.parquet", "events: a str given"),
        (pd.DataFrame({0: ["e"]}), "a column is named 0"),
        (
            pd.DataFrame([["e", "f"]], columns=["event_id", "event_id"]),
            "2 columns are named 'event_id'",
        ),
    ],
)
def test_what_is_no_frame_is_refused_in_words(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Lake.memory().append("b", events=given)


def test_rejected_rows_and_lines_come_from_any_library_too() -> None:
    lake = Lake.memory()
    rejected = pd.DataFrame({"line": [2.0], "reason": ["torn"], "row": ["{}"]})
    events = as_pandas(tables()["events"]).assign(line=1)
    assert dict(lake.append("b", events=events, rejected=rejected, max_bad_share=0.5).rejected) == {
        "torn": 1
    }
    with pytest.raises(DataError, match="events: column 'line' is String"):
        lake.append("c", events=tables()["events"].with_columns(line=pl.lit("1")))
    with pytest.raises(DataError, match="events: column 'line': 1 of 1 values"):
        lake.append("c", events=tables()["events"].with_columns(line=pl.lit(1.5)))


def test_no_error_holds_a_traceback_of_a_library() -> None:
    with pytest.raises(DataError) as error:
        stored("events", with_column("events", "seconds", ["many"]))
    assert re.match(
        r"events: column 'seconds' is String \('many'\), expected Float64: numbers; convert it, e\.g\. ",
        str(error.value),
    )
