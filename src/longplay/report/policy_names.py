"""Names and colours of policies, the same everywhere on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longplay.display import listed
from longplay.results import RunResults
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.reinforcement_figures import ReinforceResult
from longplay.run_policies import MAIN, POPULAR, run_policies, run_policy, run_policy_names

INCUMBENT = "control"  # the arm of an experiment that goes on as before
_FURTHER = ("#cc4b3c", "#9163cf", "#6f8f1f", "#b5568f")


@dataclass(frozen=True)
class PolicyNames:
    """Names and colours of the policies and arms of a run.

    Attributes:
        words: every policy and arm in plain words; no two alike.
        colours: a colour for each.
        rivals: the policies reinforced on other rewards.
    """

    words: Mapping[str, str]
    colours: Mapping[str, str]
    rivals: tuple[str, ...]

    def __getitem__(self, policy: str) -> str:
        return self.words.get(policy, policy)

    @property
    def swatches(self) -> dict[str, str]:
        """The same colours by the words in which a table names a policy."""
        return {self[name]: colour for name, colour in self.colours.items()}

    @property
    def rivals_in_sentences(self) -> dict[str, str]:
        """Rivals by name as a sentence needs them: `reinforcement on clicks`."""
        return {name: self[name].replace("reinforced", "reinforcement", 1) for name in self.rivals}


def policy_names(results: RunResults) -> PolicyNames:
    """The names and colours of a run's policies."""
    words = names_of(results.find(ReinforceResult), results.find(ExperimentResult))
    reinforced = results.find(ReinforceResult)
    rivals = () if reinforced is None else tuple(reinforced.rivals)
    return PolicyNames(words, colours_of(tuple(words)), rivals)


def names_of(
    reinforced: ReinforceResult | None, experiment: ExperimentResult | None
) -> dict[str, str]:
    """Distinct names in plain words for every policy and arm of a run.

    Args:
        reinforced: the result of reinforcement, with the rivals.
        experiment: the result of the experiment, with its arms.

    >>> names_of(None, None)["start"]
    'start'
    """
    rivals = {} if reinforced is None else reinforced.rivals
    names = {name: name for name in run_policy_names()}
    if rivals or experiment is not None:
        names[MAIN] = _reinforced({} if reinforced is None else reinforced.objectives)
        names[INCUMBENT] = f"{_incumbent(experiment)} (incumbent)"
    for name, rival in rivals.items():
        words = _reinforced(rival.objectives)
        taken = words in (*names.values(), "reinforced")
        names[name] = f"{words} ({name})" if taken else words
    for row in () if experiment is None else experiment.arms:
        names.setdefault(row.arm, row.arm)
    return names


def colours_of(names: tuple[str, ...]) -> dict[str, str]:
    """A colour for every policy and arm: that of its record, or one more for each other name."""
    colours = {record.name: record.colour for record in run_policies()}
    colours[INCUMBENT] = run_policy(POPULAR).colour
    for place, name in enumerate(name for name in names if name not in colours):
        colours[name] = (
            _FURTHER[place]
            if place < len(_FURTHER)
            else f"hsl({(20 + 137 * place) % 360}, 45%, 52%)"
        )  # turns never repeat soon
    return colours


def _reinforced(objectives: Mapping[str, float]) -> str:
    """The name of the reinforced policy, with its objectives."""
    goals = {label.split("@")[0]: weight for label, weight in objectives.items()}
    if len(goals) == 1:
        return f"reinforced on {next(iter(goals))}"
    if not goals:
        return "reinforced"
    return f"reinforced on {listed([f'{weight:g} × {goal}' for goal, weight in goals.items()])}"


def _incumbent(experiment: ExperimentResult | None) -> str:
    """The name of the control's policy."""
    arms = () if experiment is None else experiment.arms
    policies = (row.policy.split("@")[0] for row in arms if row.arm == INCUMBENT)
    return next(policies, POPULAR)
