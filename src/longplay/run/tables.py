"""What the tables of run.toml share, and the tables that belong to no single stage."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longplay.errors import ConfigError
from longplay.signals import Signal

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
FIT = "fit"  # in the place of a window: as many days as the log can mature


class Table(BaseModel):
    """One table of run.toml: unknown keys are refused, nothing is converted silently.

    `younger` names the keys that some finished runs did not have yet. A stage's hash holds them
    only where they differ from their default, so that those runs stay finished.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    younger: ClassVar[frozenset[str]] = frozenset()

    def hashed(self) -> dict[str, Any]:
        """The keys and values that enter a stage's hash."""
        changed = self.model_dump(mode="json", exclude_defaults=True)
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if name not in self.younger or name in changed
        }


class Run(Table):
    """The run's name, folder, seed and threads."""

    name: str  # becomes a folder: see names.file_name
    folder: str | None = None  # default runs/<name>, relative to where the command is run
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive = (
        1  # one thread makes results bit-equal, and is often faster for small models
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


class Engine(Table):
    """The engine that computes signals; results do not depend on it, so it enters no stage's hash.

    Attributes:
        spark: the master of a Spark session, e.g. "local[2]"; null: DuckDB, in this process.
        settings: of that session, e.g. {"spark.driver.memory": "4g"}.
    """

    spark: Annotated[str, Field(min_length=1)] | None = None
    settings: dict[str, str] = {}

    @model_validator(mode="after")
    def _settings_of_spark(self) -> Engine:
        if self.settings and self.spark is None:
            raise ValueError('settings are of Spark; give its master, e.g. spark = "local[2]"')
        return self


AnyTable = TypeVar("AnyTable", bound=Table)


class Configuration(Table):
    """All tables of run.toml. Those of stages are added in `longplay.run.config`, which lists the
    stages."""

    run: Run
    split: Split = Split()
    engine: Engine = Engine()
    signals: dict[str, dict[str, Any]]

    def find(self, kind: type[AnyTable]) -> AnyTable | None:
        """The table of this type; null where run.toml may leave it out and does."""
        return next((value for value in self.__dict__.values() if isinstance(value, kind)), None)

    def of(self, kind: type[AnyTable]) -> AnyTable:
        """The table of this type.

        Raises:
            ConfigError: this run has none.
        """
        table = self.find(kind)
        if table is None:
            name = kind.__name__.removesuffix("Table").lower()
            raise ConfigError(f"{name}: this run has no [{name}] table")
        return table

    def hashed(self) -> dict[str, Any]:
        """Every table as it enters a stage's hash."""
        tables = {
            name: value.hashed()
            for name, value in self.__dict__.items()
            if isinstance(value, Table)
        }
        return self.model_dump(mode="json") | tables

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


def _fitted(name: str, day: date | None) -> date:
    if day is None:
        raise ConfigError(
            f"split.{name} is set when the log has been read; give a day, e.g. {name} = 2026-03-01"
        )
    return day


def midnight(day: date) -> datetime:
    """The UTC midnight at which `day` begins."""
    return datetime.combine(day, time(), UTC)
