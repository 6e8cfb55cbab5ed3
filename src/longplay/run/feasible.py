"""Checks whether a log supports a run, before any stage trains; every problem is named at once with
a value that works.

Days of the log are counted from its first day, F. The log is complete up to its watermark, whose
day is D. An entry on day d of a signal whose window ends w days later matures at the midnight that
begins day d + w + 1. So

- training knows an outcome of every signal where F + w + 1 <= train_until;
- the ranking can be judged where evaluate_until + w <= D, for every objective entered by discovery.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from typing import Any

from longplay.errors import ConfigError, DataError, MissingExtra
from longplay.lake import Lake
from longplay.lake.daily import first_row
from longplay.run.config import WIDEST
from longplay.run.engine import Stage
from longplay.run.stages.reinforce import Reinforce
from longplay.run.stages.reward import RewardTable
from longplay.run.tables import FIT, Configuration, Split
from longplay.signals import Signal
from longplay.signals.engine.answerable import unanswerable
from longplay.signals.engine.beginnings import days_of_rows, first_day_seen_again

LADDER = (WIDEST, 28, 21, 14, 7, 5, 3, 2, 1)  # days of a window that is fitted, the widest first
# share of the log's days that a fitted window leaves to the days on which training's outcomes and
# visits fall
SPARE = 0.25
TRAINED = 2 / 3  # share of these days that training gets; the rest judges
LEAST_ITEMS = 2  # with one there is nothing to choose


@dataclass(frozen=True)
class LogFacts:
    """The facts about a log that decide whether a run is feasible.

    Attributes:
        first: the first day of a user who came again, else of anybody.
        end: the day before which it is complete.
        items: items that can be recommended.
        decisions: logged slates.
    """

    first: date
    end: date
    items: int
    decisions: int

    @property
    def days(self) -> int:
        """Number of complete days."""
        return (self.end - self.first).days

    @classmethod
    def of(cls, lake: Lake) -> LogFacts:
        """Read the facts from a lake.

        Raises:
            DataError: the lake has no events.
        """
        with lake.connect() as con:
            days = days_of_rows(con)
            if days is None:
                raise DataError(
                    "ingest: the log has no event, so there is nothing to learn from; give a log "
                    "in which something happens"
                )
            begins = first_day_seen_again(con, days)
            counts = first_row(
                con,
                "select (select count(*) from items where available), (select count(*) from "
                "decisions)",
            )
        assert counts is not None  # a query of counts has one row
        first = date(1970, 1, 1) + timedelta(days=days[0] if begins is None else begins)
        return cls(first, lake.watermark.date(), int(counts[0]), int(counts[1]))

    def day(self, number: int) -> date:
        """The day that is `number` days after the first."""
        return self.first + timedelta(days=number)

    def __str__(self) -> str:
        return f"{self.days} complete days from {self.first}"


@dataclass(frozen=True)
class Problem:
    """Why a run is not feasible: the key of run.toml, what is wrong with its value, and a
    remedy."""

    key: str
    words: str
    remedy: str = ""


def check_extras(stages: Sequence[Stage[Any]]) -> None:
    """Refuse a run whose stages need a package that is not installed, before anything is read.

    Args:
        stages: those that would run.

    Raises:
        MissingExtra: with the stages and the line that installs it.
    """
    for package in ("torch", "transformers"):
        users = [stage.name for stage in stages if "torch" in stage.loads]
        if users and not _installed(package):
            raise MissingExtra(
                f"the stages {', '.join(users)} need {package}, which is not installed: pip "
                "install 'longplay[llm]'; "
                "`longplay reward RUN.toml` and `longplay demo --quick` run what needs none of it"
            )


def _installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def settle(config: Configuration, lake: Lake) -> tuple[Configuration, str]:
    """Return the run with every window and day set, and a line that lists what was set (empty if
    nothing).

    Raises:
        DataError: the run cannot be done on this log: every reason, with the key of run.toml and a
            value that works.
    """
    facts = LogFacts.of(lake)
    fitted = fit(config, facts)
    problems = _problems(fitted, facts)
    changes = _changes(config, facts, problems) if problems else {}
    answers = unanswerable(list(fitted.declared().values()), lake)
    problems += [
        Problem(f"signals.{signal.name}", f"{reason}; or leave [signals.{signal.name}] out")
        for signal, reason in answers.items()
    ]
    if facts.items <= fitted.of(Reinforce).slots:
        problems.append(_few_items(config, facts))
    if problems:
        raise DataError(_listed(facts, problems, changes, _too_short(config, facts)))
    return fitted, _set_words(config, fitted)


def fit(config: Configuration, facts: LogFacts) -> Configuration:
    """The run with windows of "fit" and missing days set to what the log supports, as far as it
    does."""
    open_names = [name for name, table in config.signals.items() if table.get("window") == FIT]
    candidates = (
        [_with_window(config, open_names, days) for days in LADDER] if open_names else [config]
    )
    possible = [
        _with_days(_with_slots(candidate, facts), facts)
        for candidate in candidates
        if candidate is not None
    ]
    if not possible:
        raise ConfigError(
            f"signals.{open_names[0]}: no window up to {WIDEST} days fits its measure; give one, "
            "e.g. window = [1, 90]"
        )
    fitting = [candidate for candidate in possible if not _problems(candidate, facts)]
    roomy = [
        candidate for candidate in fitting if _spare_days(candidate, facts) >= SPARE * facts.days
    ]
    return next(iter([*roomy, *reversed(fitting), *reversed(possible)]))


def _with_window(config: Configuration, names: Sequence[str], days: int) -> Configuration | None:
    """The run with the windows of these signals set; null where a threshold is out of reach in so
    few days."""
    tables = {
        name: table | {"window": [1, days]} if name in names else table
        for name, table in config.signals.items()
    }
    try:
        for name in names:
            Signal.from_mapping(name, tables[name])
    except ConfigError:
        return None
    return config.model_copy(update={"signals": tables})


def _with_slots(config: Configuration, facts: LogFacts) -> Configuration:
    """The run with fewer slots than the default, where the catalogue is too small and run.toml sets
    none."""
    slots = config.of(Reinforce).slots
    if (
        "slots" in config.of(Reinforce).model_fields_set
        or facts.items > slots
        or facts.items < LEAST_ITEMS
    ):
        return config
    return config.model_copy(
        update={"reinforce": config.of(Reinforce).model_copy(update={"slots": facts.items // 2})}
    )


def _with_days(config: Configuration, facts: LogFacts) -> Configuration:
    """The run with missing days of [split] set as late as every window allows."""
    evaluate_until = config.split.evaluate_until or facts.end - timedelta(
        days=_days_to_mature(config)
    )
    train_until = config.split.train_until
    if train_until is None:
        earliest = _earliest_training(config, facts)
        spare = (evaluate_until - earliest).days - 1
        if spare > 0:
            train_until = earliest + timedelta(days=round(TRAINED * spare))
        else:
            train_until = evaluate_until - timedelta(days=1)
    return config.model_copy(
        update={"split": Split(train_until=train_until, evaluate_until=evaluate_until)}
    )


def _ends(config: Configuration) -> dict[str, int]:
    """The last day of every signal's window."""
    return {name: signal.window[1] for name, signal in config.declared().items()}


