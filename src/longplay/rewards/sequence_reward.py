"""The early reward that reads users' histories: a sequence model over personal beliefs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
import polars as pl
from scipy import special

from longplay.arrays import Float, Int
from longplay.belief import Belief
from longplay.chance import keyed_uniform
from longplay.decisions import Contexts, Decisions
from longplay.errors import ConfigError, MissingExtra
from longplay.lake.lake import Lake
from longplay.rewards.early import prefix_hits, sum_by
from longplay.rewards.entry_chance import Scaling
from longplay.rewards.particulars_fit import TEXT_DIMS
from longplay.rewards.personal import PersonalReward
from longplay.rewards.sequence.daily_hazard import (
    DailyHazard,
    DayPaths,
    counts_of,
    fit_hazard,
)
from longplay.rewards.sequence.event_tokens import EventTokens, Vocabulary
from longplay.rewards.sequence.lessons import (
    EntryLessons,
    Lessons,
    known_users,
    lessons_of,
    no_slates,
    slates_taught,
)
from longplay.rewards.showing import LakeView, Refined
from longplay.signals.outcomes.in_memory import Outcomes, slates_of

if TYPE_CHECKING:
    from longplay.rewards.sequence.ensemble import SequenceEnsemble
    from longplay.rewards.sequence.targets import EntryTarget

LABELS = ("days", "teacher", "matured")
LEAST_LINK = 1e-4  # beliefs are taken to be this far from 0 and from the most possible


@dataclass(frozen=True, eq=False)
class Visits:
    """Contexts whose visits were encoded.

    Attributes:
        frame: of the contexts; held, so that nothing else is called by its id.
        visit_N: the visit of each context.
        visit_HAVC: coordinates of visits, for both heads and every member.
    """

    frame: pl.DataFrame
    visit_N: Int
    visit_HAVC: Float

    def coordinates(self, head: int) -> Float:
        """Coordinates of the contexts for a head, [A, N, C]."""
        return self.visit_HAVC[head][:, self.visit_N]


@dataclass(frozen=True, eq=False)
class SequenceReward(PersonalReward):
    """An early reward that reads users' histories: a small causal transformer adds to the log odds of a
    play, and to what an entry comes to, what the order of a user's past says beyond the personal reward.

    What an entry comes to follows from the chance that each of its days is active
    (`sequence.daily_hazard`), so entries teach by the days observed, and beliefs at all ages are those
    of one process. Only signals of days can be believed in so.

    Attributes:
        signal: what is believed in; of days.
        members: networks of the ensemble, each fitted on users drawn with replacement; their
            disagreement is part of `std`.
        width: of the network.
        steps: of descent, for each member.
        seed: of weights and of what is drawn.
        labels: what scores of entries learn from: "days", the days observed; "teacher", expected outcomes
            given the days observed, as a model fitted on days has them; "matured", mature outcomes
            alone.
        ensemble: what was learnt; null before `fit`.
    """

    members: int = 3
    width: int = 32
    steps: int = 120
    seed: int = 0
    labels: Literal["days", "teacher", "matured"] = "days"
    ensemble: SequenceEnsemble | None = field(default=None, repr=False)
    _inner: dict[str, PersonalReward] = field(default_factory=dict, init=False, repr=False)
    _tokens: dict[object, EventTokens] = field(default_factory=dict, init=False, repr=False)
    _candidates: dict[int, tuple[object, Float]] = field(
        default_factory=dict, init=False, repr=False
    )
    _moments: dict[tuple[int, object], Visits] = field(default_factory=dict, init=False, repr=False)

    name: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts_of(self.signal, self.name)
        _check_whole(self.name, "members", self.members, 1)
        _check_whole(self.name, "width", self.width, 2)
        _check_whole(self.name, "steps", self.steps, 1)
        _check_whole(self.name, "seed", self.seed, 0)
        if self.width % 2:
            raise ConfigError(
                f"{self.name}: width={self.width} given, expected an even number, for two heads of "
                "attention"
            )
        if self.labels not in LABELS:
            raise ConfigError(
                f"{self.name}: labels={self.labels!r} given, expected one of {', '.join(LABELS)}"
            )

    # -- fitting ---------------------------------------------------------------------------------

    def _with_particulars(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        model = super()._with_particulars(lake, outcomes, certain, decisions, tell)
        log = certain.daily.lake if lake is None else lake.before(outcomes.as_of)
        most, absorbing = counts_of(self.signal, self.name)
        vocabulary = Vocabulary.of(
            log, model._learnt().catalogue, self.signal.entry.of == "creator"
        )
        lessons = model._lessons(lake, log, certain, decisions, vocabulary)
        paths = DayPaths.of(certain, most, absorbing)
        link_N = np.empty(len(certain))
        link_N[lessons.entry_rows] = lessons.entries.link_E
        hazard = fit_hazard(paths, link_N, most, absorbing)
        ensemble = model._trained(lessons, vocabulary, hazard, paths, certain, tell)
        return replace(model, ensemble=ensemble)

    def _lessons(
        self,
        lake: Lake | None,
        log: Lake | None,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        vocabulary: Vocabulary,
    ) -> Lessons:
        """Slots and entries, with what is believed of them by what other users did."""
        as_of = int(certain.as_of.timestamp() * 1_000_000)
        shown = pl.DataFrame(schema={"surface": pl.String})
        if lake is not None:
            shown = lake.before(certain.as_of).decisions
        if decisions is not None:
            shown = slates_of("fit", decisions)
        assert log is not None or lake is None
        tokens = EventTokens.of(log, vocabulary)
        slates = no_slates()
        if log is not None and self.showing is not None and self.showing.entry is not None:
            slates = slates_taught(self.showing, log, shown, as_of, vocabulary, self.seed)
        mean_N = np.empty(len(certain))
        half_N = keyed_uniform("longplay: sequence halves", certain.frame["user_id"]) < 0.5
        for rows_N in (half_N, ~half_N):
            others = self._personal().observe(certain.where(~rows_N))
            mean_N[rows_N] = others.belief(certain.where(rows_N), 0).mean
        entries = EntryLessons(
            np.arange(len(certain)),
            vocabulary.items.rows(certain.frame["item_id"]),
            vocabulary.keys.rows(certain.keys),
            self._link(mean_N),
            (certain.frame["origin"] == "organic").fill_null(False).to_numpy().astype(float),
        )
        time_E = certain.frame["time"].dt.epoch("us").to_numpy()
        scaling = self._user_scaling()
        user_MV = np.vstack(
            [
                known_users(scaling, log, slates[0], slates[1]),
                known_users(scaling, log, certain.frame["user_id"], time_E),
            ]
        )
        return lessons_of(tokens, slates, certain, entries, user_MV)

    def _trained(
        self,
        lessons: Lessons,
        vocabulary: Vocabulary,
        hazard: DailyHazard,
        paths: DayPaths,
        certain: Outcomes,
        tell: Callable[..., None],
    ) -> SequenceEnsemble:
        """The ensemble, fitted on the labels that were asked for."""
        try:
            from longplay.rewards.sequence.targets import DaysTarget, MeanTarget
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"{self.name}: needs {error.name}: pip install 'longplay[llm]', or take "
                "lp.PersonalReward"
            ) from error
        rows = lessons.entry_rows
        days = DaysTarget.of(paths, hazard, rows)
        rounds = 2 if self.labels == "teacher" else 1
        total = rounds * self.members * self.steps

        def told(before: int) -> Callable[[int], None]:
            return lambda done: tell(before + done, total)

        matured_N = np.where(certain.known, certain.value, np.nan)
        matured = MeanTarget.of(matured_N[rows], hazard)
        if self.labels == "days":
            return self._ensemble(lessons, vocabulary, hazard, days, days, told, 0)
        if self.labels == "matured":
            return self._ensemble(lessons, vocabulary, hazard, matured, matured, told, 0)
        teacher = self._ensemble(lessons, vocabulary, hazard, days, days, told, 0)
        label_N = self._labels(teacher, lessons, certain)
        target = MeanTarget.of(label_N[rows], hazard)
        return self._ensemble(
            lessons, vocabulary, hazard, target, matured, told, self.members * self.steps
        )

    def _ensemble(
        self,
        lessons: Lessons,
        vocabulary: Vocabulary,
        hazard: DailyHazard,
        target: EntryTarget,
        judge: EntryTarget,
        told: Callable[[int], Callable[[int], None]],
        before: int,
    ) -> SequenceEnsemble:
        from longplay.rewards.sequence.ensemble import SequenceEnsemble
        from longplay.rewards.sequence.fitting import (
            Trainer,
            fit_member,
            fitted_entries,
            fitted_plays,
            judged,
        )
        from longplay.rewards.sequence.network import Shape

        content_IC = self._learnt().catalogue.content_IC
        shape = Shape(
            self.width,
            len(vocabulary.surfaces),
            len(vocabulary.keys),
            content_IC.shape[1],
            lessons.user_MV.shape[1],
            self._shared(lessons.user_MV.shape[1]),
        )
        trainer = Trainer(lessons, target)
        networks = [
            fit_member(
                trainer,
                shape,
                content_IC,
                self.steps,
                self.seed * 1_000 + member,
                told(before + member * self.steps),
            )
            for member in range(self.members)
        ]
        judge_trainer = Trainer(lessons, judge)
        scores = judged(judge_trainer, networks, np.flatnonzero(lessons.validation_W))
        everyone = judged(judge_trainer, networks, np.arange(len(lessons.validation_W)))
        return SequenceEnsemble(
            vocabulary,
            tuple(networks),
            hazard,
            fitted_plays(lessons, scores)[0],
            fitted_entries(lessons, scores, judge)[0],
            float(np.mean([network.organic.item() for network in networks])),
            everyone.usual_AC,
            self._user_scaling(),
        )

    def _labels(self, teacher: SequenceEnsemble, lessons: Lessons, certain: Outcomes) -> Float:
        """What the teacher expects of each entry, given the days observed of it, [N]."""
        from longplay.rewards.sequence.fitting import Trainer, judged
        from longplay.rewards.sequence.targets import MeanTarget

        nothing = MeanTarget.of(np.full(len(certain), np.nan), teacher.hazard)
        trainer = Trainer(lessons, nothing)
        scores = judged(trainer, list(teacher.members), np.arange(len(lessons.validation_W)))
        score_E = np.zeros(len(certain))
        score_E[lessons.entry_rows[scores.entries]] = scores.entry_E
        link_E = np.zeros(len(certain))
        link_E[lessons.entry_rows] = lessons.entries.link_E
        return _aged(teacher, certain, None, link_E, np.zeros(len(certain)), score_E[None])[0]

    # -- beliefs ---------------------------------------------------------------------------------

    def items(self, ids: pl.Series) -> Belief:
        """See `EarlyModel.items`: of a usual user, that is at the mean of entries' moments."""
        personal = self._personal().items(ids)
        ensemble = self._sequence()
        vocabulary = ensemble.vocabulary
        key_N = vocabulary.keys.rows(ids)
        item_N = np.full(len(ids), -1)
        if self.signal.entry.of == "item":
            item_N = vocabulary.items.rows(ids)
        from longplay.rewards.sequence.ensemble import ENTRY, pair_scores

        candidate_AIC = ensemble.of_candidates(item_N, key_N)[ENTRY]
        moment_A1C = ensemble.usual_AC[:, None, :]
        row_1N = np.arange(len(ids))[None, :]
        score_AN = pair_scores(moment_A1C, candidate_AIC, row_1N)[:, 0]
        mean_N, std_N, noise_N = ensemble.outcome(
            self._link(personal.mean), self._link_std(personal.mean, personal.std), score_AN
        )
        assert personal.keys is not None
        return self._finish(mean_N, std_N, noise_N, -1, personal.keys)

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        """See `EarlyModel.belief`. Histories are those of the log that the outcomes are from."""
        if age < 0:
            raise ConfigError(f"belief: age={age} given, expected days >= 0")
        personal = self._personal().belief(outcomes, 0)
        from longplay.rewards.sequence.ensemble import ENTRY

        ensemble = self._sequence()
        vocabulary = ensemble.vocabulary
        log = outcomes.daily.lake
        frame = outcomes.frame
        tokens = self._tokens_of(log)
        time_N = frame["time"].dt.epoch("us").to_numpy()
        events = tokens.before(tokens.users.rows(frame["user_id"]), time_N)
        user_NV = known_users(ensemble.user_scaling, log, frame["user_id"], time_N)
        moment_ANC = ensemble.of_moments(events, user_NV)[ENTRY]
        candidate_ANC = ensemble.of_candidates(
            vocabulary.items.rows(frame["item_id"]), vocabulary.keys.rows(outcomes.keys)
        )[ENTRY]
        score_AN = (moment_ANC * candidate_ANC).sum(-1)
        organic_N = (frame["origin"] == "organic").fill_null(False).to_numpy()
        mean_N, std_N, noise_N = _aged(
            ensemble,
            outcomes,
            age,
            self._link(personal.mean),
            self._link_std(personal.mean, personal.std),
            score_AN + ensemble.organic * organic_N,
        )
        assert personal.keys is not None
        return self._finish(mean_N, std_N, noise_N, age, personal.keys)

    # -- the value of showing --------------------------------------------------------------------

    def _refined(self, contexts: Contexts, view: LakeView, lake: Lake) -> Refined | None:
        from longplay.rewards.sequence.ensemble import PLAY, pair_scores

        ensemble = self._sequence()
        moment_ANC = self._visits(contexts, lake).coordinates(PLAY)
        candidates = self._candidates_of(view)[PLAY]

        def refined(chance_NS: Float, row_NS: Int) -> Float:
            score_ANS = pair_scores(moment_ANC, candidates, row_NS)
            odds_NS = special.logit(np.clip(chance_NS, 1e-9, 1 - 1e-9))
            return special.expit(ensemble.refined_odds(odds_NS, score_ANS))

        return refined

    def _given_entry(
        self, contexts: Contexts, row_NS: Int, view: LakeView, lake: Lake
    ) -> tuple[Float, Float, Float]:
        from longplay.rewards.sequence.ensemble import ENTRY, pair_scores

        mean_NS, std_NS, _ = self._personal()._given_entry(contexts, row_NS, view, lake)
        ensemble = self._sequence()
        moment_ANC = self._visits(contexts, lake).coordinates(ENTRY)
        candidates = self._candidates_of(view)[ENTRY]
        score_ANS = pair_scores(moment_ANC, candidates, row_NS)
        mean, std, noise = ensemble.outcome(
            self._link(mean_NS), self._link_std(mean_NS, std_NS), score_ANS
        )
        if self.signal.binary:
            return mean, std, np.maximum(np.sqrt(mean * (1 - mean)), std)
        return mean, std, np.sqrt(std**2 + noise**2)

    def _personal(self) -> PersonalReward:
        """What is believed without the sequence."""
        if "personal" not in self._inner:
            self._inner["personal"] = PersonalReward(
                self.signal,
                self.standing,
                self.showing,
                self.spares,
                self.learnt,
                self.knows,
                self.particulars,
            )
        return self._inner["personal"]

    def _visits(self, contexts: Contexts, lake: Lake) -> Visits:
        """The visits of contexts: each is encoded once, and those of the last contexts stay.

        Contexts of a user at one time are one visit, unless they carry histories."""
        key = (id(contexts.frame), lake.key)
        if key not in self._moments:
            ensemble = self._sequence()
            frame = contexts.frame
            time_N = frame["time"].dt.epoch("us").to_numpy()
            first_V = visit_N = np.arange(len(contexts))
            if not frame["history"].list.len().sum():
                name_N = frame["user_id"].rank("dense").to_numpy().astype(np.int64)
                pairs = np.stack([name_N, time_N], axis=1)
                _, first_V, visit_N = np.unique(
                    pairs, axis=0, return_index=True, return_inverse=True
                )
            visits = contexts.take(first_V)
            events = self._tokens_of(lake).before_contexts(
                visits, int(lake.watermark.timestamp() * 1_000_000), ensemble.vocabulary
            )
            user_VV = np.zeros((len(visits), 0))
            if self.showing is not None and self.showing.entry is not None:
                user_VV = self.showing.entry.user_vectors(visits, lake)
            coordinates = ensemble.of_moments(events, user_VV)
            self._moments.clear()
            self._moments[key] = Visits(contexts.frame, visit_N.ravel(), coordinates)
        return self._moments[key]

    def _candidates_of(self, view: LakeView) -> Float:
        """Coordinates of the lake's items, and last of unknown ones; kept for the last view."""
        if id(view) not in self._candidates:
            vocabulary = self._sequence().vocabulary
            item_I = np.append(vocabulary.items.rows(view.index.items.ids), -1)
            key_I = np.append(vocabulary.keys.rows(view.index.key_ids_I), -1)
            self._candidates.clear()
            self._candidates[id(view)] = (view, self._sequence().of_candidates(item_I, key_I))
        return self._candidates[id(view)][1]

    def _tokens_of(self, lake: Lake | None) -> EventTokens:
        """Users' events in a lake; kept for the last lake."""
        key = None if lake is None else lake.key
        if key not in self._tokens:
            self._tokens.clear()
            self._tokens[key] = EventTokens.of(lake, self._sequence().vocabulary)
        return self._tokens[key]

    def _shared(self, user: int) -> int:
        """Columns of vectors that may be of one space: where items' vectors are as long as users'."""
        texts = self._learnt().catalogue.content_IC.shape[1] - user
        return user if "items" in self.knows and texts == TEXT_DIMS else 0

    def _user_scaling(self) -> Scaling:
        if self.showing is None or self.showing.entry is None:
            return Scaling(np.zeros(0), np.ones(0))
        return self.showing.entry.user_scaling

    def _link(self, mean: Float) -> Float:
        """Log odds of the share of the most possible."""
        share = mean / (1.0 if self.signal.binary else self.signal.days)
        return special.logit(np.clip(share, LEAST_LINK, 1.0 - LEAST_LINK))

    def _link_std(self, mean: Float, std: Float) -> Float:
        """Std of `_link`."""
        most = 1.0 if self.signal.binary else self.signal.days
        share = np.clip(mean / most, LEAST_LINK, 1.0 - LEAST_LINK)
        return std / most / (share * (1.0 - share))

    def _sequence(self) -> SequenceEnsemble:
        self._fitted()
        assert self.ensemble is not None
        return self.ensemble


