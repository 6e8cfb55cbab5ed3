"""Rules that every simulator keeps: what it says of itself, what it asks its policy, and what it logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import polars as pl

from longplay.decisions import contexts_at
from longplay.errors import DataError
from longplay.lake.schema import ENGAGED, conform
from longplay.world.checking.simulator_lives import Evidence, Stretch
from longplay.world.checking.simulator_probe import AdaptCall, DecideCall
from longplay.world.checking.simulator_report import RuleResult

# surfaces on which users look for something themselves
SOUGHT = ("search", "library")


@dataclass(frozen=True)
class Rule:
    """A rule: its name, how it is tried, and the rules without which it says nothing."""

    name: str
    tried: Callable[[Evidence], RuleResult]
    needs: tuple[str, ...] = ()


def holding(finding: str) -> RuleResult:
    """The rule holds."""
    return RuleResult("", True, finding)


def failing(finding: str, advice: str) -> RuleResult:
    """The rule fails; `advice` says how to mend it."""
    return RuleResult("", False, finding, advice)


def not_tried(finding: str) -> RuleResult:
    """The rule could not be tried; the finding says why."""
    return RuleResult("", None, finding)


def now_rule(evidence: Evidence) -> RuleResult:
    """`now` is a UTC midnight, and a run moves it by the days asked for."""
    advice = "return a datetime with tzinfo=UTC at 00:00, that of the first day plus the days lived"
    now = evidence.now
    if now.utcoffset() != timedelta(0) or (now.hour, now.minute, now.second, now.microsecond) != (
        0,
        0,
        0,
        0,
    ):
        return failing(f"{now.isoformat()} given, expected midnight in UTC", advice)
    for stretch in evidence.stretches:
        if not stretch.error and stretch.now != stretch.end:
            return failing(
                f"{stretch.now} after {stretch.days} days from {stretch.start.date()}, expected "
                f"{stretch.end}",
                advice,
            )
    return holding(f"{now.date()}, a midnight in UTC; each run moves it by the days asked for")


def items_rule(evidence: Evidence) -> RuleResult:
    """`items` is a table of items, each once, none before its release."""
    tables: list[tuple[datetime, pl.DataFrame]] = [(evidence.now, evidence.items)]
    for stretch in evidence.stretches:
        if not stretch.error:
            moment = stretch.now if isinstance(stretch.now, datetime) else stretch.end
            tables.append((moment, cast(pl.DataFrame, stretch.items)))
    for moment, table in tables:
        if problem := unusable_items(table):
            return problem
        items = conform(table, "items")
        early = items.filter(pl.col("added_at") > moment)
        if early.height:
            first = early.row(0, named=True)
            return failing(
                f"{early.height} of {items.height} items on {moment.date()} are not released yet, "
                f"first {first['item_id']!r} of {first['added_at'].date()}",
                "leave out items with added_at after `now`: a policy must not know them",
            )
    return holding(f"{evidence.items.height} items at first, none before its release")


def unusable_items(table: object) -> RuleResult | None:
    """Why a policy cannot work with a table of items; null: it can."""
    if not isinstance(table, pl.DataFrame):
        return failing(
            f"items: a {type(table).__name__} given, expected a polars DataFrame",
            "return the items table: item_id, creator_id, added_at, and what else is known",
        )
    try:
        items = conform(table, "items")
    except DataError as error:
        return failing(
            str(error),
            "the columns are those of longplay.lake.schema.TABLES['items']: item_id and added_at "
            "at least",
        )
    if items.is_empty() or items["item_id"].n_unique() < items.height:
        return failing(
            f"items: {items.height} rows of {items['item_id'].n_unique()} items, expected each "
            "once, and at least one",
            "return one row per item",
        )
    return None


def run_rule(evidence: Evidence) -> RuleResult:
    """`run` returns a log under a policy."""
    for stretch in (evidence.first, evidence.second):
        if stretch.error:
            return failing(
                f"run(policy, {stretch.days}) raises {stretch.error}",
                "mend what the message says; the policy is a plain one that shows any item",
            )
        if stretch.lake is None:
            return failing(
                f"run returns a {type(stretch.returned).__name__}, expected a longplay.Lake",
                "append events, contexts, decisions and items to a Lake and return it",
            )
    return holding(f"run(policy, {evidence.first.days}) returns a Lake, twice in a row")


def complete_rule(evidence: Evidence) -> RuleResult:
    """The log is complete up to `now`."""
    for stretch in evidence.probed:
        if stretch.lake is None:
            continue
        try:
            watermark = stretch.lake.watermark
        except DataError as error:
            return failing(str(error), "append each day's tables to the lake")
        if watermark != stretch.end:
            return failing(
                f"the log is complete up to {watermark}, and `now` is {stretch.end}",
                "append with watermark=now, and return lake.before(now)",
            )
    return holding("the watermark of the log is `now` after each run")


def whole_rule(evidence: Evidence) -> RuleResult:
    """A later log holds all of the earlier one."""
    earlier, later = (stretch.lake for stretch in (evidence.first, evidence.second))
    if earlier is None or later is None:
        return not_tried("there is only one log")
    counts = []
    for table, key, old_rows, new_rows in (
        ("events", "event_id", earlier.events, later.events),
        ("contexts", "context_id", earlier.contexts, later.contexts),
        ("decisions", "decision_id", earlier.decisions, later.decisions),
    ):
        lost = old_rows.join(new_rows, on=key, how="anti").height
        if lost:
            return failing(
                f"{lost} of {old_rows.height} {table} of the first run are not in the log of the "
                "second",
                "keep one lake for all runs, and return all of it each time",
            )
        counts.append(f"{old_rows.height} {table}")
    return holding(f"the second log holds all {', '.join(counts)} of the first")


def rows_rule(evidence: Evidence) -> RuleResult:
    """No event was refused."""
    refused = evidence.lake.quarantine
    if refused.height:
        return failing(
            f"{refused.height} events were refused, first: {refused['reason'][0]}",
            "give every event an id of its own, a known kind and origin (lake.schema.KINDS, "
            "ORIGINS), a user and a time; see lake.quarantine",
        )
    kinds = evidence.lake.events["kind"].unique().sort().to_list()
    if not kinds:
        return failing("nobody did anything", "log what users do as events")
    return holding(f"{evidence.lake.events.height} events: {', '.join(kinds)}; none was refused")


def context_ids_rule(evidence: Evidence) -> RuleResult:
    """No context id comes twice."""
    ids = pl.concat(
        [stretch.policy_contexts["context_id"] for stretch in (evidence.first, evidence.second)]
        if evidence.second is not evidence.first
        else [evidence.first.policy_contexts["context_id"]]
    )
    if ids.is_empty() and evidence.first.error:
        return not_tried("the policy never answered")
    if ids.is_empty():
        return failing(
            "the policy was never asked",
            "call policy.decide(contexts, rng) where users can be shown something",
        )
    again = ids.filter(ids.is_duplicated())
    if len(again):
        return failing(
            f"{again.n_unique()} of {ids.n_unique()} ids come again, first {again[0]!r}",
            "make them of user, day and a counter: Contexts.of(..., ids=...)",
        )
    return holding(f"{len(ids)} contexts were asked, each with an id of its own")


def contexts_rule(evidence: Evidence) -> RuleResult:
    """The log holds every context as it was asked, within the days lived."""
    for stretch in evidence.probed:
        contexts = stretch.policy_contexts
        logged = _where_in(stretch, "contexts", "context_id", contexts)
        outside = contexts.filter(
            (pl.col("time") < stretch.start) | (pl.col("time") >= stretch.end)
        ).height
        if outside:
            return failing(
                f"{outside} of {contexts.height} contexts have a time outside of the days lived",
                "a context's time is when its slate is shown",
            )
        if problem := _unlike(contexts, logged, "context_id", contexts.columns):
            return failing(
                f"contexts: {problem}",
                "append contexts.frame, as it was given to policy.decide",
            )
    return holding("the log holds every context as it was asked")


def decisions_rule(evidence: Evidence) -> RuleResult:
    """The log holds one decision per context, as the policy made it."""
    columns = ["decision_id", "context_id", "user_id", "time", "slate", "log_prob", "policy"]
    for stretch in evidence.probed:
        logged = _where_in(stretch, "decisions", "context_id", stretch.policy_contexts)
        if problem := _unlike(stretch.policy_decisions, logged, "decision_id", columns):
            return failing(
                f"decisions: {problem}",
                "append decisions.frame, as policy.decide returned it: its log-probabilities are "
                "those of what was shown",
            )
    count = sum(stretch.policy_decisions.height for stretch in evidence.probed)
    return holding(f"{count} decisions, one per context, with the policy's slates and propensities")


def _where_in(stretch: Stretch, table: str, key: str, contexts: pl.DataFrame) -> pl.DataFrame:
    """Rows of the log's table whose key is among those asked, whatever their time."""
    if stretch.lake is None:
        return contexts.clear()
    rows = stretch.lake.contexts if table == "contexts" else stretch.lake.decisions
    return rows.filter(pl.col(key).is_in(contexts[key].implode()))


