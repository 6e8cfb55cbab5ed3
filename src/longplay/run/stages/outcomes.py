"""Stage `outcomes`: compute every declared signal on the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from longplay.estimate import Estimate
from longplay.results.outcome_figures import (
    KnownOutcomes,
    MaturityDay,
    OutcomesResult,
    SignalFigures,
)
from longplay.run.engine import Stage, Work, depends_on
from longplay.run.stages.reward import RewardTable
from longplay.run.tables import Engine
from longplay.signals import Outcomes
from longplay.signals.engine.duckdb import DUCKDB
from longplay.signals.engine.engines import AnyEngine
from longplay.signals.engine.spark import SparkEngine


def run(work: Work) -> OutcomesResult:
    """Compute every declared signal on the log, at its end and as known when training ends."""
    with _engine(work.config.engine) as engine:
        return _computed(work, engine)


@contextmanager
def _engine(table: Engine) -> Iterator[AnyEngine]:
    """The engine of run.toml; a Spark session that is started here is stopped here."""
    if table.spark is None:
        yield DUCKDB
        return
    engine = SparkEngine(table.spark, table.settings)
    try:
        yield engine
    finally:
        engine.close()


def _computed(work: Work, engine: AnyEngine) -> OutcomesResult:
    """See `run`."""
    from longplay.signals.outcomes.future import matured_entries

    lake = work.lake
    signals = work.config.declared()
    figures: dict[str, SignalFigures] = {}
    for done, (name, signal) in enumerate(signals.items()):
        work.ui.progress("signals", done, len(signals))
        outcomes = signal.outcomes(lake, engine=engine)
        past_outcomes = signal.outcomes(work.past, engine=engine)
        if (
            name in work.config.of(RewardTable).objectives and signal.entry.is_discovery
        ):  # better refused now than after training
            matured_entries(outcomes, work.config.split.trained, work.config.split.evaluated)
        outcomes.frame.write_parquet(work.folder / f"{name}.parquet")
        figures[name] = SignalFigures(
            label=signal.label,
            sentence=str(signal),
            unit=signal.entry.unit,
            binary=signal.binary,
            days=signal.days,
            toml=signal.to_toml(),
            as_of=outcomes.as_of.isoformat(),
            entries=len(outcomes),
            mature=int(outcomes.mature.sum()),
            truncated=outcomes.truncated,
            base_rate=_rate(outcomes),
            maturity=tuple(MaturityDay(**row) for row in outcomes.maturity_curve().to_dicts()),
            at_training=KnownOutcomes(
                as_of=past_outcomes.as_of.isoformat(),
                entries=len(past_outcomes),
                mature=int(past_outcomes.mature.sum()),
                truncated=past_outcomes.truncated,
                base_rate=_rate(past_outcomes),
            ),
        )
    work.ui.progress("signals", len(signals), len(signals))
    return OutcomesResult(figures)


def _rate(outcomes: Outcomes) -> Estimate | None:
    """The base rate, truncated entries left out; null where no certain entry has a value yet."""
    if outcomes.certain().frame["value"].is_null().all():
        return None
    return outcomes.base_rate()


def _line(result: OutcomesResult) -> str:
    return "; ".join(
        f"{signal.label} {signal.mature:,} of {signal.entries:,} mature"
        for signal in result.signals.values()
    )


STAGE = Stage(
    name="outcomes",
    order=30,
    version=3,
    help="Compute every declared signal: sentence, base rate, maturity; immature outcomes stay "
    "null.",
    needs=("ingest", "simulate"),
    depends=depends_on("signals", "split", "reward.objectives"),
    run=run,
    line=_line,
    loads=("longplay.rewards",),
)
