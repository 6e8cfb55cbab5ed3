"""Spark computes what DuckDB computes: the same rows, values, nulls, maturity and entry columns.

One Spark session serves the module. It is the user's own: in another time zone than the machine,
which is in another one than UTC, and with a view of its own that is called `events`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import longplay as lp
from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.lake import Lake
from longplay.lake.schema import DTYPES, ENGAGED, KINDS, ORIGINS
from longplay.run import STAGES, run_stages
from longplay.run.config import parse_config
from longplay.signals import (
    Signal,
    active_days,
    active_weeks,
    amount,
    cancelled,
    completion,
    count,
    days_with,
    discovery,
    distinct,
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
from longplay.signals.declare.entry import ENTRY_KINDS
from longplay.signals.declare.measure import MEASURE_KINDS
from longplay.signals.engine import spark
from longplay.signals.engine.dialect import Engine
from longplay.signals.engine.duckdb import DUCKDB, DuckDBEngine
from longplay.signals.outcomes.in_files import BaseRate, base_rates, outcome_tables, write_outcomes
from longplay.signals.outcomes.in_memory import outcomes_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MISSING = next((name for name in ("pyspark", "sqlglot") if find_spec(name) is None), None)
JAVA = os.environ.get("JAVA_HOME") or shutil.which("java")
needs_spark = pytest.mark.skipif(
    MISSING is not None or JAVA is None,
    reason=f"{MISSING} is not installed"
    if MISSING
    else "no Java: no java on the PATH, no JAVA_HOME",
)
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of py4j

START, DAYS = datetime(2026, 3, 1, tzinfo=UTC), 32  # over both changes of the clock in March
DAY = timedelta(days=1)
LAST_MICRO = DAY - timedelta(microseconds=1)
CLOCKS = (datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 3, 29, 1, tzinfo=UTC))  # US, EU
USERS = [
    "ü",
    "日本",
    "🎧",
    "o'brien",
    'quo"te',
    "two words",
    "back\\slash",
    *(f"u{n}" for n in range(24)),
]
ITEMS = [f"item-ñ{n}" for n in range(12)]

BY_MEASURE = [
    Signal("active_days", user_day(), active_days(), (1, 10)),
    Signal("returned", user_day(), returned(), (1, 7)),
    Signal("days_with", discovery(novel_for=14), days_with("creator") >= 2, (1, 10)),
    Signal("time_to_return", user_day(), time_to_return(), (1, 10)),
    Signal("minutes", user_day(), minutes() >= 1, (0, 6)),
    Signal("plays", discovery(novel_for=14, of="item"), plays("item"), (0, 6)),
    Signal("saves", user_day(), saves(), (1, 10)),
    Signal("skips", user_day(), skips(), (1, 10)),
    Signal("cancelled", user_day(), cancelled(), (1, 20)),
    Signal("count", user_day(), count("like"), (1, 10)),
    Signal("sessions", user_day(), sessions(), (1, 10)),
    Signal("completion", user_day(), completion(), (1, 10)),
    Signal("habits", user_day(), habits("creator", days=2), (1, 10)),
    Signal("ratio", user_day(), minutes() / active_days(), (1, 10)),
    Signal("above_baseline", user_day(), minutes().above_baseline(14), (1, 10)),
    Signal("distinct", user_day(), distinct("creator"), (0, 7)),
    Signal("active_weeks", user_day(), active_weeks(), (1, 17)),
    Signal("amount", user_day(), amount("purchase"), (0, 6)),
]
NARROWED = [
    Signal("few_days", user_day(), active_days(seconds=20) <= 3, (1, 10)),
    Signal("visits", user_day(), count("visit", surface="suche", seconds=20), (1, 10)),
    Signal("played_days", user_day(), returned(event="play", surface="home"), (1, 7)),
    Signal("at_home", user_day(), distinct("item", surface="home") <= 1, (1, 7)),
    Signal("paid_little", user_day(), amount("purchase", surface="home") <= 2.5, (1, 10)),
    Signal("paid_per_session", user_day(), amount("play") / sessions(), (1, 7)),
    Signal("paid_more", user_day(), amount("play").above_baseline(5), (1, 7)),
]
BY_ENTRY = [
    Signal("enrolment", enrolment(), active_days(), (1, 14)),
    Signal("event", event("save", of="item"), plays("item"), (0, 6)),
    Signal("first_event", event("save", of="item", novel_for=12), minutes("item"), (0, 6)),
    Signal("exposure", exposure(), days_with("creator"), (1, 10)),
    Signal("dormant", user_day(dormant_for=3), active_days(), (1, 10)),
    Signal("first_ever", discovery(), time_to_return("creator"), (1, 10)),
    Signal("weeks_with", discovery(novel_for=14), active_weeks("creator", event="play"), (1, 10)),
    Signal("organic_event", event("play", origin="organic"), plays(), (1, 7)),
    Signal("event_at", event("save", "creator", surface="suche"), days_with("creator"), (1, 7)),
]
EVERY = [*BY_MEASURE, *NARROWED, *BY_ENTRY]


def events(rows: int, days: int = DAYS, seed: int = 5) -> pl.DataFrame:
    """Events with what engines disagree on: ties, late arrivals, odd ids, nulls, midnights."""
    dice = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(rows):
        moment = dice.choice(
            [
                timedelta(0),
                timedelta(microseconds=1),
                LAST_MICRO,
                timedelta(hours=7),
                *(timedelta(microseconds=dice.randrange(86_400_000_000)) for _ in range(6)),
            ]
        )
        when = START + timedelta(days=dice.randrange(days)) + moment
        if dice.random() < 0.05:
            when = dice.choice(CLOCKS) + timedelta(microseconds=dice.randrange(-1, 2))
        item = dice.randrange(len(ITEMS))
        made.append(
            {
                "event_id": f"e{number % 7}-{number}",
                "user_id": USERS[int(len(USERS) * dice.random() ** 3)],  # some are rarely there
                "item_id": ITEMS[item] if dice.random() < 0.95 else None,
                "creator_id": dice.choice([f"c{item // 3}", f"c{item // 3}", None]),
                "kind": dice.choice([*ENGAGED, "play", "play", *KINDS]),
                "time": when,
                "seconds": dice.choice([None, 20.0, 33.3, 100.5, 0.1, 1e-7]),
                "surface": dice.choice(["home", "suche", None]),
                "origin": dice.choice(ORIGINS),
                "session_id": None,
                "decision_id": dice.choice(["d1", None]),
                "slot": dice.choice([0, 2, None]),
                "amount": dice.choice([None, 0.0, 0.1, 0.1, 2.5, 19.99, 1e6]),
                "ingested_at": when + timedelta(hours=dice.choice([0, 0, 0, 30, 24 * 20])),
            }
        )
    frame = pl.DataFrame(made, schema=DTYPES["events"])
    ties = frame.sample(rows // 20, seed=seed).with_columns(
        event_id=pl.lit("tie-") + pl.col("event_id")
    )
    return pl.concat([frame, ties])


def decisions(rows: int, days: int = DAYS, seed: int = 6) -> pl.DataFrame:
    dice = random.Random(seed)
    made = [
        {
            "decision_id": f"d{number}",
            "context_id": f"x{number}",
            "user_id": dice.choice([*USERS, "never active"]),
            "time": START + timedelta(seconds=dice.randrange(days * 86_400)),
            "surface": "home",
            "slate": dice.sample([*ITEMS, "unknown"], dice.randrange(4)),
            "policy": "p@1",
            "experiment": dice.choice([None, "trial"]),
        }
        for number in range(rows)
    ]
    frame = pl.DataFrame(made).with_columns(pl.col("time").cast(DTYPES["events"]["time"]))
    return frame.with_columns(
        log_prob=pl.col("slate").list.eval(pl.element().str.len_bytes().cast(pl.Float64) * -0.5)
    )


def catalogue() -> pl.DataFrame:
    """Some items have no creator there, and some no length."""
    return pl.DataFrame(
        {
            "item_id": ITEMS[:9],
            "creator_id": [f"c{n // 3}" if n % 4 else None for n in range(9)],
            "length": [30.0 if n % 2 else None for n in range(9)],
            "added_at": [START] * 9,
        },
        schema_overrides={"added_at": DTYPES["items"]["added_at"]},
    )


def fill(lake: Lake, rows: int, days: int = DAYS) -> Lake:
    end = START + timedelta(days=days + 2)
    log = events(rows, days)
    first, second = log.head(rows // 2), log.slice(rows // 2)
    shown = decisions(rows // 12, days)
    lake.append(
        "1", events=first, decisions=shown, items=catalogue(), watermark=end, now=end + 30 * DAY
    )
    later = catalogue().head(2).with_columns(creator_id=pl.lit("c-new"))  # described anew
    lake.append("2", events=second, items=later, watermark=end, now=end + 30 * DAY)
    return lake


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    from pyspark.sql import SparkSession

    zone = os.environ.get("TZ")
    os.environ["TZ"] = "America/New_York"
    time.tzset()
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "1",
        # a minute of Java is not worth its best compiler, nor a description of every plan
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.ui.explainMode": "simple",
        "spark.sql.maxPlanStringLength": "1000",
        # plans of 2,000 rows are worth neither adapting nor compiling
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.session.timeZone": "Asia/Kolkata",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    running = builder.getOrCreate()
    running.sparkContext.setLogLevel("ERROR")
    running.range(3).createOrReplaceTempView("events")
    yield running
    running.stop()
    if zone is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = zone
    time.tzset()


@pytest.fixture(scope="module")
def engine(session: SparkSession) -> spark.SparkEngine:
    return lp.SparkEngine(session)


@pytest.fixture(scope="module")
def lake() -> Lake:
    return fill(Lake.memory(), 2_000)


@needs_spark
@pytest.mark.parametrize("place", ["memory", "folder"])
def test_users_vectors_and_attributes_are_those_of_the_view(
    place: str, engine: spark.SparkEngine, tmp_path: Path
) -> None:
    lake = Lake.memory() if place == "memory" else Lake.open(tmp_path / "lake")
    lake.append("plain", items=catalogue(), watermark=START + DAY)
    vectors = pl.Series([[0.1, -2.0]] * 3)
    users = pl.DataFrame(
        {
            "user_id": ["ü", "ü", "u1"],
            "attributes": ['{"land":"SE"}', None, '{"land":"日本"}'],
            "vector": vectors,
            "added_at": [START] * 3,
            "ingested_at": [START, START + 3 * DAY, START],
        }
    )
    known = catalogue().head(3).with_columns(vector=vectors, attributes=pl.lit('{"a":1}'))
    lake.append("known", items=known, users=users, watermark=START + 5 * DAY)
    for view in (lake, lake.before(START + 2 * DAY)):
        with engine.connect(view) as con:
            for table, key in (("users", "user_id"), ("items", "item_id")):
                columns = f"{key}, vector, attributes"
                rows = con.sql(f"select {columns} from {table} order by {key}").fetchall()
                frame = getattr(view, table).sort(key)
                assert rows == frame.select(key, "vector", "attributes").rows()


def by_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in an order that does not depend on the engine."""
    return frame.sort(frame.columns, nulls_last=True)


