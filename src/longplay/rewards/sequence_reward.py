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
from longplay.decisions import Contexts, Decisions
from longplay.errors import ConfigError, MissingExtra
from longplay.lake.lake import Lake
from longplay.rewards.entry_chance import known_users
from longplay.rewards.personal import PersonalReward
from longplay.rewards.sequence.daily_hazard import counts_of, link, link_std
from longplay.rewards.sequence.event_tokens import EventTokens
from longplay.rewards.sequence.settings import SequenceSettings
from longplay.rewards.showing import LakeView, Refined
from longplay.signals.outcomes.in_memory import Outcomes, slates_of

if TYPE_CHECKING:
    from longplay.rewards.sequence.ensemble import SequenceEnsemble


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
        steps: of descent at most, for each member; training stops earlier where users who do not teach say
            so.
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
        self._settings()

    def _settings(self) -> SequenceSettings:
        return SequenceSettings(self.members, self.width, self.steps, self.seed, self.labels)

    def _with_particulars(
        self,
        lake: Lake | None,
        outcomes: Outcomes,
        certain: Outcomes,
        decisions: Decisions | pl.DataFrame | None,
        tell: Callable[..., None],
    ) -> Self:
        try:
            from longplay.rewards.sequence.training import train_ensemble
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"{self.name}: needs {error.name}: pip install 'longplay[llm]', or take "
                "lp.PersonalReward"
            ) from error
        model = super()._with_particulars(lake, outcomes, certain, decisions, tell)
        log = certain.daily.lake if lake is None else lake.before(certain.as_of)
        shown = pl.DataFrame()
        if lake is not None and log is not None:
            shown = log.decisions if decisions is None else slates_of("fit", decisions)
        ensemble = train_ensemble(
            model._personal(),
            model._learnt().catalogue,
            log,
            certain,
            shown,
            self._settings(),
            tell,
        )
        return replace(model, ensemble=ensemble)

    def items(self, ids: pl.Series) -> Belief:
        """See `EarlyModel.items`: of a usual user, that is at the mean of entries' moments."""
        ensemble = self._sequence()
        personal = self._personal().items(ids)
        vocabulary = ensemble.vocabulary
        key_N = vocabulary.keys.rows(ids)
        item_N = np.full(len(ids), -1)
        if self.signal.entry.of == "item":
            item_N = vocabulary.items.rows(ids)
        from longplay.rewards.sequence.ensemble import pair_scores
        from longplay.rewards.sequence.network import ENTRY

        candidate_AIC = ensemble.of_candidates(item_N, key_N)[ENTRY]
        moment_A1C = ensemble.usual_AC[:, None, :]
        row_1N = np.arange(len(ids))[None, :]
        score_AN = pair_scores(moment_A1C, candidate_AIC, row_1N)[:, 0]
        largest = ensemble.hazard.largest
        mean_N, std_N, noise_N = ensemble.outcome(
            link(personal.mean, largest), link_std(personal.mean, personal.std, largest), score_AN
        )
        assert personal.keys is not None
        return self._finish(mean_N, std_N, noise_N, -1, personal.keys)

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        """See `EarlyModel.belief`. Histories are those of the log that the outcomes are from."""
        self._check(outcomes)
        ensemble = self._sequence()
        if age < 0:
            raise ConfigError(f"belief: age={age} given, expected days >= 0")
        personal = self._personal().belief(outcomes, 0)
        from longplay.rewards.sequence.network import ENTRY

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
        largest = ensemble.hazard.largest
        mean_N, std_N, noise_N = ensemble.aged(
            outcomes,
            age,
            link(personal.mean, largest),
            link_std(personal.mean, personal.std, largest),
            score_AN + ensemble.organic * organic_N,
        )
        assert personal.keys is not None
        return self._finish(mean_N, std_N, noise_N, age, personal.keys)

    def _refined(self, contexts: Contexts, view: LakeView, lake: Lake) -> Refined | None:
        from longplay.rewards.sequence.ensemble import pair_scores
        from longplay.rewards.sequence.network import PLAY

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
        from longplay.rewards.sequence.ensemble import pair_scores
        from longplay.rewards.sequence.network import ENTRY

        mean_NS, std_NS, _ = self._personal()._given_entry(contexts, row_NS, view, lake)
        ensemble = self._sequence()
        moment_ANC = self._visits(contexts, lake).coordinates(ENTRY)
        candidates = self._candidates_of(view)[ENTRY]
        score_ANS = pair_scores(moment_ANC, candidates, row_NS)
        largest = ensemble.hazard.largest
        mean, std, noise = ensemble.outcome(
            link(mean_NS, largest), link_std(mean_NS, std_NS, largest), score_ANS
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

        Contexts of a user at one time are one visit, unless they carry histories.
        """
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

    def _sequence(self) -> SequenceEnsemble:
        self._fitted()
        assert self.ensemble is not None
        return self.ensemble
