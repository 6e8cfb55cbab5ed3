"""Results as JSON and back; this file alone writes and reads the result of a stage.

A record is a frozen dataclass. It is written with all of its fields, null included, and read
strictly: a field that is missing, one that is not known and one of another type are errors that
name the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from longplay.errors import DataError
from longplay.estimate import Estimate

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
AnyRecord = TypeVar("AnyRecord")
_FLATTENED = "flattened"
_ADDED = "added"


class StageResult:
    """The result of a stage; subclasses name it: `class Pages(StageResult, stage="report")`.

    Attributes:
        stage: the name of the stage.
    """

    stage: ClassVar[str]
    by_stage: ClassVar[dict[str, type[StageResult]]] = {}

    def __init_subclass__(cls, *, stage: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if stage:
            cls.stage = stage
            StageResult.by_stage[stage] = cls


class Renamed:
    """A record of which some fields had other names in older results.

    Attributes:
        older_names: today's name of a field by the name that it had.
    """

    older_names: ClassVar[Mapping[str, str]] = {}


@dataclass(frozen=True)
class NotEstimable:
    """Takes the place of a figure that the data cannot support.

    Attributes:
        not_estimable: why.
    """

    not_estimable: str


def flattened() -> Any:
    """A field of type mapping, whose entries become fields of the record itself in JSON."""
    return field(metadata={_FLATTENED: True})


def added_later() -> Any:
    """A tuple that older results do not have: it is written where it holds something, and empty
    where it is missing."""
    return field(default=(), metadata={_ADDED: True})


def to_json(value: object) -> Any:
    """A record, or a value inside one, as JSON values.

    >>> to_json(NotEstimable("too few users"))
    {'not_estimable': 'too few users'}

    Raises:
        DataError: a number that is not finite, or a value that JSON does not have.
    """
    if isinstance(value, Estimate):
        return value.as_json()
    if is_dataclass(value) and not isinstance(value, type):
        row: dict[str, Any] = {}
        for each in fields(value):
            plain = to_json(getattr(value, each.name))
            if _was_added(each) and not plain:
                continue
            row |= plain if _is_flattened(each) else {each.name: plain}
        return row
    if isinstance(value, Mapping):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"a result holds {value}, expected a finite number or null")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DataError(f"a result holds {type(value).__name__}, which JSON does not have")


def from_json(kind: type[AnyRecord], value: object, where: str) -> AnyRecord:
    """The record that `to_json` wrote.

    >>> from_json(NotEstimable, {"reason": "too few users"}, "result.json")
    Traceback (most recent call last):
    longplay.errors.DataError: result.json: not_estimable is missing, reason is unknown; ...

    Args:
        kind: the type of the record.
        value: what JSON holds.
        where: the file, or what else names it in errors.

    Raises:
        DataError: a field is missing, unknown or of another type.
    """
    return cast(AnyRecord, _read(kind, value, _Place(where)))


@dataclass(frozen=True)
class _Place:
    """The file and path of a value, for error messages."""

    file: str
    path: tuple[str, ...] = ()

    def under(self, key: object) -> _Place:
        return _Place(self.file, (*self.path, str(key)))

    def error(self, words: str) -> DataError:
        path = f"{'.'.join(self.path)}: " if self.path else ""
        return DataError(f"{self.file}: {path}{words}")


def _read(kind: Any, value: object, place: _Place) -> object:
    """The value, read as a type annotation demands."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_one_of(parts, value, place)
    if origin is Literal:
        if value not in parts:
            raise place.error(f"{value!r} given, expected one of {', '.join(map(repr, parts))}")
        return value
    if origin is tuple:
        return _read_tuple(parts, value, place)
    if kind is Estimate:
        return _read_estimate(value, place)
    if is_dataclass(kind):
        return _read_record(cast(type, kind), value, place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        table = _table(value, place)
        return {key: _read(parts[1], inner, place.under(key)) for key, inner in table.items()}
    return _read_scalar(kind, value, place)


def _read_scalar(kind: Any, value: object, place: _Place) -> object:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is datetime and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise place.error(
                f"{value!r} given, expected a moment such as 2026-03-01T00:00:00Z"
            ) from None
    right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not right or kind in (float, datetime):
        raise place.error(f"{value!r} given, expected {kind.__name__}")
    return value


def _read_tuple(parts: tuple[Any, ...], value: object, place: _Place) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise place.error(f"{value!r} given, expected a list")
    kinds = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(value):
        raise place.error(f"{len(value)} values given, expected {len(kinds)}")
    return tuple(
        _read(kind, inner, place.under(number))
        for number, (kind, inner) in enumerate(zip(kinds, value, strict=True))
    )


def _read_one_of(kinds: tuple[Any, ...], value: object, place: _Place) -> object:
    """The value as the type of a union whose fields match its keys best."""
    if value is None and NoneType in kinds:
        return None
    options = [kind for kind in kinds if kind is not NoneType]
    if isinstance(value, dict) and len(options) > 1:
        keys = set(value)
        options.sort(key=lambda kind: len(keys ^ _keys(kind)))
    return _read(options[0], value, place)


def _keys(kind: Any) -> set[str]:
    return set(Estimate.JSON_KEYS) if kind is Estimate else {each.name for each in fields(kind)}


def _read_estimate(value: object, place: _Place) -> Estimate:
    table = _table(value, place)
    _check_keys(set(table), Estimate.JSON_KEYS, place)
    try:
        return Estimate.from_json(table)
    except (TypeError, ValueError) as error:
        raise place.error(f"{table} given, expected an estimate ({error})") from error


def _read_record(kind: type, value: object, place: _Place) -> object:
    table = _under_current_names(kind, _table(value, place))
    hints = _hints(kind)
    absent = {each.name for each in fields(kind) if _was_added(each)} - table.keys()
    flattened = [each.name for each in fields(kind) if _is_flattened(each)]
    plain = [
        each.name for each in fields(kind) if not _is_flattened(each) and each.name not in absent
    ]
    keys = set(table)
    if flattened:  # whatever is left belongs to the flattened field
        keys &= set(plain)
    _check_keys(keys, plain, place)
    values = {name: _read(hints[name], table.pop(name), place.under(name)) for name in plain}
    values |= {name: _read(hints[name], table, place) for name in flattened}
    try:
        return kind(**values)
    except DataError as error:
        raise place.error(str(error)) from error


def _under_current_names(kind: type, table: Mapping[str, object]) -> dict[str, object]:
    older_names = kind.older_names if issubclass(kind, Renamed) else {}
    current = dict(table)
    for older_name, name in older_names.items():
        if older_name in current and name not in current:
            current[name] = current.pop(older_name)
    return current


def _check_keys(keys: set[str], expected: Sequence[str], place: _Place) -> None:
    missing = [f"{key} is missing" for key in expected if key not in keys]
    unknown = [f"{key} is unknown" for key in sorted(keys - set(expected))]
    if missing or unknown:
        words = ", ".join([*missing, *unknown])
        raise place.error(f"{words}; expected {', '.join(expected)}")


def _table(value: object, place: _Place) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise place.error(f"{value!r} given, expected a table")
    return value


def _is_flattened(each: Field[Any]) -> bool:
    return bool(each.metadata.get(_FLATTENED))


def _was_added(each: Field[Any]) -> bool:
    return bool(each.metadata.get(_ADDED))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
