"""What the service knew of users and items: vectors and attributes, as of a moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.errors import DataError
from longplay.frames import Column, polars_series
from longplay.ids import ids_of
from longplay.lake.exact import exact
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME


def users_as_known(
    lake: Lake, users: Column, time: datetime | Sequence[datetime] | pl.Series
) -> pl.DataFrame:
    """What the service knew of each user at a moment: columns `vector` and `attributes`, one row
    per moment; null where it knew nothing.

    A row is what `lake.before(t, known_at=t).users` shows of the user, t being the row's moment: the
    description that had arrived last by then. A description holds as a whole, so a vector that it
    leaves out is not known, whatever an earlier description said. Nothing outside the bounds of
    `lake` is seen.

    Args:
        lake: the lake, or a view of it.
        users: [N] ids of users.
        time: one moment for all, or N of them, with a time zone.

    Raises:
        DataError: not as many moments as users, or moments that are no times.
    """
    user_ids = ids_of(users).alias("user_id")
    moments = polars_series([time] if isinstance(time, datetime) else time, "time")
    if isinstance(time, datetime):
        moments = moments.new_from_index(0, len(user_ids))
    if len(moments) != len(user_ids):
        raise DataError(
            f"users_as_known: {len(user_ids):,} users but {len(moments):,} moments; expected one "
            "moment for each user, or one for all"
        )
    asked = pl.DataFrame([user_ids, exact(moments, TIME, ids=False, table="users_as_known")])
    descriptions = lake.descriptions("users")
    arrivals = descriptions.select("user_id", "added_at", "ingested_at").with_row_index("row")
    latest = (
        asked.with_row_index("moment")
        .sort("time")
        .join_asof(
            arrivals.sort("ingested_at", maintain_order=True),
            left_on="time",
            right_on="ingested_at",
            by="user_id",
            check_sortedness=False,
        )
        .sort("moment")
    )
    was_there = latest["added_at"] < latest["time"]
    row_N = latest["row"].set(~was_there.fill_null(False), None)
    return descriptions.select(pl.col("vector", "attributes").gather(row_N))


def user_vectors(
    lake: Lake, users: Column, time: datetime | Sequence[datetime] | pl.Series
) -> Float:
    """Vectors of users as they were known at a moment, shape [N, R]; NaN in the rows of users of
    whom no vector was known, and R = 0 where none was known at all.

    Args:
        lake: the lake, or a view of it.
        users: [N] ids of users.
        time: one moment for all, or N of them, with a time zone (see `users_as_known`).

    >>> from datetime import UTC
    >>> march = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
    >>> users = pl.DataFrame({"user_id": ["u1"], "vector": [[1.0, -2.0]], "added_at": march[:1]})
    >>> lake = Lake.memory()
    >>> print(lake.append("users", users=users, watermark=march[2]))
    batch users: 1 users
    >>> user_vectors(lake, ["u1", "u1", "u2"], [march[1], march[0], march[1]])
    array([[ 1., -2.],
           [nan, nan],
           [nan, nan]])

    Raises:
        DataError: vectors of different lengths, or see `users_as_known`.
    """
    return as_matrix(users_as_known(lake, users, time)["vector"], ids_of(users))


def item_vectors(lake: Lake, items: Column) -> Float:
    """Vectors of items as the lake's view shows them, shape [I, R]; NaN in the rows of items
    without one, and R = 0 where none has one.

    Args:
        lake: the lake, or the view before a time.
        items: [I] ids of items; they may repeat.

    Raises:
        DataError: vectors of different lengths.
    """
    item_ids = ids_of(items).alias("item_id")
    known = lake.items.select("item_id", "vector")
    vectors = item_ids.to_frame().join(known, on="item_id", how="left", maintain_order="left")
    return as_matrix(vectors["vector"], item_ids)


def as_matrix(vectors: pl.Series, ids: pl.Series) -> Float:
    """Lists of numbers as an array [N, R]; NaN in the rows of missing lists.

    Args:
        vectors: [N] lists, equally long or null.
        ids: [N] whose they are, for errors.

    >>> as_matrix(pl.Series([[1.0, 2.0], None]), pl.Series(["a", "b"]))
    array([[ 1.,  2.],
           [nan, nan]])

    Raises:
        DataError: lists of different lengths.
    """
    is_known_N = vectors.is_not_null()
    known = vectors.filter(is_known_N)
    lengths = known.list.len()
    if lengths.n_unique() > 1:
        known_ids = ids.filter(is_known_N)
        other = int((lengths != lengths[0]).arg_max() or 0)
        raise DataError(
            f"vectors of different lengths: {lengths[0]} numbers for {known_ids[0]!r} and "
            f"{lengths[other]} for {known_ids[other]!r}; expected equally many; give all vectors "
            "from one model"
        )
    width = int(lengths[0]) if len(lengths) else 0
    matrix_NR = np.full((len(vectors), width), np.nan)
    matrix_NR[is_known_N.to_numpy()] = known.explode().to_numpy().reshape(len(known), width)
    return matrix_NR


@dataclass(frozen=True, eq=False)
class Scaling:
    """Columns made to have mean 0 and mean square 1; rows that are not known become 0, the mean."""

    mean_C: Float
    scale_C: Float

    @classmethod
    def of(cls, x_LC: Float) -> Scaling:
        """The scaling of these columns; NaN is not known."""
        if not len(x_LC) or not x_LC.shape[1] or np.isnan(x_LC).all():
            return cls(np.zeros(x_LC.shape[1]), np.ones(x_LC.shape[1]))
        mean_C = np.nanmean(x_LC, axis=0)
        return cls(mean_C, np.maximum(np.sqrt(np.nanmean((x_LC - mean_C) ** 2, axis=0)), 1e-9))

    def scaled(self, x_LC: Float) -> Float:
        """These columns in the scale, [L, C]; rows with NaN become 0."""
        width = len(self.mean_C)
        if x_LC.shape[1] != width:  # nothing is known any more
            return np.zeros((len(x_LC), width))
        return np.nan_to_num((x_LC - self.mean_C) / self.scale_C)
