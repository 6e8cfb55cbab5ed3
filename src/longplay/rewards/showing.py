"""The value of showing: what a slot adds to the chance of an entry, times what an entry is worth.

Value = P(entry within a day | shown) E[Y | entry] - P(entry within a day | not shown) rho E[Y |
entry]: the same day in both, so a merely delayed organic discovery counts for nothing.
P(entry | not shown) is the organic discovery rate of that creator or item per active user-day at
risk; P(entry | shown) is the chance of that, or of a play of the slot (`rewards.entry_chance`); and
rho is the ratio of what organic entries come to, to what recommended ones do.

A creator can be discovered once. In a slate, a slot is paid for the chance that it causes the entry
and no slot of the same creator above it did; what would have happened anyway is taken off once. So
the slots of a creator sum to what the slate adds, P(entry | slate) E[Y | entry] - P(entry | not
shown) rho E[Y | entry].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from longplay.arrays import Bool, Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.rewards.entry_chance import (
    EntryChance,
    ItemFacts,
    TasteLog,
    above_features,
    log_features,
    showings_of_log,
    slot_features,
    taste_log,
)
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.repetition import EarlierShowings, Showings
from longplay.rewards.slot_log import SlotLog, shown_unasked
from longplay.signals.outcomes.once import left_by_slots_above
from longplay.signals.signal import Signal

# A chance of a play from that of the fitted model, [N, S], and catalogue rows of the slots, [N, S].
Refined = Callable[[Float, Int], Float]


@dataclass(frozen=True, eq=False)
class LakeView:
    """A lake as the fitted model sees it.

    Attributes:
        index: look-ups of who touched what.
        key_row_K: row in the model of each creator (or item) that entries are about, and last -1.
        facts: what the model says of the lake's items.
        showings: what was shown to whom; None where the model has no use for it.
        tastes: the slots that users' tastes are read from.
    """

    index: LakeIndex
    key_row_K: Int
    facts: ItemFacts | None = None
    showings: Showings | None = None
    tastes: TasteLog | None = None


@dataclass(frozen=True, eq=False)
class Showing:
    """The fitted model of showing for one signal.

    Attributes:
        signal: whose entries are modelled.
        association: True where the log had no decisions: P(entry | shown) is unknown, `gain` is 1
            for the unfamiliar, and the value says what goes with a discovery, not what showing
            causes.
        rho: mean outcome of organic entries over that of recommended ones, same keys.
        slots: slots that the chance of an entry was fitted on.
        surface: on which most of them were shown.
        keys: creators or items the entries are about, by row.
        entry: the chance of an entry where something is shown; None for an association.
        organic_K: chance of an entry within a day without showing.
    """

    signal: Signal
    association: bool
    rho: float = 1.0
    slots: int = 0
    surface: str | None = None
    keys: ItemIndex = field(default_factory=lambda: ItemIndex([]), repr=False)
    entry: EntryChance | None = None
    organic_K: Float = field(default_factory=lambda: np.zeros(1), repr=False)
    _views: dict[object, LakeView] = field(default_factory=dict, init=False, repr=False)

    def view(self, lake: Lake) -> LakeView:
        """The lake as the model sees it, built once per view of the lake; the last two are kept."""
        key = lake.key
        if key not in self._views:
            while len(self._views) > 1:
                self._views.pop(next(iter(self._views)))
            self._views[key] = self._view(lake)
        return self._views[key]

    def _view(self, lake: Lake) -> LakeView:
        index = LakeIndex(lake, self.signal.entry.of)
        key_row_K = np.append(self.keys.rows(index.keys.ids), -1)
        if self.entry is None:
            return LakeView(index, key_row_K)
        facts = self.entry.facts(lake, index)
        slots = SlotLog.of(index, shown_unasked(lake, lake.decisions), self.signal.entry.novel_for)
        place_N = self.entry.place(slots.surfaces.ids.gather(slots.surface_N), slots.position_N)
        x_NF = log_features(slots, facts.key_I)
        usual_N = self.entry.usual(x_NF, slots.item_N, place_N, facts)
        showings = showings_of_log(slots)
        return LakeView(
            index,
            key_row_K,
            facts,
            showings,
            taste_log(slots, usual_N),
        )

    def gain(
        self,
        contexts: Contexts,
        slates: pl.Series,
        view: LakeView,
        refined: Refined | None = None,
    ) -> tuple[Int, Float, Float]:
        """Catalogue row (-1 unknown), the chance that the slot has the entry, and the factor on E[Y
        | entry]; each [N, S].

        The first slot of a creator has the entry with the chance P(entry | shown) and the factor
        p_shown - rho p_not; a later one has what the slots above it left: see `paid_once`. A
        familiar creator or item cannot be discovered: chance and factor are exactly 0. So are they
        for an item whose creator is unknown, where entries are about creators. Without decisions
        the outcome is given a discovery: the first slot of a creator counts 1, later ones 0.

        Args:
            contexts: N of them.
            slates: of items, one for each context.
            view: of the lake.
            refined: what else is known of the chance of a play; None: nothing.

        Raises:
            DataError: slates of different lengths, or not one per context.
            ConfigError: the signal's entries are about users.
        """
        self._check_entry()
        index = view.index
        lengths = slates.list.len().unique().to_list()
        if len(slates) != len(contexts) or len(lengths) > 1:
            raise DataError(
                f"value: {len(slates)} slates of lengths {lengths} for {len(contexts)} contexts; "
                "expected one slate per context, equally long"
            )
        slots = int(lengths[0]) if lengths else 0
        row_N = index.slots(slates) if slots else np.zeros(0, dtype=np.int64)
        row_NS = row_N.reshape(len(slates), slots)
        if self.signal.entry.is_slot:
            return row_NS, np.ones(row_NS.shape), np.ones(row_NS.shape)
        owner_N = np.repeat(np.arange(len(slates)), slots)
        key_N = np.append(index.key_row_I, -1)[row_N]
        impossible_N = self._familiar(contexts, owner_N, key_N, index) | (
            (row_N >= 0) & (key_N < 0)
        )
        key_NS = key_N.reshape(row_NS.shape)
        impossible_NS = impossible_N.reshape(row_NS.shape)
        if self.entry is None or view.facts is None:
            possible_NS = np.where(impossible_NS, 0.0, 1.0)
            return row_NS, *paid_once(key_NS, possible_NS, np.zeros(row_NS.shape), rho=1.0)
        visit_N, past, taste_VR = self._visits(contexts, view)
        position_N = np.tile(np.arange(slots), len(slates))
        features_NF = slot_features(past, visit_N[owner_N], row_N, position_N, view.facts.key_I)
        place_N = self.entry.place(contexts.frame["surface"].gather(owner_N), position_N)
        usual_N = self.entry.usual(features_NF, row_N, place_N, view.facts)
        x_NR = view.facts.x_IR[row_N]
        above_NA = None
        if self.entry.above_A.any():
            above_NA = above_features(owner_N, key_N, x_NR[:, 1:], usual_N)
        shown_N = self.entry.chance(usual_N, taste_VR[visit_N[owner_N]], x_NR, above_NA)
        if refined is not None:
            shown_N = refined(shown_N.reshape(row_NS.shape), row_NS).ravel()
        not_shown_N = self.organic_K[view.key_row_K[key_N]]
        shown_N = either(shown_N, not_shown_N)
        shown_NS = np.where(impossible_NS, 0.0, shown_N.reshape(row_NS.shape))
        not_shown_NS = np.where(impossible_NS, 0.0, not_shown_N.reshape(row_NS.shape))
        return row_NS, *paid_once(key_NS, shown_NS, not_shown_NS, self.rho)

    def catalogue_gain(
        self, contexts: Contexts, view: LakeView, row_I: Int, refined: Refined | None = None
    ) -> tuple[Float, Float]:
        """The chance and the factor of `gain` of items that are each alone in the first slot, both
        [N, I].

        Args:
            contexts: N of them.
            view: of the lake.
            row_I: catalogue rows, -1 unknown.
            refined: see `gain`.
        """
        self._check_entry()
        index = view.index
        shape = (len(contexts), len(row_I))
        if self.signal.entry.is_slot:
            return np.ones(shape), np.ones(shape)
        keys = len(index.keys)
        owner_N = np.repeat(np.arange(len(contexts)), keys)
        key_N = np.tile(np.arange(keys), len(contexts))
        familiar_NK = np.zeros(
            (len(contexts), keys + 1), dtype=bool
        )  # last: unknown, never familiar
        familiar_NK[:, :-1] = self._familiar(contexts, owner_N, key_N, index).reshape(-1, keys)
        key_I = np.append(index.key_row_I, -1)[row_I]
        impossible_NI = familiar_NK[:, key_I] | ((key_I < 0) & (row_I >= 0))
        if self.entry is None or view.facts is None:
            possible_NI = np.where(impossible_NI, 0.0, 1.0)
            return possible_NI, possible_NI
        visit_N, past, taste_VR = self._visits(contexts, view)
        surface = contexts.frame["surface"].gather(np.unique(visit_N, return_index=True)[1])
        place_V = self.entry.place(surface, np.zeros(len(surface), dtype=np.int64))
        shown_VI = self.entry.catalogue_chance(past, taste_VR, place_V, view.facts)
        played_NI = shown_VI[visit_N][:, row_I]
        if refined is not None:
            played_NI = refined(played_NI, np.broadcast_to(row_I, played_NI.shape))
        not_shown_I = self.organic_K[view.key_row_K[key_I]]
        shown_NI = either(played_NI, not_shown_I)
        shown_NI = np.where(impossible_NI, 0.0, shown_NI)
        return shown_NI, np.where(impossible_NI, 0.0, shown_NI - self.rho * not_shown_I)

    def _check_entry(self) -> None:
        entry = self.signal.entry
        if entry.of is None or entry.is_event:
            about = (
                "events, of which showing is one cause among others"
                if entry.is_event
                else "about a user, so no slot owns them"
            )
            raise ConfigError(
                f"{self.signal.name}: entries of kind {entry.kind} are {about}; value() needs "
                "discovery or exposure"
            )

    def _familiar(self, contexts: Contexts, owner_N: Int, key_N: Int, index: LakeIndex) -> Bool:
        """Whether an entry is impossible, because the user touched the creator before, [N]: in the
        lake, or in the history that the context carries."""
        novel_for = self.signal.entry.novel_for
        frame = contexts.frame
        user_M = index.users(frame["user_id"])
        time_M = frame["time"].dt.epoch("us").to_numpy()
        familiar_N = index.familiar(user_M[owner_N], key_N, time_M[owner_N], novel_for)
        return familiar_N | in_history(contexts, owner_N, key_N, index, novel_for)

    def _visits(self, contexts: Contexts, view: LakeView) -> tuple[Int, EarlierShowings, Float]:
        """The visit of each context, [N]; what was shown before each visit, and the taste of its user.

        Contexts of a user at one time and surface are one visit, as they are where several slates are
        drawn for a context. Contexts that carry what was shown are a visit each.
        """
        assert self.entry is not None
        assert view.facts is not None
        assert view.showings is not None
        assert view.tastes is not None
        frame = contexts.frame
        time_N = frame["time"].dt.epoch("us").to_numpy()
        user_N = view.tastes.users.rows(frame["user_id"])
        past = EarlierShowings.of_contexts(contexts, view.index.items)
        if past is None:
            name_N, surface_N = (
                frame[name].rank("dense").to_numpy().astype(np.int64)
                for name in ("user_id", "surface")
            )
            pairs = np.stack([name_N, time_N, surface_N], axis=1)
            _, first_V, visit_N = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
            past = view.showings.before(user_N[first_V], time_N[first_V])
        else:
            first_V = visit_N = np.arange(len(contexts))
        vectors_VU = self.entry.user_vectors(contexts.take(first_V), view.index.lake)
        taste_VR = view.tastes.taste(
            self.entry, view.facts, user_N[first_V], time_N[first_V], vectors_VU
        )
        return visit_N.ravel(), past, taste_VR


def either(played_N: Float, organic_N: Float) -> Float:
    """The chance of an entry through the slot or without it, which are independent."""
    return 1.0 - (1.0 - played_N) * (1.0 - organic_N)


def in_history(
    contexts: Contexts, owner_N: Int, key_N: Int, index: LakeIndex, novel_for: int | None
) -> Bool:
    """Whether the history of the slot's context holds its creator, within `novel_for` days (null: at
    any time), [N].

    Only histories that say when things happened count: a lake knows the rest.

    Args:
        contexts: M of them.
        owner_N: context of each slot.
        key_N: creator of each slot, -1 unknown.
        index: the lake's items and creators.
        novel_for: days without a touch after which a creator is new again.
    """
    frame = contexts.frame
    lists = frame.select("history", "history_time", "time").with_row_index("moment")
    lists = lists.filter(pl.col("history_time").list.len() == pl.col("history").list.len())
    lists = lists.filter(pl.col("history").list.len() > 0)
    if lists.is_empty():
        return np.zeros(len(owner_N), dtype=bool)
    heard = lists.explode("history", "history_time")
    days = (pl.col("time").dt.date() - pl.col("history_time").dt.date()).dt.total_days()
    if novel_for is not None:
        heard = heard.filter(days <= novel_for)
    key_P = np.append(index.key_row_I, -1)[index.items.rows(heard["history"])]
    base = len(index.keys) + 1
    heard_codes = heard["moment"].to_numpy().astype(np.int64)[key_P >= 0] * base + key_P[key_P >= 0]
    return np.isin(owner_N * base + key_N, heard_codes) & (key_N >= 0)


def paid_once(key_NS: Int, shown_NS: Float, not_shown_NS: Float, rho: float) -> tuple[Float, Float]:
    """The chance that each slot has the entry, and the factor on E[Y | entry] that it is paid; both
    [N, S].

    Slots of one key cause its entry independently of each other and of an organic entry: slot k
    with chance c_k = (p_k - q) / (1 - q). With U_k, the product of 1 - c_j over the slots j above k
    of the same key, the first slot of a key has the chance p_1 and is paid p_1 - rho q, a later one
    has and is paid U_k (p_k - q). The chances of a key sum to P(entry | slate) = 1 - (1 - q) x
    product of all its 1 - c_k, in any order of its slots; the factors to that less rho q: what
    would have happened anyway is taken off once.

    Args:
        key_NS: row of each slot's creator or item; -1, unknown, is nobody else's.
        shown_NS: P(entry within a day | shown alone), p.
        not_shown_NS: P(entry within a day | not shown), q.
        rho: mean outcome of organic entries over that of recommended ones.

    >>> key, shown = np.array([[7, 7, 2, 7]]), np.array([[0.5, 0.4, 0.3, 0.2]])
    >>> chance, factor = paid_once(key, shown, np.zeros((1, 4)), rho=1.0)
    >>> factor.round(3).tolist()                      # .5, then .4 x .5, another creator, and .2 x .5 x .6
    [[0.5, 0.2, 0.3, 0.06]]
    >>> float(factor[0, [0, 1, 3]].sum().round(3)), 1 - 0.5 * 0.6 * 0.8
    (0.76, 0.76)
    """
    # a slot that lowers the chance of an entry leaves no more to those below than there was
    caused_NS = np.clip((shown_NS - not_shown_NS) / np.maximum(1.0 - not_shown_NS, 1e-12), 0.0, 1.0)
    left_NS, repeated_NS = left_by_slots_above(key_NS, caused_NS)
    later_NS = left_NS * (shown_NS - not_shown_NS)
    chance_NS = np.where(repeated_NS, np.maximum(later_NS, 0.0), shown_NS)
    return chance_NS, np.where(repeated_NS, later_NS, shown_NS - rho * not_shown_NS)


def worth(
    gain_NS: Float,
    chance_NS: Float,
    mean_NS: Float,
    std_NS: Float,
    spread_NS: Float,
    most: float,
    label: str,
) -> Belief:
    """Beliefs about the outcome given an entry, turned into beliefs about the value of showing; all
    [N, S].

    The bound of the product is the product of the bound: std scales with |gain| and the floor is
    gain times the least outcome (0; the largest, `most`, where showing harms), so `lower` is gain x
    max(mean - caution std, 0): it never falls when the chance of an entry rises.

    >>> outcome = np.array([[[0.4, 0.4]], [[0.1, 0.1]], [[0.5, 0.5]]])     # mean, std, spread of two slots
    >>> worth(np.array([[0.5, -0.1]]), np.array([[0.6, 0.1]]), *outcome, 1.0, "habit").lower(1.0).round(3)
    array([[ 0.15, -0.05]])
    """
    value_std_NS = np.abs(gain_NS) * std_NS
    # of a product: whether there is an entry, and its outcome
    variance_NS = chance_NS * (spread_NS**2 + mean_NS**2) - (chance_NS * mean_NS) ** 2
    if np.isfinite(most):
        extreme_NS = gain_NS * most
    else:
        extreme_NS = np.where(gain_NS == 0, 0.0, np.copysign(np.inf, gain_NS))
    return Belief(
        mean=gain_NS * mean_NS,
        std=value_std_NS,
        spread=np.maximum(np.sqrt(np.maximum(variance_NS, 0.0)), value_std_NS),
        age=-1,
        signal=label,
        minimum=np.minimum(extreme_NS, 0.0),
        maximum=np.maximum(extreme_NS, 0.0),
    )


def worth_of_slate(key_NS: Int, slots: Belief, outcome_NS: Float) -> Belief:
    """Beliefs about the value of whole slates, [N], from those about their slots.

    Slots of a key share one belief and at most one entry: their stds add up, and the outcomes of two of
    them exclude each other. Keys are independent.

    Args:
        key_NS: row of each slot's creator or item; -1, unknown, is nobody else's.
        slots: the value of each slot (`worth`), [N, S].
        outcome_NS: what each slot's entries come to: chance x mean.

    >>> chance, outcome = np.array([[0.4, 0.2]]), np.array([[[0.5, 0.5]], [[0.1, 0.1]], [[0.5, 0.5]]])
    >>> slots = worth(chance, chance, *outcome, 1.0, "habit")
    >>> for key in ([[3, 3]], [[3, 5]]):                              # of one creator, and of two
    ...     slate = worth_of_slate(np.array(key), slots, chance * 0.5)
    ...     print(slate.mean.round(3), slate.std.round(3), (slate.spread**2).round(3))
    [0.3] [0.06] [0.21]
    [0.3] [0.045] [0.25]
    """
    slots_S = np.arange(key_NS.shape[1])
    same_NSS = (key_NS[:, :, None] == key_NS[:, None, :]) & (key_NS[:, :, None] >= 0)
    same_NSS |= slots_S[:, None] == slots_S
    std_NS = slots.std
    variance_N = np.einsum("ns,nst,nt->n", std_NS, same_NSS, std_NS)
    others_NSS = same_NSS & (slots_S[:, None] != slots_S)
    excluded_N = np.einsum("ns,nst,nt->n", outcome_NS, others_NSS, outcome_NS)
    spread_N = np.sqrt(np.maximum((slots.spread**2).sum(axis=1) - excluded_N, 0.0))
    std_N = np.sqrt(variance_N)
    return Belief(
        mean=slots.mean.sum(axis=1),
        std=std_N,
        spread=np.maximum(spread_N, std_N),
        age=slots.age,
        signal=slots.signal,
        minimum=np.asarray(slots.minimum).sum(axis=1),
        maximum=np.asarray(slots.maximum).sum(axis=1),
    )
