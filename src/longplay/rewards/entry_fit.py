"""Fitting the chance of an entry on a log's slots.

First come effects of items, creators and users together with weights of the visit's features, shrunk
by empirical Bayes. Then come the law of tastes, from what was played beyond expectation. Last come the
slopes of rate and taste, on visits where both were read from the user's earlier slots alone: what a
part is worth is seen where it is used.

Axes as in `longplay.rewards.entry_chance`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from longplay.arrays import Float, Int
from longplay.chance import keyed_uniform
from longplay.codes.vectors import WordSpace
from longplay.errors import ConfigError
from longplay.lake.known import Scaling, item_vectors, user_vectors
from longplay.lake.lake import Lake
from longplay.rewards.effects import Effects, Group, fit_effects
from longplay.rewards.entry_chance import (
    ABOVE,
    PLACES,
    EntryChance,
    ItemContent,
    ItemFacts,
    TasteLog,
    above_features,
    log_features,
    taste_log,
)
from longplay.rewards.familiar import LakeIndex
from longplay.rewards.slot_log import SlotLog
from longplay.rewards.taste import TasteLaw, fit_tastes

MOST_SLOTS = 1_000_000  # slots that effects are fitted on; of a larger log, those of some users
MOST_VISITS = 20_000  # visits that the slopes are fitted on
LEAST_VISITS = 200  # below which slopes stay as they are and tastes are left out
LEARNED = 16  # coordinates of item vectors that are learnt from the log
WORDS = 16  # of those that are made of words
PRIOR_INFORMATION = 5.0  # of an item, where residuals are decomposed: rare items count less
KNOWN = ("users", "items")
PARTS = ("repetition", "content", "rate", "taste", "above")
LEAST_EVIDENCE = 3.0  # standard errors from 0 of a weight that is kept


def fit_entry_chance(
    lake: Lake,
    index: LakeIndex,
    slots: SlotLog,
    taught: Int,
    knows: Collection[str] = (),
    parts: Collection[str] = PARTS,
) -> EntryChance:
    """The chance of an entry, fitted on slots of a log.

    Args:
        lake: the log.
        index: its look-ups.
        slots: all slots, of every surface.
        taught: rows of the slots that teach.
        knows: "users" and "items", whose vectors may be read.
        parts: what is fitted beside surface, place, items and creators; some of `PARTS`.

    Raises:
        ConfigError: another word in `knows`.
    """
    check_known(knows)
    if len(taught) > MOST_SLOTS:
        chance_U = keyed_uniform("longplay: slots that teach", slots.users.ids)
        taught = taught[chance_U[slots.user_N[taught]] < MOST_SLOTS / len(taught)]
    content = _content(lake, index, knows)
    words, vectors = content.of(lake, index.items)
    key_I = np.append(index.key_row_I, -1)
    x_NF = log_features(slots, key_I)
    if "repetition" not in parts:
        x_NF[:, 1:] = 0.0
    content_IC = np.hstack([words, vectors])
    if "content" not in parts:
        content_IC = np.zeros_like(content_IC)
    effects = _effects(x_NF, slots, taught, index, content_IC)
    surfaces = len(slots.surfaces)
    place_SP = np.zeros((surfaces + 1, PLACES))
    if surfaces > 1:
        place_SP[:-1] = effects.effect_L[3].reshape(-1, PLACES)
    user_scaling, user_UV = _users(lake, slots, knows)
    items = len(index.items)
    model = EntryChance(
        intercept=effects.intercept,
        weight_F=effects.weight_F,
        most_F=np.quantile(x_NF[taught], 0.99, axis=0),
        items=index.items,
        item_I=effects.effect_L[0],
        keys=index.keys,
        key_K=effects.effect_L[1],
        content_C=effects.content_C[0],
        learned_IR=np.zeros((items, 0)),
        content=content,
        law=TasteLaw(np.zeros(1), np.zeros((user_UV.shape[1], 1))),
        user_scaling=user_scaling,
        surfaces=slots.surfaces,
        place_SP=place_SP,
    )
    facts = model.facts(lake, index)
    place_N = model.place_SP[slots.surface_N, np.minimum(slots.position_N, PLACES - 1)]
    usual_N = model.usual(x_NF, slots.item_N, place_N, facts)
    own_U = effects.effect_L[2]
    learned_IR = _learned(slots, taught, special.expit(usual_N + own_U[slots.user_N]), items)
    model = replace(model, learned_IR=learned_IR)
    facts = model.facts(lake, index)
    chance_N = special.expit(usual_N)
    odd = taught[slots.user_N[taught] % 2 == 1]  # learned vectors are of the other users
    law = fit_tastes(
        facts.x_IR[slots.item_N[odd]],
        (slots.played_N - chance_N)[odd],
        (chance_N * (1 - chance_N))[odd],
        slots.user_N[odd],
        len(slots.users),
        user_UV,
        _shared(facts, vectors, user_UV),
    )
    model = replace(model, law=law)
    tastes = taste_log(slots, usual_N)
    return _with_slopes(model, slots, taught, facts, usual_N, tastes, user_UV, parts)


def _shared(facts: ItemFacts, vectors: Float, user_UV: Float) -> slice | None:
    """The columns of the items' vectors, which stand last, where users' vectors are as long."""
    width = vectors.shape[1]
    if not width or width != user_UV.shape[1]:
        return None
    return slice(facts.x_IR.shape[1] - width, facts.x_IR.shape[1])


def check_known(knows: Collection[str]) -> None:
    """Raise a ConfigError unless `knows` holds words of `KNOWN` alone."""
    if isinstance(knows, str) or not set(knows) <= set(KNOWN):
        raise ConfigError(f'knows={knows!r} given, expected some of ("users", "items")')


def _content(lake: Lake, index: LakeIndex, knows: Collection[str]) -> ItemContent:
    words = WordSpace.of(lake.items, index.items, WORDS)
    word_scaling = Scaling.of(words.vectors(lake.items, index.items))
    vectors = np.zeros((len(index.items), 0))
    if "items" in knows:
        vectors = item_vectors(lake, index.items.ids)
    return ItemContent(words, word_scaling, Scaling.of(vectors))


def _users(lake: Lake, slots: SlotLog, knows: Collection[str]) -> tuple[Scaling, Float]:
    """Scaling and scaled vectors of the log's users, as they were known at their last slot."""
    users = len(slots.users)
    if "users" not in knows:
        return Scaling(np.zeros(0), np.ones(0)), np.zeros((users, 0))
    now = lake.watermark
    assert now is not None  # the lake has decisions
    vectors = user_vectors(lake, slots.users.ids, now)
    scaling = Scaling.of(vectors)
    return scaling, scaling.scaled(vectors)


