"""Conversion of a GGUF language model into a folder that Hugging Face loads.

transformers reads the file; what it would pass over in silence is checked here against the file
itself, so that a folder that was written says what the file says: every tensor has its parameter
and every parameter its tensor, every number of the file's shape is in the configuration, and every
token has its id. A file that cannot be shown to be converted whole is refused, with the reason.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gguf import MODEL_ARCH_NAMES, GGUFReader, get_tensor_name_map
from huggingface_hub.errors import StrictDataclassError
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel

from longplay.errors import ConfigError, DataError
from longplay.files import sync_path, sync_tree
from longplay.models.packages import only_one, some

# float32 holds every de-quantised number exactly, bfloat16 rounds
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# what a file states of its shape under `ARCHITECTURE.`, and what a configuration calls it
STATED = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.value_length": "head_dim",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
# llama.cpp's names of GPT-2's pre-tokenizer after a cut around every digit
DIGIT_BY_DIGIT = (
    "smollm",
    "starcoder",
)


@dataclass(frozen=True)
class Converted:
    """A converted model: its folder, and facts about it."""

    folder: Path
    file: Path  # the GGUF file it was made from
    architecture: str  # as the file calls it: "llama"
    parameters: int  # numbers in model.safetensors; tied ones count once
    tokens: int  # size of the vocabulary
    dtype: str
    size_bytes: int  # of the folder

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.architecture}, {self.parameters:,} parameters in {self.dtype}, "
            f"{self.tokens:,} tokens, "
            f"{self.size_bytes / 1e6:,.0f} MB; from {self.file}"
        )


def convert(
    source: str | Path,
    folder: Path,
    dtype: str = "float32",
    tell: Callable[[str], None] | None = None,
) -> Converted:
    """Write the model of a GGUF file as `folder`, for `from_pretrained(folder,
    local_files_only=True)` of model and tokenizer.

    De-quantised numbers are those of `gguf.dequantize`, in `dtype`. Nothing runs that a file brings
    along, and only safetensors and JSON are written (and chat_template.jinja, where there is one).
    `folder` appears whole or not at all. Shown to hold for `llama` files (tests/test_convert.py);
    others pass where transformers loads them and the checks hold. Takes the memory of the whole
    model in `dtype`.

    Args:
        source: a path to a .gguf file, or the name of an installed package with one inside; the
            package is not imported.
        folder: new or empty.
        dtype: "float32" or "bfloat16".
        tell: called with a few words on what is being done.

    Raises:
        ConfigError: no such file or package, a package with several files, a folder that holds
            something, another dtype.
        DataError: the package holds no GGUF, the file is not one, or it holds what would be lost;
            nothing was written.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    tell = tell or (lambda words: None)
    file = gguf_file(source)
    with _appearing(folder) as partial:
        tell(f"reading {file.name}")
        reader = _reader(file)
        fields = {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        if missing := [
            name for name in ("general.architecture", "tokenizer.ggml.tokens") if name not in fields
        ]:
            raise DataError(
                f"{file}: does not state {' and '.join(missing)}; expected a whole language model "
                "with its tokenizer"
            )
        tell("loading the model")
        with (
            TemporaryDirectory() as alone
            # beside a file may lie a configuration, an adapter or code, and transformers would read
            # them
        ):
            (Path(alone) / "model.gguf").symlink_to(file)
            model, tokenizer = _loaded(Path(alone), file, DTYPES[dtype])
        _check_tensors(reader, fields, model, file)
        _check_config(fields, model, file)
        _split_as_learned(tokenizer, fields.get("tokenizer.ggml.pre"), file)
        tell("writing")
        model.save_pretrained(partial)
        # safetensors writes for its owner alone
        shutil.copymode(partial / "config.json", partial / "model.safetensors")
        tokenizer.model_max_length = model.config.max_position_embeddings
        for name in (
            "is_local",
            "local_files_only",
        ):  # notes on how it was loaded are not part of the model
            tokenizer.init_kwargs.pop(name, None)
        tokenizer.save_pretrained(partial)
        tell("checking the tokenizer")
        _check_tokens(fields, partial, file)
        size_bytes = sum(written.stat().st_size for written in partial.iterdir())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Converted(
        folder,
        file,
        fields["general.architecture"],
        parameters,
        len(fields["tokenizer.ggml.tokens"]),
        dtype,
        size_bytes,
    )


def gguf_file(source: str | Path) -> Path:
    """The GGUF file that `source` names: a path, or an installed package with exactly one inside.
    The package is not imported.

    Raises:
        ConfigError: neither is there, or the package holds several.
        DataError: the package holds none.
    """
    path = Path(source)
    return path.resolve() if path.is_file() else only_one(source, "*.gguf", ".gguf file")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` at the end, or is removed. What a killed conversion
    left is removed first."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder}: holds something already; give another folder, or empty it first"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; give a new or an empty folder")
    place = folder.resolve()
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        sync_tree(partial)
        os.replace(partial, place)
        sync_path(place.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _reader(file: Path) -> GGUFReader:
    with file.open("rb") as opened:
        head = opened.read(4)
    if head != b"GGUF":
        raise DataError(f"{file}: not a GGUF file; it begins with {head!r}, expected {b'GGUF'!r}")
    try:
        return GGUFReader(file)
    except (
        ValueError,
        IndexError,
        KeyError,
    ) as error:
        # what the reader runs into where the file ends early
        raise DataError(
            f"{file}: cannot be read as GGUF ({error}); is it whole? Fetch it again"
        ) from error


def _loaded(place: Path, file: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer of `place/model.gguf`. The model's notes on quantisation are removed,
    since it could not be saved with them."""
    how: dict[str, Any] = {"gguf_file": "model.gguf", "local_files_only": True}
    try:
        # else a kernel is fetched from the hub, where the package `kernels` is installed
        plain = GgufConfig(dequantize=True)
        packed = AutoModelForCausalLM.from_pretrained(
            place, **how, dtype=dtype, quantization_config=plain
        )
        tokenizer = AutoTokenizer.from_pretrained(place, **how)
    except (ValueError, NotImplementedError, RuntimeError, StrictDataclassError) as error:
        raise DataError(f"{file}: transformers cannot load it: {error}") from error
    config = packed.config
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):  # weights are replaced, so none are drawn at random
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(packed.state_dict(), assign=True)
    model.tie_weights()
    return model, tokenizer


def _check_tensors(
    reader: GGUFReader, fields: dict[str, Any], model: PreTrainedModel, file: Path
) -> None:
    """Check that every tensor of the file became one parameter, and that every parameter has a
    tensor.

    Where sizes differ, loading has failed before.

    transformers leaves out tensors that it has no place for, such as the `rope_freqs` of Llama 3,
    and draws at random what is not there.
    """
    architecture = next(
        (key for key, name in MODEL_ARCH_NAMES.items() if name == fields["general.architecture"]),
        None,
    )
    if architecture is None:
        raise DataError(
            f"{file}: architecture {fields['general.architecture']!r} is not known to the "
            "installed gguf; pip install --upgrade gguf"
        )
    names = get_tensor_name_map(architecture, model.config.num_hidden_layers)
    file_tensors = {tensor.name for tensor in reader.tensors}
    model_tensors = set[str]()
    for name, _ in model.named_parameters():  # tied ones come once
        module, _, kind = name.rpartition(".")
        model_tensors.add(f"{names.get_name(module) or module}.{kind}")
    for words, missing in (
        ("the model has no place for", file_tensors - model_tensors),
        ("the file has no", model_tensors - file_tensors),
    ):
        if missing:
            raise DataError(
                f"{file}: {words} {some(sorted(missing))}: it would not be the same model. "
                "Nothing was written"
            )


def _check_config(fields: dict[str, Any], model: PreTrainedModel, file: Path) -> None:
    """Check that the configuration agrees with all that the file states.

    An absent feature ("none", 0) counts as not stated.
    """
    prefix = f"{fields['general.architecture']}."
    config = model.config.to_dict()
    config |= config.get("rope_parameters") or {}
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    for name, value in fields.items():
        stated = name.removeprefix(prefix)
        if stated == name or value in ("none", 0):
            continue
        if stated not in STATED:
            raise DataError(
                f"{file}: states {name} = {value!r}, which would be lost: it would not be the "
                "same model. Nothing was written"
            )
        configured = config.get(STATED[stated])
        if not (
            isinstance(value, int | float)
            and isinstance(configured, int | float)
            and math.isclose(configured, value, rel_tol=1e-6)
        ):
            raise DataError(
                f"{file}: states {name} = {value!r}, the configuration would say {STATED[stated]} "
                f"= {configured!r}. Nothing was written"
            )


def _split_as_learned(tokenizer: Any, pre: str | None, file: Path) -> None:
    """Make the tokenizer split text as it was split when its merges were learned.

    transformers takes GPT-2's cut where it does not know a name, and says nothing.
    """
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) or pre == "gpt-2":
        return
    if pre not in DIGIT_BY_DIGIT:
        raise DataError(
            f"{file}: cuts text by {pre!r}, which is not known here: tokens would be others than "
            "it was trained on. Nothing was written"
        )
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def _check_tokens(fields: dict[str, Any], folder: Path, file: Path) -> None:
    """Check that the tokenizer, loaded as users will, has the file's tokens at the file's ids.

    The same goes for its special tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokens = fields["tokenizer.ggml.tokens"]
    wrong = [
        f"{number} {token!r}"
        for number, token in enumerate(tokens)
        if tokenizer.convert_tokens_to_ids(token) != number
    ]
    if wrong or len(tokenizer) != len(tokens):
        raise DataError(
            f"{file}: {len(tokens):,} tokens became {len(tokenizer):,}; not at their id: "
            f"{some(wrong)}. Nothing was written"
        )
    for kind, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        stated = fields.get(f"tokenizer.ggml.{name}_token_id")
        token_id = getattr(tokenizer, f"{kind}_token_id")
        if stated is not None and stated != token_id:
            raise DataError(
                f"{file}: states {name}_token_id = {stated}, the tokenizer would have {token_id}. "
                "Nothing was written"
            )
