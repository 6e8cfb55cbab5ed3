"""Contexts of a log: the moments at which its users could have been shown a slate."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from longplay.arrays import Int
from longplay.decisions.contexts import Contexts
from longplay.decisions.learners import of_learners
from longplay.decisions.showings import shown_before
from longplay.errors import DataError
from longplay.frames import as_lists
from longplay.index import ItemIndex, ranges
from longplay.lake.creators import named_events
from longplay.lake.lake import Lake
from longplay.lake.row_checks import RULES
from longplay.lake.schema import ENGAGED
from longplay.past import Met, Past

CELLS = 5_000_000  # exclusions sorted at once: bounds memory


def contexts_from_log(
    lake: Lake,
    *,
    slots: int,
    history: int,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    seed: int = 0,
    exclude: str | None = None,
    surface: str = "home",
    learners: bool = False,
    showings: int = 0,
    users: bool = False,
) -> Contexts:
    """Return moments at which logged users could have been shown a slate: the first event of each
    active user-day.

    Each context sees only events before its own time that had arrived by then. `exclude="seen"`
    forbids items the user already engaged with (`"creator"`: all items of creators already engaged
    with, `"none"`: nothing). A rule that is given is stated in the contexts, and a policy that was
    trained under another one refuses them; without one it is "seen", and not stated.

    Args:
        lake: the log.
        slots: slots per slate.
        history: most item ids of history kept.
        start: moments in [start, end); default the whole view.
        end: moments in [start, end); default the whole view.
        limit: at most this many, drawn by `seed` from all.
        seed: of the draw, where `limit` is given.
        exclude: `seen`, `creator` or `none`, as above; null: `seen`, not stated.
        surface: the contexts' surface.
        learners: leave out `ope_users` users where the lake has decisions: for learning, so that
            off-policy estimates can be trusted.
        showings: at most so many items that were shown before are carried in `shown` and
            `shown_time`, where the lake has decisions; 0: none.
        users: whether contexts carry what the service knew of the user at their time, in
            `user_vector` and `user_attributes`, where the lake has users.
    """
    moments = (
        lake.events.filter(pl.col("kind").is_in(ENGAGED))
        .group_by("user_id", pl.col("time").dt.date().alias("day"))
        .agg(pl.col("time").min())
    )
    if learners and not lake.decisions.is_empty():
        moments = of_learners(moments)
    if start is not None:
        moments = moments.filter(pl.col("time") >= start)
    if end is not None:
        moments = moments.filter(pl.col("time") < end)
    moments = moments.select("user_id", "time").sort("time", "user_id")
    if limit is not None and moments.height > limit:
        moments = moments[
            np.sort(np.random.default_rng(seed).choice(moments.height, limit, replace=False))
        ]
    if moments.is_empty():
        raise DataError("contexts_from_log: no user is active in the period; widen start and end")
    return contexts_at(
        lake,
        moments,
        slots=slots,
        history=history,
        exclude=exclude,
        surface=surface,
        showings=showings,
        users=users,
    )


def first_engagements(lake: Lake) -> pl.DataFrame:
    """Time of each user's first engagement with each item: columns user_id, item_id, time, in no
    order."""
    engaged = lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    return engaged.group_by("user_id", "item_id").agg(pl.col("time").min())


def contexts_at(
    lake: Lake,
    moments: pl.DataFrame,
    *,
    slots: int,
    history: int,
    exclude: str | None = None,
    surface: str = "home",
    showings: int = 0,
    users: bool = False,
) -> Contexts:
    """Contexts at `moments` (columns user_id, time). Each sees only events, showings and descriptions
    of its user from before its time that had arrived by then.

    See `contexts_from_log` for the other arguments. Memory: at most `history` items and `showings`
    showings per context, and the exclusions, which are written out for every context.
    """
    rule = "seen" if exclude is None else exclude
    if rule not in RULES:
        raise DataError(f"contexts: exclude={exclude!r} given, expected one of {', '.join(RULES)}")
    columns = ["user_id", "item_id", "creator_id", "time", "ingested_at", "kind", "surface"]
    key = RULES[rule]
    logged = named_events(lake) if key == "creator_id" else lake.events
    events = (
        logged.filter(pl.col("kind").is_in(ENGAGED))
        .select(columns)
        .sort("user_id", "time", "item_id", maintain_order=True)
    )
    index = ItemIndex(events["user_id"].unique())
    moment_user_N = index.rows(moments["user_id"])
    order = np.argsort(index.rows(events["user_id"]), kind="stable")
    events = events[order]
    past = _past_of(events, index)
    moment_time_N = moments["time"].dt.epoch("us").to_numpy()
    with_item = events.filter(pl.col("item_id").is_not_null())
    offsets, rows = _past_of(with_item, index).last(moment_user_N, moment_time_N, history)
    recent = with_item[rows]
    history_columns = {
        "history_time": recent["time"],
        "history_kind": recent["kind"],
        "history_surface": recent["surface"],
    }
    shown = None
    shown_time = None
    if showings > 0 and not lake.decisions.is_empty():
        shown, shown_time = shown_before(lake, moments["user_id"], moments["time"], showings)
    contexts = Contexts.of(
        moments["user_id"],
        moments["time"],
        slots=slots,
        history=as_lists("history", recent["item_id"], offsets),
        exclusions=_exclusions(lake, past, events, key, moment_user_N, moment_time_N),
        surface=surface,
        history_columns=pl.DataFrame(
            [as_lists(name, values, offsets) for name, values in history_columns.items()]
        ),
        exclude=exclude,
        shown=shown,
        shown_time=shown_time,
    )
    if not users or lake.descriptions("users").is_empty():
        return contexts
    return contexts.known_from(lake)


def _past_of(events: pl.DataFrame, users: ItemIndex) -> Past:
    """The `Past` of events that are sorted by their users' rows and by time."""
    time_E, arrived_E = (events[name].dt.epoch("us").to_numpy() for name in ("time", "ingested_at"))
    return Past(users.rows(events["user_id"]), time_E, arrived_E)


