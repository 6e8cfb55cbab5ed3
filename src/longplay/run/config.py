"""`run.toml`, typed and strict: an unknown key is an error with its path."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from longplay.errors import ConfigError
from longplay.lake.sift import EARLIEST
from longplay.names import file_name
from longplay.signals import Signal
from longplay.world import WorldConfig

POLICIES = ("popular", "start", "reward-weighted", "reinforced")  # what every run has
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
LengthUnit = Literal["us", "ms", "s", "min"]
WIDEST = 60  # days of a window that is fitted to the log
FIGURE = re.compile(
    r"coverage(@[1-9][0-9]*)?|top_creator"
)  # guardrails that are figures of a policy: `rewards.guardrails.policy_metric` reads them
FIT = "fit"  # in the place of a window: as many days as the log can mature


class Table(BaseModel):
    """One table of run.toml: unknown keys are refused, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Run(Table):
    """Where results go and what makes them repeatable."""

    name: str  # becomes a folder: see names.file_name
    folder: str | None = None  # default runs/<name>, relative to where the command is run
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive = (
        1  # one thread makes results bit-equal, and is often faster for small models
    )


class FileTable(Table):
    """One kind of rows in files of its own, with a column mapping."""

    path: str  # relative to the run.toml
    columns: dict[str, str] = {}
    constants: dict[str, str] = {}
    time_format: str | None = None
    time_zone: str = "UTC"
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = (
        None  # of CSV files; default: found
    )
    encoding: str | None = None  # of CSV files; default: found


class ItemsTable(FileTable):
    """The catalogue, where it has files of its own."""

    length_unit: LengthUnit = "s"


class DecisionsTable(FileTable):
    """What was shown, with propensities, where it was logged."""


class Ingest(FileTable):
    """A log of your own: `format = "table"` with a column mapping, or a named adapter."""

    format: Literal["table", "retail", "open-bandit", "lake"] = "table"
    kinds: dict[str, str] = {}
    origins: dict[str, str] = {}
    seconds_unit: LengthUnit = "s"
    length_unit: LengthUnit = "s"
    items: ItemsTable | None = None
    decisions: DecisionsTable | None = None
    max_bad_share: Share = 0.05
    closed_through: date | None = (
        None  # the last day that counts as complete; default: the moment of the last event
    )
    earliest: date = EARLIEST.date()  # events before this day are set aside
    skew: Annotated[float, Field(ge=0)] = (
        1.0  # hours that the service's clocks may be ahead of this machine's
    )

    @model_validator(mode="after")
    def _of_one_format(self) -> Ingest:
        if self.format == "table":
            return self
        read = {"format", "path", "max_bad_share", "closed_through", "earliest", "skew"}
        if unread := sorted(name for name in self.model_fields_set if name not in read):
            raise ValueError(
                f"{unread[0]} is given, but format = {self.format!r} has columns of its own; "
                "leave it out, or set format = 'table'"
            )
        return self


class Simulate(Table):
    """A log from the simulated world, shown slates by a stochastic popular policy."""

    world: str = "default"  # the name of a world of docs/worlds.md
    numbers: dict[str, float] = {}  # of WorldConfig, where they differ from that world's
    users: Positive = 2_000
    items: Positive = 600
    days: Positive = 84
    slate: Positive = 5
    explore: Share = 0.2
    exclude: Literal["seen", "creator", "none"] = (
        "none"  # what home slates leave out; where it is given, the rule of training, too
    )

    def world_config(self) -> WorldConfig:
        """The world's numbers."""
        return WorldConfig.of(
            {"base": self.world, **{key: _whole(value) for key, value in self.numbers.items()}},
            "simulate.numbers",
        )


class Split(Table):
    """Training sees only what happened before `train_until`; ranking is judged on visits from then
    on, before `evaluate_until`.

    A day that is left out is set when the log has been read: see `run.feasible`.
    """

    train_until: date | None = None
    evaluate_until: date | None = None

    @property
    def trained(self) -> datetime:
        """The UTC midnight at which training ends."""
        return midnight(_fitted("train_until", self.train_until))

    @property
    def evaluated(self) -> datetime:
        """The UTC midnight at which the evaluation ends."""
        return midnight(_fitted("evaluate_until", self.evaluate_until))


class RewardTable(Table):
    """Which signals pay, how much, and how careful."""

    objectives: dict[str, float]
    guardrails: dict[
        str, float
        # coverage, coverage@k, top_creator or a signal = share of the start's that every reinforced
        # policy keeps
    ] = {}
    rivals: dict[
        str, dict[str, float]
    ] = {}  # name = { signal = weight }: other rewards that the same start is reinforced on
    model: Literal["progressive", "auto_surrogate", "day_two", "matured_only"] = "progressive"
    caution: Annotated[float, Field(ge=0)] = 1.0
    age: Positive = 14  # days of an entry's window at which early beliefs are judged


