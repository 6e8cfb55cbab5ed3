"""Names that become files or folders: checked in one place, so that no name leaves the folder it
belongs to. And names that were mistyped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

from longplay.errors import ConfigError

MOST_CHARACTERS = 100
MOST_BYTES = 200  # a file system allows 255, and endings such as "@1a2b3c4d.parquet.new" are added
REFUSED = '/\\:*?"<>|[]'  # separators, what Windows refuses, and what SQL engines read as a pattern
# controls and bidirectional marks, lone surrogates, line and paragraph separators
REFUSED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # of category Cf, and part of how words and emoji are written
DEVICES = frozenset(
    (
        "con",
        "prn",
        "aux",
        "nul",
        "conin$",
        "conout$",
        *(f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"),
    )
)


def hint(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'habit'?` where one of the allowed names is close, else nothing.

    >>> hint("habbit", ["habit", "clicks"]), hint("x", ["habit", "clicks"])
    ("; did you mean 'habit'?", '')
    """
    close = get_close_matches(str(name), list(allowed), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def file_name(name: object, what: str) -> str:
    """`name`, after a check that it is a safe file or folder name on every system.

    Letters of any script, digits, spaces inside, and marks such as `.`, `-`, `_` and `+` are
    allowed.

    Args:
        name: what the user wrote.
        what: what it names, for the message: "reward.rivals", "run.name".

    Raises:
        ConfigError: it is no text, is empty or too long, begins with a dot or a blank, ends with
            one, is the name of a Windows device, or holds a separator, a control character or a
            mark that reads as a pattern.

    >>> file_name("clicks-2 weeks", "rival"), file_name("Gewöhnung", "rival")
    ('clicks-2 weeks', 'Gewöhnung')
    >>> file_name("../x", "rival")
    Traceback (most recent call last):
    ...
    longplay.errors.ConfigError: rival: the name '../x' begins with '.'; expected letters, digits, '-' or '_' there
    """
    if not isinstance(name, str):
        raise ConfigError(f"{what}: {name!r} given, expected a name as text")
    if not name:
        raise ConfigError(f"{what}: the name is empty; give it at least one letter")
    if len(name) > MOST_CHARACTERS:
        raise ConfigError(
            f"{what}: the name {name[:20]!r}... has {len(name):,} characters; expected at most "
            f"{MOST_CHARACTERS}"
        )
    for end, words in ((name[0], "begins"), (name[-1], "ends")):
        if end == "." or end.isspace():
            raise ConfigError(
                f"{what}: the name {name!r} {words} with {end!r}; expected letters, digits, '-' "
                "or '_' there"
            )
    for character in name:
        if character in JOINERS:
            continue
        if character in REFUSED or unicodedata.category(character) in REFUSED_CATEGORIES:
            raise ConfigError(
                f"{what}: the name {name!r} holds {character!r}, which a file name may not; leave "
                "it out"
            )
    if len(name.encode()) > MOST_BYTES:
        raise ConfigError(
            f"{what}: the name {name!r} takes {len(name.encode()):,} bytes; expected at most "
            f"{MOST_BYTES}"
        )
    if name.partition(".")[0].rstrip().casefold() in DEVICES:
        raise ConfigError(f"{what}: {name!r} is the name of a device on Windows; give another")
    return name
