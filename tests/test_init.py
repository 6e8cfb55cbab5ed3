"""`longplay init LOG`: what it sees in logs of many shapes, and that the run it writes runs
unedited."""

from __future__ import annotations

import time
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_entry import a_log, invoke, quicken

from longplay.lake import Lake

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def proposed(log: Path, folder: Path) -> tuple[dict[str, Any], str]:
    """The run.toml that init writes for a log, and what it says."""
    result = invoke("init", str(log), str(folder / "run.toml"))
    assert result.exit_code == 0, result.output
    return tomllib.loads((folder / "run.toml").read_text()), result.output


def lake_of(folder: Path) -> Lake:
    """What the proposed run ingests."""
    result = invoke("ingest", str(folder / "run.toml"), "--folder", str(folder / "run"))
    assert result.exit_code == 0, result.output
    (place,) = (folder / "run" / "ingest").glob("*/lake")
    return Lake.open(place)


def runs(folder: Path) -> str:
    """What the proposed run says, with few steps of learning."""
    result = invoke("run", str(quicken(folder / "run.toml")), "--folder", str(folder / "run"))
    assert result.exit_code == 0, result.output
    assert (folder / "run" / "report.html").exists()
    return result.output


def test_epoch_milliseconds_as_text_with_kinds_and_origins(tmp_path: Path) -> None:
    log = a_log(50)
    rng = np.random.default_rng(0)
    log = log.with_columns(
        pl.Series(
            "event_type",
            rng.choice(
                ["stream", "thumbs_up", "buy", "skipped"], log.height, p=[0.7, 0.1, 0.1, 0.1]
            ),
        ),
        pl.Series("source", rng.choice(["search", "home", "radio"], log.height)),
        pl.Series("listen_ms", rng.integers(1_000, 300_000, log.height)),
        timestamp=pl.col("timestamp").dt.epoch("ms"),
        artist="a" + (pl.col("item").str.slice(1).cast(pl.Int64) % 7).cast(pl.String),
    )
    log.rename({"listen_ms": "ms_played"}).write_csv(tmp_path / "events.csv")
    config, said = proposed(tmp_path / "events.csv", tmp_path)
    ingest = config["ingest"]
    assert ingest["time_format"] == "epoch_ms"
    assert ingest["seconds_unit"] == "ms"
    assert ingest["kinds"] == {
        "stream": "play",
        "thumbs_up": "like",
        "buy": "purchase",
        "skipped": "skip",
    }
    assert ingest["origins"] == {"search": "organic", "home": "recommended", "radio": "autoplay"}
    assert ingest["columns"]["creator_id"] == "artist"
    assert "constants" not in ingest
    lake = lake_of(tmp_path)
    assert lake.events.height == log.height
    assert lake.events["seconds"].sum() == pytest.approx(log["listen_ms"].sum() / 1_000)
    assert dict(lake.events.group_by("origin").len().iter_rows()) == {
        {"search": "organic", "home": "recommended", "radio": "autoplay"}[word]: n
        for word, n in log.group_by("source").len().iter_rows()
    }
    assert "no column of durations" not in said
    assert "no propensities" in said
    runs(tmp_path)


def test_semicolons_latin_1_and_days_first(tmp_path: Path) -> None:
    log = a_log(45).with_columns(
        pl.col("timestamp").dt.strftime("%d/%m/%Y %H:%M"), titel="Café " + pl.col("item")
    )
    log = log.rename(
        {"user": "Kunde", "item": "Artikel", "timestamp": "date", "titel": "name"}
    ).rename({"Kunde": "customer", "Artikel": "product"})
    (tmp_path / "käufe.csv").write_bytes(log.write_csv(separator=";").encode("latin-1"))
    config, said = proposed(tmp_path / "käufe.csv", tmp_path)
    assert config["ingest"]["separator"] == ";"
    assert config["ingest"]["encoding"] == "latin-1"
    assert config["ingest"]["time_format"] == "%d/%m/%Y %H:%M"
    assert config["ingest"]["columns"] == {
        "user_id": "customer",
        "item_id": "product",
        "time": "date",
        "title": "name",
    }
    lake = lake_of(tmp_path)
    assert lake.events["time"].min() >= BEGIN  # type: ignore[operator]
    assert lake.events.height == log.height
    assert set(lake.items["title"]) == {f"Café {item}" for item in lake.items["item_id"]}
    assert "latin-1" in said
    runs(tmp_path)


