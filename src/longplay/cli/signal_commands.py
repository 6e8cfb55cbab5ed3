"""`longplay signals`, `signal diff` and `signal keep`: ready outcomes, what a log says, what
another version changes, every night."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from longplay.cli.screen import console, guarded, wide
from longplay.display import plus_minus
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.creators import disagreement_note
from longplay.names import hint
from longplay.run.config import folder_of, load_config
from longplay.run.pins import Pin, change_over, log_of, pins_of, runs_in, settled, would_run_again
from longplay.run.tables import Configuration
from longplay.signals import READY, Signal, ready
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.sentence import unit
from longplay.signals.outcomes.definition_diff import definition_lines
from longplay.signals.outcomes.in_files import BaseRate, base_rates
from longplay.signals.outcomes.version_diff import diff as diff_of_signals
from longplay.signals.ready_signals import CATALOGUE
from longplay.signals.store.signal_store import SignalStore

one = typer.Typer(
    no_args_is_help=True,
    help="One declared signal or several: what another version changes, and outcomes kept up to "
    "date.",
)

Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="[LOG]", help="A lake folder, a run folder, or a RUN.toml whose log is there."
    ),
]
OwnFile = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="SIGNALS.toml", help="Your own declarations instead of the ready ones."
    ),
]
TomlOf = Annotated[
    list[str] | None,
    typer.Option(
        "--toml",
        metavar="NAME",
        help="Print the declaration for run.toml; may be given several times.",
    ),
]
Truncated = Annotated[
    bool,
    typer.Option(
        "--truncated", help="Count entries, too, that the log begins too late for to be certain of."
    ),
]
PROMISE = (
    "Results are kept by version: all that is pinned to the old one stays as it is, byte for byte. "
    "Only the copies at the top of a run folder, report.html and audit-*.toml, are of its latest "
    "run."
)
STANDINGS = ("old", "new", "other")
Version = "A ready signal's name, a TOML file with one signal, or FILE.toml:NAME."


def signals(
    log: Source = None, file: OwnFile = None, toml: TomlOf = None, truncated: Truncated = False
) -> None:
    """The catalogue of ready signals; with a log, what it says of each: entries, how many are
    mature, base rate.

    A signal that the log cannot answer is listed with the reason. Truncated entries, so near the
    log's begin that what looks like a first touch may be an old habit, are counted apart and left
    out of the base rate.
    """

    def tell() -> None:
        declared = ready() if file is None else tuple(declared_in(file))
        if toml:
            by_name = {signal.name: signal for signal in declared}
            typer.echo("\n".join(_named(by_name, name).to_toml() for name in toml), nl=False)
        elif log is None:
            _tell_catalogue(declared)
        else:
            _tell_log(declared, log, truncated)

    guarded(tell)


def declared_in(file: Path) -> list[Signal]:
    """Every signal under `[signals.NAME]` of a TOML file, a run.toml for one; at least one."""
    try:
        text = file.read_text()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); give a TOML file with tables "
            "[signals.NAME]"
        ) from error
    try:
        found = Signal.all_from_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not found:
        raise ConfigError(f"{file}: declares no signal; expected at least one table [signals.NAME]")
    return found


def _named(signals: dict[str, Signal], name: str) -> Signal:
    if name not in signals:
        instead = hint(name, signals) or f"; there are {', '.join(signals)}"
        raise ConfigError(f"signal {name!r}: not known{instead}")
    return signals[name]


def _tell_catalogue(signals: Sequence[Signal]) -> None:
    notes = {entry.signal.version: entry for entry in CATALOGUE}
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for signal in signals:
        head = Text.assemble(
            (signal.name, "bold"), (f"\n{signal.entry.unit}\n@{signal.version}", "dim")
        )
        words = Text(_capital(str(signal).split(": ", 1)[1]) + ".")
        if note := notes.get(signal.version):
            words.append_text(
                Text.assemble(("\nUse: ", "bold"), note.use, ("\nTrap: ", "bold"), note.trap)
            )
        table.add_row(head, words)
    out = wide()
    out.print(table)
    for what, command in (
        ("what a log says of each", "longplay signals LOG"),
        ("a declaration for run.toml", "longplay signals --toml NAME"),
    ):
        out.print(Text.assemble((f"{what}: ", "dim"), command))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _tell_log(signals: Sequence[Signal], source: Path, truncated: bool) -> None:
    place = log_of(source)
    lake = Lake.open(place)
    out = wide()
    out.print(
        Text.assemble(
            ("log ", "bold"), f"{place}, complete up to {lake.watermark:%Y-%m-%d %H:%M} UTC"
        ),
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for name in ("signal", "entries", "mature", "base rate", "of", "users"):
        table.add_column(
            name, justify="left" if name in ("signal", "of") else "right", overflow="fold"
        )
    refused: list[tuple[str, str]] = []
    with console.status(f"computing {len(signals)} signals in one pass", spinner="dots"):
        found = base_rates(signals, lake, truncated=truncated)
    for signal, one in found.items():
        if isinstance(one, BaseRate):
            table.add_row(*_cells(signal, one))
        else:
            refused.append((signal.name, str(one).removeprefix(f"{signal.name}: ")))
    if table.row_count:
        out.print(table)
    if unsure := [
        f"{signal.name}: {one.truncated:,}"
        for signal, one in found.items()
        if isinstance(one, BaseRate) and one.truncated
    ]:
        how = (
            "counted in the base rates"
            if truncated
            else "left out of the base rates (--truncated counts them)"
        )
        words = (
            "truncated entries, so near the log's begin that a first touch may be an old "
            f"habit, {how}. {'; '.join(unsure)}"
        )
        out.print(Text(f"\n{textwrap.fill(words, 80)}"))
    if refused:
        out.print(Text("\ncannot be computed on this log", "bold"))
        reasons = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for name, reason in refused:
            reasons.add_row(name, Text(reason))
        out.print(reasons)
    if note := disagreement_note(lake):
        out.print(Text.assemble(("\ncreators: ", "bold"), note))
    if not table.row_count:
        raise DataError(f"{place}: none of {len(signals)} signals can be computed on this log")


def _cells(signal: Declaration, found: BaseRate) -> list[str]:
    cells = [signal.name, f"{found.entries:,}", f"{found.mature:,}"]
    if found.rate is None:
        return [*cells, _no_rate(found), unit(signal), "-"]
    low, high = found.rate.interval()
    return [
        *cells,
        plus_minus(found.rate.value, (high - low) / 2),
        unit(signal),
        f"{found.rate.n:,}",
    ]


def _no_rate(found: BaseRate) -> str:
    if found.truncated == found.entries:
        return "all truncated"
    return "none has a value" if found.mature else "none yet"


# -- refining --------------------------------------------------------------------------------------


@one.callback()
def _group() -> None:
    """One declared signal or several: what another version changes, and outcomes kept up to
    date."""


@one.command()
def keep(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG", help="A lake folder, a run folder, or a RUN.toml whose log is there."
        ),
    ],
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Where outcomes are kept; new, empty, or made by this command.",
        ),
    ],
    file: OwnFile = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="4GB",
            help="The engine's memory; beyond it, it spills to the store.",
        ),
    ] = None,
) -> None:
    """Update stored outcomes incrementally (run nightly).

    Writes one Parquet file per signal and entry day. Late events reopen the days that they
    touch. A signal that the log cannot answer yet is left out, and the reason is printed.
    """

    def tell() -> None:
        declared = ready() if file is None else tuple(declared_in(file))
        lake = Lake.open(log_of(log))
        with console.status("rolling up", spinner="dots") as status:
            done = SignalStore(store, lake, declared).update(
                lambda what, at, of: status.update(f"{what} {at + 1} of {of}"), memory_limit=memory
            )
        wide().print(Text(f"{store}: {done}"), soft_wrap=True)

    guarded(tell)


@one.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help=Version)],
    new: Annotated[str, typer.Argument(metavar="NEW", help=Version)],
    lake: Annotated[
        Path | None,
        typer.Option(
            "--lake", metavar="LOG", help="A lake or run folder on which both are computed."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN.toml",
            help="The run whose log that is, and which might change over.",
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs", help="Run folders that are searched for results pinned to a version."
        ),
    ] = None,
    truncated: Truncated = False,
) -> None:
    """What a new version of a signal changes: definition, entries, base rate, and which results
    stay pinned to the old one.

    Nothing is written: results are kept by version, so a new version never changes an old result.
    """

    def tell() -> None:
        if lake is not None and run is not None:
            raise ConfigError(
                "signal diff: --lake and --run given, expected one of them: a run has its own log"
            )
        before, after = _pair(old, new)
        config = None if run is None else load_config(run)
        source = lake if lake is not None else run
        found = (
            None
            if source is None
            else diff_of_signals(before, after, Lake.open(log_of(source)), truncated=truncated)
        )
        _say(*definition_lines(before, after))
        if found is not None and before.version != after.version:
            _title("on the log")
            _say(found.findings())
        if before.version != after.version:
            pinned = _tell_pins(before, after, runs, config)
            _title("backfill")
            _say(
                "with --lake LOG or --run RUN.toml: what changes on a log, and which entries to "
                "compute"
                if found is None
                else str(found.backfill)
            )
            _tell_switch(before, after, run, config, pinned)

    guarded(tell)


def _pair(old: str, new: str) -> tuple[Signal, Signal]:
    """Both signals; a file with several takes the one that is called as the other."""
    before, after = _candidates(old), _candidates(new)
    if len(before) > 1 and len(after) == 1:
        before = [signal for signal in before if signal.name == after[0].name] or before
    if len(after) > 1 and len(before) == 1:
        after = [signal for signal in after if signal.name == before[0].name] or after
    for given, found in ((old, before), (new, after)):
        if len(found) > 1:
            raise ConfigError(
                f"{given}: declares {', '.join(signal.name for signal in found)}; give {given}:NAME"
            )
    return before[0], after[0]


def _candidates(given: str) -> list[Signal]:
    if given in READY:
        return [READY[given]]
    path, _, name = given.rpartition(":") if ".toml:" in given else (given, "", "")
    if not path.endswith(".toml"):
        instead = (
            hint(given, READY)
            or "; give a name of `longplay signals`, FILE.toml, or FILE.toml:NAME"
        )
        raise ConfigError(f"signal {given!r}: neither a ready signal nor a TOML file{instead}")
    found = declared_in(Path(path))
    return [_named({signal.name: signal for signal in found}, name)] if name else found


def _title(words: str) -> None:
    console.print(Text(f"\n{words.upper()}", "bold"))


def _say(*lines: str) -> None:
    out = wide()
    for line in lines:
        out.print(Text(line))


def _tell_pins(
    old: Signal, new: Signal, runs: Path | None, config: Configuration | None
) -> list[Path]:
    """Which finished results were made with which version; the run folders with some of the old
    one."""
    folders = runs_in(runs or Path("runs"))
    if runs is not None and not folders:
        raise ConfigError(
            f"--runs {runs}: no run folder there; give the folder that holds them, or a run folder"
        )
    own = None if config is None else folder_of(config)
    if (
        own is not None
        and own.is_dir()
        and own.resolve() not in {folder.resolve() for folder in folders}
    ):
        folders += runs_in(own)
    _title("results of finished runs")
    if not folders:
        _say("no run folder here (--runs gives another place)")
        return []
    others, pinned = [], []
    for folder in folders:
        pins = [
            (standing, pin)
            for pin in pins_of(folder)
            if (standing := pin.standing(old, new)) is not None
        ]
        if not pins:
            others.append(str(folder))
            continue
        if "old" in {standing for standing, _ in pins}:
            pinned.append(folder)
        for held in sorted(
            {(standing, pin.label) for standing, pin in pins},
            key=lambda one: (STANDINGS.index(one[0]), one[1]),
        ):
            _say(f"{folder} holds {' '.join(held)}")
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column()
            for standing, pin in pins:
                if (standing, pin.label) == held:
                    table.add_row(f"  {pin.stage}/{pin.digest}", _role(pin))
            wide().print(table)
    if others:
        _say(f"without either: {', '.join(others)}")
    return pinned


def _role(pin: Pin) -> Text:
    files = [
        name
        for artefact in pin.artefacts
        if (name := artefact.removeprefix(f"{pin.stage}/{pin.digest}/")) != "result.json"
    ]
    return Text.assemble(
        "; ".join(pin.roles), (f" ({', '.join(dict.fromkeys(files))})" if files else "", "dim")
    )


def _tell_switch(
    old: Signal,
    new: Signal,
    file: Path | None,
    config: Configuration | None,
    pinned: Sequence[Path],
) -> None:
    """What a run has to do to change over, and that nothing happens to the results there are."""
    own = None
    if file is not None and config is not None:
        own = folder_of(config)
        config = settled(config, file.parent, own)
        versions = {signal.version: name for name, signal in config.declared().items()}
        if old.version not in versions:
            already = f"; it declares {new.label} already" if new.version in versions else ""
            _say(f"{file} does not declare {old.label}, so nothing of it runs again{already}")
        else:
            name = versions[old.version]
            _say(f"to change {file} over, put this in the place of [signals.{name}]:", "")
            typer.echo(replace(new, name=name).to_toml())
            _say(f"then: longplay run {file}")
            becomes = change_over(config, file.parent, own, old, new)
            for what, words in (
                ("runs", "run again"),
                ("is there", "there already, of an earlier run"),
                ("stays", "kept, they do not depend on it"),
            ):
                if stages := [stage for stage, fate in becomes.items() if fate == what]:
                    _say(f"  {words}: {', '.join(stages)}")
    others = [folder for folder in pinned if own is None or folder.resolve() != own.resolve()]
    if own is None:
        _say("to change a run over, put this in its run.toml, in the place of the old one:", "")
        typer.echo(new.to_toml())
    for folder in others:
        _say(
            f"{folder} would run again: {', '.join(would_run_again(folder, old))}; with: longplay "
            f"run RUN.toml --folder {folder}"
        )
    _say(PROMISE)
