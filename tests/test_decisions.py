"""What a policy sees is what had happened and arrived by then; what it says has one shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from longplay.decisions import Contexts, Decisions, contexts_at, contexts_from_log, outside
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.lake.schema import DTYPES, ENGAGED

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CREATORS = {"i1": "c1", "i2": "c1", "i3": "c2", "i4": None}
COLUMNS = ("event_id", "user_id", "item_id", "creator_id", "kind", "time", "ingested_at")

Row = dict[str, Any]


def lake_of(events: list[Row], until: datetime = NOON + 100 * DAY) -> Lake:
    lake = Lake.memory()
    items = pl.DataFrame(
        {"item_id": list(CREATORS), "creator_id": list(CREATORS.values())}
    ).with_columns(added_at=pl.lit(NOON - 100 * DAY))
    frame = (
        pl.DataFrame(events, schema={name: DTYPES["events"][name] for name in COLUMNS})
        if events
        else None
    )
    lake.append("all", events=frame, items=items, watermark=until)
    return lake


def event(
    number: int,
    user: str,
    item: str | None,
    time: datetime,
    *,
    creator: str | None = None,
    kind: str = "play",
    late: timedelta = timedelta(0),
) -> Row:
    known = creator if item is None else CREATORS[item]
    return dict(
        zip(COLUMNS, (f"e{number:03}", user, item, known, kind, time, time + late), strict=True)
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    events = []
    for number in range(draw(st.integers(1, 14))):
        item = draw(st.sampled_from((None, *CREATORS)))
        time = NOON + draw(st.sampled_from((-12, -12, 0, 0, 1, 11, 12, 13, 24, 36, 60))) * HOUR
        late = draw(st.sampled_from((0, 0, 0, 1, 30))) * HOUR
        kind, user = (
            draw(st.sampled_from(("play", "follow", "skip"))),
            draw(st.sampled_from(("u1", "u2"))),
        )
        events.append(
            event(
                number,
                user,
                item,
                time,
                creator=draw(st.sampled_from((None, "c1"))),
                kind=kind,
                late=late,
            )
        )
    return events


# -- contexts and decisions as tables
# ---------------------------------------------------------------------


def test_contexts_carry_what_was_given_and_see_nothing_after_their_time() -> None:
    times = [NOON, NOON + HOUR]
    contexts = Contexts.of(
        ["u1", "u2"],
        times,
        slots=3,
        history=[["i1", "i2"], []],
        exclusions=[[], ["i3"]],
        surface="search",
        temperature=0.5,
    )
    frame = contexts.frame
    assert frame.schema == DTYPES["contexts"]
    assert frame["history"].to_list() == [["i1", "i2"], []]
    assert frame["exclusions"].to_list() == [[], ["i3"]]
    assert frame["history_until"].to_list() == frame["time"].to_list() == times
    assert (contexts.slots, frame["surface"].to_list(), frame["temperature"].to_list()) == (
        3,
        ["search"] * 2,
        [0.5] * 2,
    )
    assert frame["context_id"].is_unique().all()
    assert Contexts.of(["u1", "u1"], NOON, slots=1).frame["context_id"].n_unique() == 2
    for ids in (["7", "x"], np.array([7, 8]), pl.Series([7, 8])):
        named = Contexts.of(["u1", "u1"], NOON, slots=1, ids=ids)
        assert named.frame["context_id"].to_list() == [str(name) for name in ids]
    assert contexts.at_temperature(2).frame["temperature"].to_list() == [2.0, 2.0]


def test_words_stand_in_front_of_every_context_or_of_none() -> None:
    asked = Contexts.of(["u", "v"], NOON, slots=1, prompt="quiet piano")
    assert asked.frame["prompt"].to_list() == ["quiet piano"] * 2
    assert_frame_equal(
        Contexts.of(["u", "v"], NOON, slots=1).prompted("quiet piano").frame, asked.frame
    )
    assert asked.prompted(None).frame["prompt"].to_list() == [None, None]


def test_take_follows_the_rows_in_order_with_repeats() -> None:
    contexts = Contexts.of(["a", "b", "c"], NOON, slots=1)
    assert contexts.take([2, 0, 2]).frame["user_id"].to_list() == ["c", "a", "c"]
    assert len(contexts.take([])) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slots": 0}, "slots=0 given, expected at least 1"),
        ({"temperature": 0.0}, "temperature=0.0 given, expected a positive number"),
        ({"temperature": float("nan")}, "temperature=nan given"),
        ({"time": [NOON]}, "2 users but 1 of time"),
        ({"history": [["i1"]]}, "2 users but 1 of history"),
        ({"exclusions": [[], [], []]}, "2 users but 3 of exclusions"),
        ({"time": NOON.replace(tzinfo=None)}, "no time zone; give UTC"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Contexts.of(["u1", "u2"], **({"time": NOON, "slots": 1} | given))


def test_contexts_with_different_numbers_of_slots_are_not_decided_together() -> None:
    both = pl.concat([Contexts.of(["u1"], NOON, slots=slots).frame for slots in (1, 2)])
    with pytest.raises(DataError, match="2 different numbers of slots"):
        _ = Contexts(both).slots
    with pytest.raises(DataError, match="positive number"):
        Contexts(both).at_temperature(0)


def test_tables_that_do_not_conform_are_refused_with_the_column() -> None:
    frame = Contexts.of(["u1"], NOON, slots=1).frame
    with pytest.raises(DataError, match="contexts: unknown column 'mood'"):
        Contexts(frame.with_columns(mood=pl.lit(1)))
    with pytest.raises(DataError, match="contexts: column 'user_id' is missing"):
        Contexts(frame.drop("user_id"))
    with pytest.raises(DataError, match="contexts: 1 of 1 rows have no 'user_id'"):
        Contexts(frame.with_columns(user_id=pl.lit(None, dtype=pl.String)))
    with pytest.raises(DataError, match="contexts: column 'slots' is String"):
        Contexts(frame.with_columns(slots=pl.lit("many")))


def test_decisions_keep_slate_and_log_probability_side_by_side() -> None:
    contexts = Contexts.of(["u1", "u2"], NOON, slots=2, temperature=0.5)
    log_prob = np.array([[-1.0, -2.0], [-3.0, -4.0]])
    decisions = Decisions.of(
        contexts, pl.Series([["i1", "i2"], ["i3", "i4"]]), log_prob, "p@1", trie_version="t1"
    )
    assert decisions.slates.to_list() == [["i1", "i2"], ["i3", "i4"]]
    assert decisions.log_prob.tolist() == log_prob.tolist()
    frame = decisions.frame
    assert frame.schema == DTYPES["decisions"]
    assert frame["context_id"].to_list() == contexts.frame["context_id"].to_list()
    assert frame["user_id"].to_list() == ["u1", "u2"]
    assert (
        frame["policy"][0],
        frame["trie_version"][0],
        frame["temperature"][0],
        frame["fallback"][0],
    ) == ("p@1", "t1", 0.5, False)
    assert (len(Decisions.none()), Decisions.none().log_prob.shape) == (0, (0, 0))


def test_decisions_that_do_not_fit_are_refused() -> None:
    contexts, slates = (
        Contexts.of(["u1", "u2"], NOON, slots=2),
        pl.Series([["i1", "i2"], ["i3", "i4"]]),
    )
    with pytest.raises(DataError, match="2 slates have more or fewer log-probabilities than items"):
        Decisions.of(contexts, slates, np.zeros((2, 3)), "p@1")
    with pytest.raises(DataError, match=r"2 contexts, 1 slates and log_prob of shape \(1, 2\)"):
        Decisions.of(contexts, slates[:1], np.zeros((1, 2)), "p@1")
    with pytest.raises(DataError, match=r"log_prob of shape \(2,\)"):
        Decisions.of(contexts, slates, np.zeros(2), "p@1")
    frames = [
        Decisions.of(
            Contexts.of(["u1"], NOON, slots=n),
            pl.Series([["i1", "i2"][:n]]),
            np.zeros((1, n)),
            "p@1",
        ).frame
        for n in (1, 2)
    ]
    with pytest.raises(DataError, match=r"slates of \[1, 2\] slots in one array"):
        _ = Decisions(pl.concat(frames)).log_prob


# -- item ids <-> rows
# ---------------------------------------------------------------------------------------


def test_unknown_ids_are_minus_one_and_never_another_item() -> None:
    index = ItemIndex(["i2", "i1"])
    assert index.rows(pl.Series(["i1", "nobody", None, "i2"])).tolist() == [1, -1, -1, 0]
    with pytest.raises(DataError, match="row numbers -1 to 1 given, expected 0 to 1"):
        index.slates(np.array([[-1, 1]]))
    with pytest.raises(DataError, match="row numbers 0 to 2 given"):
        index.slates(np.array([[0, 2]]))
    with pytest.raises(DataError, match="item 'i9' is not in this policy's catalogue of 2 items"):
        index.slate_rows(pl.Series([["i1", "i2"], ["i2", "i9"]]))
    with pytest.raises(DataError, match=r"lengths \[1, 2\] in one call"):
        index.slate_rows(pl.Series([["i1", "i2"], ["i2"]]))


def test_ids_of_one_hash_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(ids: pl.Series, seed: int = 0) -> pl.Series:
        return pl.Series([ord(one[seed]) for one in ids], dtype=pl.UInt64)

    monkeypatch.setattr(pl.Series, "hash", hashed)
    index = ItemIndex(
        ["bx", "by", "aw"]
    )  # first characters alike: the second ones must tell them apart
    assert index.rows(pl.Series(["by", "aw", "cx", "bx", "az"])).tolist() == [
        1,
        2,
        -1,
        0,
        -1,
    ]  # "cx" has the hash of "bx"
    assert ItemIndex([]).rows(pl.Series(["bx"])).tolist() == [-1]


def test_a_catalogue_that_names_an_item_twice_is_refused() -> None:
    with pytest.raises(DataError, match="catalogue: 1 item ids occur twice"):
        ItemIndex(["i1", "i2", "i1"])


@given(st.integers(0, 4), st.integers(1, 5), st.integers(1, 8), st.randoms(use_true_random=False))
@examples(40)
def test_slates_survive_the_round_trip_through_rows(
    n: int, slots: int, items: int, random: Any
) -> None:
    index = ItemIndex([f"item {number}" for number in range(items)])
    rows = np.array(
        [[random.randrange(items) for _ in range(slots)] for _ in range(n)], dtype=np.int64
    ).reshape(n, slots)
    slates = index.slates(rows)
    assert slates.to_list() == [[f"item {row}" for row in slate] for slate in rows.tolist()]
    back = index.slate_rows(slates)
    assert back.tolist() == rows.tolist()


@given(st.lists(st.lists(st.sampled_from(("i1", "i2", "i9")), max_size=4), max_size=5))
@examples(60)
def test_ragged_rows_find_each_lists_own_items(lists: list[list[str]]) -> None:
    number = {"i1": 0, "i2": 1, "i9": -1}
    offsets, rows = ItemIndex(["i1", "i2"]).ragged_rows(pl.Series(lists, dtype=pl.List(pl.String)))
    assert [rows[offsets[n] : offsets[n + 1]].tolist() for n in range(len(lists))] == [
        [number[item] for item in items] for items in lists
    ]


# -- moments of the log
# ----------------------------------------------------------------------------------------


def past_of(events: list[Row], user: str, time: datetime) -> list[Row]:
    mine = [
        row
        for row in events
        if row["user_id"] == user
        and row["kind"] in ENGAGED
        and row["time"] < time
        and row["ingested_at"] <= time
    ]
    return sorted(mine, key=lambda row: (row["time"], row["item_id"] or ""))


def excluded(past: list[Row], exclude: str) -> set[str | None]:
    if exclude == "none":
        return set()
    if exclude == "seen":
        return {row["item_id"] for row in past} - {None}
    met = {row["creator_id"] for row in past} - {None}
    return {item for item, creator in CREATORS.items() if creator in met}


@given(logs(), st.sampled_from(("seen", "creator", "none")), st.integers(0, 3))
@examples(60)
def test_each_moment_is_the_first_of_a_day_and_sees_only_its_own_past(
    events: list[Row], exclude: str, history: int
) -> None:
    firsts = {}
    for row in sorted(events, key=lambda row: row["time"]):
        if row["kind"] in ENGAGED:
            firsts.setdefault((row["user_id"], row["time"].date()), row["time"])
    assume(firsts)
    contexts = contexts_from_log(
        lake_of(events), slots=2, history=history, exclude=exclude, surface="radio"
    )
    assert contexts.frame.select("time", "user_id").rows() == sorted(
        (time, user) for (user, _), time in firsts.items()
    )
    assert set(contexts.frame["surface"]) == {"radio"}
    for row in contexts.frame.iter_rows(named=True):
        past = past_of(events, row["user_id"], row["time"])
        touched = [event["item_id"] for event in past if event["item_id"] is not None]
        assert row["history"] == (touched[-history:] if history else [])
        assert set(row["exclusions"]) == excluded(past, exclude)
        assert len(set(row["exclusions"])) == len(row["exclusions"])


@given(logs(), logs(), st.sampled_from((0, 1, 12, 24, 40)), st.sampled_from(("seen", "creator")))
@examples(60)
def test_later_events_and_later_arrivals_change_no_earlier_context(
    events: list[Row], other: list[Row], hours: int, exclude: str
) -> None:
    as_of = NOON + hours * HOUR
    later = []
    for number, row in enumerate(other):
        moved = (
            {"time": as_of + number * HOUR, "ingested_at": as_of + number * HOUR}
            if number % 2 or row["time"] >= as_of
            else {"ingested_at": as_of + HOUR}
        )
        later.append({**row, "event_id": f"later{number}", **moved})
    few, many = lake_of(events), lake_of(events + later)
    moments = pl.DataFrame(
        {
            "user_id": ["u1", "u2"] * 3,
            "time": [as_of, as_of, as_of - HOUR, as_of - HOUR, NOON - DAY, NOON - DAY],
        }
    )
    asked = {"slots": 1, "history": 5, "exclude": exclude}
    assert_frame_equal(
        contexts_at(few, moments, **asked).frame, contexts_at(many, moments, **asked).frame
    )
    assume(
        any(
            row["kind"] in ENGAGED and row["time"] < as_of and row["ingested_at"] <= as_of
            for row in events
        )
    )
    assert_frame_equal(
        contexts_from_log(few.before(as_of), **asked).frame,
        contexts_from_log(many.before(as_of), **asked).frame,
    )


def test_following_a_creator_excludes_its_items_though_none_was_played() -> None:
    lake = lake_of(
        [event(0, "u1", None, NOON, creator="c1", kind="follow"), event(1, "u1", "i3", NOON + DAY)]
    )
    moments = pl.DataFrame({"user_id": ["u1"], "time": [NOON + DAY]})
    assert contexts_at(lake, moments, slots=1, history=5, exclude="creator").frame[
        "exclusions"
    ].to_list() == [["i1", "i2"]]
    assert contexts_at(lake, moments, slots=1, history=5, exclude="seen").frame[
        "exclusions"
    ].to_list() == [[]]


def test_the_period_is_half_open_and_a_limit_draws_the_same_moments_for_a_seed() -> None:
    lake = lake_of([event(n, "u1", "i1", NOON + n * DAY) for n in range(30)])

    def days(**more: Any) -> list[int]:
        return (
            contexts_from_log(lake, slots=1, history=1, **more)
            .frame["time"]
            .dt.ordinal_day()
            .to_list()
        )

    first = NOON.timetuple().tm_yday
    assert days(start=NOON + DAY, end=NOON + 3 * DAY) == [first + 1, first + 2]
    drawn = days(limit=10, seed=1)
    assert drawn == days(limit=10, seed=1)
    assert drawn != days(limit=10, seed=2)
    assert (drawn, len(set(drawn))) == (sorted(drawn), 10)
    assert days(limit=100) == days()


def test_an_empty_period_and_an_unknown_exclusion_are_refused() -> None:
    lake = lake_of([event(0, "u1", "i1", NOON)])
    with pytest.raises(DataError, match="no user is active in the period"):
        contexts_from_log(lake, slots=1, history=1, start=NOON + DAY)
    with pytest.raises(DataError, match="exclude='all' given, expected one of seen, creator, none"):
        contexts_from_log(lake, slots=1, history=1, exclude="all")
    with pytest.raises(DataError, match="exclude='all' given"):
        contexts_at(
            lake,
            pl.DataFrame({"user_id": ["u1"], "time": [NOON]}),
            slots=1,
            history=1,
            exclude="all",
        )


def test_the_first_candidates_outside_a_prefix_keep_their_order() -> None:
    prefix, candidates = np.array([[7, 2], [1, 5]]), np.array([[2, 9, 7, 4], [8, 1, 3, 5]])
    assert outside(prefix, candidates, 2).tolist() == [[9, 4], [8, 3]]