def tables(signals: list[Signal], lake: Lake, engine: Engine) -> list[pl.DataFrame]:
    """The table of each signal's entry, with the values of all signals of that entry."""
    with engine.connect(lake) as con:
        made = outcome_tables(con, signals, lake, lake, lake.watermark, engine)
        distinct = dict.fromkeys(made.values())
        return [con.sql(f"select * from {table}").pl() for table in distinct]


def check(signals: list[Signal], lake: Lake, engine: Engine, entered: bool = True) -> None:
    """Raise unless both engines have the same rows; `entered`: and every entry has some."""
    expected, got = tables(signals, lake, DUCKDB), tables(signals, lake, engine)
    assert len(expected) == len(got)
    for left, right in zip(expected, got, strict=True):
        assert left.height > 0 or not entered
        assert_frame_equal(
            by_columns(left),
            by_columns(right.select(left.columns)),
            check_exact=False,
            rel_tol=1e-12,
            abs_tol=1e-12,
        )


@pytest.mark.parametrize("days", [DAYS, 180, 700], ids=["a word", "words", "eras"])
def test_spark_own_queries_have_the_rows_of_duckdb(days: int) -> None:
    """Also without Java: DuckDB runs what is written for Spark before it is translated."""
    check(EVERY, fill(Lake.memory(), 2_000, days), DuckDBEngine(spark.SparkDialect()))


