"""longplay's reward and constrained law in TRL's GRPO trainer (tried with TRL 1.16)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longplay.chance import RowChance
from longplay.decisions import Contexts
from longplay.errors import ConfigError, DataError
from longplay.lake.lake import Lake
from longplay.learning.bridges.completions import (
    Spelling,
    context_rows,
    prompt_rows,
    slate_worth,
)
from longplay.learning.loss import slate_log_prob
from longplay.learning.rollout import EarlyRewards
from longplay.learning.trainable import Trainable
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.prompts import Prompts
from longplay.policies.generative.search import beam_slates
from longplay.policies.generative_policy import Generative
from longplay.rewards import Reward

RewardFunction = Callable[..., list[float | None]]
# what `constrained_grpo_trainer` replaces, of TRL's own trainer
REPLACED = (
    "_generate_and_score_completions",
    "_generate_single_turn",
    "_compute_loss",
    "_get_per_token_logps_and_entropies",
)


def trl_reward(
    policy: Trainable,
    reward: Reward,
    early: EarlyRewards,
    lake: Lake,
    contexts: Contexts,
    *,
    invalid: float | None = None,
) -> RewardFunction:
    """A reward function for TRL's trainers:
    `function(prompts, completions, completion_ids=None, **columns) -> list[float | None]`.

    A completion's reward is the cautious value of showing its slate, summed over the slots. Token
    ids are read where the trainer hands them over, else the completion's text
    (`Spelling`). The data set needs a column `context_id` (`prompt_rows` makes one).

    Args:
        policy: whose codes the model speaks.
        reward: objectives and caution; guardrails are not enforced here.
        early: one early reward, or one per signal.
        lake: the past, as of which items are familiar.
        contexts: the contexts of the data set, with ids that differ; a completion has as many items
            as they have slots.
        invalid: the reward of a completion that is no slate that could be shown (see
            `slate_worth`). None: TRL leaves it out of its group, so that it teaches nothing; a
            number teaches a model that is not constrained to write IDs that exist.

    Raises:
        ConfigError: `invalid` is not finite.
    """
    if invalid is not None and not np.isfinite(invalid):
        raise ConfigError(f"trl_reward: invalid={invalid} given, expected a finite number, or None")
    spelling = Spelling.of(policy)
    slots = contexts.slots

    def value_of_showing(
        prompts: Sequence[object],
        completions: Sequence[object],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """The reward of each completion; None or a number where it is invalid."""
        if "context_id" not in columns:
            raise DataError(
                "trl_reward: the data set has no column context_id, by which a reward finds its "
                "context; make it of prompt_rows(policy, contexts)"
            )
        tokens = completion_ids
        if tokens is None:
            tokens = [spelling.parsed(_text(completion)) for completion in completions]
        lengths = {
            "completions": len(completions),
            "completion_ids": len(tokens),
            "context_id": len(columns["context_id"]),
        }
        for name, length in lengths.items():
            if length != len(prompts):
                raise DataError(
                    f"trl_reward: {len(prompts)} prompts but {length} {name}; expected one each"
                )
        row_N = context_rows(contexts, columns["context_id"])
        leaves_NS = spelling.slates(tokens, slots)
        worth_N = slate_worth(policy, reward, early, lake, contexts.take(row_N), leaves_NS)
        log_metric = columns.get("log_metric")
        if log_metric is not None and len(worth_N):
            log_metric("valid", float(np.isfinite(worth_N).mean()))
        return [invalid if np.isnan(worth) else float(worth) for worth in worth_N]

    return value_of_showing


def _text(completion: object) -> str:
    """A completion's text: itself, or what its messages say."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence):
        said = [message.get("content") for message in completion if isinstance(message, Mapping)]
        if len(said) == len(completion) and all(isinstance(content, str) for content in said):
            return " ".join(map(str, said))
    raise DataError(
        f"trl_reward: a completion is {completion!r:.80}, expected text or a list of messages with "
        "text as their content"
    )


