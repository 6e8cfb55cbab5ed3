"""The signals: their sentences, base rates, share of mature entries, and maturity curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longplay.display import Bounded, decimal, decimals_of, percent, share_of, with_interval
from longplay.estimate import Estimate
from longplay.report import charts
from longplay.report.blocks import Bullets, Chart, Code, Grid, Section, Table
from longplay.report.phrases import interval_words
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.outcome_figures import MaturityDay, OutcomesResult, SignalFigures
from longplay.results.reward_figures import RewardResult

NAME, TITLE = "signals", "Signals"
HEAD = (
    "signal",
    "unit",
    "value (95% interval)",
    "mature entries",
    "truncated, left out",
    "value at training time",
    "mature then",
)


@dataclass(frozen=True)
class SignalsOfRun:
    """The signals by name, those of the reward first."""

    signals: Mapping[str, SignalFigures]


def collect(results: RunResults) -> SignalsOfRun | None:
    """The signals, those of the reward first."""
    outcomes, reward = results.find(OutcomesResult), results.find(RewardResult)
    if outcomes is None or not outcomes.signals:
        return None
    paid = {} if reward is None else reward.signals
    ordered = sorted(outcomes.signals.items(), key=lambda pair: pair[0] not in paid)
    return SignalsOfRun(dict(ordered))


def draw(figures: SignalsOfRun) -> tuple[Chart, ...]:
    """The maturity curve of each signal over its window."""
    plots = []
    for signal in figures.signals.values():
        curve = signal.maturity
        if len(curve) > 1 and curve[-1].value:
            marks = [
                {**_row(day), "text": f"{percent(part)} by day {day.day}"}
                for part in (0.5, 0.9)
                if (day := reached(curve, part)) is not None
            ]
            rows = [_row(day) for day in curve]
            plots.append(charts.maturity(rows, marks, share=signal.binary, name=signal.label))
    return tuple(plots)


def render(figures: SignalsOfRun, plots: Sequence[Chart]) -> Section:
    """What each signal means, its base rate and maturity, and its declaration."""
    signals = figures.signals
    table = Table(
        "Signals: mean outcome of mature entries, at the end of the log and when training ended",
        HEAD,
        tuple(_line(signal) for signal in signals.values()),
        "llrrrrr",
    )
    return Section(
        NAME,
        TITLE,
        tuple(_sentence(name, signal) for name, signal in signals.items()),
        (
            Bullets(
                "What each signal means", tuple(signal.sentence for signal in signals.values())
            ),
            *((Grid(tuple(plots)),) if plots else ()),
            table,
            *(Code(f"{signal.label} as TOML", signal.toml) for signal in signals.values()),
        ),
    )


def reached(curve: Sequence[MaturityDay], share: float) -> MaturityDay | None:
    """The first day of a maturity curve at `share` of its final value; null where the curve is
    empty or ends at 0."""
    last = curve[-1].value if curve else 0.0
    if not last:
        return None
    return next((row for row in curve if row.value >= share * last - 1e-12), None)


def _row(day: MaturityDay) -> dict[str, Any]:
    """A day of a maturity curve as a row of a chart."""
    return {"day": day.day, "value": day.value}


def _line(signal: SignalFigures) -> tuple[str, ...]:
    """A signal as a table row: base rate and entries, at the end of the log and of training."""
    at_training = signal.at_training
    return (
        signal.label,
        signal.unit,
        _rate(signal.base_rate, signal.binary),
        f"{decimal(signal.mature)} of {decimal(signal.entries)}",
        decimal(signal.truncated),
        _rate(at_training.base_rate, signal.binary),
        f"{decimal(at_training.mature)} of {decimal(at_training.entries)}",
    )


def _sentence(name: str, signal: SignalFigures) -> str:
    """A sentence on a signal: its base rate, how fast it matures, and entries left out."""
    if signal.base_rate is None:
        certain = ""
        if signal.truncated and signal.mature:
            certain = (
                f" that are certain ({decimal(signal.truncated)} are truncated: the log begins too "
                "shortly before them)"
            )
        return (
            f"{name}: none of {decimal(signal.entries)} entries{certain} has matured, so it has no "
            "value yet."
        )
    rate = signal.base_rate.bounded()
    open_share = 1 - signal.mature / signal.entries if signal.entries else 0.0
    waiting = "nearly all of its entries have matured"
    if open_share >= 0.005:
        waiting = (
            f"{percent(open_share)} of its {decimal(signal.entries)} entries are still open and "
            "count as unknown, not as 0"
        )
    late = reached(signal.maturity, 0.9)
    when = "" if late is None else f"; 90% of it has shown by day {late.day} of {signal.days}"
    left_out = ""
    if signal.truncated:
        left_out = (
            f"; {decimal(signal.truncated)} truncated entries, so near the log's begin that they "
            "may be none, are left out"
        )
    value, interval = value_words(rate, signal.binary), interval_words(rate, share=signal.binary)
    return f"{name}: {value} ({interval}){when}; {waiting}{left_out}."


def value_words(rate: Bounded, share: bool) -> str:
    """A mean outcome in the decimals of its interval; of a signal of 0 and 1 as a share."""
    return share_of(rate.value, rate) if share else decimal(rate.value, decimals_of(rate))


def _rate(rate: Estimate | None, share: bool) -> str:
    """A base rate with its interval, or that none is mature."""
    if rate is None:
        return "not mature"
    figure = rate.bounded()
    if not share:
        return with_interval(figure)
    ends = [share_of(bound, figure) for bound in figure.interval or ()]
    value = share_of(figure.value, figure)
    return f"{value} ({' to '.join(ends)})" if ends else value


SECTIONS = (
    Steps(
        order=30,
        name=NAME,
        title=TITLE,
        absent="No signal was measured: the outcomes stage has no result.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
