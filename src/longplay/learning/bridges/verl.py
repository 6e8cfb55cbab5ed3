"""longplay's reward as a custom reward function of verl (tried with verl 0.9.1's call)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from longplay.decisions import Contexts
from longplay.errors import ConfigError
from longplay.lake.lake import Lake
from longplay.learning.bridges.completions import Spelling, context_rows, slate_worth
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainable import Trainable
from longplay.rewards import Reward

ComputeScore = Callable[..., float]


def verl_reward(
    policy: Trainable,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    contexts: Contexts,
    *,
    invalid: float,
) -> ComputeScore:
    """A function with the signature of verl's custom reward functions:
    `compute_score(data_source, solution_str, ground_truth, extra_info=None) -> float`.

    verl loads it from a file of yours (`reward.custom_reward_function.path` and `.name`):

        compute_score = verl_reward(policy, reward, early, lake, contexts, invalid=-1.0)

    The score of a completion is the cautious value of showing its slate, summed over the slots. The
    context is named by `ground_truth` (`reward_model.ground_truth` of the data set), or by
    `extra_info["context_id"]` where that is given. verl decodes a completion by the model's
    tokenizer, which must write codes as `Spelling` does: save `Spelling.of(policy).tokenizer()`
    beside the model.

    Args:
        policy: whose codes the model speaks.
        reward: objectives and caution; guardrails are not enforced here.
        early: one early reward, or one per signal.
        lake: the past, as of which items are familiar.
        contexts: the contexts of the data set, with ids that differ; a completion has as many items
            as they have slots.
        invalid: the score of a completion that is no slate that could be shown. verl needs a number;
            it should lie below what slates are worth.

    Raises:
        ConfigError: `invalid` is not finite.
    """
    if not np.isfinite(invalid):
        raise ConfigError(f"verl_reward: invalid={invalid} given, expected a finite number")
    spelling = Spelling.of(policy)
    slots = contexts.slots

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: object,
        extra_info: Mapping[str, Any] | None = None,
        **_: object,
    ) -> float:
        """The reward of one completion; `data_source` is not read."""
        context_id = (extra_info or {}).get("context_id", ground_truth)
        row = context_rows(contexts, [context_id])
        leaves_1S = spelling.slates([spelling.parsed(solution_str)], slots)
        worth_1 = slate_worth(policy, reward, early, lake, contexts.take(row), leaves_1S)
        return float(invalid if np.isnan(worth_1[0]) else worth_1[0])

    return compute_score
