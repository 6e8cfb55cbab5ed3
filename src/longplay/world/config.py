"""The numbers a world runs on, each with its unit, default and allowed range."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from longplay.errors import ConfigError


def _number(default: float, low: float, high: float) -> float:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class WorldConfig:
    """Parameters of a simulated service; every one is checked against its range.

    Attributes:
        genres: number of taste dimensions.
        items_per_creator: average items per creator.
        appeal_depth_correlation: between items' logit appeal and log depth (exact in every catalogue).
        creator_share: share of the variance of depth and appeal that a creator's items share.
        depth_spread, appeal_spread: standard deviations of log depth and of logit appeal.
        popularity_tail: Pareto exponent of creators' fame; smaller is heavier.
        click: chance that a neutral item in first position is played by an average user with perfect match.
        position_decay: attention to slot s is 1 / (1 + position_decay * s).
        activity: logit of the daily chance of a visit without any habit; activity_spread: its sd over users.
        season: half-width of the weekly swing of that logit.
        habit_activity: how much log(1 + total habit) adds to that logit.
        habit_slots: creators a user can hold a habit with at a time.
        habit_half_life: days in which an unused habit halves.
        habit_gain: stock that a first play of median depth adds, at perfect match.
        habit_limit: the stock at which plays add nothing more.
        habit_drive: organic plays per visit and unit of stock, before crowding.
        attention: total habit at which creators crowd each other out by half.
        satiety: how much each recent organic day with a creator weakens what its next play adds.
        satiety_half_life: days in which satiety halves.
        discovery: chance that a visit finds a creator organically, without any exposure.
        churn: mean daily chance of leaving for good, without habits; churn_shape: Beta shape over users (smaller: more unequal).
        churn_relief: habits divide the hazard by (1 + churn_relief * log(1 + total habit)).
        start_habits: mean number of creators a user has a habit with on the first day.
    """

    genres: int = field(default=8, metadata={"range": (1, 64)})
    items_per_creator: float = _number(6.0, 1.0, 1000.0)
    appeal_depth_correlation: float = _number(-0.2, -1.0, 1.0)
    creator_share: float = _number(0.7, 0.0, 1.0)
    depth_spread: float = _number(0.8, 0.0, 3.0)
    appeal_spread: float = _number(0.7, 0.0, 3.0)
    popularity_tail: float = _number(1.3, 0.5, 10.0)
    click: float = _number(0.35, 0.0, 1.0)
    position_decay: float = _number(0.25, 0.0, 10.0)
    activity: float = _number(-0.95, -10.0, 10.0)
    activity_spread: float = _number(1.25, 0.0, 5.0)
    season: float = _number(0.25, 0.0, 5.0)
    habit_activity: float = _number(0.45, 0.0, 5.0)
    habit_slots: int = field(default=12, metadata={"range": (1, 64)})
    habit_half_life: float = _number(10.0, 0.1, 1000.0)
    habit_gain: float = _number(0.19, 0.0, 10.0)
    habit_limit: float = _number(1.5, 0.01, 100.0)
    habit_drive: float = _number(1.0, 0.0, 100.0)
    attention: float = _number(4.0, 0.01, 1000.0)
    satiety: float = _number(0.15, 0.0, 10.0)
    satiety_half_life: float = _number(20.0, 0.1, 1000.0)
    discovery: float = _number(0.12, 0.0, 1.0)
    churn: float = _number(0.003, 0.0, 0.5)
    churn_shape: float = _number(0.7, 0.01, 100.0)
    churn_relief: float = _number(1.0, 0.0, 100.0)
    start_habits: float = _number(3.0, 0.0, 64.0)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            low, high = one.metadata["range"]
            whole = isinstance(one.default, int)
            kind = "a whole number" if whole else "a number"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
                raise ConfigError(f"WorldConfig: {one.name}={value!r} given, expected {kind} in [{low}, {high}]; the default is {one.default}")
        if self.start_habits > self.habit_slots:
            raise ConfigError(f"WorldConfig: start_habits={self.start_habits} given, expected at most habit_slots={self.habit_slots}")
