"""The policy gradient, as pure functions: slate log-probabilities, leave-one-out advantages, the
loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def policy_loss(slot_log_prob: Tensor, reward: Tensor) -> Tensor:
    """The loss whose gradient is minus that of E[sum of rewards], estimated without bias.

    Args:
        slot_log_prob: log-probabilities of the drawn slots under the policy, [N, G, S], with
            gradient.
        reward: reward of each slot, [N, G, S].

    A slot is credited with what comes from it on; the baseline is the others of the group.
    """
    advantage = leave_one_out(reward_to_go(reward))
    return -(advantage * slot_log_prob).sum(dim=-1).mean()


@dataclass(frozen=True)
class Divergence:
    """KL(policy || start) of the law of one item, from items that the policy drew.

    Attributes:
        per_draw: its estimate from each drawn item, [N, G], nats: the sum over levels of the exact
            divergence of the next code, given the codes before it.
        loss: scalar whose gradient is that of its mean, without bias.
    """

    per_draw: Tensor
    loss: Tensor


def divergence(
    policy_log_p: Sequence[Tensor], start_log_p: Sequence[Tensor], codes: Tensor
) -> Divergence:
    """The divergence of a law of items from the start's, code by code.

    At every prefix of a drawn item the divergence of all codes is summed exactly, so that it is 0
    where the laws are equal, whatever was drawn; the log-ratio of the drawn code alone would be as
    noisy there as anywhere. A prefix is drawn by the policy, so it carries the divergence below it
    as a cost: the score function times what comes after, less the mean of the group's others.

    Args:
        policy_log_p: per level, log-probabilities of the next code, [N, G, K], -inf where not
            allowed, with gradient.
        start_log_p: the same under the start.
        codes: the drawn items' codes, [N, G, L], integers.
    """
    at_level = []
    drawn_log_p = []
    for level, (log_p, log_start) in enumerate(zip(policy_log_p, start_log_p, strict=True)):
        # a code without probability under either adds nothing
        is_possible = torch.isfinite(log_p)
        ratio = torch.where(is_possible, log_p, 0.0) - torch.where(is_possible, log_start, 0.0)
        at_level.append((torch.where(is_possible, log_p, -torch.inf).exp() * ratio).sum(dim=-1))
        drawn_log_p.append(log_p.gather(-1, codes[..., level, None])[..., 0])
    kl_NGL = torch.stack(at_level, dim=-1)
    below_NGL = reward_to_go(kl_NGL.detach()) - kl_NGL.detach()
    score = leave_one_out(below_NGL) * torch.stack(drawn_log_p, dim=-1)
    per_draw = kl_NGL.sum(dim=-1)
    return Divergence(per_draw.detach(), (per_draw + score.sum(dim=-1)).mean())
