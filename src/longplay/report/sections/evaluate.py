"""How policies rank what users did next, and the true value of showing in the simulated world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longplay.display import Bounded, decimal, percent, with_interval
from longplay.report import charts
from longplay.report.blocks import Block, Chart, Grid, Heading, Note, Section, Table
from longplay.report.phrases import ZERO, change, verdict
from longplay.report.policy_names import PolicyNames, policy_names
from longplay.report.sections.audit import gap_words
from longplay.report.sections.train import first_and_last
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.log_figures import LogResult, SimulateResult
from longplay.results.ranking_figures import (
    TRUE_VALUE,
    EvaluateResult,
    MetricFigure,
    PolicyPair,
    TrueValues,
)
from longplay.results.reinforcement_figures import ReinforceResult
from longplay.run_policies import MAIN, START, comparisons, run_policy, run_policy_names

RANKING, RANKING_TITLE = "ranking", "Ranking before and after"
TRUTH, TRUTH_TITLE = "truth", "The world knows: true value of showing"
METRICS = (
    *(f"{name}@{k}" for name in ("HR", "NDCG", "habit NDCG") for k in (1, 5, 10, 50)),
    "coverage@10",
    "cold-start share@10",
)
CREATORS = "creators per slate"


@dataclass(frozen=True)
class Ranking:
    """The figures of the section on rankings.

    Attributes:
        result: of the evaluate stage, null where it has none.
        simulated: whether the log was simulated.
        shown: whether the log says what was shown.
        names: of the policies.
    """

    result: EvaluateResult | None
    simulated: bool
    shown: bool
    names: PolicyNames

    @property
    def policies(self) -> list[str]:
        """The policies that were ranked, the usual ones first."""
        ranked = () if self.result is None else self.result.ranking
        names = dict.fromkeys(row.policy for row in ranked)
        usual = [name for name in run_policy_names() if name in names]
        return [*usual, *(name for name in names if name not in usual)]


def collect_ranking(results: RunResults) -> Ranking:
    """The ranking, and the facts about the log that qualify it."""
    log, simulated = results.find(LogResult), results.find(SimulateResult) is not None
    shown = simulated or (log is not None and log.has_decisions)
    return Ranking(results.find(EvaluateResult), simulated, shown, policy_names(results))


def draw_ranking(ranking: Ranking) -> tuple[Chart, ...]:
    """NDCG by policy."""
    rows = () if ranking.result is None else ranking.result.ranking
    metrics = {row.metric for row in rows}
    return tuple(
        _dots(ranking, rows, metric) for metric in ("NDCG@10", "habit NDCG@10") if metric in metrics
    )


def render_ranking(ranking: Ranking, plots: Sequence[Chart]) -> Section:
    """Ranking on the future, before and after reinforcement, with paired differences."""
    result, names = ranking.result, ranking.names
    if result is None or not result.ranking:
        refused = {} if result is None else result.not_estimable
        why = refused.get("ranking", "the evaluate stage has no ranking")
        return Section(RANKING, RANKING_TITLE, (f"Nothing was ranked: {why}.",))
    values = [(row.policy, row.metric, row.value) for row in result.ranking]
    answer = [
        sentence
        for metric in ("habit NDCG@10", "NDCG@10")
        for sentence in ranking_words(values, result.differences, metric, names)
    ]
    answer += _exposure_words(result.ranking)
    blocks: list[Block] = []
    if ranking.shown:
        text = (
            "Not a verdict on the policies. A logging policy chose what these users saw, so a "
            "ranking of what they then played "
            "favours whoever ranks like that policy"
        )
        blocks.append(Note(f"{text} (here the popular one)." if ranking.simulated else f"{text}."))
    blocks.append(Heading("", _visit_words(result)))
    blocks += [Grid(tuple(plots))] if plots else []
    blocks.append(_metric_table(ranking, result.ranking))
    if result.differences:
        caption = "Paired differences on the same visits"
        blocks.append(_differences(result.differences, caption, names))
    return Section(RANKING, RANKING_TITLE, tuple(answer), tuple(blocks))


def ranking_words(
    values: Sequence[tuple[str, str, float]],
    differences: Sequence[PolicyPair],
    metric: str,
    names: PolicyNames,
) -> list[str]:
    """How reinforcement changed a metric: sentences on its differences from reward-weighted
    training, the start, and rivals.

    Args:
        values: policy, metric and value.
        differences: paired, between the policies.
        metric: which of these.
        names: of the policies.
    """
    value_of = {policy: value for policy, name, value in values if name == metric}
    rivals = names.rivals_in_sentences
    words = []
    pairs = {(row.policy, row.than): row for row in differences if row.metric == metric}
    compared = [pair for pair in comparisons() if run_policy(pair[0]).in_answer]
    compared += [(MAIN, rival) for rival in rivals]
    if not any(pair in pairs for pair in compared):
        compared = list(comparisons())  # nothing was reinforced
    for policy, than in compared:
        row = pairs.get((policy, than))
        if row is not None:
            gap = row.difference.bounded()
            values_of_pair = (value_of.get(policy), value_of.get(than))
            words.append(change(gap, (policy, rivals.get(than, than)), metric, values_of_pair))
    return words


def _visit_words(result: EvaluateResult) -> str:
    """A sentence on the visits, discoveries and habits that the ranking is judged on."""
    text = (
        f"{decimal(result.visits)} visits of {decimal(result.users)} users after "
        "training ended, "
        f"{decimal(result.discoveries)} discoveries, of which {decimal(result.habits)} "
        "became a habit "
        f"({result.signal})."
    )
    if result.new_to_catalogue:
        text += (
            f" {percent(result.new_to_catalogue, 1)} of the discovered items were not in the "
            "catalogue yet and cannot be hit."
        )
    return text


def _exposure_words(rows: Sequence[MetricFigure]) -> list[str]:
    """A sentence on how reinforcement changed the coverage of the catalogue."""
    value = {row.policy: row.value for row in rows if row.metric == "coverage@10"}
    at_start = value.get(START)
    reinforced = value.get(MAIN)
    if at_start is None or reinforced is None:
        return []
    verb = "stayed"
    if reinforced < at_start:
        verb = "fell"
    elif reinforced > at_start:
        verb = "rose"
    return [
        f"Coverage@10 {verb} from {percent(at_start)} of the catalogue at the start to "
        f"{percent(reinforced)} after reinforcement."
    ]


def _metric_table(ranking: Ranking, rows: Sequence[MetricFigure]) -> Table:
    """Every metric of every policy."""
    measured = dict.fromkeys(row.metric for row in rows)
    metrics = [metric for metric in METRICS if metric in measured]
    metrics += [metric for metric in measured if metric.startswith(CREATORS)]
    cells = {(row.policy, row.metric): row for row in rows}
    body = []
    for metric in metrics:
        figures = [cells.get((policy, metric)) for policy in ranking.policies]
        body.append((metric, *(_cell(figure, metric) for figure in figures), _users(figures)))
    caption = (
        "Ranking by policy: value (95% interval), clustered by user; "
        "coverage and cold-start share are counts, without one"
    )
    policies = tuple(ranking.names[name] for name in ranking.policies)
    return Table(
        caption,
        ("metric", *policies, "users"),
        tuple(body),
        "l" + "r" * (len(policies) + 1),
        swatches=ranking.names.swatches,
    )


def _bounded(row: MetricFigure) -> Bounded:
    """The figure with its interval, where it has one."""
    return Bounded(row.value) if row.estimate is None else row.estimate.bounded()


def _dots(ranking: Ranking, rows: Sequence[MetricFigure], metric: str) -> Chart:
    """A metric by policy with its intervals, as a chart."""
    figures = {row.policy: _bounded(row) for row in rows if row.metric == metric}
    plotted = [
        {"name": name, **figures[name].row(), "text": with_interval(figures[name])}
        for name in ranking.policies
        if name in figures
    ]
    title = f"{metric}, with 95% interval"
    return charts.dots(plotted, ranking.names.colours, title, metric, names=ranking.names.words)


def _cell(row: MetricFigure | None, metric: str) -> str:
    """A metric of a policy as a table cell."""
    if row is None:
        return "n/a"
    if metric.startswith(("coverage", "cold")):
        return percent(row.value, 1)
    return with_interval(_bounded(row))


def _users(rows: Sequence[MetricFigure | None]) -> str:
    """Number of users behind the figures of a metric."""
    counts = {row.estimate.n for row in rows if row is not None and row.estimate is not None}
    return " / ".join(decimal(count) for count in sorted(counts))


def _differences(rows: Sequence[PolicyPair], caption: str, names: PolicyNames) -> Table:
    """Paired differences between policies as a table, in a fixed order of pairs."""
    places = {pair: place for place, pair in enumerate(comparisons())}
    ordered = sorted(rows, key=lambda row: places.get((row.policy, row.than), len(places)))
    body = []
    for row in ordered:
        gap = row.difference.bounded()
        body.append(
            (
                f"{names[row.policy]} − {names[row.than]}",
                "true value" if row.metric == TRUE_VALUE else row.metric,
                gap_words(gap),
                decimal(row.difference.n),
                verdict(gap),
            )
        )
    zero = sum(verdict(row.difference.bounded()) == ZERO for row in rows)
    note = (
        f"{caption}: {len(rows)} intervals at 95% each, not corrected for their number; {zero} "
        "of them include zero"
    )
    head = ("difference", "metric", "value (95% interval)", "users", "so the first is")
    return Table(note, head, tuple(body), "llrrl")


@dataclass(frozen=True)
class Truth:
    """The figures of the section on true values.

    Attributes:
        values: that the world knows; null where the stage has none.
        signal: label of the signal that is valued.
        believed: reinforcement's own early reward at its last steps, null where it was paid for
            more than this signal.
        names: of the policies.
    """

    values: TrueValues | None
    signal: str
    believed: float | None
    names: PolicyNames


def collect_truth(results: RunResults) -> Truth | None:
    """The true values of a simulated run; null where the log was not simulated."""
    if results.find(SimulateResult) is None:
        return None
    evaluated = results.find(EvaluateResult)
    if evaluated is None or evaluated.signal is None:
        return Truth(None, "", None, policy_names(results))
    believed = _believed(results.find(ReinforceResult), evaluated.signal)
    return Truth(evaluated.true_value, evaluated.signal, believed, policy_names(results))


def _believed(tuned: ReinforceResult | None, signal: str) -> float | None:
    """The early reward at reinforcement's last steps, where this signal alone was its objective."""
    if tuned is None or not tuned.curve or dict(tuned.objectives) != {signal: 1.0}:
        return None
    return first_and_last(tuned.curve)[1]