def test_an_export_of_a_music_service(tmp_path: Path) -> None:
    """Columns as streaming services export them."""
    log = a_log(60, users=30)
    rng = np.random.default_rng(1)
    rows = log.select(
        ts=pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        username="user",
        platform=pl.lit("android"),
        ms_played=pl.Series(rng.integers(0, 240_000, log.height)),
        master_metadata_track_name="Song " + pl.col("item"),
        master_metadata_album_artist_name="Artist "
        + (pl.col("item").str.slice(1).cast(pl.Int64) % 8).cast(pl.String),
        spotify_track_uri="spotify:track:" + pl.col("item"),
        reason_start=pl.Series(rng.choice(["clickrow", "trackdone", "fwdbtn"], log.height)),
        shuffle=pl.lit(False),
    )
    rows.write_csv(tmp_path / "history.csv")
    config, _ = proposed(tmp_path / "history.csv", tmp_path)
    assert config["ingest"]["columns"] == {
        "user_id": "username",
        "item_id": "spotify_track_uri",
        "time": "ts",
        "creator_id": "master_metadata_album_artist_name",
        "seconds": "ms_played",
        "origin": "reason_start",
        "title": "master_metadata_track_name",
    }
    assert config["ingest"]["seconds_unit"] == "ms"
    assert config["ingest"]["origins"] == {
        "clickrow": "organic",
        "trackdone": "autoplay",
        "fwdbtn": "organic",
    }
    assert config["signals"]["habit"]["entry"] == {"kind": "discovery", "of": "creator"}
    runs(tmp_path)


def test_a_folder_of_parquet_files_and_a_pattern(tmp_path: Path) -> None:
    log = a_log(40).rename({"user": "userId", "item": "videoId", "timestamp": "watchedAt"})
    (tmp_path / "log").mkdir()
    for number in range(3):
        log[number * 400 : (number + 1) * 400 if number < 2 else None].write_parquet(
            tmp_path / "log" / f"part-{number}.parquet"
        )
    config, said = proposed(tmp_path / "log", tmp_path)
    assert config["ingest"]["path"] == "log"
    assert "time_format" not in config["ingest"]
    assert f"{log.height:,} rows in 3 files" in said
    assert lake_of(tmp_path).events.height == log.height
    (tmp_path / "other").mkdir()
    assert (
        invoke(
            "init", str(tmp_path / "log" / "part-*.parquet"), str(tmp_path / "other" / "run.toml")
        ).exit_code
        == 0
    )
    assert lake_of(tmp_path / "other").events.height == log.height


