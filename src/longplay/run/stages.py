"""The table of stages: what each needs, what it depends on, and how its result reads in one
line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.files import tree_digest, write_file
from longplay.lake import Lake
from longplay.run.config import Codes, Ingest, RunConfig, Table, Train, folder_of
from longplay.run.engine import Silent, Stage, Ui, Work, execute, turn, versions
from longplay.run.feasible import check_extras, settle
from longplay.run.folder import RunFolder
from longplay.run.log import ingest, simulate, source_digest


def run_stages(
    config: RunConfig,
    *,
    base: Path,
    folder: Path | None = None,
    until: str | None = None,
    ui: Ui | None = None,
    now: datetime | None = None,
) -> dict[str, Path]:
    """Run every stage of `config` in order, up to and including `until`; return the finished
    stages' folders by name.

    Args:
        config: the run, checked.
        base: where the configuration's relative paths start.
        folder: the run folder, default `runs/<name>`.
        until: the last stage to run; default all.
        ui: shows progress; default nothing does.
        now: the clock, UTC.
    """
    place = folder_of(config) if folder is None else folder
    stages = stages_of(config)
    if until is not None and until not in {stage.name for stage in stages}:
        raise ConfigError(
            f"stage {until!r} is not in this run; it has "
            f"{', '.join(stage.name for stage in stages)}"
        )
    names = [stage.name for stage in stages]
    check_extras(config, names if until is None else names[: names.index(until) + 1])
    ui = Silent() if ui is None else ui
    places = execute(
        stages, config, base=base, folder=RunFolder(place), until=until, ui=ui, now=now
    )
    published = sorted(places["audit"].glob("*.toml")) if "audit" in places else []
    if "report" in places:
        published.append(places["report"] / "report.html")
    for file in published:
        _publish(file, place, ui)
    return places


def _publish(file: Path, folder: Path, ui: Ui) -> None:
    """Copy a stage's file to the top of the run folder, where it is not there yet."""
    copy, content = folder / file.name, file.read_bytes()
    if copy.is_file() and copy.read_bytes() == content:
        return
    with turn(folder, ui):
        if copy.is_dir():
            raise DataError(f"{copy} is a folder, expected a file of this run; move it away")
        write_file(copy, content)


def stages_of(config: RunConfig) -> tuple[Stage, ...]:
    """The stages of this run, in order."""
    left_out = {
        "ingest" if config.simulate else "simulate",
        *(() if config.experiment else ("experiment", "audit")),
    }
    return tuple(stage for stage in STAGES if stage.name not in left_out)


def report(work: Work) -> dict[str, Any]:
    """One self-contained page from the figures of all stages."""
    from longplay.report import render

    page = render(work.config.run.name, dict(work.results))
    (work.folder / "report.html").write_text(page, encoding="utf-8")
    return {"bytes": len(page.encode()), "page": "report.html"}


def _of(*tables: str):
    """Depends on these tables of the configuration ("table" or "table.key"), and on the seed."""

    def depends(config: RunConfig, base: Path) -> Any:
        whole = config.model_dump(mode="json") | {
            "train": _given(config.train, Train(), "scale", "base", "steps", "exclude")
        }
        parts = {path: whole[path.split(".")[0]] for path in tables}
        return {
            path: part[path.split(".")[1]] if "." in path else part for path, part in parts.items()
        } | {"seed": config.run.seed}

    return depends


_TORCH = ("torch", "transformers", "accelerate")


def _ingest_depends(config: RunConfig, base: Path) -> Any:
    if config.ingest is None:
        raise ConfigError("ingest: this run has no [ingest] table")
    old = (
        "format",
        "path",
        "columns",
        "constants",
        "kinds",
        "time_format",
        "time_zone",
        "max_bad_share",
        "closed_through",
    )
    return {"ingest": _given(config.ingest, Ingest(path=""), *old), **source_digest(config, base)}


def _codes_depends(config: RunConfig, base: Path) -> Any:
    """Also on an encoder's files."""
    depends = _of("split.train_until")(config, base) | {
        "codes": _given(config.codes, Codes(), "levels", "width")
    }
    if config.codes.words in ("tfidf", "none"):
        return depends
    from longplay.models.sentence_encoder import encoder_folder

    libraries = ("sentence-transformers", "tokenizers", *_TORCH)
    return depends | {
        "encoder": tree_digest(encoder_folder(config.codes.words, base)),
        "libraries": versions(libraries),
    }


