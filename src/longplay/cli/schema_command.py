"""`longplay schema`: the JSON schema of run.toml, for editors."""

from __future__ import annotations

import json

from longplay.run.config_schema import config_schema


def schema() -> None:
    """Print the JSON schema of run.toml, by which an editor completes keys and marks mistakes.

    `longplay schema > longplay.schema.json`, beside a run.toml whose first line is `#:schema
    ./longplay.schema.json`.
    """
    print(json.dumps(config_schema(), indent=2))
