"""Whose work an event is about: its own creator, else the catalogue's; where nobody knows it, what
would be asked of it is null."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from reference import DAY, DTYPES, LEAP, Row, decisions_frame, events_frame, midnight

import longplay as lp
from longplay.decisions import contexts_at
from longplay.lake import Lake
from longplay.lake.creators import (
    creator_disagreements,
    disagreement_note,
    item_creators,
    named_events,
)
from longplay.lake.glance import glance
from longplay.rewards.familiar import LakeIndex
from longplay.signals import (
    Entry,
    Measure,
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    habits,
    minutes,
    plays,
    time_to_return,
)
from longplay.signals.outcomes.in_files import BaseRate, base_rates, write_outcomes
from longplay.signals.store.nightly import NightlyUpdate
from longplay.signals.store.signal_store import SignalStore

NOON = DAY / 2
FOREVER = datetime(9000, 1, 1, tzinfo=LEAP.tzinfo)


def did(
    day: float,
    item: str | None,
    creator: str | None = None,
    kind: str = "play",
    user: str = "u",
    **more: Any,
) -> Row:
    time = LEAP + day * DAY
    row = {
        "event_id": f"{user}-{kind}-{item}-{day}",
        "user_id": user,
        "item_id": item,
        "creator_id": creator,
        "kind": kind,
        "time": time,
    }
    return {
        **row,
        "seconds": 60.0,
        "surface": "home",
        "origin": "organic",
        "ingested_at": time,
        **more,
    }


def slate(name: str, day: float, *items: str) -> Row:
    time = LEAP + day * DAY
    row = {
        "decision_id": name,
        "context_id": name,
        "user_id": "u",
        "time": time,
        "surface": "home",
        "slate": list(items),
    }
    return {
        **row,
        "log_prob": [-1.0] * len(items),
        "policy": "p@1",
        "experiment": None,
        "ingested_at": time,
    }


def catalogue(added: float = -9, **creators: str | None) -> pl.DataFrame:
    items = pl.DataFrame(
        {
            "item_id": list(creators),
            "creator_id": pl.Series(list(creators.values()), dtype=pl.String),
        }
    )
    return items.with_columns(added_at=pl.lit(LEAP + added * DAY).cast(DTYPES["items"]["added_at"]))


def fill(
    lake: Lake,
    events: list[Row],
    items: pl.DataFrame | None,
    decisions: tuple[Row, ...] = (),
    days: float = 40,
    batch: str = "all",
) -> Lake:
    shown = decisions_frame(list(decisions)) if decisions else None
    lake.append(
        batch,
        events=events_frame(events) if events else None,
        items=items,
        decisions=shown,
        watermark=LEAP + days * DAY,
    )
    return lake


STAR = [did(0.5, "a1"), did(1.5, "a2"), did(3.5, "a1"), did(3.6, "b1"), did(5.5, "x1")]
WORKS = catalogue(a1="a", a2="a", b1="b")


def test_events_without_creators_are_about_the_catalogues() -> None:
    lake = fill(Lake.memory(), STAR, WORKS)
    habit = Signal("habit", discovery(28, "creator"), days_with("creator"), (1, 28)).outcomes(lake)
    assert habit.frame.select("creator_id", "item_id", "value").rows() == [
        ("a", "a1", 2.0),
        ("b", "b1", 0.0),
    ]
    assert habit.trace().toarray().nonzero()[1].tolist() == [0, 2]
    assert Signal("variety", enrolment(), habits("creator", 1), (1, 28)).outcomes(
        lake
    ).value.tolist() == [2.0]
    by_item = Signal("by-item", event("play", "item"), plays("creator"), (1, 28)).outcomes(lake)
    assert by_item.frame.select("item_id", "creator_id", "value").rows() == [
        ("a1", "a", 2.0),
        ("a2", "a", 1.0),
        ("a1", "a", 0.0),
        ("b1", "b", 0.0),
        ("x1", None, None),
    ]


def test_an_events_own_creator_comes_first_and_disagreements_are_named() -> None:
    lake = fill(
        Lake.memory(),
        [
            did(0.5, "a1", "z"),
            did(1.5, "a1"),
            did(2.5, "a1", "z"),
            did(2.6, "b1", "y"),
            did(2.7, "b1", "b"),
        ],
        WORKS,
    )
    assert named_events(lake)["creator_id"].to_list() == ["z", "a", "z", "y", "b"]
    assert creator_disagreements(lake).rows() == [("a1", "z", "a", 2), ("b1", "y", "b", 1)]
    note = (
        "3 events of 2 items name another creator than the catalogue (most of item 'a1': 'z' "
        "in events, 'a' in the catalogue)"
    )
    assert disagreement_note(lake) == glance(lake).creators == f"{note}; the event's own counts"
    assert glance(fill(Lake.memory(), STAR, WORKS)).creators == ""
    assert item_creators(lake).rows() == [("a1", "a"), ("a2", "a"), ("b1", "b")]


def test_files_and_the_store_fill_creators_in_as_outcomes_in_memory_do(tmp_path: Path) -> None:
    lake = fill(Lake.open(tmp_path / "lake"), STAR, WORKS)
    several = [
        Signal("habit", discovery(28, "creator"), days_with("creator"), (1, 5)),
        Signal("item", discovery(28, "item"), plays("item"), (1, 5)),
        Signal("variety", enrolment(), habits("creator", 1), (1, 5)),
        Signal("active", enrolment(), active_days(), (1, 5)),
    ]
    store = SignalStore(tmp_path / "store", lake, several)
    store.update()
    written = write_outcomes(several, lake, tmp_path / "files")
    for signal in several:
        key = "user_id" if signal.entry.of is None else f"{signal.entry.of}_id"
        expected = sorted(signal.outcomes(lake).frame.select("day", key, "value").rows())
        assert sorted(store.outcomes(signal).select("day", key, "value").rows()) == expected
        assert (
            sorted(pl.read_parquet(written[signal.label]).select("day", key, "value").rows())
            == expected
        )
        rate = base_rates([signal], lake)[signal]
        assert isinstance(rate, BaseRate)
        assert rate.entries == len(expected)


@pytest.mark.parametrize(
    "late", ["creator of a known item", "item that was not listed", "another creator"]
)
def test_a_store_counts_again_when_the_catalogue_says_later_whose_work_it_is(
    tmp_path: Path, late: str
) -> None:
    first = {
        "creator of a known item": catalogue(a1="a", a2=None),
        "item that was not listed": catalogue(a1="a"),
        "another creator": catalogue(a1="a", a2="b"),
    }
    lake = fill(Lake.open(tmp_path / "lake"), STAR, first[late], (slate("d", 0.4, "a2", "b1"),))
    several = (
        Signal("habit", discovery(28, "creator"), days_with("creator"), (1, 5)),
        Signal("shown", exposure("creator"), days_with("creator"), (1, 5)),
    )
    store = SignalStore(tmp_path / "store", lake, several)
    store.update()
    lake.append("catalogue", items=catalogue(a2="a"), watermark=LEAP + 41 * DAY)
    store.update()
    view = lake.before(store.until, known_at=FOREVER)
    for signal in several:
        columns = ["day", "creator_id", "value"]
        assert sorted(map(str, store.outcomes(signal).select(columns).rows())) == sorted(
            map(str, signal.outcomes(view).frame.select(columns).rows())
        )
    assert ("a", 2.0) in store.outcomes(several[0]).select("creator_id", "value").rows()


def test_an_update_that_dies_forgets_no_change_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = fill(Lake.open(tmp_path / "lake"), STAR, catalogue(a1="a"))
    habit = Signal("habit", discovery(28, "creator"), days_with("creator"), (1, 5))
    store = SignalStore(tmp_path / "store", lake, (habit,))
    store.update()
    lake.append("catalogue", items=catalogue(a2="a"), watermark=LEAP + 41 * DAY)
    with monkeypatch.context() as patched:
        patched.setattr(NightlyUpdate, "_compute", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.update()
    store.update()
    assert store.outcomes(habit).select("creator_id", "value").rows() == [("a", 2.0)]


def test_a_new_item_that_nobody_has_met_makes_no_store_count_again(tmp_path: Path) -> None:
    lake = fill(Lake.open(tmp_path / "lake"), STAR, WORKS, (slate("d", 0.4, "a2", "b1"),))
    store = SignalStore(
        tmp_path / "store",
        lake,
        (Signal("shown", exposure("creator"), days_with("creator"), (1, 5)),),
    )
    store.update()
    lake.append(
        "new",
        items=catalogue(c1="c"),
        events=events_frame([did(40.5, "c1")]),
        watermark=LEAP + 41 * DAY,
    )
    assert store.update().rolled == ((LEAP - midnight(0)).days + 40,)


def test_a_store_looks_creators_of_slots_up_at_its_midnight(tmp_path: Path) -> None:
    """The lake reaches twelve hours further: what is said there of an item, and an item added
    there, are of the next night."""
    lake = Lake.open(tmp_path / "lake")
    events = [did(0.5, "x1", "old"), did(1.5, "x1", "old"), did(9.2, "x1", "new"), did(1.6, "y1")]
    fill(
        lake,
        events,
        pl.concat([WORKS, catalogue(9.3, y1="y")]),
        (slate("d", 0.4, "x1", "y1"),),
        days=9.5,
    )
    shown = Signal("shown", exposure("creator"), days_with("creator"), (1, 5))
    store = SignalStore(tmp_path / "store", lake, (shown,))
    for creators, values, days in (
        (("old", None), (1.0, None), 10.0),
        (("new", "y"), (0.0, 1.0), 10.0),
    ):
        store.update()
        assert store.outcomes(shown).sort("slot").select("creator_id", "value").rows() == list(
            zip(creators, values, strict=True)
        )
        view = lake.before(store.until, known_at=FOREVER)
        assert sorted(
            map(str, shown.outcomes(view).frame.select("creator_id", "value").rows())
        ) == sorted(map(str, zip(creators, values, strict=True)))
        lake.append(
            f"to {days}", events=events_frame([did(9.9, "a1", "a")]), watermark=LEAP + days * DAY
        )


@pytest.mark.parametrize(
    ("entry", "measure", "known", "unknown"),
    [
        (exposure("creator"), days_with("creator"), 1.0, None),
        (exposure("item"), days_with("creator") >= 1, 1.0, None),
        (exposure("item"), days_with("creator") / active_days(), 1.0, None),
        (exposure("creator"), minutes("creator").above_baseline(1), 1.0, None),
        (exposure("item"), active_days(), 1.0, 1.0),
    ],
)
def test_an_outcome_of_a_creator_whom_nobody_knows_is_null_and_mature(
    tmp_path: Path, entry: Entry, measure: Measure, known: float, unknown: float | None
) -> None:
    lake = fill(
        Lake.open(tmp_path / "lake"),
        [did(0.1, "b1"), did(2.5, "a1")],
        WORKS,
        (slate("d", 1.5, "a1", "x1"),),
    )
    signal = Signal("s", entry, measure, (1, 3))
    outcomes = signal.outcomes(lake)
    assert outcomes.frame.sort("item_id").select("item_id", "creator_id", "value").rows() == [
        ("a1", "a", known),
        ("x1", None, unknown),
    ]
    assert outcomes.mature.tolist() == [True, True]
    assert sorted(outcomes.known.tolist()) == sorted([True, unknown is not None])
    assert outcomes.frame["days_observed"].to_list() == [3, 3]
    assert outcomes.base_rate().value == known
    if unknown is None:
        assert outcomes.maturity_curve()["value"].to_list()[-1] == known
    shown = outcomes.on(lake.decisions).frame
    assert dict(shown.select("item_id", "value").rows()) == {"a1": known, "x1": unknown}
    assert shown["matures_at"].null_count() == 0
    table = pl.read_parquet(write_outcomes([signal], lake, tmp_path / "files")[signal.label])
    assert dict(table.select("item_id", "value").rows()) == {"a1": known, "x1": unknown}
    store = SignalStore(tmp_path / "store", lake, [signal])
    store.update()
    assert dict(store.outcomes(signal).select("item_id", "value").rows()) == {
        "a1": known,
        "x1": unknown,
    }


def test_nobody_knows_when_a_user_returned_to_a_creator_nobody_knows() -> None:
    lake = fill(
        Lake.memory(), [did(0.1, "b1"), did(2.5, "a1")], WORKS, (slate("d", 1.5, "a1", "x1"),)
    )
    frame = (
        Signal("s", exposure("creator"), time_to_return("creator"), (1, 3))
        .outcomes(lake)
        .frame.sort("item_id")
    )
    assert frame.select("value", "duration", "event").rows() == [(1.0, 1, True), (None, None, None)]


def test_credit_goes_to_slots_of_the_creator_that_the_catalogue_names() -> None:
    lake = fill(
        Lake.memory(), [did(1.5, "a1"), did(2.5, "a2")], WORKS, (slate("d", 0.5, "a2", "b1"),)
    )
    outcomes = Signal("habit", discovery(28, "creator"), days_with("creator"), (1, 5)).outcomes(
        lake
    )
    assert lp.credit(outcomes, lake.decisions, "last_touch").frame.select(
        "item_id", "credit"
    ).rows() == [("a2", 1.0)]


def test_policies_and_rewards_know_familiar_creators_by_the_catalogue() -> None:
    lake = fill(Lake.memory(), STAR, WORKS)
    moments = pl.DataFrame(
        {"user_id": ["u"], "time": [LEAP + 9 * DAY]},
        schema_overrides={"time": DTYPES["events"]["time"]},
    )
    contexts = contexts_at(lake, moments, slots=1, history=1, exclude="creator")
    assert sorted(contexts.frame["exclusions"][0]) == ["a1", "a2", "b1"]
    index = LakeIndex(lake, "creator")
    assert dict(zip(index.items.ids, index.key_ids_I, strict=True)) == {
        "a1": "a",
        "a2": "a",
        "b1": "b",
        "x1": None,
    }
    unlisted = LakeIndex(fill(Lake.memory(), [did(0.5, "a1", "z")], catalogue(a1=None)), "creator")
    assert unlisted.key_ids_I.to_list() == [
        "z"
    ]  # the catalogue lists the item and does not say whose it is: its last event does
