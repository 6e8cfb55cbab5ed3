"""Checks that every part of a declaration shares, with their error messages."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from longplay.errors import ConfigError
from longplay.names import hint

MAX_WINDOW_DAYS = 365


def is_whole_number(value: object) -> bool:
    """Whether a value is a whole number of Python or NumPy. True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_choice(where: str, key: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise a `ConfigError` unless the value of `key` is one of those allowed."""
    if value not in allowed:
        raise ConfigError(
            f"{where}: {key}={value!r} given, expected one of {', '.join(allowed)}"
            f"{hint(value, allowed)}"
        )


def checked_days(where: str, key: str, value: object) -> int:
    """The value of `key` as a number of days.

    Raises:
        ConfigError: it is not 1 to 365 whole days.
    """
    number = int(value) if isinstance(value, Integral) and is_whole_number(value) else 0
    if not 1 <= number <= MAX_WINDOW_DAYS:
        raise ConfigError(
            f"{where}: {key}={value!r} given, expected 1 to {MAX_WINDOW_DAYS} whole days"
        )
    return number


def described(value: object) -> str:
    """A value that was given, short enough for an error message: its text, or its type.

    >>> described(3), described([3]), described(len)
    ('3', 'a list', 'len (not called)')
    """
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__name__', type(value).__name__)} (not called)"
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    return f"{article} {kind}"


def check_keys(where: str, table: Mapping[str, Any], keys: set[str], required: set[str]) -> None:
    """Raise a `ConfigError` on a key that is not in `keys`, or a required one that is missing."""
    for key in table:
        if key not in keys:
            raise ConfigError(
                f"{where}.{key}: unknown key; expected some of {', '.join(sorted(keys))}"
                f"{hint(key, keys)}"
            )
    for key in sorted(required - set(table)):
        raise ConfigError(f"{where}.{key}: missing; a signal is only defined once it is given")