def constrained_log_probs(
    policy: Trainable,
    prompts: Prompts,
    completion_ids: Tensor | Sequence[Sequence[int]],
    *,
    slots: int,
    decoder: Decoder | None = None,
) -> Tensor:
    """log pi of each token of completions under the law that `policy.decide` draws from, [N, T],
    float64, differentiable; the sum over a row is the log-probability of its slate.

    A code's probability is over the codes that lead to an item that may be shown. Items of a slate
    are drawn without replacement, and do not read each other: what the items above take away is
    credited to an item's last code. Padding has 0; all tokens of a completion that cannot be drawn
    have -inf.

    Args:
        policy: whose codes these are.
        prompts: N prompts, with what each context may be shown (`policy.prompts(contexts)`).
        completion_ids: N completions of up to T = slots x L tokens, or more with padding behind.
        slots: items per slate.
        decoder: the weights; default the policy's, without gradients of their own.

    Raises:
        DataError: not one completion per prompt, or fewer tokens than a slate has.
    """
    spelling = Spelling.of(policy)
    decoder = policy.decoder if decoder is None else decoder
    tokens = completion_ids.tolist() if isinstance(completion_ids, Tensor) else completion_ids
    levels = decoder.trie.levels
    width = max((len(row) for row in tokens), default=slots * levels)
    if len(tokens) != len(prompts):
        raise DataError(
            f"constrained_log_probs: {len(prompts)} prompts but {len(tokens)} completions; expected "
            "one each"
        )
    if width < slots * levels:
        raise DataError(
            f"constrained_log_probs: completions of {width} tokens given, expected {slots} slots x "
            f"{levels} codes"
        )
    leaves_NS = spelling.slates(tokens, slots)
    in_order_NS = np.sort(leaves_NS, axis=1)
    is_slate_N = (
        (leaves_NS[:, 0] >= 0)
        & (in_order_NS[:, 1:] != in_order_NS[:, :-1]).all(axis=1)
        & prompts.allowed.allows(np.arange(len(tokens))[:, None], np.maximum(leaves_NS, 0)).all(
            axis=1
        )
    )
    valid = np.flatnonzero(is_slate_N)
    log_p_NT = torch.zeros((len(tokens), width), dtype=torch.float64)
    log_p_NT[torch.from_numpy(~is_slate_N)] = -torch.inf
    if not len(valid):
        return log_p_NT
    code_VSL = decoder.code_log_prob(prompts.take(valid), leaves_NS[valid])
    item_VS = code_VSL.sum(dim=2)
    last_VS1 = code_VSL[:, :, -1:] + (slate_log_prob(item_VS) - item_VS)[:, :, None]
    of_valid = torch.cat([code_VSL[:, :, :-1], last_VS1], dim=2).flatten(1)
    padded = torch.nn.functional.pad(of_valid, (0, width - of_valid.shape[1]))
    return log_p_NT.index_copy(0, torch.from_numpy(valid), padded)


