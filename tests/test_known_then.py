"""What was known then stays what was known then, whatever arrives later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.lake import Lake

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
TABLES = ("events", "items", "decisions")


def batch(
    rng: np.random.Generator, number: int, watermark: datetime, histories: int
) -> dict[str, Any]:
    """Three days after `watermark` in many histories: events, late events, decisions, items new and
    described anew.

    Every history has users, items and creators of its own. The first batch holds an item of each: a
    lake's first catalogue counts as known since its items were added.
    """
    parts = [_tables(rng, number, watermark, f"h{history}-") for history in range(histories)]
    tables = {name: pl.concat([part[name] for part in parts]) for name in TABLES}
    if number % 2:  # some descriptions come with their arrival, some without
        tables["items"] = tables["items"].drop("ingested_at")
    return tables | {"watermark": watermark + 3 * DAY}


def _tables(
    rng: np.random.Generator, number: int, watermark: datetime, name: str
) -> dict[str, pl.DataFrame]:
    """One history's rows of a batch."""
    days = watermark + 3 * DAY * rng.random(5)
    late = watermark - 4 * DAY * rng.random(2)
    arrived = [*days, *(watermark + 3 * DAY * rng.random(2))]
    events = pl.DataFrame(
        {
            "event_id": [f"{name}e{number}-{row}" for row in range(7)],
            "user_id": [f"{name}u{rng.integers(2)}" for _ in range(7)],
            "item_id": [f"{name}i{rng.integers(4)}" for _ in range(7)],
            "creator_id": [
                None if rng.random() < 0.5 else f"{name}c{rng.integers(2)}" for _ in range(7)
            ],
            "kind": "play",
            "time": [*days, *late],
            "ingested_at": [max(pair) for pair in zip(arrived, [*days, *late])],
        },
        schema_overrides={"time": TIME, "ingested_at": TIME, "creator_id": pl.String},
    )
    slots = [watermark - 2 * DAY * rng.random(), watermark + DAY * rng.random()]
    decisions = pl.DataFrame(
        {
            "decision_id": [f"{name}d{number}-{row}" for row in range(2)],
            "context_id": ["x", "y"],
            "user_id": [f"{name}u0", f"{name}u1"],
            "time": slots,
            "surface": "home",
            "slate": [[f"{name}i0", f"{name}i1"], [f"{name}i2"]],
            "log_prob": [[-1.0, -1.0], [-0.5]],
            "policy": "p@1",
            "ingested_at": [max(time, watermark) + timedelta(hours=1) for time in slots],
        },
        schema_overrides={"time": TIME, "ingested_at": TIME},
    )
    described = [f"{name}i{item}" for item in range(4) if rng.random() < 0.6 or item == number == 0]
    items = pl.DataFrame({"item_id": described}, schema={"item_id": pl.String}).with_columns(
        creator_id=pl.lit(f"{name}c{rng.integers(2)}"),
        title=pl.lit(f"t{rng.integers(2)}"),
        length=pl.lit(float(rng.integers(1, 3))),
        available=pl.lit(bool(rng.random() < 0.7)),
        added_at=pl.lit(watermark - DAY + 2 * DAY * rng.random()).cast(TIME),
        ingested_at=pl.lit(watermark + DAY * (0.1 + rng.random())).cast(TIME),
    )
    return {"events": events, "decisions": decisions, "items": items}


def shown(lake: Lake, t: datetime) -> dict[str, pl.DataFrame]:
    view = lake.before(t)
    return {table: getattr(view, table) for table in TABLES}


def live(lake: Lake, seed: int, look: Any, histories: int) -> None:
    """Five batches; what `look` shows of times up to the watermark after each is the same after all
    of them."""
    rng = np.random.default_rng(seed)
    seen: list[tuple[datetime, Any]] = []
    watermark = START
    for number in range(5):
        lake.append(f"b{number}", **batch(rng, number, watermark, histories))
        watermark += 3 * DAY
        for t in (watermark, watermark - DAY * rng.random()):
            seen.append((t, look(lake, t)))
    for t, before in seen:
        after = look(lake, t)
        for name, frame in before.items():
            assert frame.equals(after[name]), (seed, t, name)


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 10))]
)
def test_a_thousand_histories_change_nothing_that_was_known(seed: int) -> None:
    live(Lake.memory(), seed, shown, histories=100)


def test_folders_sql_and_outcomes_keep_to_it_too(tmp_path: Path) -> None:
    habit = lp.Signal("habit", lp.discovery(), lp.days_with("creator") >= 1, window=(1, 2))

    def look(lake: Lake, t: datetime) -> dict[str, pl.DataFrame]:
        view = lake.before(t)
        with view.connect() as con:
            items = con.sql(
                "select item_id, creator_id, title, available, added_at from items order by item_id"
            ).pl()
        outcomes = habit.outcomes(view, as_of=t).frame
        return shown(lake, t) | {
            "items in SQL": items,
            "outcomes": outcomes.sort(outcomes.columns[:4]),
        }

    live(Lake.open(tmp_path / "lake"), 0, look, histories=100)


def test_memory_folder_and_sql_show_the_same_items(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lakes = [Lake.memory(), Lake.open(tmp_path / "lake")]
    watermark = START
    for number in range(6):
        rows = batch(rng, number, watermark, 30)
        for lake in lakes:
            lake.append(f"b{number}", **rows)
        watermark += 3 * DAY
        for t in (watermark, watermark - 2 * DAY):
            memory, folder = (lake.before(t) for lake in lakes)
            assert memory.items.equals(folder.items)
            with folder.connect() as con:
                sql = con.sql("select * from items order by item_id").pl()
            assert sql.select("item_id", "creator_id", "title", "available").equals(
                memory.items.select("item_id", "creator_id", "title", "available")
            )
