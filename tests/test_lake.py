"""The lake: whole batches only, once each, and never a look ahead."""

from __future__ import annotations

import copy
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from older_lakes import write_older_lake
from polars.testing import assert_frame_equal

import longplay.lake
from longplay.errors import DataError
from longplay.lake import Lake, schema
from longplay.lake.commits import CommitLog
from longplay.lake.schema import DTYPES, TABLES, TIME, conform

SOURCE = Path(longplay.lake.__file__).parents[2]
START = datetime(2026, 3, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def plays(*minutes: int, name: str = "e", **more: object) -> pl.DataFrame:
    frame = pl.DataFrame(
        {"time": [at(minute) for minute in minutes]}, schema={"time": pl.Datetime("us", "UTC")}
    )
    return frame.with_columns(
        event_id=pl.format(name + "{}", pl.int_range(pl.len())),
        user_id=pl.lit("u1"),
        kind=pl.lit("play"),
    ).with_columns(pl.lit(value).alias(column) for column, value in more.items())


def tables(name: str, minute: int = 0) -> dict[str, Any]:
    """A batch that writes every table: 3 events, 2 contexts, 2 decisions and 1 item of its own."""
    two = pl.DataFrame(
        {
            "context_id": [f"{name}-0", f"{name}-1"],
            "user_id": ["u1", "u2"],
            "time": [at(minute)] * 2,
            "surface": ["home"] * 2,
        }
    )
    nothing = pl.lit([], dtype=pl.List(pl.String))
    contexts = two.with_columns(
        slots=pl.lit(1), exclusions=nothing, history=nothing, history_until=pl.col("time")
    )
    shown = pl.lit(["i"], dtype=pl.List(pl.String)), pl.lit([0.0], dtype=pl.List(pl.Float64))
    decisions = two.with_columns(
        decision_id=pl.col("context_id"), slate=shown[0], log_prob=shown[1], policy=pl.lit("p@1")
    )
    items = pl.DataFrame({"item_id": [name], "added_at": [at(minute)]})
    return {
        "events": plays(minute, minute, minute, name=f"{name}-"),
        "contexts": contexts,
        "decisions": decisions,
        "items": items,
    }


@pytest.fixture(params=["memory", "folder"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake.memory() if request.param == "memory" else Lake.open(tmp_path / "a lake's folder")


# -- looking -------------------------------------------------------------------------------------


def test_a_view_hides_what_happened_at_or_after_its_time(lake: Lake) -> None:
    lake.append("b", events=plays(1, 2, 3))
    assert lake.before(at(3)).events["time"].to_list() == [at(1), at(2)]
    assert lake.events.height == 3
    assert lake.watermark == at(3) + timedelta(microseconds=1)


def test_a_view_hides_what_had_not_arrived_yet(lake: Lake) -> None:
    lake.append("b", events=plays(1, 2).with_columns(ingested_at=pl.Series([at(1), at(60)])))
    assert lake.before(at(10)).events["event_id"].to_list() == ["e0"]
    assert lake.before(at(10), known_at=at(60)).events["event_id"].to_list() == ["e0", "e1"]
    assert lake.before(at(100), known_at=at(1)).events["event_id"].to_list() == ["e0"]


def test_a_context_is_not_known_before_it_happened(lake: Lake) -> None:
    lake.append("b", **tables("b", minute=5))
    assert lake.before(at(10), known_at=at(4)).contexts.is_empty()
    assert lake.before(at(10), known_at=at(4)).items.is_empty()
    assert lake.before(at(10), known_at=at(5)).contexts.height == 2


def test_a_view_of_a_view_only_narrows(lake: Lake) -> None:
    lake.append("b", events=plays(1, 2, 3))
    view = lake.before(at(2))
    assert view.before(at(9)).events.height == 1
    assert view.before(at(9)).watermark == at(2)
    assert view.before(at(1)).events.is_empty()


def test_a_view_stays_as_it_was_while_the_lake_grows(lake: Lake) -> None:
    lake.append("a", **tables("a", minute=1))
    view = lake.before(at(100))
    key, seen = view.key, {table: getattr(view, table) for table in TABLES}
    lake.append("b", **tables("b", minute=2))
    assert view.key == key != lake.before(at(100)).key
    fresh = lake.before(at(100))
    for table, frame in seen.items():
        assert_frame_equal(getattr(view, table), frame)
        if table != "quarantine":
            assert getattr(fresh, table).height == 2 * frame.height


def test_sql_sees_the_same_rows_as_the_frames(lake: Lake) -> None:
    lake.append("a", **tables("a", minute=1))
    lake.append("b", **tables("b", minute=5))
    view = lake.before(at(5))
    with view.connect(threads=1) as con:
        for table in TABLES:
            assert con.sql(f"select count(*) from {table}").fetchall() == [
                (getattr(view, table).height,)
            ]
    assert view.events.height == 3


def test_two_lakes_never_share_a_key() -> None:
    keys = set()
    for _ in range(50):  # a dead lake's address is given to the next one, so id() would repeat
        keys.add(Lake.memory().key)
    assert len(keys) == 50


def test_an_empty_lake_has_empty_tables_and_no_watermark(lake: Lake) -> None:
    for table in TABLES:
        assert getattr(lake, table).schema == DTYPES[table]
        assert getattr(lake, table).is_empty()
    with pytest.raises(DataError, match="append a batch first"):
        _ = lake.watermark


@examples(60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=25),
    later=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=10),
    t=st.integers(0, 35),
    known=st.integers(0, 60),
)
def test_a_view_is_a_plain_filter_and_nothing_outside_it_can_change_it(
    rows: list[tuple[int, int]], later: list[tuple[int, int]], t: int, known: int
) -> None:
    def batch(name: str, pairs: list[tuple[int, int]]) -> pl.DataFrame:
        arrived = pl.Series(
            "ingested_at",
            [at(minute + delay) for minute, delay in pairs],
            dtype=pl.Datetime("us", "UTC"),
        )
        return plays(*(minute for minute, _ in pairs), name=name).with_columns(arrived)

    lake = Lake.memory()
    lake.append("first", events=batch("e", rows), watermark=at(100))
    expected = {
        f"e{i}" for i, (minute, delay) in enumerate(rows) if minute < t and minute + delay <= known
    }
    seen = lake.before(at(t), known_at=at(known)).events
    assert set(seen["event_id"]) == expected
    assert seen["time"].is_sorted()
    outside = [(minute, delay) for minute, delay in later if minute >= t or minute + delay > known]
    lake.append("later", events=batch("l", outside))
    assert_frame_equal(lake.before(at(t), known_at=at(known)).events, seen)


@examples(8)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["play", "bogus"])), max_size=6),
        min_size=1,
        max_size=3,
    )
)
def test_memory_and_folder_lakes_hold_equal_tables(
    batches: list[list[tuple[int, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lakes = Lake.memory(), Lake.open(tmp_path_factory.mktemp("lake"))
    for lake in lakes:
        for i, rows in enumerate(batches):
            given = tables(f"b{i}", minute=i)
            odd = plays(*(minute for minute, _ in rows), name=f"x{i}-").with_columns(
                kind=pl.Series([kind for _, kind in rows], dtype=pl.String)
            )
            given["events"] = pl.concat([given["events"], odd], how="diagonal")
            lake.append(f"batch-{i}", **given, max_bad_share=1.0)
    for table in TABLES:
        assert_frame_equal(getattr(lakes[0], table), getattr(lakes[1], table))
    assert lakes[0].watermark == lakes[1].watermark


# -- writing -------------------------------------------------------------------------------------


def test_a_batch_is_written_once_however_often_it_is_sent(lake: Lake) -> None:
    assert lake.append("b", **tables("b")).rows["events"] == 3
    again = lake.append("b", **tables("b"))
    assert again.already
    assert "already in the lake" in str(again)
    assert [
        getattr(lake, table).height for table in ("events", "decisions", "contexts", "items")
    ] == [3, 2, 2, 1]


def test_an_event_that_comes_again_in_another_batch_is_quarantined(lake: Lake) -> None:
    lake.append("a", events=plays(*range(30)))
    assert lake.append("b", events=plays(*range(30, 69), name="n").vstack(plays(5))).rejected == {
        "duplicate id": 1
    }
    assert lake.events.height == 69
    assert lake.quarantine.select("batch", "line", "reason").row(0) == ("b", 40, "duplicate id")


def test_a_decision_that_comes_again_refuses_the_batch(lake: Lake) -> None:
    lake.append("a", **tables("a"))
    with pytest.raises(
        DataError,
        match="2 of 2 decisions have an id that is given twice or already in the lake, first 'a-0'",
    ):
        lake.append("b", decisions=tables("a")["decisions"])
    twice = pl.concat([tables("c")["contexts"]] * 2)
    with pytest.raises(DataError, match="2 of 4 contexts"):
        lake.append("c", contexts=twice)
    assert lake.decisions.height == 2


def test_a_refused_batch_leaves_no_trace_and_may_be_mended(lake: Lake) -> None:
    lake.append("a", **tables("a", minute=1))
    before = {table: getattr(lake, table) for table in TABLES}
    bad = tables("b", minute=2)
    bad["events"] = bad["events"].with_columns(user_id=pl.Series(["u", None, ""]))
    key = lake.key
    with pytest.raises(
        DataError,
        match=r"2 of 3 events are bad \(66.7%; 2 missing user\), allowed 5.0%. "
        "First: line 2, missing user.*Nothing was",
    ):
        lake.append("b", **bad)
    assert lake.key == key
    for table, frame in before.items():
        assert_frame_equal(getattr(lake, table), frame)
    assert not lake.append("b", **tables("b", minute=2)).already
    assert lake.events.height == 6


def test_each_kind_of_bad_row_is_named_with_its_line(lake: Lake) -> None:
    rows = pl.DataFrame(
        {
            "event_id": ["ok", None, "a", "b", "c", "d", "e", "f", "g", "ok", "h", "h", ""],
            "user_id": ["u", "u", None, "u", "u", "u", "u", "u", "u", "u", "u", "u", "u"],
            "kind": ["play"] * 7 + ["bogus"] + ["play"] * 2 + ["bogus", "play", "play"],
            "origin": ["organic"] * 8 + ["tv"] + ["organic"] * 4,
            "seconds": [1.0, 1.0, 1.0, 1.0, 1.0, -1.0, float("inf")] + [None] * 6,
            "time": [at(1), at(1), at(1), None, at(99), *[at(1)] * 8],
        }
    )
    lake.append("b", events=rows, now=at(50), max_bad_share=1.0)
    reasons = dict(lake.quarantine.select("line", "reason").iter_rows())
    assert reasons == {
        2: "missing event id",
        3: "missing user",
        4: "unparsable time",
        5: "future time",
        6: "negative seconds",
        7: "seconds not finite",
        8: "unknown kind",
        9: "unknown origin",
        10: "duplicate id",
        11: "unknown kind",  # and the good row of the same id stays
        13: "missing event id",
    }
    assert lake.events["event_id"].to_list() == ["h", "ok"]
    assert '"user_id":null' in lake.quarantine["row"][1]


def test_quarantine_names_the_lines_of_the_source_when_the_events_carry_them(lake: Lake) -> None:
    events = plays(1, 2).with_columns(user_id=pl.Series(["u", None]), line=pl.Series([7, 9]))
    set_aside = pl.DataFrame({"line": [8], "reason": ["unparsable seconds"], "row": ["{}"]})
    done = lake.append("b", events=events, rejected=set_aside, max_bad_share=1.0)
    assert lake.quarantine["line"].to_list() == [8, 9]
    assert done.rejected == {"missing user": 1, "unparsable seconds": 1}
    assert lake.events.columns == list(TABLES["events"])


def test_an_item_told_anew_keeps_the_day_it_was_added(lake: Lake) -> None:
    for minute, title in ((5, "old"), (9, "new"), (2, "newest")):
        lake.append(
            f"b{minute}",
            items=pl.DataFrame({"item_id": ["i"], "title": [title], "added_at": [at(minute)]}),
            watermark=at(60),
        )
    assert lake.items.select("title", "added_at").rows() == [("newest", at(2))]


def item(name: str, minute: int, length: float | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [name],
            "length": pl.Series([length], dtype=pl.Float64),
            "added_at": [at(minute)],
        }
    )


def as_before_lengths(folder: Path) -> Lake:
    """A lake of one item as it lay on disk before items had a length and an arrival."""
    items = conform(item("i", 0), "items").drop("length", "ingested_at")
    write_older_lake(folder, "old", {"events": conform(plays(1), "events"), "items": items}, at(2))
    return Lake.open(folder)


def lengths_in_sql(lake: Lake) -> list[tuple]:
    with lake.connect() as con:
        return con.sql(
            "select item_id, length, typeof(length) from items order by item_id"
        ).fetchall()


def test_a_lake_older_than_lengths_is_read_with_lengths_unknown(tmp_path: Path) -> None:
    lake = as_before_lengths(tmp_path / "lake")
    assert lake.items.schema == DTYPES["items"]
    assert lake.items.select("item_id", "length", "added_at", "available").rows() == [
        ("i", None, at(0), True)
    ]
    assert lengths_in_sql(lake) == lengths_in_sql(lake.before(at(1))) == [("i", None, "DOUBLE")]


def test_a_lake_older_than_lengths_takes_items_that_have_one(tmp_path: Path) -> None:
    lake = as_before_lengths(tmp_path / "lake")
    before = lake.before(at(2))
    lake.append("events only", events=plays(2, name="f"))
    lake.append("new", items=item("j", 1, 200.0))
    lake.append("told anew", items=item("i", 2, 30.0))
    for one in (lake, Lake.open(tmp_path / "lake")):
        assert one.items.select("item_id", "length", "added_at").rows() == [
            ("i", 30.0, at(0)),
            ("j", 200.0, at(1)),
        ]
        assert lengths_in_sql(one) == [("i", 30.0, "DOUBLE"), ("j", 200.0, "DOUBLE")]
    assert lengths_in_sql(before) == [
        ("i", None, "DOUBLE")
    ]  # a view that was made before still reads the old file
    assert before.items["length"].to_list() == [None]


def test_a_lake_older_than_what_stands_beside_histories_is_read_and_grows(tmp_path: Path) -> None:
    later = ("history_time", "history_kind", "history_surface", "want")
    old = {table: conform(frame, table) for table, frame in tables("old").items()}
    old |= {"contexts": old["contexts"].drop(later), "items": old["items"].drop("ingested_at")}
    write_older_lake(tmp_path / "lake", "old", old, at(1))
    lake = Lake.open(tmp_path / "lake")
    assert lake.contexts.schema == DTYPES["contexts"]
    assert lake.contexts.select(later).null_count().row(0) == (2, 2, 2, 2)
    new = tables("new", 1)["contexts"].with_columns(
        history=pl.lit(["i"], dtype=pl.List(pl.String)),
        history_time=pl.concat_list(pl.col("time")),
        history_kind=pl.lit(["play"]),
        want=pl.lit(2.5),
    )
    lake.append("new", contexts=new, watermark=at(2))
    for one in (lake, Lake.open(tmp_path / "lake")):
        found = one.contexts.sort("context_id")
        assert found["context_id"].to_list() == ["new-0", "new-1", "old-0", "old-1"]
        assert found["want"].to_list() == [2.5, 2.5, None, None]
        assert found["history_time"].to_list() == [[at(1)], [at(1)], None, None]
        with one.connect() as con:
            said = con.sql(
                "select context_id, want, history_kind, history_surface, typeof(history_surface) "
                "from contexts order by 1"
            ).fetchall()
        assert said == [
            ("new-0", 2.5, ["play"], None, "VARCHAR[]"),
            ("new-1", 2.5, ["play"], None, "VARCHAR[]"),
            ("old-0", None, None, None, "VARCHAR[]"),
            ("old-1", None, None, None, "VARCHAR[]"),
        ]


def test_an_older_lake_keeps_its_batches(tmp_path: Path) -> None:
    lake = as_before_lengths(tmp_path / "lake")
    lake.append("next", items=item("j", 1, 60.0))
    again = Lake.open(tmp_path / "lake")
    assert again.append(
        "old", events=plays(7, name="other")
    ).already  # its content was not recorded
    assert again.append("next", items=item("j", 1, 60.0)).already
    assert again.items.select("item_id", "length").rows() == [("i", None), ("j", 60.0)]


def test_a_declared_watermark_hides_what_is_not_complete_yet(lake: Lake) -> None:
    lake.append("b", events=plays(1, 20), watermark=at(10))
    assert lake.watermark == at(10)
    assert lake.events["time"].to_list() == [at(1)]
    lake.append("c", events=plays(3, name="f"), watermark=at(5))
    assert lake.watermark == at(10)  # it never falls


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"events": plays(1, colour="red")},
            "events: unknown column 'colour'; expected some of event_id",
        ),
        (
            {"events": plays(1).drop("kind")},
            "events: column 'kind' is missing; given time, event_id, user_id",
        ),
        (
            {"events": plays(1).with_columns(pl.col("time").dt.replace_time_zone(None))},
            "has no time zone; give UTC",
        ),
        (
            {"items": pl.DataFrame({"item_id": [None], "added_at": [START]})},
            "items: 1 of 1 rows have no 'item_id'",
        ),
        *(
            (
                {
                    "items": pl.DataFrame(
                        {"item_id": ["i", "j"], "length": [200.0, wrong], "added_at": [START] * 2}
                    )
                },
                f"items: 1 of 2 .* 'j' with {wrong};",
            )
            for wrong in (0.0, -1.0, float("nan"), float("inf"), float("-inf"))
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_given_and_expected(
    lake: Lake, given: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        lake.append("b", **given)
    assert lake.events.is_empty()


def test_a_view_cannot_be_written_and_a_batch_needs_a_name(lake: Lake) -> None:
    lake.append("b", events=plays(1))
    with pytest.raises(DataError, match="append to the lake itself"):
        lake.before(at(5)).append("c", events=plays(2))
    with pytest.raises(DataError, match="batch='' given"):
        lake.append("", events=plays(2))


def test_a_folder_that_cannot_hold_a_lake_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        Lake.open(tmp_path / "file")
    with pytest.raises(DataError, match="holds '\\['"):
        Lake.open(tmp_path / "lake[1]")


def test_a_second_door_to_the_same_folder_sees_every_batch(tmp_path: Path) -> None:
    one, other = Lake.open(tmp_path / "lake"), Lake.open(tmp_path / "lake")
    for i in range(34):
        (one if i % 2 else other).append(f"b{i}", events=plays(i, name=f"b{i}-"))
    assert one.events.height == other.events.height == 34
    assert one.append("b3", events=plays(3, name="b3-")).already


# -- several processes ---------------------------------------------------------------------------

WRITER = """
import sys
sys.path[:0] = [{source!r}, {tests!r}]
from test_lake import tables
from longplay.lake import Lake
lake = Lake.open({folder!r})
print("ready", flush=True)
for name in {names!r}:
    lake.append(name, **tables(name))
    print(name, flush=True)
"""


def start_writer(folder: Path, names: list[str]) -> subprocess.Popen[str]:
    code = WRITER.format(
        source=str(SOURCE), tests=str(Path(__file__).parent), folder=str(folder), names=names
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def batches_by_table(lake: Lake) -> dict[str, dict[str, int]]:
    """Rows per batch, in every table that a batch writes."""
    ids = {
        "events": "event_id",
        "decisions": "decision_id",
        "contexts": "context_id",
        "items": "item_id",
    }
    counts = {}
    for table, column in ids.items():
        batch = getattr(lake, table)[column].str.split("-").list.first()
        counts[table] = dict(batch.value_counts().iter_rows())
    return counts


def test_a_writer_killed_at_any_moment_leaves_every_batch_whole_or_absent(tmp_path: Path) -> None:
    names = [f"b{i}" for i in range(200)]
    rng = random.Random(7)
    acknowledged: set[str] = set()
    for _ in range(9):
        writer = start_writer(tmp_path / "lake", names)
        assert writer.stdout is not None
        acknowledged |= {
            writer.stdout.readline().strip()
            for _ in range(len(acknowledged) + 1 + rng.randrange(2))
        }
        time.sleep(rng.uniform(0.0, 0.2))
        writer.send_signal(signal.SIGKILL)
        acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
        writer.stdout.close()
        writer.wait()
        counts = batches_by_table(Lake.open(tmp_path / "lake"))
        whole = set(counts["events"])
        assert acknowledged <= whole
        assert counts == {
            table: dict.fromkeys(whole, rows)
            for table, rows in (("events", 3), ("decisions", 2), ("contexts", 2), ("items", 1))
        }
    assert len(whole) < len(names)
    lake = Lake.open(tmp_path / "lake")
    target = names[: len(whole) + 3]
    assert [lake.append(name, **tables(name)).already for name in target] == [True] * len(whole) + [
        False
    ] * 3
    assert batches_by_table(lake)["events"] == dict.fromkeys(target, 3)
    assert lake.events["event_id"].n_unique() == lake.events.height == 3 * len(target)


def test_what_a_dead_writer_left_in_the_tables_is_invisible_and_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.open(tmp_path / "lake")
    for round_, height in (
        (0, 0),
        (1, 3),
        (2, 6),
    ):  # the first finds no table of its own to go back to
        for attempt in range(1 + round_):
            with monkeypatch.context() as patch:
                patch.setattr(CommitLog, "append", dies)
                with pytest.raises(Died):
                    lake.append(f"torn{round_}-{attempt}", **tables(f"torn{round_}-{attempt}"))
        assert lake.events.height == Lake.open(tmp_path / "lake").events.height == height
        lake.append(f"b{round_}", **tables(f"b{round_}"))
        assert set(batches_by_table(lake)["events"]) == {f"b{i}" for i in range(round_ + 1)}
        assert (
            pl.read_delta(str(tmp_path / "lake" / "events")).height == height + 3
        )  # other programs see the same


class Died(BaseException):
    """A writer stops here."""


def dies(*_: object) -> None:
    raise Died


def test_two_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    shared = [f"s{i}" for i in range(4)]
    names = [
        [x for pair in zip([f"{who}{i}" for i in range(4)], shared, strict=True) for x in pair]
        for who in ("x", "y")
    ]
    writers = [start_writer(tmp_path / "lake", mine) for mine in names]
    assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0]
    counts = batches_by_table(Lake.open(tmp_path / "lake"))
    assert counts["events"] == dict.fromkeys({*names[0], *names[1]}, 3)
    assert counts["decisions"] == dict.fromkeys({*names[0], *names[1]}, 2)


# -- the quick way through the checked door ---------------------------------------------------------

HOSTILE: dict[Any, list[Any]] = {
    pl.String: [None, "", "12.0", "007", "é", "a\nb"],
    pl.Float64: [None, 0.0, -1.0, float("nan"), float("inf"), 1.0, 1e-12],
    pl.Int32: [None, -1, 0, 2**31 - 1],
    pl.Int64: [None, -1, 2**40],
    pl.Boolean: [None, False],
    TIME: [None, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    pl.List(pl.String): [None, [], ["a", "a"], ["a", None], ["12.0"], [""]],
    pl.List(pl.Float64): [None, [], [0.0], [1e-12, -1.0], [0.5], [float("nan")], [None, -1.0]],
    pl.List(TIME): [None, [], [datetime(2026, 1, 1, tzinfo=UTC)], [None]],
}


@pytest.mark.parametrize(("table", "column"), [(t, c) for t in TABLES for c in TABLES[t]])
def test_what_passes_the_one_query_is_what_the_checks_one_by_one_let_pass(
    table: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hostile value per column and type: the same frame, or the same refusal."""
    rows = one_row_of(table)

    def conformed() -> pl.DataFrame | str:
        try:
            return conform(frame, table)
        except DataError as error:
            return str(error)

    for value in HOSTILE[TABLES[table][column].dtype]:
        hostile = pl.Series(column, [value], dtype=rows.schema[column])
        frame = pl.concat([rows, rows.with_columns(hostile)])
        quick = conformed()
        with monkeypatch.context() as patch:
            patch.setattr(schema, "_clear", lambda *_: None)
            slow = conformed()
        if isinstance(slow, str):
            assert quick == slow, value
        else:
            assert isinstance(quick, pl.DataFrame), value
            assert_frame_equal(quick, slow)


@pytest.mark.parametrize("table", TABLES)
def test_a_valid_table_of_the_right_types_passes_the_one_query(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(schema, "refuse_bad_rows")  # what the checks one by one end with
    assert_frame_equal(conform(one_row_of(table), table), one_row_of(table))


def one_row_of(table: str) -> pl.DataFrame:
    """A valid row with every column."""
    values: dict[Any, Any] = {
        pl.String: "a",
        pl.Float64: 1.0,
        pl.Int32: 2,
        pl.Int64: 2,
        pl.Boolean: True,
        TIME: datetime(2026, 1, 1, tzinfo=UTC),
        pl.List(pl.String): ["a", "b"],
        pl.List(pl.Float64): [-1.0, -2.0],
        pl.List(TIME): [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
    }
    row = {name: values[column.dtype] for name, column in TABLES[table].items()}
    own = {
        "exclusion_rule": "seen",
        "user_attributes": '{"country": "SE"}',
        "attributes": '{"country": "SE"}',
        "shown_time": [datetime(2025, 12, 31, tzinfo=UTC)] * 2,
    }
    row |= {name: value for name, value in own.items() if name in row}
    return pl.DataFrame([row], schema=DTYPES[table])


def test_a_copy_of_a_lake_in_memory_goes_its_own_way() -> None:
    lake = Lake.memory()
    lake.append("b", events=plays(1, 2))
    view = lake.before(at(2))
    copied, copied_view = copy.deepcopy([lake, view])
    copied.append("c", events=plays(5, name="c"), watermark=at(9))
    assert lake.append("c", events=plays(7, name="l"), watermark=at(8)).rows["events"] == 1
    assert copied.append("b", events=plays(1, 2)).already
    assert copied.events["event_id"].to_list() == ["e0", "e1", "c0"]
    assert lake.events["event_id"].to_list() == ["e0", "e1", "l0"]
    assert (copied.watermark, lake.watermark) == (at(9), at(8))
    assert copied_view.events["event_id"].to_list() == ["e0"]
    assert copied.key != lake.key


def test_a_lake_in_a_folder_is_not_copied(tmp_path: Path) -> None:
    """Two copies would write into one folder."""
    with pytest.raises(DataError, match="copy a lake in memory, or open a copy of the folder"):
        copy.deepcopy(Lake.open(tmp_path / "lake"))
