"""What a policy sees and says: contexts in, slates with exact log-probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.chance import RowChance, keyed_bits, keyed_uniform, mix
from longplay.errors import ConfigError, DataError
from longplay.frames import Column, as_lists, polars_series
from longplay.ids import ids_of
from longplay.index import ItemIndex, ranges
from longplay.lake.creators import named_events
from longplay.lake.lake import Lake
from longplay.lake.row_checks import RULES
from longplay.lake.schema import ENGAGED, conform, empty
from longplay.past import Met, Past

Rows = NDArray[np.int64]

CELLS = 5_000_000  # exclusions sorted at once: bounds memory
BESIDE = (
    "history_time",
    "history_kind",
    "history_surface",
)  # the event's, for each item of a history


@dataclass(frozen=True)
class Contexts:
    """N moments at which a slate is asked for; the columns of the lake's `contexts` table.

    `frame` holds one row per context: who, when, where, how many slots, what must not be shown
    (`exclusions`) and the history the policy may look at (item ids, oldest first, all of them
    before `history_until`). It is enough to recompute log-probabilities without the lake.

    `history_time`, `history_kind` and `history_surface`, of each item of the history, and `want`,
    the outcome that is asked for, are for policies that read them; null: not known.
    `exclusion_rule` is what made the exclusions, where whoever made the contexts states it: a
    policy that was trained under another one refuses them (see `check_rule`).

    Raises:
        DataError: a column that is unknown or missing, a value that cannot be (see
            `lake.row_checks`), or a column beside the history that is not as long.
    """

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", conform(self.frame, "contexts"))

    @classmethod
    def _checked(cls, frame: pl.DataFrame) -> Self:
        """Rows that were contexts before: selected, or changed in a column whose new values were
        checked."""
        contexts = object.__new__(cls)
        object.__setattr__(contexts, "frame", frame)
        return contexts

    def __len__(self) -> int:
        return self.frame.height

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
        ids: pl.Series | None = None,
        want: float | None = None,
        prompt: str | None = None,
        beside: pl.DataFrame | None = None,
        exclude: str | None = None,
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
            ids: names of the contexts; without them a context is user@time#row.
            want: the outcome that is asked for, in its signal's unit.
            prompt: words for a policy with a pretrained base ("quiet piano for reading").
            exclude: the rule that made the exclusions: "none", "seen" (items engaged with) or
                "creator" (all items of their creators); None: not stated.
            beside: some of the columns `history_time`, `history_kind`, `history_surface`: lists as
                long as each history.

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
        columns = {"history": history, "exclusions": exclusions, "ids": ids, "beside": beside}
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
                else ids
            ).alias("context_id"),
            pl.lit(surface).alias("surface"),
            pl.lit(slots, dtype=pl.Int32).alias("slots"),
            pl.lit(temperature, dtype=pl.Float64).alias("temperature"),
            pl.col("time").alias("history_until"),
            pl.lit(want, dtype=pl.Float64).alias("want"),
            pl.lit(prompt, dtype=pl.String).alias("prompt"),
            pl.lit(exclude, dtype=pl.String).alias("exclusion_rule"),
        )
        if beside is not None:
            frame = pl.concat(
                [frame, beside.select(name for name in BESIDE if name in beside.columns)],
                how="horizontal",
            )
        return cls(frame)

    @property
    def slots(self) -> int:
        """Slots per slate; contexts that are decided together ask for equally many."""
        counts = self.frame["slots"].unique()
        if len(counts) != 1:
            raise DataError(
                f"contexts: {len(counts)} different numbers of slots in one call; decide them apart"
            )
        return int(counts[0])

    def take(self, rows: NDArray[np.integer] | Sequence[int]) -> Contexts:
        """The contexts at these row numbers, in that order, repeats allowed."""
        return Contexts._checked(self.frame[np.asarray(rows)])

    def reading(self, most: int) -> Contexts:
        """The same contexts with no more than the last `most` items of their histories."""
        recent = [pl.col(name).list.tail(most) for name in ("history", *BESIDE)]
        return Contexts._checked(self.frame.with_columns(recent))

    def with_slots(self, slots: int) -> Contexts:
        """The same contexts with so many slots (>= 0)."""
        if slots < 0:
            raise DataError(f"with_slots: {slots} given, expected 0 or more")
        return Contexts._checked(self.frame.with_columns(slots=pl.lit(slots, dtype=pl.Int32)))

    def wanting(self, want: float | None) -> Contexts:
        """The same contexts asking for this outcome, in its signal's unit; None: for none."""
        if want is not None and not np.isfinite(want):
            raise DataError(
                f"wanting: {want} given, expected a number in the unit of the outcome, or None"
            )
        return Contexts._checked(self.frame.with_columns(want=pl.lit(want, dtype=pl.Float64)))

    def prompted(self, prompt: str | None) -> Contexts:
        """The same contexts with these words in front, for policies that read them; None:
        without."""
        return Contexts._checked(self.frame.with_columns(prompt=pl.lit(prompt, dtype=pl.String)))

    def at_temperature(self, temperature: float) -> Contexts:
        """The same contexts asking for slates at another temperature (> 0)."""
        if not (temperature > 0 and np.isfinite(temperature)):
            raise DataError(f"at_temperature: {temperature} given, expected a positive number")
        return Contexts._checked(self.frame.with_columns(temperature=pl.lit(float(temperature))))