def _unlike(expected: pl.DataFrame, logged: pl.DataFrame, key: str, columns: list[str]) -> str:
    """How the logged rows differ from the expected ones; empty where they do not."""
    lost = expected.join(logged, on=key, how="anti")
    if lost.height:
        return f"{lost.height} of {expected.height} are not in the log, first {lost[key][0]!r}"
    if logged.height > expected.height:
        return f"{logged.height} in the log, and {expected.height} were made"
    expected = expected.select(columns).sort(key)
    logged = logged.select(columns).sort(key)
    for column in columns:
        if not expected[column].equals(logged[column]):
            return f"the log has another {column} than the policy's"
    return ""


def slots_rule(evidence: Evidence) -> RuleResult:
    """Events that a slot caused name the decision and the slot."""
    advice = (
        "an event that a slot caused carries the decision_id of policy.decide and the slot, counted "
        "from 0, with the user, item and surface of that slot"
    )
    count = 0
    for stretch in evidence.probed:
        pushed = stretch.events.filter(
            (pl.col("origin") == "recommended")
            & ~pl.col("surface").is_in([*SOUGHT, "autoplay"]).fill_null(False)
        )
        bare = pushed.filter(pl.col("decision_id").is_null() | pl.col("slot").is_null())
        if bare.height:
            return failing(
                f"{bare.height} of {pushed.height} recommended events name no slot, first "
                f"{bare['event_id'][0]!r}",
                advice,
            )
        decided = stretch.logged("decisions")["decision_id"]
        unknown = stretch.events.filter(
            ~pl.col("decision_id").is_in(decided.implode()) & pl.col("decision_id").is_not_null()
        ).join(evidence.lake.decisions, on="decision_id", how="anti")
        if unknown.height:
            return failing(
                f"{unknown.height} events name a decision that is not in the log, first "
                f"{unknown['decision_id'][0]!r}",
                advice,
            )
        played = stretch.played
        for what, wrong in (
            ("have no slot", pl.col("slot").is_null()),
            (
                "name an item that is not in their slot",
                ~pl.col("item_id").eq_missing(pl.col("shown_item")),
            ),
            ("are of another user than their decision", pl.col("user_id") != pl.col("shown_user")),
            (
                "are on another surface than their decision",
                pl.col("surface") != pl.col("shown_surface"),
            ),
        ):
            bad = played.filter(wrong)
            if bad.height:
                return failing(
                    f"{bad.height} of {played.height} events of slots {what}, first "
                    f"{bad['event_id'][0]!r}",
                    advice,
                )
        count += played.height
    if not count:
        return not_tried("nobody played what the policy showed; check more days or more users")
    return holding(f"{count} events name their decision and slot, with its user, item and surface")


