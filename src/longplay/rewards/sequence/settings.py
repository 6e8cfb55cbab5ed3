"""How a sequence model is built and fitted."""

from __future__ import annotations

from dataclasses import dataclass

from longplay.errors import ConfigError

LABELS = ("days", "teacher", "matured")


@dataclass(frozen=True)
class SequenceSettings:
    """Settings of a sequence model.

    Attributes:
        members: networks of the ensemble.
        width: of the network, an even number.
        steps: of descent at most, for each member.
        seed: of weights and of what is drawn.
        labels: what scores of entries learn from, one of `LABELS`.

    >>> SequenceSettings(members=3, width=32, steps=2.5, seed=0, labels="days")
    Traceback (most recent call last):
        ...
    longplay.errors.ConfigError: sequence: steps=2.5 given, expected a whole number of at least 1

    Raises:
        ConfigError: a number that cannot be, or other labels.
    """

    members: int
    width: int
    steps: int
    seed: int
    labels: str

    def __post_init__(self) -> None:
        for name, least in (("members", 1), ("width", 2), ("steps", 1), ("seed", 0)):
            number: object = vars(self)[name]
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ConfigError(
                    f"sequence: {name}={number!r} given, expected a whole number of at least {least}"
                )
        if self.width % 2:
            raise ConfigError(
                f"sequence: width={self.width} given, expected an even number, for two heads of "
                "attention"
            )
        if self.labels not in LABELS:
            raise ConfigError(
                f"sequence: labels={self.labels!r} given, expected one of {', '.join(LABELS)}"
            )
