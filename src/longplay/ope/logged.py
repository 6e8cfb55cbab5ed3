"""The log as an estimator needs it: mature slots of held-out users, and a policy's own choices in
them.

Axes: D decisions, M slots of all their slates (flat, slate by slate), N mature slots among these, S
slots of one slate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.arrays import Float, Int
from longplay.decisions import (
    HISTORY_COLUMNS,
    Contexts,
    Policy,
    Ranker,
    contexts_at,
    index_of,
    ope_users,
    outside,
    reads_users,
    showings_of,
    shown_before,
)
from longplay.errors import ConfigError, DataError
from longplay.frames import as_lists
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.signals.outcomes.in_memory import Shown

Users = Literal["held out", "all"]  # whose slots are scored

LAW_CELLS = 20_000_000  # probabilities of a policy's whole law held at once
CELLS = 5_000_000  # exclusions handed to a policy at once: bounds memory


@dataclass(frozen=True, eq=False)
class Logged:
    """Mature slots of the scored users, on one surface or on all, with their slates.

    Attributes:
        surface: where the slots were shown, or `every surface`.
        contexts: of the D decisions.
        lengths_D: slots of each.
        item_M: what was shown in them, flat, slate by slate.
        decision_N: of each mature slot, its row of `contexts` and its place in the slate.
        slot_N: of each mature slot, its row of `contexts` and its place in the slate.
        user_N: row of its user.
        reward_N: its outcome, and its logged propensity (NaN where none was logged).
        log_prob_N: its outcome, and its logged propensity (NaN where none was logged).
        late: items that came after the first decision, last first; the first `late_D` of them were
            not there yet.
        late_D: of each decision, how many items of `late` were not there yet, shape [D].
        shown: every item anybody was shown on the surface.
        decisions: how often anybody was shown anything there.
        immature: slots left out as their outcome is not known yet.
        missing: as the log lacks their context.
        users: whose slots these are: those of held-out users, or of all.
    """

    surface: str
    contexts: Contexts
    item_M: pl.Series
    lengths_D: Int
    decision_N: Int
    slot_N: Int
    user_N: Int
    reward_N: Float
    log_prob_N: Float
    late: pl.Series
    late_D: Int
    shown: pl.Series
    decisions: int
    immature: int
    missing: int
    users: Users = "held out"

    def __len__(self) -> int:
        return len(self.reward_N)

    @property
    def places(self) -> Int:
        """Position of each mature slot among all slots (`item_M`), shape [N]."""
        return (np.cumsum(self.lengths_D) - self.lengths_D)[self.decision_N] + self.slot_N

    @property
    def items(self) -> pl.Series:
        """The item shown in each mature slot, length N."""
        return self.item_M.gather(self.places)

    def contexts_in_parts(self, rows: Int, slots: int) -> Iterator[tuple[Int, Contexts]]:
        """The contexts of the decisions `rows` in parts, each with `slots` slots.

        Items that were not there yet are excluded: a policy is valued by what it could have shown
        then.
        """
        for part in np.array_split(rows, 1 + int(self.late_D[rows].sum()) // CELLS):
            frame = self.contexts.frame[part].with_columns(slots=pl.lit(slots, dtype=pl.Int32))
            count_R = self.late_D[part]
            if count_R.any():
                offsets = np.concatenate([[0], np.cumsum(count_R)])
                late = as_lists(
                    "late",
                    self.late.gather(np.arange(offsets[-1]) - np.repeat(offsets[:-1], count_R)),
                    offsets,
                )
                frame = frame.with_columns(exclusions=pl.concat_list("exclusions", pl.lit(late)))
            yield part, Contexts(frame)


def logged_slots(
    lake: Lake, shown: Shown, surface: str | None, users: Users = "held out"
) -> Logged:
    """The slots that may be scored: mature, on `surface`, of users for whom `ope_users` is true.

    Those who train learn from the other users, so that no policy is judged by outcomes it was
    fitted to.

    Args:
        lake: the log, with decisions and their propensities.
        shown: outcomes of the slots shown (`Outcomes.on`).
        surface: where; None: on every surface.
        users: "held out", or "all" for a policy that has learned nothing from this log.

    Raises:
        ConfigError: the log has decisions, but none on this surface; or `users` is neither.
        DataError: `shown` was not made from this lake's decisions.
    """
    if users not in get_args(Users):
        raise ConfigError(
            f"users={users!r} given, expected 'held out', or 'all' for a policy that has learned "
            "nothing from this log"
        )
    decisions = lake.decisions.select("decision_id", "context_id", "surface", "time", "slate")
    on_surface = decisions if surface is None else decisions.filter(pl.col("surface") == surface)
    if on_surface.is_empty() and decisions.height:
        surfaces = ", ".join(sorted(decisions["surface"].unique()))
        raise ConfigError(
            f"surface={surface!r} given, but the log's decisions are on {surfaces}; name one of "
            "these, or None for all"
        )
    rows = shown.frame.select("decision_id", "slot", "user_id", "item_id", "value", "log_prob")
    scored = rows["user_id"].unique().sort()
    if users == "held out":
        scored = scored.filter(pl.Series(ope_users(scored), dtype=pl.Boolean))
    rows = rows.join(scored.to_frame(), on="user_id", how="semi", maintain_order="left")
    foreign = rows.join(decisions.select("decision_id"), on="decision_id", how="anti").height
    if foreign:
        raise DataError(
            f"shown: {foreign:,} of {rows.height:,} slots are of decisions this lake does not "
            "hold; pass outcomes.on(lake.decisions)"
        )
    rows = rows.join(
        on_surface.select("decision_id"), on="decision_id", how="semi", maintain_order="left"
    )
    mature = rows.filter(pl.col("value").is_not_null())
    judged = on_surface.join(
        mature.select("decision_id").unique(), on="decision_id", how="semi", maintain_order="left"
    )
    with_context = judged.join(
        lake.contexts.select("context_id"), on="context_id", how="semi", maintain_order="left"
    ).with_row_index("decision")
    usable = mature.join(
        with_context.select("decision_id", "decision"),
        on="decision_id",
        how="inner",
        maintain_order="left",
    )
    contexts = with_context.select("context_id").join(
        lake.contexts, on="context_id", how="left", maintain_order="left"
    )
    lengths_D = with_context["slate"].list.len().to_numpy().astype(np.int64)
    late, late_D = _not_there_yet(lake, decisions, contexts["time"])
    logged = Logged(
        surface="every surface" if surface is None else surface,
        contexts=Contexts(contexts.select(lake.contexts.columns)),
        item_M=_flat(with_context["slate"]),
        lengths_D=lengths_D,
        decision_N=usable["decision"].to_numpy().astype(np.int64),
        slot_N=usable["slot"].to_numpy().astype(np.int64),
        user_N=ItemIndex(scored).rows(usable["user_id"]),
        reward_N=usable["value"].to_numpy().astype(float),
        log_prob_N=usable["log_prob"].to_numpy().astype(float),
        late=late,
        late_D=late_D,
        shown=_flat(on_surface["slate"]).unique(),
        decisions=on_surface.height,
        immature=rows.height - mature.height,
        missing=mature.height - usable.height,
        users=users,
    )
    if (logged.slot_N >= lengths_D[logged.decision_N]).any() or not logged.items.equals(
        usable["item_id"]
    ):
        raise DataError(
            "shown: its slots hold other items than this lake's slates; pass "
            "outcomes.on(lake.decisions)"
        )
    return logged


def _not_there_yet(lake: Lake, decisions: pl.DataFrame, time: pl.Series) -> tuple[pl.Series, Int]:
    """Items added after the first of these times, latest first, and how many of them were added
    after each time.

    An item that anybody was shown before its `added_at` was there: its date is that of a load, not
    of a release.
    """
    first = (
        decisions.select("time", pl.col("slate").alias("item_id"))
        .explode("item_id")
        .group_by("item_id")
        .agg(pl.col("time").min())
    )
    items = lake.items.select("item_id", "added_at").join(first, on="item_id", how="left")
    was_listed = pl.col("added_at") <= pl.lit(time.min(), dtype=TIME)
    late = items.filter(
        ~was_listed & (pl.col("time").is_null() | (pl.col("time") >= pl.col("added_at")))
    )
    late = late.sort("added_at", "item_id", descending=[True, False])
    added = late["added_at"].dt.epoch("us").to_numpy()[::-1]
    return late["item_id"], late.height - np.searchsorted(
        added, time.dt.epoch("us").to_numpy(), side="right"
    )


def as_seen_by(policy: Policy, logged: Logged, lake: Lake) -> Logged:
    """The same slots with the histories that this policy would have received, and with what was shown
    and what was known of users where it reads that.

    A logger that reads no history logs none; a policy that wants `history` items gets the user's
    last ones before `history_until`, from the lake, wherever these are more than were logged. Past
    showings and descriptions of users come from the lake where none were logged. What is known before
    a slate is drawn may differ between the two laws: the weights stay right. Surface, exclusions and
    temperature stay as logged.
    """
    if not len(logged):
        return logged
    contexts = logged.contexts
    if reads_users(policy):
        contexts = contexts.known_from(lake)
    showings = showings_of(policy)
    if showings > 0 and not lake.decisions.is_empty():
        frame = contexts.frame
        shown, shown_time = shown_before(lake, frame["user_id"], frame["time"], showings)
        is_logged = pl.col("shown").is_not_null()
        contexts = Contexts(
            frame.with_columns(
                shown=pl.when(is_logged).then("shown").otherwise(shown),
                shown_time=pl.when(is_logged).then("shown_time").otherwise(shown_time),
            )
        )
    logged = replace(logged, contexts=contexts)
    if policy.history < 1:
        return logged
    frame = contexts.frame
    moments = frame.select("user_id", pl.col("history_until").alias("time"))
    log_history = contexts_at(lake, moments, slots=1, history=policy.history, exclude="none").frame
    log_history = log_history.select("history", *HISTORY_COLUMNS).select(
        pl.all().name.prefix("known_")
    )
    more = pl.col("known_history").list.len() > pl.col("history").list.len()
    fuller = pl.concat([frame, log_history], how="horizontal").with_columns(
        pl.when(more).then(f"known_{name}").otherwise(name).alias(name)
        for name in ("history", *HISTORY_COLUMNS)
    )
    return replace(logged, contexts=Contexts(fuller.select(frame.columns)))


def slot_log_prob(policy: Policy, logged: Logged) -> tuple[Float, NDArray[np.bool_]]:
    """log pi(item | context, slots before it) of every slot of the logged slates, and whether the
    policy knows the item; both [M].

    An item outside the policy's catalogue (its `index`) has probability 0 and, standing in a
    prefix, takes nothing from the mass left: the slate without it is asked for. Slates are asked
    for in groups of one length.
    """
    item_M = logged.item_M
    lengths_D = logged.lengths_D
    index = index_of(policy)
    if index is not None and len(item_M):
        in_catalogue_M = index.rows(item_M) >= 0
    else:
        in_catalogue_M = np.ones(len(item_M), dtype=bool)
    decision_M = np.repeat(np.arange(len(lengths_D)), lengths_D)
    in_catalogue_D = np.bincount(decision_M[in_catalogue_M], minlength=len(lengths_D))
    start_D = np.cumsum(in_catalogue_D) - in_catalogue_D
    catalogue_rows = np.flatnonzero(in_catalogue_M)  # slate by slate
    log_prob_M = np.full(len(item_M), -np.inf)
    for length in np.unique(in_catalogue_D[in_catalogue_D > 0]):
        for rows, contexts in logged.contexts_in_parts(
            np.flatnonzero(in_catalogue_D == length), int(length)
        ):
            places = catalogue_rows[start_D[rows][:, None] + np.arange(length)]
            slates = item_M.gather(places.ravel()).reshape((-1, int(length))).arr.to_list()
            log_prob_M[places] = policy.log_prob(contexts, slates.alias("slate"))
    return log_prob_M, in_catalogue_M


def own_slates(
    policy: Policy, logged: Logged, rng: np.random.Generator, chosen: Int
) -> tuple[pl.Series, Float]:
    """One slate of the policy for each of the decisions `chosen`, as long as the logged one: items
    and log-probabilities, flat.

    Raises:
        DataError: the policy returned other contexts, or other lengths, than it was given.
    """
    length_R = logged.lengths_D[chosen]
    start_R = np.cumsum(length_R) - length_R
    parts = [pl.Series([], dtype=pl.String)]
    places = [np.zeros(0, dtype=np.int64)]
    log_prob = [np.zeros(0)]
    for length in np.unique(length_R[length_R > 0]):
        same = np.flatnonzero(length_R == length)
        for _, contexts in logged.contexts_in_parts(chosen[same], int(length)):
            decisions = policy.decide(contexts, rng)
            if (
                not decisions.frame["context_id"].equals(contexts.frame["context_id"])
                or not (decisions.slates.list.len() == length).all()
            ):
                raise DataError(
                    f"{policy.name}: its decisions are not one slate of {length} slots per "
                    "context in the contexts' order; see Policy.decide"
                )
            parts.append(_flat(decisions.slates))
            log_prob.append(decisions.log_prob.ravel())
        places.append((start_R[same][:, None] + np.arange(length)).ravel())
    order = np.argsort(np.concatenate(places))
    return pl.concat(parts).gather(order), np.concatenate(log_prob)[order]


def own_choices(
    policy: Policy, logged: Logged, rng: np.random.Generator, chosen: Int | None = None
) -> tuple[pl.Series, Float]:
    """One draw a ~ pi(. | context, logged prefix) for every slot of the decisions `chosen` (default
    all), flat, slate by slate.

    And log pi(a | context) of the first slot's draw, one per decision. The draw is exact for
    policies that fill slates without replacement from one item law per context (Plackett-Luce), as
    every policy of longplay does; see `decisions.outside`.
    """
    chosen = np.arange(len(logged.lengths_D)) if chosen is None else chosen
    drawn_M, log_prob_M = own_slates(policy, logged, rng, chosen)
    length_R = logged.lengths_D[chosen]
    start_R = np.cumsum(length_R) - length_R
    logged_M = logged.item_M.gather(
        np.repeat((np.cumsum(logged.lengths_D) - logged.lengths_D)[chosen] - start_R, length_R)
        + np.arange(len(drawn_M))
    )
    codes = ItemIndex(pl.concat([logged_M, drawn_M]).unique())
    logged_row_M = codes.rows(logged_M)
    drawn_row_M = codes.rows(drawn_M)
    choice_M = np.empty(len(drawn_M), dtype=np.int64)
    length_M = np.repeat(length_R, length_R)
    for length in np.unique(length_R):
        places = np.flatnonzero(length_M == length)
        logged_RS = logged_row_M[places].reshape(-1, length)
        drawn_RS = drawn_row_M[places].reshape(-1, length)
        choice_M[places] = np.column_stack(
            [outside(logged_RS[:, :slot], drawn_RS, 1) for slot in range(length)]
        ).ravel()
    return codes.ids.gather(choice_M), log_prob_M[start_R[length_R > 0]]


def own_law(policy: Ranker, logged: Logged) -> Float:
    """pi(item | context, logged prefix) of every mature slot and every item of the policy's
    `index`, shape [N, I].

    Exact for policies that fill slates without replacement from one item law per context, as every
    policy of longplay does: what is left after a prefix keeps its proportions.

    Raises:
        ConfigError: more than `LAW_CELLS` numbers.
    """
    cells = len(logged) * len(policy.index)
    if cells > LAW_CELLS:
        size = f"{len(logged):,} slots of {len(policy.index):,} items are {cells:,} probabilities"
        raise ConfigError(f"draws=None given, but {size}; give draws, e.g. 4")
    item_M = policy.index.rows(logged.item_M)
    law_NI = np.zeros((len(logged), len(policy.index)))
    first_D = np.cumsum(logged.lengths_D) - logged.lengths_D
    slots_of_D = np.argsort(logged.decision_N, kind="stable")
    bounds_D = np.searchsorted(logged.decision_N[slots_of_D], np.arange(len(logged.lengths_D) + 1))
    for length in np.unique(logged.lengths_D[logged.lengths_D > 0]):
        for rows, contexts in logged.contexts_in_parts(
            np.flatnonzero(logged.lengths_D == length), int(length)
        ):
            p_RI = np.exp(policy.item_log_prob(contexts))
            for row, decision in enumerate(rows):
                for n in slots_of_D[bounds_D[decision] : bounds_D[decision + 1]]:
                    prefix = item_M[first_D[decision] : first_D[decision] + logged.slot_N[n]]
                    left_I = p_RI[row].copy()
                    left_I[prefix[prefix >= 0]] = 0.0
                    law_NI[n] = left_I / max(left_I.sum(), np.finfo(float).tiny)
    return law_NI


def _flat(lists: pl.Series) -> pl.Series:
    return lists.explode(empty_as_null=False) if len(lists) else pl.Series([], dtype=pl.String)