def _days_to_mature(config: Configuration) -> int:
    """Days of log that are needed after the evaluation ends."""
    signals = config.declared()
    judged = [signals[name] for name in config.of(RewardTable).objectives]
    if not judged:
        return 1
    return max(
        signal.window[1] for signal in judged if signal.entry.is_discovery or len(judged) == 1
    )


def _earliest_training(config: Configuration, facts: LogFacts) -> date:
    return facts.day(max(_ends(config).values(), default=0) + 1)


def _spare_days(config: Configuration, facts: LogFacts) -> int:
    """Days between the first at which training knows every outcome and the end of the
    evaluation."""
    end = config.split.evaluate_until
    return (end - _earliest_training(config, facts)).days if end is not None else 0


def _problems(config: Configuration, facts: LogFacts) -> list[Problem]:
    """Windows and days of the configuration that the log does not support."""
    train_until = config.split.train_until
    evaluate_until = config.split.evaluate_until
    assert train_until is not None
    assert evaluate_until is not None
    problems = []
    for name, days in _ends(config).items():
        window = list(config.declared()[name].window)
        if days + 1 > facts.days:
            problems.append(
                Problem(
                    f"signals.{name}.window",
                    f"signals.{name}.window = {window} needs {days} complete days after the day "
                    f"of an entry, the log has {facts.days} days in all",
                )
            )
        elif facts.day(days + 1) > train_until:
            problems.append(
                Problem(
                    f"signals.{name}.window",
                    f"signals.{name}.window = {window}: no outcome is known before "
                    f"{facts.day(days + 1)}, but training ends at "
                    f"split.train_until = {train_until}",
                )
            )
    if train_until <= facts.first or train_until >= facts.end:
        problems.append(
            Problem(
                "split.train_until",
                f"split.train_until = {train_until} does not lie inside the log",
            )
        )
    if evaluate_until <= facts.first or evaluate_until > facts.end:
        problems.append(
            Problem(
                "split.evaluate_until",
                f"split.evaluate_until = {evaluate_until} does not lie inside the log",
            )
        )
    elif evaluate_until <= train_until:
        problems.append(
            Problem(
                "split.evaluate_until",
                f"split.evaluate_until = {evaluate_until} leaves no day after {train_until} to "
                "judge on",
            )
        )
    else:
        signals = config.declared()
        for name in config.of(RewardTable).objectives:
            last = facts.end - timedelta(days=signals[name].window[1])
            if (
                signals[name].entry.is_discovery
                and evaluate_until > last
                and signals[name].window[1] < facts.days
            ):
                words = (
                    f"split.evaluate_until = {evaluate_until}: entries of {name} are immature "
                    f"at {facts.end}"
                )
                if last > train_until:
                    words += f"; end the evaluation by {last}"
                problems.append(Problem("split.evaluate_until", words))
    return problems


