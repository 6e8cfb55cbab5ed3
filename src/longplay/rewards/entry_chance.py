"""The chance that a slot leads to an entry: what is usual of the item and its creator, how often they
were shown of late, the slot's surface and place, the slots above it, and the user's own rate and taste.

Every feature is a state of the visit: it uses what was known before the context's time, and nothing
after. Axes: N slots, M moments (contexts), S slots of a slate, I items, K keys (creators or items),
F features, R coordinates of taste, V of a user's vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy import special

from longplay.arrays import Float, Int
from longplay.codes.vectors import WordSpace
from longplay.decisions import Contexts
from longplay.index import ItemIndex
from longplay.lake.daily import DAY_US
from longplay.lake.known import Scaling, as_matrix, item_vectors, user_vectors
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.past import Past
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.repetition import FEATURES as REPETITION
from longplay.rewards.repetition import HALF_LIVES, EarlierShowings, Showings
from longplay.rewards.slot_log import SlotLog
from longplay.rewards.taste import TasteLaw

FEATURES = ("position", *REPETITION)
# what the slots above in the same slate are to a slot
ABOVE = ("creator above", "likeness above", "plays above")
PLACES = 20  # of a surface that are told apart; later ones are like the last
SLATES = 2_000  # compared slot by slot at a time: bounds memory


@dataclass(frozen=True, eq=False)
class ItemContent:
    """What is known of items besides what was done with them: their words, and where declared their
    vectors, as the lake has them."""

    words: WordSpace
    word_scaling: Scaling
    vector_scaling: Scaling

    def of(self, lake: Lake, index: ItemIndex) -> tuple[Float, Float]:
        """Scaled word vectors and item vectors of the lake's items, each [I, C]; 0 where not known."""
        words = self.word_scaling.scaled(self.words.vectors(lake.items, index))
        if not len(self.vector_scaling.mean_C):
            return words, np.zeros((len(index), 0))
        return words, self.vector_scaling.scaled(item_vectors(lake, index.ids))


@dataclass(frozen=True, eq=False)
class ItemFacts:
    """What the model says of a lake's items; last, of unknown ones.

    Attributes:
        base_I: usual log odds of an entry, less the intercept, [I + 1].
        x_IR: vectors for taste; the first coordinate is 1.
        key_I: row of the creator (or the item itself) in the lake, -1 unknown.
    """

    base_I: Float
    x_IR: Float
    key_I: Int


