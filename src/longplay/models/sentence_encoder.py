"""Item vectors from a sentence encoder in a local folder, loaded without network or remote code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.codes.text import WHOLE_MOST, cleaned
from longplay.errors import DataError, MissingExtra
from longplay.models.packages import only_one, some

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODULES = "modules.json"  # what sentence-transformers calls the list of a folder's parts
OWN = "sentence_transformers."  # whose classes may run
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
CHUNK = 16  # batches between two words of progress


def sentence_vectors(
    texts: pl.Series | Iterable[str | None],
    encoder: str | Path,
    *,
    batch: int = 32,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Unit vectors [I, dim] of `texts` by a sentence encoder (Reimers & Gurevych 2019, arXiv
    1908.10084); zero rows for texts without words.

    Texts are cleaned (`codes.text.clean`). What they spell like a special token ("[SEP]", "</s>")
    is read as text, or where the tokenizer knows it as one piece only, not at all. An encoder reads
    as many tokens as it was made for; what follows is not read. all-MiniLM-L6-v2 on one thread
    reads about 300 titles, or 14 texts of 256 tokens, per second.

    Args:
        texts: such as `codes.text.item_text`.
        encoder: a folder or an installed package with one (`encoder_folder`).
        batch: texts read at once.
        device: of PyTorch, e.g. `cpu`.
        progress: called with (texts read, all).

    Raises:
        ConfigError, DataError: see `encoder_folder`.
        DataError: the library cannot load the folder, or the vectors are not finite.
        MissingExtra: sentence-transformers is not installed.
    """
    folder = encoder_folder(encoder)
    shown = cleaned(texts, WHOLE_MOST)
    place = np.flatnonzero((shown != "").to_numpy())
    place = place[
        np.argsort(-shown.str.len_chars().to_numpy()[place].astype(np.int64), kind="stable")
    ]  # long ones first: little is padding
    model = _loaded(folder, device)
    vectors = np.zeros((len(shown), model.get_embedding_dimension() or 0), dtype=np.float32)
    for start in range(0, len(place), batch * CHUNK):
        rows = place[start : start + batch * CHUNK]
        marked = {"text": {"return_special_tokens_mask": True}}  # for `_unread`
        vectors[rows] = model.encode(
            shown.gather(rows).to_list(),
            batch_size=batch,
            show_progress_bar=False,
            processing_kwargs=marked,
        )
        if progress is not None:
            progress(start + len(rows), len(place))
    if not np.isfinite(vectors).all():
        raise DataError(
            f"{folder}: {int((~np.isfinite(vectors)).any(axis=1).sum()):,} of {len(vectors):,} "
            "vectors are not finite; are its weights whole?"
        )
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def encoder_folder(source: str | Path, base: Path = Path()) -> Path:
    """The folder of the sentence encoder that `source` names: a path, or an installed package with
    exactly one inside.

    A relative path starts at `base`. The package is not imported, and neither is torch.

    Raises:
        ConfigError: no such folder or package, or the package holds several encoders.
        DataError: it holds none, or one with code of its own or with weights that are not
            safetensors.
    """
    path = base / source
    if path.is_dir():
        folder = path.resolve()
        if not (folder / MODULES).is_file():
            raise DataError(
                f"{source}: holds no {MODULES}; expected a folder that sentence-transformers has "
                "saved"
            )
    else:
        folder = only_one(source, MODULES, "sentence encoder", folder=True)
    _check_parts(folder)
    return folder


def _check_parts(folder: Path) -> None:
    """Check that every part is a class of sentence-transformers, and that no part has only pickled
    weights."""
    try:
        parts = [
            (str(part["type"]), str(part["path"]))
            for part in json.loads((folder / MODULES).read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{folder / MODULES}: is not a list of parts with type and path ({error}); fetch the "
            "folder again"
        ) from error
    if foreign := [kind for kind, _ in parts if not kind.startswith(OWN)]:
        raise DataError(
            f"{folder}: its part {foreign[0]} is code from outside sentence-transformers, which "
            "is not run; take an encoder without"
        )
    places = [folder / path for _, path in parts]
    for place in places:
        if (pickled := [file.name for kind in PICKLES for file in place.glob(kind)]) and not any(
            place.glob("*.safetensors")
        ):
            raise DataError(
                f"{place}: has its weights as {some(sorted(pickled))} only, a pickle, which can "
                "run code; "
                "take the encoder with safetensors, or save it so where you trust it: "
                "SentenceTransformer(folder).save(new_folder)"
            )
    if not any(file for place in places for file in place.glob("*.safetensors")):
        raise DataError(f"{folder}: holds no weights (*.safetensors); is it whole?")


def _loaded(folder: Path, device: str) -> SentenceTransformer:
    """The encoder. Special tokens that are spelled out in a text are treated as text."""
    try:
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Transformer
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"words from a sentence encoder need {error.name}: pip install 'longplay[llm]'"
        ) from error
    import torch

    try:
        with _quiet():
            model = SentenceTransformer(
                str(folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                processor_kwargs={"split_special_tokens": True},
            )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise DataError(f"{folder}: sentence-transformers cannot load it: {error}") from error
    first = model[0]
    if not isinstance(first, Transformer) or first.tokenizer is None:
        raise DataError(
            f"{folder}: begins with {type(first).__name__}; expected a Transformer, whose "
            "tokenizer can be told what is text"
        )
    model.register_forward_pre_hook(_unread(first.tokenizer))
    return model


def _unread(tokenizer: Any) -> Callable[[Any, tuple[dict[str, Any]]], None]:
    """A hook that keeps the model from attending to special tokens that come from a text.

    `split_special_tokens` does not look for special tokens in a text, but the tokenizer's own model
    still may: a Unigram vocabulary holds "</s>" as a piece like any other.
    """
    import torch

    special_ids = {
        number for number, token in tokenizer.added_tokens_decoder.items() if token.special
    } | set(tokenizer.all_special_ids)
    # the token of unknown words comes from the text
    special = torch.tensor(sorted(special_ids - {tokenizer.unk_token_id}), dtype=torch.long)

    def hook(module: Any, arguments: tuple[dict[str, Any]]) -> None:
        features = arguments[0]
        added_mask = features.pop("special_tokens_mask", None)  # 1: the tokenizer put it there
        if added_mask is None or features["attention_mask"].shape != added_mask.shape:
            raise DataError(
                "sentences: this encoder's tokenizer does not tell its own special tokens from "
                "those of a text; take another encoder"
            )
        ids = features["input_ids"]
        smuggled = torch.isin(ids, special.to(ids.device)) & (added_mask == 0)
        features["attention_mask"] = features["attention_mask"].masked_fill(smuggled, 0)
        if tokenizer.unk_token_id is not None:
            features["input_ids"] = ids.masked_fill(smuggled, tokenizer.unk_token_id)

    return hook


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without transformers' own progress bar while weights load."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
