"""Contexts: the moments at which a slate is asked for, and what a policy may see of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float
from longplay.display import table_html
from longplay.errors import ConfigError, DataError
from longplay.frames import Column, polars_series
from longplay.ids import ids_of
from longplay.lake import Lake
from longplay.lake.known import as_matrix, users_as_known
from longplay.lake.row_checks import RULES
from longplay.lake.schema import VECTOR, conform

# columns of the events in a history, each a list as long as the history
HISTORY_COLUMNS = ("history_time", "history_kind", "history_surface")


def check_exclude(where: str, exclude: object) -> None:
    """Raise a ConfigError unless `exclude` is a rule of exclusions."""
    if exclude not in RULES:
        raise ConfigError(f"{where}: exclude={exclude!r} given, expected one of {', '.join(RULES)}")


def _vectors(vectors: object) -> object:
    """Lists of numbers; of an array [N, R] its rows, null where a row is all NaN."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2:
        return vectors
    rows = pl.Series("user_vector", vectors.astype(np.float64).tolist(), dtype=VECTOR)
    return rows.set(pl.Series("unknown", np.asarray(np.isnan(vectors).all(axis=1))), None)


def _period(time: pl.Series) -> str:
    """First and last day of some times, of which there is at least one."""
    first = time.dt.date().min()
    last = time.dt.date().max()
    return f"{first}" if first == last else f"{first} to {last}"


