"""Rules of a simulator that can be copied: copies are separate, and luck is common."""

from __future__ import annotations

import polars as pl

from longplay.display import listed
from longplay.world.checking.simulator_lives import SEEDS, Copies, Evidence, Stretch
from longplay.world.checking.simulator_probe import second_half
from longplay.world.checking.simulator_report import RuleResult
from longplay.world.checking.simulator_rules import Rule, failing, holding, not_tried

KEYED = (
    "make every random number a function of (seed, purpose, user, day, counter), e.g. "
    "longplay.chance.keyed_uniform(f'{seed} visit {day}', users), never the next number of a "
    "generator that what was shown has moved on"
)


def _copies(evidence: Evidence) -> Copies:
    if evidence.copies is None:
        raise AssertionError("rules of copies are tried only where there are some")
    return evidence.copies


def _same_events(first: Stretch, second: Stretch) -> str:
    """How the events of two lives of equal days differ; empty where they do not."""
    left, right = (stretch.events.sort("event_id") for stretch in (first, second))
    if left.equals(right):
        return ""
    columns = [column for column in left.columns if column != "ingested_at"]
    only = left.join(right, on=columns, how="anti", nulls_equal=True).height
    extra = right.join(left, on=columns, how="anti", nulls_equal=True).height
    return f"{only} of {left.height} and {extra} of {right.height} events differ"


def fork_rule(evidence: Evidence) -> RuleResult:
    """`fork()` returns a copy that lives on."""
    copies = _copies(evidence)
    advice = (
        "return a new object with the same state, e.g. copy.deepcopy(self): now, items, run and "
        "fork are those of the copy"
    )
    if copies.error:
        return failing(f"fork() {copies.error}", advice)
    for name, copied in (("late", copies.late), ("other", copies.other), ("child", copies.child)):
        if isinstance(copied, str):
            return failing(f"fork() {copied}, called once more ({name})", advice)
    if isinstance(copies.late, Stretch) and copies.late.start != evidence.now:
        if copies.now != evidence.now:
            return not_tried("the original moved")
        return failing(
            f"a copy begins on {copies.late.start}, and the service is at {evidence.now}", advice
        )
    return holding("fork() returns a copy as of now")


def original_rule(evidence: Evidence) -> RuleResult:
    """What copies live does not change the original."""
    copies = _copies(evidence)
    advice = "a copy must not write into the original: copy what changes (copy.deepcopy)"
    if copies.now != evidence.now:
        return failing(
            f"`now` of the original is {copies.now} after its copies lived, and was {evidence.now}",
            advice,
        )
    if not isinstance(copies.items, pl.DataFrame) or not copies.items.equals(evidence.items):
        return failing("`items` of the original changed while its copies lived", advice)
    return holding("`now` and `items` of the original stay as they are while copies live")


def _separate(evidence: Evidence) -> str:
    """What shows that copies are not separate, or do not live the same life; empty: nothing."""
    copies = _copies(evidence)
    first = evidence.first
    if isinstance(copies.child, Stretch) and copies.child.error:
        return f"a copy of a copy that lived cannot run: {copies.child.error}"
    for name, copied in (("before", copies.sibling), ("after", copies.late)):
        if not isinstance(copied, Stretch):
            continue
        if copied.error:
            return f"the copy made {name} another one lived cannot run: {copied.error}"
        if problem := _same_events(first, copied):
            return f"under the same policy, a copy made {name} another one lived differs: {problem}"
    return ""


def separate_rule(evidence: Evidence) -> RuleResult:
    """Copies do not share what changes."""
    copies = _copies(evidence)
    problem = _separate(evidence)
    other = copies.other
    if not problem and isinstance(other, Stretch) and other.error:
        problem = f"a copy under another policy cannot run: {other.error}"
    if problem and copies.shared:
        return failing(
            f"{problem}. While another copy lived, its {listed(copies.shared)} changed",
            "copy what changes: copy.deepcopy(self), or each array, list and lake in fork()",
        )
    if problem and "cannot run" in problem:
        return failing(problem, "a copy must run as the original does, whatever others lived")
    return holding("what one copy lives does not change another")


def same_life_rule(evidence: Evidence) -> RuleResult:
    """The same policy on two copies lives the same life."""
    if problem := _separate(evidence):
        return failing(
            problem,
            f"{KEYED}. If luck is keyed, fork() leaves out some of the state",
        )
    return holding(f"the same policy on three copies: {evidence.first.events.height} equal events")