def before_rule(evidence: Evidence) -> RuleResult:
    """A context's time precedes the events that it caused."""
    count = 0
    for stretch in evidence.probed:
        played = stretch.played
        late = played.filter(pl.col("time") <= pl.col("shown_at"))
        if late.height:
            first = late.row(0, named=True)
            return failing(
                f"{late.height} of {played.height} events of slots are not after their context, "
                f"first {first['event_id']!r}: {first['time']:%H:%M:%S}, shown at "
                f"{first['shown_at']:%H:%M:%S}",
                "a context's time is when the slate is shown; what is done with it is later",
            )
        count += played.height
    if not count:
        return not_tried("nobody played what the policy showed")
    return holding(f"{count} events of slots are all after their context")


def origins_rule(evidence: Evidence) -> RuleResult:
    """What a slot of the policy caused is recommended; what users looked for is organic."""
    advice = (
        "origin says who chose the item: `recommended` for what a slot of the policy caused, "
        "`organic` for search, library and visits, `autoplay` for what runs on by itself"
    )
    for stretch in evidence.probed:
        other = stretch.played.filter(pl.col("origin") != "recommended")
        events = stretch.events
        sought = events.filter(pl.col("surface").is_in(SOUGHT) & (pl.col("origin") != "organic"))
        auto = events.filter((pl.col("surface") == "autoplay") & (pl.col("origin") != "autoplay"))
        visits = events.filter((pl.col("kind") == "visit") & (pl.col("origin") != "organic"))
        for bad, what in (
            (other, "events of the policy's slots"),
            (sought, f"events on {' or '.join(SOUGHT)}"),
            (auto, "events on autoplay"),
            (visits, "visits"),
        ):
            if bad.height:
                return failing(
                    f"{bad.height} {what} are {bad['origin'][0]}, first {bad['event_id'][0]!r}",
                    advice,
                )
    counts = (
        pl.concat([stretch.events for stretch in evidence.probed])["origin"]
        .value_counts()
        .sort("origin")
        .iter_rows()
    )
    return holding(", ".join(f"{count} {origin}" for origin, count in counts) + " events")


