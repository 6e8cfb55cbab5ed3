"""One file with a JSON object per line, and the lines of it that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from longplay.errors import DataError
from longplay.lake.adapters.records import FAULTS, NOT_TEXT, Records

NO_OBJECT = "no JSON object"
LARGEST_INTEGER = 2**63 - 1


def read_json_lines(file: Path) -> Records:
    """The objects of a file as rows, and the lines that hold none. A key that an object lacks is
    null.

    A column is of numbers, truth values, lists of numbers or else text; objects inside an object
    are written as JSON.

    Args:
        file: UTF-8, one object per line.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if not lines[-1].strip():
        lines.pop()
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    faults: list[tuple[int, str, str]] = []
    blank = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            blank += 1
            continue
        parsed, reason = _object_of(line)
        if parsed is None:
            faults.append((number, reason, line.decode("utf-8", errors="replace").rstrip("\r")))
        else:
            objects.append(parsed)
            numbers.append(number)
    names = dict.fromkeys(name for parsed in objects for name in parsed)
    columns = [_column(name, [parsed.get(name) for parsed in objects]) for name in names]
    return Records(
        pl.DataFrame(columns),
        pl.Series(numbers, dtype=pl.Int64),
        pl.DataFrame(faults, schema=FAULTS, orient="row"),
        blank,
    )


def _object_of(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """The object of a line; else null and the reason why there is none."""
    try:
        parsed = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None, NOT_TEXT
    except (ValueError, RecursionError):
        return None, NO_OBJECT
    return (parsed, "") if isinstance(parsed, dict) else (None, NO_OBJECT)


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    """Values as a column of one type."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return pl.Series(name, values, dtype=pl.Boolean)
    if present and all(map(_is_integer, present)):
        return pl.Series(name, values, dtype=pl.Int64)
    if present and all(map(_is_number, present)):
        return pl.Series(name, [_float(value) for value in values], dtype=pl.Float64)
    if present and all(map(_is_vector, present)):
        lists = [None if value is None else [_float(part) for part in value] for value in values]
        return pl.Series(name, lists, dtype=pl.List(pl.Float64))
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
    return pl.Series(name, texts, dtype=pl.String)


def _is_integer(value: object) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST_INTEGER


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _is_vector(value: object) -> bool:
    """Whether a value is a list of numbers, some of which may be null."""
    return isinstance(value, list) and all(part is None or _is_number(part) for part in value)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