def _changes(config: Configuration, facts: LogFacts, problems: Sequence[Problem]) -> dict[str, Any]:
    """Changes of keys and values that make the run fit the log; empty where none does.

    Tried in this order: the evaluation's end alone, both days, windows, all of them.
    """
    split = config.split
    ends = _ends(fit(config, facts))
    wrong = {
        problem.key.split(".")[1] for problem in problems if problem.key.startswith("signals.")
    }
    longest = max((ends[name] for name in wrong), default=0)
    if wrong:
        narrowed = {name for name in config.signals if ends[name] >= longest}
    else:
        narrowed = set(config.of(RewardTable).objectives)
    fitted = {
        name: table | {"window": FIT} if name in narrowed | wrong else table
        for name, table in config.signals.items()
    }
    for attempt in (
        {"split": Split(train_until=split.train_until)},
        {"split": Split()},
        {"signals": fitted},
        {"signals": fitted, "split": Split(train_until=split.train_until)},
        {"signals": fitted, "split": Split()},
    ):
        changed = fit(config.model_copy(update=attempt), facts)
        if _problems(changed, facts):
            continue
        current = {
            "split.train_until": split.train_until,
            "split.evaluate_until": split.evaluate_until,
        }
        changed_values = {
            "split.train_until": changed.split.train_until,
            "split.evaluate_until": changed.split.evaluate_until,
        }
        for name, table in changed.signals.items():
            key = f"signals.{name}.window"
            current[key] = config.signals[name].get("window")
            changed_values[key] = table.get("window")
        return {
            key: value
            for key, value in changed_values.items()
            if value != current[key] and (current[key] is not None or key in _keys(problems))
        }
    return {}


def _keys(problems: Sequence[Problem]) -> set[str]:
    return {problem.key for problem in problems}


def _few_items(config: Configuration, facts: LogFacts) -> Problem:
    slots = config.of(Reinforce).slots
    words = (
        f"reinforce.slots = {slots}, but the catalogue has {facts.items} items that can be shown"
    )
    if facts.items < LEAST_ITEMS:
        return Problem(
            "reinforce.slots",
            f"{words}: nothing can be chosen; give a log of at least {LEAST_ITEMS} items",
        )
    return Problem("reinforce.slots", words, f"set slots = {facts.items // 2}")


def _too_short(config: Configuration, facts: LogFacts) -> str:
    """The message for a log that no window and no days fit; empty where some do."""
    shortest = []
    for name in config.signals:
        fitting = [days for days in LADDER if _with_window(config, [name], days) is not None]
        shortest.append(min(fitting, default=WIDEST))
    needed = 2 * max(shortest, default=1) + 2
    if needed <= facts.days:
        return ""
    return (
        "no window fits: it must close once before training ends and once before the log "
        f"does, which takes at least {needed} complete days"
    )


def _listed(
    facts: LogFacts, problems: Sequence[Problem], changes: Mapping[str, Any], unfit: str
) -> str:
    lines = []
    done = set[str]()
    for problem in problems:
        remedy = problem.remedy
        if problem.key in changes:
            remedy = f"set {problem.key.rpartition('.')[2]} = {changes[problem.key]}"
            done.add(problem.key)
        lines.append(f"{problem.words}: {remedy}" if remedy else problem.words)
    rest = [f"{key} = {value}" for key, value in changes.items() if key not in done]
    if rest:
        lines.append(f"with it set {', '.join(rest)}")
    if unfit and not changes:
        lines.append(unfit)
    if len(lines) == 1:
        return f"this run does not fit the log of {facts}: {lines[0]}"
    return "\n".join(
        [f"this run does not fit the log of {facts}:", *(f"- {line}" for line in lines)]
    )


def _set_words(config: Configuration, fitted: Configuration) -> str:
    """A sentence that lists the values that were fitted to the log, ready to be copied into
    run.toml."""
    words = [
        f"{name} = {getattr(fitted.split, name)}"
        for name in ("train_until", "evaluate_until")
        if getattr(config.split, name) is None
    ]
    words += [
        f"signals.{name}.window = {list(table['window'])}"
        for name, table in fitted.signals.items()
        if config.signals[name].get("window") == FIT
    ]
    if fitted.of(Reinforce).slots != config.of(Reinforce).slots:
        words.append(f"reinforce.slots = {fitted.of(Reinforce).slots}")
    return f"fitted to the log: {', '.join(words)}" if words else ""


def longest_window(facts: LogFacts) -> int:
    """The longest window after which days remain to train and to evaluate on.

    The window must close twice: once before training ends, once before the evaluation ends.
    """
    return max((facts.days - 2) // 2, 0)
