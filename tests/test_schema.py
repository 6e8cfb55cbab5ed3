"""The JSON schema of run.toml: what editors accept is what `load_config` reads."""

from __future__ import annotations

import copy
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from longplay.cli import app
from longplay.errors import ConfigError
from longplay.run import RunConfig
from longplay.run.config import parse_config
from longplay.run.config_schema import config_schema
from longplay.signals import READY
from longplay.signals.declare.measure import MEASURE_KINDS

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "template": resources.files("longplay.run").joinpath("template.toml").read_text(),
    "demo": resources.files("longplay.run").joinpath("demo.toml").read_text(),
    **{file.name: file.read_text() for file in sorted((ROOT / "examples").glob("*.toml"))},
}


def accepts(table: dict[str, Any]) -> bool:
    """Whether an editor accepts it. `jsonschema` is not ours: altair brings it."""
    jsonschema = pytest.importorskip("jsonschema")
    values = json.loads(json.dumps(table, default=str))  # dates, as editors read them
    return jsonschema.Draft7Validator(config_schema()).is_valid(values)


def reads(text: str) -> bool:
    try:
        parse_config(text, "run.toml")
    except ConfigError:
        return False
    return True


def test_the_command_prints_the_schema_and_nothing_else() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == config_schema()


def test_the_schema_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(config_schema())


@pytest.mark.parametrize("name", FILES)
def test_our_files_are_accepted(name: str) -> None:
    assert reads(FILES[name])
    assert accepts(tomllib.loads(FILES[name]))


def test_the_template_names_the_schema_where_the_docs_put_it() -> None:
    first = FILES["template"].splitlines()[0]
    assert first == "#:schema ./longplay.schema.json"
    assert "longplay schema > longplay.schema.json" in FILES["template"]
    assert "longplay schema > longplay.schema.json" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 7", "sed = 7"),
        ("[reinforce]", "[reinfroce]"),
        ("users = 6000", "users = 0"),
        ("users = 6000", 'users = "many"'),
        ('exclude = "none"', 'exclude = "some"'),
        ('kind = "days_with"', 'kind = "dayz_with"'),
        ("novel_for = 28", "novl_for = 28"),
        ("window = [0, 0]", "window = [0]"),
        ('origin = ["recommended"]', 'origin = ["paid"]'),
        ("[simulate]", '[ingest]\npath = "x.csv"\n[simulate]'),
        ('north_star = "active"', ""),
    ],
)
def test_a_mistake_is_refused_by_both(old: str, new: str) -> None:
    text = FILES["demo"]
    assert text.count(old) >= 1
    wrong = text.replace(old, new, 1)
    assert not reads(wrong)
    assert not accepts(tomllib.loads(wrong))


def test_every_ready_signal_is_accepted() -> None:
    demo = tomllib.loads(FILES["demo"])
    for name, signal in READY.items():
        table = copy.deepcopy(demo)
        table["signals"] |= tomllib.loads(signal.to_toml())["signals"]
        assert accepts(table), name


def test_every_key_of_every_table_stands_in_it() -> None:
    """Without any validator: the schema has the fields of the models, and every kind of measure."""
    schema = config_schema()

    def properties(table: dict[str, Any]) -> dict[str, Any]:
        for part in (table, *table.get("allOf", [])):
            if "$ref" in part:
                return schema["$defs"][part["$ref"].rpartition("/")[2]]["properties"]
        return table["properties"]

    assert set(schema["properties"]) == set(RunConfig.model_fields)
    for name, field in RunConfig.model_fields.items():
        options = getattr(field.annotation, "__args__", (field.annotation,))
        models = [
            kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        for model in models:
            assert set(properties(schema["properties"][name])) == set(model.model_fields)
    signal = schema["properties"]["signals"]["additionalProperties"]
    assert signal["properties"]["measure"]["anyOf"][0]["enum"] == list(MEASURE_KINDS)
    assert '"null"' not in json.dumps(schema)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users = 6000", "usres = 6000", "simulate.usres: unknown key; did you mean 'users'?"),
        ("entry = {", "entri = {", "did you mean 'entry'?"),
        ("novel_for = 28", "novl_for = 28", "did you mean 'novel_for'?"),
        ('kind = "days_with"', 'kind = "dayz_with"', "did you mean 'days_with'?"),
        ('kind = "discovery"', 'kind = "discovry"', "did you mean 'discovery'?"),
        ("objectives = { habit", "objectives = { habbit", "did you mean 'habit'?"),
    ],
)
def test_a_mistyped_key_is_told_the_key_that_is_meant(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(FILES["demo"].replace(old, new, 1), "run.toml")
    assert message in str(error.value)
