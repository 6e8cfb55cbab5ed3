"""The policy gradient, as pure functions: slate log-probabilities, leave-one-out advantages, the
loss."""

from __future__ import annotations

import torch
from torch import Tensor

from longplay.errors import DataError


def slate_log_prob(item_log_prob: Tensor) -> Tensor:
    """Log-probability of every slot given the slots before it, same shape [..., S], float64,
    differentiable.

    log pi(a_s) - log(1 - sum_{j<s} pi(a_j)): the Plackett-Luce law of slates drawn without
    replacement (Plackett 1975). The denominators carry gradient too: dropping them turns it (cosine
    .82). As in `policies.plackett`, the mass left before a slot is summed from the small
    end.

    >>> slate_log_prob(torch.log(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))).exp().round(decimals=6).tolist()
    [0.5, 0.6, 1.0]
    """
    log_p = item_log_prob.double()
    taken = torch.exp(log_p).sum(dim=-1, keepdim=True)
    # a slate may hold all that is allowed, up to rounding: then no mass is left outside, and no
    # gradient flows back from there
    log_rest = torch.where(taken < 1, torch.log1p(-taken.clamp(max=1 - 1e-16)), -torch.inf)
    log_slots = torch.logcumsumexp(log_p.flip(-1), dim=-1).flip(-1)
    return log_p - torch.logaddexp(log_slots, log_rest)


def reward_to_go(reward: Tensor) -> Tensor:
    """Sum of the rewards of a slot and of the slots after it, [..., S]: the part of the reward that
    the slot can change.

    >>> reward_to_go(torch.tensor([1.0, 2.0, 4.0])).tolist()
    [7.0, 6.0, 4.0]
    """
    return reward.flip(-1).cumsum(-1).flip(-1)


def leave_one_out(value: Tensor) -> Tensor:
    """`value[N, G, ...]` less the mean of the other members of its group, same shape.

    Unbiased for groups drawn independently (Kool et al. 2019; RLOO, Ahmadian et al. 2024, arXiv
    2402.14740): the baseline does not depend on the member it is subtracted from. No division by
    the group's standard deviation, which biases.

    >>> leave_one_out(torch.tensor([[1.0, 0.0, 2.0]])).tolist()
    [[0.0, -1.5, 1.5]]

    Raises:
        DataError: groups of one have no others.
    """
    groups = value.shape[1]
    if groups < 2:
        raise DataError(
            f"leave_one_out: groups of {groups} given, expected at least 2 completions per context"
        )
    return (value - value.mean(dim=1, keepdim=True)) * groups / (groups - 1)


def policy_loss(slot_log_prob: Tensor, reward: Tensor, reference: Tensor, kl: float) -> Tensor:
    """The loss whose gradient is minus that of E[sum of rewards] - kl * KL(policy || reference),
    estimated without bias.

    Args:
        slot_log_prob: log-probabilities of the drawn slots under the policy, [N, G, S], with
            gradient.
        reward: reward of each slot, [N, G, S].
        reference: log-probabilities under the start, [N, G, S].
        kl: weight of the divergence between slate laws, in the unit of the reward.

    The divergence enters as a reward, -kl * (log p - log p_ref) per slot, so that its gradient is
    exact too. A slot is credited with what comes from it on; the baseline is the others of the
    group.
    """
    penalised = reward - kl * (slot_log_prob.detach() - reference)
    advantage = leave_one_out(reward_to_go(penalised))
    return -(advantage * slot_log_prob).sum(dim=-1).mean()