def past_rule(evidence: Evidence) -> RuleResult:
    """A copy's log holds the past."""
    copies = _copies(evidence)
    child = copies.child
    if not isinstance(child, Stretch) or child.lake is None or copies.parent is None:
        return not_tried("a copy of a copy did not run")
    past_events = copies.parent.events
    lost = past_events.join(child.lake.events, on="event_id", how="anti").height
    if lost:
        return failing(
            f"{lost} of {past_events.height} events from before the copy was made are not in its log",
            "give the copy the log so far: what is new to a user depends on it",
        )
    return holding(f"a copy's log holds all {past_events.height} events from before it was made")


def arrival_rule(evidence: Evidence) -> RuleResult:
    """On the first day users come alike under two policies."""
    other = _copies(evidence).other
    if not isinstance(other, Stretch) or other.error:
        return not_tried("a copy under another policy did not run")
    first, second = (_arrivals(stretch) for stretch in (evidence.first, other))
    arrivals = first.join(second, on="user_id", how="full", coalesce=True)
    if arrivals.is_empty():
        return not_tried("nobody came on the first day")
    alike = arrivals.select((pl.col("time") == pl.col("time_right")).fill_null(False).mean()).item()
    if alike < 1:
        return failing(
            f"{alike:.3f} of {arrivals.height} first visits of the first day are equal under two "
            "policies, expected all: nothing was shown before them",
            KEYED,
        )
    return holding(
        f"all {arrivals.height} first visits of the first day are equal under two policies"
    )


def _arrivals(stretch: Stretch) -> pl.DataFrame:
    """When each user came on the first day: columns user_id and time."""
    times = [
        frame.filter(pl.col("time").dt.date() == stretch.start.date()).select("user_id", "time")
        for frame in (stretch.events, stretch.policy_contexts)
    ]
    return pl.concat(times).group_by("user_id").agg(pl.col("time").min())


def same_shown_rule(evidence: Evidence) -> RuleResult:
    """Users who are shown the same live the same life, whatever others are shown."""
    other = _copies(evidence).other
    if evidence.interaction:
        return not_tried("users influence each other, as interaction=True says")
    if not isinstance(other, Stretch) or other.error:
        return not_tried("a copy under another policy did not run")
    lives = []
    for stretch in (evidence.first, other):
        alike = pl.Series(~second_half(stretch.events["user_id"]))
        lives.append(stretch.events.filter(alike).drop("ingested_at").sort("event_id"))
    users = lives[0]["user_id"].n_unique()
    if not lives[0].equals(lives[1]):
        differing = pl.concat(
            [
                lives[left].join(lives[1 - left], on=lives[0].columns, how="anti", nulls_equal=True)
                for left in (0, 1)
            ]
        )["user_id"].n_unique()
        return failing(
            f"{differing} of {users} users who were shown the same lived differently, because "
            "others were shown something else",
            f"{KEYED}. If users influence each other: check_simulator(..., interaction=True)",
        )
    return holding(f"{users} users who were shown the same lived the same while others were not")


def seed_rule(evidence: Evidence) -> RuleResult:
    """A seed gives a copy other luck, and equal seeds give equal luck."""
    copies = _copies(evidence)
    advice = (
        "def fork(self, *, seed=None): with a seed, all luck from now on follows from it, a "
        "whole number of up to 63 bits; without one, the copy has the luck of the service"
    )
    lives = []
    for seed, copied in zip(SEEDS, copies.seeded):
        if isinstance(copied, str):
            return failing(f"fork(seed={seed}) {copied}", advice)
        if copied.error:
            return failing(f"the copy fork(seed={seed}) cannot run: {copied.error}", advice)
        lives.append(copied)
    if problem := _same_events(lives[0], lives[1]):
        return failing(f"two copies with one seed differ: {problem}", advice)
    for stretch, what in ((evidence.first, "without a seed"), (lives[2], "with another seed")):
        if not _same_events(lives[0], stretch):
            return failing(f"a copy with a seed lives the same life as one {what}", advice)
    return holding("two copies with one seed live the same life, others do not")


PAST_RULES = (
    Rule("fork", fork_rule, ("run",)),
    Rule("past", past_rule, ("fork", "whole log")),
)
COPY_RULES = (
    Rule("original", original_rule, ("fork",)),
    Rule("copies", separate_rule, ("original",)),
    Rule("same life", same_life_rule, ("copies",)),
    Rule("arrivals", arrival_rule, ("same life",)),
    Rule("same shown", same_shown_rule, ("arrivals", "users")),
    Rule("seed", seed_rule, ("same life",)),
)