def visits_rule(evidence: Evidence) -> RuleResult:
    """Who is shown something has visited that day."""
    for stretch in evidence.probed:
        day = pl.col("time").dt.date().alias("day")
        visits = (
            stretch.events.filter(pl.col("kind") == "visit")
            .group_by("user_id", day)
            .agg(pl.col("time").min().alias("came"))
        )
        contexts = stretch.policy_contexts.select("user_id", "time", day)
        bad = contexts.join(visits, on=["user_id", "day"], how="left").filter(
            pl.col("came").is_null() | (pl.col("came") > pl.col("time"))
        )
        if bad.height:
            return failing(
                f"{bad.height} of {contexts.height} contexts are of a user who has not come that day, "
                f"first {bad['user_id'][0]!r}",
                "log an event of the kind visit, organic, when a user comes: enrolment and active "
                "days rest on it",
            )
    return holding("every context follows a visit of its user on that day")


def catalogue_rule(evidence: Evidence) -> RuleResult:
    """What is shown or played is in the log's items, and released."""
    lake = evidence.lake
    shown = pl.concat([stretch.logged("decisions") for stretch in evidence.probed])
    uses = pl.concat(
        [
            lake.events.filter(pl.col("item_id").is_not_null()).select("item_id", "time"),
            shown.select(item_id="slate", time="time").explode("item_id", empty_as_null=False),
        ]
    )
    item_uses = uses.join(lake.items.select("item_id", "added_at"), on="item_id", how="left")
    strange = item_uses.filter(pl.col("added_at").is_null())
    if strange.height:
        return failing(
            f"{strange['item_id'].n_unique()} items are shown or played and not in lake.items, "
            f"first {strange['item_id'][0]!r}",
            "append items=self.items with each batch",
        )
    early = item_uses.filter(pl.col("time") < pl.col("added_at"))
    if early.height:
        return failing(
            f"{early.height} times an item is shown or played before its release, first "
            f"{early['item_id'][0]!r}",
            "let users find only items with added_at in the past",
        )
    return holding(
        f"{item_uses['item_id'].n_unique()} items are shown or played, all after release"
    )


