"""Two loggers with exact propensities: uniform and popular."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.decisions import Contexts, Decisions, check_one_each, context_chance, learners_events
from longplay.display import facts_html, percent
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex, distinct_keys
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.policies.plackett import (
    draw_slates,
    impossible_from_repeats,
    plackett_luce_log_prob,
    repeats,
)

# below this share of mass left, 1 - sum would lose digits; the mass is then summed item by item
_SUM_DIRECTLY = 1e-3


@dataclass(frozen=True, eq=False)
class Uniform:
    """A policy that shows every available item equally often, in slates without replacement.

    Attributes:
        slate: slots a world or a service asks for by default; contexts say how many they want.
        catalogue: the items it chooses from; null before `fit`.
    """

    slate: int = 5
    catalogue: ItemLaw | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_slate(self.slate)

    def _repr_html_(self) -> str:
        if self.catalogue is None:
            return facts_html("uniform, not fitted", {"slate": f"{self.slate} slots"})
        return facts_html(self.name, {"slate": f"{self.slate} slots"} | self.catalogue.facts())

    @property
    def history(self) -> int:
        """Number of past items that it reads: 0."""
        return 0

    @property
    def name(self) -> str:
        """`uniform@` and a digest of the available catalogue."""
        return f"uniform@{_digest(self.catalogue)}"

    @property
    def index(self) -> ItemIndex:
        """Item ids <-> the rows of `item_log_prob`."""
        return _fitted(self.catalogue, "Uniform").index

    def fit(self, lake: Lake) -> Self:
        """The policy over the lake's catalogue."""
        return self.adapt(lake.items, lake.events.clear())

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Self:
        """The policy over another catalogue; events change nothing."""
        index, available_I = _catalogue(items, self.catalogue)
        return replace(
            self, catalogue=ItemLaw(index, _log_uniform(available_I), np.zeros(len(index)))
        )

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, with exact log-probabilities. Random numbers follow from `rng`'s
        next number and the context's id."""
        return _fitted(self.catalogue, "Uniform").decide(contexts, rng, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of every slot given the slots before it, shape [N, S]."""
        return _fitted(self.catalogue, "Uniform").log_prob(contexts, slates)

    def item_log_prob(self, contexts: Contexts) -> Float:
        """Log-probability of every item of `index` in the first slot, shape [N, I]; -inf where it
        cannot be shown."""
        return _fitted(self.catalogue, "Uniform").item_log_prob(contexts)


@dataclass(frozen=True, eq=False)
class Popular:
    """A policy that shows popular items, and with `explore` any item: p = (1 - explore) * share of
    plays + explore * uniform, in slates without replacement.

    Attributes:
        slate: slots a world or a service asks for by default; contexts say how many they want.
        explore: share of the uniform part, in [0, 1]. Before any play the law is uniform.
        catalogue: the items it chooses from; null before `fit`.
    """

    slate: int = 5
    explore: float = 0.1
    catalogue: ItemLaw | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_slate(self.slate)
        if not 0 <= self.explore <= 1:
            raise ConfigError(
                f"Popular: explore={self.explore} given, expected a share in [0, 1], e.g. 0.1"
            )

    def _repr_html_(self) -> str:
        facts = {
            "slate": f"{self.slate} slots",
            "exploration": f"{percent(self.explore)} of slots, any item alike",
        }
        if self.catalogue is None:
            return facts_html("popular, not fitted", facts)
        facts |= self.catalogue.facts()
        facts["plays counted"] = f"{self.plays.sum():,.0f}"
        most = np.argsort(-self.plays, kind="stable")[:3]
        facts["most played"] = ", ".join(self.index.ids.gather(most).to_list())
        return facts_html(self.name, facts)

    @property
    def history(self) -> int:
        """Number of past items that it reads: 0."""
        return 0

    @property
    def name(self) -> str:
        """`popular@` and a digest of catalogue, counts and explore."""
        return f"popular@{_digest(self.catalogue, f'{self.explore!r}')}"

    @property
    def index(self) -> ItemIndex:
        """Item ids <-> the rows of `item_log_prob`."""
        return _fitted(self.catalogue, "Popular").index

    @property
    def plays(self) -> Float:
        """Engaged events counted so far, [I], by row of `index`."""
        return _fitted(self.catalogue, "Popular").plays_I

    def fit(self, lake: Lake) -> Self:
        """The policy with counts of this lake's plays alone.

        Where slates were logged, users for whom `decisions.ope_users` is true are not counted:
        off-policy estimates score them.
        """
        return replace(self, catalogue=None).adapt(lake.items, learners_events(lake))

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Self:
        """The next version: the catalogue replaced, and the plays among `events` added to the
        counts."""
        index, available_I = _catalogue(items, self.catalogue)
        plays_I = np.zeros(len(index))
        if self.catalogue is not None:
            if index is self.catalogue.index:
                plays_I += self.catalogue.plays_I
            else:
                rows = index.rows(self.catalogue.index.ids)
                plays_I[rows[rows >= 0]] = self.catalogue.plays_I[rows >= 0]
        engaged = events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())[
            "item_id"
        ]
        rows = index.rows(engaged) if len(engaged) else np.empty(0, dtype=np.int64)
        plays_I += np.bincount(rows[rows >= 0], minlength=len(index))
        return replace(
            self,
            catalogue=ItemLaw(index, _log_popular(plays_I, available_I, self.explore), plays_I),
        )

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, with exact log-probabilities. Random numbers follow from `rng`'s
        next number and the context's id."""
        return _fitted(self.catalogue, "Popular").decide(contexts, rng, self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of every slot given the slots before it, shape [N, S]."""
        return _fitted(self.catalogue, "Popular").log_prob(contexts, slates)

    def item_log_prob(self, contexts: Contexts) -> Float:
        """Log-probability of every item of `index` in the first slot, shape [N, I]; -inf where it
        cannot be shown."""
        return _fitted(self.catalogue, "Popular").item_log_prob(contexts)


@dataclass(frozen=True, eq=False)
class ItemLaw:
    """One distribution over a catalogue for all contexts: log p at temperature 1, -inf where an
    item cannot be shown.

    Contexts bend it: temperature divides log p, exclusions leave it and the rest is renormalised.
    """

    index: ItemIndex
    log_p_I: Float
    plays_I: Float

    @cached_property
    def digest(self) -> bytes:
        """Digest of all that the probabilities depend on; computed once, as a catalogue may be
        large."""
        ids = "\n".join(self.index.ids.to_list()).encode()
        return hashlib.sha256(ids + self.plays_I.tobytes() + self.log_p_I.tobytes()).digest()

    def facts(self) -> dict[str, str]:
        """Facts about the catalogue, for a notebook."""
        possible = int(np.isfinite(self.log_p_I).sum())
        return {"items": f"{possible:,} can be shown of {len(self.index):,}"}

    def decide(self, contexts: Contexts, rng: np.random.Generator, name: str) -> Decisions:
        """One slate per context under `name`, with exact log-probabilities; random numbers as in
        `decisions.context_chance`."""
        slots = contexts.slots if len(contexts) else 1
        chance = context_chance(contexts, rng)
        banned = self._banned(contexts)
        self._check_enough(contexts, slots, banned)
        slate_NS = np.empty((len(contexts), slots), dtype=np.int64)
        for log_p_I, rows in self._by_temperature(contexts) if slots else []:
            slate_NS[rows] = draw_slates(
                log_p_I, len(rows), slots, chance.take(rows), _take(banned, rows)
            )
        return Decisions.of(
            contexts, self.index.slates(slate_NS), self._log_prob(contexts, slate_NS, banned), name
        )

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> Float:
        """Log-probability of slates, [N, S]: -inf for an item that cannot be shown, and from the
        first repeat on.

        Raises:
            DataError: not one slate per context, slates of different lengths, or an item that the
                catalogue does not hold.
        """
        check_one_each(contexts, slates)
        return self._log_prob(contexts, self.index.slate_rows(slates), self._banned(contexts))

    def item_log_prob(self, contexts: Contexts) -> Float:
        """Log-probability of every item in the first slot, shape [N, I]."""
        answer_NI = np.empty((len(contexts), len(self.index)))
        offsets, items = self._banned(contexts)
        for log_p_I, rows in self._by_temperature(contexts):
            answer_NI[rows] = log_p_I
        answer_NI[np.repeat(np.arange(len(contexts)), np.diff(offsets)), items] = -np.inf
        mass_N1 = np.logaddexp.reduce(answer_NI, axis=1, keepdims=True)
        # nothing left to show: -inf, not 0 / 0
        return answer_NI - np.where(np.isneginf(mass_N1), 0.0, mass_N1)

    def _log_prob(self, contexts: Contexts, slate_NS: Int, banned: tuple[Int, Int]) -> Float:
        log_prob_NS = np.empty(slate_NS.shape)
        for log_p_I, rows in self._by_temperature(contexts):
            log_prob_NS[rows] = _conditional(log_p_I, slate_NS[rows], _take(banned, rows))
        return impossible_from_repeats(log_prob_NS, slate_NS)

    def _by_temperature(self, contexts: Contexts) -> list[tuple[Float, Int]]:
        """For each temperature that is asked for: log p of the whole catalogue, and the rows of its
        contexts."""
        temperature_N = contexts.frame["temperature"].to_numpy()
        laws = []
        for temperature in np.unique(temperature_N):
            laws.append(
                (
                    _tempered(self.log_p_I, float(temperature)),
                    np.flatnonzero(temperature_N == temperature),
                )
            )
        return laws

    def _banned(self, contexts: Contexts) -> tuple[Int, Int]:
        """Exclusions of every context as offsets [N + 1] and item rows, each item at most once."""
        offsets, items = self.index.ragged_rows(contexts.frame["exclusions"])
        owner = np.repeat(np.arange(len(contexts)), np.diff(offsets))
        key = distinct_keys((owner * len(self.index) + items)[items >= 0])
        counts_N = np.bincount(key // len(self.index), minlength=len(contexts))
        return np.concatenate([[0], np.cumsum(counts_N)]), key % len(self.index)

    def _check_enough(self, contexts: Contexts, slots: int, banned: tuple[Int, Int]) -> None:
        possible_I = np.isfinite(self.log_p_I)
        owner = np.repeat(np.arange(len(contexts)), np.diff(banned[0]))
        left_N = possible_I.sum() - np.bincount(
            owner, weights=possible_I[banned[1]], minlength=len(contexts)
        )
        if len(left_N) and left_N.min() < slots:
            row = int(np.argmin(left_N))
            raise DataError(
                f"decide: user {contexts.frame['user_id'][row]!r} asks for {slots} slots but only "
                f"{int(left_N[row])} of {len(self.index):,} items "
                "can be shown (available, not excluded, with some probability); ask for fewer "
                "slots, exclude less, or explore more"
            )


def _tempered(log_p_I: Float, temperature: float) -> Float:
    """The distribution at a temperature above 0: log p / temperature, normalised; unchanged where
    nothing can be shown."""
    if temperature != 1.0:
        largest = float(np.max(log_p_I, initial=-np.inf))
        with np.errstate(
            over="ignore"
            # the likeliest items stay at 0, however low the temperature; what lies below may go to
            # -inf
        ):
            log_p_I = (log_p_I - (largest if np.isfinite(largest) else 0.0)) / temperature
    mass = float(np.logaddexp.reduce(log_p_I)) if len(log_p_I) else -np.inf
    return log_p_I - mass if np.isfinite(mass) else log_p_I


def _conditional(log_p_I: Float, slate_NS: Int, banned: tuple[Int, Int]) -> Float:
    """Plackett-Luce log-probabilities [N, S] under one distribution, with exclusions."""
    p_I = np.exp(log_p_I)
    offsets, items = banned
    owner = np.repeat(np.arange(len(slate_NS)), np.diff(offsets))
    again_NS = repeats(slate_NS)
    if len(items):
        key = owner * len(p_I) + items  # sorted: owners ascend, items ascend within them
        chosen_key_NS = np.arange(len(slate_NS))[:, None] * len(p_I) + slate_NS
        again_NS |= (
            key[np.minimum(np.searchsorted(key, chosen_key_NS), len(key) - 1)] == chosen_key_NS
        )
    log_p_NS = np.where(again_NS, -np.inf, log_p_I[slate_NS])
    allowed_N = 1.0 - np.bincount(owner, weights=p_I[items], minlength=len(slate_NS))
    rest_N = allowed_N - np.exp(log_p_NS).sum(axis=1)
    for row in np.flatnonzero(rest_N < _SUM_DIRECTLY):
        left_I = p_I.copy()
        left_I[items[offsets[row] : offsets[row + 1]]] = 0.0
        allowed_N[row] = left_I.sum()
        left_I[slate_NS[row]] = 0.0
        rest_N[row] = left_I.sum()
    with np.errstate(divide="ignore"):
        log_allowed_N = np.log(allowed_N)
        return plackett_luce_log_prob(
            log_p_NS - log_allowed_N[:, None], np.log(rest_N) - log_allowed_N
        )


def _take(banned: tuple[Int, Int], rows: Int) -> tuple[Int, Int]:
    offsets, items = banned
    if len(rows) == len(offsets) - 1:  # rows ascend, so these are all of them
        return banned
    counts = np.diff(offsets)[rows]
    starts = np.repeat(offsets[rows] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.concatenate([[0], np.cumsum(counts)]), items[starts + np.arange(counts.sum())]


def _catalogue(
    items: pl.DataFrame, previous: ItemLaw | None
) -> tuple[ItemIndex, NDArray[np.bool_]]:
    if items.is_empty():
        raise DataError(
            "catalogue: 0 items given, expected at least one; append items to the lake first"
        )
    same = previous is not None and previous.index.ids.equals(items["item_id"])
    if "available" in items.columns:
        available = items["available"]
    else:
        available = pl.Series([True]).new_from_index(0, items.height)
    if same and previous is not None:
        index = previous.index
    else:
        index = ItemIndex(items["item_id"])
    return index, available.to_numpy().astype(bool)


def _log_uniform(available_I: NDArray[np.bool_]) -> Float:
    with np.errstate(divide="ignore"):
        return np.log(available_I / max(int(available_I.sum()), 1))


def _log_popular(plays_I: Float, available_I: NDArray[np.bool_], explore: float) -> Float:
    shown_I = np.where(available_I, plays_I, 0.0)
    if shown_I.sum() == 0:
        return _log_uniform(available_I)
    with np.errstate(divide="ignore"):
        return np.log(
            (1 - explore) * shown_I / shown_I.sum() + explore * available_I / available_I.sum()
        )


def _fitted(law: ItemLaw | None, kind: str) -> ItemLaw:
    if law is None:
        raise DataError(
            f"{kind}: it has no catalogue yet; call .fit(lake) or .adapt(items, events) first"
        )
    return law


def _digest(law: ItemLaw | None, knobs: str = "") -> str:
    """Eight hex digits of the distribution and of the settings that shape later versions."""
    return (
        "unfitted" if law is None else hashlib.sha256(law.digest + knobs.encode()).hexdigest()[:8]
    )


def _check_slate(slate: int) -> None:
    if slate < 1:
        raise ConfigError(f"slate={slate} given, expected at least 1 slot")
