"""A pretrained language model as the base, extended by semantic IDs and adapted with LoRA."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from longplay.codes.codebook import Codebook
from longplay.errors import ConfigError
from longplay.policies.generative.decoder import Decoder, load_model
from longplay.policies.generative.texts import Described, Words
from longplay.policies.generative.vocabulary import Vocabulary

RANK = 8
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load_base(folder: Path) -> tuple[PreTrainedModel, Words]:
    """Model (in float32) and tokenizer of a local Hugging Face folder; safetensors only, no remote
    code.

    Raises:
        ConfigError: no folder with a configuration and safetensors.
    """
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ConfigError(
            f"base: {folder} holds no config.json with .safetensors; give a Hugging Face model "
            "folder, or make one: longplay lm convert SOURCE FOLDER"
        )
    return load_model(folder), Words.load(folder)


def with_tokens(
    model: PreTrainedModel,
    words: Words,
    codebook: Codebook,
    described: Described,
    seed: int,
    circumstances: int = 0,
) -> PreTrainedModel:
    """The base with new tokens for codes, markers and circumstances. `model` is changed in place.

    A code begins as the mean of the words of the items that have it, at the length that words have:
    items that are described alike are near each other before anything is learned. What no item
    describes begins at random.
    """
    old = len(weight_of(model.get_input_embeddings()))
    vocabulary = Vocabulary(codebook.levels, codebook.width, old, circumstances)
    rng = np.random.default_rng(seed)
    table = weight_of(model.get_input_embeddings()).detach().numpy()
    mean = table.mean(axis=0)
    length = float(np.median(np.linalg.norm(table - mean, axis=1)))
    texts = words.texts([described.words(leaf) for leaf in range(len(codebook.items))])
    row = np.repeat(np.arange(len(codebook.items)), texts.count)
    sums = np.zeros((len(codebook.items), table.shape[1]))
    np.add.at(sums, row, table[texts.tokens] - mean)
    items = sums / np.maximum(texts.count, 1)[:, None]
    items -= items[texts.count > 0].mean(axis=0) if (texts.count > 0).any() else 0
    new = rng.normal(size=(len(vocabulary) - old, table.shape[1]))
    new *= length / np.linalg.norm(new, axis=1, keepdims=True)
    for level in range(codebook.levels):
        for code in np.unique(codebook.codes[:, level]):
            direction = items[codebook.codes[:, level] == code].mean(axis=0)
            if (size := float(np.linalg.norm(direction))) > 1e-9:
                place = vocabulary.code(level) + int(code) - old
                new[place] = 0.9 * length * direction / size + 0.1 * new[place]
    model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    _set_rows(model, old, torch.from_numpy(mean + new))
    return model


def half_is_quick() -> bool:
    """Whether this processor multiplies bfloat16 natively, which makes training twice as fast."""
    if "_is_avx512_bf16_supported" not in dir(torch.cpu):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported())


def adapted(decoder: Decoder, seed: int) -> Decoder:
    """A copy of a decoder with a base, whose LoRA matrices (Hu et al. 2021, arXiv 2106.09685) and
    new tokens are trainable.

    The frozen weights are bfloat16 where that is quick; what is trained is float32.
    """
    model = copy.deepcopy(decoder.model)
    words = decoder.vocabulary.words
    rows = nn.Parameter(weight_of(model.get_input_embeddings())[words:].detach().clone().float())
    if half_is_quick():
        model.bfloat16()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = _with_lora(model)
    inside: Any = wrapped.get_base_model()
    user_map = copy.deepcopy(decoder.user_map)
    return Decoder(inside, decoder.trie, decoder.vocabulary, rows, user_map=user_map)


def merged(decoder: Decoder, tuned: Decoder) -> PreTrainedModel:
    """The base of `decoder` with what `adapted` learned, as a plain model in float32."""
    assert tuned.rows is not None
    model = copy.deepcopy(decoder.model)
    wrapped = _with_lora(model)
    learned: dict[str, Tensor] = {
        f"base_model.model.{name}": value for name, value in _lora_of(tuned.model).items()
    }
    loaded = set_peft_model_state_dict(wrapped, learned)
    if loaded.unexpected_keys:
        raise ConfigError(
            f"base: adapters given for {loaded.unexpected_keys[:3]}, which this model does not have; "
            "merge the decoder that `adapted` made of it"
        )
    plain: Any = wrapped.merge_and_unload()
    _set_rows(plain, decoder.vocabulary.words, tuned.rows)
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    return plain.eval()


def weight_of(module: Any) -> Tensor:
    """The weight of a layer that has one."""
    return module.weight


@torch.no_grad()
def _set_rows(model: PreTrainedModel, first: int, rows: Tensor) -> None:
    """Write the input and output embeddings of the tokens from `first` on."""
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight_of(layer)[first:] = rows.to(weight_of(layer).dtype)


def _lora_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """The LoRA matrices inside a model, by name, in float32."""
    return {
        name.replace(".default", ""): value.detach().float()
        for name, value in model.named_parameters()
        if "lora_" in name
    }


def _with_lora(model: PreTrainedModel) -> Any:
    """Add LoRA matrices to `model` in place, and freeze its other weights."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [name for name in ADAPTED if name in names]
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=targets or "all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by the old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, config)