@dataclass(frozen=True, eq=False)
class EntryChance:
    """The fitted chance of an entry where something is shown.

    Attributes:
        intercept: log odds of an item that is usual in everything, in the first slot.
        weight_F: of the features, in the order of FEATURES.
        most_F: largest value of each feature in the log: a feature that raises the chance counts no
            further than that.
        items: items whose effects were fitted, by row.
        item_I: their effects.
        keys: creators (or items) whose effects were fitted, by row.
        key_K: their effects.
        content_C: what a unit of each column of content adds to an item's effect.
        learned_IR: item vectors from what was played beyond expectation.
        content: words and vectors of items.
        law: how tastes vary.
        user_scaling: of users' vectors; no columns where they are not read.
        shift: added to the log odds in the end.
        slope_3: what the usual log odds, the user's own rate and the user's taste are multiplied with.
        surfaces: surfaces whose slots were fitted, by row.
        place_SP: what a surface and a place on it add to the log odds, [S + 1, P]; last, of unknown
            surfaces, 0: they stand at the pooled intercept.
        above_A: weights of the slots above, in the order of ABOVE.
    """

    intercept: float
    weight_F: Float
    most_F: Float
    items: ItemIndex = field(repr=False)
    item_I: Float = field(repr=False)
    keys: ItemIndex = field(repr=False)
    key_K: Float = field(repr=False)
    content_C: Float = field(repr=False)
    learned_IR: Float = field(repr=False)
    content: ItemContent = field(repr=False)
    law: TasteLaw = field(repr=False)
    user_scaling: Scaling = field(repr=False)
    shift: float = 0.0
    slope_3: Float = field(default_factory=lambda: np.ones(3))
    surfaces: ItemIndex = field(default_factory=lambda: ItemIndex([]), repr=False)
    place_SP: Float = field(default_factory=lambda: np.zeros((1, PLACES)), repr=False)
    above_A: Float = field(default_factory=lambda: np.zeros(len(ABOVE)))

    def facts(self, lake: Lake, index: LakeIndex) -> ItemFacts:
        """What the model says of the items of a lake, new ones included: those start from their
        creator and their content."""
        words, vectors = self.content.of(lake, index.items)
        model_row = self.items.rows(index.items.ids)
        is_new = model_row < 0
        effect_I = np.hstack([words, vectors]) @ self.content_C
        effect_I = np.where(is_new, effect_I, np.append(self.item_I, 0.0)[model_row])
        model_key = np.append(self.keys.rows(index.keys.ids), -1)[index.key_row_I]
        base_I = effect_I + np.append(self.key_K, 0.0)[model_key]
        learned = np.vstack([self.learned_IR, np.zeros((1, self.learned_IR.shape[1]))])[model_row]
        x_IR = np.hstack([np.ones((len(base_I), 1)), learned, words, vectors])
        unknown = np.zeros((1, x_IR.shape[1]))
        unknown[0, 0] = 1.0
        return ItemFacts(
            np.append(base_I, 0.0), np.vstack([x_IR, unknown]), np.append(index.key_row_I, -1)
        )

    def place(self, surface: pl.Series, position_N: Int) -> Float:
        """What the surface and the place on it add to the log odds of slots, [N].

        Args:
            surface: the N slots' surfaces.
            position_N: slot of the slate, from 0.
        """
        return self.place_SP[self.surfaces.rows(surface), np.minimum(position_N, PLACES - 1)]

    def usual(self, x_NF: Float, item_N: Int, place_N: Float, facts: ItemFacts) -> Float:
        """Log odds of an entry for a usual user, where nothing else were above, [N].

        Args:
            x_NF: features of the slots.
            item_N: item rows in the lake, -1 unknown.
            place_N: what the surface and the place add (`place`).
            facts: of the lake's items.
        """
        x_NF = np.where(self.weight_F > 0, np.minimum(x_NF, self.most_F), x_NF)
        return self.intercept + x_NF @ self.weight_F + place_N + facts.base_I[item_N]

    def chance(
        self, usual_N: Float, taste_NR: Float, x_NR: Float, above_NA: Float | None = None
    ) -> Float:
        """The chance of an entry, [N], from the usual log odds, the user's taste, the item's vector and
        the slots above; null: there are none."""
        personal_N = self.slope_3[1] * taste_NR[:, 0]
        personal_N = personal_N + self.slope_3[2] * np.einsum(
            "nr,nr->n", taste_NR[:, 1:], x_NR[:, 1:]
        )
        odds_N = self.shift + self.slope_3[0] * usual_N + personal_N
        if above_NA is not None:
            odds_N = odds_N + above_NA @ self.above_A
        return special.expit(odds_N)

    def catalogue_chance(
        self, past: EarlierShowings, taste_MR: Float, place_M: Float, facts: ItemFacts
    ) -> Float:
        """The chance of an entry of every item of the lake alone in the first slot, [M, I + 1].

        Args:
            past: what was shown before each moment.
            taste_MR: the users' tastes.
            place_M: what the surface of each moment adds in its first slot (`place`).
            facts: of the lake's items.
        """
        moments = past.moments
        items = len(facts.base_I)
        odds_MI = np.repeat(self.intercept + facts.base_I[None, :], moments, axis=0)
        key_I = facts.key_I % items
        page_M = place_M.copy()
        for h, days in enumerate(HALF_LIVES):
            of_item, of_key, of_page = 1 + h, 1 + len(HALF_LIVES) + h, 1 + 2 * len(HALF_LIVES) + h
            shown_MI = past.counts(days, np.arange(items), items)
            shown_MI[:, -1] = 0.0
            odds_MI += self.weight_F[of_item] * self._cut(shown_MI, of_item)
            shown_MK = past.counts(days, key_I, items)
            shown_MK[:, -1] = 0.0
            odds_MI += self.weight_F[of_key] * self._cut(shown_MK, of_key)[:, key_I]
            page_M += self.weight_F[of_page] * self._cut(past.page(days), of_page)
        odds_MI += page_M[:, None]
        odds_MI *= self.slope_3[0]
        odds_MI += self.shift + self.slope_3[1] * taste_MR[:, :1]
        odds_MI += self.slope_3[2] * (taste_MR[:, 1:] @ facts.x_IR[:, 1:].T)
        return special.expit(odds_MI)

    def user_vectors(self, contexts: Contexts, lake: Lake) -> Float:
        """Scaled vectors of the contexts' users as they were known at the time, [M, V]: those that the
        contexts carry, else the lake's; 0 where not known."""
        if not len(self.user_scaling.mean_C):
            return np.zeros((len(contexts), 0))
        frame = contexts.known_from(lake).frame
        return self.user_scaling.scaled(as_matrix(frame["user_vector"], frame["user_id"]))

    def _cut(self, x: Float, feature: int) -> Float:
        return np.minimum(x, self.most_F[feature]) if self.weight_F[feature] > 0 else x


