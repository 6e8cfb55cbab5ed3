"""Fitting what is particular of items and users: parts are kept for what they foretell of other users.

Users are in two halves. What is fitted on one half is judged on, and joined with beliefs by, the
entries of the other; at the end everything is fitted on both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from longplay.arrays import Bool, Float
from longplay.chance import keyed_uniform
from longplay.codes.vectors import text_vectors
from longplay.index import ItemIndex
from longplay.lake.creators import item_creators
from longplay.lake.known import item_vectors
from longplay.lake.lake import Lake
from longplay.rewards.curves import ages_of
from longplay.rewards.early import ItemBeliefs, decided
from longplay.rewards.effects import LEAST_VARIANCE, fit_effects
from longplay.rewards.entry_rates import EntryRates
from longplay.rewards.families import Family
from longplay.rewards.particulars import (
    LEAST_BELIEF,
    PARTS,
    Amounts,
    Catalogue,
    Entries,
    Particulars,
    Pasts,
    fit_amounts,
    shares,
)
from longplay.signals.outcomes.in_memory import Outcomes
from longplay.signals.signal import Signal

TEXT_DIMS = 16
AGE_ENTRIES = 20_000  # that say how much is left at an age
SURE = 2.0  # standard errors
EQUAL = 0.5  # weight of either opinion
WEIGHTS = np.linspace(0.0, 1.0, 21)  # that are tried


def catalogue_of(
    lake: Lake | None, outcomes: Outcomes, decisions: pl.DataFrame | None, vectors: bool
) -> Catalogue:
    """What is known of items as of the outcomes.

    Args:
        lake: the log; None: only the outcomes are known.
        outcomes: of the signal; truncated ones, too: a slot led to them all the same.
        decisions: what was shown; None: what the lake has.
        vectors: whether items' vectors are read.
    """
    of = outcomes.signal.entry.of
    key = f"{of or 'user'}_id"
    entered = outcomes.frame.select("item_id", "creator_id")
    if lake is None:
        pairs = entered.filter(pl.col("item_id").is_not_null()).unique("item_id", keep="last")
    else:
        pairs = item_creators(lake.before(outcomes.as_of))
    pairs = pairs.sort("item_id")
    items = ItemIndex(pairs["item_id"])
    key_ids = pairs[key] if of else pl.Series(key, [None] * len(pairs), dtype=pl.String)
    keys = ItemIndex(pl.concat([key_ids, outcomes.keys]).drop_nulls().unique().sort())
    key_I = np.append(keys.rows(key_ids), -1)
    content_IC = np.zeros((len(items) + 1, 0))
    rates = None
    if lake is not None and len(items):
        view = lake.before(outcomes.as_of)
        columns = [text_vectors(view.items, items, TEXT_DIMS)]
        if vectors:
            known = item_vectors(view, items.ids)
            scale = np.nanstd(known, axis=0) if np.isfinite(known).any() else 1.0
            columns.append(
                np.nan_to_num((known - np.nanmean(known, axis=0)) / np.maximum(scale, 1e-9))
            )
        content_IC = np.vstack([np.hstack(columns), np.zeros(sum(x.shape[1] for x in columns))])
        shown = view.decisions if decisions is None else decisions
        rates = EntryRates.of_log(view, outcomes, shown, items, key_I)
    return Catalogue(items, keys, key_I, content_IC, rates)


def extended(catalogue: Catalogue, outcomes: Outcomes) -> Catalogue:
    """The catalogue with the items and creators of these entries behind those it has; of new ones
    nothing is known but their entries."""
    entered = (
        outcomes.frame.select("item_id", key=outcomes.keys)
        .filter(pl.col("item_id").is_not_null())
        .unique("item_id", keep="last")
        .sort("item_id")
    )
    entered = entered.filter(pl.Series(catalogue.items.rows(entered["item_id"]) < 0))
    keys = outcomes.keys.drop_nulls().unique().sort()
    keys = keys.filter(pl.Series(catalogue.keys.rows(keys) < 0))
    if entered.is_empty() and keys.is_empty():
        return catalogue
    all_items = ItemIndex(pl.concat([catalogue.items.ids, entered["item_id"]]))
    all_keys = ItemIndex(pl.concat([catalogue.keys.ids, keys.alias(catalogue.keys.ids.name)]))
    key_I = np.concatenate([catalogue.key_I[:-1], all_keys.rows(entered["key"]), [-1]])
    unknown_IC = np.zeros((len(entered) + 1, catalogue.content_IC.shape[1]))
    content_IC = np.vstack([catalogue.content_IC[:-1], unknown_IC])
    return Catalogue(all_items, all_keys, key_I, content_IC, catalogue.rates)


def fit_particulars(
    signal: Signal, standing: ItemBeliefs, certain: Outcomes, catalogue: Catalogue
) -> Particulars:
    """What is particular, fitted on these entries.

    Args:
        signal: whose outcomes.
        standing: the prior of beliefs about creators.
        certain: entries, immature ones included, whose users may teach.
        catalogue: what is known of items.
    """
    entries = Entries.of(certain, catalogue)
    share_D = shares(certain)
    half_N = keyed_uniform("longplay: particulars", certain.frame["user_id"]) < 0.5
    halves = (half_N, ~half_N)
    prior = standing.items()[0][-1]
    least = LEAST_BELIEF * max(float(prior), 1e-6)
    is_taught = all(entries.where(part_N).taught(share_D).amount_N.sum() > 0 for part_N in halves)
    parts: tuple[str, ...] = ()
    amounts = Amounts.nothing(share_D, catalogue)
    if is_taught:
        parts = _amount_parts(entries, catalogue, share_D, halves)
        amounts = fit_amounts(entries, catalogue, share_D, parts)
    nothing = Particulars(
        signal,
        catalogue,
        (),
        amounts,
        0.0,
        1.0,
        0.0,
        0.0,
        least,
        np.zeros(0, np.int64),
        np.zeros(0),
    )
    if not is_taught:
        return nothing
    family = nothing.family
    known_N = certain.known & (entries.key_N >= 0)
    crossed = _crossed(standing, certain, entries, catalogue, share_D, parts, halves)
    belief_N = family.link(np.maximum(crossed.mean_N, least))
    outcome_N = certain.value
    if not known_N.any():
        return nothing
    pooled = {
        float(weight): (1.0 - weight) * belief_N + weight * crossed.log_amount_N
        for weight in (WEIGHTS if parts else WEIGHTS[:1])
    }
    weight = _pool_weight(
        {w: link_N[known_N] for w, link_N in pooled.items()}, outcome_N[known_N], family
    )
    slope = 1.0
    if weight > 0.0:
        slope = _slope(pooled[weight], outcome_N, known_N, halves, family)
    else:
        parts = ()
    pasts = Pasts.of(certain.frame["user_id"], entries, signal.days, amounts)
    link_N = slope * pooled[weight][known_N]
    intercept, loss_N = _intercept_and_loss(link_N, outcome_N[known_N], family)
    with_users = _intercept_and_loss(link_N + crossed.user_N[known_N], outcome_N[known_N], family)
    if pasts.variance() > LEAST_VARIANCE and with_users[1].mean() < loss_N.mean():
        parts = (*parts, "user's rate")
        intercept = with_users[0]
    if not parts:
        return nothing
    joined = replace(
        nothing,
        parts=parts,
        intercept=intercept,
        slope=slope,
        amount_weight=weight,
        user_variance=pasts.variance() if "user's rate" in parts else 0.0,
    )
    return _with_ages(joined, certain, crossed, known_N, halves)


def _amount_parts(
    entries: Entries, catalogue: Catalogue, share_D: Float, halves: tuple[Bool, Bool]
) -> tuple[str, ...]:
    """The parts of the regression of amounts that lower the deviance of the other half's entries."""
    of_items = not np.array_equal(catalogue.key_I[:-1], np.arange(len(catalogue.items)))
    offered = ["items"] if of_items else []
    if catalogue.rates is not None:
        offered.append("entry rates")
    if catalogue.content_IC.shape[1]:
        offered.append("content")
    parts: tuple[str, ...] = ()
    least = _deviance(entries, catalogue, share_D, parts, halves)
    for part in PARTS:
        if part not in offered:
            continue
        deviance = _deviance(entries, catalogue, share_D, (*parts, part), halves)
        if deviance < least:
            parts = (*parts, part)
            least = deviance
    return parts


