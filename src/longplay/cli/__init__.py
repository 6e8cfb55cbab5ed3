"""The command line: `longplay run`, `longplay demo`, `longplay signals`, `longplay lm`, and one
verb per stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from longplay import __version__
from longplay.cli import init, lm, schema_command
from longplay.cli import lake_commands as lake
from longplay.cli import signal_commands as signals
from longplay.cli.screen import EXIT_CODES, TABLE_WIDTH, console, faults_in, guarded, wide
from longplay.display import duration
from longplay.progress import figure_words
from longplay.results import RunResults
from longplay.run.config import folder_of, load_config, parse_config
from longplay.run.engine import Stage, read_stage
from longplay.run.runner import run_stages
from longplay.run.stages import STAGES
from longplay.run.tables import Configuration

if TYPE_CHECKING:
    from longplay.report.sections.experiment import Cell, LoopRow

app = typer.Typer(
    name="longplay",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"""The reward platform for recommenders that are language models.

Train and judge a recommender on what people do weeks later: declare delayed outcomes as signals, estimate them before they mature, reinforce a generative recommender on them, evaluate it off-policy, in an experiment and in an audit, and read one report.

  longplay demo           the whole loop on a small simulated service

  longplay init LOG       write a run.toml that fits your log

  longplay run run.toml   run every stage the data supports; writes report.html

  longplay signals        list ready signals; with a log, their base rates on it

A run can be stopped at any moment; the same command resumes it. Finished stages are skipped. A stage's name as a command runs the stages up to it; `longplay train --help` says what it does. {EXIT_CODES}""",  # noqa: E501
)
RunFile = Annotated[
    Path,
    typer.Argument(
        metavar="RUN.toml",
        help="The run's configuration; see examples/retail.toml or `longplay init`.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        help="Where results go. Default: run.folder of the configuration, else runs/NAME.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"longplay {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of `longplay` itself, before any command."""


@app.command(rich_help_panel="Start here")
def run(file: RunFile, folder: Folder = None) -> None:
    """Run every stage that the data supports, and write the report.

    Finished stages are skipped when neither their configuration nor their inputs changed.
    """
    guarded(lambda: _run(load_config(file), file.parent, folder, None))


@app.command(rich_help_panel="Start here")
def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where results go. Default: runs/demo, runs/demo-quick."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, help="Seed of the simulated service, its listeners and all chance."
        ),
    ] = 7,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="At most a minute and no torch: simple policies, no experiment, no audit.",
        ),
    ] = False,
) -> None:
    """Run the whole loop on a small simulated service: log, training, experiment, audit and report.

    Takes a few minutes.
    """
    config = parse_config(
        resources.files("longplay.run").joinpath("demo.toml").read_text(), "demo.toml"
    )
    config = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
    if quick:
        guarded(lambda: _quick(config, folder))
    else:
        guarded(lambda: _run(config, Path.cwd(), folder or Path("runs/demo"), None))


app.command(name="init", rich_help_panel="Start here")(init.init)
app.command(name="signals", rich_help_panel="Signals")(signals.signals)
app.command(name="schema", rich_help_panel="Start here")(schema_command.schema)
app.add_typer(signals.signal_app, name="signal", rich_help_panel="Signals")
app.add_typer(lake.lake, name="lake", rich_help_panel="Lake")
app.add_typer(lm.lm, name="lm", rich_help_panel="Language models")


def _verb(stage: Stage[Any]) -> None:
    def command(file: RunFile, folder: Folder = None) -> None:
        guarded(lambda: _run(load_config(file), file.parent, folder, stage.name))

    app.command(
        name=stage.name,
        rich_help_panel="One stage, in their order",
        help=f"{stage.help}\n\nRuns the stages before it too, where they are not finished.",
    )(command)


for _stage in STAGES:
    _verb(_stage)


def _run(config: Configuration, base: Path, folder: Path | None, until: str | None) -> None:
    begun = time.perf_counter()
    place = folder or folder_of(config)
    console.print(f"[bold]{escape(config.run.name)}[/bold] → {escape(str(place))}", soft_wrap=True)
    with faults_in(place):
        places = run_stages(
            config, base=base, folder=place, until=until, ui=_RichUi(), now=datetime.now(UTC)
        )
        if "experiment" in places:
            _tell_loop(places, place)
    if "report" in places:
        console.print(
            f"[bold green]report[/bold green] {escape(str(place / 'report.html'))} "
            f"({duration(time.perf_counter() - begun)})"
        )


