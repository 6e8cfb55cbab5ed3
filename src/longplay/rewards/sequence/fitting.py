"""Fitting the networks of an ensemble, and the weight that their scores have.

Every member sees users drawn with replacement. The weights that are kept are those with the least loss on
users who teach no member; on these users, too, it is fitted how far the scores count at all. Where a
history says nothing that is not believed without it, that weight is near 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor
from torch.nn import functional

from longplay.arrays import Float, Int
from longplay.index import ranges
from longplay.rewards.sequence.ensemble import HeadWeights
from longplay.rewards.sequence.lessons import Lessons
from longplay.rewards.sequence.network import (
    ENTRY,
    PLAY,
    SequenceNetwork,
    Shape,
    as_batch,
)
from longplay.rewards.sequence.targets import EntryTarget

WINDOWS = 256  # in a step
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.1  # of the steps
CHECKS = 8  # of the loss on validation users, in the course of training
PATIENCE = 2  # checks without a lesser loss, after which training stops
BASE_PRIOR = (
    10.0  # observations' worth of belief that what is believed without the sequence is right
)


@dataclass(frozen=True)
class Scores:
    """Scores of the lessons' slots and entries by one network, and the mean coordinates of the moments of
    entries."""

    slot_N: Tensor
    entry_E: Tensor
    usual_C: Tensor


class Trainer:
    """Lessons as tensors.

    Args:
        lessons: what is learnt from.
        target: of the scores of entries.
    """

    def __init__(self, lessons: Lessons, target: EntryTarget) -> None:
        self.lessons = lessons
        self.target = target
        windows = len(lessons.windows.events)
        self.moment_order = np.argsort(lessons.windows.window_N, kind="stable")
        window_M = lessons.windows.window_N[self.moment_order]
        edges = np.arange(windows + 1)
        self.moment_bounds = np.searchsorted(window_M, edges)
        self.slot_bounds = np.searchsorted(lessons.slot_windows, edges)
        self.entry_bounds = np.searchsorted(lessons.entry_windows, edges)

    def scores(self, network: SequenceNetwork, window_B: Int) -> tuple[Scores, Int, Int]:
        """Scores of the slots and entries of these windows, and their rows in the lessons."""
        lessons = self.lessons
        moments = self.moment_order[_rows(self.moment_bounds, window_B)]
        slots = _rows(self.slot_bounds, window_B)
        entries = _rows(self.entry_bounds, window_B)
        local = np.zeros(len(lessons.windows.events), dtype=np.int64)
        local[window_B] = np.arange(len(window_B))
        states = network.states(as_batch(lessons.windows.events.take(window_B)))
        state = states[local[lessons.windows.window_N[moments]], lessons.windows.place_N[moments]]
        coordinates = network.of_moments(
            state, _float(lessons.feature_MF[moments]), _float(lessons.user_MV[moments])
        )
        place = np.zeros(len(lessons.windows.window_N), dtype=np.int64)
        place[moments] = np.arange(len(moments))

        def paired(head: int, moment: Int, item: Int, key: Int) -> Tensor:
            pairs, row = np.unique(np.stack([item, key], axis=1), axis=0, return_inverse=True)
            candidates = network.of_candidates(
                torch.as_tensor(pairs[:, 0]), torch.as_tensor(pairs[:, 1])
            )
            of_moments = coordinates[torch.as_tensor(place[moment]), head]
            return (of_moments * candidates[torch.as_tensor(row.ravel()), head]).sum(-1)

        slot = lessons.slots
        entry = lessons.entries
        slot_N = paired(PLAY, slot.moment_N[slots], slot.item_N[slots], slot.key_N[slots])
        entry_E = paired(
            ENTRY, entry.moment_E[entries], entry.item_E[entries], entry.key_E[entries]
        )
        entry_E = entry_E + network.organic * _float(entry.organic_E[entries])
        usual_C = coordinates[torch.as_tensor(place[entry.moment_E[entries]])][:, ENTRY].sum(0)
        return Scores(slot_N, entry_E, usual_C), slots, entries

    def loss(
        self, network: SequenceNetwork, window_B: Int, weight_B: Float
    ) -> tuple[Tensor, float]:
        """The weighted sum of losses of slots and entries over the number of each, and their number."""
        lessons = self.lessons
        scores, slots, entries = self.scores(network, window_B)
        weight_W = np.zeros(len(lessons.windows.events))
        weight_W[window_B] = weight_B
        slot_weight = _float(weight_W[lessons.slot_windows[slots]])
        entry_weight = _float(weight_W[lessons.entry_windows[entries]])
        slot_loss = functional.binary_cross_entropy_with_logits(
            _float(lessons.slots.odds_N[slots]) + scores.slot_N,
            _float(lessons.slots.played_N[slots]),
            reduction="none",
        )
        entry_loss = self.target.loss(
            _float(lessons.entries.link_E[entries]) + scores.entry_E, torch.as_tensor(entries)
        )
        total = (slot_weight * slot_loss).sum() + (entry_weight * entry_loss).sum()
        return total, float(slot_weight.sum() + entry_weight.sum())

    def batches(self, window_B: Int) -> list[Int]:
        """These windows in batches of like length."""
        lengths = self.lessons.windows.events.lengths[window_B]
        window_B = window_B[np.argsort(lengths, kind="stable")]
        return [window_B[first : first + WINDOWS] for first in range(0, len(window_B), WINDOWS)]


def fit_member(
    trainer: Trainer,
    shape: Shape,
    content_IC: Float,
    steps: int,
    seed: int,
    tell: Callable[[int], None],
) -> SequenceNetwork:
    """One network, fitted on users drawn with replacement.

    Args:
        trainer: the lessons.
        shape: of the network.
        content_IC: what is known of items.
        steps: of descent.
        seed: of weights, of users and of the order of windows.
        tell: called with the steps done.
    """
    lessons = trainer.lessons
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SequenceNetwork(shape, content_IC)
    taught = np.flatnonzero(~lessons.validation_W)
    validation = np.flatnonzero(lessons.validation_W)
    _, owner = np.unique(lessons.windows.user_W[taught], return_inverse=True)
    drawn = rng.poisson(1.0, size=int(owner.max(initial=-1)) + 1)[owner]
    weight_W = np.zeros(len(lessons.validation_W))
    weight_W[taught] = drawn
    taught = taught[drawn > 0]
    best = (_joined_loss(trainer, network, validation), _weights(network))
    if not len(taught):
        return network
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    warm = max(1, int(WARM_UP * steps))

    def rate(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    queue: list[Int] = []
    worse = 0
    for step in range(1, steps + 1):
        if not queue:
            queue = trainer.batches(rng.permutation(taught))
            rng.shuffle(queue)  # pyright: ignore[reportArgumentType]
        window_B = queue.pop()
        total, count = trainer.loss(network, window_B, weight_W[window_B])
        optimizer.zero_grad()
        (total / max(count, 1.0)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // CHECKS) == 0 or step == steps:
            loss = _joined_loss(trainer, network, validation)
            worse += 1
            if loss < best[0]:
                best = (loss, _weights(network))
                worse = 0
            if worse == PATIENCE:
                break
            tell(step)
    tell(steps)
    network.load_state_dict(best[1])
    return network


def _weights(network: SequenceNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _joined_loss(trainer: Trainer, network: SequenceNetwork, windows: Int) -> float:
    """The loss of slots and entries of these windows where either head counts as far as it should: a head
    that has nothing to add does not stop the other from learning."""
    scores = judged(trainer, [network], windows)
    plays = fitted_plays(trainer.lessons, scores)[1]
    return plays + fitted_entries(trainer.lessons, scores, trainer.target)[1]


@dataclass(frozen=True)
class Judged:
    """Mean scores of an ensemble on some users' lessons.

    Attributes:
        slots: rows of slots.
        slot_N: their scores.
        entries: rows of entries.
        entry_E: their scores.
        usual_AC: mean coordinates of the moments of entries, by member.
    """

    slots: Int
    slot_N: Float
    entries: Int
    entry_E: Float
    usual_AC: Float


def judged(trainer: Trainer, networks: list[SequenceNetwork], windows: Int) -> Judged:
    """Scores of an ensemble on the lessons of these windows."""
    slots: list[Int] = []
    entries: list[Int] = []
    slot_scores: list[Float] = []
    entry_scores: list[Float] = []
    usual = np.zeros((len(networks), networks[0].coordinates))
    with torch.no_grad():
        for window_B in trainer.batches(windows):
            parts = [trainer.scores(network, window_B) for network in networks]
            slots.append(parts[0][1])
            entries.append(parts[0][2])
            slot_scores.append(np.mean([part[0].slot_N.numpy() for part in parts], axis=0))
            entry_scores.append(np.mean([part[0].entry_E.numpy() for part in parts], axis=0))
            usual += np.stack([part[0].usual_C.numpy() for part in parts])
    entry_rows = _joined(entries)
    return Judged(
        _joined(slots).astype(np.int64),
        _joined(slot_scores),
        entry_rows.astype(np.int64),
        _joined(entry_scores),
        usual / max(len(entry_rows), 1),
    )


def _joined(parts: list[Float] | list[Int]) -> Float:
    return np.concatenate([np.zeros(0), *parts]).astype(float)


def fitted_plays(lessons: Lessons, scores: Judged) -> tuple[HeadWeights, float]:
    """The weights of the head of plays, by logistic regression on these users, and the loss with them."""
    odds_N = lessons.slots.odds_N[scores.slots]
    played_N = lessons.slots.played_N[scores.slots]
    if not len(odds_N):
        return HeadWeights(), 0.0

    def loss(weights: Float) -> tuple[float, Float]:
        theta_N = weights[0] * odds_N + weights[1] * scores.slot_N + weights[2]
        surplus_N = special.expit(theta_N) - played_N
        value = np.logaddexp(0, theta_N) - played_N * theta_N
        gradient = [surplus_N @ odds_N, surplus_N @ scores.slot_N, surplus_N.sum()]
        return _with_prior(value.sum(), np.array(gradient), weights)

    return _fitted_weights(loss)


def fitted_entries(
    lessons: Lessons, scores: Judged, target: EntryTarget
) -> tuple[HeadWeights, float]:
    """The weights of the head of entries, by the target's likelihood on these users, and the loss with
    them."""
    if not len(scores.entries):
        return HeadWeights(), 0.0
    link_E = _float(lessons.entries.link_E[scores.entries])
    score_E = _float(scores.entry_E)
    rows = torch.as_tensor(scores.entries)

    def loss(weights: Float) -> tuple[float, Float]:
        free = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        value = target.loss(free[0] * link_E + free[1] * score_E + free[2], rows).sum()
        value.backward()
        assert free.grad is not None
        return _with_prior(value.item(), free.grad.double().numpy(), weights)

    return _fitted_weights(loss)


def _with_prior(value: float, gradient: Float, weights: Float) -> tuple[float, Float]:
    away = np.array([weights[0] - 1.0, 0.0, weights[2]])
    return value + 0.5 * BASE_PRIOR * float(away @ away), gradient + BASE_PRIOR * away


def _fitted_weights(
    loss: Callable[[Float], tuple[float, Float]],
) -> tuple[HeadWeights, float]:
    bounds = [(0.3, 2.0), (0.0, 3.0), (-2.0, 2.0)]
    fitted = optimize.minimize(
        loss, np.array([1.0, 0.5, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds
    )
    return HeadWeights(*(float(weight) for weight in fitted.x)), float(fitted.fun)


def _rows(bounds: Int, window_B: Int) -> Int:
    return ranges(bounds[window_B], bounds[window_B + 1] - bounds[window_B])


def _float(values: Float) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