@dataclass(frozen=True)
class Decisions:
    """Slates that were shown, one row per slate; the columns of the lake's `decisions` table.

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

    @classmethod
    def none(cls) -> Self:
        """No decisions."""
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


@runtime_checkable
class Policy(Protocol):
    """Anything that decides slates and can state the log-probability of a slate.

    `history` is the number of past item ids the policy wants to see in a context (0: none). Every
    policy of longplay keeps this contract (tests/test_policy_contract.py): no item twice in a
    slate, no excluded and no unavailable one; contexts without slots get empty slates; and where a
    slate cannot be filled, or an item is not in its catalogue, a `DataError` says so.
    """

    @property
    def name(self) -> str:
        """`name@version`: the version changes when any probability could."""
        ...

    @property
    def history(self) -> int:
        """Past item ids it wants to see in a context."""
        ...

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, drawn with `rng`, with exact log-probabilities."""
        ...

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S].

        -inf in the slot of an item that cannot be shown, and from the slot on that repeats an item.
        """
        ...


@runtime_checkable
class Adaptive(Protocol):
    """A policy that learns between decisions; a service (or the world) calls `adapt` once a day."""

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame) -> Policy:
        """The next version, after the catalogue became `items` and `events` arrived since the last
        call."""
        ...


@runtime_checkable
class Trained(Protocol):
    """A policy that was trained under a rule of exclusions, or holds policies that were."""

    @property
    def trained_under(self) -> Mapping[str, str]:
        """Policy name -> rule: seen, creator or none."""
        ...


def rules_of(policies: Iterable[object]) -> dict[str, str]:
    """The rules that these policies were trained under, by policy name; those without one are left
    out."""
    return {
        name: rule
        for policy in policies
        if isinstance(policy, Trained)
        for name, rule in policy.trained_under.items()
    }


def rule_words(policy: str, trained: str, deployed: str) -> str:
    """That a policy is deployed under another rule of exclusions than it was trained under, and
    what to do about it."""
    return (
        f"{policy} was trained under exclude={trained!r} and is deployed under "
        f"exclude={deployed!r}: it learned what to show where other items "
        "could be shown, so its value here can be quite another"
    )


def check_rule(policy: str, trained: str, allowed: str | None, contexts: Contexts) -> None:
    """Raise where contexts state another rule of exclusions than a policy was trained under.

    Args:
        policy: its name.
        trained: its rule.
        allowed: one more rule that it may be deployed under.
        contexts: what the policy is asked to decide.

    Raises:
        ConfigError: some contexts state a rule that is neither.
    """
    stated = contexts.frame["exclusion_rule"].drop_nulls().unique().sort().to_list()
    for rule in stated:
        if rule not in (trained, allowed):
            raise ConfigError(
                f"{rule_words(policy, trained, rule)}; make the contexts (or the world) with "
                f"exclude={trained!r}, train with exclude={rule!r}, "
                f"or say that it is meant: policy.under({rule!r})"
            )


def check_exclude(where: str, exclude: object) -> None:
    """Raise a ConfigError unless it is a rule of exclusions."""
    if exclude not in RULES:
        raise ConfigError(f"{where}: exclude={exclude!r} given, expected one of {', '.join(RULES)}")


@dataclass(frozen=True, eq=False)
class Frozen:
    """A policy as it is now: a world or a service does not let it adapt any further. What an
    experiment's control should be."""

    policy: Policy

    @property
    def name(self) -> str:
        """The policy's own name."""
        return self.policy.name

    @property
    def history(self) -> int:
        """Past item ids it wants to see in a context."""
        return self.policy.history

    @property
    def slate(self) -> int:
        """Slots a world or a service asks for by default."""
        return getattr(self.policy, "slate", 5)

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rule of exclusions that the policy was trained under, where it says so."""
        return rules_of([self.policy])

    @property
    def shorter(self) -> bool:
        """Whether the policy shows less than is asked for."""
        return getattr(self.policy, "shorter", False)

    @property
    def index(self) -> ItemIndex | None:
        """The policy's catalogue, where it says so."""
        return getattr(self.policy, "index", None)

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, with exact log-probabilities."""
        return self.policy.decide(contexts, rng)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S]."""
        return self.policy.log_prob(contexts, slates)