def _quick(config: Configuration, folder: Path | None) -> None:
    from longplay.cli.quick import quick_demo

    begun = time.perf_counter()
    place = folder or Path("runs/demo-quick")
    console.print(f"[bold]demo --quick[/bold] → {escape(str(place))}", soft_wrap=True)
    with faults_in(place):
        report = quick_demo(config, place, _RichUi())
    console.print(
        f"[bold green]report[/bold green] {escape(str(report))} "
        f"({time.perf_counter() - begun:.0f} s)"
    )


def _tell_loop(places: Mapping[str, Path], place: Path) -> None:
    """Print the result of the experiment as the report's table: true values, estimates, decisions
    and audits."""
    from longplay.report.sections import experiment

    loop = experiment.collect(
        RunResults({stage: read_stage(stage, folder) for stage, folder in places.items()})
    )
    if loop is None:
        return
    out = wide()
    rows = experiment.loop_rows(loop)
    out.print()
    if out.width >= TABLE_WIDTH:
        out.print(_loop_table(experiment.HEAD, rows))
    else:
        for row in rows:
            out.print(Text(row.policy, "bold"))
            for name, cell in zip(experiment.HEAD[1:], row.cells[1:]):
                out.print(Text(f"  {name:<22}{str(cell) or '–'}"))
    out.print(Text(experiment.estimands(loop), "dim"))
    for sentence in experiment.decision_words(loop):
        out.print(Text(sentence))
    for audit in sorted(places["audit"].glob("audit-*.toml")) if "audit" in places else ():
        out.print(f"[bold]audit[/bold] {escape(str(place / audit.name))}", soft_wrap=True)


def _loop_table(head: Sequence[str], rows: Sequence[LoopRow]) -> Table:
    """One row per policy; an interval stands below its value."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    words = {"policy": 11, "decision": 8, "audit": 9}
    for name in head:
        figures = 12 if name.startswith("true level") else 16  # with the gaps: TABLE_WIDTH
        justify = "left" if name in words else "right"
        most = words.get(name, figures)
        table.add_column(name, overflow="fold", justify=justify, max_width=most)
    for row in rows:
        table.add_row(*map(_cell, row.cells))
    return table


def _cell(cell: Cell) -> Text:
    """A cell as plain text: names may hold what looks like markup."""
    if cell.narrow:
        return Text(cell.narrow)
    detail = f"\n{cell.detail}" if cell.detail else ""
    return Text.assemble(cell.text or "–", (detail, "dim"))


class _RichUi:
    """Live bars on a terminal, and one line per finished stage everywhere."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._waiting: TaskID | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        columns = (
            SpinnerColumn(),
            TextColumn(f"[bold]{name:<10}[/bold]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(
            *columns, console=console, transient=True, disable=not sys.stdout.isatty()
        ) as bars:
            self._bars, self._tasks = bars, {}
            # shown until the stage reports its first progress
            self._waiting = bars.add_task("", total=None, figures="")
            yield
        self._bars = None

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, float] | None = None
    ) -> None:
        if self._bars is None:
            return
        if self._waiting is not None:
            self._bars.remove_task(self._waiting)
            self._waiting = None
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total, figures="")
        self._bars.update(
            self._tasks[label], completed=done, total=total, figures=figure_words(figures or {})
        )

    def finished(self, name: str, line: str, place: Path, seconds: float | None) -> None:
        mark = "[dim]·[/dim]"
        how = "unchanged, skipped"
        if seconds is not None:
            mark = "[green]✓[/green]"
            how = duration(seconds)
        where = f"[dim]{how} → {escape(str(place))}[/dim]"
        console.print(f"{mark} [bold]{name:<10}[/bold] {escape(line)} {where}", soft_wrap=True)

    def note(self, line: str) -> None:
        console.print(f"[dim]·[/dim] {escape(line)}", soft_wrap=True)

    def waiting(self, folder: Path) -> None:
        console.print(f"another run works in {escape(str(folder))}; waiting", soft_wrap=True)

    def damaged(self, name: str, why: str) -> None:
        console.print(
            f"[yellow]![/yellow] [bold]{name:<10}[/bold] {escape(why)}; the stage runs again",
            soft_wrap=True,
        )


def main() -> None:
    """Entry point of `python -m longplay`."""
    app()