def test_a_folder_with_events_items_and_decisions(tmp_path: Path) -> None:
    log = a_log(40)
    rng = np.random.default_rng(2)
    folder = tmp_path / "log"
    folder.mkdir()
    log.write_csv(folder / "events.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    items = sorted(log["item"].unique())
    pl.DataFrame(
        {"item": items, "title": items, "brand": [f"b{place % 5}" for place in range(len(items))]}
    ).write_csv(folder / "items.csv")
    shown = log.select(
        user="user", ts=pl.col("timestamp").dt.epoch("s"), impression_id=pl.int_range(pl.len())
    )
    shown = shown.with_columns(
        pl.Series("item", rng.choice(items, shown.height)), propensity=pl.lit(1 / len(items))
    )
    shown.write_csv(folder / "shown.csv")
    config, said = proposed(folder, tmp_path)
    assert config["ingest"]["path"] == "log/events.csv"
    assert config["ingest"]["items"] == {
        "path": "log/items.csv",
        "columns": {"item_id": "item", "creator_id": "brand", "title": "title"},
    }
    decisions = config["ingest"]["decisions"]
    assert decisions["time_format"] == "epoch_s"
    assert decisions["columns"] == {
        "decision_id": "impression_id",
        "user_id": "user",
        "time": "ts",
        "item_id": "item",
        "propensity": "propensity",
    }
    assert "off-policy estimates: what was shown is there" in said
    lake = lake_of(tmp_path)
    assert lake.decisions.height == shown.height
    assert lake.events["creator_id"].null_count() == 0
    runs(tmp_path)


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("epoch_s", lambda at: at.dt.epoch("s").cast(pl.String)),
        ("epoch_s", lambda at: at.dt.epoch("s")),
        ("epoch_us", lambda at: at.dt.epoch("us")),
        ("%m/%d/%Y %H:%M:%S", lambda at: at.dt.strftime("%m/%d/%Y %H:%M:%S")),
        ("%d.%m.%Y", lambda at: at.dt.strftime("%d.%m.%Y")),
        ("%Y%m%d", lambda at: at.dt.strftime("%Y%m%d")),
        ("%b %d, %Y %I:%M %p", lambda at: at.dt.strftime("%b %d, %Y %I:%M %p")),
        (None, lambda at: at.dt.strftime("%Y-%m-%d %H:%M")),
        (None, lambda at: at.dt.strftime("%Y-%m-%dT%H:%M:%S+01:00")),
    ],
)
def test_times_are_read_as_they_are_written(tmp_path: Path, form: str | None, written: Any) -> None:
    log = a_log(40).with_columns(written(pl.col("timestamp")).alias("timestamp"))
    log.write_parquet(tmp_path / "a.parquet")
    config, _ = proposed(tmp_path / "a.parquet", tmp_path)
    assert config["ingest"].get("time_format") == form
    first = lake_of(tmp_path).events["time"].min()
    assert isinstance(first, datetime)
    assert abs(first - BEGIN) < timedelta(days=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared logs are not there")
@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("online_retail/online_retail.parquet", {"format": "retail"}),
        ("complete_journey/transactions_sample.parquet", {"constants": {"kind": "purchase"}}),
        ("obd_sample/random/men", {"format": "open-bandit"}),
    ],
)
def test_real_logs_are_known_and_their_runs_start(
    tmp_path: Path, log: str, expected: dict[str, Any]
) -> None:
    config, _ = proposed(SHARED / log, tmp_path)
    assert {name: config["ingest"].get(name) for name in expected} == expected
    result = invoke("outcomes", str(tmp_path / "run.toml"), "--folder", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output


def test_a_large_log_is_looked_at_within_two_seconds(tmp_path: Path) -> None:
    n = 2_000_000
    at = (BEGIN.timestamp() + np.sort(np.random.default_rng(0).random(n)) * 86_400 * 90).astype(
        np.int64
    )
    frame = pl.DataFrame(
        {"user": np.arange(n) % 5_000, "item": np.arange(n) % 700, "timestamp": at}
    )
    frame.write_csv(tmp_path / "large.csv")
    begun = time.process_time()
    _, said = proposed(tmp_path / "large.csv", tmp_path)
    assert time.process_time() - begun < 2.0
    assert "89 complete days" in said or "90 complete days" in said


HOSTILE = {
    "a header and no rows": "user,item,timestamp\n",
    "an empty file": "",
    "no names": "1,2,2026-01-01\n1,3,2026-01-02\n",
    "no time": "user,item\na,b\nc,d\n",
    "binary": None,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_log_is_told_in_words(tmp_path: Path, case: str) -> None:
    text = HOSTILE[case]
    file = tmp_path / "log.csv"
    file.write_bytes(np.random.default_rng(0).bytes(4_000) if text is None else text.encode())
    result = invoke("init", str(file), str(tmp_path / "run.toml"))
    assert result.exit_code == 1, result.output
    assert "the data says no" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run.toml").exists()


def test_an_empty_folder_and_an_absent_file_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for log in ("empty", "none.csv"):
        result = invoke("init", str(tmp_path / log), str(tmp_path / "run.toml"))
        assert result.exit_code == 2, result.output
        assert log in result.output.replace("\n", "")


def test_an_existing_file_is_left_alone_and_nobody_is_told_to_delete_it(tmp_path: Path) -> None:
    a_log(30).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "run.toml").write_text("mine")
    result = invoke("init", str(tmp_path / "a.parquet"), str(tmp_path / "run.toml"))
    assert result.exit_code == 2
    assert "give another name" in result.output
    assert "delete" not in result.output
    assert (tmp_path / "run.toml").read_text() == "mine"