def _deviance(
    entries: Entries,
    catalogue: Catalogue,
    share_D: Float,
    parts: tuple[str, ...],
    halves: tuple[Bool, Bool],
) -> float:
    """Half the deviance of amounts, but for a constant, of entries whose users taught nothing; without
    end where effects of items do not vary."""
    total = 0.0
    for judged_N in halves:
        amounts = fit_amounts(entries.where(~judged_N), catalogue, share_D, parts)
        if "items" in parts and amounts.items.variance <= LEAST_VARIANCE:
            return np.inf
        judged = entries.where(judged_N).taught(share_D)
        expected_N = np.maximum(amounts.expected(judged), 1e-12)
        total += float((expected_N - judged.amount_N * np.log(expected_N)).sum())
    return total


@dataclass(frozen=True, eq=False)
class _Crossed:
    """What the other half's users say of each entry, [N]: belief about the creator, its item's log
    amount, the user's rate; and the other half's beliefs."""

    mean_N: Float
    log_amount_N: Float
    user_N: Float
    standings: tuple[ItemBeliefs, ItemBeliefs]


def _crossed(
    standing: ItemBeliefs,
    certain: Outcomes,
    entries: Entries,
    catalogue: Catalogue,
    share_D: Float,
    parts: tuple[str, ...],
    halves: tuple[Bool, Bool],
) -> _Crossed:
    mean_N = np.zeros(len(certain))
    log_amount_N = np.zeros(len(certain))
    user_N = np.zeros(len(certain))
    standings = []
    user_ids = certain.frame["user_id"]
    for judged_N in halves:
        teaching = certain.where(~judged_N)
        other = standing.observe(teaching, teaching.observed())
        standings.append(other)
        mean_N[judged_N] = other.items()[0][other.index.rows(certain.keys.filter(judged_N))]
        amounts = fit_amounts(entries.where(~judged_N), catalogue, share_D, parts)
        judged = entries.where(judged_N)
        log_amount_N[judged_N] = amounts.log_amount(judged.item_N, judged.key_N, judged.rate_N)
        teachers = Pasts.of(
            user_ids.filter(~judged_N), entries.where(~judged_N), certain.signal.days, amounts
        )
        pasts = Pasts.of(user_ids.filter(judged_N), judged, certain.signal.days, amounts)
        user_N[judged_N] = pasts.rates(
            user_ids.filter(judged_N), judged.time_N, teachers.variance()
        )
    return _Crossed(mean_N, log_amount_N, user_N, (standings[0], standings[1]))


