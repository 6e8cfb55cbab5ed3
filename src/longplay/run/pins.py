"""Reads run folders: their logs, and the version of each signal that a result was made with."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longplay.errors import ConfigError, DataError, LongplayError
from longplay.lake import Lake
from longplay.results import StageResult
from longplay.results.audit_figures import AuditResult
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.offpolicy_figures import OffpolicyResult
from longplay.results.outcome_figures import OutcomesResult
from longplay.results.ranking_figures import EvaluateResult
from longplay.results.reinforcement_figures import ReinforceResult
from longplay.results.reward_figures import RewardResult
from longplay.run.config import folder_of, load_config
from longplay.run.engine import LOG_STAGES, keys_of, read_stage
from longplay.run.feasible import LogFacts, fit
from longplay.run.folder import DEPENDS, FILES, RESULT, RunFolder, damage_of, read_result
from longplay.run.stages import STAGES, stages_of
from longplay.run.tables import Configuration
from longplay.signals import Signal

UNRECORDED = "????????"  # the version of a rival's signal in a run of before depends.json


@dataclass(frozen=True)
class Pin:
    """The use of one version of a signal by one finished stage.

    Attributes:
        stage: where in the run folder: `stage/digest`.
        digest: where in the run folder: `stage/digest`.
        label: `name@version` of the signal.
        roles: what the stage used it for, in words.
        artefacts: the files that hold it, relative to the run folder.
    """

    stage: str
    digest: str
    label: str
    roles: tuple[str, ...]
    artefacts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The signal's name."""
        return self.label.partition("@")[0]

    @property
    def version(self) -> str:
        """The signal's version."""
        return self.label.partition("@")[2]

    def standing(self, old: Signal, new: Signal) -> Literal["old", "new", "other"] | None:
        """Whether the version is the old, the new or another one; null where the signal is a
        different one."""
        if self.version == old.version:
            return "old"
        if self.version == new.version:
            return "new"
        return "other" if self.name in (old.name, new.name) else None


def runs_in(folder: Path) -> list[Path]:
    """The run folders in `folder`, or `folder` itself where it is one, sorted by name."""
    if _is_run(folder):
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))


def pins_of(run: Path) -> list[Pin]:
    """Every use of a signal in a run folder's finished stages, in the order of the stages.

    Raises:
        DataError: a result that cannot be read.
    """
    pins = []
    recorded = _versions(run)
    for stage, place in _places(run):
        roles_by_label: dict[str, list[str]] = {}
        result = read_stage(stage, place)
        for name, version, role in _uses(result):
            label = f"{name}@{version or _recorded(place, name) or recorded.get(name, UNRECORDED)}"
            if role not in roles_by_label.setdefault(label, []):
                roles_by_label[label].append(role)
        pins += [
            Pin(stage, place.name, label, tuple(roles), _artefacts(run, place, label, result))
            for label, roles in roles_by_label.items()
        ]
    return pins


def would_run_again(run: Path, old: Signal) -> list[str]:
    """The stages of a run folder that depend on `old`, so that another version in its place runs
    them again, in order."""
    stale: set[str] = set()
    finished = {stage for stage, _ in _places(run)}
    pinned = {pin.stage for pin in pins_of(run) if pin.version == old.version}
    for stage, place in _places(run):
        if stage in pinned or old.version in {
            signal.version for signal in _declared(place).values()
        }:
            stale.add(stage)
    for stage in STAGES:
        if stage.name in finished and stale & set(stage.needs or ()):
            stale.add(stage.name)
    return [stage.name for stage in STAGES if stage.name in stale]


def change_over(
    config: Configuration, base: Path, folder: Path, old: Signal, new: Signal
) -> dict[str, Literal["runs", "is there", "stays"]]:
    """What happens to each stage of a run where `new` replaces `old`, in the order of the stages.

    A stage `runs`; or `is there`, as it has finished with `new` before; or `stays`, as it does not
    depend on the signal. All stay where the run does not declare `old`.
    """
    config = settled(config, base, folder)
    declared = {name: signal.version for name, signal in config.declared().items()}
    tables = {
        name: _table(new) if declared[name] == old.version else table
        for name, table in config.signals.items()
    }
    stages = stages_of(config)
    current_keys = keys_of(stages, config, base)
    new_keys = keys_of(stages, config.model_copy(update={"signals": tables}), base)
    run = RunFolder(folder)
    changes: dict[str, Literal["runs", "is there", "stays"]] = {}
    for name, key in new_keys.items():
        if key == current_keys[name]:
            changes[name] = "stays"
        elif run.done(key):
            changes[name] = "is there"
        else:
            changes[name] = "runs"
    return changes


def settled(config: Configuration, base: Path, folder: Path) -> Configuration:
    """The configuration with windows and days fitted to the log where the run has one; else
    unchanged."""
    log_stages = tuple(stage for stage in stages_of(config) if stage.name in LOG_STAGES)
    (key,) = keys_of(log_stages, config, base).values()
    run = RunFolder(folder)
    return fit(config, LogFacts.of(Lake.open(run.place(key) / "lake"))) if run.done(key) else config