def test_the_signals_here_are_of_every_measure_and_entry() -> None:
    assert {signal.measure.kind for signal in BY_MEASURE} == set(MEASURE_KINDS)
    assert {signal.entry.kind for signal in EVERY} == set(ENTRY_KINDS)


@needs_spark
def test_every_measure_and_entry_has_the_rows_of_duckdb(
    lake: Lake, engine: spark.SparkEngine
) -> None:
    check(EVERY, lake, engine)


@needs_spark
@pytest.mark.parametrize(
    "signal", [BY_MEASURE[2], BY_MEASURE[3], *BY_ENTRY[:4]], ids=lambda signal: signal.name
)
def test_entries_have_the_event_that_opened_them(
    signal: Signal, lake: Lake, session: SparkSession
) -> None:
    expected, got = signal.outcomes(lake), signal.outcomes(lake, engine=session)
    assert expected.frame.schema == got.frame.schema
    assert_frame_equal(by_columns(expected.frame), by_columns(got.frame), rel_tol=1e-12)
    assert expected.as_of == got.as_of
    assert_frame_equal(expected.creators, got.creators)
    assert session.table("events").count() == 3
    assert session.conf.get("spark.sql.session.timeZone") == "Asia/Kolkata"


@needs_spark
def test_a_view_hides_what_had_not_arrived(tmp_path: Path, engine: spark.SparkEngine) -> None:
    """By time, by arrival, and the catalogue as it was described then; in a folder of an odd
    name."""
    whole = fill(Lake.open(tmp_path / "lake {a,b} ü"), 900)
    end = START + timedelta(days=26, hours=7)
    late = whole.before(end, known_at=end - timedelta(days=3))
    assert 0 < late.events.height < whole.before(end).events.height < whole.events.height
    for view in (late, whole.before(end)):
        expected = outcomes_of(BY_MEASURE[2], view)
        got = outcomes_of(BY_MEASURE[2], view, engine=engine)
        assert_frame_equal(by_columns(expected.frame), by_columns(got.frame), rel_tol=1e-12)