def _train_depends(config: RunConfig, base: Path) -> Any:
    """Also on a pretrained base's files, and on the signal that is wanted and the model of its
    early beliefs, where there are such."""
    depends = _of("split.train_until", "train")(config, base)
    if config.train.want is not None:
        depends |= {"signal": config.signals[config.train.want], "model": config.reward.model}
    if config.train.base is None:
        return depends
    folder = base / config.train.base
    if not folder.exists():
        raise ConfigError(
            f"train.base: {folder} does not exist; paths are relative to the run.toml"
        )
    return depends | {"base": tree_digest(folder), "libraries": versions(("peft", "tokenizers"))}


def _given(table: Table, default: Table, *old: str) -> dict[str, Any]:
    """A table; keys younger than some runs, all but the `old` ones, only where they are not the
    default: those runs stay finished."""
    usual = default.model_dump(mode="json")
    return {
        key: value
        for key, value in table.model_dump(mode="json").items()
        if key in old or value != usual[key]
    }


def _cell(rows: list[dict[str, Any]], policy: str, metric: str) -> str:
    value = next(
        (row["value"] for row in rows if row["policy"] == policy and row["metric"] == metric), None
    )
    return "n/a" if value is None else f"{value:.3f}"


def _log_line(result: dict[str, Any]) -> str:
    bad = f", {result['quarantined']:,} rows quarantined" if result["quarantined"] else ""
    return (
        f"{result['events']:,} events of {result['users']:,} users, {result['items']:,} items{bad}"
    )


def _evaluate_line(result: dict[str, Any]) -> str:
    if "ranking" not in result:
        return "nothing to rank: " + result["not_estimable"]["ranking"]
    metric = "habit NDCG@10"
    return f"{metric}: " + ", ".join(
        f"{name} {_cell(result['ranking'], name, metric)}"
        for name in ("popular", "start", "reward-weighted", "reinforced")
    )


def _reward_line(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{one['label']}: {one['chosen']} on {one['known']['mature']:,} mature of "
        f"{one['known']['entries']:,} entries"
        for one in result.values()
    )


def _reinforce_line(result: dict[str, Any]) -> str:
    if not result["curve"]:
        return f"{result['policy']}: no steps"
    first, last = result["curve"][0], result["curve"][-1]
    alarms = result.get("alarms")  # none in runs from before there were any
    alarm = f"ALARM, far behind the start: {'; '.join(alarms)}. " if alarms else ""
    return (
        f"{alarm}{result['policy']}: reward per slot {first['reward']:.4g} → "
        f"{last['reward']:.4g}, KL {last['kl']:.2f}"
    )


def _outcomes_line(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{one['label']} {one['mature']:,} of {one['entries']:,} mature" for one in result.values()
    )


def _codes_line(result: dict[str, Any]) -> str:
    said = f"{result['items']:,} items, {result['levels']} levels of {result['width']} codes"
    made_of = result.get("vectors")  # none in runs from before there was a choice
    return (
        said
        if made_of is None
        else f"{said}; behaviour {made_of['behaviour']}, words {made_of['words']}"
    )


def _train_line(result: dict[str, Any]) -> str:
    return (
        f"{result['policy']}: {result['parameters']:,} parameters, loss "
        f"{result['curve'][-1]['loss']:.3f} nats per item"
    )


def _offpolicy_line(result: dict[str, Any]) -> str:
    if "policies" not in result:
        return "not estimable: " + result["not_estimable"]
    said = {row["policy"]: row["estimates"]["doubly robust"] for row in result["policies"]}
    cells = (
        f"{name} {one['value']:.4f}" if "value" in one else f"{name} not estimable"
        for name, one in said.items()
    )
    return f"{result['signal']} per slot, doubly robust: " + ", ".join(cells)


def _experiment_line(result: dict[str, Any]) -> str:
    decisions = result["readout"]["decisions"]
    return f"{result['users']:,} users, {result['days']} days: " + "; ".join(
        f"{one['arm']}: {one['verdict']}" for one in decisions
    )


