"""Outcomes in files equal those in memory, in one pass and night by night; late events re-open
their days; a killed update changes nothing."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import (
    CATALOGUE,
    DAY,
    EARLIEST,
    EPOCH,
    FAR_MOMENT,
    GROWING,
    LEAP,
    MICRO,
    NAMELESS,
    YEARS_MOMENT,
    Log,
    Row,
    decisions_frame,
    events_frame,
    logs,
    midnight,
    refuses,
    signals,
)

from longplay.errors import ConfigError, DataError, LongplayError
from longplay.lake import Lake
from longplay.signals import (
    Signal,
    active_days,
    cancelled,
    completion,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    habits,
    minutes,
    plays,
    returned,
    saves,
    sessions,
    skips,
    time_to_return,
    user_day,
)
from longplay.signals.engine import coded_events as coded
from longplay.signals.engine import event_source
from longplay.signals.engine.range_sums import range_sums
from longplay.signals.outcomes.in_files import base_rates, write_outcomes
from longplay.signals.store.manifest import Manifest
from longplay.signals.store.nightly import NightlyUpdate
from longplay.signals.store.signal_store import SignalStore

FOREVER = datetime(9000, 1, 1, tzinfo=UTC)
SOME_DAYS = ((LEAP - EPOCH).days, (LEAP - EPOCH).days + 60)
COLUMNS = (
    "user_id",
    "item_id",
    "creator_id",
    "day",
    "truncated",
    "value",
    "matures_at",
    "duration",
    "event",
    "baseline",
)


def rows_of(frame: pl.DataFrame, signal: Signal) -> list[Row]:
    """What files know of outcomes, in an order of their own; numbers to nine digits."""
    keys = (
        {"user_id"}
        | ({f"{signal.entry.of}_id"} if signal.entry.of else set())
        | ({"item_id", "creator_id"} if signal.entry.kind == "exposure" else set())
    )
    named = [
        name
        for name in COLUMNS
        if name in frame.columns and (not name.endswith("_id") or name in keys)
    ]
    numbers = [pl.col(name).round(8) for name in ("value", "baseline") if name in named]
    rows = frame.select(named).with_columns(numbers).to_dicts()
    return sorted(
        rows,
        key=lambda row: (
            str({name: row[name] for name in named if name not in ("value", "baseline")})
            + str(row["value"])
        ),
    )


def in_memory(signal: Signal, lake: Lake) -> list[Row] | None:
    """The outcomes of a lake, null where it cannot answer."""
    try:
        return rows_of(signal.outcomes(lake).frame, signal)
    except DataError:
        return None


def refused_in_files(signal: Signal) -> bool:
    measures = [
        one
        for one in (signal.measure, signal.measure.per)
        if one is not None and one.kind != "habits"
    ]
    return (
        signal.entry.of == "item"
        and signal.entry.kind != "exposure"
        and any(one.of == "creator" for one in measures)
    )


@given(
    st.lists(signals(), min_size=1, max_size=4),
    logs(),
    st.sampled_from((0, coded.LEAST_ROLLUPS)),
    st.sampled_from((2, 10**6)),
)
@examples(60, share=6)
def test_files_written_in_one_pass_equal_the_outcomes_in_memory(
    tmp_path_factory: Any, several: list[Signal], log: Log, least: int, at_once: int
) -> None:
    several = [
        Signal(f"s{n}", one.entry, one.measure, one.window, one.origin, one.gameable)
        for n, one in enumerate(several)
    ]
    assume(not any(refuses(one, log) for one in several))
    if any(refused_in_files(one) for one in several):
        with pytest.raises(ConfigError, match="enter by creator"):
            write_outcomes(
                several, log.lake(), tmp_path_factory.mktemp("outcomes"), as_of=log.as_of
            )
        return
    lake, folder = log.lake(), tmp_path_factory.mktemp("outcomes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded, "LEAST_ROLLUPS", least)  # 0: always from a table of numbers
        patch.setattr(
            coded, "CATALOGUE_SHARE", 10**6
        )  # so that also the catalogue is asked, which does not list everything
        patch.setattr(coded, "EVENTS_PER_PART", at_once)
        written = write_outcomes(several, lake, folder, as_of=log.as_of)
    for signal in several:
        expected = signal.outcomes(lake, as_of=log.as_of).frame
        assert rows_of(pl.read_parquet(written[signal.label]), signal) == rows_of(expected, signal)


@given(st.lists(signals(), min_size=1, max_size=3), logs(), st.booleans())
@examples(30, share=6)
def test_base_rates_in_one_pass_are_those_of_the_outcomes_or_say_why_not(
    several: list[Signal], log: Log, truncated: bool
) -> None:
    several = [
        Signal(f"s{n}", one.entry, one.measure, one.window, one.origin, one.gameable)
        for n, one in enumerate(several)
    ]
    lake = log.lake()
    for signal, found in base_rates(several, lake, log.as_of, truncated=truncated).items():
        if isinstance(found, LongplayError):
            with pytest.raises(LongplayError, match=re.escape(str(found))):
                signal.outcomes(lake, log.as_of)
            continue
        outcomes = signal.outcomes(lake, log.as_of)
        assert (found.entries, found.mature, found.truncated) == (
            len(outcomes),
            int(outcomes.mature.sum()),
            outcomes.truncated,
        )
        if (outcomes if truncated else outcomes.certain()).frame["value"].is_null().all():
            assert found.rate is None
        else:
            rate = outcomes.base_rate(truncated=truncated)
            assert found.rate is not None
            assert (found.rate.value, found.rate.std_error, found.rate.n) == pytest.approx(
                (rate.value, rate.std_error, rate.n)
            )


def test_who_is_enrolled_and_never_comes_keeps_a_name(tmp_path: Path) -> None:
    lake, signal = Lake.memory(), Signal("active", enrolment(), active_days(), (1, 3))
    shown = {
        "decision_id": "d",
        "context_id": "k",
        "user_id": "u9",
        "time": LEAP,
        "surface": "home",
        "slate": ["i1"],
        "log_prob": [-1.0],
    }
    append(
        lake,
        "0",
        [play(0, 0.5)],
        [shown | {"policy": "p@1", "experiment": "trial", "ingested_at": LEAP}],
        LEAP + 40 * DAY,
    )
    frame = pl.read_parquet(write_outcomes([signal], lake, tmp_path)[signal.label])
    assert sorted(frame["user_id"]) == sorted(signal.outcomes(lake).frame["user_id"])
    assert ("u9", 0.0) in frame.select("user_id", "value").rows()


TOGETHER = (
    Signal("back", user_day(), returned(), (1, 3)),
    Signal("gone", user_day(), cancelled(), (1, 3)),
    Signal("active", enrolment(), active_days(), (1, 3)),
    Signal("habit", discovery(7), days_with("creator") >= 2, (1, 3)),
    Signal("first", discovery(None), days_with("creator"), (1, 3)),
    Signal("regret", discovery(3, "item"), skips("item") >= 1, (0, 0)),
    Signal("saved", event("save", "item"), days_with("item") >= 1, (1, 3)),
    Signal("variety", enrolment(), habits("creator", 1), (1, 3)),
    Signal("returns", user_day(dormant_for=3), active_days() >= 1, (1, 3)),
)


@given(
    logs(),
    st.sets(st.sampled_from(TOGETHER), min_size=2),
    st.sampled_from((2, 5, 10**6)),
    st.sampled_from((coded.LEAST_ROLLUPS, 10**6)),
)
@examples(80, share=6)
def test_units_put_together_from_finer_ones_are_those_of_the_events(
    tmp_path_factory: Any, log: Log, several: set[Signal], at_once: int, least: int
) -> None:
    asked = [
        one for one in TOGETHER if one in several and not refuses(one, log)
    ]  # items of two creators are among these logs
    assume(len(asked) > 1)
    lake, folder = log.lake(), tmp_path_factory.mktemp("together")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_source, "EVENTS_PER_PART", at_once)  # in how many parts a log is taken
        patch.setattr(coded, "EVENTS_PER_PART", at_once)
        patch.setattr(coded, "LEAST_ROLLUPS", least)
        written = write_outcomes(asked, lake, folder, as_of=log.as_of)
    for signal in asked:
        assert rows_of(pl.read_parquet(written[signal.label]), signal) == rows_of(
            signal.outcomes(lake, as_of=log.as_of).frame, signal
        )


@pytest.mark.parametrize("code", ["hash({})", "hash({}) % 3"])
def test_two_ids_of_one_number_are_found_and_the_log_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    lake = Lake.memory()
    events = [
        play(10 * user + day, day + 0.1 * user, user=f"u{user}", item=f"i{user}")
        for user in range(5)
        for day in (0, 1, 5)
    ]
    append(
        lake,
        "0",
        [
            *events,
            play(90, 2.5, kind="save"),
            play(91, 2.6, kind="skip"),
            play(92, 30.5, kind="cancel"),
        ],
        [],
        LEAP + 60 * DAY,
    )
    monkeypatch.setattr(coded, "CODE", code)
    with lake.connect() as con:
        tables = con.execute("select table_name from duckdb_tables()").fetchall()
        if "%" in code:
            with pytest.raises(coded.SharedNumber):
                list(coded.coded_rows(con, TOGETHER, 20, SOME_DAYS))
        else:
            assert len(list(coded.coded_rows(con, TOGETHER, 20, SOME_DAYS))) == 1
        assert con.execute("select table_name from duckdb_tables()").fetchall() == tables
    written = write_outcomes(TOGETHER, lake, tmp_path)
    for signal in TOGETHER:
        assert rows_of(pl.read_parquet(written[signal.label]), signal) == rows_of(
            signal.outcomes(lake).frame, signal
        )


AMOUNTS = st.tuples(
    st.sampled_from("uv"), st.integers(0, 6), *[st.sampled_from((0, 1, 2, 2**49 - 1))] * 3
)  # thirteen of them are below 2^53


@given(
    st.lists(AMOUNTS, max_size=12),
    st.sampled_from(((0, 0), (1, 2), (-2, -1), (-1, 3))),
    st.booleans(),
)
@examples(60, share=6)
def test_sums_of_the_same_days_do_not_run_into_one_another(
    amounts: list[tuple[str, int, int, int, int]], window: tuple[int, int], asked: bool
) -> None:
    amounts = [*amounts, ("w", 3, 1, 1, 1)]
    rows = " union all ".join(
        f"select '{u}' as user_id, {day} as day, {a} as a, {b} as b, {c} as c"
        for u, day, a, b, c in amounts
    )
    entries = (
        "select unnest(['u', 'w', 'nobody']) as user_id, null as key, 3 as day" if asked else None
    )
    sums = {"x": ("a", *window), "y": ("b", *window), "other": ("b", 0, 1), "z": ("c", *window)}
    found = duckdb.sql(range_sums("user", entries, rows, sums)).fetchall()

    def total(user: str, day: int, place: int, window: tuple[int, int]) -> int:
        return sum(
            row[place]
            for row in amounts
            if row[0] == user and window[0] <= row[1] - day <= window[1]
        )

    days = (
        {(user, 3) for user in ("u", "w", "nobody")}
        if asked
        else {(user, day) for user, day, *_ in amounts}
    )
    expected = [
        (
            u,
            None,
            day,
            total(u, day, 2, window),
            total(u, day, 3, window),
            total(u, day, 3, (0, 1)),
            total(u, day, 4, window),
        )
        for u, day in days
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("listed", "others", "found"), [(10**6, 0, 4), (10**6, 1, 3), (0.1, 0, 2)])
def test_ids_come_from_a_small_catalogue_that_lists_all_and_else_from_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: float, others: int, found: int
) -> None:
    lake = Lake.memory()
    items = pl.DataFrame(
        {"item_id": ["i1", "i2", "i3"], "creator_id": ["c1", "c2", None], "added_at": [LEAP] * 3}
    )
    kinds = ["play", "save", "skip", "cancel", "play"]
    events = [
        play(n, day + 0.5, kind=kind)
        for n, (day, kind) in enumerate(zip((0, 1, 1, 2, 9), kinds, strict=True))
    ]
    events += [play(50 + n, 3.5, item=f"other{n}") for n in range(others)] + [
        play(60, 4.5, kind="visit") | {"item_id": None, "creator_id": None}
    ]
    lake.append("0", events=events_frame(events), items=items, watermark=LEAP + 60 * DAY)
    monkeypatch.setattr(coded, "CATALOGUE_SHARE", listed)
    with lake.connect() as con:
        counts = [
            con.execute("select count(*) from item_creators").fetchall()
            for _ in coded.coded_rows(con, TOGETHER, len(events), SOME_DAYS)
        ]
    assert counts == [[(found,)]]  # three and nothing; one, the other and nothing; one and nothing
    written = write_outcomes(TOGETHER, lake, tmp_path)
    for signal in TOGETHER:
        assert rows_of(pl.read_parquet(written[signal.label]), signal) == rows_of(
            signal.outcomes(lake).frame, signal
        )


@pytest.mark.parametrize("windows", [((1, 28), (1, 7)), ((1, 7), (1, 28))])
def test_habits_of_several_windows_do_not_share_the_days_of_the_last(
    tmp_path: Path, windows: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    lake = Lake.memory()
    append(lake, "0", [play(day, day + 0.5) for day in (0, 1, 20)], [], LEAP + 40 * DAY)
    several = [
        Signal(f"s{stop}", enrolment(), habits("creator", 2), (start, stop))
        for start, stop in windows
    ]
    written = write_outcomes(several, lake, tmp_path)
    values = {
        signal.name: pl.read_parquet(written[signal.label])["value"].to_list() for signal in several
    }
    assert values == {"s28": [1.0], "s7": [0.0]}  # days 1 and 20; day 1 alone


# -- night by night
# ----------------------------------------------------------------------------------------

KEPT = (
    Signal("back", user_day(), returned(), (1, 7)),
    Signal("active", enrolment(), active_days(), (1, 28)),
    Signal("habit", discovery(7), days_with("creator") >= 2, (1, 28)),
    Signal("first", discovery(None, "item"), minutes("item"), (0, 3)),
    Signal("depth", user_day(), plays() / sessions(), (0, 3)),
    Signal("reactivated", user_day(dormant_for=3), active_days() >= 1, (1, 7)),
    Signal("saved", event("save", "item"), days_with("item") >= 1, (1, 7)),
    Signal("skipped", event("skip", "creator", 3), skips("creator"), (1, 7)),
    Signal("variety", enrolment(), habits("item", 1), (1, 28)),
    Signal("waiting", user_day(), time_to_return(), (1, 7)),
    Signal("above", user_day(), minutes().above_baseline(3), (1, 7)),
    Signal("shown", exposure("creator"), days_with("creator") >= 1, (1, 3)),
    Signal("lasted", discovery(28, "item"), completion("item"), (0, 3)),
)


def append(
    lake: Lake,
    name: str,
    events: list[Row],
    decisions: list[Row],
    watermark: datetime,
    items: pl.DataFrame | None = None,
) -> None:
    lake.append(
        name,
        events=events_frame(events) if events else None,
        decisions=decisions_frame(decisions) if decisions else None,
        items=CATALOGUE if name == "0" and items is None else items,
        watermark=watermark,
        earliest=EARLIEST,
    )


def check(store: SignalStore, lake: Lake) -> None:
    """The store's rows are those of a lake that ends at its midnight."""
    view = lake.before(store.until, known_at=FOREVER)
    for signal in store.signals:
        expected = in_memory(signal, view)
        if expected is not None and signal.label in Manifest.read(store.folder).outcomes:
            assert rows_of(store.outcomes(signal), signal) == expected, signal.name