def constrained_grpo_trainer() -> type[Any]:
    """A subclass of `trl.GRPOTrainer` whose completions are slates drawn under the constrained law,
    and whose log-probabilities are those of that law, so that what is sampled is what is trained.

        trainer = constrained_grpo_trainer()(policy, reward, early, lake, contexts, args=GRPOConfig(...))
        trainer.train()
        tuned = trainer.tuned()

    Its arguments: those of `trl_reward`; `args`, a `GRPOConfig` whose temperature is not read, as
    contexts have one; `seed` of the draws; and whatever else `GRPOTrainer` takes. It trains all
    weights, also those of a pretrained base, on one process. Entropies that TRL logs are estimated by
    -log pi of what was drawn. `longplay.reinforce` needs less: it credits every slot with what
    comes from it on, does not divide by the group's deviation, and enforces guardrails.

    Raises:
        ConfigError: TRL is not installed, or its trainer has other methods than it had; of the
            trainer, more than one process.
        DataError: of the trainer, a context that leaves fewer items than it has slots.
    """
    try:
        from datasets import Dataset  # pyright: ignore[reportMissingImports]
        from trl import GRPOTrainer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError("TRL is not installed: pip install 'longplay[trl]'") from error
    missing = [name for name in REPLACED if name not in vars(GRPOTrainer)]
    if missing:
        raise ConfigError(
            f"TRL's GRPOTrainer has no method {missing[0]}; install the version that this was "
            "written for: pip install 'trl==1.16'"
        )

    class ConstrainedGRPOTrainer(GRPOTrainer):
        """See `constrained_grpo_trainer`."""

        def __init__(
            self,
            policy: Generative,
            reward: Reward,
            early: EarlyRewards,
            lake: Lake,
            contexts: Contexts,
            *,
            args: Any,
            seed: int = 0,
            **further: Any,
        ) -> None:
            left_N = policy.allowed(contexts).count()
            if left_N.min(initial=contexts.slots) < contexts.slots:
                row = int(np.argmin(left_N))
                raise DataError(
                    f"bridge: context {contexts.frame['context_id'][row]!r} asks for "
                    f"{contexts.slots} slots but only {int(left_N[row])} items may be shown; ask for "
                    "fewer slots, or leave such contexts out"
                )
            self.policy = policy
            self.contexts = contexts
            self.spelling = Spelling.of(policy)
            self.draws = np.random.default_rng([seed, 11])
            self.row_N = np.zeros(0, dtype=np.int64)
            # TRL would load the reference from the hub, by the name of the model: it is the start
            without_reference = copy.copy(args)
            without_reference.beta = 0.0
            super().__init__(
                model=copy.deepcopy(policy.decoder.model),
                reward_funcs=trl_reward(policy, reward, early, lake, contexts),
                args=without_reference,
                train_dataset=Dataset.from_list(prompt_rows(policy, contexts)),
                processing_class=self.spelling.tokenizer(),
                **further,
            )
            self.beta = args.beta
            self.ref_model = policy.decoder.model if args.beta else None
            if self.accelerator.num_processes > 1:
                raise ConfigError(
                    f"{self.accelerator.num_processes} processes given; the constrained law reads "
                    "the model itself, past what spreads it over processes: train on one"
                )

        def decoder_of(self, model: Any) -> Decoder:
            """The policy's decoder with the weights of `model`."""
            plain = self.accelerator.unwrap_model(model)
            start = self.policy.decoder
            return Decoder(plain, start.trie, start.vocabulary, item_token_I=start.item_token_I)

        def tuned(self) -> Generative:
            """The policy with the weights as trained so far, under the rule of exclusions that the
            contexts state."""
            model = copy.deepcopy(self.accelerator.unwrap_model(self.model)).eval()
            rules = self.contexts.frame["exclusion_rule"].unique().to_list()
            tuned = self.policy.with_model(model)
            if len(rules) == 1 and rules[0] is not None:
                return replace(tuned, exclude=rules[0], rule=rules[0], also_under=None)
            return tuned

        def _generate_and_score_completions(
            self, inputs: list[Mapping[str, Any]]
        ) -> dict[str, Any]:
            names = [example["context_id"] for example in inputs]
            self.row_N = context_rows(self.contexts, names)
            row_N = torch.from_numpy(self.row_N)
            return super()._generate_and_score_completions(inputs) | {"context_row": row_N}

        def _generate_single_turn(
            self, prompt_ids: list[list[int]], *_: Any, **__: Any
        ) -> tuple[list[list[int]], None]:
            bits = self.draws.integers(0, 2**64, size=len(self.row_N), dtype=np.uint64)
            drawn = beam_slates(
                self.decoder_of(self.model),
                self.policy.prompts(self.contexts.take(self.row_N)),
                groups=1,
                slots=self.contexts.slots,
                chance=RowChance(bits),
            )
            return self.spelling.tokens(drawn.leaves[:, 0]).tolist(), None

        def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
            self.row_N = inputs["context_row"].cpu().numpy()
            return super()._compute_loss(model, inputs)

        def _get_per_token_logps_and_entropies(
            self,
            model: Any,
            input_ids: Tensor,
            attention_mask: Tensor,
            logits_to_keep: int,
            *_: Any,
            compute_entropy: bool = False,
            **__: Any,
        ) -> tuple[Tensor, Tensor | None, None]:
            log_p = constrained_log_probs(
                self.policy,
                self.policy.prompts(self.contexts.take(self.row_N)),
                input_ids[:, -logits_to_keep:],
                slots=self.contexts.slots,
                decoder=self.decoder_of(model),
            ).float()
            return log_p, -log_p.detach() if compute_entropy else None, None

    return ConstrainedGRPOTrainer