def users_rule(evidence: Evidence) -> RuleResult:
    """Users come again under the same id, which events and contexts share."""
    for stretch in evidence.probed:
        context_users = stretch.policy_contexts["user_id"].unique()
        if (
            len(context_users)
            and not context_users.is_in(stretch.events["user_id"].implode()).any()
        ):
            return failing(
                f"no event is of any of the {len(context_users)} users of contexts, first "
                f"{context_users[0]!r}",
                "a user has one id for ever, in events, contexts and decisions",
            )
    if evidence.second is evidence.first:
        return not_tried("there is only one run")
    first, second = (
        stretch.events["user_id"].unique() for stretch in (evidence.first, evidence.second)
    )
    if min(len(first), len(second)) < 10:
        return not_tried(f"{len(first)} and {len(second)} users came, too few to tell")
    again = second.is_in(first.implode()).sum()
    if not again:
        return failing(
            f"{len(second)} users came in the second run, none of the {len(first)} of the first",
            "a user has one id for ever, in events, contexts and decisions",
        )
    return holding(f"{again} of {len(second)} users of the second run came in the first")


def histories_rule(evidence: Evidence) -> RuleResult:
    """A history is what the user did before, and only as long as the policy wants."""
    advice = (
        "give the last policy.history items that the user engaged with before the context, oldest "
        "first: Contexts.of(..., history=...)"
    )
    engaged = evidence.lake.events.filter(
        pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null()
    )
    first = engaged.group_by("user_id", "item_id").agg(pl.col("time").min().alias("met"))
    consumed = engaged.filter(pl.col("kind").is_in(["play", "purchase"]))
    met = consumed.group_by("user_id").agg(pl.col("time").min().alias("met"))
    items = 0
    for stretch in evidence.probed:
        contexts = stretch.policy_contexts
        want = 0 if stretch.probe is None else stretch.probe.history
        long = contexts.filter(pl.col("history").list.len() > want)
        if long.height:
            return failing(
                f"{long.height} of {contexts.height} histories are longer than the {want} items that "
                "the policy wants",
                advice,
            )
        rows = contexts.select("context_id", "user_id", "time", "history", "history_until")
        ahead = rows.filter(pl.col("history_until") > pl.col("time")).height
        each = rows.explode("history", empty_as_null=False).join(
            first, left_on=["user_id", "history"], right_on=["user_id", "item_id"], how="left"
        )
        unmet = each.filter(pl.col("met").is_null() | (pl.col("met") >= pl.col("time")))
        if ahead or unmet.height:
            return failing(
                f"{ahead} histories reach beyond their context, and {unmet.height} of {each.height} "
                "items of histories were not engaged with before it",
                advice,
            )
        bare = rows.join(met, on="user_id").filter(
            (pl.col("history").list.len() == 0) & (pl.col("met") < pl.col("time").dt.truncate("1d"))
        )
        if bare.height:
            return failing(
                f"{bare.height} histories are empty, first of {bare['user_id'][0]!r}, who has a past",
                advice,
            )
        if problem := _disorder(contexts):
            return failing(problem, advice)
        items += each.height
    if not items:
        return not_tried("nobody who was shown something had a past")
    return holding(f"{items} items of histories, all from before their context")


