"""The policy that a simulator is tried with: it shows any item alike, and notes what it is asked and told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.chance import keyed_uniform
from longplay.decisions import Contexts, Decisions, check_one_each, context_chance
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake.schema import conform

CELLS = 4_000_000  # random numbers drawn at once: bounds memory
SLATE = 3  # slots that it shows by default


@dataclass(frozen=True, eq=False)
class DecideCall:
    """A call of `decide`: by how many calls of `adapt` it was preceded, what was asked and what was
    answered."""

    version: int
    contexts: pl.DataFrame
    decisions: pl.DataFrame


@dataclass(frozen=True, eq=False)
class AdaptCall:
    """A call of `adapt`: the catalogue, and the events since the last call."""

    items: object
    events: object


@dataclass(frozen=True, eq=False)
class Probe:
    """A policy that draws from all items alike, without replacement, and notes its calls.

    Two probes with different `other` show the same items to half of the users, and other items to
    the rest: so what users who are shown the same live can be compared.

    Attributes:
        history: past items that it wants to see.
        items: the catalogue, first as the simulator has it, then as `adapt` was told.
        other: whether the users of the second half are shown other items.
        version: how often it was adapted.
        calls: what it was asked and told, in order; shared by all versions.
    """

    history: int
    items: pl.DataFrame
    other: bool = False
    version: int = 0
    calls: list[DecideCall | AdaptCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", conform(self.items, "items"))

    @property
    def name(self) -> str:
        """`probe@` and its version."""
        return f"probe@{'b' if self.other else 'a'}{self.version}"

    @property
    def slate(self) -> int:
        """Slots that it is asked for by default."""
        return SLATE

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Probe:
        """The next version, over this catalogue."""
        self.calls.append(AdaptCall(items, events))
        return replace(self, items=items, version=self.version + 1)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """A slate per context. Its random numbers follow from `rng`'s next number and the context's
        id."""
        if not isinstance(cast(object, contexts), Contexts):
            raise DataError(
                f"policy.decide: contexts are a {type(contexts).__name__}, expected "
                "longplay.Contexts, e.g. Contexts.of(users, time, slots=...)"
            )
        if not isinstance(cast(object, rng), np.random.Generator):
            raise DataError(
                f"policy.decide: rng is a {type(rng).__name__}, expected a numpy.random.Generator, "
                "e.g. np.random.default_rng([seed, day])"
            )
        index, banned = self._banned(contexts)
        slots = contexts.slots if len(contexts) else 0
        chance = context_chance(contexts, rng)
        first_N = np.where(self._changed(contexts.frame["user_id"]), len(index), 0)
        slate_NS = np.empty((len(contexts), slots), dtype=np.int64)
        parts = 1 + len(contexts) * len(index) // CELLS
        for rows in np.array_split(np.arange(len(contexts)), parts):
            if len(rows):
                draw_NI = chance.uniform(rows, first_N[rows, None] + np.arange(len(index))[None, :])
                draw_NI[banned[rows]] = np.inf
                slate_NS[rows] = np.argsort(draw_NI, axis=1, kind="stable")[:, :slots]
        decisions = Decisions.of(
            contexts, index.slates(slate_NS), self._log_prob(slate_NS, banned), self.name
        )
        self.calls.append(DecideCall(self.version, contexts.frame, decisions.frame))
        return decisions

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of every slot given the slots before it, shape [N, S]."""
        check_one_each(contexts, slates)
        index, banned = self._banned(contexts)
        return self._log_prob(index.slate_rows(slates), banned)

    def _changed(self, users: pl.Series) -> NDArray[np.bool_]:
        return second_half(users) if self.other else np.zeros(len(users), dtype=bool)

    def _banned(self, contexts: Contexts) -> tuple[ItemIndex, NDArray[np.bool_]]:
        """The available items, and whether each is excluded, [N, I]."""
        index = ItemIndex(self.items.filter("available")["item_id"].sort())
        offsets, item_E = index.ragged_rows(contexts.frame["exclusions"])
        banned_NI = np.zeros((len(contexts), len(index)), dtype=bool)
        owner_E = np.repeat(np.arange(len(contexts)), np.diff(offsets))
        banned_NI[owner_E[item_E >= 0], item_E[item_E >= 0]] = True
        if len(contexts):
            left = int((len(index) - banned_NI.sum(axis=1)).min())
            if left < contexts.slots:
                raise DataError(
                    f"policy.decide: {contexts.slots} slots are asked for, but exclusions leave "
                    f"{left} of {len(index)} items; exclude less, ask for fewer slots, or give the "
                    "service more items"
                )
        return index, banned_NI

    def _log_prob(self, slate_NS: Int, banned_NI: NDArray[np.bool_]) -> Float:
        allowed_N1 = (~banned_NI).sum(axis=1, keepdims=True)
        slot_S = np.arange(slate_NS.shape[1])
        log_prob_NS = -np.log(np.maximum(allowed_N1 - slot_S[None, :], 1))
        impossible_NS = np.take_along_axis(banned_NI, slate_NS, axis=1)
        for slot in slot_S[1:]:
            again_N = (slate_NS[:, :slot] == slate_NS[:, slot : slot + 1]).any(axis=1)
            impossible_NS[again_N, slot:] = True
        return np.where(impossible_NS, -np.inf, log_prob_NS)


def second_half(users: pl.Series) -> NDArray[np.bool_]:
    """Whether each user is in the half that two probes show other items, [N]."""
    return keyed_uniform("longplay: probe", users) < 0.5