def check_one_each(contexts: Contexts, slates: pl.Series) -> None:
    """Raise a DataError unless there is one slate per context."""
    if len(slates) != len(contexts):
        raise DataError(
            f"log_prob: {len(contexts)} contexts but {len(slates)} slates; expected one each"
        )


def main_surface(decisions: pl.DataFrame) -> str:
    """The surface on which most slots were shown; ties by name. `decisions` must not be empty."""
    slots = decisions.group_by("surface").agg(pl.col("slate").list.len().sum().alias("slots"))
    return str(slots.sort("slots", "surface", descending=[True, False])["surface"][0])


# share of users from whom nothing is learned where slates were logged: no reward, no weights, no
# codes, no play counts
HELD_OUT = 0.2


def held_out(user_ids: pl.Series) -> NDArray[np.bool_]:
    """Which users are kept for off-policy estimates, shape [N]; a hash of the id alone, so it never
    changes."""
    return keyed_uniform("longplay: held out", user_ids) < HELD_OUT


def of_learners(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows (column user_id) of users who are not held out, in their order."""
    users = frame["user_id"].unique()
    learners = users.filter(pl.Series(~held_out(users), dtype=pl.Boolean)).to_frame()
    return frame.join(learners, on="user_id", how="semi", maintain_order="left")


def learners_events(lake: Lake) -> pl.DataFrame:
    """The events that whatever is judged off-policy may learn from: where slates were logged, those
    of users who are not held out; else all."""
    return lake.events if lake.decisions.is_empty() else of_learners(lake.events)


def learners_histories(
    lake: Lake, index: ItemIndex, possible: NDArray[np.bool_] | None = None
) -> tuple[pl.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """What each user engaged with, oldest first: events[E], offsets[U+1] and rows[E];
    `rows[offsets[u]:offsets[u+1]]` are user u's items.

    Only what may be learned from (`learners_events`), and only items of `index` that are
    `possible[I]`, default all; users without any are not there. Events at the same instant (the
    lines of one invoice) have no order: they stand in that of a hash of their ids, so that no
    catalogue order is learned.
    """
    events = learners_events(lake).filter(
        pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null()
    )
    events = events.with_columns(tie=pl.col("event_id").hash(seed=1)).sort("user_id", "time", "tie")
    row = index.rows(events["item_id"])
    kept = row >= 0
    if possible is not None:
        kept &= possible[np.maximum(row, 0)]
    events = events.filter(pl.Series(kept, dtype=pl.Boolean))
    count = events.group_by("user_id", maintain_order=True).len()["len"].to_numpy()
    return events, np.concatenate([[0], np.cumsum(count)]).astype(np.int64), row[kept]


def context_chance(contexts: Contexts, rng: np.random.Generator) -> RowChance:
    """A stream of random numbers per context, decided by `rng`'s next number and the context's id
    alone.

    So a policy's slate for a context does not depend on what else is in the batch; contexts with
    equal ids get equal slates within one call.
    """
    bits = keyed_bits("longplay: context", contexts.frame["context_id"])
    return RowChance(mix(bits ^ rng.integers(0, 2**64, dtype=np.uint64)))


def outside(
    prefix_NK: NDArray[np.integer], drawn_NS: NDArray[np.integer], want: int
) -> NDArray[np.integer]:
    """The first `want` items of each drawn slate that are not in its prefix, shape [N, want]; at
    least so many must be left.

    Drawing without replacement is skipping repeats of independent draws (Plackett-Luce). So
    skipping the prefix, too, leaves independent draws restricted to its complement: what remains
    follows the same law given that the prefix is taken, first p(a) / (1 - sum of p over the
    prefix). A slate longer than its prefix always leaves some.

    >>> outside(np.array([[1, 2]]), np.array([[2, 7, 1, 4]]), 2).tolist()
    [[7, 4]]
    """
    taken_NS = (drawn_NS[:, :, None] == prefix_NK[:, None, :]).any(axis=2)
    order_NS = np.argsort(
        taken_NS, axis=1, kind="stable"
    )  # those outside first, in the order they were drawn
    return np.take_along_axis(drawn_NS, order_NS, axis=1)[:, :want]


def contexts_from_log(
    lake: Lake,
    *,
    slots: int,
    history: int,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    seed: int = 0,
    exclude: str | None = None,
    surface: str = "home",
    learners: bool = False,
) -> Contexts:
    """Moments at which a logged user could have been shown a slate: the first event of each active
    user-day.

    Each context sees only events before its own time that had arrived by then. `exclude="seen"`
    forbids items the user already engaged with (`"creator"`: all items of creators already engaged
    with, `"none"`: nothing). A rule that is given is stated in the contexts, and a policy that was
    trained under another one refuses them; without one it is "seen", and not stated.

    Args:
        lake: the log.
        slots: slots per slate.
        history: most item ids of history kept.
        start: moments in [start, end); default the whole view.
        end: moments in [start, end); default the whole view.
        limit: at most this many, drawn by `seed` from all.
        seed: of the draw, where `limit` is given.
        exclude: `seen`, `creator` or `none`, as above; null: `seen`, not stated.
        surface: the contexts' surface.
        learners: leave out `held_out` users where the lake has decisions: for learning, so that
            off-policy estimates can be trusted.
    """
    moments = (
        lake.events.filter(pl.col("kind").is_in(ENGAGED))
        .group_by("user_id", pl.col("time").dt.date().alias("day"))
        .agg(pl.col("time").min())
    )
    if learners and not lake.decisions.is_empty():
        moments = of_learners(moments)
    if start is not None:
        moments = moments.filter(pl.col("time") >= start)
    if end is not None:
        moments = moments.filter(pl.col("time") < end)
    moments = moments.select("user_id", "time").sort("time", "user_id")
    if limit is not None and moments.height > limit:
        moments = moments[
            np.sort(np.random.default_rng(seed).choice(moments.height, limit, replace=False))
        ]
    if moments.is_empty():
        raise DataError("contexts_from_log: no user is active in the period; widen start and end")
    return contexts_at(
        lake, moments, slots=slots, history=history, exclude=exclude, surface=surface
    )


def first_engagements(lake: Lake) -> pl.DataFrame:
    """When each user first engaged with each item: columns user_id, item_id, time; in no order."""
    engaged = lake.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null())
    return engaged.group_by("user_id", "item_id").agg(pl.col("time").min())


def contexts_at(
    lake: Lake,
    moments: pl.DataFrame,
    *,
    slots: int,
    history: int,
    exclude: str | None = None,
    surface: str = "home",
) -> Contexts:
    """Contexts at the given `moments` (columns user_id, time), each seeing only events before its
    time that had arrived by then.

    See `contexts_from_log` for the other arguments. Memory: at most `history` items per context,
    and the exclusions, which are written out for every context.
    """
    rule = "seen" if exclude is None else exclude
    if rule not in RULES:
        raise DataError(f"contexts: exclude={exclude!r} given, expected one of {', '.join(RULES)}")
    columns = ["user_id", "item_id", "creator_id", "time", "ingested_at", "kind", "surface"]
    key = RULES[rule]
    logged = named_events(lake) if key == "creator_id" else lake.events
    events = (
        logged.filter(pl.col("kind").is_in(ENGAGED))
        .select(columns)
        .sort("user_id", "time", "item_id", maintain_order=True)
    )
    users = ItemIndex(events["user_id"].unique())
    moment_user_N = users.rows(moments["user_id"])
    order = np.argsort(users.rows(events["user_id"]), kind="stable")
    events = events[order]
    past = _past_of(events, users)
    moment_time_N = moments["time"].dt.epoch("us").to_numpy()
    with_item = events.filter(pl.col("item_id").is_not_null())
    offsets, rows = _past_of(with_item, users).last(moment_user_N, moment_time_N, history)
    recent = with_item[rows]
    beside = {
        "history_time": recent["time"],
        "history_kind": recent["kind"],
        "history_surface": recent["surface"],
    }
    return Contexts.of(
        moments["user_id"],
        moments["time"],
        slots=slots,
        history=as_lists("history", recent["item_id"], offsets),
        exclusions=_exclusions(lake, past, events, key, moment_user_N, moment_time_N),
        surface=surface,
        beside=pl.DataFrame([as_lists(name, values, offsets) for name, values in beside.items()]),
        exclude=exclude,
    )


def _past_of(events: pl.DataFrame, users: ItemIndex) -> Past:
    """Events that stand in the order of their users' rows and of their times."""
    time_E, arrived_E = (events[name].dt.epoch("us").to_numpy() for name in ("time", "ingested_at"))
    return Past(users.rows(events["user_id"]), time_E, arrived_E)


def _exclusions(
    lake: Lake, past: Past, events: pl.DataFrame, key: str | None, user_N: Rows, time_N: Rows
) -> pl.Series:
    """Items each moment forbids, in the order of their ids: of the keys (items, or creators with
    all their items) met by then; none without a key."""
    if key is None:
        return pl.Series("exclusions", [[]], dtype=pl.List(pl.String)).new_from_index(
            0, len(user_N)
        )
    keys = events[key].drop_nulls().unique().sort()
    works, first_work_K, works_K = _works(lake, keys, key)
    met = Met.of(past, ItemIndex(keys).rows(events[key]))
    first_N, count_N = met.by(user_N, time_N)
    parts = [pl.Series("exclusions", [], dtype=pl.List(pl.String))]
    for part_N in np.array_split(np.arange(len(user_N)), 1 + int(count_N.sum()) // CELLS):
        if not len(part_N):
            continue
        owner_M = np.repeat(np.arange(len(part_N)), count_N[part_N])
        # one number per moment and key, so that the keys of a moment come in the order of their ids
        sorted_M = np.sort(
            owner_M * len(keys) + met.key_P[ranges(first_N[part_N], count_N[part_N])]
        )
        owner_M, key_M = sorted_M // max(len(keys), 1), sorted_M % max(len(keys), 1)
        length_N = np.bincount(owner_M, weights=works_K[key_M], minlength=len(part_N)).astype(
            np.int64
        )
        items = works.gather(ranges(first_work_K[key_M], works_K[key_M]))
        parts.append(as_lists("exclusions", items, np.concatenate([[0], np.cumsum(length_N)])))
    return pl.concat(parts)


def _works(lake: Lake, keys: pl.Series, key: str) -> tuple[pl.Series, Rows, Rows]:
    """Items of each key: an item itself, or the catalogue's items of a creator.

    All of them, key by key, and for each key where its first one stands and how many it has.
    """
    if key == "item_id":
        return keys, np.arange(len(keys)), np.ones(len(keys), dtype=np.int64)
    works = lake.items.filter(pl.col("creator_id").is_in(keys.implode())).sort(
        "creator_id", "item_id"
    )
    creator_W = ItemIndex(keys).rows(works["creator_id"])
    first_K = np.searchsorted(creator_W, np.arange(len(keys) + 1))
    return works["item_id"], first_K[:-1], np.diff(first_K)