CHANGED = CATALOGUE.with_columns(creator_id=pl.Series(["c2", "c1", "c2", "c3"]))
CATALOGUES = (None, None, CATALOGUE, NAMELESS, CHANGED, CATALOGUE.head(1), GROWING.tail(2))


@given(
    logs(moments=YEARS_MOMENT),
    st.lists(st.sampled_from((1, 8, 368, 2500)), min_size=1, max_size=2),
    st.data(),
)
@examples(20, share=6)
def test_nights_across_silent_years_equal_outcomes_computed_from_the_whole_log(
    tmp_path_factory: Any, log: Log, nights: list[int], data: st.DataObject
) -> None:
    run_nights(tmp_path_factory, log, nights, data)


@given(
    logs(),
    st.lists(st.integers(0, 40), min_size=1, max_size=2),
    st.sampled_from((2, 32)),
    st.data(),
)
@examples(12, share=6)
def test_every_night_equals_outcomes_computed_from_the_whole_log(
    tmp_path_factory: Any, log: Log, nights: list[int], block: int, data: st.DataObject
) -> None:
    """Batches come when their day is over, some rows nights late; updates come after every batch or
    after several; settled days lie in blocks."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("longplay.signals.store.day_files.SHARED_DAYS", block)
        patched.setattr("longplay.signals.store.day_files.SETTLED_DAYS", block // 8)
        run_nights(tmp_path_factory, log, nights, data)


def run_nights(tmp_path_factory: Any, log: Log, nights: list[int], data: st.DataObject) -> None:
    """See the test above."""
    place = tmp_path_factory.mktemp("store")
    lake, start = (
        Lake.open(place / "lake"),
        min(row["time"] for row in log.events).replace(hour=0, minute=0, second=0, microsecond=0),
    )
    last = max(row["time"] for row in (*log.events, *log.decisions)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    ends = [
        *sorted({start + (night + 1) * DAY + timedelta_of(data) for night in nights}),
        max(start + 90 * DAY, last + 2 * DAY),
    ]
    ends = sorted(set(ends))
    kept = data.draw(st.lists(st.sampled_from(KEPT), min_size=2, max_size=3, unique=True))
    store = SignalStore(place / "store", lake, kept)
    rows = [("events", row) for row in log.events] + [("decisions", row) for row in log.decisions]
    arrives = [data.draw(st.integers(0, len(ends) - 1)) for _ in rows]
    for number, end in enumerate(ends):
        # a row comes with the batch drawn for it, or with the first that ends after it
        items = data.draw(
            st.sampled_from((log.items, *CATALOGUES))
        )  # what it says of an item may change
        batch = [
            row
            for row, at in zip(rows, arrives)
            if max(at, next(n for n, other in enumerate(ends) if row[1]["time"] < other)) == number
        ]
        append(
            lake,
            str(number),
            [row for table, row in batch if table == "events"],
            [row for table, row in batch if table == "decisions"],
            end,
            items,
        )
        if number == len(ends) - 1 or data.draw(st.booleans()):
            store.update()
            check(store, lake)
    fresh = SignalStore(place / "fresh", lake, kept)
    fresh.update()
    for signal in kept:
        if signal.label not in Manifest.read(fresh.folder).outcomes:
            continue
        assert store.outcomes(signal).equals(fresh.outcomes(signal), null_equal=True), signal.name


def timedelta_of(data: st.DataObject) -> Any:
    return data.draw(st.sampled_from((0 * DAY, DAY / 2)))


def play(number: int, day: float, user: str = "u1", item: str = "i1", kind: str = "play") -> Row:
    return {
        "event_id": f"e{number}",
        "user_id": user,
        "item_id": item,
        "creator_id": "c1",
        "kind": kind,
        "time": LEAP + day * DAY,
        "seconds": 30.0,
        "surface": "home",
        "origin": "organic",
        "ingested_at": LEAP + day * DAY,
    }


SOME = (KEPT[0], KEPT[2], KEPT[4])


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where three users play every other day for forty days, a batch a day, and the store is up to
    date."""
    place = tmp_path_factory.mktemp("long")
    lake = Lake.open(place / "lake")
    for day in range(40):
        rows = [play(1_000 * day + n, day + 0.5, f"u{n}") for n in range(3) if (day + n) % 2 == 0]
        append(lake, str(day), rows, [], LEAP + (day + 1) * DAY)
    store = SignalStore(place / "store", lake, SOME)
    store.update()
    check(store, lake)
    return place


