"""Single values as TOML text, for the file of an audit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

TomlValue = str | int | float | bool | Mapping[str, "TomlValue"]


def toml_text(value: TomlValue) -> str:
    """A value as TOML; a mapping as an inline table.

    >>> toml_text({"value": 0.25, "estimand": "policy: x"})
    '{ value = 0.25, estimand = "policy: x" }'
    >>> toml_text(float("nan")), toml_text(True), toml_text("a\\x7fb")
    ('nan', 'true', '"a\\\\u007fb"')
    """
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {toml_text(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(float(value))
    # JSON text is TOML text, but for the one control character that only TOML forbids
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
