"""Questions that the data cannot answer, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping

from longplay.report.blocks import Section, Table
from longplay.report.sections.experiment import experiment_refusals
from longplay.report.sections.offpolicy import off_policy_refusals
from longplay.report.steps import Steps
from longplay.results import NotEstimable, RunResults
from longplay.results.ranking_figures import EvaluateResult
from longplay.results.reward_figures import RewardResult

NAME, TITLE = "refusals", "Not estimable, and why"


def collect(results: RunResults) -> Mapping[str, str] | None:
    """Reason by question; null where everything was answered."""
    evaluated, rewards = results.find(EvaluateResult), results.find(RewardResult)
    reasons = dict({} if evaluated is None else evaluated.not_estimable)
    for figures in () if rewards is None else rewards.signals.values():
        for model, checked in figures.calibration.items():
            if isinstance(checked, NotEstimable):
                reasons[f"calibration of {model} on {figures.label}"] = checked.not_estimable
    for question, reason in (off_policy_refusals(results) | experiment_refusals(results)).items():
        reasons.setdefault(question, reason)
    return reasons or None


def draw(reasons: Mapping[str, str]) -> None:
    """No chart."""


def render(reasons: Mapping[str, str], _: None) -> Section:
    """The questions in a table with their reasons."""
    table = Table("What was not answered", ("question", "reason"), tuple(reasons.items()), "ll")
    questions = "question" if len(reasons) == 1 else "questions"
    answer = f"{len(reasons)} {questions} this page does not answer."
    return Section(NAME, TITLE, (answer,), (table,))


SECTIONS = (
    Steps(
        order=100,
        name=NAME,
        title=TITLE,
        absent="Nothing was refused.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