@pytest.fixture
def long_log(made_once: Path, tmp_path: Path) -> tuple[Lake, SignalStore]:
    """A copy of `made_once` in `tmp_path`."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    lake = Lake.open(tmp_path / "lake")
    return lake, SignalStore(tmp_path / "store", lake, SOME)


def test_slots_and_skips_before_any_activity_are_kept(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    slot = {
        "decision_id": "d",
        "context_id": "k",
        "user_id": "u1",
        "time": LEAP,
        "surface": "home",
        "slate": ["i1"],
        "log_prob": [-1.0],
    }
    slot |= {"policy": "p@1", "experiment": "trial", "ingested_at": LEAP}
    append(lake, "0", [play(0, 1.5, kind="skip"), play(1, 4.5)], [slot], LEAP + 10 * DAY)
    shown = Signal("shown", exposure("creator"), days_with("creator") >= 1, (1, 5))
    store = SignalStore(tmp_path / "store", lake, (shown, KEPT[1], KEPT[7]))
    store.update()
    check(store, lake)
    assert store.outcomes(shown)["value"].to_list() == [1]
    assert [len(store.outcomes(one)) for one in (KEPT[1], KEPT[7])] == [1, 1]


def test_a_first_activity_that_arrives_late_makes_later_entries_certain(tmp_path: Path) -> None:
    """The log begins with a day that has a cancellation and no activity."""
    lake = Lake.open(tmp_path / "lake")
    append(
        lake,
        "0",
        [play(0, 0.5, "u2", kind="cancel"), play(1, 5.5), play(2, 10.5, "u2")],
        [],
        LEAP + 20 * DAY,
    )
    met, left = (
        Signal("met", discovery(7), plays(), (1, 3)),
        Signal("left", user_day(), cancelled(), (1, 3)),
    )
    store = SignalStore(tmp_path / "store", lake, (met, left))
    store.update()
    check(store, lake)
    assert store.outcomes(met)["truncated"].to_list() == [True, True]
    append(lake, "late", [play(3, 2.5, "u3")], [], LEAP + 20 * DAY)
    store.update()
    check(store, lake)
    assert store.outcomes(met)["truncated"].to_list() == [
        True,
        True,
        True,
    ]  # nobody came again: nothing says when the log begins
    append(lake, "later", [play(4, 3.5, "u3")], [], LEAP + 20 * DAY)
    store.update()
    check(store, lake)
    assert store.outcomes(met)["truncated"].to_list() == [
        True,
        False,
        True,
    ]  # u2 came eight days after the first


def test_a_night_touches_its_own_day_and_the_days_that_mature(
    long_log: tuple[Lake, SignalStore],
) -> None:
    lake, store = long_log
    append(lake, "next", [play(90_000, 40.5)], [], LEAP + 41 * DAY)
    done = store.update()
    first = (LEAP - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert [day - first for day in done.rolled] == [40]
    assert {
        label.split("@")[0]: [day - first for day in days] for label, days in done.computed.items()
    } == {
        "back": [33, 40],  # 40 is new, the window of 33 closed
        "habit": [12, 40],
        "depth": [37, 40],
    }
    assert (done.late, done.users) == ((), 0)
    assert "rolled up 1 days" in str(done)
    check(store, lake)
    assert store.update().rolled == ()  # nothing new: nothing to do


def test_late_events_reopen_exactly_the_days_they_touch(
    tmp_path: Path, long_log: tuple[Lake, SignalStore]
) -> None:
    lake, store = long_log
    before = Manifest.read(tmp_path / "store").rollups
    append(
        lake,
        "late",
        [play(70_001, 5.2, "u1"), play(70_002, 20.2, "u1", "i2"), play(70_003, 20.3, "new")],
        [],
        LEAP + 40 * DAY,
    )
    done = store.update()
    first = (LEAP - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert [day - first for day in done.late] == [5, 20] == [day - first for day in done.rolled]
    assert done.users == 2
    assert "late events re-opened 2 days and 2 users" in str(done)
    after = Manifest.read(tmp_path / "store").rollups
    changed = {
        day - first
        for unit in before
        for day in before[unit]
        if before[unit][day] != after[unit][day]
    }
    assert changed == {5, 20}
    kept = Path(tmp_path / "store" / before["user"][first + 6][0])
    assert kept.exists()
    assert after["user"][first + 6] == before["user"][first + 6]
    check(store, lake)
    append(
        lake, "earlier", [play(80_000, -3.5)], [], LEAP + 40 * DAY
    )  # the log begins earlier now: what was uncertain is not
    store.update()
    check(store, lake)


def test_a_signal_that_the_log_cannot_answer_waits_and_is_counted_from_the_first_day(
    tmp_path: Path, long_log: tuple[Lake, SignalStore]
) -> None:
    lake, _ = long_log
    saved = Signal("saved", user_day(), saves(), (0, 3))
    store = SignalStore(tmp_path / "other", lake, (SOME[0], saved))
    done = store.update()
    assert set(done.waiting) == {saved.label}
    assert "no event of kind 'save'" in str(done)
    with pytest.raises(DataError, match="is not in"):
        store.outcomes(saved)  # not a 0 for everybody
    append(lake, "next", [play(90_000, 40.5, kind="save")], [], LEAP + 41 * DAY)
    assert store.update().waiting == {}
    assert store.outcomes(saved).height == store.outcomes(SOME[0]).height
    check(store, lake)


def test_minutes_wait_for_the_first_event_with_seconds(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    append(
        lake,
        "0",
        [play(day, day + 0.5) | {"seconds": None} for day in range(9)],
        [],
        LEAP + 9 * DAY,
    )
    heard = Signal("heard", user_day(), minutes(), (1, 3))
    store = SignalStore(tmp_path / "store", lake, (heard, SOME[0]))
    assert "no event with seconds" in store.update().waiting[heard.label]
    append(lake, "next", [play(100, 9.5)], [], LEAP + 10 * DAY)
    assert store.update().waiting == {}
    check(store, lake)
    assert store.outcomes(heard).height == 10


def test_patches_are_put_together_in_the_end(
    tmp_path: Path, long_log: tuple[Lake, SignalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longplay.signals.store.nightly.MOST_PATCHES", 2)
    lake, store = long_log
    for night in range(5):
        append(
            lake,
            f"late-{night}",
            [play(60_000 + night, 7.2 + 5 * night, f"u{night % 3}")],
            [],
            LEAP + 40 * DAY,
        )
        store.update()
        check(store, lake)
    state = Manifest.read(tmp_path / "store")
    assert all(len(patches) <= 2 for patches in state.patches.values())
    listed = {str(tmp_path / "store" / file) for file in state.files()}
    assert listed <= {str(file) for file in (tmp_path / "store").glob("**/*.parquet")}


def test_settled_days_lie_in_blocks_out_of_which_late_events_take_their_days(
    tmp_path: Path, long_log: tuple[Lake, SignalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, store = long_log
    start = (LEAP - EPOCH).days

    def together() -> list[list[int]]:
        """Days of the log by file."""
        by_file: dict[str, list[int]] = {}
        for day, (file,) in sorted(Manifest.read(store.folder).rollups["user"].items()):
            by_file.setdefault(file, []).append(day - start)
        return list(by_file.values())

    monkeypatch.setattr(
        "longplay.signals.store.day_files.SHARED_DAYS", 64
    )  # of which the log has none whole
    shutil.rmtree(store.folder)
    store.update()
    assert {len(days) for days in together()} == {1}
    monkeypatch.setattr("longplay.signals.store.day_files.SHARED_DAYS", 8)
    append(lake, "next", [play(70_000, 40.5)], [], LEAP + 41 * DAY)
    store.update()
    check(store, lake)
    first = -start % 8
    blocks = [list(range(day, day + 8)) for day in range(first, 41 - 7 - 8, 8)]
    assert len(blocks) >= 3
    assert [days for days in together() if len(days) > 1] == blocks
    append(lake, "late", [play(80_000, first + 3.5)], [], LEAP + 41 * DAY)
    done = store.update()
    check(store, lake)
    assert [day - start for day in done.late] == [first + 3]
    left = [day for day in blocks[0] if day != first + 3]
    assert [days for days in together() if len(days) > 1] == [left, *blocks[1:]]
    fresh = SignalStore(tmp_path / "fresh", lake, SOME)
    fresh.update()
    assert all(
        store.outcomes(signal).equals(fresh.outcomes(signal), null_equal=True) for signal in SOME
    )
    monkeypatch.setattr(
        "longplay.signals.store.day_files.MOST_SHARED_EVENTS", 0
    )  # a large log has a file for every day
    shutil.rmtree(store.folder)
    store.update()
    assert {len(days) for days in together()} == {1}


def test_only_files_of_the_last_two_manifests_are_kept(
    tmp_path: Path, long_log: tuple[Lake, SignalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where patches are put together in the update that wrote them, and after one that was
    killed."""
    lake, store = long_log
    for night in range(4):
        before = Manifest.read(store.folder)
        now = 40.5 + 2 * night
        append(
            lake,
            f"late-{night}",
            [play(60_000 + night, 7.2 + 5 * night), play(61_000 + night, now)],
            [],
            LEAP + (now + 0.5) * DAY,
        )
        with monkeypatch.context() as patched:
            if night == 1:
                patched.setattr("longplay.signals.store.nightly.MOST_PATCHES", 0)
            store.update()
            if night == 2:
                patched.setattr(NightlyUpdate, "_patch", lambda *_: 1 / 0)
                append(lake, "killed", [play(62_000, 45.5)], [], LEAP + 46 * DAY)
                with pytest.raises(ZeroDivisionError):
                    store.update()
        if night == 2:
            continue  # what it left is not known; the next update finds it
        after, there = (
            Manifest.read(store.folder),
            {str(file.relative_to(store.folder)) for file in store.folder.glob("**/*.parquet")},
        )
        assert after.files() <= there
        assert there <= before.files() | after.files() | set(after.stale or [])
        assert not set(before.stale or []) & there
        assert [
            place
            for place in store.folder.glob("*/**")
            if place.is_dir() and not any(place.iterdir())
        ] == []