class Codes(Table):
    """Semantic IDs."""

    levels: Positive = 3
    width: Positive | None = None  # codes per level; default by catalogue size
    behaviour: Literal["svd", "item2vec", "none"] = (
        "svd"  # vectors from who shares items, or from what follows what
    )
    words: Annotated[str, Field(min_length=1)] = (
        # or "none", or a sentence encoder: its folder, relative to the run.toml, or package
        "tfidf"
    )
    words_weight: Annotated[float, Field(ge=0)] = 0.5  # beside behaviour


class Train(Table):
    """Next-item training."""

    scale: Literal["tiny", "small"] = "tiny"
    base: Annotated[str, Field(min_length=1)] | None = (
        None  # a pretrained model folder, relative to the run.toml
    )
    steps: Positive = 600
    exclude: Literal["seen", "creator", "none"] = "seen"
    reads: list[
        Literal["gap", "surface", "kind"]
    ] = []  # beside items: how long ago, where, what was done
    # items have tokens of their own in place of their last codes; of a model from scratch
    whole: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"  # of a model from scratch
    dropout: Part = 0.0  # of activations, against overfitting; of a model from scratch
    thin: Part = (
        0.0  # share of events that each epoch leaves out, others each time; of a model from scratch
    )
    patience: Annotated[int, Field(ge=0)] = (
        0  # checks without a better one after which training stops early; 0: it runs all its steps
    )
    want: str | None = None  # the signal whose outcome the policy can be asked for
    ask: float | None = None  # the outcome it asks for, in that signal's unit


class Reinforce(Table):
    """Leave-one-out policy gradient on the cautious value of showing."""

    steps: Annotated[int, Field(ge=0)] = 150
    kl: Annotated[float, Field(ge=0)] = 0.2
    weighted_kl: Annotated[float, Field(ge=0)] | None = (
        None  # of reward-weighted training; default the same
    )
    lr: Annotated[float, Field(ge=0)] = 1e-3
    contexts: Positive = 32
    group: Annotated[int, Field(ge=2)] = 8
    slots: Positive = 5


class Evaluate(Table):
    """Ranking on the future part of the log."""

    visits: Positive = 3_000  # at most this many, drawn by the run's seed
    true_value_users: Positive = (
        500  # simulated logs only: users whose slates are valued by the world
    )


class ExperimentTable(Table):
    """A trial and its audit: of the trained policies in the simulated service, or one that your own
    service ran and logged."""

    logged: str | None = (
        # its name in the log (column experiment of the decisions); then days, salt, arms and
        # true_users are its own
        None
    )
    control: str = "control"  # of a logged trial: the arm that the others are compared with
    days: Positive = 56
    north_star: str  # the signal that decides, e.g. active days
    salt: str = "trial"
    arms: list[str] = [
        "reinforced"
    ]  # beside the control, the incumbent: reinforced, reward-weighted, start, or a rival
    minimum_effect: Annotated[float, Field(gt=0)] = (
        0.02  # of the control's mean: what the trial should be able to find
    )
    margin: Annotated[float, Field(gt=0)] = (
        0.01  # of the control's mean: the least gain of the north star worth having
    )
    age: Positive = 7  # days of an entry that early values may have seen
    true_users: Positive = 1_000  # users whose lives under each arm give the true values


