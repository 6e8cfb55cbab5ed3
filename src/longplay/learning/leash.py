"""The divergence from the start that a training aims at: measured, and followed by its weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from longplay.decisions import Contexts, context_chance
from longplay.learning.loss import divergence
from longplay.learning.rollout import drawn_leaves
from longplay.learning.trainable import Trainable
from longplay.policies.generative.decoder import Decoder

SAMPLE = 128  # moments on which the divergence is measured
DRAWS = 4  # items drawn for each
EVERY = 5  # steps between measurements
PACE = 10  # steps in which the weight makes up for what was measured
MOST_RATIO = 1.5  # of measured over aimed at, up or down


@dataclass(frozen=True)
class Leash:
    """A divergence to aim at, and how far weights have gone.

    Attributes:
        aim: nats.
        policy: the start.
        sample: moments that it is measured on, the same every time and with the same luck.
        seed: of that luck.
    """

    aim: float
    policy: Trainable
    sample: Contexts
    seed: int

    @classmethod
    def of(cls, aim: float, policy: Trainable, moments: Contexts, seed: int) -> Leash:
        """The leash on a sample of `moments`."""
        rng = np.random.default_rng([seed, 2**32 - 7])
        rows = rng.choice(len(moments), size=min(SAMPLE, len(moments)), replace=False)
        return cls(aim, policy, moments.take(rows), seed)

    def nats(self, tuned: Decoder) -> float:
        """KL(tuned || start) of the law of one item, mean over the sample; see `loss.divergence`."""
        chance = context_chance(self.sample, np.random.default_rng([self.seed, 2**32 - 8]))
        leaves_NG1 = drawn_leaves(
            self.policy, tuned, self.sample, groups=DRAWS, slots=1, chance=chance
        )
        leaves_NG = leaves_NG1[:, :, 0]
        prompts = self.policy.prompts(self.sample)
        shape = *leaves_NG.shape, tuned.trie.width
        with torch.no_grad():
            law, start_law = (
                [of_level.log_p.expand(shape) for of_level in decoder.code_laws(prompts, leaves_NG)]
                for decoder in (tuned, self.policy.decoder)
            )
            codes = torch.from_numpy(tuned.trie.codes[leaves_NG])
            return float(divergence(law, start_law, codes).per_draw.mean())

    def follow(self, kl: float, nats: float, steps: int) -> float:
        """The weight of the divergence once it was measured `steps` after the last time: more where
        weights went too far, less where they did not go far enough (in the manner of Ziegler et al.
        2019, arXiv 1909.08593)."""
        return followed(kl, nats / self.aim, steps)


def followed(kl: float, ratio: float, steps: int) -> float:
    """The weight times (measured over aimed at) to the power of a tenth of the steps. At most a factor
    of `MOST_RATIO` counts, so that the weight does not run away before anything was learned.

    >>> round(followed(1.0, ratio=1.3, steps=10), 6), round(followed(1.0, ratio=0.0, steps=5), 6)
    (1.3, 0.816497)
    """
    return kl * min(max(ratio, 1 / MOST_RATIO), MOST_RATIO) ** (steps / PACE)