def _exclusions(
    lake: Lake, past: Past, events: pl.DataFrame, key: str | None, user_N: Int, time_N: Int
) -> pl.Series:
    """The items that each moment excludes, ascending by id: all items of the keys (items or
    creators) met by then."""
    if key is None:
        return pl.Series("exclusions", [[]], dtype=pl.List(pl.String)).new_from_index(
            0, len(user_N)
        )
    keys = events[key].drop_nulls().unique().sort()
    works, first_work_K, works_K = _works(lake, keys, key)
    met = Met.of(past, ItemIndex(keys).rows(events[key]))
    first_N, count_N = met.by(user_N, time_N)
    parts = [pl.Series("exclusions", [], dtype=pl.List(pl.String))]
    for part_N in np.array_split(np.arange(len(user_N)), 1 + int(count_N.sum()) // CELLS):
        if not len(part_N):
            continue
        owner_M = np.repeat(np.arange(len(part_N)), count_N[part_N])
        # one number per moment and key, so that the keys of a moment come in the order of their ids
        sorted_M = np.sort(
            owner_M * len(keys) + met.key_P[ranges(first_N[part_N], count_N[part_N])]
        )
        owner_M = sorted_M // max(len(keys), 1)
        key_M = sorted_M % max(len(keys), 1)
        length_N = np.bincount(owner_M, weights=works_K[key_M], minlength=len(part_N)).astype(
            np.int64
        )
        items = works.gather(ranges(first_work_K[key_M], works_K[key_M]))
        parts.append(as_lists("exclusions", items, np.concatenate([[0], np.cumsum(length_N)])))
    return pl.concat(parts)


def _works(lake: Lake, keys: pl.Series, key: str) -> tuple[pl.Series, Int, Int]:
    """The items of each key: the item itself, or the catalogue's items of the creator.

    All of them, key by key, and for each key where its first one stands and how many it has.
    """
    if key == "item_id":
        return keys, np.arange(len(keys)), np.ones(len(keys), dtype=np.int64)
    works = lake.items.filter(pl.col("creator_id").is_in(keys.implode())).sort(
        "creator_id", "item_id"
    )
    creator_W = ItemIndex(keys).rows(works["creator_id"])
    first_K = np.searchsorted(creator_W, np.arange(len(keys) + 1))
    return works["item_id"], first_K[:-1], np.diff(first_K)
