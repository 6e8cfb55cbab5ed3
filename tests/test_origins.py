"""A measure of an origin that was never logged is refused, whether the origin was declared or is
the default."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from reference import DAY, LEAP
from test_entry import a_log, invoke
from test_init import proposed, runs

from longplay.errors import DataError
from longplay.lake import Lake
from longplay.lake.adapters import read_table
from longplay.signals import (
    Signal,
    active_days,
    days_with,
    discovery,
    enrolment,
    habits,
    plays,
    returned,
    time_to_return,
    user_day,
)
from longplay.signals.outcomes.in_files import base_rates, write_outcomes
from longplay.signals.ready_signals import ready

BY_DEFAULT = (
    Signal("back", user_day(), returned(), (1, 3)),
    Signal("active", enrolment(), active_days(), (1, 3)),
    Signal("habit", discovery(7), days_with("creator") >= 2, (1, 3)),
    Signal("until", user_day(), time_to_return(), (1, 3)),
    Signal("variety", enrolment(), habits("creator", 2), (1, 3)),
)


def log_of(*origins: str) -> pl.DataFrame:
    """Two users who play on ten days, in turn of these origins."""
    days = [(user, day) for day in range(10) for user in ("u1", "u2")]
    return pl.DataFrame(
        {
            "event_id": [f"{user} {day}" for user, day in days],
            "user_id": [user for user, _ in days],
            "item_id": "i1",
            "creator_id": "c1",
            "kind": "play",
            "time": [LEAP + day * DAY for _, day in days],
            "origin": [origins[n % len(origins)] for n in range(len(days))],
        }
    )


def lake_of(*origins: str) -> Lake:
    lake = Lake.memory()
    lake.append("all", events=log_of(*origins), watermark=LEAP + 90 * DAY)
    return lake


@pytest.mark.parametrize("signal", BY_DEFAULT, ids=lambda signal: signal.name)
def test_what_counts_organic_activity_by_default_is_refused_on_a_log_without_any(
    tmp_path: Path, signal: Signal
) -> None:
    lake = lake_of("autoplay", "recommended")
    words = (
        "no event of origin 'organic', which this measure counts by default .its events are "
        "'autoplay' and 'recommended'.*map that origin"
    )
    with pytest.raises(DataError, match=words) as error:
        signal.outcomes(lake)
    assert "declare origin=('autoplay', 'recommended',)" in str(error.value)
    assert str(base_rates([signal], lake)[signal]) == str(error.value)
    with pytest.raises(DataError, match=words):
        write_outcomes([signal], lake, tmp_path)
    assert signal.outcomes(lake_of("autoplay", "organic")).mature.all()


def test_a_declared_origin_and_amounts_of_any_origin_are_answered() -> None:
    lake = lake_of("autoplay")
    assert (
        Signal("back", user_day(), returned(), (1, 3), origin=("autoplay",))
        .outcomes(lake)
        .value.mean()
        > 0.5
    )
    assert Signal("plays", user_day(), plays(), (1, 3)).outcomes(lake).value.mean() > 1
    with pytest.raises(
        DataError, match=r"no event of origin 'recommended' \(its events are 'autoplay'\)"
    ):
        Signal("shown", user_day(), plays(), (1, 3), origin=("recommended",)).outcomes(lake)


def test_a_log_without_a_column_of_origins_is_organic(tmp_path: Path) -> None:
    log_of("autoplay").drop("origin", "event_id").write_parquet(tmp_path / "log.parquet")
    columns = {
        "user_id": "user_id",
        "item_id": "item_id",
        "time": "time",
        "creator_id": "creator_id",
        "kind": "kind",
    }
    source = read_table(tmp_path / "log.parquet", columns=columns)
    lake = Lake.memory()
    lake.append("all", events=source.events, items=source.items, watermark=LEAP + 90 * DAY)
    for signal in BY_DEFAULT:
        assert signal.outcomes(lake).mature.all()


def test_the_ready_signals_say_which_origins_a_log_has(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("all", events=log_of("autoplay"), watermark=LEAP + 90 * DAY)
    rates = base_rates(list(ready()), lake)
    refused = {
        signal.name for signal, rate in rates.items() if "no event of origin 'organic'" in str(rate)
    }
    assert {
        "return_1d",
        "return_7d",
        "return_28d",
        "active_days_28d",
        "habit",
        "stickiness_60d",
        "lasting_discovery",
    } <= refused
    said = invoke("signals", str(tmp_path / "lake")).output
    assert "no event of origin 'organic'" in " ".join(said.split())


def test_a_run_for_a_log_without_organic_events_says_which_origins_count(tmp_path: Path) -> None:
    log = a_log(45).with_columns(source=pl.lit("radio"))
    log.write_csv(tmp_path / "events.csv")
    config, said = proposed(tmp_path / "events.csv", tmp_path)
    assert config["ingest"]["origins"] == {"radio": "autoplay"}
    assert sorted(config["signals"]) == ["active", "habit", "returns"]
    assert all(table["origin"] == ["autoplay"] for table in config["signals"].values())
    assert config["signals"]["habit"]["gameable"] is True
    assert "no event of origin 'organic'" in " ".join(said.split())
    assert "no origin column" not in said
    runs(tmp_path)


def test_a_run_of_organic_signals_on_such_a_log_is_refused_before_it_learns(tmp_path: Path) -> None:
    a_log(45).with_columns(source=pl.lit("radio")).write_csv(tmp_path / "events.csv")
    proposed(tmp_path / "events.csv", tmp_path)
    file = tmp_path / "run.toml"
    lines = [
        line
        for line in file.read_text().splitlines()
        if not line.startswith(("origin = [", "gameable"))
    ]
    file.write_text("\n".join(lines))
    result = invoke("run", str(file), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 1
    assert "signals.habit" in result.output
    assert "no event of origin 'organic'" in " ".join(result.output.split())
