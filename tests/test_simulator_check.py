"""`check_simulator`: a whole simulator passes, and of one with a mistake the line of that mistake fails, alone."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_simulator import Coins

import longplay as lp
from longplay.errors import ConfigError
from longplay.lake.schema import KINDS, ORIGINS
from longplay.world import (
    Forkable,
    RuleResult,
    Simulator,
    SimulatorReport,
    World,
    check_simulator,
)

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (ROOT / "examples/own_simulator.py").read_text()


@cache
def newsstand(*changes: tuple[str, str]) -> Any:
    """The class of examples/own_simulator.py, with some of its text changed."""
    text = SOURCE
    for before, after in changes:
        assert text.count(before) == 1, f"{before!r} occurs {text.count(before)} times"
        text = text.replace(before, after)
    scope: dict[str, Any] = {"__name__": "changed"}
    exec(compile(text, "own_simulator.py", "exec"), scope)
    return scope["Newsstand"]


def test_the_example_holds_every_rule_and_none_is_left_untried() -> None:
    service = newsstand()(users=80)
    assert isinstance(service, Simulator)
    assert isinstance(service, Forkable)
    service.run(lp.Uniform(slate=3), days=3)
    now, events = service.now, service.lake.events
    report = check_simulator(service)
    assert report.ok, report
    assert report.open == ()
    assert len(report.results) > 25
    assert service.now == now  # all of it happened to copies
    assert service.lake.events.equals(events)


@pytest.mark.parametrize("exclude", [None, "none", "seen", "creator"])
def test_the_world_holds_every_rule(exclude: str | None) -> None:
    world = World(users=120, items=120, seed=3, exclude=exclude)
    world.run(lp.Popular(slate=3), days=4)
    report = check_simulator(world)
    assert report.ok, report
    assert report.open == ()
    assert world.day == 4


def test_a_simulator_that_cannot_be_forked_lives_these_days_itself() -> None:
    coins = Coins()
    report = check_simulator(coins, days=2)
    assert report.ok, report
    assert coins.day == 6
    assert report.line("fork").holds is None
    assert "the truth of policies is not known" in report.line("fork").finding
    assert "it cannot be forked" in report.lived
    # nobody plays anything in it
    assert set(report.open) == {"slots", "times", "histories", "fork"}


NOW = ("        return START + timedelta(days=self.day)\n", "        return {}\n")


def now_is(code: str) -> tuple[str, str]:
    return NOW[0], NOW[1].format(code)


# what is broken, the changes to the example, the line that fails, and words of what it says
BROKEN: list[tuple[str, list[tuple[str, str]], str, str]] = [
    ("no items", [("    def items(self)", "    def articles(self)")], "protocol", "has no items"),
    (
        "naive now",
        [now_is("datetime(2026, 1, 1) + timedelta(days=self.day)")],
        "now",
        "datetime.datetime(2026",
    ),
    ("now at 1 o'clock", [now_is("START + timedelta(days=self.day, hours=1)")], "now", "T01:00"),
    (
        "now moves twice",
        [now_is("START + timedelta(days=2 * self.day)")],
        "now",
        "expected 2026-01-04",
    ),
    (
        "future items",
        [("range(-30, self.day + 1)", "range(-30, self.day + 3)")],
        "items",
        "not released yet",
    ),
    (
        "items in pandas",
        [
            (
                'return pl.DataFrame(rows, schema=["item_id", "creator_id", "added_at"], orient="row")',
                "return pl.DataFrame(rows, schema=['item_id', 'creator_id', 'added_at'], orient='row').to_pandas()",
            )
        ],
        "items",
        "expected a polars DataFrame",
    ),
    (
        "two rows of an item",
        [
            (
                "for paper in range(len(APPEAL))\n        ]",
                "for paper in [*range(len(APPEAL)), 0]\n        ]",
            )
        ],
        "items",
        "expected each once",
    ),
    (
        "context ids per user",
        [('self.users.gather(came) + f"-{self.day}"', "self.users.gather(came)")],
        "context ids",
        "come again, first 'u",
    ),
    (
        "a table instead of contexts",
        [("policy.decide(contexts, np", "policy.decide(contexts.frame, np")],
        "run",
        "expected longplay.Contexts",
    ),
    (
        "an integer as rng",
        [("np.random.default_rng([self.seed, self.day])", "self.seed")],
        "run",
        "expected a numpy.random.Generator",
    ),
    (
        "an error",
        [("        self.likes *= 0.9\n", "        self.likes *= np.ones(7)\n")],
        "run",
        "raises ValueError: operands could not",
    ),
    (
        "a table instead of a lake",
        [("return self.lake.before(self.now)", "return self.lake.events")],
        "run",
        "returns a DataFrame",
    ),
    (
        "an early watermark",
        [("watermark=self.now,", "watermark=self.now - timedelta(hours=1),")],
        "complete log",
        "complete up to 2026-01-03 23:00",
    ),
    (
        "only the new days",
        [("        log = {", "        self.lake = lp.Lake.memory()\n        log = {")],
        "whole log",
        "of the first run are not in the log",
    ),
    (
        "an event twice",
        [
            (
                "        events = pl.DataFrame(rows, schema=EVENT)\n",
                "        events = pl.DataFrame(rows + rows[:1], schema=EVENT)\n",
            )
        ],
        "events",
        "refused, first: ",
    ),
    (
        "reads of tomorrow",
        [('item = f"a{self.day}-{paper}"', 'item = f"a{self.day + 1}-{paper}"')],
        "catalogue",
        "not in lake.items",
    ),
    (
        "items not logged",
        [("items=self.items, watermark", "items=self.items.head(3), watermark")],
        "catalogue",
        "not in lake.items",
    ),
    (
        "other contexts in the log",
        [("append(contexts.frame)", 'append(contexts.prompted("x").frame)')],
        "contexts",
        "another prompt",
    ),
    (
        "contexts not logged",
        [("append(contexts.frame)", "append(contexts.frame[:0])")],
        "contexts",
        "are not in the log",
    ),
    (
        "contexts of yesterday",
        [
            (
                "[time + timedelta(minutes=1) for time in times]",
                "[time - timedelta(days=1) for time in times]",
            )
        ],
        "contexts",
        "outside of the days lived",
    ),
    (
        "other propensities",
        [
            (
                "append(decisions.frame)",
                'append(decisions.frame.with_columns(pl.col("log_prob").list.eval(pl.element() / 2)))',
            )
        ],
        "decisions",
        "another log_prob",
    ),
    (
        "a decision lost",
        [("append(decisions.frame)", "append(decisions.frame[1:])")],
        "decisions",
        "are not in the log",
    ),
    ("slots from 1", [('"slot": slot}', '"slot": slot + 1}')], "slots", "not in their slot"),
    ("no decision", [("            **(place or {}),\n", "")], "slots", "name no slot"),
    (
        "other users' decisions",
        [
            (
                '"decision_id": decision["decision_id"]',
                '"decision_id": decisions.frame["decision_id"][0]',
            )
        ],
        "slots",
        "not in their slot|of another user",
    ),
    (
        "plays as it is shown",
        [('later = decision["time"] + timedelta(minutes=1 + slot)', 'later = decision["time"]')],
        "times",
        "not after their context",
    ),
    (
        "shown and organic",
        [('"play", "recommended", "home"', '"play", "organic", "home"')],
        "origins",
        "events of the policy's slots are organic",
    ),
    (
        "library and recommended",
        [('"play", "organic", "library"', '"play", "recommended", "library"')],
        "origins",
        "events on search or library are recommended",
    ),
    (
        "other ids in every run",
        [
            (
                "        events = pl.DataFrame(schema=EVENT)\n",
                '        events = pl.DataFrame(schema=EVENT)\n        self.users = self.users + "x"\n',
            )
        ],
        "users",
        "none of the",
    ),
    (
        "other ids in contexts",
        [
            (
                "                self.users.gather(came),\n",
                '                "x" + self.users.gather(came),\n',
            )
        ],
        "users",
        "no event is of any of the",
    ),
    (
        "no visits",
        [('"visit", "organic", "home"', '"follow", "organic", "home"')],
        "visits",
        "who has not come that day",
    ),
    (
        "long histories",
        [("self.past(user, policy.history)", "self.past(user, 99)")],
        "histories",
        "longer than the 4 items",
    ),
    (
        "another's history",
        [("self.past(user, policy.history)", "self.past(user - 1, policy.history)")],
        "histories",
        "were not engaged with before it",
    ),
    ("no history", [("self.past(user, policy.history)", "[]")], "histories", "histories are empty"),
    (
        "a rule and no exclusions",
        [("[sorted(set(self.read[user])) for user in came]", "[[] for user in came]")],
        "exclusions",
        "state 'seen' but lack",
    ),
    (
        "exclusions and no rule",
        [('                exclude="seen",\n', "")],
        "exclusions",
        "under the rule None",
    ),
    (
        "never adapted",
        [("if isinstance(policy, Adaptive):", "if False:")],
        "adapt",
        "not called before the first decision",
    ),
    (
        "adapted in vain",
        [("policy = policy.adapt(", "policy.adapt(")],
        "adapt",
        "version 0 of the policy decides",
    ),
    (
        "adapted once",
        [("if isinstance(policy, Adaptive):", "if isinstance(policy, Adaptive) and done == 1:")],
        "adapt",
        "not called between decisions",
    ),
    (
        "adapted without events",
        [("policy.adapt(self.items, events)", "policy.adapt(self.items, events[:0])")],
        "adapt",
        "was not given",
    ),
    (
        "told in pandas",
        [("policy.adapt(self.items, events)", "policy.adapt(self.items, events.to_pandas())")],
        "adapt",
        "events as a DataFrame, not of polars",
    ),
    (
        "told of wide slots",
        [
            (
                "policy.adapt(self.items, events)",
                'policy.adapt(self.items, events.with_columns(pl.col("slot").cast(pl.Int64)))',
            )
        ],
        "adapt",
        "slot as Int64, expected Int32",
    ),
    (
        "small seeds only",
        [
            (
                "other.seed = self.seed if seed is None else seed",
                "other.seed = self.seed if seed is None else np.random.RandomState(seed).randint(9)",
            )
        ],
        "seed",
        "Seed must be between 0 and 2",
    ),
    (
        "told twice",
        [
            (
                "policy.adapt(self.items, events)",
                "policy.adapt(self.items, pl.concat([events, events]))",
            )
        ],
        "adapt",
        "a second time",
    ),
    (
        "shows without a policy",
        [
            (
                "        if policy is not None and len(came):\n",
                "        policy = policy or lp.Uniform(slate=3).adapt(self.items, None)\n        if len(came):\n",
            )
        ],
        "no policy",
        "recommended where nothing is",
    ),
    (
        "fails without a policy",
        [("        came = np", "        policy.name\n        came = np")],
        "no policy",
        "raises AttributeError",
    ),
    (
        "a fork that is the service",
        [("other = copy.deepcopy(self)", "other = self")],
        "fork",
        "returns the service itself",
    ),
    (
        "a fork that fails",
        [("other = copy.deepcopy(self)", "other = self.copy()")],
        "fork",
        "raises AttributeError",
    ),
    (
        "a shallow fork",
        [("copy.deepcopy(self)", "copy.copy(self)")],
        "copies",
        "its lake, read and likes changed",
    ),
    (
        "a fork without the past",
        [
            (
                "        return other\n",
                "        other.lake = lp.Lake.memory()\n        return other\n",
            )
        ],
        "past",
        "are not in its log",
    ),
    (
        "a fork that moves the service",
        [("        return other\n", "        self.day += 1\n        return other\n")],
        "original",
        "after its copies lived",
    ),
    (
        "luck of the clock",
        [
            (
                'return keyed_uniform(f"{self.seed} {purpose} {self.day} {counter}", self.users)',
                "return np.random.default_rng().random(len(self.users))",
            )
        ],
        "same life",
        "under the same policy",
    ),
    (
        "luck of the policy",
        [('self.luck("visit")', 'self.luck(f"visit {policy and policy.name}")')],
        "arrivals",
        "are equal under two policies, expected all",
    ),
    (
        "luck of a generator",
        [
            (
                "        self.seed = seed\n",
                "        self.seed, self.rng = seed, np.random.default_rng(seed)\n",
            ),
            ("if luck[slot][user] <", "if self.rng.random() <"),
            (
                "        return other\n",
                "        other.rng = np.random.default_rng(seed) if seed else other.rng\n        return other\n",
            ),
        ],
        "same shown",
        "because others were shown something else",
    ),
    (
        "no other luck",
        [("other.seed = self.seed if seed is None else seed", "other.seed = self.seed")],
        "seed",
        "the same life as one without a seed",
    ),
    (
        "no seed",
        [
            ("def fork(self, *, seed: int | None = None)", "def fork(self)"),
            ("        other.seed = self.seed if seed is None else seed\n", ""),
        ],
        "seed",
        "unexpected keyword argument 'seed'",
    ),
]


OF_COPIES = ("fork", "original", "copies", "past", "same life", "arrivals", "same shown", "seed")
# a mistake that is not of copies: tried on a simulator without them, which takes a third of the time
CASES = [
    pytest.param(changes, rule, words, forked, id=f"{name}{', forked' * forked}", marks=marks)
    for name, changes, rule, words in BROKEN
    for forked, marks in ((False, ()), (True, () if rule in OF_COPIES else pytest.mark.slow))
    if forked or rule not in OF_COPIES
]


@pytest.mark.parametrize(("changes", "rule", "words", "forked"), CASES)
def test_of_a_simulator_with_one_mistake_one_line_fails(
    changes: list[tuple[str, str]], rule: str, words: str, forked: bool
) -> None:
    without = [] if forked else [("    def fork(self, *", "    def copied(self, *")]
    service = newsstand(*changes, *without)(users=60)
    report = check_simulator(service)
    assert report.failed == (rule,), report
    line = report.line(rule)
    assert any(word in line.finding for word in words.split("|")), line
    assert line.advice
    assert not report.ok


@pytest.mark.parametrize(("days", "history"), [(1, 4), (3, 0)])
def test_it_says_what_it_needs(days: int, history: int) -> None:
    with pytest.raises(ConfigError, match="expected at least 2 days and 1 item"):
        check_simulator(newsstand()(users=20), days, history=history)


class Restless:
    """Whatever is asked of it, it raises."""

    @property
    def now(self) -> object:
        raise RuntimeError("the clock is away")

    @property
    def items(self) -> object:
        raise RuntimeError("so are the items")

    def run(self, policy: object, days: int) -> None:
        raise RuntimeError


@pytest.mark.parametrize(
    ("subject", "rule", "words"),
    [
        (object(), "protocol", "object has no now, items and run"),
        (None, "protocol", "NoneType has no"),
        (lp.Lake.memory(), "protocol", "Lake has no now and run"),
        (Restless(), "protocol", "raises RuntimeError: the clock is away"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_can_be_checked_and_nothing_raises(subject: object, rule: str, words: str) -> None:
    report = check_simulator(subject)
    assert report.failed == (rule,)
    assert words in report.line(rule).finding


def test_users_who_influence_each_other_are_no_mistake_where_that_is_said() -> None:
    # everybody comes to like what the next one likes
    social = newsstand(
        (
            "        self.likes *= 0.9\n",
            "        self.likes += np.roll(self.likes, 1, axis=0)\n",
        )
    )
    assert check_simulator(social(users=60)).failed == ("same shown",)
    report = check_simulator(social(users=60), interaction=True)
    assert report.ok, report
    assert report.open == ("same shown",)


def test_a_report_prints_as_a_table_and_shows_itself_in_a_notebook() -> None:
    report = SimulatorReport(
        "Shop",
        "A copy lived.",
        (
            RuleResult("now", True, "a midnight"),
            RuleResult("slots", False, "3 of 9 <events> name no slot", "log the slot"),
            RuleResult("fork", None, "it has none"),
        ),
    )
    assert str(report).splitlines() == [
        "Shop, 3 rules: 1 holding, 1 failing, 1 not tried",
        "A copy lived.",
        "",
        "now    holds  a midnight",
        "slots  FAILS  3 of 9 <events> name no slot",
        "              -> log the slot",
        "fork   -      it has none",
    ]
    assert (
        "<td>3 of 9 &lt;events&gt; name no slot</td><td>log the slot</td>" in report._repr_html_()
    )
    assert (report.ok, report.failed, report.open) == (False, ("slots",), ("fork",))
    with pytest.raises(ConfigError, match="rule 'slot' given, expected one of now, slots, fork"):
        report.line("slot")


# -- docs/worlds.md --------------------------------------------------------------------------------

PAGE = (ROOT / "docs/worlds.md").read_text()
SECTION = PAGE[PAGE.index("## Your own simulator") : PAGE.index("## What it leaves out")]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.DOTALL | re.M)


def test_the_page_quotes_the_example() -> None:
    source = "\n".join(line.strip() for line in SOURCE.splitlines())
    quoted = [code for code in fences("python") if re.match(r"contexts = |def ", code)]
    assert len(quoted) == 3
    for code in quoted:
        assert "\n".join(line.strip() for line in code.splitlines()) in source


def test_the_page_shows_what_is_printed() -> None:
    whole, failing = fences("text")
    assert whole.strip() == str(check_simulator(newsstand()()))
    mistaken = newsstand(('"slot": slot}', '"slot": slot + 1}'))()
    assert failing.strip() in str(check_simulator(mistaken))


def test_the_page_names_every_kind_and_origin() -> None:
    table = SECTION[SECTION.index("| what happened") : SECTION.index("`origin` says")]
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in table.strip().splitlines()[2:]
    ]
    kinds = {kind.strip(" `") for row in rows for kind in row[1].split(",")}
    assert kinds == set(KINDS)
    assert {row[2].strip("`") for row in rows} == set(ORIGINS)
