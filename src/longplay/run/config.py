"""`run.toml` read and checked: an unknown key is an error with its path."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model, model_validator

from longplay.errors import ConfigError
from longplay.names import file_name, hint
from longplay.run.stages import STAGES
from longplay.run.tables import FIT, Configuration, Table
from longplay.signals import Signal

WIDEST = 60  # days of a window that is fitted to the log


class _Checked(Configuration):
    """A configuration whose tables fit together."""

    @model_validator(mode="after")
    def _consistent(self) -> _Checked:
        """Raise an error where tables contradict each other: first those of the run, then stage by
        stage."""
        sources = [self.__dict__["ingest"], self.__dict__["simulate"]]
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "give exactly one of [ingest] (your own log) and [simulate] (the simulated world)"
            )
        file_name(self.run.name, "run.name")
        train_until = self.split.train_until
        evaluate_until = self.split.evaluate_until
        if train_until is not None and evaluate_until is not None and train_until >= evaluate_until:
            raise ValueError(
                f"split: train_until={self.split.train_until} must come before "
                f"evaluate_until={self.split.evaluate_until}"
            )
        for stage in STAGES:
            stage.check(self)
        return self


RunConfig: type[Configuration] = create_model(
    "RunConfig",
    __base__=_Checked,
    __doc__="The whole of run.toml; see examples/retail.toml.",
    **{stage.name: stage.field() for stage in STAGES if stage.table is not None},  # type: ignore[call-overload]
)


def load_config(path: Path) -> Configuration:
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


def parse_config(text: str, where: str) -> Configuration:
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


def folder_of(config: Configuration) -> Path:
    """Where a run's results go by default, relative to where the command is run."""
    return Path(config.run.folder or f"runs/{config.run.name}")


def _explain(problem: Any) -> str:
    """One pydantic error as: path, what was given, what was expected."""
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        parent: Any = RunConfig
        for part in problem["loc"][:-1]:
            parent = _table_of(parent.model_fields[part].annotation)
        allowed_keys = list(parent.model_fields)
        expected = f"; expected some of {', '.join(allowed_keys)}"
        meant = hint(problem["loc"][-1], allowed_keys)
        return f"{path}: unknown key{meant or expected}"
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