@needs_spark
def test_outcomes_in_files_traces_and_base_rates(
    tmp_path: Path, lake: Lake, engine: spark.SparkEngine
) -> None:
    signal = BY_MEASURE[3]
    expected = write_outcomes([signal], lake, tmp_path / "duckdb")
    write_outcomes([signal], lake, tmp_path / "spark", engine=engine)
    # the second time it takes the place of the first
    got = write_outcomes([signal], lake, tmp_path / "spark", engine=engine)
    left, right = (pl.read_parquet(files[signal.label]) for files in (expected, got))
    assert_frame_equal(by_columns(left), by_columns(right), rel_tol=1e-12)
    expected_rate, rate = (base_rates([signal], lake, engine=one)[signal] for one in (None, engine))
    assert isinstance(expected_rate, BaseRate)
    assert isinstance(rate, BaseRate)
    assert str(rate) == str(replace(expected_rate, rate=rate.rate))
    assert rate.rate is not None
    assert expected_rate.rate is not None
    assert rate.rate.value == pytest.approx(expected_rate.rate.value, rel=1e-12)
    assert rate.rate.std_error == pytest.approx(expected_rate.rate.std_error, rel=1e-9)
    traces = [
        outcomes_of(signal, lake, engine=one).trace().sum(axis=0).tolist()
        for one in (DUCKDB, engine)
    ]
    assert traces[0] == traces[1]


@needs_spark
def test_spark_refuses_what_duckdb_refuses(lake: Lake, engine: spark.SparkEngine) -> None:
    long = Signal("long", user_day(), returned(), (1, 300))
    with pytest.raises(DataError) as expected:
        long.outcomes(lake)
    with pytest.raises(DataError) as got:
        long.outcomes(lake, engine=engine)
    assert str(got.value) == str(expected.value)


@needs_spark
def test_a_damaged_file_is_named(tmp_path: Path, engine: spark.SparkEngine) -> None:
    lake = fill(Lake.open(tmp_path / "lake"), 100)
    Path(lake.files("events")[0]).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="is damaged: events/"):
        BY_MEASURE[0].outcomes(lake, engine=engine)


@needs_spark
def test_another_master_than_the_running_one_is_refused(session: SparkSession) -> None:
    with pytest.raises(ConfigError, match=r"local\[7\].*give that session"):
        lp.SparkEngine("local[7]")
    with pytest.raises(ConfigError, match="set them when that session is built"):
        lp.SparkEngine(session, {"spark.driver.memory": "2g"})


@needs_spark
def test_closing_leaves_a_session_that_was_running(session: SparkSession) -> None:
    for given in (session, session.sparkContext.master):
        lp.SparkEngine(given).close()
        assert session.range(2).count() == 2


