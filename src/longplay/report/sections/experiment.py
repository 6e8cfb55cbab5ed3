"""The section on the experiment: true and estimated differences, the decisions, and the audits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from longplay.display import (
    Bounded,
    decimal,
    decimals_of,
    listed,
    percent,
    percent_and_ends,
    plus_minus,
    printed,
    signed,
    span,
    with_interval,
)
from longplay.estimate import Estimate
from longplay.report import charts
from longplay.report.blocks import Block, Chart, Heading, Note, Section, Table
from longplay.report.charts import INK
from longplay.report.phrases import ZERO, first, verdict
from longplay.report.policy_names import INCUMBENT, PolicyNames, policy_names
from longplay.report.sections.audit import (
    audit_cell,
    audit_sentences,
    audits_of,
    evidence,
    gap_words,
    short,
)
from longplay.report.sections.offpolicy import BEST
from longplay.report.steps import Steps
from longplay.results import NotEstimable, RunResults
from longplay.results.audit_figures import ArmAudit
from longplay.results.experiment_figures import (
    ArmTruth,
    EffectFigures,
    ExperimentResult,
    SignalLine,
)
from longplay.results.offpolicy_figures import OffpolicyResult
from longplay.results.outcome_figures import OutcomesResult

NAME = "loop"
TITLE = "The loop: what was tried, and was the early reward true"
HEAD = (
    "policy",
    "true level per user",
    "true difference",
    "off-policy, per slot",
    "experiment, per user",
    "decision",
    "audit",
)


@dataclass(frozen=True)
class Cell:
    """A cell of the loop's table.

    Attributes:
        text: the figure.
        detail: its interval, or why there is none.
        narrow: figure and interval in few characters, for a narrow column; empty where not needed.
    """

    text: str
    detail: str = ""
    narrow: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class LoopRow:
    """One policy of an experiment.

    Attributes:
        arm: its name in the experiment.
        policy: its name in plain words.
        level: the north star per user that the world knows.
        difference: how much more that is than under the incumbent.
        offpolicy: doubly robust value per slot (estimand one_step); the incumbent's is the mean of
            the slots it logged.
        experiment: the experiment's difference to the incumbent per enrolled user (estimand
            policy).
        decision: of the experiment.
        audit: what follows for the signals its reward paid for.
    """

    arm: str
    policy: str
    level: Cell
    difference: Cell
    offpolicy: Cell
    experiment: Cell
    decision: str
    audit: str

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order of `HEAD`."""
        return (
            Cell(self.policy),
            self.level,
            self.difference,
            self.offpolicy,
            self.experiment,
            Cell(self.decision),
            Cell(self.audit),
        )


@dataclass(frozen=True)
class Loop:
    """What the section shows.

    Attributes:
        experiment: the result of the experiment stage.
        offpolicy: what the log said before, null where it was not asked.
        audits: of each arm, in the order of the experiment.
        names: of the policies.
        star_days: days of the north star's window, null where the outcomes stage has no result.
    """

    experiment: ExperimentResult
    offpolicy: OffpolicyResult | None
    audits: Mapping[str, ArmAudit]
    names: PolicyNames
    star_days: int | None

    @property
    def star(self) -> str:
        """The north star without its version."""
        return short(self.experiment.north_star)

    def star_line(self, arm: str) -> Bounded | None:
        """The experiment's difference in the north star with its 95% interval; null where there is
        none."""
        for line in self.experiment.readout.lines:
            if line.arm == arm and line.signal == self.experiment.north_star:
                return None if line.effect is None else line.effect.difference.bounded()
        return None

    def relative_lift(self, arm: str) -> float | None:
        """The experiment's relative difference in the north star; null where there is none."""
        for line in self.experiment.readout.lines:
            if (
                line.arm == arm
                and line.signal == self.experiment.north_star
                and line.effect is not None
            ):
                return None if line.effect.relative is None else line.effect.relative.value
        return None

    def truth(self, arm: str) -> ArmTruth | None:
        """What the world knows of an arm; null where it is not simulated."""
        return next((row for row in self.experiment.truth if row.arm == arm), None)

    def true_gap(self, arm: str) -> Bounded | None:
        """The true difference to the incumbent."""
        row = self.truth(arm)
        return None if row is None or row.difference is None else row.difference.bounded()


def collect(results: RunResults) -> Loop | None:
    """The experiment with its off-policy estimates and audits; null where none was run."""
    experiment, outcomes = results.find(ExperimentResult), results.find(OutcomesResult)
    if experiment is None:
        return None
    signals = () if outcomes is None else outcomes.signals.values()
    days = next((signal.days for signal in signals if signal.label == experiment.north_star), None)
    return Loop(
        experiment, results.find(OffpolicyResult), audits_of(results), policy_names(results), days
    )