def _disorder(contexts: pl.DataFrame) -> str:
    """What is wrong with the times of histories, where they are given; empty: nothing."""
    timed = contexts.filter(pl.col("history_time").is_not_null())
    late = timed.filter(pl.col("history_time").list.max() >= pl.col("time")).height
    unsorted = timed.filter(pl.col("history_time") != pl.col("history_time").list.sort()).height
    if late or unsorted:
        return f"{late} histories hold a time after their context, and {unsorted} are out of order"
    return ""


def exclusions_rule(evidence: Evidence) -> RuleResult:
    """Contexts name what the stated rule excludes."""
    lake = evidence.lake
    released = lake.items.select("item_id", "added_at")
    stated: dict[str, int] = {}
    for stretch in evidence.probed:
        for (rule,), contexts in stretch.policy_contexts.group_by("exclusion_rule"):
            count = contexts["exclusions"].list.len().sum()
            if rule is None or rule == "none":
                if count:
                    return failing(
                        f"contexts exclude {count} items under the rule {rule}",
                        "state the rule that made them: Contexts.of(..., exclude='seen'), or "
                        "'creator'",
                    )
                stated["none stated" if rule is None else "none"] = 0
                continue
            moments = contexts.select("user_id", "time")
            due = contexts_at(lake, moments, slots=1, history=0, exclude=str(rule)).frame
            missing = (
                contexts.select("context_id", "user_id", "time", "exclusions")
                .with_columns(due=due["exclusions"])
                .with_columns(item_id=pl.col("due").list.set_difference("exclusions"))
                .explode("item_id", empty_as_null=False)
                .join(released, on="item_id", how="left")
                .filter(pl.col("added_at").is_null() | (pl.col("added_at") <= pl.col("time")))
            )
            if missing.height:
                first = missing.row(0, named=True)
                return failing(
                    f"contexts state {rule!r} but lack {missing.height} of the items it excludes, "
                    f"first {first['item_id']!r} for {first['user_id']!r}",
                    "the service puts exclusions into contexts, and the policy obeys: "
                    "Contexts.of(..., exclusions=..., exclude=...)",
                )
            stated[str(rule)] = stated.get(str(rule), 0) + int(count)
    rules = [f"{rule}, {count} exclusions" for rule, count in stated.items()]
    return holding(f"rule of exclusions: {'; '.join(rules)}")


def adapt_rule(evidence: Evidence) -> RuleResult:
    """An adaptive policy is adapted at once and at every midnight, and the next version decides."""
    advice = (
        "if isinstance(policy, longplay.decisions.Adaptive): policy = policy.adapt(self.items, "
        "events) before the first decision and at every midnight, with the events since the last "
        "call: longplay.lake.schema.conform(rows, 'events')"
    )
    days = 0
    for stretch in evidence.probed:
        version = 0
        since_day = None
        for call in [] if stretch.probe is None else stretch.probe.calls:
            if isinstance(call, AdaptCall):
                version += 1
                since_day = None
                continue
            day = call.contexts["time"].dt.date().max()
            if not version:
                return failing("policy.adapt is not called before the first decision", advice)
            if call.version != version:
                return failing(
                    f"version {call.version} of the policy decides after {version} calls of adapt",
                    f"go on with what adapt returns: {advice}",
                )
            if since_day is not None and day != since_day:
                return failing(
                    f"policy.adapt is not called between decisions of {since_day} and of {day}",
                    advice,
                )
            since_day = day
            days += 1
        if problem := _wrong_events(stretch):
            return failing(problem, advice)
    if not days:
        return not_tried("the policy was never asked")
    return holding("policy.adapt was called before the first decision and at every midnight")