def _effects(
    x_NF: Float, slots: SlotLog, taught: Int, index: LakeIndex, content_IC: Float
) -> Effects:
    """Effects of items, creators and users; where there are several surfaces, also of the places on
    each, which are shrunk to their surface."""
    groups = [
        Group(slots.item_N[taught], len(index.items), content_IC),
        Group(slots.key_N[taught], len(index.keys)),
        Group(slots.user_N[taught], len(slots.users)),
    ]
    surfaces = len(slots.surfaces)
    if surfaces > 1:
        surface_N = slots.surface_N[taught]
        place_N = np.minimum(slots.position_N[taught], PLACES - 1)
        is_of_LS = np.repeat(np.eye(surfaces), PLACES, axis=0)
        groups.append(Group(surface_N * PLACES + place_N, surfaces * PLACES, is_of_LS))
    return fit_effects(x_NF[taught], groups, slots.played_N[taught])


def _learned(slots: SlotLog, taught: Int, chance_N: Float, items: int) -> Float:
    """Item vectors from what users of even rows played beyond expectation, [I, R]: a truncated
    singular value decomposition of residuals, each item's in units of their standard deviation."""
    even = taught[slots.user_N[taught] % 2 == 0]
    users = len(slots.users)
    information_I = np.bincount(
        slots.item_N[even], weights=(chance_N * (1 - chance_N))[even], minlength=items
    )
    scale_I = 1.0 / np.sqrt(information_I + PRIOR_INFORMATION)
    cells = ((slots.played_N - chance_N)[even], (slots.user_N[even], slots.item_N[even]))
    residual_UI = sparse.csr_matrix(
        sparse.csr_matrix(cells, shape=(users, items)) @ sparse.diags(scale_I)
    )
    dims = min(LEARNED, users - 1, items - 1)
    if dims < 1 or not residual_UI.nnz:
        return np.zeros((items, 0))
    _, size, right = randomized_svd(residual_UI, dims, random_state=0)
    vectors = right.T * size * scale_I[:, None]
    return vectors / np.maximum(np.sqrt((vectors**2).mean(axis=0)), 1e-12)


