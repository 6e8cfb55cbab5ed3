"""What every part of a declaration checks in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from longplay.errors import ConfigError
from longplay.names import hint

MAX_WINDOW_DAYS = 365


def whole(given: object) -> bool:
    """Whether it is a whole number, of Python or NumPy; True is none."""
    return isinstance(given, Integral) and not isinstance(given, bool)


def one_of(where: str, key: str, given: object, allowed: tuple[str, ...]) -> None:
    """Raise unless `given` is one of `allowed`."""
    if given not in allowed:
        raise ConfigError(
            f"{where}: {key}={given!r} given, expected one of {', '.join(allowed)}"
            f"{hint(given, allowed)}"
        )


def days(where: str, key: str, given: object) -> int:
    """`given` as a number of days.

    Raises:
        ConfigError: it is not 1 to 365 whole days.
    """
    number = int(given) if isinstance(given, Integral) and whole(given) else 0
    if not 1 <= number <= MAX_WINDOW_DAYS:
        raise ConfigError(
            f"{where}: {key}={given!r} given, expected 1 to {MAX_WINDOW_DAYS} whole days"
        )
    return number


def kind_of(given: object) -> str:
    """What was given instead of what was expected, in words short enough for a message."""
    if isinstance(given, type) or callable(given):
        return f"{getattr(given, '__name__', type(given).__name__)} (not called)"
    if given is None or isinstance(given, str | int | float):
        return repr(given)
    return f"{'an' if type(given).__name__[0] in 'AEIOUaeiou' else 'a'} {type(given).__name__}"


def known_keys(where: str, table: Mapping[str, Any], keys: set[str], required: set[str]) -> None:
    """Raise on a key that is not in `keys`, or a required one that is missing."""
    for key in table:
        if key not in keys:
            raise ConfigError(
                f"{where}.{key}: unknown key; expected some of {', '.join(sorted(keys))}"
                f"{hint(key, keys)}"
            )
    for key in sorted(required - set(table)):
        raise ConfigError(f"{where}.{key}: missing; a signal is only defined once it is given")
