"""`longplay signals`, `longplay signal diff` and `longplay signal keep`: list signals and their
base rates, compare two versions, store outcomes nightly."""

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

signal_app = typer.Typer(
    no_args_is_help=True,
    help="Compare two versions of a signal, and keep stored outcomes up to date.",
)

Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="[LOG]", help="A lake folder, a run folder, or a RUN.toml whose log was read."
    ),
]
SignalsFile = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="SIGNALS.toml", help="Your declarations, instead of the ready signals."
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
        "--truncated",
        help="Count truncated entries too: first touches so early in the log that they may be old "
        "habits.",
    ),
]
PROMISE = (
    "Results are stored by version: what was made with the old version stays as it is, byte for "
    "byte. Only report.html and audit-*.toml at the top of a run folder are replaced by its next run."
)
STANDINGS = ("old", "new", "other")
VERSION_HELP = "A ready signal's name, a TOML file with one signal, or FILE.toml:NAME."


def signals(
    log: Source = None, file: SignalsFile = None, toml: TomlOf = None, truncated: Truncated = False
) -> None:
    """List the ready signals; with a log, also their entries, mature entries and base rates on it.

    A signal that the log cannot answer is listed with the reason. Truncated entries are counted
    apart and left out of the base rate: they are so near the beginning of the log that what looks
    like a first touch may be an old habit.
    """

    def command() -> None:
        declared = ready() if file is None else tuple(declared_in(file))
        if toml:
            by_name = {signal.name: signal for signal in declared}
            typer.echo("\n".join(_by_name(by_name, name).to_toml() for name in toml), nl=False)
        elif log is None:
            _print_catalogue(declared)
        else:
            _print_base_rates(declared, log, truncated)

    guarded(command)


def declared_in(file: Path) -> list[Signal]:
    """Every signal under `[signals.NAME]` of a TOML file, for instance of a run.toml.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or declares no signal.
    """
    try:
        text = file.read_text()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read ({error.strerror}); give a TOML file with tables "
            "[signals.NAME]"
        ) from error
    try:
        declared = Signal.all_from_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not declared:
        raise ConfigError(f"{file}: declares no signal; expected at least one table [signals.NAME]")
    return declared


def _by_name(signals: dict[str, Signal], name: str) -> Signal:
    if name not in signals:
        instead = hint(name, signals) or f"; there are {', '.join(signals)}"
        raise ConfigError(f"signal {name!r}: not known{instead}")
    return signals[name]


def _print_catalogue(signals: Sequence[Signal]) -> None:
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
    hints = {
        "base rates on a log": "longplay signals LOG",
        "a declaration for run.toml": "longplay signals --toml NAME",
    }
    for purpose, command in hints.items():
        out.print(Text.assemble((f"{purpose}: ", "dim"), command))


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _print_base_rates(signals: Sequence[Signal], source: Path, truncated: bool) -> None:
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
        rates = base_rates(signals, lake, truncated=truncated)
    truncated_counts: list[str] = []
    for signal, rate in rates.items():
        if not isinstance(rate, BaseRate):
            refused.append((signal.name, str(rate).removeprefix(f"{signal.name}: ")))
            continue
        table.add_row(*_cells(signal, rate))
        if rate.truncated:
            truncated_counts.append(f"{signal.name}: {rate.truncated:,}")
    if table.row_count:
        out.print(table)
    if truncated_counts:
        treatment = "left out of the base rates (--truncated counts them)"
        if truncated:
            treatment = "counted in the base rates"
        words = (
            "truncated entries, so near the beginning of the log that a first touch may be an old "
            f"habit, {treatment}. {'; '.join(truncated_counts)}"
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


def _cells(signal: Declaration, rate: BaseRate) -> list[str]:
    """The row of a signal: entries, mature entries, base rate, its unit, users."""
    cells = [signal.name, f"{rate.entries:,}", f"{rate.mature:,}"]
    estimate = rate.rate
    if estimate is None:
        return [*cells, _why_no_rate(rate), unit(signal), "-"]
    low, high = estimate.interval()
    half = (high - low) / 2
    return [*cells, plus_minus(estimate.value, half), unit(signal), f"{estimate.n:,}"]


def _why_no_rate(rate: BaseRate) -> str:
    if rate.truncated == rate.entries:
        return "all truncated"
    return "none has a value" if rate.mature else "none yet"


# -- versions and the nightly store ----------------------------------------------------------------


@signal_app.callback()
def _group() -> None:
    """Compare two versions of a signal, and keep stored outcomes up to date."""


@signal_app.command()
def keep(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG", help="A lake folder, a run folder, or a RUN.toml whose log was read."
        ),
    ],
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Where outcomes are stored: a new or empty folder, or one this command wrote.",
        ),
    ],
    file: SignalsFile = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="4GB",
            help="Memory limit of the engine; what exceeds it is spilled to the store.",
        ),
    ] = None,
) -> None:
    """Update stored outcomes incrementally (run nightly).

    Writes one Parquet file per signal and entry day. Late events reopen the days that they
    touch. A signal that the log cannot answer yet is left out, and the reason is printed.
    """

    def command() -> None:
        declared = ready() if file is None else tuple(declared_in(file))
        lake = Lake.open(log_of(log))
        with console.status("rolling up", spinner="dots") as status:
            update = SignalStore(store, lake, declared).update(
                lambda part, done, total: status.update(f"{part} {done + 1} of {total}"),
                memory_limit=memory,
            )
        wide().print(Text(f"{store}: {update}"), soft_wrap=True)

    guarded(command)