def loop_rows(loop: Loop) -> list[LoopRow]:
    """One row per policy of the experiment, the incumbent first."""
    rows = []
    for arm in (row.arm for row in loop.experiment.arms):
        truth, incumbent = loop.truth(arm), arm == INCUMBENT
        rows.append(
            LoopRow(
                arm=arm,
                policy=loop.names[arm],
                level=Cell("n/a") if truth is None else _level(truth.level.bounded()),
                difference=Cell("reference") if incumbent else _gap(loop.true_gap(arm), "n/a"),
                offpolicy=_logged(loop) if incumbent else _off_policy(loop, arm),
                experiment=Cell("reference")
                if incumbent
                else _gap(loop.star_line(arm), "not estimable"),
                decision="runs now" if incumbent else _decision(loop, arm),
                audit="" if incumbent else audit_cell(loop.audits, arm),
            )
        )
    return rows


def decision_words(loop: Loop) -> list[str]:
    """One sentence per arm: what the experiment decided and why, and what would settle it where it
    is open."""
    words = []
    for row in loop.experiment.readout.decisions:
        sentence = f"{first(row.verdict)} {loop.names[row.arm]}: {row.reason}."
        if row.verdict == "keep running" and row.users is not None:
            when = "more than come within two years"
            if row.weeks is not None:
                when = f"{math.ceil(row.weeks)} more weeks"
            sentence += f" To settle it: about {decimal(row.users, 0)} users in both arms, {when}."
        gap = loop.star_line(row.arm)
        if row.verdict == "ship" and gap is not None and verdict(gap) != "higher":
            sentence += (
                f" The north star itself is {verdict(gap)}: {loop.star} {signed(gap)} "
                f"({span(gap)})."
            )
        words.append(sentence)
    return words


def estimands(loop: Loop) -> str:
    """Why two columns of the table must not be subtracted from each other."""
    signal = "the objective"
    if loop.offpolicy is not None and loop.offpolicy.signal is not None:
        signal = short(loop.offpolicy.signal)
    return (
        f"Two questions, two units. Off-policy (estimand one_step): {signal} per slot, if one "
        "slot were drawn from the policy and the logging policy "
        "then continued; the incumbent's is the mean of its logged slots. "
        "Experiment and truth (estimand "
        f"policy): {loop.star} per user who lives under the policy "
        "throughout. Compare their signs and their order, not their sizes."
    )


def draw(loop: Loop) -> tuple[Chart, ...]:
    """The experiment's differences beside the true ones, and the experiment day by day."""
    plots = (forest(loop, [row.arm for row in loop.experiment.arms]), _by_day(loop))
    return tuple(plot for plot in plots if plot is not None)


def render(loop: Loop, plots: Sequence[Chart]) -> Section:
    """The loop at a glance, then what the experiment and its audit rest on."""
    experiment, names = loop.experiment, loop.names
    answer = [
        _headline(loop),
        *decision_words(loop),
        *_truth_words(loop),
        *audit_sentences(loop.audits, names),
    ]
    body = tuple(tuple(str(cell) or "–" for cell in row.cells) for row in loop_rows(loop))
    over = f" over {loop.star_days} days" if loop.star_days else ""
    caption = f"What was tried: north star “{loop.star}”{over}, with 95% intervals"
    blocks: list[Block] = [
        Table(caption, HEAD, body, "lrrrrll", swatches=names.swatches),
        Heading("", estimands(loop)),
        *plots,
        *_read_out(experiment, names),
        *evidence(loop.audits, names),
        *_checks(experiment),
        *_planned(experiment),
    ]
    return Section(NAME, TITLE, tuple(answer), tuple(blocks))


def experiment_refusals(results: RunResults) -> dict[str, str]:
    """Questions about the experiment that it could not answer, with their reasons."""
    experiment = results.find(ExperimentResult)
    if experiment is None:
        return {}
    reasons = {
        f"effect of {line.arm} on {short(line.signal)}": line.reason
        for line in experiment.readout.lines
        if line.effect is None and line.reason
    }
    if isinstance(experiment.plan, NotEstimable):
        reasons["plan of the experiment"] = experiment.plan.not_estimable
    return reasons


def enrolled_users(experiment: ExperimentResult) -> str:
    """How many users were enrolled, in words; those of the service where nobody was."""
    pairs = {line.arm: line.enrolled for line in experiment.readout.lines}
    users = sum(pair[1] for pair in pairs.values())
    users += max((pair[0] for pair in pairs.values()), default=0)
    return f"{decimal(users)} enrolled users" if users else f"{decimal(experiment.users)} users"