class RunConfig(Table):
    """The whole of run.toml; see examples/retail.toml."""

    run: Run
    ingest: Ingest | None = None
    simulate: Simulate | None = None
    split: Split = Split()
    signals: dict[str, dict[str, Any]]
    reward: RewardTable
    codes: Codes = Codes()
    train: Train = Train()
    reinforce: Reinforce = Reinforce()
    evaluate: Evaluate = Evaluate()
    experiment: ExperimentTable | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if (self.ingest is None) == (self.simulate is None):
            raise ValueError(
                "give exactly one of [ingest] (your own log) and [simulate] (the simulated world)"
            )
        file_name(self.run.name, "run.name")
        train_until, evaluate_until = self.split.train_until, self.split.evaluate_until
        if train_until is not None and evaluate_until is not None and train_until >= evaluate_until:
            raise ValueError(
                f"split: train_until={self.split.train_until} must come before "
                f"evaluate_until={self.split.evaluate_until}"
            )
        if self.codes.behaviour == "none" and self.codes.words == "none":
            raise ValueError(
                "codes: behaviour = 'none' and words = 'none' leave nothing to tell items apart "
                "by; give one of them"
            )
        used = [(f"reward.objectives.{name}", name) for name in self.reward.objectives]
        used += [
            (f"reward.rivals.{rival}.{name}", name)
            for rival, weights in self.reward.rivals.items()
            for name in weights
        ]
        for name, bound in self.reward.guardrails.items():
            path = f"reward.guardrails.{name}"
            figure = FIGURE.fullmatch(name) is not None
            if not figure and name not in self.signals:
                known = ("coverage", "coverage@5", "top_creator", *self.signals)
                raise ValueError(
                    f"{path}: no [signals.{name}] is declared; expected one of "
                    f"{', '.join(known)}{_hint(name, known)}"
                )
            if figure and name in self.signals:
                raise ValueError(
                    f"{path}: [signals.{name}] has the name of a figure of the policy; give the "
                    "signal another"
                )
            if not 0 < bound <= 1:
                raise ValueError(
                    f"{path}: {bound:g} given, expected a share of the start's value in (0, 1]"
                )
        if self.train.want is not None:
            used.append(("train.want", self.train.want))
        elif self.train.ask is not None:
            raise ValueError(
                f"train.ask = {self.train.ask} but no train.want; name the signal whose outcome "
                "is asked for"
            )
        if self.experiment is not None:
            used.append(("experiment.north_star", self.experiment.north_star))
        for path, name in used:
            if name not in self.signals:
                raise ValueError(
                    f"{path}: no [signals.{name}] is declared{_hint(name, self.signals)}"
                )
        for rival in self.reward.rivals:
            file_name(rival, "reward.rivals")
            if rival in POLICIES:
                raise ValueError(
                    f"reward.rivals.{rival}: the name is taken; give the rival another"
                )
        if self.experiment is not None:
            self._check_trial(self.experiment)
            self._check_exclusions()
            known = [*POLICIES[1:], *self.reward.rivals]
            for arm in self.experiment.arms:
                if arm not in known:
                    raise ValueError(
                        f"experiment.arms: {arm!r} given, expected some of "
                        f"{', '.join(known)}{_hint(arm, known)}"
                    )
        if self.simulate is not None:
            self.simulate.world_config()
        return self

    def _check_trial(self, trial: ExperimentTable) -> None:
        """A simulated service runs the trial; on a log of one's own it was run before."""
        if self.simulate is None:
            if trial.logged is None:
                raise ValueError(
                    "experiment.logged: missing; a trial on a log of your own is one that your "
                    "service ran: give its name in the log (column "
                    "experiment of the decisions), or leave [experiment] out"
                )
            simulated = [
                name
                for name in ("days", "salt", "arms", "true_users")
                if name in trial.model_fields_set
            ]
            if simulated:
                raise ValueError(
                    f"experiment.{simulated[0]} is of a trial that is simulated, but "
                    f"{trial.logged!r} was logged; leave it out"
                )
        elif trial.logged is not None:
            raise ValueError(
                f"experiment.logged = {trial.logged!r}, but this run simulates its trial; leave "
                "it out"
            )

    def _check_exclusions(self) -> None:
        """A trial under a rule that is given must be under the rule of training."""
        if (
            self.simulate is not None
            and "exclude" in self.simulate.model_fields_set
            and self.simulate.exclude != self.train.exclude
        ):
            raise ValueError(
                f"simulate.exclude = {self.simulate.exclude!r}, but train.exclude = "
                f"{self.train.exclude!r}: the trial would show policies under "
                "another rule of exclusions than they were trained under; give both the same"
            )

    def declared(self) -> dict[str, Signal]:
        """The signals, in the order of the file.

        Raises:
            ConfigError: a declaration that is impossible, or a window that is set only when the log
                has been read.
        """
        for name, table in self.signals.items():
            if table.get("window") == FIT:
                raise ConfigError(
                    f"signals.{name}.window = {FIT!r} is set when the log has been read; give "
                    "days, e.g. window = [1, 28]"
                )
        return {name: Signal.from_mapping(name, table) for name, table in self.signals.items()}


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def load_config(path: Path) -> RunConfig:
    """Read and check a run.toml.

    Raises:
        ConfigError: no such file, not TOML, or a key that is unknown, missing or out of range, with
            its path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a run.toml, e.g. "
            "examples/retail.toml"
        ) from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> RunConfig:
    """`load_config` from text; `where` names it in errors."""
    try:
        config = RunConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(
            "\n".join(f"{where}: {_explain(problem)}" for problem in error.errors())
        ) from error
    for name, table in config.signals.items():
        Signal.from_mapping(
            name, table | {"window": (1, WIDEST)} if table.get("window") == FIT else table
        )
    return config


def folder_of(config: RunConfig) -> Path:
    """Where a run's results go by default, relative to where the command is run."""
    return Path(config.run.folder or f"runs/{config.run.name}")


def _fitted(name: str, day: date | None) -> date:
    if day is None:
        raise ConfigError(
            f"split.{name} is set when the log has been read; give a day, e.g. {name} = 2026-03-01"
        )
    return day


def midnight(day: date) -> datetime:
    """The UTC midnight at which `day` begins."""
    return datetime.combine(day, time(), UTC)


def _explain(problem: Any) -> str:
    """One pydantic error as: path, what was given, what was expected."""
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parent: Any = RunConfig
        for part in problem["loc"][:-1]:
            parent = _table_of(parent.model_fields[part].annotation)
        known = list(parent.model_fields)
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, 1)
        return f"{path}: unknown key" + (
            f"; did you mean {close[0]!r}?" if close else f"; expected some of {', '.join(known)}"
        )
    if problem["type"] == "missing":
        return f"{path}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {problem['input']!r} given; {message}" if path else message


def _table_of(annotation: Any) -> Any:
    """The table class in an annotation such as `Ingest | None`."""
    options = getattr(annotation, "__args__", None) or (annotation,)
    return next(
        option for option in options if isinstance(option, type) and issubclass(option, Table)
    )
