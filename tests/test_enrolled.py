"""Sums per enrolled user equal a plain loop; zeros are kept; maturity is decided by enrolment
alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import polars as pl
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from reference import (
    DAY,
    MEASURES,
    MICRO,
    MOMENT,
    USERS,
    Log,
    day_of,
    entries_of,
    known,
    logs,
    midnight,
    named,
    refuses,
    signals,
    with_value,
)

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.schema import TIME
from longplay.policies.simple import Popular
from longplay.signals import (
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    exposure,
    plays,
    returned,
    user_day,
)
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.ready_signals import READY
from longplay.world import World

Row = dict[str, Any]
FIRST = datetime(2028, 3, 1, tzinfo=UTC)
SUMMED = tuple(
    one for one in MEASURES if one.per is None and one.baseline is None and one.kind != "completion"
)


def enrolled_at(times: dict[str, datetime]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": list(times), "time": list(times.values())},
        schema={"user_id": pl.String, "time": TIME},
    )


def reference(signal: Signal, log: Log, times: dict[str, datetime], entry_days: int) -> list[Row]:
    """One loop over users, one over entries; every rule on its own line."""
    events = named(known(log.events, log.as_of), log.creators)
    rows = []
    for user, opened in times.items():
        if signal.entry.kind == "enrolment":
            last_day = day_of(opened)
            entries = [with_value(signal, blank(user, opened), events, log.as_of)]
        else:
            last_day = day_of(opened + entry_days * DAY - MICRO)
            entries = [entry for entry in entries_of(signal, log) if entry["user_id"] == user]
        matures_at = midnight(last_day + signal.window[1] + 1)
        mine = [entry for entry in entries if opened <= entry["time"] < opened + entry_days * DAY]
        assert all(entry["matures_at"] <= matures_at for entry in mine)
        value = sum(entry["value"] for entry in mine) if matures_at <= log.as_of else None
        rows.append(
            {
                "user_id": user,
                "time": opened,
                "value": None if value is None else pytest.approx(float(value)),
                "matures_at": matures_at,
            }
        )
    return rows


def blank(user: str, opened: datetime) -> Row:
    nothing = dict.fromkeys(("item_id", "creator_id", "surface", "decision_id", "slot"))
    return {**nothing, "user_id": user, "time": opened, "origin": "organic", "truncated": False}


@given(
    signals(measures=SUMMED),
    logs(),
    st.tuples(MOMENT, MOMENT),
    st.sampled_from((1, 3, 14)),
    st.permutations((*USERS, "nobody")),
)
@examples(120, share=6)
def test_sums_equal_a_plain_loop_over_users_and_entries(
    signal: Signal, log: Log, moments: Any, entry_days: int, order: list[str]
) -> None:
    log = replace(log, as_of=log.as_of + 14 * DAY)
    assume(not refuses(signal, log))
    start = min(row["time"] for row in log.events).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    at = dict(zip(USERS, moments, strict=True)) | {"nobody": timedelta(0)}
    times = {user: start + at[user] for user in order}
    found = enrolled_sums(
        signal, log.lake(), enrolled_at(times), entry_days=entry_days, as_of=log.as_of
    )
    assert found.schema == pl.Schema(
        {"user_id": pl.String, "time": TIME, "value": pl.Float64, "matures_at": TIME}
    )
    assert found.to_dicts() == reference(signal, log, times, entry_days)


SUMMED_READY = tuple(
    signal
    for signal in READY.values()
    if signal.measure.per is None and signal.measure.baseline is None
)


@given(
    st.lists(
        st.one_of(signals(measures=SUMMED), st.sampled_from(SUMMED_READY)), min_size=2, max_size=6
    ),
    logs(),
    st.tuples(MOMENT, MOMENT),
    st.sampled_from((1, 3, 14)),
)
@examples(90, share=6)
def test_many_signals_in_one_pass_equal_each_alone(
    many: list[Signal], log: Log, moments: Any, entry_days: int
) -> None:
    """Signals share entries, words of days and sums: none may see what another asked for."""
    log = replace(log, as_of=log.as_of + 14 * DAY)
    assume(not any(refuses(signal, log) for signal in many))
    start = min(row["time"] for row in log.events).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    at = dict(zip(USERS, moments, strict=True)) | {"nobody": timedelta(0)}
    enrolled = enrolled_at({user: start + moment for user, moment in at.items()})
    lake = log.lake()
    together = enrolled_sums(many, lake, enrolled, entry_days=entry_days, as_of=log.as_of)
    assert list(together) == list(dict.fromkeys(many))
    for signal, table in together.items():
        alone = enrolled_sums(signal, lake, enrolled, entry_days=entry_days, as_of=log.as_of)
        assert_frame_equal(table, alone, rel_tol=0, abs_tol=1e-12)


def test_all_ready_signals_in_one_pass_equal_each_alone() -> None:
    lake = World(users=80, items=60, seed=3).run(Popular(slate=3, explore=0.3), days=100)
    first = lake.events.group_by("user_id").agg(pl.col("time").min()).sort("user_id")
    together = enrolled_sums(SUMMED_READY, lake, first)
    assert len(together) == len(SUMMED_READY) >= 10
    for signal, table in together.items():
        assert_frame_equal(table, enrolled_sums(signal, lake, first), rel_tol=0, abs_tol=1e-12)
    different = [signal for signal, table in together.items() if table["value"].sum() > 0]
    assert len(different) >= 8  # not equal because all is empty


def test_many_signals_open_the_log_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = visits(("u1", "i1", FIRST), ("u1", "i1", FIRST + DAY), watermark=FIRST + 90 * DAY)
    enrolled = enrolled_at({"u1": FIRST})
    opened = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *args: opened.append(args) or connect(*args))
    enrolled_sums([READY["habit"], READY["return_7d"], READY["active_days_28d"]], lake, enrolled)
    assert len(opened) == 1


def visits(*rows: tuple[str, str, datetime], watermark: datetime) -> Lake:
    """(user, item, time) played; item ix is by creator cx."""
    frame = pl.DataFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "time": TIME}, orient="row"
    )
    frame = frame.with_columns(
        event_id=pl.format("e{}", pl.int_range(pl.len())),
        creator_id="c" + pl.col("item_id").str.slice(1),
        kind=pl.lit("play"),
    )
    lake = Lake.memory()
    lake.append("all", events=frame, watermark=watermark)
    return lake


def test_users_without_entries_have_a_zero_and_immature_ones_a_null_whatever_they_did() -> None:
    noon = FIRST + timedelta(hours=12)
    end = (
        FIRST + 17 * DAY
    )  # u1, enrolled at noon of day 0: last entry on day 14, then days 1 and 2, then midnight
    lake = visits(
        ("u1", "i1", noon),
        ("u1", "i1", noon + DAY),
        ("late", "i1", noon + DAY),
        ("late", "i1", noon + 2 * DAY),
        watermark=end,
    )
    signal = Signal("back", discovery(28), days_with("creator"), (1, 2))
    times = {"u1": noon, "idle": noon, "late": noon + DAY, "idle late": noon + DAY}
    found = enrolled_sums(signal, lake, enrolled_at(times))
    assert found["value"].to_list() == [1.0, 0.0, None, None]
    assert found["matures_at"].to_list() == [end, end, end + DAY, end + DAY]
    just_before = enrolled_sums(signal, lake, enrolled_at(times), as_of=end - MICRO)
    assert just_before["value"].to_list() == [None] * 4


def test_only_entries_from_enrolment_to_the_end_of_the_entry_window_count() -> None:
    lake = visits(
        ("u1", "i1", FIRST + 2 * DAY - MICRO),
        ("u1", "i2", FIRST + 2 * DAY),
        ("u1", "i3", FIRST + 4 * DAY - MICRO),
        ("u1", "i4", FIRST + 4 * DAY),
        watermark=FIRST + 40 * DAY,
    )
    signal = Signal("entered", discovery(28), plays("creator"), (0, 3))
    assert enrolled_sums(signal, lake, enrolled_at({"u1": FIRST + 2 * DAY}), entry_days=2)[
        "value"
    ].to_list() == [2.0]
    assert enrolled_sums(signal, lake, enrolled_at({"u1": FIRST + 2 * DAY}), entry_days=3)[
        "value"
    ].to_list() == [3.0]


def test_what_was_known_before_enrolment_is_no_discovery_after_it() -> None:
    lake = visits(
        ("u1", "i1", FIRST),
        ("u1", "i1", FIRST + 10 * DAY),
        ("u2", "i1", FIRST + 10 * DAY),
        watermark=FIRST + 60 * DAY,
    )
    enrolled = enrolled_at(dict.fromkeys(("u1", "u2"), FIRST + 9 * DAY))
    signal = Signal("met", discovery(28), plays("creator"), (0, 7))
    assert enrolled_sums(signal, lake, enrolled)["value"].to_list() == [0.0, 1.0]
    assert enrolled_sums(replace(signal, entry=discovery(7)), lake, enrolled)[
        "value"
    ].to_list() == [1.0, 1.0]


def test_an_enrolment_opens_at_the_given_time_not_at_the_first_event_or_an_older_trial() -> None:
    times = [FIRST, FIRST + DAY, FIRST + 11 * DAY, FIRST + 12 * DAY, FIRST + 13 * DAY]
    lake = visits(*[("u1", "i1", time) for time in times], watermark=FIRST + 20 * DAY)
    old = pl.DataFrame(
        {
            "decision_id": ["d"],
            "context_id": ["k"],
            "user_id": ["u1"],
            "time": [FIRST + 5 * DAY],
            "surface": "home",
            "slate": [["i1"]],
            "log_prob": [[-1.0]],
            "policy": "p@1",
            "experiment": "an older trial",
        },
        schema_overrides={"time": TIME},
    )
    lake.append("older", decisions=old)
    signal = Signal("active", enrolment(), active_days(), (1, 5))
    assert signal.outcomes(lake).value.tolist() == [
        0.0
    ]  # the engine's own: days 6 to 10, from the older trial
    found = enrolled_sums(
        signal, lake, enrolled_at({"u1": FIRST + 10 * DAY + timedelta(hours=23)}), entry_days=14
    )
    assert found["value"].to_list() == [3.0]  # days 11, 12, 13
    assert found["matures_at"].to_list() == [
        FIRST + 16 * DAY
    ]  # enrolment's day 10 + 5 + the midnight: no entry window to wait for


def test_every_slot_shown_is_an_exposure_entry() -> None:
    lake = visits(("u1", "i1", FIRST + DAY), watermark=FIRST + 30 * DAY)
    shown = pl.DataFrame(
        {
            "decision_id": ["a", "b"],
            "context_id": ["a", "b"],
            "user_id": "u1",
            "time": [FIRST, FIRST + timedelta(hours=1)],
            "surface": "home",
            "slate": [["i1", "i2"], ["i1"]],
            "log_prob": [[-1.0, -1.0], [-1.0]],
            "policy": "p@1",
        },
        schema_overrides={"time": TIME},
    )
    lake.append("shown", decisions=shown)
    signal = Signal("back", exposure("item"), days_with("item"), (1, 2))
    assert enrolled_sums(signal, lake, enrolled_at({"u1": FIRST}))["value"].to_list() == [2.0]
    assert enrolled_sums(signal, lake, enrolled_at({"u1": FIRST + timedelta(minutes=1)}))[
        "value"
    ].to_list() == [1.0]


def test_times_of_other_zones_are_the_same_moments() -> None:
    lake = visits(("u1", "i1", FIRST), ("u1", "i1", FIRST + DAY), watermark=FIRST + 30 * DAY)
    enrolled = enrolled_at({"u1": FIRST})
    signal = Signal("again", user_day(), returned(), (1, 3))
    there = enrolled.with_columns(pl.col("time").dt.convert_time_zone("America/New_York"))
    assert_frame_equal(enrolled_sums(signal, lake, there), enrolled_sums(signal, lake, enrolled))


def test_errors_say_what_is_wrong_with_the_table() -> None:
    lake = visits(("u1", "i1", FIRST), watermark=FIRST + 30 * DAY)
    signal = Signal("again", user_day(), returned(), (1, 3))
    enrolled = enrolled_at({"u1": FIRST})
    assert enrolled_sums(signal, lake, enrolled.clear()).height == 0
    with pytest.raises(ConfigError, match="no signals given"):
        enrolled_sums([], lake, enrolled)
    with pytest.raises(DataError, match="1 of 2 rows name a user again"):
        enrolled_sums(signal, lake, pl.concat([enrolled, enrolled]))
    with pytest.raises(DataError, match="column 'time' is missing"):
        enrolled_sums(signal, lake, enrolled.drop("time"))
    with pytest.raises(DataError, match="expected UTC datetimes"):
        enrolled_sums(
            signal, lake, enrolled.with_columns(pl.col("time").dt.replace_time_zone(None))
        )
    with pytest.raises(DataError, match="1 nulls given"):
        enrolled_sums(signal, lake, enrolled.with_columns(time=pl.lit(None, dtype=TIME)))
    for entry_days in (0, 366, 1.5, True):
        with pytest.raises(ConfigError, match="entry_days"):
            enrolled_sums(signal, lake, enrolled, entry_days=entry_days)  # type: ignore[arg-type]