def _headline(loop: Loop) -> str:
    """A sentence that lists the decisions of the experiment."""
    experiment = loop.experiment
    decisions = [f"{row.verdict} {loop.names[row.arm]}" for row in experiment.readout.decisions]
    tried = f"An experiment of {enrolled_users(experiment)} over {decimal(experiment.days)} days"
    if not decisions:
        return f"{tried} had no policy to decide on."
    return f"{tried} says: {listed(decisions)}."


def _truth_words(loop: Loop) -> list[str]:
    """Per arm what the world knows, and whether the experiment found it."""
    words = []
    incumbent = loop.truth(INCUMBENT)
    for row in loop.experiment.truth:
        gap = loop.true_gap(row.arm)
        if row.arm == INCUMBENT or gap is None:
            continue
        better = {
            "higher": "truly better than",
            "lower": "truly worse than",
            ZERO: "truly not told apart from",
        }.get(verdict(gap), "beside")
        over = f" over {loop.star_days} days" if loop.star_days else ""
        level = "n/a" if incumbent is None else with_interval(incumbent.level.bounded())
        sentence = (
            f"{first(loop.names[row.arm])} is {better} the incumbent in the world that made the "
            f"data: {loop.star} per user{over} {signed(gap)} "
            f"({span(gap) or 'no interval'}), from {level} to {with_interval(row.level.bounded())}"
        )
        tried = loop.star_line(row.arm)
        agreement = "" if tried is None else f"; {_agreement(tried, gap)}"
        words.append(f"{sentence}{agreement}.")
    return words


def _agreement(tried: Bounded, gap: Bounded) -> str:
    """Whether the experiment's difference and the true one agree within the errors of both."""
    estimated_ends = tried.interval
    true_ends = gap.interval
    if estimated_ends is None or true_ends is None:
        return "the experiment has no interval to compare it with"
    widths = estimated_ends[1] - estimated_ends[0], true_ends[1] - true_ends[0]
    error = math.hypot(*widths) / 2
    agrees = "agrees" if abs(tried.value - gap.value) <= error else "does not agree"
    estimate = f"{signed(tried)} ({span(tried)})"
    return f"the experiment's {estimate} {agrees} with it, within the errors of both"


def _decision(loop: Loop, arm: str) -> str:
    """The verdict on an arm."""
    decisions = (row.verdict for row in loop.experiment.readout.decisions if row.arm == arm)
    return next(decisions, "none")


def _level(level: Bounded) -> Cell:
    """A true level with its interval, in a wide and a narrow form."""
    if level.interval is None:
        return Cell(decimal(level.value))
    low, high = level.interval
    narrow = printed(plus_minus(level.value, (high - low) / 2))
    return Cell(decimal(level.value, decimals_of(level)), span(level), narrow)


def _gap(gap: Bounded | None, absent: str) -> Cell:
    """A difference with its interval, or `absent` where there is none."""
    return Cell(absent) if gap is None else Cell(signed(gap), span(gap))


def _logged(loop: Loop) -> Cell:
    """The mean of the slots that the incumbent logged."""
    logged = None if loop.offpolicy is None else loop.offpolicy.logged
    if logged is None:
        return Cell("n/a")
    return Cell(f"{decimal(logged.value)} as logged", span(logged.bounded()))


def _off_policy(loop: Loop, arm: str) -> Cell:
    """The doubly robust estimate of an arm, or why there is none."""
    result = loop.offpolicy
    if result is None:
        return Cell("n/a")
    if result.not_estimable is not None:
        return Cell("not estimable")
    row = next((row for row in result.policies if row.policy == arm), None)
    answer = None if row is None else row.estimates.get(BEST)
    if row is None or answer is None:
        return Cell("n/a")
    if isinstance(answer, Estimate):
        return Cell(decimal(answer.value), span(answer.bounded()))
    return Cell("not estimable", row.lacks)


def forest(loop: Loop, arms: Sequence[str]) -> Chart | None:
    """The experiment's difference and the true one, per arm; null where there is none."""
    plotted, colours = [], dict(loop.names.colours)
    for arm in arms:
        for how, gap in (("experiment", loop.star_line(arm)), ("true", loop.true_gap(arm))):
            if gap is None:
                continue
            key = arm if how == "experiment" else f"{arm}, true"
            colours[key] = colours.get(arm, INK) if how == "experiment" else INK
            plotted.append(
                {
                    "name": key,
                    "label": loop.names[arm],
                    "how": how,
                    **gap.row(),
                    "text": f"{signed(gap)} ({span(gap)})",
                }
            )
    if not plotted:
        return None
    return charts.grouped(
        plotted,
        colours,
        f"Difference from the incumbent in {loop.star} per user: as estimated by the experiment, "
        "and true",
        "per user, with 95% interval",
        reference=(0.0, ""),
    )


