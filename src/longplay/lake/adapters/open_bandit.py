"""The Open Bandit Dataset: logged recommendations of a fashion shop with their propensities (Saito
et al. 2020, arXiv 2008.07146)."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.cells import ids, numbers, text, times
from longplay.lake.adapters.known_columns import attributes_of
from longplay.lake.adapters.logged_slates import contexts_of, dated, unreadable
from longplay.lake.adapters.record_files import FAULT, LINE, TEXT, read_rows
from longplay.lake.adapters.source import Source
from longplay.lake.schema import conform

NEEDED = ("timestamp", "item_id", "position", "click", "propensity_score")
ITEMS = "item_context.csv"
# the three places of the page, each drawn on its own
POSITIONS = {
    1: "left",
    2: "center",
    3: "right",
}
REST = timedelta(
    days=2
    # the log ends so long after its last row; clicks are logged with impressions, so none is open
)


def read_open_bandit(path: str | Path) -> Source:
    """One campaign of the Open Bandit Dataset under one behaviour policy, such as the folder
    `random/all` or its `all.csv`.

    A row is a decision of one slot with its propensity. The three positions of the page are drawn
    on their own and are not linked by the log, so each is a surface: left, center, right; an
    estimate over all of them has `surface=None`. There are no user ids: every impression is a user
    of its own, so nothing is known of anybody's return. A click is a play, recommended, linked to
    its decision. Items are those of `item_context.csv` beside the rows, their hashed features as
    tags and all of them as attributes; the features of a row's user are the attributes that were
    known in its context.

    Raises:
        ConfigError: no such file, several campaigns, or a column is missing.
        DataError: a file cannot be read.
    """
    file, catalogue = _files(Path(path).expanduser())
    read = read_rows(file)
    rows = read.filter(pl.col(FAULT).is_null())
    for name in NEEDED:
        if name not in rows.columns:
            raise ConfigError(
                f"{file}: no column {name!r}, expected the Open Bandit Dataset, with "
                f"{', '.join(NEEDED)}"
            )
    slots = _slots(rows, f"{file.parent.parent.name}/{file.parent.name}")
    features = [name for name in rows.columns if name.startswith("user_feature_")]
    slots = slots.with_columns(attributes_of(rows, features)[0].alias("user_attributes"))
    good = slots.filter(pl.col("reason").is_null())
    rejected = slots.filter(pl.col("reason").is_not_null())
    decisions = conform(
        good.select(
            "decision_id",
            "context_id",
            "user_id",
            "time",
            "surface",
            slate=pl.concat_list("item_id"),
            log_prob=pl.concat_list("log_prob"),
            policy=pl.lit(f"{file.parent.parent.name or 'logged'}@open-bandit"),
        ),
        "decisions",
    )
    clicks = good.filter(pl.col("click") == 1)
    events = clicks.select(
        "user_id",
        "item_id",
        "time",
        "surface",
        "decision_id",
        "line",
        event_id="click:" + pl.col("decision_id"),
        kind=pl.lit("play"),
        origin=pl.lit("recommended"),
        slot=pl.lit(0, dtype=pl.Int32),
    )
    last = good["time"].max()
    if not isinstance(last, datetime):
        first = rejected["reason"][0] if rejected.height else "no rows"
        raise DataError(
            f"{file}: none of its {rows.height:,} rows is an impression; first: {first}"
        )
    as_text = pl.struct(pl.exclude(LINE, FAULT, TEXT)).struct.json_encode()
    refused = rows.filter(pl.Series(slots["reason"].is_not_null())).select(
        pl.col(LINE).alias("line"), as_text.alias("row")
    )
    return Source(
        events=events,
        items=_items(catalogue, decisions),
        decisions=decisions,
        contexts=contexts_of(decisions).update(
            good.select("context_id", "user_attributes"), on="context_id"
        ),
        rejected=pl.concat(
            [
                unreadable(read),
                refused.with_columns(rejected["reason"]).select("line", "reason", "row"),
            ]
        ),
        rows=read.height,
        notes=(
            f"{decisions.height:,} impressions with their propensities, {events.height:,} clicks, "
            "counted as plays",
            "no user ids: every impression is a user of its own, so no return and no habit can be "
            "seen",
            "the three positions are the surfaces left, center and right; surface=None takes all "
            "of them",
            "a click is logged with its impression: the log counts as complete two days after its "
            "last row",
        ),
        has_origin=True,
        has_decisions=True,
        complete_until=last + REST,
    )


def _files(path: Path) -> tuple[Path, Path]:
    """The file with the rows of one campaign, and that of its catalogue."""
    folder = path if path.is_dir() else path.parent
    if path.is_file():
        candidates = [path]
    else:
        candidates = sorted(file for file in folder.glob("*.csv") if file.name != ITEMS)
    if len(candidates) == 1 and (folder / ITEMS).is_file():
        return candidates[0], folder / ITEMS
    below = sorted(str(place.parent) for place in folder.rglob(ITEMS)) if folder.is_dir() else []
    several = f"; give one of {', '.join(below)}" if below else ""
    raise ConfigError(
        f"{path}: expected the folder of one campaign, with {ITEMS} and one other CSV file{several}"
    )


def _slots(rows: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """Every row as a slot, with the reason to reject it, or null."""
    position, click, propensity = (
        numbers(rows[name], pl.Float64)[0] for name in ("position", "click", "propensity_score")
    )
    frame = pl.DataFrame(
        {
            "line": rows[LINE],
            "item_id": ids(rows["item_id"]),
            "time": times(rows["timestamp"], None, "UTC"),
            "position": position,
            "click": click,
            "propensity": propensity,
        }
    )
    checks = {
        "missing item": pl.col("item_id").is_null(),
        "unparsable time": pl.col("time").is_null(),
        "no propensity in (0, 1]": ~pl.col("propensity").is_between(0, 1, closed="right"),
        "unknown position": ~pl.col("position").is_in([float(number) for number in POSITIONS]),
        "click is neither 0 nor 1": ~pl.col("click").is_in([0.0, 1.0]),
    }
    reason = pl.coalesce(
        *(pl.when(test.fill_null(True)).then(pl.lit(name)) for name, test in checks.items())
    )
    name = pl.format("{}:{}", pl.lit(prefix), "line")
    return frame.with_columns(
        reason=reason,
        decision_id=name,
        context_id="c:" + name,
        user_id="u:" + name,
        log_prob=pl.col("propensity").log(),
        surface=pl.col("position")
        .cast(pl.Int64, strict=False)
        .replace_strict(POSITIONS, default=None, return_dtype=pl.String),
    )


def _items(file: Path, decisions: pl.DataFrame) -> pl.DataFrame:
    """The catalogue. Shown items that it lacks are added without features."""
    rows = read_rows(file).filter(pl.col(FAULT).is_null())
    if "item_id" not in rows.columns:
        raise ConfigError(
            f"{file}: no column 'item_id', expected the items of the Open Bandit Dataset"
        )
    features = [
        name
        for name in rows.columns
        if name.startswith("item_feature_") and name != "item_feature_0"
    ]
    of_items = [name for name in rows.columns if name.startswith("item_feature_")]
    numeric = {"item_feature_0"} & set(of_items)
    typed = rows.with_columns(numbers(rows[name], pl.Float64)[0].alias(name) for name in numeric)
    attributes, _ = attributes_of(typed, of_items)
    words = pl.DataFrame([text(rows[name]).alias(name) for name in features])
    if features:
        tags = words.select(
            pl.concat_list(pl.format("{}={}", pl.lit(name), name) for name in features).alias(
                "tags"
            )
        )
    else:
        tags = pl.DataFrame()
    items = tags.with_columns(ids(rows["item_id"]).alias("item_id"), attributes).unique(
        "item_id", keep="first", maintain_order=True
    )
    shown = (
        decisions.select(pl.col("slate").list.first().alias("item_id"))
        .unique()
        .join(items, on="item_id", how="anti")
    )
    items = pl.concat([items, shown], how="diagonal").with_columns(
        added_at=pl.lit(decisions["time"].min())
    )
    return dated(items, None, decisions)
