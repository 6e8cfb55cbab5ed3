"""Training an ensemble: lessons from a log, the daily hazard, networks, and the weights of their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from longplay.arrays import Float
from longplay.chance import keyed_uniform
from longplay.lake.known import Scaling
from longplay.lake.lake import Lake
from longplay.rewards.entry_chance import known_users
from longplay.rewards.particulars import Catalogue
from longplay.rewards.particulars_fit import TEXT_DIMS
from longplay.rewards.personal import PersonalReward
from longplay.rewards.sequence.daily_hazard import (
    DailyHazard,
    DayPaths,
    counts_of,
    fit_hazard,
    link,
)
from longplay.rewards.sequence.ensemble import SequenceEnsemble
from longplay.rewards.sequence.event_tokens import EventTokens, Vocabulary
from longplay.rewards.sequence.fitting import (
    Trainer,
    fit_member,
    fitted_entries,
    fitted_plays,
    judged,
)
from longplay.rewards.sequence.lessons import (
    EntryLessons,
    Lessons,
    lessons_of,
    no_slates,
    slates_taught,
)
from longplay.rewards.sequence.network import Shape
from longplay.rewards.sequence.settings import SequenceSettings
from longplay.rewards.sequence.targets import DaysTarget, EntryTarget, MeanTarget
from longplay.signals.outcomes.in_memory import Outcomes


def train_ensemble(
    personal: PersonalReward,
    catalogue: Catalogue,
    log: Lake | None,
    outcomes: Outcomes,
    shown: pl.DataFrame,
    settings: SequenceSettings,
    tell: Callable[..., None],
) -> SequenceEnsemble:
    """The ensemble, fitted on slots and entries of a log.

    Args:
        personal: what is believed without the sequence.
        catalogue: items and creators, with what is known of them.
        log: whose histories are read, as known at `outcomes.as_of`; None: there are none.
        outcomes: entries that teach, immature ones included.
        shown: the decisions that teach; without rows: no slot does.
        settings: of the model.
        tell: called with steps done and steps.
    """
    signal = personal.signal
    most, absorbing = counts_of(signal, "sequence")
    vocabulary = Vocabulary.of(log, catalogue, signal.entry.of == "creator")
    lessons = _lessons(personal, log, outcomes, shown, vocabulary, settings.seed)
    paths = DayPaths.of(outcomes, most, absorbing)
    link_N = np.empty(len(outcomes))
    link_N[lessons.entry_rows] = lessons.entries.link_E
    hazard = fit_hazard(paths, link_N, most, absorbing)
    course = _Course(lessons, vocabulary, catalogue, hazard, settings, user_scaling(personal), tell)
    rows = lessons.entry_rows
    days = DaysTarget.of(paths, hazard, rows)
    if settings.labels == "days":
        return course.ensemble(days, days)
    matured = MeanTarget.of(np.where(outcomes.known, outcomes.value, np.nan)[rows], hazard)
    if settings.labels == "matured":
        return course.ensemble(matured, matured)
    teacher = course.ensemble(days, days)
    labels = MeanTarget.of(_labels(teacher, lessons, outcomes)[rows], hazard)
    return course.ensemble(labels, matured, before=settings.members * settings.steps)


def user_scaling(personal: PersonalReward) -> Scaling:
    """Scaling of users' vectors; no columns where they are not read."""
    if personal.showing is None or personal.showing.entry is None:
        return Scaling(np.zeros(0), np.ones(0))
    return personal.showing.entry.user_scaling