def slot_features(
    past: EarlierShowings, owner_N: Int, item_N: Int, position_N: Int, key_I: Int
) -> Float:
    """The features of slots, [N, F] in the order of FEATURES.

    Args:
        past: what was shown before each moment.
        owner_N: moment of each slot.
        item_N: item row in the lake, -1 unknown.
        position_N: slot of the slate, from 0.
        key_I: creator of each of the lake's items; last, of unknown ones.
    """
    return np.column_stack([np.log1p(position_N), past.features(owner_N, item_N, key_I)])


def above_features(slate_N: Int, key_N: Int, vector_NR: Float, usual_N: Float) -> Float:
    """What the slots above in the same slate are to each slot, [N, A] in the order of ABOVE: how many
    are of its creator, the cosine of the vector most like its own (at least 0), and how many are
    played as usual, which is how much attention is used up.

    Args:
        slate_N: slate of each slot, ascending; slots of a slate in order.
        key_N: row of the creator, -1 unknown.
        vector_NR: vector of the item; 0 where nothing is known.
        usual_N: log odds of an entry for a usual user.

    >>> vector = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> above_features(np.array([0, 0, 0]), np.array([5, 6, 5]), vector, np.zeros(3)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5], [1.0, 1.0, 1.0]]
    """
    size_N = np.sqrt((vector_NR**2).sum(axis=1))
    unit_NR = vector_NR / np.maximum(size_N, 1e-12)[:, None]
    played_N = special.expit(usual_N)
    first = np.flatnonzero(np.diff(slate_N, prepend=-1))
    length_M = np.diff(np.append(first, len(slate_N)))
    above_NA = np.zeros((len(slate_N), len(ABOVE)))
    for part in np.array_split(np.arange(len(first)), 1 + len(first) // SLATES):
        for place in range(1, int(length_M[part].max(initial=0))):
            start = first[part[length_M[part] > place]]
            row = start + place
            above = start[:, None] + np.arange(place)
            same = (key_N[above] == key_N[row, None]) & (key_N[row, None] >= 0)
            likeness = np.einsum("mpr,mr->mp", unit_NR[above], unit_NR[row])
            above_NA[row, 0] = same.sum(axis=1)
            above_NA[row, 1] = np.maximum(likeness.max(axis=1), 0.0)
            above_NA[row, 2] = played_N[above].sum(axis=1)
    return above_NA


@dataclass(frozen=True, eq=False)
class TasteLog:
    """The slots of a log from which users' tastes are read, in the order of users and times.

    Attributes:
        users: users by row.
        past: whose slots they are, and when it was known whether each had an entry.
        item_P: item row in the lake.
        excess_P: whether it had one (0 to 1), less the usual chance.
        information_P: usual chance x (1 - usual chance).
    """

    users: ItemIndex
    past: Past
    item_P: Int
    excess_P: Float
    information_P: Float

    def taste(
        self, model: EntryChance, facts: ItemFacts, user_M: Int, time_M: Int, user_MV: Float
    ) -> Float:
        """The taste of the user at each moment, from slots that had closed before it, [M, R].

        Args:
            model: the law of tastes.
            facts: of the lake's items.
            user_M: row of the user, -1 unknown.
            time_M: the moments, microseconds.
            user_MV: scaled vectors of the users.
        """
        # what closed at the moment itself is known
        offsets, row = self.past.last(user_M, time_M + 1, len(self.item_P))
        return model.law.taste(
            facts.x_IR[self.item_P[row]],
            self.excess_P[row],
            self.information_P[row],
            offsets,
            user_MV,
        )


MOMENTS = 20_000  # slates at a time: bounds memory


def log_features(slots: SlotLog, key_I: Int) -> Float:
    """Features of a log's slots, [N, F] in the order of FEATURES."""
    showings = showings_of_log(slots)
    starts = np.flatnonzero(np.diff(slots.slate_N, prepend=-1))
    bounds = np.append(starts, len(slots))
    x_NF = np.empty((len(slots), len(FEATURES)))
    for first in range(0, len(starts), MOMENTS):
        part = starts[first : first + MOMENTS]
        rows = np.arange(part[0], bounds[first + len(part)])
        past = showings.before(slots.user_N[part], slots.time_N[part])
        owner = np.searchsorted(part, rows, side="right") - 1
        x_NF[rows] = slot_features(past, owner, slots.item_N[rows], slots.position_N[rows], key_I)
    return x_NF


def showings_of_log(slots: SlotLog) -> Showings:
    """The slots of a log as showings."""
    return Showings.of(slots.user_N, slots.time_N, slots.item_N)


def taste_log(slots: SlotLog, usual_N: Float) -> TasteLog:
    """What a log's slots say of tastes: those that could open an entry.

    Args:
        slots: N of them.
        usual_N: their log odds for a usual user.
    """
    chance_N = special.expit(usual_N)
    teaches = np.flatnonzero(slots.possible_N)
    closed_P = slots.time_N[teaches] + DAY_US
    return TasteLog(
        slots.users,
        Past(slots.user_N[teaches], closed_P, closed_P),
        slots.item_N[teaches],
        (slots.played_N - chance_N)[teaches],
        (chance_N * (1.0 - chance_N))[teaches],
    )


def logged_chance(
    model: EntryChance,
    lake: Lake,
    index: LakeIndex,
    tastes: TasteLog,
    slots: SlotLog,
    rows: Int,
    x_NF: Float,
) -> Float:
    """The chance of an entry at slots of a log, [N], from what was known before their visits.

    Args:
        model: the fitted chance.
        lake: the log.
        index: its items and creators.
        tastes: the slots that users' tastes are read from.
        slots: of the log, in its order.
        rows: the N slots. Others of a slate, which could open no entry, do not count as above.
        x_NF: `log_features` of these.
    """
    facts = model.facts(lake, index)
    _, first, owner = np.unique(slots.slate_N[rows], return_index=True, return_inverse=True)
    user_M = slots.user_N[rows[first]]
    time_M = slots.time_N[rows[first]]
    user_MV = known_users(model.user_scaling, lake, slots.users.ids.gather(user_M), time_M)
    taste_MR = tastes.taste(model, facts, user_M, time_M, user_MV)
    surface = slots.surfaces.ids.gather(slots.surface_N[rows])
    place_N = model.place(surface, slots.position_N[rows])
    usual_N = model.usual(x_NF, slots.item_N[rows], place_N, facts)
    x_NR = facts.x_IR[slots.item_N[rows]]
    above_NA = above_features(slots.slate_N[rows], slots.key_N[rows], x_NR[:, 1:], usual_N)
    return model.chance(usual_N, taste_MR[owner], x_NR, above_NA)


def known_users(scaling: Scaling, lake: Lake | None, user_ids: pl.Series, time_M: Int) -> Float:
    """Scaled vectors of users as they were known at moments, [M, V]; 0 where not known."""
    width = len(scaling.mean_C)
    if lake is None or not width:
        return np.zeros((len(user_ids), width))
    times = pl.Series("time", time_M).cast(TIME)
    return scaling.scaled(user_vectors(lake, user_ids, times))