def _wrong_events(stretch: Stretch) -> str:
    """What is wrong with the events that the policy was told; empty: nothing."""
    tables: list[pl.DataFrame] = []
    for call in [] if stretch.probe is None else stretch.probe.calls:
        if isinstance(call, DecideCall):
            begin = call.contexts["time"].dt.date().min()
            ahead = [frame for frame in tables if (frame["time"].dt.date() >= begin).any()]
            if ahead:
                return f"policy.adapt was given events of {begin} before the decisions of that day"
            continue
        events = call.events
        if not isinstance(events, pl.DataFrame):
            return f"policy.adapt was given events as a {type(events).__name__}, not of polars"
        try:
            conformed = conform(events, "events")
        except DataError as error:
            return f"policy.adapt was given other events than the log takes: {error}"
        for column in events.columns:
            if events.schema[column] != conformed.schema[column]:
                return (
                    f"policy.adapt was given {column} as {events.schema[column]}, expected "
                    f"{conformed.schema[column]}"
                )
        lacking = [column for column in ("item_id", "creator_id") if column not in events.columns]
        if lacking and conformed.height:
            return f"policy.adapt was given events without {lacking[0]}"
        events = conformed
        tables.append(events.filter(pl.col("time") >= stretch.start))
    ids = (
        pl.concat([frame["event_id"] for frame in tables]) if tables else pl.Series(dtype=pl.String)
    )
    if ids.n_unique() < len(ids):
        return f"policy.adapt was given {len(ids) - ids.n_unique()} events a second time"
    due = stretch.events.filter(pl.col("time") < stretch.end - timedelta(days=1))
    lost = due.filter(~pl.col("event_id").is_in(ids.implode())).height
    if lost:
        return f"policy.adapt was not given {lost} of {due.height} events of the days before"
    return ""


def silence_rule(evidence: Evidence) -> RuleResult:
    """With policy=None nothing is recommended."""
    silent = evidence.silent
    advice = (
        "with policy=None log no contexts and decisions but those of searches, and go on living"
    )
    if silent is evidence.first:
        return not_tried("run failed before")
    if silent.error:
        return failing(f"run(None, {silent.days}) raises {silent.error}", advice)
    if silent.lake is None:
        return failing(f"run(None, ...) returns a {type(silent.returned).__name__}", advice)
    # what was shown before may be played now
    earlier = evidence.lake.decisions["decision_id"].implode()
    pushed = silent.events.filter(
        (pl.col("origin") == "recommended") & ~pl.col("decision_id").is_in(earlier).fill_null(False)
    )
    if pushed.height:
        return failing(
            f"{pushed.height} events are recommended where nothing is, first "
            f"{pushed['event_id'][0]!r} on {pushed['surface'][0]}",
            advice,
        )
    surfaces = pl.concat([stretch.policy_contexts["surface"] for stretch in evidence.probed])
    shown = silent.logged("decisions").filter(pl.col("surface").is_in(surfaces.implode()))
    if shown.height:
        return failing(
            f"{shown.height} slates are logged on {shown['surface'][0]} without a policy", advice
        )
    return holding(f"{silent.events.height} events with policy=None, none of them recommended")


LOG_RULES = (
    Rule("now", now_rule),
    Rule("items", items_rule),
    Rule("context ids", context_ids_rule, ("now",)),
    Rule("run", run_rule, ("context ids", "items")),
    Rule("complete log", complete_rule, ("now", "run")),
    Rule("whole log", whole_rule, ("run",)),
)
CALL_RULES = (
    Rule("events", rows_rule, ("run", "whole log")),
    Rule("contexts", contexts_rule, ("now", "run")),
    Rule("decisions", decisions_rule, ("contexts",)),
    Rule("catalogue", catalogue_rule, ("items", "whole log", "contexts")),
    Rule("users", users_rule, ("run",)),
    Rule("slots", slots_rule, ("decisions", "events", "users")),
    Rule("times", before_rule, ("slots",)),
    Rule("origins", origins_rule, ("run",)),
    Rule("visits", visits_rule, ("users", "contexts")),
    Rule("histories", histories_rule, ("users", "whole log", "past", "contexts")),
    Rule("exclusions", exclusions_rule, ("users", "whole log", "past", "contexts")),
    Rule("adapt", adapt_rule, ("contexts", "events")),
    Rule("no policy", silence_rule, ("origins",)),
)