RUN = """
[run]
name = "tiny"

[simulate]
users = 40
items = 40
days = 50

[split]
train_until = 2026-02-05
evaluate_until = 2026-02-12

[signals.habit]
entry = { kind = "discovery", of = "creator", novel_for = 14 }
measure = { kind = "days_with", of = "creator", threshold = 2 }
window = [1, 7]

[reward]
objectives = { habit = 1.0 }
"""


@needs_spark
@pytest.mark.slow
def test_the_outcomes_of_a_run_are_those_of_duckdb(session: SparkSession, tmp_path: Path) -> None:
    """Equal to the byte: nothing that follows knows which engine computed them."""
    texts = {"duckdb": RUN, "spark": RUN + f'[engine]\nspark = "{session.sparkContext.master}"\n'}
    results = {}
    for name, text in texts.items():
        config = parse_config(text, name)
        places = run_stages(config, base=tmp_path, folder=tmp_path / name, until="outcomes")
        results[name] = (places["outcomes"] / "result.json").read_text()
    assert results["spark"] == results["duckdb"]
    assert session.range(2).count() == 2  # the session was not the run's to stop


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('sparc = "local[2]"', "engine.sparc: unknown key; did you mean 'spark'"),
        ("spark = 2", "engine.spark: 2 given"),
        ('spark = ""', "engine.spark: '' given"),
        ('settings = { "spark.driver.memory" = "4g" }', "settings are of Spark; give its master"),
    ],
)
def test_a_wrong_engine_table_is_refused(table: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(f"{RUN}[engine]\n{table}\n", "run.toml")


def test_the_engine_is_no_part_of_what_a_stage_depends_on(tmp_path: Path) -> None:
    depends = next(stage.depends for stage in STAGES if stage.name == "outcomes")
    configs = [
        parse_config(text, "run.toml") for text in (RUN, RUN + '[engine]\nspark = "local[2]"\n')
    ]
    assert depends(configs[0], tmp_path) == depends(configs[1], tmp_path)


@needs_spark
@pytest.mark.slow
def test_ready_signals_and_all_measures_on_50_000_events(
    tmp_path: Path, engine: spark.SparkEngine
) -> None:
    lake = fill(Lake.open(tmp_path / "lake"), 50_000, days=180)
    check([*lp.ready(), *EVERY], lake, engine, entered=False)


@needs_spark
@pytest.mark.slow
@pytest.mark.parametrize("days", [700, 3_000], ids=["eras", "stretches"])
def test_a_log_of_years(days: int, engine: spark.SparkEngine) -> None:
    """Day bitmaps are cut into eras, or follow the stretches between silences."""
    lake = Lake.memory()
    end = START + timedelta(days=days + 2)
    log = events(4_000, days)
    if days == 3_000:
        since = (pl.col("time") - START).dt.total_days()
        log = log.filter((since < 60) | (since > 2_900))
    lake.append(
        "1",
        events=log,
        decisions=decisions(200, days),
        items=catalogue(),
        watermark=end,
        now=end + 30 * DAY,
    )
    check(EVERY, lake, engine)


# -- what can be missing
# -----------------------------------------------------------------------------


def test_without_pyspark_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pyspark is not installed; pip install "longplay\[s'):
        lp.SparkEngine("local[2]")


def a_java(folder: Path, says: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    return folder


def test_without_java_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    with pytest.raises(MissingExtra, match="install Java 17"):
        spark.check_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="no java on the PATH"):
        spark.check_java()


@pytest.mark.parametrize(
    "says", ['openjdk version "11.0.2" 2019-01-15', 'java version "1.8.0_292"', 'version "25"', "?"]
)
def test_another_java_is_refused(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(a_java(tmp_path / "jdk", says)))
    with pytest.raises(ConfigError, match="expected 17 to 21"):
        spark.check_java()


def test_java_17_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = a_java(tmp_path / "jdk", 'openjdk version "17.0.15" 2025-04-15')
    monkeypatch.setenv("JAVA_HOME", str(java))
    spark.check_java()


@pytest.mark.parametrize("given", ["local[2]", 3, object()], ids=["text", "number", "object"])
def test_what_is_no_engine_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected lp\.SparkEngine"):
        BY_MEASURE[0].outcomes(Lake.memory(), engine=given)