def _aged(
    ensemble: SequenceEnsemble,
    outcomes: Outcomes,
    age: int | None,
    link_N: Float,
    link_std_N: Float,
    score_AN: Float,
) -> tuple[Float, Float, Float]:
    """Mean, epistemic std and std of single outcomes of entries, from the days observed of them up to
    `age`."""
    observed_N = outcomes.observed(age)
    row, _, _ = prefix_hits(outcomes, observed_N)
    count_N = np.minimum(sum_by(row, np.ones(len(row)), len(outcomes)), ensemble.hazard.most)
    base = ensemble.hazard.most + 1
    states, state_N = np.unique(observed_N * base + count_N.astype(int), return_inverse=True)
    mean_N, std_N, noise_N = (np.empty(len(outcomes)) for _ in range(3))
    for nth, state in enumerate(states.tolist()):
        rows = np.flatnonzero(state_N == nth)
        mean_N[rows], std_N[rows], noise_N[rows] = ensemble.outcome(
            link_N[rows], link_std_N[rows], score_AN[:, rows], *divmod(state, base)
        )
    return mean_N, std_N, noise_N


def _check_whole(name: str, what: str, number: object, least: int) -> None:
    """Raise a ConfigError unless it is a whole number of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ConfigError(
            f"{name}: {what}={number!r} given, expected a whole number of at least {least}"
        )