def _with_slopes(
    model: EntryChance,
    slots: SlotLog,
    taught: Int,
    facts: ItemFacts,
    usual_N: Float,
    tastes: TasteLog,
    user_UV: Float,
    personal: Collection[str],
) -> EntryChance:
    """The model with the slopes of its parts, fitted on visits whose rate and taste come from earlier
    slots alone. A part whose slope is not above 0 is left out, and a weight of the slots above that the
    log cannot tell from 0."""
    slates = np.unique(slots.slate_N[taught])
    rng = np.random.default_rng(0)
    if len(slates) > MOST_VISITS:
        slates = np.sort(rng.choice(slates, MOST_VISITS, replace=False))
    rows = taught[np.isin(slots.slate_N[taught], slates)]
    y_N = slots.played_N[rows]
    if len(slates) < LEAST_VISITS or not 0 < y_N.sum() < len(y_N):
        return replace(model, slope_3=np.array([1.0, 0.0, 0.0]))
    first = np.searchsorted(slots.slate_N, slates)
    user_M = slots.user_N[first]
    taste_MR = tastes.taste(model, facts, user_M, slots.time_N[first], user_UV[user_M])
    owner = np.searchsorted(slates, slots.slate_N[rows])
    item = slots.item_N[rows]
    liking = np.einsum("nr,nr->n", taste_MR[owner, 1:], facts.x_IR[item, 1:])
    parts = np.column_stack([usual_N[rows], taste_MR[owner, 0], liking])
    used = [0]
    for part, name in ((1, "rate"), (2, "taste")):
        if name in personal and parts[:, part].std() > 1e-9:
            used.append(part)
    while True:
        slope, shift = _logistic(parts[:, used], y_N)
        harmful = [part for part, value in zip(used, slope, strict=True) if value <= 0 and part > 0]
        if not harmful:
            break
        used = [part for part in used if part not in harmful]
    slope_3 = np.zeros(3)
    slope_3[used] = slope
    if slope_3[0] <= 0:  # nothing but chance in so small a log
        return replace(model, slope_3=np.array([1.0, 0.0, 0.0]))
    model = replace(model, slope_3=slope_3, shift=shift)
    if "above" not in personal:
        return model
    every = np.flatnonzero(np.isin(slots.slate_N, slates))
    vector_NR = facts.x_IR[slots.item_N[every], 1:]
    above_NA = above_features(slots.slate_N[every], slots.key_N[every], vector_NR, usual_N[every])[
        np.searchsorted(every, rows)
    ]
    return _with_above(model, parts[:, used], above_NA, y_N, slots.user_N[rows])


def _with_above(
    model: EntryChance, part_NP: Float, above_NA: Float, y_N: Float, user_N: Int
) -> EntryChance:
    """The model with weights of the slots above; those that are not told from 0 are left out, the least
    certain first.

    Args:
        model: with its slopes.
        part_NP: the parts that have slopes.
        above_NA: what the slots above are to each slot.
        y_N: whether it was played.
        user_N: whose slot it is.
    """
    width = part_NP.shape[1]
    used = [a for a in range(len(ABOVE)) if above_NA[:, a].std() > 1e-9]
    while used:
        x_NC = np.column_stack([part_NP, above_NA[:, used]])
        slope, shift = _logistic(x_NC, y_N)
        evidence = np.abs(slope / _errors(x_NC, slope, shift, y_N, user_N))[width:]
        weakest = int(evidence.argmin())
        if evidence[weakest] < LEAST_EVIDENCE:
            del used[weakest]
            continue
        if (slope[:width] <= 0).any():
            break
        above_A = np.zeros(len(ABOVE))
        above_A[used] = slope[width:]
        slope_3 = np.zeros(3)
        slope_3[model.slope_3 != 0] = slope[:width]
        return replace(model, above_A=above_A, slope_3=slope_3, shift=shift)
    return model


def _errors(x_NC: Float, slope_C: Float, shift: float, y_N: Float, user_N: Int) -> Float:
    """Standard errors of the weights of a logistic regression, robust to what users have in common (Liang
    & Zeger 1986), [C]."""
    x = np.column_stack([x_NC, np.ones(len(x_NC))])
    chance_N = special.expit(x_NC @ slope_C + shift)
    information = (x * (chance_N * (1 - chance_N))[:, None]).T @ x
    _, user_row_N = np.unique(user_N, return_inverse=True)
    score_UC = np.column_stack(
        [np.bincount(user_row_N, weights=column * (y_N - chance_N)) for column in x.T]
    )
    inverse = np.linalg.pinv(information)
    return np.sqrt(np.maximum(np.diag(inverse @ score_UC.T @ score_UC @ inverse), 1e-18))[:-1]


def _logistic(x_NF: Float, y_N: Float) -> tuple[Float, float]:
    """Weights and intercept of a logistic regression."""
    fitted = LogisticRegression(C=1e4, max_iter=500).fit(x_NF, y_N)
    return fitted.coef_[0], float(fitted.intercept_[0])