@signal_app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help=VERSION_HELP)],
    new: Annotated[str, typer.Argument(metavar="NEW", help=VERSION_HELP)],
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
            help="A run: both are computed on its log, and it is shown how to switch it.",
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs", help="Folder of run folders, searched for results made with either version."
        ),
    ] = None,
    truncated: Truncated = False,
) -> None:
    """Show what a new version of a signal changes: definition, entries, base rate, and which
    results stay with the old version.

    Nothing is written. Results are stored by version, so a new version never changes an old result.
    """

    def command() -> None:
        if lake is not None and run is not None:
            raise ConfigError(
                "signal diff: --lake and --run given, expected one of them: a run has its own log"
            )
        old_signal, new_signal = _pair(old, new)
        config = None if run is None else load_config(run)
        source = lake if lake is not None else run
        on_log = None
        if source is not None:
            log = Lake.open(log_of(source))
            on_log = diff_of_signals(old_signal, new_signal, log, truncated=truncated)
        _print_lines(*definition_lines(old_signal, new_signal))
        if old_signal.version == new_signal.version:
            return
        backfill = (
            "with --lake LOG or --run RUN.toml: what changes on a log, and which entries to compute"
        )
        if on_log is not None:
            backfill = str(on_log.backfill)
            _print_title("on the log")
            _print_lines(on_log.findings())
        pinned = _print_pins(old_signal, new_signal, runs, config)
        _print_title("backfill")
        _print_lines(backfill)
        _print_switch(old_signal, new_signal, run, config, pinned)

    guarded(command)


def _pair(old: str, new: str) -> tuple[Signal, Signal]:
    """The signals that OLD and NEW name.

    Of a file with several signals, the one that has the name of the other argument's is taken.
    """
    old_signals = _candidates(old)
    new_signals = _candidates(new)
    if len(old_signals) > 1 and len(new_signals) == 1:
        old_signals = _with_name(old_signals, new_signals[0].name)
    if len(new_signals) > 1 and len(old_signals) == 1:
        new_signals = _with_name(new_signals, old_signals[0].name)
    for argument, signals_of_argument in ((old, old_signals), (new, new_signals)):
        if len(signals_of_argument) > 1:
            names = ", ".join(signal.name for signal in signals_of_argument)
            raise ConfigError(f"{argument}: declares {names}; give {argument}:NAME")
    return old_signals[0], new_signals[0]


def _with_name(signals: list[Signal], name: str) -> list[Signal]:
    """Those with this name; all where there is none."""
    return [signal for signal in signals if signal.name == name] or signals


def _candidates(argument: str) -> list[Signal]:
    """The signals that an argument may mean: a ready one, or those of a file."""
    if argument in READY:
        return [READY[argument]]
    path = argument
    name = ""
    if ".toml:" in argument:
        path, _, name = argument.rpartition(":")
    if not path.endswith(".toml"):
        instead = (
            hint(argument, READY)
            or "; give a name of `longplay signals`, FILE.toml, or FILE.toml:NAME"
        )
        raise ConfigError(f"signal {argument!r}: neither a ready signal nor a TOML file{instead}")
    declared = declared_in(Path(path))
    if not name:
        return declared
    return [_by_name({signal.name: signal for signal in declared}, name)]