def _audit_line(result: dict[str, Any]) -> str:
    verdicts = [(arm, one) for arm, found in result["arms"].items() for one in found["verdicts"]]
    return "; ".join(
        f"{arm}: {one['recommendation']} {one['signal'].split('@')[0]}" for arm, one in verdicts
    )


def _from(module: str, name: str) -> Callable[[Work], dict[str, Any]]:
    """A stage's function, imported when it runs: what needs no torch must not wait for it."""

    def run(work: Work) -> dict[str, Any]:
        try:
            function = getattr(import_module(f"longplay.run.{module}"), name)
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"the stage {name!r} needs {error.name}: pip install 'longplay[llm]'"
            ) from error
        with threadpool_limits(
            work.config.run.threads
        ):  # the engine's own limit did not reach what the import has just loaded
            return function(work)

    return run


def _settle(config: RunConfig, place: Path) -> tuple[RunConfig, str]:
    """The configuration for the log in a finished stage's folder; raises where it cannot be run on
    it."""
    return settle(config, Lake.open(place / "lake"))


_LOG = ("ingest", "simulate")
_LEARNERS = ("scikit-learn", *_TORCH)
STAGES = (
    Stage("ingest", 3, (), _ingest_depends, ingest, _log_line, settles=_settle),
    Stage("simulate", 3, (), _of("simulate"), simulate, _log_line, settles=_settle),
    Stage(
        "outcomes",
        2,
        _LOG,
        _of("signals", "split", "reward.objectives"),
        _from("beliefs", "outcomes"),
        _outcomes_line,
    ),
    Stage(
        "reward",
        3,
        (*_LOG, "outcomes"),
        _of("signals", "split", "reward"),
        _from("beliefs", "reward"),
        _reward_line,
        libraries=("scikit-learn",),
    ),
    Stage(
        "codes",
        3,
        _LOG,
        _codes_depends,
        _from("learn", "codes"),
        _codes_line,
        libraries=("scikit-learn",),
    ),
    Stage(
        "train",
        2,
        (*_LOG, "codes"),
        _train_depends,
        _from("learn", "train"),
        _train_line,
        resumes=True,
        libraries=_LEARNERS,
    ),
    Stage(
        "reinforce",
        3,
        (*_LOG, "train"),
        _of("signals", "split.train_until", "reward", "reinforce", "train"),
        _from("learn", "reinforce_and_weight"),
        _reinforce_line,
        resumes=True,
        libraries=_LEARNERS,
    ),
    Stage(
        "evaluate",
        4,
        (*_LOG, "train", "reinforce"),
        _of("signals", "split", "evaluate", "reward", "reinforce", "train"),
        _from("judge", "evaluate"),
        _evaluate_line,
        libraries=_LEARNERS,
    ),
    Stage(
        "offpolicy",
        4,
        (*_LOG, "train", "reinforce"),
        _of("signals", "split.train_until", "reward", "reinforce.slots", "experiment"),
        _from("trial", "offpolicy"),
        _offpolicy_line,
        libraries=_LEARNERS,
    ),
    Stage(
        "experiment",
        2,
        (*_LOG, "train", "reinforce"),
        _of("simulate", "signals", "split.train_until", "reward", "reinforce.slots", "experiment"),
        _from("trial", "experiment"),
        _experiment_line,
        libraries=_LEARNERS,
    ),
    Stage(
        "audit",
        2,
        (*_LOG, "reinforce", "experiment"),
        _of("signals", "split.train_until", "reward", "experiment"),
        _from("trial", "audit"),
        _audit_line,
        libraries=_LEARNERS,
    ),
    Stage(
        "report",
        3,
        (
            *_LOG,
            "outcomes",
            "reward",
            "codes",
            "train",
            "reinforce",
            "evaluate",
            "offpolicy",
            "experiment",
            "audit",
        ),
        lambda config, base: {"name": config.run.name},
        report,
        lambda r: f"{r['bytes'] / 1e6:.1f} MB, open report.html",
        libraries=("altair", "jinja2", "vl-convert-python"),
    ),
)
