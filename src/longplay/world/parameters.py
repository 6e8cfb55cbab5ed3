"""Parameters of a world, each with unit, default and range; and the named worlds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from longplay.errors import ConfigError
from longplay.names import hint


def _number(default: float, low: float, high: float) -> float:
    return field(default=default, metadata={"range": (low, high)})


def _whole(default: int, low: int, high: int) -> int:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class WorldConfig:
    """Parameters of a simulated service; every one is checked against its range.

    Attributes:
        genres: number of taste dimensions.
        items_per_creator: average items per creator.
        appeal_depth_correlation: between items' logit appeal and log depth (exact in every
            catalogue).
        creator_share: share of the variance of depth and appeal that a creator's items share.
        depth_spread: standard deviations of log depth and of logit appeal.
        appeal_spread: standard deviations of log depth and of logit appeal.
        popularity_tail: Pareto exponent of creators' fame; smaller is heavier.
        new_share: share of the items that are released while the world runs.
        new_days: within so many days.
        loop: mean number of autoplay plays that follow a play.
        loop_spread: sd over items of its log.
        click: chance that a neutral item in first position is played by an average user with
            perfect match.
        match: log odds of a play between a perfect match of taste and none.
        position_decay: attention to slot s is 1 / (1 + position_decay * s).
        novelty: odds by which the average user prefers unknown creators on a slate (log).
        novelty_spread: sd over users.
        activity: logit of the daily chance of a visit without any habit.
        activity_spread: its sd over users.
        season: half-width of the weekly swing of that logit.
        absence: how much log(1 + days since the last visit) takes off that logit.
        habit_activity: how much log(1 + total habit) adds to that logit.
        habit_slots: creators a user can hold a habit with at a time.
        habit_half_life: days in which an unused habit halves.
        habit_gain: stock that a first play of median depth adds, at perfect match.
        liking_spread: sd over (user, creator) pairs of the log of a play's worth that no taste
            explains.
        habit_limit: the stock at which plays add nothing more.
        habit_drive: organic plays per visit and unit of stock, before crowding.
        attention: total habit at which creators crowd each other out by half.
        satiety: how much each recent day with a creator weakens what its next play adds, and its
            appeal on a slate.
        satiety_half_life: days in which satiety halves.
        satisfaction: what one play of a slate, much deeper or shallower than usual, adds to or
            takes off satisfaction.
        satisfaction_half_life: days in which satisfaction halves.
        satisfaction_activity: how much full satisfaction adds to the logit of a visit.
        satisfaction_churn: full satisfaction divides the hazard of leaving by exp of this.
        lasting: share of what plays of slates leave behind (habit, satiety, satisfaction); 0:
            nothing recommended lasts.
        search: chance that a visit searches for a creator not shown anywhere.
        shelf: that it looks at the new releases.
        churn: mean daily chance of leaving for good, without habits.
        churn_shape: Beta shape over users (smaller: more unequal).
        churn_relief: habits divide the hazard by (1 + churn_relief * log(1 + total habit)).
        subscribers: share of users who cancel, visibly, when they leave.
        start_habits: mean number of creators a user has a habit with on the first day.
        drift: how far tastes have moved after 100 days: 1 is as much of another taste as of the old
            one.
        weariness: how much each recent showing of an item takes off the logit of its next play,
            played or not.
        creator_weariness: the same for each recent showing of any item of the creator.
        page_weariness: the same for each recent showing of anything.
        weariness_half_life: days in which a showing counts half.
        fashion: share of what listeners discover by themselves that follows fame alone, not taste.
        mislabelled: share of plays whose origin is logged wrongly: recommended for organic, organic
            for recommended.
        known: how well the service knows tastes by itself: the correlation of each coordinate of the
            vectors of users and items, before their rotation, with the true taste of the first day.
            0: nothing is known but the log, and there are no vectors.
    """

    genres: int = _whole(8, 1, 64)
    items_per_creator: float = _number(6.0, 1.0, 1000.0)
    appeal_depth_correlation: float = _number(-0.2, -1.0, 1.0)
    creator_share: float = _number(0.7, 0.0, 1.0)
    depth_spread: float = _number(0.8, 0.0, 3.0)
    appeal_spread: float = _number(0.7, 0.0, 3.0)
    popularity_tail: float = _number(1.3, 0.5, 10.0)
    new_share: float = _number(0.15, 0.0, 1.0)
    new_days: int = _whole(180, 1, 100_000)
    loop: float = _number(0.15, 0.0, 10.0)
    loop_spread: float = _number(0.5, 0.0, 3.0)
    click: float = _number(0.35, 0.0, 1.0)
    match: float = _number(2.5, 0.0, 20.0)
    position_decay: float = _number(0.25, 0.0, 10.0)
    novelty: float = _number(0.2, -5.0, 5.0)
    novelty_spread: float = _number(0.4, 0.0, 5.0)
    activity: float = _number(-0.6, -10.0, 10.0)
    activity_spread: float = _number(1.2, 0.0, 5.0)
    season: float = _number(0.25, 0.0, 5.0)
    absence: float = _number(0.3, 0.0, 5.0)
    habit_activity: float = _number(0.45, 0.0, 5.0)
    habit_slots: int = _whole(12, 1, 64)
    habit_half_life: float = _number(9.0, 0.1, 1000.0)
    habit_gain: float = _number(0.19, 0.0, 10.0)
    liking_spread: float = _number(1.0, 0.0, 3.0)
    habit_limit: float = _number(1.5, 0.01, 100.0)
    habit_drive: float = _number(1.0, 0.0, 100.0)
    attention: float = _number(4.0, 0.01, 1000.0)
    satiety: float = _number(0.15, 0.0, 10.0)
    satiety_half_life: float = _number(20.0, 0.1, 1000.0)
    satisfaction: float = _number(0.15, 0.0, 10.0)
    satisfaction_half_life: float = _number(14.0, 0.1, 1000.0)
    satisfaction_activity: float = _number(0.3, 0.0, 5.0)
    satisfaction_churn: float = _number(0.5, 0.0, 5.0)
    lasting: float = _number(1.0, 0.0, 1.0)
    search: float = _number(0.12, 0.0, 1.0)
    shelf: float = _number(0.15, 0.0, 1.0)
    churn: float = _number(0.003, 0.0, 0.5)
    churn_shape: float = _number(0.7, 0.01, 100.0)
    churn_relief: float = _number(1.0, 0.0, 100.0)
    subscribers: float = _number(0.6, 0.0, 1.0)
    start_habits: float = _number(3.0, 0.0, 64.0)
    drift: float = _number(0.0, 0.0, 10.0)
    weariness: float = _number(0.0, 0.0, 10.0)
    creator_weariness: float = _number(0.0, 0.0, 10.0)
    page_weariness: float = _number(0.0, 0.0, 10.0)
    weariness_half_life: float = _number(14.0, 0.1, 1000.0)
    fashion: float = _number(0.0, 0.0, 1.0)
    mislabelled: float = _number(0.0, 0.0, 1.0)
    known: float = _number(0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            low, high = part.metadata["range"]
            is_whole = isinstance(part.default, int)
            kind = "a whole number" if is_whole else "a number"
            if (
                isinstance(value, bool)
                or not isinstance(value, int if is_whole else (int, float))
                or not low <= value <= high
            ):
                raise ConfigError(
                    f"world: {part.name}={value!r} given, expected {kind} in [{low}, {high}]; the "
                    f"default is {part.default}"
                )
        if self.start_habits > self.habit_slots:
            raise ConfigError(
                f"world: start_habits={self.start_habits} given, expected at most "
                f"habit_slots={self.habit_slots}"
            )

    @property
    def tires(self) -> bool:
        """Whether showings tire."""
        return max(self.weariness, self.creator_weariness, self.page_weariness) > 0

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "world") -> Self:
        """A configuration from parsed TOML. The key `base` names a world whose numbers hold where
        no other are given."""
        settings = dict(table)
        base = settings.pop("base", "default")
        if not isinstance(base, str):
            raise ConfigError(
                f"{where}.base: {base!r} given, expected the name of a world: {', '.join(WORLDS)}"
            )
        allowed_keys = [part.name for part in fields(cls)]
        for key in settings:
            if key not in allowed_keys:
                instead = hint(key, allowed_keys) or f"; expected some of {', '.join(allowed_keys)}"
                raise ConfigError(f"{where}.{key}: unknown key{instead}")
        return cls(**(dict(named_world(base).numbers) | settings))

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """A configuration from a TOML file; its keys stand at the top or in a table `[world]`.

        Raises:
            ConfigError: no such file, not TOML, or a key that is unknown or out of range, with the
                range.
        """
        try:
            tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"world: {path} cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"world: {path} is not TOML: {error}") from error
        table = tables.get("world", tables)
        if not isinstance(table, dict) or (table is not tables and len(tables) > 1):
            raise ConfigError(
                f"{path}: {', '.join(tables)} given, expected the keys at the top, or all of them "
                "in one table [world]"
            )
        try:
            return cls.of(table, str(path))
        except ConfigError as error:
            raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error


@dataclass(frozen=True)
class NamedWorld:
    """A world with a name: a sentence about it, the numbers that differ from the defaults, and its
    size."""

    about: str
    numbers: Mapping[str, Any]
    users: int = 5_000
    items: int = 2_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


WORLDS: dict[str, NamedWorld] = {
    "default": NamedWorld(
        "Appeal and depth are slightly at odds: clicks are a fair but imperfect guide.", {}
    ),
    "clickbait": NamedWorld(
        "What appeals at once rarely lasts, and disappoints: clicks are the wrong reward.",
        {"appeal_depth_correlation": -0.8, "satisfaction": 0.25},
    ),
    "aligned": NamedWorld(
        "Appeal is depth: clicks are the right reward.", {"appeal_depth_correlation": 1.0}
    ),
    "null": NamedWorld(
        "Nothing recommended has any lasting effect, taste match included: no policy can move "
        "organic activity.",
        {"lasting": 0.0},
    ),
    "gamed": NamedWorld(
        "Minutes and days with a creator can be inflated: autoplay runs on, and the same creator "
        "is shown again and again; none of it lasts.",
        {"loop": 1.5, "loop_spread": 1.5, "lasting": 0.0},
    ),
    "drift": NamedWorld(
        "Tastes move: what was learned two months ago is half wrong.", {"drift": 1.5}
    ),
    "cold": NamedWorld(
        "Most items are released while the world runs, to listeners without habits.",
        {"new_share": 0.7, "start_habits": 0.0},
    ),
    "weary": NamedWorld(
        "Not kind to us: every showing tires, taste is faint in the history, habits are rare, the "
        "service shows no releases by itself, and some origins are logged wrongly.",
        {
            "genres": 16,
            "items_per_creator": 8.0,
            "creator_share": 0.3,
            "depth_spread": 0.6,
            "popularity_tail": 1.0,
            "new_share": 0.1,
            "new_days": 140,
            "click": 0.6,
            "match": 3.0,
            "activity": -1.3,
            "habit_gain": 0.125,
            "liking_spread": 0.5,
            "search": 0.08,
            "shelf": 0.0,
            "start_habits": 0.5,
            "weariness": 0.5,
            "creator_weariness": 0.5,
            "page_weariness": 0.07,
            "weariness_half_life": 21.0,
            "fashion": 1.0,
            "mislabelled": 0.04,
        },
        users=15_000,
    ),
    "tiny": NamedWorld(
        "The default world, small: for trying things out.", {}, users=300, items=120
    ),
}


def named_world(name: str) -> NamedWorld:
    """The world of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in WORLDS:
        raise ConfigError(f"world: {name!r} given, expected one of {', '.join(WORLDS)}")
    return WORLDS[name]