@dataclass(frozen=True)
class Contexts:
    """N moments at which a slate is asked for, with what a policy may see; a checked table like the
    lake's `contexts`.

    `frame` holds one row per context: who, when, where, how many slots, what must not be shown
    (`exclusions`) and the history the policy may look at (item ids, oldest first, all of them
    before `history_until`). It is enough to recompute log-probabilities without the lake.

    `history_time`, `history_kind` and `history_surface`, of each item of the history, and `want`,
    the outcome that is asked for, are for policies that read them; null: not known.
    `user_vector` and `user_attributes` are what the service knew of the user at the context's time,
    and `shown` the items shown to the user before it, across slates, oldest first, with
    `shown_time`; for policies that read them (see `protocols.ReadsUsers` and
    `protocols.ReadsShowings`); null: not known.

    `exclusion_rule` is what made the exclusions, where whoever made the contexts states it: a
    policy that was trained under another one refuses them (see `check_rule`).

    Raises:
        DataError: a column that is unknown or missing, a value that cannot be (see
            `lake.row_checks`), or a column of `HISTORY_COLUMNS` that is not as long as the history.
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", conform(self.frame, "contexts"))

    @classmethod
    def _checked(cls, frame: pl.DataFrame) -> Self:
        """Contexts of rows that were checked before, and were selected or changed in a column that
        is checked."""
        contexts = object.__new__(cls)
        object.__setattr__(contexts, "frame", frame)
        return contexts

    def __len__(self) -> int:
        return self.frame.height

    def __str__(self) -> str:
        if not len(self):
            return "no contexts"
        rows = self.frame
        slots = rows["slots"].unique().sort().to_list()
        lists = rows["history"].list.len()
        return (
            f"{len(self):,} contexts of {rows['user_id'].n_unique():,} users, "
            f"{_period(rows['time'])}, on {', '.join(sorted(rows['surface'].drop_nulls().unique()))}; "
            f"{' or '.join(map(str, slots))} slots, up to {lists.max() or 0} items of history"
        )

    def __repr__(self) -> str:
        return f"Contexts({self})"

    def _repr_html_(self) -> str:
        return table_html(str(self), self.frame)

    @classmethod
    def of(
        cls,
        users: Column,
        time: datetime | Sequence[datetime] | pl.Series,
        *,
        slots: int,
        history: Sequence[Sequence[str]] | pl.Series | None = None,
        exclusions: Sequence[Sequence[str]] | pl.Series | None = None,
        surface: str = "home",
        temperature: float = 1.0,
        ids: Column | None = None,
        want: float | None = None,
        prompt: str | None = None,
        history_columns: pl.DataFrame | None = None,
        exclude: str | None = None,
        user_vector: Float | Sequence[Sequence[float] | None] | pl.Series | None = None,
        user_attributes: Sequence[str | None] | pl.Series | None = None,
        shown: Sequence[Sequence[str] | None] | pl.Series | None = None,
        shown_time: Sequence[Sequence[datetime] | None] | pl.Series | None = None,
    ) -> Self:
        """Contexts from plain columns.

        Args:
            users: [N] ids of users; 12345, 12345.0 and "12345" are one user (see `longplay.ids`).
            time: one moment for all, or N of them, with a time zone.
            slots: slots per slate, at least 1, for all.
            history: N lists of item ids, oldest first.
            exclusions: N lists of item ids that must not be shown. Default: empty lists.
            surface: where the slate is shown.
            temperature: above 0.
            ids: [N] names of the contexts; without them a context is user@time#row.
            want: the outcome that is asked for, in its signal's unit.
            prompt: words for a policy with a pretrained base ("quiet piano for reading").
            exclude: the rule that made the exclusions: "none", "seen" (items engaged with) or
                "creator" (all items of their creators); None: not stated.
            history_columns: some of the columns `history_time`, `history_kind`, `history_surface`: lists as
                long as each history.
            user_vector: what the service knew of each user at the context's time: N lists of
                equally many numbers, null where not known; or an array [N, R], in which a row of
                NaN is not known.
            user_attributes: N flat JSON objects of text, numbers and truth values, or null.
            shown: N lists of items shown to the user before, across slates, oldest first.
            shown_time: when each was shown: lists as long as those of `shown`, with a time zone,
                each before the context's time.

        >>> noon = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
        >>> len(Contexts.of(["u1", "u2"], noon, slots=3))
        2

        Raises:
            DataError: columns of different lengths, or a value that cannot be (see
                `longplay.lake.schema.conform`).
        """
        if isinstance(slots, bool) or not isinstance(slots, int | np.integer) or slots < 1:
            raise DataError(
                f"Contexts.of: slots={slots!r} given, expected at least 1, a whole number"
            )
        if not (temperature > 0 and np.isfinite(temperature)):
            raise DataError(
                f"Contexts.of: temperature={temperature} given, expected a positive number"
            )
        if want is not None and not np.isfinite(want):
            raise DataError(
                f"Contexts.of: want={want} given, expected a number in the unit of the outcome, "
                "or None"
            )
        if exclude is not None:
            check_exclude("Contexts.of", exclude)
        user_ids = ids_of(users)
        n = len(user_ids)
        when = polars_series([time] if isinstance(time, datetime) else time, "time")
        if isinstance(time, datetime):
            when = when.new_from_index(0, n)
        columns = {
            "history": history,
            "exclusions": exclusions,
            "ids": ids,
            "history_columns": history_columns,
            "user_vector": user_vector,
            "user_attributes": user_attributes,
            "shown": shown,
            "shown_time": shown_time,
        }
        lengths = {"time": len(when)} | {
            name: len(values) for name, values in columns.items() if values is not None
        }
        for name, length in lengths.items():
            if length != n:
                raise DataError(
                    f"Contexts.of: {n} users but {length} of {name}; expected one for each user"
                )
        empty_lists = pl.Series([[]], dtype=pl.List(pl.String)).new_from_index(0, n)
        frame = pl.DataFrame(
            [
                user_ids.alias("user_id"),
                when,
                polars_series(empty_lists if history is None else history, "history"),
                polars_series(empty_lists if exclusions is None else exclusions, "exclusions"),
            ]
        )
        if not isinstance(when.dtype, pl.Datetime):
            raise DataError(
                f"Contexts.of: time is {when.dtype}, expected moments such as datetime(2026, 3, "
                "1, 12, tzinfo=UTC)"
            )
        frame = frame.with_columns(
            (
                pl.format(
                    "{}@{}#{}", "user_id", pl.col("time").dt.epoch("us"), pl.int_range(pl.len())
                )
                if ids is None
                else ids_of(ids, "ids")
            ).alias("context_id"),
            pl.lit(surface).alias("surface"),
            pl.lit(slots, dtype=pl.Int32).alias("slots"),
            pl.lit(temperature, dtype=pl.Float64).alias("temperature"),
            pl.col("time").alias("history_until"),
            pl.lit(want, dtype=pl.Float64).alias("want"),
            pl.lit(prompt, dtype=pl.String).alias("prompt"),
            pl.lit(exclude, dtype=pl.String).alias("exclusion_rule"),
        )
        of_users = {
            "user_vector": _vectors(user_vector),
            "user_attributes": user_attributes,
            "shown": shown,
            "shown_time": shown_time,
        }
        frame = frame.with_columns(
            polars_series(values, name) for name, values in of_users.items() if values is not None
        )
        if history_columns is not None:
            frame = pl.concat(
                [
                    frame,
                    history_columns.select(
                        name for name in HISTORY_COLUMNS if name in history_columns.columns
                    ),
                ],
                how="horizontal",
            )
        return cls(frame)

    @property
    def slots(self) -> int:
        """Slots per slate; contexts that are decided together ask for equally many."""
        counts = self.frame["slots"].unique()
        if len(counts) != 1:
            raise DataError(
                f"contexts: {len(counts)} different numbers of slots in one call, expected one; call "
                "decide once for each number of slots"
            )
        return int(counts[0])

    def known_from(self, lake: Lake) -> Contexts:
        """The same contexts with `user_vector` and `user_attributes` as the service knew the users
        at each context's time.

        They are taken from the description in `lake.users` that had arrived last by then (see
        `lake.known.users_as_known`), and null where there is none. Values that a context has
        already are left.

        Args:
            lake: where users are described.

        Raises:
            DataError: vectors of different lengths.
        """
        known = users_as_known(lake, self.frame["user_id"], self.frame["time"])
        frame = self.frame.with_columns(
            pl.coalesce("user_vector", known["vector"]).alias("user_vector"),
            pl.coalesce("user_attributes", known["attributes"]).alias("user_attributes"),
        )
        as_matrix(frame["user_vector"], frame["user_id"])  # raises where they cannot stand together
        return Contexts._checked(frame)

    def take(self, rows: NDArray[np.integer] | Sequence[int]) -> Contexts:
        """The contexts at these row numbers, in that order; rows may repeat."""
        return Contexts._checked(self.frame[np.asarray(rows)])

    def reading(self, most: int, showings: int | None = None) -> Contexts:
        """The same contexts with at most the last `most` items of their histories.

        Args:
            most: items of history.
            showings: also at most so many past showings; null: all of them.
        """
        recent = [pl.col(name).list.tail(most) for name in ("history", *HISTORY_COLUMNS)]
        if showings is not None:
            recent += [pl.col(name).list.tail(showings) for name in ("shown", "shown_time")]
        return Contexts._checked(self.frame.with_columns(recent))

    def without(self, columns: Sequence[str]) -> Contexts:
        """The same contexts with nothing known in these optional columns."""
        unknown = [pl.lit(None, dtype=self.frame.schema[name]).alias(name) for name in columns]
        return Contexts._checked(self.frame.with_columns(unknown))

    def with_slots(self, slots: int) -> Contexts:
        """The same contexts with this number of slots (>= 0)."""
        if slots < 0:
            raise DataError(f"with_slots: {slots} given, expected 0 or more")
        return Contexts._checked(self.frame.with_columns(slots=pl.lit(slots, dtype=pl.Int32)))

    def wanting(self, want: float | None) -> Contexts:
        """The same contexts with this wanted outcome, in its signal's unit; null: with none."""
        if want is not None and not np.isfinite(want):
            raise DataError(
                f"wanting: {want} given, expected a number in the unit of the outcome, or None"
            )
        return Contexts._checked(self.frame.with_columns(want=pl.lit(want, dtype=pl.Float64)))

    def prompted(self, prompt: str | None) -> Contexts:
        """The same contexts with this prompt, for policies that read one; null: without."""
        return Contexts._checked(self.frame.with_columns(prompt=pl.lit(prompt, dtype=pl.String)))

    def at_temperature(self, temperature: float) -> Contexts:
        """The same contexts at another temperature (> 0)."""
        if not (temperature > 0 and np.isfinite(temperature)):
            raise DataError(f"at_temperature: {temperature} given, expected a positive number")
        return Contexts._checked(self.frame.with_columns(temperature=pl.lit(float(temperature))))
