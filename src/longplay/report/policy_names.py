"""What policies are called and in which colour they are drawn: the same everywhere on the page,
whatever the rivals are named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.report.charts import POLICY_COLOURS
from longplay.report.phrases import listed

Results = Mapping[str, Mapping[str, Any]]
INCUMBENT = "control"  # the arm of a trial that goes on as before
_FURTHER = ("#cc4b3c", "#9163cf", "#6f8f1f", "#b5568f")


def rivals_of(results: Results) -> dict[str, Mapping[str, Any]]:
    """The policies reinforced on other rewards, by name, as the reinforce stage has them."""
    return {
        str(name): one or {}
        for name, one in ((results.get("reinforce") or {}).get("rivals") or {}).items()
    }


def names_of(results: Results) -> dict[str, str]:
    """Every policy and arm of a run in plain words; no two alike.

    >>> names_of({"reinforce": {"objectives": {"habit@1f": 1.0}, "rivals": {"clicks": {"objectives": {"clicks": 1.0}}}}})["clicks"]
    'reinforced on clicks'
    """
    rivals = rivals_of(results)
    names = {name: name for name in POLICY_COLOURS}
    if rivals or results.get("experiment"):
        names["reinforced"] = _reinforced((results.get("reinforce") or {}).get("objectives"))
        names[INCUMBENT] = f"{_incumbent(results)} (incumbent)"
    for name, one in rivals.items():
        said = _reinforced(one.get("objectives"))
        names[name] = said if said not in (*names.values(), "reinforced") else f"{said} ({name})"
    for arm in (str(row.get("arm")) for row in (results.get("experiment") or {}).get("arms") or []):
        names.setdefault(arm, arm)
    return names


def colours_of(results: Results) -> dict[str, str]:
    """A colour for every policy and arm: those of old, then one more for each rival in its
    order."""
    colours = {**POLICY_COLOURS, INCUMBENT: POLICY_COLOURS["popular"]}
    others = [name for name in names_of(results) if name not in colours]
    for place, name in enumerate(others):
        colours[name] = (
            _FURTHER[place]
            if place < len(_FURTHER)
            else f"hsl({(20 + 137 * place) % 360}, 45%, 52%)"
        )  # turns never repeat soon
    return colours


def swatches_of(results: Results) -> dict[str, str]:
    """The same colours by the words in which a table names a policy."""
    names = names_of(results)
    return {names.get(name, name): colour for name, colour in colours_of(results).items()}


def _reinforced(objectives: Mapping[str, float] | None) -> str:
    goals = {str(label).split("@")[0]: weight for label, weight in (objectives or {}).items()}
    if len(goals) == 1:
        return f"reinforced on {next(iter(goals))}"
    return (
        f"reinforced on {listed([f'{weight:g} × {goal}' for goal, weight in goals.items()])}"
        if goals
        else "reinforced"
    )


def _incumbent(results: Results) -> str:
    arms = (results.get("experiment") or {}).get("arms") or []
    return next(
        (
            str(row.get("policy", "control")).split("@")[0]
            for row in arms
            if row.get("arm") == INCUMBENT
        ),
        "popular",
    )
