"""The head of the page: the verdict in sentences, one chart, and warnings about both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longplay.display import decimal, listed, percent, printed, signed, span
from longplay.errors import ConfigError
from longplay.report.blocks import Chart, Section, charts_of
from longplay.report.phrases import ZERO, first, verdict
from longplay.report.policy_names import INCUMBENT
from longplay.report.sections.audit import audit_words
from longplay.report.sections.experiment import Loop, enrolled_users, experiment_refusals, forest
from longplay.report.sections.experiment import collect as collect_loop
from longplay.report.sections.offpolicy import off_policy_refusals
from longplay.report.sections.refusals import collect as collect_refusals
from longplay.report.summary import alarms
from longplay.results import RunResults
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.outcome_figures import OutcomesResult
from longplay.signals import Signal
from longplay.signals.declare.sentence import unit

MOST_WARNINGS = 3  # shown; the others are counted and folded
MOST_ARMS = 6  # shown; the others are counted and folded
MOST_SENTENCES = 3  # of a run without an experiment
# sections that can answer in place of an experiment, the best supported first
BEST_SUPPORTED = ("truth", "offpolicy", "ranking", "rewards", "signals", "log")


@dataclass(frozen=True)
class Sentence:
    """A sentence of the verdict, with the colour of its policy; empty where it is about none."""

    text: str
    colour: str = ""


@dataclass(frozen=True)
class Alert:
    """A warning about the verdict; screen readers announce it at once where it is `urgent`."""

    text: str
    urgent: bool


@dataclass(frozen=True)
class Unit:
    """The unit of the north star in the head: its value times `factor`, followed by `words`."""

    words: str
    factor: float = 1.0


@dataclass(frozen=True)
class Headline:
    """The contents of the head of the page.

    Attributes:
        sentences: the verdict, one per arm; without an experiment the best supported answer.
        more_sentences: those of further arms, folded.
        context: which data the sentences come from.
        evidence: name of the section with the evidence; empty where there is none.
        plot: of the verdict; null where there is nothing to draw.
        warnings: most severe first.
        more_warnings: those beyond `MOST_WARNINGS`, folded.
    """

    sentences: tuple[Sentence, ...]
    more_sentences: tuple[Sentence, ...]
    context: str
    evidence: str
    plot: Chart | None
    warnings: tuple[Alert, ...]
    more_warnings: tuple[Alert, ...]


def headline(results: RunResults, sections: Sequence[Section]) -> Headline:
    """The head of a run's page.

    Args:
        results: of the finished stages.
        sections: of the page, in its order.
    """
    every_warning = warnings(results)
    shown, folded = every_warning[:MOST_WARNINGS], every_warning[MOST_WARNINGS:]
    loop = collect_loop(results)
    arms = [] if loop is None else treatments(loop)
    if loop is not None and arms:
        sentences = [_arm_sentence(loop, arm, results) for arm in arms]
        plot = forest(loop, arms[:MOST_ARMS])
        context, evidence = _experiment_context(loop), "loop"
    else:
        section = best_supported(sections)
        sentences, plot, context, evidence = [], None, "", ""
        if section is not None:
            sentences = [Sentence(text) for text in section.answer[:MOST_SENTENCES]]
            plot = next(iter(charts_of(section.blocks)), None)
            evidence = section.name
            tried = (
                "No experiment was run." if loop is None else "The experiment compared no policies."
            )
            context = f"{tried} This is the best supported answer that the log has."
        else:
            context = "No stage of this run has a result to report."
    return Headline(
        sentences=tuple(sentences[:MOST_ARMS]),
        more_sentences=tuple(sentences[MOST_ARMS:]),
        context=context,
        evidence=evidence,
        plot=plot,
        warnings=tuple(shown),
        more_warnings=tuple(folded),
    )


def best_supported(sections: Iterable[Section]) -> Section | None:
    """The section that answers best in place of an experiment: the first of `BEST_SUPPORTED` with
    an answer and a chart, else with an answer and a table; null where none has."""
    by_name = {section.name: section for section in sections}
    ordered = [by_name[name] for name in BEST_SUPPORTED if name in by_name]
    answered = [section for section in ordered if section.answer and section.blocks]
    drawn = [section for section in answered if charts_of(section.blocks)]
    return next(iter([*drawn, *answered]), None)


def treatments(loop: Loop) -> list[str]:
    """The arms of an experiment that are compared with the incumbent."""
    return [row.arm for row in loop.experiment.arms if row.arm != INCUMBENT]


def arm_sentence(loop: Loop, arm: str, star_unit: Unit) -> str:
    """One sentence on an arm: the decision, its difference from the incumbent, and its audit.

    Args:
        loop: the experiment and what stands beside it.
        arm: its name.
        star_unit: of the north star.
    """
    decision = next((row for row in loop.experiment.readout.decisions if row.arm == arm), None)
    call = "No decision on" if decision is None else first(decision.verdict)
    words = f"{call} {loop.names[arm]}: "
    if any(check.fails for check in loop.experiment.readout.checks):
        words += "the experiment cannot be trusted; "
    words += _difference(loop, arm, star_unit)
    advice = audit_words(loop.audits, arm)
    return f"{words}; {advice}." if advice else f"{words}."


def unit_of(name: str, counted: str, days: int | None) -> Unit:
    """The unit in which the head states a north star.

    Args:
        name: of the signal.
        counted: what its value counts: `days`, `plays` or `share`; empty where it is not known.
        days: length of its window; null where it is not known.

    >>> unit_of("active", "days", 28).words, unit_of("active_days_28d", "days", 28).words
    ('active days in 28 per user', 'active days in 28 per user')
    >>> unit_of("plays_28d", "plays", 28).words
    'plays (plays_28d) per user over 28 days'
    >>> unit_of("back_28d", "share", 28)
    Unit(words='percentage points of users (back_28d) over 28 days', factor=100.0)
    """
    over = "" if days is None else f" over {decimal(days)} days"
    if counted == "share":
        return Unit(f"percentage points of users ({name}){over}", factor=100.0)
    if counted == "days" and days is not None:
        kind = name.removesuffix(f"_{days}d").replace("_", " ").removesuffix("days").strip()
        return Unit(f"{kind} days in {decimal(days)} per user".strip())
    if counted:
        return Unit(f"{counted} ({name}) per user{over}")
    return Unit(f"{name} per user{over}")


def warnings(results: RunResults) -> list[Alert]:
    """Warnings about the verdict, most severe first: alarms, failed checks of the experiment, and
    questions that the data could not answer."""
    urgent = [*alarms(results), *_failed_checks(results)]
    return [
        *(Alert(text, urgent=True) for text in urgent),
        *(Alert(text, urgent=False) for text in _refusals(results)),
    ]


def _refusals(results: RunResults) -> list[str]:
    """Questions that were not answered, one sentence per reason, those about policies first."""
    about_policies = experiment_refusals(results) | off_policy_refusals(results)
    questions: dict[str, list[str]] = {}
    for question, reason in (about_policies | dict(collect_refusals(results) or {})).items():
        why = reason.rpartition(": not estimable: ")[2]  # the part before it names a version
        questions.setdefault(why, []).append(question)
    return [
        f"Not estimable: {listed(same_reason)}: {why.removesuffix('.')}."
        for why, same_reason in questions.items()
    ]


def _arm_sentence(loop: Loop, arm: str, results: RunResults) -> Sentence:
    """`arm_sentence` with the unit of the north star and the colour of the arm."""
    star_unit = unit_of(loop.star, _counted(loop, results), loop.star_days)
    return Sentence(arm_sentence(loop, arm, star_unit), loop.names.colours.get(arm, ""))


def _difference(loop: Loop, arm: str, star_unit: Unit) -> str:
    """The difference with its 95% interval and the relative lift, or that there is none."""
    gap = loop.star_line(arm)
    if gap is None:
        return f"its {loop.star} is not estimable yet"
    gap = gap.scaled(star_unit.factor)
    words = f"{signed(gap)} {star_unit.words}"
    if gap.interval is not None:
        words += f" ({span(gap)})"
    relative = loop.relative_lift(arm)
    if relative is not None:
        words += f", {printed(percent(relative, 1, signed=True))}"
    return f"{words}, {ZERO}" if verdict(gap) == ZERO else words


def _counted(loop: Loop, results: RunResults) -> str:
    """What the north star counts; empty where the run holds no declaration of it."""
    outcomes = results.find(OutcomesResult)
    signals = () if outcomes is None else outcomes.signals.values()
    text = next((row.toml for row in signals if row.label == loop.experiment.north_star), "")
    try:
        return unit(Signal.from_toml(text))
    except ConfigError:
        return ""


def _experiment_context(loop: Loop) -> str:
    """How many users the experiment had, and what the verdict's figures are."""
    truth = "; beside them what the simulated world knows" if loop.experiment.truth else ""
    return (
        f"{first(enrolled_users(loop.experiment))} over {decimal(loop.experiment.days)} days. "
        f"Differences from the incumbent, {_incumbent(loop)}, with 95% intervals{truth}."
    )


def _incumbent(loop: Loop) -> str:
    """The incumbent's name in a sentence."""
    return loop.names[INCUMBENT].removesuffix(" (incumbent)")


def _failed_checks(results: RunResults) -> list[str]:
    """One warning per failed quality check of the experiment."""
    experiment = results.find(ExperimentResult)
    if experiment is None:
        return []
    return [
        f"The experiment cannot be trusted. {check.name}: {check.words}"
        for check in experiment.readout.checks
        if check.fails
    ]
