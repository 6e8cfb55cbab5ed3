"""Decisions: slates that were shown, with the log-probability of every slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.decisions.contexts import Contexts
from longplay.display import table_html
from longplay.errors import DataError
from longplay.frames import as_lists
from longplay.lake.schema import conform, empty


@dataclass(frozen=True)
class Decisions:
    """Slates that were shown, one row each, with the log-probability of every slot; a checked table
    like the lake's `decisions`.

    Raises:
        DataError: a column that is unknown or missing, or a row that cannot be: an item twice in a
            slate, not one log-probability per slot, or one that is not finite or above 0 (see
            `lake.row_checks`).
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", conform(self.frame, "decisions"))

    def __len__(self) -> int:
        return self.frame.height

    @classmethod
    def of(
        cls,
        contexts: Contexts,
        slates: pl.Series,
        log_prob: NDArray[np.float64],
        policy: str,
        trie_version: str | None = None,
    ) -> Self:
        """Decisions on `contexts`: `slates` a list series of item ids, `log_prob[N, S]` natural
        logs."""
        if log_prob.ndim != 2 or not len(contexts) == len(slates) == len(log_prob):
            raise DataError(
                f"Decisions.of: {len(contexts)} contexts, {len(slates)} slates and log_prob of "
                f"shape {log_prob.shape}; expected a row per context"
            )
        slots = log_prob.shape[1]
        frame = contexts.frame.select(
            ("d:" + pl.col("context_id")).alias("decision_id"),
            "context_id",
            "user_id",
            "time",
            "surface",
            "temperature",
        ).with_columns(
            slates.alias("slate"),
            as_lists(
                "log_prob",
                pl.Series(log_prob.ravel(), dtype=pl.Float64),
                np.arange(len(log_prob) + 1) * slots,
            ),
            pl.lit(policy).alias("policy"),
            pl.lit(trie_version, dtype=pl.String).alias("trie_version"),
        )
        return cls(frame)

    def __str__(self) -> str:
        if not len(self):
            return "no decisions"
        slots = int(self.frame["slate"].list.len().sum())
        policies = sorted(self.frame["policy"].drop_nulls().unique())
        by = f", by {', '.join(policies[:3])}" if policies else ""
        more = f" and {len(policies) - 3} more" if len(policies) > 3 else ""
        log_prob = self.frame["log_prob"].list.explode().drop_nulls().to_numpy()
        mean = f"; mean probability of a slot {np.exp(log_prob).mean():.3g}" if slots else ""
        return f"{len(self):,} decisions, {slots:,} slots{by}{more}{mean}"

    def __repr__(self) -> str:
        return f"Decisions({self})"

    def _repr_html_(self) -> str:
        return table_html(str(self), self.frame)

    @classmethod
    def none(cls) -> Self:
        """An empty table of decisions."""
        return cls(empty("decisions"))

    @property
    def slates(self) -> pl.Series:
        """The item ids shown, in draw order: a list series of length N."""
        return self.frame["slate"]

    @property
    def log_prob(self) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S]; slates must be
        equally long."""
        lengths = self.frame["log_prob"].list.len().unique().sort().to_list()
        if len(lengths) > 1:
            raise DataError(
                f"decisions: slates of {lengths} slots in one array, expected one length; take "
                "them apart first"
            )
        return np.array(self.frame["log_prob"].to_list(), dtype=float).reshape(
            len(self), lengths[0] if lengths else 0
        )


def check_one_each(contexts: Contexts, slates: pl.Series) -> None:
    """Raise a DataError unless there is exactly one slate per context."""
    if len(slates) != len(contexts):
        raise DataError(
            f"log_prob: {len(contexts)} contexts but {len(slates)} slates; expected one each"
        )


def main_surface(decisions: pl.DataFrame) -> str:
    """The surface on which most slots were shown; ties by name. `decisions` must not be empty."""
    slots = decisions.group_by("surface").agg(pl.col("slate").list.len().sum().alias("slots"))
    return str(slots.sort("slots", "surface", descending=[True, False])["surface"][0])