def _print_title(words: str) -> None:
    console.print(Text(f"\n{words.upper()}", "bold"))


def _print_lines(*lines: str) -> None:
    out = wide()
    for line in lines:
        out.print(Text(line))


def _print_pins(
    old: Signal, new: Signal, runs: Path | None, config: Configuration | None
) -> list[Path]:
    """Print which finished results were made with which version.

    Returns:
        The run folders that hold results of the old version.
    """
    folders = runs_in(runs or Path("runs"))
    if runs is not None and not folders:
        raise ConfigError(
            f"--runs {runs}: no run folder there; give the folder that holds them, or a run folder"
        )
    run_folder = None if config is None else folder_of(config)
    searched = {folder.resolve() for folder in folders}
    if run_folder is not None and run_folder.is_dir() and run_folder.resolve() not in searched:
        folders += runs_in(run_folder)
    _print_title("results of finished runs")
    if not folders:
        _print_lines("no run folder here (--runs names another place)")
        return []
    without_pins: list[str] = []
    pinned: list[Path] = []
    for folder in folders:
        pins = [
            (standing, pin)
            for pin in pins_of(folder)
            if (standing := pin.standing(old, new)) is not None
        ]
        if not pins:
            without_pins.append(str(folder))
            continue
        if "old" in {standing for standing, _ in pins}:
            pinned.append(folder)
        versions = {(standing, pin.label) for standing, pin in pins}
        for version in sorted(versions, key=lambda pair: (STANDINGS.index(pair[0]), pair[1])):
            _print_lines(f"{folder} holds {' '.join(version)}")
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column()
            for standing, pin in pins:
                if (standing, pin.label) == version:
                    table.add_row(f"  {pin.stage}/{pin.digest}", _roles(pin))
            wide().print(table)
    if without_pins:
        _print_lines(f"without either version: {', '.join(without_pins)}")
    return pinned


def _roles(pin: Pin) -> Text:
    """What a result uses the version for, and the files that hold it."""
    files = [
        name
        for artefact in pin.artefacts
        if (name := artefact.removeprefix(f"{pin.stage}/{pin.digest}/")) != "result.json"
    ]
    return Text.assemble(
        "; ".join(pin.roles), (f" ({', '.join(dict.fromkeys(files))})" if files else "", "dim")
    )


def _print_switch(
    old: Signal,
    new: Signal,
    file: Path | None,
    config: Configuration | None,
    pinned: Sequence[Path],
) -> None:
    """Print how to switch runs to the new version, and that existing results stay as they are."""
    run_folder = None
    if file is not None and config is not None:
        run_folder = folder_of(config)
        config = settled(config, file.parent, run_folder)
        versions = {signal.version: name for name, signal in config.declared().items()}
        if old.version not in versions:
            already = f"; it declares {new.label} already" if new.version in versions else ""
            _print_lines(
                f"{file} does not declare {old.label}, so nothing of it runs again{already}"
            )
        else:
            name = versions[old.version]
            _print_lines(f"to change {file} over, put this in the place of [signals.{name}]:", "")
            typer.echo(replace(new, name=name).to_toml())
            _print_lines(f"then: longplay run {file}")
            fates = change_over(config, file.parent, run_folder, old, new)
            for fate, words in (
                ("runs", "run again"),
                ("is there", "there already, of an earlier run"),
                ("stays", "kept, they do not depend on it"),
            ):
                if stages := [stage for stage in fates if fates[stage] == fate]:
                    _print_lines(f"  {words}: {', '.join(stages)}")
    if run_folder is None:
        other_folders = list(pinned)
        _print_lines(
            "to change a run over, put this in its run.toml, in the place of the old one:", ""
        )
        typer.echo(new.to_toml())
    else:
        other_folders = [folder for folder in pinned if folder.resolve() != run_folder.resolve()]
    for folder in other_folders:
        _print_lines(
            f"{folder} would run again: {', '.join(would_run_again(folder, old))}; with: longplay "
            f"run RUN.toml --folder {folder}"
        )
    _print_lines(PROMISE)