def draw_truth(truth: Truth) -> Chart | None:
    """True values by policy."""
    if truth.values is None:
        return None
    plotted = []
    for row in truth.values.policies:
        value = row.value.bounded()
        plotted.append({"name": row.policy, **value.row(), "text": with_interval(value)})
    return charts.dots(
        plotted,
        truth.names.colours,
        "True value of showing by policy, with 95% interval over users",
        f"true value per slot shown ({truth.signal})",
        names=truth.names.words,
    )


def render_truth(truth: Truth, plot: Chart | None) -> Section:
    """The true value of showing, by policy, as the simulated world has it."""
    values, names = truth.values, truth.names
    if values is None or plot is None:
        absent = "The log was simulated, but the evaluate stage has no true values."
        return Section(TRUTH, TRUTH_TITLE, (absent,))
    rows = [(row.policy, TRUE_VALUE, row.value.value) for row in values.policies]
    answer = ranking_words(rows, values.differences, TRUE_VALUE, names)
    actual = next((value for policy, _, value in rows if policy == MAIN), None)
    if truth.believed is not None and actual:
        answer.append(
            "At its last steps reinforcement's own early reward read "
            f"{decimal(truth.believed)} per slot on the training moments; the "
            f"world says {decimal(actual)} on these users: {decimal(truth.believed / actual, 1)} "
            "times."
        )
    table = Table(
        f"True value per slot: extra {truth.signal} outcomes caused by showing the slot",
        ("policy", "value (95% interval)", "users"),
        tuple(
            (names[row.policy], with_interval(row.value.bounded()), decimal(row.value.n))
            for row in values.policies
        ),
        "lrr",
        swatches=names.swatches,
    )
    text = (
        f"{decimal(values.users)} users who were there when training ended, one slate each. "
        "The intervals cover the draw of "
        "users, not another training seed or another world."
    )
    differences = _differences(values.differences, "Paired differences on the same users", names)
    return Section(TRUTH, TRUTH_TITLE, tuple(answer), (Heading("", text), plot, table, differences))


def figures_of(rows: Sequence[MetricFigure]) -> Mapping[str, Mapping[str, float]]:
    """Figures by policy that show whether it has collapsed: coverage, NDCG, and distinct creators
    per slate."""
    figures: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.metric in ("coverage@10", "NDCG@10") or row.metric.startswith(CREATORS):
            name = row.metric.replace("creators", "distinct creators")
            figures.setdefault(row.policy, {})[name] = row.value
    return figures


SECTIONS = (
    Steps(
        order=70,
        name=RANKING,
        title=RANKING_TITLE,
        absent="",
        collect=collect_ranking,
        draw=draw_ranking,
        render=render_ranking,
    ),
    Steps(
        order=80,
        name=TRUTH,
        title=TRUTH_TITLE,
        absent="",
        collect=collect_truth,
        draw=draw_truth,
        render=render_truth,
    ),
)
