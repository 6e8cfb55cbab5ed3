"""One frozen type per stage of a run: what the stage writes, and what the report, the command line
and the benches read."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from longplay.errors import DataError
from longplay.results.record import NotEstimable, StageResult, from_json, to_json

for _info in pkgutil.iter_modules(__path__):  # each registers the types that it holds
    import_module(f"{__name__}.{_info.name}")

AnyResult = TypeVar("AnyResult")

__all__ = ["NotEstimable", "RunResults", "StageResult", "from_json", "result_of", "to_json"]


@dataclass(frozen=True)
class RunResults:
    """The results of a run's finished stages.

    >>> RunResults().find(NotEstimable) is None
    True

    Attributes:
        by_stage: the result of each stage, in their order.
    """

    by_stage: Mapping[str, StageResult] = field(default_factory=dict)

    @classmethod
    def of_json(cls, results: Mapping[str, Any], where: str = "results") -> RunResults:
        """Results from JSON, by stage.

        Raises:
            DataError: a stage that is not known, or a result that is not as its stage writes it.
        """
        if not isinstance(results, Mapping):
            raise DataError(
                f"{where}: {type(results).__name__} given, expected {{stage: figures}}, each a "
                "mapping; pass what the run folder holds"
            )
        return cls({stage: result_of(stage, figures, where) for stage, figures in results.items()})

    def find(self, kind: type[AnyResult]) -> AnyResult | None:
        """The result of this type; null where its stage has none."""
        return next((result for result in self.by_stage.values() if isinstance(result, kind)), None)

    def of(self, kind: type[AnyResult]) -> AnyResult:
        """The result of this type.

        Raises:
            DataError: its stage has none.
        """
        result = self.find(kind)
        if result is None:
            raise DataError(
                f"there is no {kind.__name__} among the results of {list(self.by_stage)}"
            )
        return result

    def __iter__(self) -> Iterator[StageResult]:
        return iter(self.by_stage.values())


def result_of(stage: str, value: object, where: str | Path) -> StageResult:
    """The result of a stage from its JSON.

    Args:
        stage: its name.
        value: the JSON.
        where: names it in errors.

    Raises:
        DataError: the stage is not known, or a field is missing, unknown or of another type.
    """
    kind = StageResult.by_stage.get(stage)
    if kind is None:
        raise DataError(
            f"{where}: there is no stage {stage!r}; expected one of "
            f"{', '.join(sorted(StageResult.by_stage))}"
        )
    if not isinstance(value, Mapping):
        raise DataError(
            f"{where}: {stage} holds {type(value).__name__}, expected {{stage: figures}}, each a "
            "mapping"
        )
    return from_json(kind, value, f"{where}: {stage}")
