"""The fitted sequence model: an ensemble of networks, the weight each head has, and the daily hazard.

Axes: N moments, S slots, I candidates, A members, C coordinates of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from longplay.arrays import Float, Int
from longplay.lake.known import Scaling
from longplay.rewards.early import prefix_hits
from longplay.rewards.sequence.daily_hazard import DailyHazard
from longplay.rewards.sequence.event_tokens import EarlierEvents, Vocabulary, moment_features
from longplay.rewards.sequence.network import (
    SequenceNetwork,
    as_batch,
)
from longplay.signals.outcomes.in_memory import Outcomes

MOMENTS = 512  # that are encoded at a time, of like length
CELLS = 4_000_000  # pairs that are scored at a time


@dataclass(frozen=True)
class HeadWeights:
    """How a head's score is joined with what is believed without the sequence: base x link of that
    + sequence x score + shift."""

    base: float = 1.0
    sequence: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class SequenceEnsemble:
    """Networks that were fitted on bootstrapped users.

    Attributes:
        vocabulary: items, keys and surfaces that they know.
        members: the networks.
        hazard: what a score means for the days of an entry.
        play: weights of the head of plays.
        entry: weights of the head of entries.
        organic: what is added to the score of an entry that the user came to unasked.
        usual_AC: mean coordinates of the moments of entries, by member.
        user_scaling: of users' vectors; no columns where they are not read.
    """

    vocabulary: Vocabulary
    members: tuple[SequenceNetwork, ...] = field(repr=False)
    hazard: DailyHazard = field(repr=False)
    play: HeadWeights
    entry: HeadWeights
    organic: float
    usual_AC: Float = field(repr=False)
    user_scaling: Scaling = field(repr=False)

    def of_moments(self, events: EarlierEvents, user_NV: Float) -> Float:
        """Coordinates of moments for both heads, [2, A, N, C]: each is encoded once.

        Args:
            events: what was before the moments.
            user_NV: scaled vectors of their users.
        """
        moments = len(events)
        feature_NF = moment_features(events, events.lengths, np.arange(moments), events.moment_N)
        result = np.empty((2, len(self.members), moments, self.members[0].coordinates))
        order = np.argsort(events.lengths, kind="stable")
        with torch.no_grad():
            for first in range(0, moments, MOMENTS):
                rows = order[first : first + MOMENTS]
                part = events.take(rows)
                batch = as_batch(part)
                last = torch.as_tensor(part.lengths)
                feature = torch.as_tensor(feature_NF[rows], dtype=torch.float32)
                user = torch.as_tensor(user_NV[rows], dtype=torch.float32)
                for a, member in enumerate(self.members):
                    state = member.states(batch)[torch.arange(len(rows)), last]
                    coordinates = member.of_moments(state, feature, user).double().numpy()
                    result[:, a, rows] = coordinates.transpose(1, 0, 2)
        return result

    def of_candidates(self, item_I: Int, key_I: Int) -> Float:
        """Coordinates of candidates for both heads, [2, A, I, C].

        Args:
            item_I: item rows in the vocabulary, -1 unknown.
            key_I: key rows in the vocabulary, -1 unknown.
        """
        item = torch.as_tensor(item_I)
        key = torch.as_tensor(key_I)
        with torch.no_grad():
            parts = [member.of_candidates(item, key).double().numpy() for member in self.members]
        return np.stack(parts).transpose(2, 0, 1, 3)

    def refined_odds(self, odds_NS: Float, score_ANS: Float) -> Float:
        """Log odds of a play, [N, S], from those without the sequence and the members' scores."""
        weights = self.play
        return weights.base * odds_NS + weights.sequence * score_ANS.mean(axis=0) + weights.shift

    def outcome(
        self,
        link: Float,
        link_std: Float,
        score_A: Float,
        age: int = 0,
        count: int = 0,
    ) -> tuple[Float, Float, Float]:
        """Mean, epistemic std and std of single outcomes of entries, in the shape of `link`.

        Args:
            link: of the outcome believed in without the sequence.
            link_std: its std.
            score_A: scores of the members, [A, ...].
            age: days observed.
            count: active days among them.
        """
        weights = self.entry
        score = weights.base * link + weights.sequence * score_A.mean(axis=0) + weights.shift
        mean, slope, variance = self.hazard.outcome(score, age, count)
        members_std = weights.sequence * score_A.std(axis=0, ddof=min(1, len(score_A) - 1))
        std = slope * np.sqrt((weights.base * link_std) ** 2 + members_std**2)
        return mean, std, np.sqrt(variance)

    def aged(
        self, outcomes: Outcomes, age: int | None, link_N: Float, link_std_N: Float, score_AN: Float
    ) -> tuple[Float, Float, Float]:
        """`outcome` of entries, each from where the days observed of it leave it.

        Args:
            outcomes: the entries.
            age: only so many days; None: all that were observed.
            link_N: of the outcomes believed in without the sequence.
            link_std_N: their std.
            score_AN: scores of the members.
        """
        observed_N = outcomes.observed(age)
        row, _, _ = prefix_hits(outcomes, observed_N)
        count_N = np.minimum(np.bincount(row, minlength=len(outcomes)), self.hazard.most)
        base = self.hazard.most + 1
        states, state_N = np.unique(observed_N * base + count_N, return_inverse=True)
        mean_N, std_N, noise_N = (np.empty(len(outcomes)) for _ in range(3))
        for nth, state in enumerate(states.tolist()):
            rows = np.flatnonzero(state_N == nth)
            mean_N[rows], std_N[rows], noise_N[rows] = self.outcome(
                link_N[rows], link_std_N[rows], score_AN[:, rows], *divmod(state, base)
            )
        return mean_N, std_N, noise_N


def pair_scores(moment_ANC: Float, candidate_AIC: Float, row_NS: Int) -> Float:
    """Scores of the members for each moment and slot, [A, N, S].

    Args:
        moment_ANC: coordinates of moments.
        candidate_AIC: coordinates of candidates; the last row is of unknown ones.
        row_NS: rows of the slots' candidates, -1 unknown.
    """
    members, moments, width = moment_ANC.shape
    candidates = candidate_AIC.shape[1]
    slots = row_NS.shape[1]
    result = np.empty((members, moments, slots))
    step = max(1, CELLS // max(candidates, slots * width))
    for first in range(0, moments, step):
        part = slice(first, first + step)
        rows = row_NS[part] % candidates
        for a in range(members):
            if slots * width > candidates:  # every candidate once is less than every slot
                every = moment_ANC[a, part] @ candidate_AIC[a].T
                result[a, part] = np.take_along_axis(every, rows, axis=1)
            else:
                chosen = candidate_AIC[a][rows]
                result[a, part] = np.einsum("nc,nsc->ns", moment_ANC[a, part], chosen)
    return result
