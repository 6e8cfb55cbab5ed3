"""Times and amounts have bounds: what no user can have done is set aside and named, and the likely
mistake with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from longplay.errors import ConfigError
from longplay.lake import Lake
from longplay.lake.adapters import Source, read_table
from longplay.lake.daily import long_days
from longplay.lake.glance import glance
from longplay.lake.schema import conform
from longplay.lake.sift import EARLIEST, advice, sift

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(microseconds=1)
COLUMNS = {"user_id": "who", "item_id": "what", "time": "ts", "seconds": "secs"}


def events_at(*times: datetime, **more: object) -> pl.DataFrame:
    """Plays of one user, one at each time."""
    rows = pl.DataFrame(
        {
            "event_id": [f"e{number}" for number in range(len(times))],
            "user_id": "u",
            "kind": "play",
            "time": times,
        }
    )
    return conform(
        rows.with_columns(pl.lit(value).alias(name) for name, value in more.items()), "events"
    )


def reasons_of(
    events: pl.DataFrame, now: datetime | None = None, earliest: datetime = EARLIEST
) -> list[str | None]:
    """Per event the reason why it is refused, or null."""
    _, bad = sift(events, pl.Series([], dtype=pl.String), now, None, earliest)
    by_line = dict(bad.select("line", "reason").iter_rows())
    return [by_line.get(line) for line in range(1, events.height + 1)]


def read_seconds(path: Path, *seconds: object, **how: str) -> Source:
    """A log of one user with one play a minute, of so many seconds."""
    lines = [
        f"u,i,2026-03-01T{number // 60:02d}:{number % 60:02d}:00,{value}"
        for number, value in enumerate(seconds)
    ]
    path.write_text("\n".join(["who,what,ts,secs", *lines, ""]))
    return read_table(path, COLUMNS, constants={"kind": "play"}, **how)  # type: ignore[arg-type]


def test_sentinels_are_no_times() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [
        epoch,
        epoch + SECOND,
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 12, 31, tzinfo=UTC),
        datetime(2, 1, 1, tzinfo=UTC),
    ]
    times += [
        datetime(9998, 12, 31, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ]
    sentinel, before = "sentinel time", "time before 1990-01-01"
    assert reasons_of(events_at(*times)) == [
        sentinel,
        before,
        sentinel,
        sentinel,
        before,
        None,
        sentinel,
        sentinel,
    ]
    assert reasons_of(events_at(NOON, ingested_at=datetime(9999, 12, 31, tzinfo=UTC))) == [sentinel]


def test_times_before_the_bound_are_refused_and_the_bound_can_be_stated() -> None:
    events = events_at(EARLIEST, EARLIEST - SECOND)
    assert reasons_of(events) == [None, "time before 1990-01-01"]
    assert reasons_of(events, earliest=EARLIEST - SECOND) == [None, None]
    assert (
        reasons_of(events, earliest=datetime(2000, 5, 1, tzinfo=UTC))
        == ["time before 2000-05-01"] * 2
    )
    # who says that the log is older than 1970 has said that its first second is a time like others
    old = events_at(
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    )
    assert reasons_of(old, earliest=datetime(1960, 1, 1, tzinfo=UTC)) == [
        None,
        None,
        "sentinel time",
    ]


def test_the_future_is_that_of_the_event_and_of_its_arrival() -> None:
    assert reasons_of(events_at(NOON, NOON + SECOND), now=NOON) == [None, "future time"]
    assert reasons_of(events_at(NOON, ingested_at=NOON + SECOND), now=NOON) == ["future time"]
    assert reasons_of(events_at(NOON, ingested_at=NOON - SECOND)) == ["future time"]


def test_amounts_that_nobody_can_have_spent_are_named() -> None:
    amounts = {
        0.0: None,
        86_400.0: None,
        86_400.001: "seconds above a day",
        -0.001: "negative seconds",
    }
    amounts |= {
        float("inf"): "seconds not finite",
        float("nan"): "seconds not finite",
        float("-inf"): "negative seconds",
    }
    assert [reasons_of(events_at(NOON, seconds=amount))[0] for amount in amounts] == list(
        amounts.values()
    )


def test_an_adapter_names_them_as_the_lake_does_from_text_and_from_numbers(tmp_path: Path) -> None:
    values = [-1, float("inf"), float("nan"), 86_400, 86_400.5, None]
    expected = [
        (1, "negative seconds"),
        (2, "seconds not finite"),
        (3, "seconds not finite"),
        (5, "seconds above a day"),
    ]
    text = read_seconds(tmp_path / "log.csv", *("" if value is None else value for value in values))
    assert text.rejected.select("line", "reason").rows() == expected
    rows = pl.DataFrame(
        {"who": "u", "what": "i", "ts": NOON, "secs": pl.Series(values, dtype=pl.Float64)}
    )
    rows.write_parquet(tmp_path / "log.parquet")
    typed = read_table(tmp_path / "log.parquet", COLUMNS, constants={"kind": "play"})
    assert typed.rejected.select("line", "reason").rows() == expected
    note = "4 rows are set aside: 2 seconds not finite, 1 negative seconds, 1 seconds above a day"
    assert any(line.startswith(note) for line in typed.notes)


def test_a_log_in_milliseconds_is_named_as_one_and_read_with_its_unit(tmp_path: Path) -> None:
    milliseconds = [200_000, 30_000, 40_000, 50_000]
    wrong = read_seconds(tmp_path / "log.csv", *milliseconds)
    assert wrong.rejected["reason"].to_list() == ["seconds above a day"]
    assert 'seconds_unit = "ms"' in advice({"seconds above a day": 1})
    assert any(
        "1 seconds above a day; seconds above a day: the unit may be milliseconds: read them with "
        'seconds_unit = "ms"' in n
        for n in wrong.notes
    )
    # 30,000 + 40,000 + 50,000 s = 33.3 hours
    sentence = (
        "1 user-day has more than 24 hours of seconds, the largest 33.3 hours (user u, "
        '2026-03-01): the unit may be milliseconds, seconds_unit = "ms"'
    )
    assert sentence in wrong.notes
    right = read_seconds(tmp_path / "log.csv", *milliseconds, seconds_unit="ms")
    assert right.events["seconds"].to_list() == [200.0, 30.0, 40.0, 50.0]
    assert right.rejected.is_empty()
    assert not any("hours" in note for note in right.notes)


def test_long_user_days_are_counted_by_utc_day_and_the_glance_names_them() -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    events = events_at(
        midnight - SECOND, midnight, midnight + SECOND, NOON + timedelta(days=5), seconds=43_201.0
    )
    days = long_days(events)
    assert days is not None
    assert (days.user_days, days.hours, days.day) == (1, 86_402 / 3_600, midnight.date())
    assert long_days(events.with_columns(seconds=43_200.0)) is None  # a day and no more
    lake = Lake.memory()
    lake.append("b", events=events)
    assert str(glance(lake).long_days).startswith(
        "1 user-day has more than 24 hours of seconds, the largest 24.0 hours"
    )
    lake = Lake.memory()
    lake.append("b", events=events.with_columns(seconds=None))
    assert glance(lake).long_days is None


@pytest.mark.parametrize(
    ("unit", "value", "seconds"),
    [("us", 1_500_000, 1.5), ("ms", 180_500, 180.5), ("s", 3, 3.0), ("min", 1.5, 90.0)],
)
def test_units_of_seconds_and_lengths(
    tmp_path: Path, unit: str, value: float, seconds: float
) -> None:
    assert read_seconds(tmp_path / "log.csv", value, seconds_unit=unit).events[
        "seconds"
    ].to_list() == [seconds]
    columns = {
        **{name: source for name, source in COLUMNS.items() if name != "seconds"},
        "length": "secs",
    }
    items = read_table(
        tmp_path / "log.csv", columns, constants={"kind": "play"}, length_unit=unit
    ).items
    assert items is not None
    assert items["length"].to_list() == [seconds]


def test_a_duration_knows_its_own_unit_and_a_unit_must_be_of_something(tmp_path: Path) -> None:
    pl.DataFrame(
        {"who": "u", "what": "i", "ts": NOON, "secs": [timedelta(seconds=90)]}
    ).write_parquet(tmp_path / "log.parquet")
    assert read_table(
        tmp_path / "log.parquet", COLUMNS, constants={"kind": "play"}, seconds_unit="ms"
    ).events["seconds"].to_list() == [90.0]
    with pytest.raises(
        ConfigError, match=r"seconds_unit = 'hours' is unknown.*; expected one of us, ms, s, min"
    ):
        read_seconds(tmp_path / "log.csv", 1, seconds_unit="hours")
    with pytest.raises(ConfigError, match="length_unit = 'ms', but columns maps no 'length'"):
        read_seconds(tmp_path / "log.csv", 1, length_unit="ms")


def test_lengths_in_milliseconds_are_suspected(tmp_path: Path) -> None:
    columns = {
        **{name: source for name, source in COLUMNS.items() if name != "seconds"},
        "length": "secs",
    }
    read_seconds(tmp_path / "log.csv", 200_000, 180_000, 90)
    suspected = 'most lengths are above 24 hours: the unit may be milliseconds, length_unit = "ms"'
    assert suspected in read_table(tmp_path / "log.csv", columns, constants={"kind": "play"}).notes
    assert (
        suspected
        not in read_table(
            tmp_path / "log.csv", columns, constants={"kind": "play"}, length_unit="ms"
        ).notes
    )


def test_seconds_given_as_times_before_the_bound_are_suspected_to_be_of_another_unit(
    tmp_path: Path,
) -> None:
    (tmp_path / "log.csv").write_text("who,what,ts\nu,i,1772366400\nv,i,1772366401\n")
    columns = {"user_id": "who", "item_id": "what", "time": "ts"}
    source = read_table(
        tmp_path / "log.csv", columns, constants={"kind": "play"}, time_format="epoch_ms"
    )
    assert source.rejected["reason"].to_list() == ["time before 1990-01-01"] * 2
    assert any("the unit of the times may be wrong" in note for note in source.notes)
    stated = read_table(
        tmp_path / "log.csv",
        columns,
        constants={"kind": "play"},
        time_format="epoch_ms",
        earliest=datetime(1970, 1, 21, tzinfo=UTC),
    )
    assert stated.events.height == 2


def test_times_that_no_calendar_has_are_set_aside_by_an_adapter(tmp_path: Path) -> None:
    years = [
        "-0001-01-01",
        "+262142-12-31 23:59:59",
        "0001-01-01 00:00:00",
        "9999-12-31 23:59:59",
        "2026-03-01",
    ]
    (tmp_path / "log.csv").write_text("who,what,ts\n" + "".join(f"u,i,{year}\n" for year in years))
    columns = {"user_id": "who", "item_id": "what", "time": "ts"}
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        source = read_table(
            tmp_path / "log.csv", columns, constants={"kind": "play"}, time_zone=zone
        )
        assert source.events["line"].to_list() == [5]
        assert set(source.rejected["reason"]) <= {"sentinel time", "unparsable time"}