def _lessons(
    personal: PersonalReward,
    log: Lake | None,
    outcomes: Outcomes,
    shown: pl.DataFrame,
    vocabulary: Vocabulary,
    seed: int,
) -> Lessons:
    """Slots and entries, with what is believed of entries from what users of the other half did."""
    slates = no_slates()
    if log is not None and personal.showing is not None:
        as_of = int(outcomes.as_of.timestamp() * 1_000_000)
        slates = slates_taught(personal.showing, log, shown, as_of, vocabulary, seed)
    frame = outcomes.frame
    mean_N = np.empty(len(outcomes))
    half_N = keyed_uniform("longplay: sequence halves", frame["user_id"]) < 0.5
    for rows_N in (half_N, ~half_N):
        others = personal.observe(outcomes.where(~rows_N))
        mean_N[rows_N] = others.belief(outcomes.where(rows_N), 0).mean
    largest = 1.0 if personal.signal.binary else float(personal.signal.days)
    entries = EntryLessons(
        np.arange(len(outcomes)),
        vocabulary.items.rows(frame["item_id"]),
        vocabulary.keys.rows(outcomes.keys),
        link(mean_N, largest),
        (frame["origin"] == "organic").fill_null(False).to_numpy().astype(float),
    )
    time_E = frame["time"].dt.epoch("us").to_numpy()
    scaling = user_scaling(personal)
    of_slates = known_users(scaling, log, slates[0], slates[1])
    of_entries = known_users(scaling, log, frame["user_id"], time_E)
    tokens = EventTokens.of(log, vocabulary)
    return lessons_of(tokens, slates, outcomes, entries, np.vstack([of_slates, of_entries]))


def _labels(teacher: SequenceEnsemble, lessons: Lessons, outcomes: Outcomes) -> Float:
    """What the teacher expects of each entry, given the days observed of it, [N]."""
    nothing = MeanTarget.of(np.full(len(outcomes), np.nan), teacher.hazard)
    trainer = Trainer(lessons, nothing)
    scores = judged(trainer, list(teacher.members), np.arange(len(lessons.validation_W)))
    score_1N = np.zeros((1, len(outcomes)))
    score_1N[0, lessons.entry_rows[scores.entries]] = scores.entry_E
    link_N = np.zeros(len(outcomes))
    link_N[lessons.entry_rows] = lessons.entries.link_E
    return teacher.aged(outcomes, None, link_N, np.zeros(len(outcomes)), score_1N)[0]


@dataclass(frozen=True, eq=False)
class _Course:
    """Everything that ensembles are fitted with but their targets."""

    lessons: Lessons
    vocabulary: Vocabulary
    catalogue: Catalogue
    hazard: DailyHazard
    settings: SequenceSettings
    scaling: Scaling
    tell: Callable[..., None]

    def ensemble(
        self, target: EntryTarget, judge: EntryTarget, before: int = 0
    ) -> SequenceEnsemble:
        """Networks fitted to a target, and weights of their scores fitted to another.

        Args:
            target: of the networks' scores of entries.
            judge: of the weights.
            before: steps that were done before.
        """
        settings = self.settings
        rounds = 2 if settings.labels == "teacher" else 1
        total = rounds * settings.members * settings.steps
        trainer = Trainer(self.lessons, target)
        networks = []
        for member in range(settings.members):
            done_before = before + member * settings.steps

            def told(done: int, done_before: int = done_before) -> None:
                self.tell(done_before + done, total)

            networks.append(
                fit_member(
                    trainer,
                    self._shape(),
                    self.catalogue.content_IC,
                    settings.steps,
                    settings.seed * 1_000 + member,
                    told,
                )
            )
        everyone = np.arange(len(self.lessons.validation_W))
        validation = np.flatnonzero(self.lessons.validation_W)
        scores = judged(trainer, networks, validation)
        return SequenceEnsemble(
            self.vocabulary,
            tuple(networks),
            self.hazard,
            fitted_plays(self.lessons, scores)[0],
            fitted_entries(self.lessons, scores, judge)[0],
            float(np.mean([network.organic.item() for network in networks])),
            judged(trainer, networks, everyone).usual_AC,
            self.scaling,
        )

    def _shape(self) -> Shape:
        content = self.catalogue.content_IC.shape[1]
        user = self.lessons.user_MV.shape[1]
        # items' vectors stand behind their words; they may be of the users' space where as long
        is_shared = user > 0 and content == TEXT_DIMS + user
        return Shape(
            self.settings.width,
            len(self.vocabulary.surfaces),
            len(self.vocabulary.keys),
            content,
            user,
            user if is_shared else 0,
        )