def test_an_update_that_dies_changes_nothing_and_the_next_one_is_whole(
    long_log: tuple[Lake, SignalStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, store = long_log
    before = {signal.label: store.outcomes(signal) for signal in SOME}
    append(lake, "next", [play(90_000, 40.5), play(90_001, 9.5)], [], LEAP + 41 * DAY)
    for name in ("_compute", "_patch", "_merge_patches", "_outcomes"):
        with monkeypatch.context() as patched:
            patched.setattr(NightlyUpdate, name, lambda *_: 1 / 0)
            if name == "_merge_patches":
                patched.setattr("longplay.signals.store.nightly.MOST_PATCHES", 0)
            with pytest.raises(ZeroDivisionError):
                store.update()
        assert all(
            store.outcomes(signal).equals(before[signal.label], null_equal=True) for signal in SOME
        )
    store.update()
    check(store, lake)


def test_a_new_version_is_counted_from_the_first_day_and_the_old_one_stays(
    tmp_path: Path, long_log: tuple[Lake, SignalStore]
) -> None:
    lake, store = long_log
    files = {
        file: file.read_bytes()
        for file in (tmp_path / "store" / "outcomes" / SOME[1].label).glob("**/*.parquet")
    }
    newer = Signal(
        "habit", discovery(14), minutes("creator") >= 2, (1, 14)
    )  # needs a column that no roll-up has
    both = SignalStore(tmp_path / "store", lake, (newer, SOME[0]))
    done = both.update()
    assert len(done.rolled) == 40
    check(both, lake)
    assert {file: file.read_bytes() for file in files} == files
    assert store.outcomes(SOME[1]).height
    append(lake, "next", [play(90_000, 40.5)], [], LEAP + 41 * DAY)
    both.update()
    check(both, lake)
    back = SignalStore(
        tmp_path / "store", lake, SOME
    )  # given again after a night without it: counted anew
    back.update()
    check(back, lake)


def test_a_lake_whose_files_were_rewritten_is_counted_anew(
    tmp_path: Path, long_log: tuple[Lake, SignalStore]
) -> None:
    lake, store = long_log
    from deltalake import DeltaTable

    table = DeltaTable(str(tmp_path / "lake" / "events"))
    table.optimize.compact()
    store.update()  # the lake shows the merged file
    check(store, lake)
    append(lake, "next", [play(90_000, 40.5)], [], LEAP + 41 * DAY)
    store.update()
    check(store, lake)


def test_sql_gives_the_same_rows_for_queries_that_do_not_fit_memory(
    long_log: tuple[Lake, SignalStore],
) -> None:
    _, store = long_log
    with duckdb.connect() as con:
        counted = con.sql(f"select count(*), sum(value) from ({store.sql(SOME[1])})").fetchall()
    frame = store.outcomes(SOME[1])
    assert counted == [(frame.height, frame["value"].sum())]
    assert store.until == midnight((LEAP - datetime(1970, 1, 1, tzinfo=UTC)).days + 40)


def test_what_is_no_store_is_refused_with_a_reason(tmp_path: Path) -> None:
    memory = Lake.memory()
    memory.append("all", events=events_frame([play(1, 0)]), watermark=LEAP + DAY)
    with pytest.raises(ConfigError, match="in memory given"):
        SignalStore(tmp_path / "store", memory, SOME)
    lake = Lake.open(tmp_path / "lake")
    with pytest.raises(ConfigError, match="two signals are named 'back'"):
        SignalStore(tmp_path / "store", lake, (SOME[0], SOME[0]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="neither empty nor a store"):
        SignalStore(tmp_path / "mine", lake, SOME)
    store = SignalStore(tmp_path / "store", lake, SOME)
    with pytest.raises(DataError, match="call update"):
        _ = store.until
    append(lake, "0", [play(1, 0.5)], [], LEAP + DAY + MICRO)
    store.update()
    with pytest.raises(DataError, match="add it to the signals and call update"):
        store.outcomes(KEPT[1])
    manifest = tmp_path / "store" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 99'))
    with pytest.raises(DataError, match="another version of longplay"):
        store.update()


@given(logs(moments=FAR_MOMENT))
@examples(3)
def test_a_store_of_a_long_log_equals_outcomes_in_memory(tmp_path_factory: Any, log: Log) -> None:
    place = tmp_path_factory.mktemp("store")
    lake = Lake.open(place / "lake")
    append(
        lake,
        "0",
        log.events,
        log.decisions,
        max(row["time"] for row in (*log.events, *log.decisions)).replace(
            hour=0, minute=0, second=0
        )
        + 2 * DAY,
    )
    store = SignalStore(place / "store", lake, KEPT)
    store.update()
    check(store, lake)
