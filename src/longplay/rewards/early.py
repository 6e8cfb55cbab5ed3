"""Early rewards: what every belief model can do, and the code they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import polars as pl

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.decisions import Contexts, Decisions, of_learners, ope_users
from longplay.display import facts_html
from longplay.errors import ConfigError, DataError, NotEstimable
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.lake.storage import MemoryStore
from longplay.progress import Progress, reporting
from longplay.rewards.entry_fit import check_known
from longplay.rewards.showing import LakeView, Refined, Showing, worth, worth_of_slate
from longplay.rewards.showing_fit import fit_showing
from longplay.signals.declare.checks import described
from longplay.signals.declare.declaration import Declaration
from longplay.signals.outcomes.in_memory import Outcomes, check_lake, slates_of
from longplay.signals.signal import Signal

MAX_COUNTS = 10  # thresholds of up to so many days are looked at count by count
# mature entries that are surely entries, below which the doubtful ones are better than none
LEAST_CERTAIN = 1_000


# The models of showing that were fitted last. The early rewards of a signal share theirs: it does not
# depend on how beliefs are formed.
KEPT = 2
_FITTED: dict[tuple[object, ...], tuple[Showing, object]] = {}


@runtime_checkable
class EarlyReward(Protocol):
    """Protocol of early rewards: estimates of a signal's outcomes before they mature. Methods
    return new values; nothing changes in place."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    @property
    def signal(self) -> Signal:
        """The signal whose outcomes are estimated."""
        ...

    def fit(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        decisions: Decisions | pl.DataFrame | None = None,
    ) -> Self:
        """The model with a prior estimated from mature entries, and posteriors from all entries."""
        ...

    def observe(self, outcomes: Outcomes, age: int | None = None) -> Self:
        """The nightly update: the same prior, with item posteriors recomputed from `outcomes`."""
        ...

    def items(self, ids: pl.Series) -> Belief:
        """The expected outcome of a new entry about each item or creator."""
        ...

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        """The expected outcome of each entry given its own first `age` days."""
        ...

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        """The value of showing each slot, [N, S]."""
        ...

    @property
    def association(self) -> bool:
        """Whether `value` is an association, not an effect, because the log does not say what was
        shown."""
        ...


@runtime_checkable
class ValuesItems(Protocol):
    """Protocol of early rewards that know the value of showing the whole catalogue at once."""

    def item_value(self, contexts: Contexts, items: pl.Series, lake: Lake) -> Belief:
        """The value of showing each of these items alone in the first slot, [N, I]."""
        ...


@dataclass(frozen=True)
class Learnt:
    """The mature entries that a model learnt its prior from.

    Attributes:
        mature: how many mature entries had something to teach.
        truncated: how many of these are truncated: so near the log's begin that a "first touch" may
            be an old habit.
        keeps: whether truncated ones were learnt from all the same, because fewer than
            `LEAST_CERTAIN` others are mature.

    >>> print(Learnt(mature=2_400, truncated=400, keeps=False))
    learnt from 2,000 mature entries; 400 truncated ones left out
    >>> print(Learnt(mature=900, truncated=400, keeps=True))
    learnt from 900 mature entries, 400 of them truncated: kept, because only 500 others are mature, fewer than 1,000
    """

    mature: int
    truncated: int
    keeps: bool

    def __str__(self) -> str:
        if not self.truncated:
            return f"learnt from {self.mature:,} mature entries"
        certain = self.mature - self.truncated
        if not self.keeps:
            return (
                f"learnt from {certain:,} mature entries; {self.truncated:,} truncated ones "
                "left out"
            )
        return (
            f"learnt from {self.mature:,} mature entries, {self.truncated:,} of them truncated: "
            f"kept, because only {certain:,} others are mature, "
            f"fewer than {LEAST_CERTAIN:,}"
        )


