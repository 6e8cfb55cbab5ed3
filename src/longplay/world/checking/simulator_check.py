"""`check_simulator`: try the whole protocol on a simulator, and say what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import cast

from longplay.display import listed
from longplay.errors import ConfigError
from longplay.world.checking.fork_rules import COPY_RULES, PAST_RULES
from longplay.world.checking.simulator_lives import Evidence, described_error, live_in
from longplay.world.checking.simulator_report import RuleResult, SimulatorReport
from longplay.world.checking.simulator_rules import (
    CALL_RULES,
    LOG_RULES,
    failing,
    not_tried,
    unusable_items,
)
from longplay.world.simulator import Simulator

PROTOCOL = "protocol"


def check_simulator(
    simulator: object, days: int = 3, *, history: int = 4, interaction: bool = False
) -> SimulatorReport:
    """Try the whole protocol on a simulator, and report what holds, what fails and how to mend it.

    It is lived in under a plain policy that shows any item and notes what it is asked: two runs
    under that policy, then one with nothing shown. If the simulator can be forked, all this happens
    to copies, and the original stays as it is. Otherwise it lives these days itself. The service
    should be small: a few hundred users are plenty.

    Args:
        simulator: what is to be a `Simulator`, and may be `Forkable`.
        days: of each run, at least 2.
        history: past items that the policy wants to see in a context, at least 1.
        interaction: whether users of the service influence each other. Then users who are shown the
            same need not live the same.

    Returns:
        A report, which prints as a table. Errors of the simulator are lines of it.

    Raises:
        ConfigError: fewer than 2 days, or no history.
    """
    if days < 2 or history < 1:
        raise ConfigError(
            f"check_simulator: days={days} and history={history} given, expected at least 2 days "
            "and 1 item"
        )
    subject = type(simulator).__name__
    if problem := _unusable(simulator):
        return SimulatorReport(subject, "It was not lived in.", (problem,))
    evidence = live_in(cast(Simulator, simulator), days, history, interaction)
    results = [RuleResult(PROTOCOL, True, "it has now, items and run")]
    blocked: set[str] = set()
    rules = LOG_RULES + CALL_RULES
    if evidence.copies is not None:
        rules = LOG_RULES + PAST_RULES + CALL_RULES + COPY_RULES
    for rule in rules:
        if reasons := [name for name in rule.needs if name in blocked]:
            result = not_tried(f"not tried: see {reasons[0]}")
        else:
            try:
                result = rule.tried(evidence)
            except Exception as error:  # a log of a kind that no rule thought of
                result = failing(
                    f"it cannot be tried: {described_error(error)}",
                    "mend the other lines first; if there are none, please report this",
                )
        if result.holds is False or reasons:
            blocked.add(rule.name)
        results.append(replace(result, rule=rule.name))
    if evidence.copies is None:
        results.append(
            RuleResult(
                "fork",
                None,
                "not tried: it has no fork(seed=...), so the truth of policies is not known",
            )
        )
    return SimulatorReport(subject, _lived_text(evidence), tuple(results))


def _unusable(simulator: object) -> RuleResult | None:
    """Why a simulator cannot be lived in at all; null: it can."""
    missing = [name for name in ("now", "items", "run") if name not in dir(simulator)]
    if missing:
        lacking = failing(
            f"{type(simulator).__name__} has no {listed(missing)}",
            "a simulator has `now`, `items` and `run(policy, days, progress=None)`",
        )
        return replace(lacking, rule=PROTOCOL)
    simulator = cast(Simulator, simulator)
    try:
        now = cast(object, simulator.now)
        items = cast(object, simulator.items)
    except Exception as error:
        unread = failing(
            f"`now` or `items` raises {described_error(error)}", "both can be read at any time"
        )
        return replace(unread, rule=PROTOCOL)
    if not isinstance(now, datetime) or now.tzinfo is None:
        clock = failing(
            f"now is {now!r}, expected a moment in UTC",
            "return e.g. datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=self.day)",
        )
        return replace(clock, rule="now")
    if problem := unusable_items(items):
        return replace(problem, rule="items")
    return None


def _lived_text(evidence: Evidence) -> str:
    """How a simulator was tried, in a sentence."""
    days = evidence.first.days
    runs = f"{days} days under a probe, {days} more, and {days} with policy=None"
    if evidence.copies is None:
        return f"It lived {runs}, itself: it cannot be forked."
    if evidence.copies.error:
        return f"It lived {runs}, itself: it has a fork that fails."
    return f"A copy lived {runs}. Further copies lived beside it."
