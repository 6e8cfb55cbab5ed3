"""The JSON schema of run.toml, derived from the tables that read it; editors complete and check by
it."""

from __future__ import annotations

from typing import Any

from longplay.lake.schema import ORIGINS
from longplay.run.config import RunConfig
from longplay.run.tables import FIT
from longplay.run_policies import arm_names, run_policies
from longplay.signals.declare.entry import ENTRY_FIELDS, ENTRY_KINDS
from longplay.signals.declare.measure import BETTER, MEASURE_FIELDS, MEASURE_KINDS

DRAFT = "http://json-schema.org/draft-07/schema#"  # what editors of TOML read


def config_schema() -> dict[str, Any]:
    """The JSON schema (draft 7) of run.toml, as plain values.

    It covers tables, keys, types, ranges, and the names of entries and measures. Only `load_config`
    checks that tables fit each other.

    >>> sorted(config_schema()["required"])
    ['reward', 'run', 'signals']
    >>> config_schema()["properties"]["signals"]["additionalProperties"]["required"]
    ['entry', 'measure']
    """
    schema = _without_null(RunConfig.model_json_schema())
    schema["properties"]["signals"] = {
        "description": "Declared outcomes (signals), by name.",
        "type": "object",
        "additionalProperties": _signal(),
    }
    schema["$defs"]["ExperimentTable"]["properties"]["arms"] |= {
        "description": _arms_help(),
        "items": {"type": "string", "examples": list(arm_names())},
    }
    sources = [{"required": [name]} for name in ("ingest", "simulate")]
    return {"$schema": DRAFT, "title": "run.toml of longplay"} | schema | {"oneOf": sources}


def _arms_help() -> str:
    """What an experiment may try, a phrase per policy."""
    arms = (record for record in run_policies() if record.is_arm)
    policies = "; ".join(f"{record.name}: {record.sentence}" for record in arms)
    return f"Policies beside the control. {policies}; or a rival of [reward.rivals]."


def _without_null(schema: Any) -> Any:
    """The schema without null, which TOML does not have, and without titles that repeat a key."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    cleaned = {
        key: _without_null(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and value is None)
    }
    options = [part for part in cleaned.pop("anyOf", []) if part != {"type": "null"}]
    if len(options) == 1:
        return options[0] | cleaned
    return cleaned | ({"anyOf": options} if options else {})


def _signal() -> dict[str, Any]:
    """A table [signals.NAME]."""
    measure = _kinds(MEASURE_KINDS, MEASURE_FIELDS)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["entry", "measure"],
        "properties": {
            "entry": _kinds(ENTRY_KINDS, ENTRY_FIELDS),
            "measure": measure,
            "window": {
                "description": "First and last day after the entry; or as many days as the log "
                "can mature.",
                "anyOf": [
                    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
                    {"const": FIT},
                ],
            },
            "origin": {"type": "array", "items": {"enum": list(ORIGINS)}},
            "gameable": {"type": "boolean"},
            "better": {"enum": list(BETTER)},
        },
    }


def _kinds(kinds: tuple[str, ...], fields: tuple[str, ...]) -> dict[str, Any]:
    """Schema of a measure or entry: its kind alone, or a table with the kind and its parameters."""
    name = {"enum": list(kinds)}
    table = {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind"],
        "properties": {"kind": name} | {field: {} for field in fields if field != "kind"},
    }
    return {"anyOf": [name, table]}