def _by_day(loop: Loop) -> Chart | None:
    """Share of each arm's users who visit, as trailing 7-day means."""
    share: dict[str, dict[date, float]] = {}
    for row in loop.experiment.daily:
        share.setdefault(row.arm, {})[date.fromisoformat(row.day)] = row.share
    if not share:
        return None
    begin, end = min(map(min, share.values())), max(map(max, share.values()))
    days = [begin + timedelta(days=place) for place in range((end - begin).days + 1)]
    if len(days) < 8:
        return None
    arms = [row.arm for row in loop.experiment.arms]
    series = {}
    for arm in sorted(share, key=lambda arm: (*arms, arm).index(arm)):
        values = [share[arm].get(day, 0.0) for day in days]
        series[loop.names[arm]] = [
            (days[place].isoformat(), sum(values[place - 6 : place + 1]) / 7)
            for place in range(6, len(days))
        ]
    return charts.daily(
        series,
        loop.names.swatches,
        "Share of each arm's users who visit on a day of the experiment, mean of the last 7 days",
        "share who visit",
    )


def _read_out(experiment: ExperimentResult, names: PolicyNames) -> list[Block]:
    """A table per arm: every signal, its difference, and how many users are mature."""
    lines = [*experiment.readout.lines, *experiment.other_lines]
    blocks: list[Block] = []
    head = (
        "signal",
        "incumbent",
        "this arm",
        "difference (interval)",
        "relative",
        "p",
        "variance",
        "mature users",
        "so it is",
    )
    for arm in dict.fromkeys(line.arm for line in lines):
        rows = [line for line in lines if line.arm == arm]
        levels = sorted({line.effect.level for line in rows if line.effect is not None}, key=str)
        intervals = ""
        if levels:
            intervals = f"; intervals at {' and '.join(percent(level, 1) for level in levels)}"
        caption = f"Read-out of {names[arm]} against the incumbent, per enrolled user{intervals}"
        blocks.append(Table(caption, head, tuple(_line(line) for line in rows), "lrrrrrrrl"))
    if blocks:
        text = (
            "The north star alone decides: an arm ships if it is superior. What the policies were "
            "trained on is read, but cannot ship them. The "
            "intervals share 5% of error over the arms (and the other signals among themselves), "
            "so they are wider than the 95% intervals above. "
            "Means are adjusted for what was known of users before the experiment; variance says "
            "how much that saved. A user counts once the signal's "
            "window has closed: mature of enrolled."
        )
        blocks.insert(0, Heading("What the experiment measured", text))
    return blocks


def _line(line: SignalLine) -> tuple[str, ...]:
    """A signal of an arm as a table row."""
    signal, effect = short(line.signal), line.effect
    mature = f"{decimal(sum(line.mature))} of {decimal(sum(line.enrolled))}"
    if effect is None:
        return (signal, *["–"] * 6, mature, line.standing)
    return (
        signal,
        _mean(effect.control),
        _mean(effect.treatment),
        gap_words(Bounded(effect.difference.value, *effect.interval)),
        _relative(effect),
        decimal(effect.p_value, 3) if effect.p_value >= 0.001 else "< 0.001",
        printed(percent(-effect.variance_reduction)),
        mature,
        line.standing,
    )


def _mean(estimate: Estimate) -> str:
    """The value of an estimate in the decimals of its interval."""
    return decimal(estimate.value, decimals_of(estimate.bounded()))


def _relative(effect: EffectFigures) -> str:
    """The relative difference in per cent, with its interval."""
    if effect.relative is None:
        return "–"
    if effect.relative_interval is None:
        return printed(percent(effect.relative.value, signed=True))
    lift, ends = percent_and_ends(effect.relative.value, *effect.relative_interval)
    return printed(f"{lift} ({ends})")


def _checks(experiment: ExperimentResult) -> list[Block]:
    """Whether the experiment was run as declared; a failed check is set apart."""
    rows = experiment.readout.checks
    failed = [f"{row.name}: {row.words}" for row in rows if row.fails]
    blocks: list[Block] = []
    if failed:
        blocks.append(Note(f"The experiment cannot be trusted. {'; '.join(failed)}"))
    body = []
    for row in rows:
        result = "note" if row.warns else "ok"
        if row.fails:
            result = "fails"
        body.append((row.name, result, row.words))
    if body:
        head = ("check", "result", "what was found")
        blocks.append(Table("Quality checks of the experiment", head, tuple(body), "lll"))
    return blocks


def _planned(experiment: ExperimentResult) -> list[Block]:
    """What the experiment was expected to need, before it was run."""
    plan = experiment.plan
    if plan is None:
        return []
    refused = isinstance(plan, NotEstimable)
    words = f"Not estimable: {plan.not_estimable}" if refused else plan.words
    return [Heading("The plan made before the experiment", f"{words}.")]


SECTIONS = (
    Steps(
        order=20,
        name=NAME,
        title=TITLE,
        absent="",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
