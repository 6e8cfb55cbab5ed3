"""Inference passes of Qwen3, Llama and similar models, equal to those of Transformers but faster.

A small model's pass over a few tokens is mostly what surrounds its arithmetic, and whoever waits
for one state needs the last block for it alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import Cache
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from longplay.policies.generative.fast.kernels import mapped

HIDDEN = -1e9  # additive attention mask


def passable(body: nn.Module) -> bool:
    """Whether `states_of` can compute the pass of this model: an unchanged Qwen3 or Llama body in
    float32 on a CPU.

    Its linear maps may be any modules, those of LoRA for example. Hooks on blocks and on what is in
    them are not called.
    """
    if type(body) not in (Qwen3Model, LlamaModel):
        return False
    config: Any = body.config
    embed: Any = body.embed_tokens
    return (
        embed.weight.dtype == torch.float32
        and embed.weight.device.type == "cpu"
        and config.hidden_act == "silu"
        and not (body.training and config.attention_dropout)
        and set(config.to_dict().get("layer_types") or ["full_attention"]) == {"full_attention"}
    )


def states_of(
    body: Any,
    states: Tensor,
    mask: Tensor | None,
    position: Tensor,
    cache: Cache | None,
    at: Tensor | None = None,
) -> Tensor:
    """Hidden states [N, T, H] of a `passable` body from embeddings `states[N, T, H]`; with `at[N]`,
    of these tokens alone, [N, 1, H].

    Args:
        body: the model without its head.
        states: embeddings, [N, T, H].
        mask: additive, [N or 1, 1, T, tokens in the cache + T]; none: causal over tokens of which
            none is cached.
        position: [N, T].
        cache: receives the keys and values of all T tokens, whatever `at` is.
        at: cannot be given with a mask.
    """
    cos, sin = body.rotary_emb(states, position)
    half = sin.shape[-1] // 2
    # of every head
    turn = (
        cos[:, :, None],
        torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)[:, :, None],
    )
    row = torch.arange(states.shape[0])
    for number, block in enumerate(body.layers):
        attention = block.self_attn
        normed = _normed(states, block.input_layernorm)
        heads = -1, attention.head_dim
        norms = dict(attention.named_children())  # Llama's attention has none
        keys = _turned(
            _normed(
                mapped(normed, attention.k_proj).unflatten(-1, heads),
                norms.get("k_norm"),
            ),
            turn,
        )
        values = mapped(normed, attention.v_proj).unflatten(-1, heads)
        keys = keys.transpose(1, 2)
        values = values.transpose(1, 2)
        if cache is not None:
            keys, values = cache.update(keys, values, number)
        # nothing reads the other tokens' states
        if at is not None and number + 1 == len(body.layers):
            states = states[row, at][:, None]
            normed = normed[row, at][:, None]
            turn = turn[0][row, at][:, None], turn[1][row, at][:, None]
            mask = torch.where(torch.arange(keys.shape[2]) <= at[:, None], 0.0, HIDDEN)[
                :, None, None
            ]
        queries = _turned(
            _normed(
                mapped(normed, attention.q_proj).unflatten(-1, heads),
                norms.get("q_norm"),
            ),
            turn,
        ).transpose(1, 2)
        mixed = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=attention.scaling,
            enable_gqa=attention.num_key_value_groups > 1,
        )
        states = mapped(mixed.transpose(1, 2).flatten(2), attention.o_proj).add_(states)
        normed = _normed(states, block.post_attention_layernorm)
        opened = silu(mapped(normed, block.mlp.gate_proj), inplace=True).mul_(
            mapped(normed, block.mlp.up_proj)
        )
        states = mapped(opened, block.mlp.down_proj).add_(states)
    return _normed(states, body.norm)


def _normed(states: Tensor, norm: Any) -> Tensor:
    """Root mean square normalisation over the last axis; unchanged where the model has no norm
    here."""
    if norm is None:
        return states
    return rms_norm(states, (states.shape[-1],), norm.weight, norm.variance_epsilon)


def _turned(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of `heads[N, T, heads, D]`. `turn` holds cosines, and sines whose
    first half has its sign turned."""
    half = heads.shape[-1] // 2
    return (heads * turn[0]).addcmul_(
        torch.cat((heads[..., half:], heads[..., :half]), dim=-1), turn[1]
    )