def log_of(source: Path) -> Path:
    """The lake folder that `source` stands for: a lake folder, a run folder, or a run.toml whose
    log is there.

    Raises:
        ConfigError: it is none of them, or a run folder with several logs.
        DataError: the run has not made its log yet.
    """
    if (source / "commits").is_dir():
        return source
    if source.is_dir():
        logs = [
            place / "lake"
            for stage, place in _places(source)
            if stage in LOG_STAGES and (place / "lake").is_dir()
        ]
        if len(logs) == 1:
            return _whole(logs[0])
        if logs:
            raise ConfigError(
                f"{source}: holds {len(logs)} logs; give one of "
                f"{', '.join(str(log) for log in logs)}"
            )
        raise ConfigError(
            f"{source}: neither a lake nor a run folder with a log; give a lake folder, a run "
            "folder, or a run.toml"
        )
    if source.suffix != ".toml":
        raise ConfigError(
            f"{source}: no such folder; give a lake folder, a run folder, or a run.toml"
        )
    config = load_config(source)
    log_stages = tuple(stage for stage in stages_of(config) if stage.name in LOG_STAGES)
    ((name, key),) = keys_of(log_stages, config, source.parent).items()
    folder = RunFolder(folder_of(config))
    if not folder.done(key):
        raise DataError(f"{source}: its log is not there yet; run `longplay {name} {source}` first")
    return folder.place(key) / "lake"


def _whole(log: Path) -> Path:
    """The log of a run, after a check that its files are as they were written."""
    if (why := damage_of(log.parent)) is not None:
        raise DataError(f"{why}; delete {log.parent}, and the run makes the log again")
    return log


def _is_run(folder: Path) -> bool:
    return any(True for _ in _places(folder))


def _places(run: Path) -> Iterator[tuple[str, Path]]:
    """Stage and folder of every finished stage, in the order of the stages."""
    for stage in STAGES:
        folder = run / stage.name
        for place in sorted(folder.iterdir()) if folder.is_dir() else ():
            if place.suffix != ".partial" and any(
                os.path.lexists(place / name) for name in (RESULT, DEPENDS, FILES)
            ):
                yield stage.name, place


@contextmanager
def _of_this_form(place: Path) -> Iterator[None]:
    """Raise an error where JSON without digests does not have the form that its stage writes."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, LongplayError):
            raise
        raise DataError(
            f"{place}: is not as its stage writes it ({error}); delete it, and the run makes it "
            "again"
        ) from error


def _uses(result: StageResult) -> Iterable[tuple[str, str | None, str]]:
    """Name, version and role of every signal in a stage's result; the version is null where it is
    not recorded."""
    match result:
        case OutcomesResult():
            yield from (_labelled(signal.label, "computed") for signal in result.signals.values())
        case RewardResult():
            yield from (
                _labelled(early.label, f"early reward ({early.chosen})")
                for early in result.signals.values()
            )
        case ReinforceResult():
            for label, weight in result.objectives.items():
                role = f"objective of reward {result.reward}, weight {weight:g}: {result.policy}"
                yield _labelled(label, role)
            for rival_name, rival in result.rivals.items():
                for name, weight in rival.objectives.items():
                    role = (
                        f"objective of the rival reward {rival_name}, weight {weight:g}: "
                        f"{rival.policy}"
                    )
                    yield name, None, role
        case EvaluateResult(signal=str() as signal):
            yield _labelled(signal, "rankings are judged by it")
        case OffpolicyResult(signal=str() as signal):
            yield _labelled(signal, "slots are valued by it")
        case ExperimentResult():
            yield _labelled(result.north_star, "north star of the experiment")
            yield from (
                _labelled(line.signal, "read beside the north star") for line in result.other_lines
            )
        case AuditResult():
            for arm, audit in result.arms.items():
                yield _labelled(audit.north_star, f"north star of the audit of {arm}")
                yield from (
                    _labelled(row.signal, f"audited in {arm}: {row.recommendation}")
                    for row in audit.verdicts
                )


def _labelled(label: str, role: str) -> tuple[str, str | None, str]:
    name, _, version = label.partition("@")
    return name, version or None, role


def _artefacts(run: Path, place: Path, label: str, result: StageResult) -> tuple[str, ...]:
    """Files that hold the result: result.json, the table of outcomes, and the audits that name the
    signal."""
    files = [place / RESULT]
    if isinstance(result, OutcomesResult):
        files += [
            place / f"{name}.parquet"
            for name, figures in result.signals.items()
            if figures.label == label
        ]
    if isinstance(result, AuditResult):
        files += [
            file
            for folder in (place, run)
            for file in sorted(folder.glob("audit-*.toml"))
            if _mentions(file, label)
        ]
    return tuple(str(file.relative_to(run)) for file in files if file.exists())


def _mentions(file: Path, label: str) -> bool:
    return file.is_file() and f'"{label}"'.encode() in file.read_bytes()


def _versions(run: Path) -> dict[str, str]:
    """Version by name of the signals that the run computed in one version only."""
    labels = set[str]()
    for stage, place in _places(run):
        if stage == OutcomesResult.stage:
            result = read_stage(stage, place)
            if isinstance(result, OutcomesResult):
                labels |= {figures.label for figures in result.signals.values()}
    names = [label.partition("@")[0] for label in labels]
    return {
        name: version
        for name, _, version in (label.partition("@") for label in labels)
        if names.count(name) == 1
    }


def _recorded(place: Path, name: str) -> str | None:
    """The version of the named signal that a stage depended on, where it is recorded."""
    signal = _declared(place).get(name)
    return None if signal is None else signal.version


def _declared(place: Path) -> dict[str, Signal]:
    """The signals recorded in a stage's key; declarations that are no longer valid are left out."""
    if not os.path.lexists(place / DEPENDS):
        return {}
    with _of_this_form(place):
        tables = read_result(place, DEPENDS).get("config", {}).get("config", {})
        signals = tables.get("signals", {}) if isinstance(tables, dict) else {}
    signals_by_name = {}
    for name, table in signals.items():
        try:
            signals_by_name[name] = Signal.from_mapping(name, table)
        except LongplayError:
            continue
    return signals_by_name


def _table(signal: Signal) -> dict[str, Any]:
    """A signal's declaration as a table of run.toml."""
    return tomllib.loads(signal.to_toml())["signals"][signal.name]