class ItemBeliefs(Protocol):
    """A model's beliefs about every item at one moment. Row -1 is the prior, for unknown items."""

    @property
    def index(self) -> ItemIndex:
        """The keys (items, creators or users) that beliefs are about."""
        ...

    @property
    def noise_std(self) -> float:
        """Std of single outcomes around their item's mean."""
        ...

    def observe(self, outcomes: Outcomes, observed_N: Int) -> ItemBeliefs:
        """The same prior, with posteriors from the first `observed_N` days of each of these
        entries."""
        ...

    def items(self) -> tuple[Float, Float]:
        """Mean and std of the expected outcome, each [I + 1]; the prior is last."""
        ...

    def entries(
        self, row_N: Int, outcomes: Outcomes, observed_N: Int
    ) -> tuple[Float, Float, Float]:
        """Mean and std of the expected outcome, and std of the remaining noise, each [N]."""
        ...


@dataclass(frozen=True, eq=False)
class EarlyModel(ABC):
    """Base class of early rewards. Subclasses define `_learn`; fitting, look-ups and clipping are
    shared.

    Attributes:
        signal: what is believed in.
        standing: what was learned; null before `fit`.
        showing: the model of showing; null before `fit`.
        spares: whether held-out users' entries are left out, because slates were logged: off-policy
            estimates score these users, and what rewards a policy must not know their outcomes.
        learnt: which entries the prior was learnt from, and whether truncated ones had to be; null
            before `fit`.
        knows: what the service knows and the model may read: "users" and "items", whose vectors are
            in the lake's tables. Default: nothing, so the log alone.
        name: what reports call it.
    """

    signal: Signal
    standing: ItemBeliefs | None = field(default=None, repr=False)
    showing: Showing | None = field(default=None, repr=False)
    spares: bool = False
    learnt: Learnt | None = None
    knows: tuple[str, ...] = ()
    _catalogue: dict[int, tuple[object, Float, Float, Float]] = field(
        default_factory=dict, init=False, repr=False
    )

    name: ClassVar[str]
    shares_showing: ClassVar[bool] = True  # False: `_with_particulars` fits a model of showing

    def __post_init__(self) -> None:
        if not isinstance(cast(object, self.signal), Signal):
            raise ConfigError(
                f"{self.name}: signal={described(self.signal)} given, expected a Signal"
            )
        check_known(self.knows)

    @abstractmethod
    def _learn(self, outcomes: Outcomes) -> ItemBeliefs:
        """The prior, estimated from outcomes that are all mature and have a key."""

    def fit(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        decisions: Decisions | pl.DataFrame | None = None,
        *,
        progress: Progress = None,
    ) -> Self:
        """The fitted model: a prior from mature entries, and items' posteriors from all entries (of
        immature ones, from the days observed).

        Left-truncated entries teach nothing of outcomes, unless fewer than 1,000 certain ones are
        mature: then they are kept, and `learnt` and the printed model say so (see
        `certain_entries`). That a slot led to one still counts. Where slates were logged, users for
        whom `decisions.ope_users` is true are left out of everything: they are kept for off-policy
        estimates, which would flatter a policy whose reward knew their outcomes.

        Args:
            lake: where the showing model is fitted, as of `outcomes.as_of`; null: beliefs only, no
                `value`.
            outcomes: of the signal, immature ones included.
            decisions: what was shown; default the lake's own decisions. Without any, `value` is an
                association.
            progress: called with (steps done, steps); True or False: a line that says how far it
                is, or none; default: a line on a terminal or in a notebook.

        Raises:
            NotEstimable: no entry is mature yet.
            ConfigError: outcomes of another signal.
        """
        self._check_fit(lake, outcomes)
        with reporting(f"fitting the {self.name} reward", "parts", progress) as tell:
            return self._fit(lake, outcomes, decisions, tell)

    def _fit(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        """See `fit`. Its three parts are the value of showing, the prior and the beliefs."""
        source = (None if lake is None else lake.key, id(outcomes))
        held = (lake, outcomes)  # so that nothing else is called by their ids
        spares = (
            lake is not None
            and not (lake.decisions if decisions is None else _frame(decisions)).is_empty()
        )
        if lake is not None and spares:
            lake = _lake_of_learners(lake, outcomes.as_of)
            outcomes = _learning(outcomes)
            decisions = None if decisions is None else of_learners(_frame(decisions))
        certain = certain_entries(outcomes)
        usable_N = certain.known & certain.keys.is_not_null().to_numpy()
        if not usable_N.any():
            aside = " (held-out users aside)" if spares else ""
            raise NotEstimable(
                f"{self.name}: none of {len(outcomes):,} entries of {self.signal.label}{aside} is "
                f"mature at {outcomes.as_of:%Y-%m-%d}, so there is "
                f"no past to learn from; wait until {self.signal.window[1] + 1} days after the "
                "first entries, or shorten the window"
            )
        showing = None
        if lake is not None and self.shares_showing:
            key = (*source, self.signal.version, self.knows)
            showing = _FITTED.get(key, (None,))[0]
            if showing is None or decisions is not None:
                showing = fit_showing(self.signal, lake, outcomes, decisions, self.knows)
            if decisions is None:
                _FITTED[key] = (showing, held)
                while len(_FITTED) > KEPT:
                    _FITTED.pop(next(iter(_FITTED)))
        tell(1, 3)
        standing = self._learn(certain.where(usable_N))
        tell(2, 3)
        fitted = replace(
            self,
            standing=standing,
            showing=showing,
            spares=spares,
            learnt=_learnt(outcomes, certain),
        )
        return fitted._with_particulars(lake, outcomes, certain, decisions, tell).observe(certain)

    def _with_particulars(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        """The model with what it learns besides beliefs: here nothing.

        Args:
            lake: without held-out users; null: none.
            outcomes: of all entries, immature and truncated ones included.
            certain: those of them that teach what entries come to.
            decisions: see `fit`.
            tell: called with steps done and steps, by models that take long.
        """
        return self

    def _refined(self, contexts: Contexts, view: LakeView, lake: Lake) -> Refined | None:
        """What else the model knows of the chance of a play, given that of the model of showing: here
        nothing."""
        return None

    def __str__(self) -> str:
        return (
            f"{self.name} of {self.signal.label}: "
            f"{'not fitted' if self.learnt is None else self.learnt}"
        )

    def _repr_html_(self) -> str:
        facts = {"signal": f"{self.signal} ({self.signal.label})"}
        if self.learnt is None:
            return facts_html(f"{self.name} reward, not fitted", facts)
        facts["learnt"] = str(self.learnt)
        keys = 0 if self.standing is None else len(self.standing.index)
        facts["beliefs"] = f"about {keys:,} {self.signal.entry.of or 'user'}s"
        facts["value of showing"] = (
            "not fitted: the log has no decisions" if self.showing is None else "fitted"
        )
        return facts_html(f"{self.name} reward", facts)

    def observe(self, outcomes: Outcomes, age: int | None = None) -> Self:
        """The model with item posteriors from these outcomes alone, each entry seen for min(days
        observed, age) days.

        The prior stays. What an immature entry has already reached is not counted ahead of its
        time: counting early only the positives would flatter every item. Held-out users' entries
        are left out if `fit` left them out.
        """
        self._check(outcomes)
        outcomes = self._heard(outcomes)
        return replace(self, standing=self._fitted().observe(outcomes, outcomes.observed(age)))

    def _heard(self, outcomes: Outcomes) -> Outcomes:
        """The entries that may be learnt from."""
        return _learning(outcomes) if self.spares else outcomes

    def items(self, ids: pl.Series) -> Belief:
        """Beliefs about a *new* entry on each id (the signal's entry key), [N]; unknown ids get the
        prior."""
        standing = self._fitted()
        row_N = standing.index.rows(ids)
        mean_I, std_I = standing.items()
        noise_N = np.full(len(row_N), standing.noise_std)
        return self._finish(
            mean_I[row_N],
            std_I[row_N],
            noise_N,
            -1,
            pl.DataFrame({f"{self.signal.entry.of or 'user'}_id": ids}),
        )

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        """Beliefs about each entry given its first min(age, days observed) days and its item's
        posterior, [N].

        Meant for entries that are *not* among those observed: an entry that is has been heard
        twice. What its prefix decides is certain (std and spread 0): a window that has closed, a
        threshold already reached, or one that the days left cannot reach any more. `age=0` equals
        `items`.
        """
        self._check(outcomes)
        if age < 0:
            raise ConfigError(f"belief: age={age} given, expected days >= 0")
        standing = self._fitted()
        observed_N = outcomes.observed(age)
        row_N = standing.index.rows(outcomes.keys)
        mean_N, std_N, noise_N = standing.entries(row_N, outcomes, observed_N)
        of = self.signal.entry.of
        keys = outcomes.frame.select("user_id", *([f"{of}_id"] if of else []), "time")
        open_belief = self._finish(mean_N, std_N, noise_N, age, keys)
        certain_N = decided(outcomes, observed_N)
        is_decided_N = ~np.isnan(certain_N)
        return replace(
            open_belief,
            mean=np.where(is_decided_N, certain_N, open_belief.mean),
            std=np.where(is_decided_N, 0.0, open_belief.std),
            spread=np.where(is_decided_N, 0.0, open_belief.spread),
        )

    @property
    def association(self) -> bool:
        """Whether `value` is an association, not an effect, because the lake logged no
        decisions."""
        return self._shown().association

    def value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        """The value of showing each slot, [N, S]; see `rewards.showing`.

        Args:
            contexts: N of them.
            slates: list series of item ids, equally long.
            lake: where familiarity is looked up, strictly before each context's time.
        """
        return self._slots(contexts, slates, lake)[1]

    def slate_value(self, contexts: Contexts, slates: pl.Series, lake: Lake) -> Belief:
        """The value of showing each whole slate, [N]: the sum of its slots' values, later slots given
        the earlier ones; for pages and playlists.

        Beliefs about different creators (or items) are independent, those about slots of the same one
        are the same belief: `std` adds up within a creator, its square over creators.

        Args:
            contexts: N of them.
            slates: list series of item ids, equally long.
            lake: as in `value`.
        """
        return worth_of_slate(*self._slots(contexts, slates, lake))

    def _slots(
        self, contexts: Contexts, slates: pl.Series, lake: Lake
    ) -> tuple[Int, Belief, Float]:
        """Of each slot of slates the row of its creator (or item), its value, and what its entries come
        to: chance x mean; each [N, S]."""
        showing = self._shown()
        view = showing.view(lake)
        row_NS, chance_NS, gain_NS = showing.gain(
            contexts, slates, view, self._refined(contexts, view, lake)
        )
        mean_NS, std_NS, spread_NS = self._given_entry(contexts, row_NS, view, lake)
        value = worth(
            gain_NS,
            chance_NS,
            mean_NS,
            std_NS,
            spread_NS,
            most_possible(self.signal),
            self.signal.label,
        )
        return np.append(view.index.key_row_I, -1)[row_NS], value, chance_NS * mean_NS

    def item_value(self, contexts: Contexts, items: pl.Series, lake: Lake) -> Belief:
        """The value of showing each item alone in the first slot, [N, I]: for rankers, which look at
        the whole catalogue at every visit.

        Args:
            contexts: N of them.
            items: I item ids.
            lake: where familiarity, earlier showings and tastes are looked up, strictly before each
                context's time.

        Raises:
            ConfigError: the signal's entries are about users.
        """
        showing = self._shown()
        view = showing.view(lake)
        row_I = view.index.items.rows(items)
        chance_NI, gain_NI = showing.catalogue_gain(
            contexts, view, row_I, self._refined(contexts, view, lake)
        )
        row_NI = np.broadcast_to(row_I, chance_NI.shape)
        mean_NI, std_NI, spread_NI = self._given_entry(contexts, row_NI, view, lake)
        return worth(
            gain_NI,
            chance_NI,
            mean_NI,
            std_NI,
            spread_NI,
            most_possible(self.signal),
            self.signal.label,
        )

    def _given_entry(
        self, contexts: Contexts, row_NS: Int, view: LakeView, lake: Lake
    ) -> tuple[Float, Float, Float]:
        """Mean, std and spread of the outcome given an entry through each slot, each [N, S]: here
        the belief about the slot's item or creator.

        Args:
            contexts: N of them.
            row_NS: catalogue rows of the slots' items in `view`, -1 unknown.
            view: look-ups of the lake.
            lake: what is known at the contexts' times.
        """
        mean_I, std_I, spread_I = self._by_item(view)
        return mean_I[row_NS], std_I[row_NS], spread_I[row_NS]

    def _by_item(self, view: LakeView) -> tuple[Float, Float, Float]:
        """Beliefs about an entry through each of the lake's items, and last through unknown ones."""
        beliefs = self._catalogue.get(id(view))
        if beliefs is None:  # kept with the view, so that its id is not used again
            belief = self.items(view.index.key_ids_I.extend_constant(None, 1))
            self._catalogue.clear()
            beliefs = self._catalogue[id(view)] = (view, belief.mean, belief.std, belief.spread)
        return beliefs[1:]

    def _finish(
        self, mean_N: Float, std_N: Float, noise_N: Float, age: int, keys: pl.DataFrame
    ) -> Belief:
        most = most_possible(self.signal)
        mean_N = np.clip(mean_N, 0.0, most)
        spread_N = (
            np.maximum(np.sqrt(mean_N * (1 - mean_N)), std_N)
            if self.signal.binary
            else np.sqrt(std_N**2 + noise_N**2)
        )
        return Belief(mean_N, std_N, spread_N, age, self.signal.label, 0.0, keys, maximum=most)

    def _check_fit(self, lake: object, outcomes: object) -> None:
        if isinstance(lake, Outcomes) and (outcomes is None or isinstance(outcomes, Lake)):
            raise ConfigError(
                f"{self.name}: fit(outcomes, lake) given, expected fit(lake, outcomes): the lake "
                "first, or null"
            )
        if lake is not None:
            check_lake(f"{self.name}: fit(lake, outcomes)", lake)
        if not isinstance(outcomes, Outcomes):
            raise ConfigError(
                f"{self.name}: fit(lake, outcomes) with {described(outcomes)} as outcomes given, "
                f"expected {self.signal.name}.outcomes(lake)"
            )
        self._check(outcomes)

    def _check(self, outcomes: Outcomes) -> None:
        if not isinstance(cast(object, outcomes), Outcomes):
            raise ConfigError(
                f"{self.name}: {described(outcomes)} given, expected outcomes: "
                f"{self.signal.name}.outcomes(lake)"
            )
        if not self.signal.additive:
            raise ConfigError(
                f"{self.name}: {self.signal.label} is no sum of days, so what has been seen of it "
                "does not add up; give a signal of days, minutes or "
                "counts, without ratio or baseline"
            )
        if outcomes.signal.version != self.signal.version:
            raise ConfigError(
                f"{self.name}: outcomes of {outcomes.signal.label} given to a model of "
                f"{self.signal.label}; compute {self.signal.name}.outcomes(lake)"
            )

    def _fitted(self) -> ItemBeliefs:
        if self.standing is None:
            raise DataError(
                f"{self.name}: not fitted; call fit(lake, outcomes) first and use what it returns"
            )
        return self.standing

    def _shown(self) -> Showing:
        self._fitted()
        if self.showing is None:
            raise DataError(
                f"{self.name}: fitted without a lake, so there is no model of showing; call "
                "fit(lake, outcomes)"
            )
        return self.showing


def _frame(decisions: Decisions | pl.DataFrame) -> pl.DataFrame:
    return slates_of("fit", decisions)


def _learning(outcomes: Outcomes) -> Outcomes:
    """The entries of users who are not held out."""
    return outcomes.where(~ope_users(outcomes.frame["user_id"]))


def _lake_of_learners(lake: Lake, as_of: datetime) -> Lake:
    """The lake as it was known at `as_of`, with the rows of users who are not held out, and all
    items."""
    view = lake.before(as_of)
    store = MemoryStore()
    tables = {"events": view.events, "decisions": view.decisions, "contexts": view.contexts}
    tables["users"] = view.descriptions("users")
    store.commit(
        "learners",
        {name: of_learners(table) for name, table in tables.items()} | {"items": view.items},
        view.watermark,
    )
    return Lake(store)


def _learnt(outcomes: Outcomes, certain: Outcomes) -> Learnt:
    teaches = pl.Series(outcomes.mature) & outcomes.keys.is_not_null()
    unsure = int((teaches & outcomes.frame["truncated"]).sum())
    return Learnt(int(teaches.sum()), unsure, keeps=unsure > 0 and len(certain) == len(outcomes))


def certain_entries(outcomes: Outcomes) -> Outcomes:
    """The entries that are not left-truncated; all of them where fewer than `LEAST_CERTAIN` mature
    ones would remain.

    In a log's first weeks a "first touch" is often an old habit, which goes on at once: on the
    retail log the discoveries of the first two months become habits half as often again as those of
    the four months after (.075, .052).
    """
    certain = outcomes.certain()
    return certain if int(certain.known.sum()) >= LEAST_CERTAIN else outcomes


def most_possible(signal: Signal) -> float:
    """The largest value the outcome can take: 1, the days of the window, or infinity."""
    if signal.binary:
        return 1.0
    return float(signal.days) if signal.measure.counts_days else np.inf


def counts_below(signal: Declaration) -> int:
    """Number of counts 0 .. n - 1 below a threshold of n days; 0 where the threshold is not of
    days, or is more than 10."""
    if signal.threshold is None or not signal.measure.counts_days or signal.threshold > MAX_COUNTS:
        return 0
    return int(np.ceil(signal.threshold))


def sum_by(row_N: Int, amount_N: Float, n: int) -> Float:
    """Sum of the amounts of each row 0 .. n - 1, [n]."""
    return np.bincount(row_N, weights=amount_N, minlength=n).astype(float)


def prefix_hits(outcomes: Outcomes, observed_N: Int) -> tuple[Int, Int, Float]:
    """Row, day of the window and amount of every hit within the entries' observed days.

    The day in progress at `as_of` may have hits already; it has not closed, so it does not count.
    """
    row, day, amount = outcomes.hits
    keep = day < observed_N[row]
    return row[keep], day[keep], amount[keep]


def decided(outcomes: Outcomes, observed_N: Int) -> Float:
    """The outcome of each entry that is already decided by its observed days, else NaN, [N]."""
    signal = outcomes.signal
    row, _, amount = prefix_hits(outcomes, observed_N)
    total_N = sum_by(row, amount, len(outcomes))
    left_N = signal.days - observed_N
    if signal.threshold is None:
        return np.where(left_N == 0, total_N, np.nan)
    reached_N = total_N >= signal.threshold - 1e-9
    hopeless_N = (
        (total_N + left_N < signal.threshold - 1e-9) if signal.measure.counts_days else left_N == 0
    )
    return np.where(reached_N, 1.0, np.where(hopeless_N, 0.0, np.nan))