def _pool_weight(pooled: dict[float, Float], outcome_N: Float, family: Family) -> float:
    """The weight of amounts in the pool: a half, unless another is better by more than two standard
    errors. The outcomes of rare thresholds would else choose by chance."""
    loss_N = {
        weight: _intercept_and_loss(link_N, outcome_N, family)[1]
        for weight, link_N in pooled.items()
    }
    best = min(loss_N, key=lambda weight: loss_N[weight].mean())
    if EQUAL not in loss_N or _is_better(loss_N[EQUAL] - loss_N[best]):
        return best
    return EQUAL


def _is_better(gain_N: Float) -> bool:
    """Whether a mean gain is more than two standard errors."""
    return bool(gain_N.mean() > SURE * gain_N.std() / np.sqrt(len(gain_N)))


def _intercept_and_loss(link_N: Float, outcome_N: Float, family: Family) -> tuple[float, Float]:
    """What is to be added to the links so that the outcomes' mean is met, and the losses then."""
    none = np.zeros((len(link_N), 0))
    intercept = fit_effects(none, [], outcome_N, None, family, link_N).intercept
    return intercept, family.loss(intercept + link_N, outcome_N)


def _slope(
    link_N: Float, outcome_N: Float, known_N: Bool, halves: tuple[Bool, Bool], family: Family
) -> float:
    """The slope of outcomes in the pooled links; 1 unless another foretells the other half of the users
    better by more than two standard errors."""
    better_N = np.zeros(len(link_N))
    for judged_N in halves:
        taught = known_N & ~judged_N
        if not taught.any():
            return 1.0
        sloped = fit_effects(link_N[taught, None], [], outcome_N[taught], None, family)
        intercept, _ = _intercept_and_loss(link_N[taught], outcome_N[taught], family)
        sloped_N = sloped.intercept + sloped.weight_F[0] * link_N
        gain_N = family.loss(intercept + link_N, outcome_N) - family.loss(sloped_N, outcome_N)
        better_N[judged_N] = gain_N[judged_N]
    if not _is_better(better_N[known_N]):
        return 1.0
    return float(
        fit_effects(link_N[known_N, None], [], outcome_N[known_N], None, family).weight_F[0]
    )


def _with_ages(
    joined: Particulars,
    certain: Outcomes,
    crossed: _Crossed,
    known_N: Bool,
    halves: tuple[Bool, Bool],
) -> Particulars:
    """The same with the share of what is particular that is left at each age: the one with which
    open entries are foretold best."""
    ages = ages_of(joined.signal.days)
    joined_N = joined.join(
        crossed.mean_N, np.zeros(len(certain)), crossed.log_amount_N, np.zeros(1), crossed.user_N
    )[0]
    loss_AW = np.zeros((len(ages), len(WEIGHTS)))
    for judged_N, other in zip(halves, crossed.standings, strict=True):
        rows = np.flatnonzero(judged_N & known_N)
        is_sampled_N = np.zeros(len(certain), dtype=bool)
        is_sampled_N[rows[:: len(rows) // AGE_ENTRIES + 1]] = True
        sampled = certain.where(is_sampled_N)
        key_N = other.index.rows(sampled.keys)
        for a, age in enumerate(ages.tolist()):
            observed_N = sampled.observed(age)
            seen_N = other.entries(key_N, sampled, observed_N)[0]
            open_N = np.isnan(decided(sampled, observed_N))
            moved_NW = joined.moved(
                seen_N[:, None],
                crossed.mean_N[is_sampled_N, None],
                joined_N[is_sampled_N, None],
                WEIGHTS[None, :],
            )
            loss_NW = (sampled.value[:, None] - moved_NW) ** 2
            loss_AW[a] += loss_NW[open_N].sum(axis=0)
    return replace(joined, ages=ages, age_weight_A=WEIGHTS[loss_AW.argmin(axis=1)])
