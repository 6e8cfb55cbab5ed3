"""How the policies learned: training curves of the start, of reinforcement and of reward-weighted
training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longplay.display import decimal, percent
from longplay.report import charts
from longplay.report.blocks import Chart, Grid, Section, Table
from longplay.report.charts import FAINT
from longplay.report.phrases import first
from longplay.report.policy_names import PolicyNames, policy_names
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.code_figures import CodesResult
from longplay.results.reinforcement_figures import ReinforceResult, ReinforceStep, RivalFigures
from longplay.results.training_figures import TrainResult
from longplay.run_policies import MAIN, START, run_policy

NAME, TITLE = "training", "Training curves"
WEIGHTED = "reward-weighted"
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """The figures of the section on training.

    Attributes:
        start: next-item training, where it was done.
        tuned: reinforcement, where it was done.
        items: of the catalogue, to guess among.
        names: of the policies.
    """

    start: TrainResult | None
    tuned: ReinforceResult | None
    items: int | None
    names: PolicyNames

    @property
    def rivals(self) -> Mapping[str, RivalFigures]:
        """The policies reinforced on other rewards."""
        return {} if self.tuned is None else self.tuned.rivals

    @property
    def curves(self) -> dict[str, tuple[ReinforceStep, ...]]:
        """The curve of each reinforced policy that has one of several steps."""
        reinforced = () if self.tuned is None else self.tuned.curve
        curves = {
            MAIN: reinforced,
            **{name: rival.curve for name, rival in self.rivals.items()},
        }
        return {name: curve for name, curve in curves.items() if len(curve) > 1}


def collect(results: RunResults) -> Training | None:
    """The learning curves of the trained policies."""
    start, tuned = results.find(TrainResult), results.find(ReinforceResult)
    if start is None and tuned is None:
        return None
    codes = results.find(CodesResult)
    return Training(start, tuned, None if codes is None else codes.items, policy_names(results))


def draw(training: Training) -> tuple[Chart, ...]:
    """Losses, rewards, distances to the start, and groups that teach nothing."""
    plots: list[Chart] = []
    if training.start is not None and len(training.start.curve) > 1:
        curve = training.start.curve
        validation: Points = [
            (row.step, row.validation) for row in curve if row.validation is not None
        ]
        series: dict[str, Points] = {"train": [(row.step, row.loss) for row in curve]}
        if validation:
            series["validation"] = validation
        colours = {"train": FAINT, "validation": run_policy(START).colour}
        title = "The start: next-item loss"
        plots.append(charts.lines(series, colours, title, "nats per item", zero=False))
    plots += _reinforced_plots(training)
    plots += _loss_plots(training)
    return tuple(plots)


def _loss_plots(training: Training) -> list[Chart]:
    """The loss of every policy that learned from the reward by one, where its checks are many."""
    if training.tuned is None:
        return []
    units = {WEIGHTED: "weighted nats per discovery"}
    curves = {WEIGHTED: training.tuned.weighted.curve}
    curves |= {policy.name: policy.curve for policy in training.tuned.added}
    return [
        charts.lines(
            {"loss": [(row.step, row.loss) for row in curve]},
            {"loss": training.names.colours[name]},
            f"{first(run_policy(name).phrase)}: loss",
            units.get(name, "loss"),
            zero=False,
        )
        for name, curve in curves.items()
        if len(curve) > 2
    ]


def render(training: Training, plots: Sequence[Chart]) -> Section:
    """The policies that were trained, their learning curves, and their objectives."""
    answer = [*_start_words(training), *_tuned_words(training), *_rival_words(training)]
    rows = [*_versions(training)]
    if training.start is not None:
        rows.append(("parameters", decimal(training.start.parameters)))
        rows.append(("scale", training.start.scale))
    if training.tuned is not None:
        rows += _goals(training.tuned)
    table = Table(
        "What was trained",
        ("what", "version or value"),
        tuple(rows),
        "lr",
        swatches=training.names.swatches,
    )
    return Section(NAME, TITLE, tuple(answer), (*((Grid(tuple(plots)),) if plots else ()), table))


def _versions(training: Training) -> list[tuple[str, str]]:
    """Each policy with its version."""
    versions: dict[str, str] = {}
    if training.start is not None:
        versions[START] = training.start.policy
    if training.tuned is not None:
        versions[MAIN] = training.tuned.policy
        versions[WEIGHTED] = training.tuned.weighted.policy
        versions |= {policy.name: policy.policy for policy in training.tuned.added}
    versions |= {name: rival.policy for name, rival in training.rivals.items()}
    return [(training.names[name], version) for name, version in versions.items()]


def _goals(tuned: ReinforceResult) -> list[tuple[str, str]]:
    """The objectives of reinforcement and its bounds."""
    goals = ", ".join(f"{weight:g} × {name}" for name, weight in tuned.objectives.items())
    return [
        ("objectives", goals),
        ("caution (std subtracted)", decimal(tuned.caution)),
        *_guardrail_rows(tuned),
        ("KL weight, reinforced", decimal(tuned.kl_weight)),
        ("KL weight, reward-weighted", decimal(tuned.weighted_kl)),
    ]


def _guardrail_rows(tuned: ReinforceResult) -> list[tuple[str, str]]:
    """Each guardrail with its bound and its last measurement; and the step whose weights were
    kept."""
    last: Mapping[str, float] = tuned.curve[-1].guarded if tuned.curve else {}
    rows = [
        (
            f"guardrail {label}",
            f"at least {percent(bound)} of the start's; last measured {percent(last.get(label))}",
        )
        for label, bound in tuned.guardrails.items()
    ]
    step = last.get("kept")
    words = decimal(None if step is None else int(step))
    return [*rows, ("weights kept are of step", words)] if rows else []


def _reinforced_plots(training: Training) -> list[Chart]:
    """Reward, KL and silent groups of reinforcement; every rival has a reward of its own and joins
    the other two."""
    curves, names, colours = training.curves, training.names, training.names.colours
    if not curves:
        return []
    plots = [_reward_plot(training, name, curve) for name, curve in curves.items()]
    several = len(curves) > 1
    drawn = {names[name]: colours[name] for name in curves}
    if several:
        distance: dict[str, Points] = {
            names[name]: [(row.step, row.kl) for row in curve] for name, curve in curves.items()
        }
        silent: dict[str, Points] = {
            names[name]: [(row.step, row.zero_advantage) for row in curve]
            for name, curve in curves.items()
        }
    else:
        name, curve = next(iter(curves.items()))
        distance = {
            "mean": [(row.step, row.kl) for row in curve],
            "95th percentile": [(row.step, row.kl_p95) for row in curve],
        }
        silent = {"zero advantage": [(row.step, row.zero_advantage) for row in curve]}
        drawn |= {"mean": colours[name], "95th percentile": FAINT, "zero advantage": colours[name]}
    title = "Reinforcement: KL to the start"
    plots.append(charts.lines(distance, drawn, title, "nats per slot", legend=several))
    title = "Reinforcement: groups that teach nothing"
    plots.append(
        charts.lines(silent, drawn, title, "share with zero advantage", share=True, legend=several)
    )
    return plots


def _reward_plot(training: Training, name: str, curve: Sequence[ReinforceStep]) -> Chart:
    """The early reward of one policy by step, with its trailing mean where steps are many."""
    raw: Points = [(row.step, row.reward) for row in curve]
    window = max(1, min(10, len(raw) // 5))
    colour = training.names.colours[name]
    policy = "Reinforcement" if len(training.curves) == 1 else first(training.names[name])
    title, axis = f"{policy}: early reward per slot", "cautious value of showing, per slot"
    if window == 1:
        colours = {"each step": colour, "mean": colour}
        return charts.lines({"each step": raw}, colours, title, axis)
    series = {"each step": raw, "mean": _smooth(raw, window)}
    title += f", each step (thin) and mean of {window}"
    colours = {"each step": FAINT, "mean": colour}
    return charts.lines(series, colours, title, axis, faint="each step")


def _start_words(training: Training) -> list[str]:
    """A sentence on the validation loss of next-item training."""
    if training.start is None:
        return []
    curve = [
        (row.step, row.validation) for row in training.start.curve if row.validation is not None
    ]
    if len(curve) < 2:
        return ["The start has no validation curve."]
    (_, begun), (_, last) = curve[0], curve[-1]
    best_step, least = min(curve, key=lambda row: row[1])
    verb = "fell" if last < begun else "rose"
    items = training.items
    chance = ""
    if items is not None and items > 1:
        chance = f" (guessing among {decimal(items)} items: {decimal(math.log(items), 2)})"
    late = ""
    if last - least >= 0.005:
        late = f"; it was least, {decimal(least, 2)}, at step {best_step}"
    return [
        f"The start's validation loss {verb} from {decimal(begun, 2)} to "
        f"{decimal(last, 2)} nats per item{chance}{late}."
    ]


def first_and_last(curve: Sequence[ReinforceStep]) -> tuple[float, float, int]:
    """The mean reward of the first and of the last steps of a curve, and of how many steps."""
    rewards = [row.reward for row in curve]
    part = max(1, min(10, len(rewards) // 5))
    return sum(rewards[:part]) / part, sum(rewards[-part:]) / part, part


def _tuned_words(training: Training) -> list[str]:
    """Sentences on the reward that reinforcement reached and its distance from the start."""
    curve = () if training.tuned is None else training.tuned.curve
    if not curve:
        return ["No policy was reinforced: the reinforce stage has no steps."]
    begun, last, part = first_and_last(curve)
    verb = "rose" if last > begun else "fell"
    end, silent = curve[-1], [row.zero_advantage for row in curve]
    return [
        f"The early reward per slot {verb} from {decimal(begun)} to {decimal(last)} (means of "
        f"the first and last {part} steps). "
        "That is the reward's own opinion, not an outcome.",
        f"The policy ended {decimal(end.kl, 2)} nats per slot from the start (95th percentile "
        f"{decimal(end.kl_p95, 2)}); {percent(sum(silent) / len(silent), 1)} of groups had equal "
        "rewards and taught nothing.",
    ]


def _rival_words(training: Training) -> list[str]:
    """How much each rival gained in its own reward, which has another unit."""
    words = []
    for name, rival in training.rivals.items():
        if rival.curve:
            begun, ended, _ = first_and_last(rival.curve)
            words.append(
                f"{first(training.names[name])}, the same start went from {decimal(begun)} to "
                f"{decimal(ended)} of its own reward per slot, and "
                f"{decimal(rival.curve[-1].kl, 2)} nats per slot from the start."
            )
    return words


def _smooth(points: Points, window: int) -> Points:
    """Trailing means over `window` points."""
    return [
        (
            points[place][0],
            sum(value for _, value in points[place - window + 1 : place + 1]) / window,
        )
        for place in range(window - 1, len(points))
    ]


SECTIONS = (
    Steps(
        order=60,
        name=NAME,
        title=TITLE,
        absent="Nothing was trained: the train and reinforce stages have no result.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
