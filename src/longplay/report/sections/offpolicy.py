"""Off-policy estimates of the value of each policy's slots."""

from __future__ import annotations

from dataclasses import dataclass

from longplay.display import decimal, listed, span, with_interval
from longplay.estimate import Estimate
from longplay.report import charts
from longplay.report.blocks import Block, Chart, Code, Heading, Section, Table
from longplay.report.phrases import first, interval_words
from longplay.report.policy_names import PolicyNames, policy_names
from longplay.report.steps import Steps
from longplay.results import NotEstimable, RunResults
from longplay.results.offpolicy_figures import OffpolicyResult, PolicyEstimates

NAME = "offpolicy"
TITLE = "Off-policy: what the log says about policies it has not seen"
BEST = "doubly robust"


@dataclass(frozen=True)
class OffpolicyValues:
    """The figures of the section on off-policy estimates.

    Attributes:
        result: of the offpolicy stage.
        signal: label of the signal that slots are valued by.
        names: of the policies.
    """

    result: OffpolicyResult
    signal: str
    names: PolicyNames

    @property
    def ways(self) -> list[str]:
        """The names of the estimators."""
        return list(dict.fromkeys(how for row in self.result.policies for how in row.estimates))


def collect(results: RunResults) -> OffpolicyValues | None:
    """The estimates; null where the log does not support any (the refusals give the reason)."""
    result = results.find(OffpolicyResult)
    if result is None or not result.policies:
        return None
    return OffpolicyValues(result, str(result.signal), policy_names(results))


def draw(values: OffpolicyValues) -> Chart | None:
    """Every estimate with its interval; null where there is none."""
    plotted = []
    for row in values.result.policies:
        for how, answer in row.estimates.items():
            if isinstance(answer, Estimate):
                figure = answer.bounded()
                plotted.append(
                    {
                        "name": row.policy,
                        "label": values.names[row.policy],
                        "how": how,
                        **figure.row(),
                        "text": with_interval(figure),
                    }
                )
    if not plotted:
        return None
    logged = values.result.logged
    reference = None
    if logged is not None:
        reference = (logged.value, f"as logged {decimal(logged.value)}")
    return charts.grouped(
        plotted,
        values.names.colours,
        "Off-policy value per slot by policy and estimator, with 95% interval over users",
        f"value per slot ({values.signal})",
        reference=reference,
    )


def render(values: OffpolicyValues, plot: Chart | None) -> Section:
    """Off-policy values compared with the logged slots."""
    result, names = values.result, values.names
    answers = {names[row.policy]: row.estimates.get(BEST) for row in result.policies}
    estimates = {name: best for name, best in answers.items() if isinstance(best, Estimate)}
    refused = [name for name, best in answers.items() if isinstance(best, NotEstimable)]
    reasons = f"; not {listed(refused)}, for reasons given below." if refused else "."
    answer = [f"The log can value {len(estimates)} of {len(result.policies)} policies{reasons}"]
    answer += [
        _against(name, best, result.logged, values.signal) for name, best in estimates.items()
    ]
    blocks: list[Block] = [Heading("", _question(values))]
    blocks += [] if plot is None else [plot]
    logged = "n/a" if result.logged is None else _cell(result.logged)
    blocks.append(
        Table(
            f"Value per slot with 95% interval over users; the slots as logged: {logged}",
            ("policy", *values.ways, "effective users"),
            tuple(_line(row, values) for row in result.policies),
            "l" + "r" * (len(values.ways) + 1),
            swatches=names.swatches,
        )
    )
    if diagnoses := "\n\n".join(row.diagnosis for row in result.policies if row.diagnosis):
        title = "Diagnosis: weights, overlap and support of every policy"
        blocks.append(Code(title, diagnoses))
    return Section(NAME, TITLE, tuple(answer), tuple(blocks))


def off_policy_refusals(results: RunResults) -> dict[str, str]:
    """Off-policy questions the log could not answer, one per policy and reason."""
    result, names = results.find(OffpolicyResult), policy_names(results)
    if result is None:
        return {}
    reasons: dict[str, str] = {}
    if result.not_estimable is not None:
        reasons["off-policy value"] = result.not_estimable
    for row in result.policies:
        refused = {
            how: answer.not_estimable
            for how, answer in row.estimates.items()
            if isinstance(answer, NotEstimable)
        }
        for reason in dict.fromkeys(refused.values()):
            ways = [how for how, why in refused.items() if why == reason]
            only = "" if len(ways) == len(row.estimates) else f", {listed(ways)}"
            reasons[f"off-policy value of {names[row.policy]}{only}"] = reason
    return reasons


def _question(values: OffpolicyValues) -> str:
    """The question that off-policy estimates answer, the data behind it, and the estimators."""
    result = values.result
    return (
        f"The question (estimand one_step): the {values.signal} of a slot, if it were drawn from "
        "the policy and the logging policy then continued. Answered from "
        f"{decimal(result.slots)} mature slots on “{result.surface}” of "
        f"{decimal(result.users)} users that no model learned from. "
        "IPS weighs logged slots by how much likelier the policy is to show them; SNIPS "
        "divides by the mean weight; doubly robust adds a model of the outcome and is less noisy "
        "where that model is good. A slot's outcome counts whether or not it would have come "
        "anyway, so this is not the value of showing."
    )


def _against(name: str, estimate: Estimate, logged: Estimate | None, signal: str) -> str:
    """A sentence on an estimate, compared with the slots as logged where both have an interval."""
    figure = estimate.bounded()
    comparison = ""
    if logged is not None:
        policy, log = figure.interval, logged.bounded().interval
        if policy is not None and log is not None:
            comparison = "; its interval overlaps that of the slots as logged"
            if policy[0] > log[1]:
                comparison = f", above the {decimal(logged.value)} of the slots as logged"
            elif policy[1] < log[0]:
                comparison = f", below the {decimal(logged.value)} of the slots as logged"
    return (
        f"{first(name)}: {decimal(estimate.value)} {signal.split('@')[0]} per slot, doubly robust "
        f"({interval_words(figure)}){comparison}."
    )


def _line(row: PolicyEstimates, values: OffpolicyValues) -> tuple[str, ...]:
    """The estimates of a policy as a table row."""
    answers = [row.estimates.get(BEST), *row.estimates.values()]
    users = next((answer.n_eff for answer in answers if isinstance(answer, Estimate)), None)
    return (
        values.names[row.policy],
        *(_cell(row.estimates.get(how)) for how in values.ways),
        "–" if users is None else decimal(users, 0),
    )


def _cell(answer: Estimate | NotEstimable | None) -> str:
    """An estimate with its interval, or that there is none, as a table cell."""
    if isinstance(answer, Estimate):
        figure = answer.bounded()
        value = decimal(figure.value)
        return f"{value} ({span(figure)})" if figure.interval else value
    return "n/a" if answer is None else "not estimable"


SECTIONS = (
    Steps(
        order=90,
        name=NAME,
        title=TITLE,
        absent="",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
