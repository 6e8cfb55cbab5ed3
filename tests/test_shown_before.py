"""Contexts made from a log carry what was shown, and what was known of the user, as of their time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

import longplay as lp
from longplay.decisions import Contexts, Decisions, asked_surfaces, contexts_at, shown_before
from longplay.ope.logged import as_seen_by, logged_slots

START = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def slates(rows: list[tuple[str, str, float, str, list[str], float]]) -> pl.DataFrame:
    """Decisions from (id, user, day, surface, slate, day of arrival)."""
    frame = pl.DataFrame(
        {
            "decision_id": [row[0] for row in rows],
            "context_id": [row[0] for row in rows],
            "user_id": [row[1] for row in rows],
            "time": [day(row[2]) for row in rows],
            "surface": [row[3] for row in rows],
            "slate": [row[4] for row in rows],
            "log_prob": [[-1.0] * len(row[4]) for row in rows],
            "policy": ["p@1"] * len(rows),
            "ingested_at": [day(row[5]) for row in rows],
        }
    )
    return frame.with_columns(pl.lit(1.0).alias("temperature"))


def play(number: int, user: str, item: str, when: float, origin: str, decision: str | None) -> dict:
    return {
        "event_id": f"e{number}",
        "user_id": user,
        "item_id": item,
        "creator_id": item[0],
        "kind": "play",
        "time": day(when),
        "origin": origin,
        "decision_id": decision,
        "ingested_at": day(when),
    }


SLATES = [
    ("d1", "u1", 1.0, "home", ["a1", "b1"], 1.0),
    ("d2", "u1", 2.0, "shelf", ["c1"], 2.0),
    ("d3", "u1", 3.0, "search", ["a2"], 3.0),  # asked for: no showing
    ("d4", "u1", 4.0, "home", ["b1"], 9.0),  # arrived late
    ("d5", "u2", 1.0, "home", ["a1"], 1.0),
]
EVENTS = [
    play(1, "u1", "a2", 3.1, "organic", "d3"),
    play(2, "u1", "b1", 1.1, "recommended", "d1"),
    play(3, "u2", "a1", 1.2, "organic", None),
]


def lake_of(rows: list, users: list[tuple[str, float, list[float]]] = ()) -> lp.Lake:
    lake = lp.Lake.memory()
    tables = {"events": pl.DataFrame(EVENTS), "decisions": slates(rows)}
    if users:
        tables["users"] = pl.DataFrame(
            {
                "user_id": [row[0] for row in users],
                "vector": [row[2] for row in users],
                "attributes": [json.dumps({"plan": f"{row[1]:g}"}) for row in users],
                "added_at": [day(0)] * len(users),
                "ingested_at": [day(row[1]) for row in users],
            }
        )
    lake.append("log", **tables, watermark=day(20), now=day(20))
    return lake


def test_what_was_shown_before_is_listed_by_hand():
    # catches: a slate at the moment itself, one that had not arrived, another user's, a search, the order
    lake = lake_of(SLATES)
    assert asked_surfaces(lake) == ["search"]
    users = pl.Series("user_id", ["u1", "u1", "u1", "u1", "u2", "u3"])
    time = pl.Series("time", [day(number) for number in (1.0, 2.5, 8.0, 9.0, 1.5, 9.0)])
    shown, shown_time = shown_before(lake, users, time, 3)
    assert shown.to_list() == [
        [],
        ["a1", "b1", "c1"],
        ["a1", "b1", "c1"],
        ["b1", "c1", "b1"],
        ["a1"],
        [],
    ]
    assert shown_time.to_list()[3] == [day(1.0), day(2.0), day(4.0)]


def test_contexts_of_a_log_carry_showings_and_users_as_of_their_time():
    known = [("u1", 0.0, [1.0, 2.0]), ("u1", 5.0, [3.0, 4.0])]
    lake = lake_of(SLATES, known)
    moments = pl.DataFrame({"user_id": ["u1", "u1", "u2"], "time": [day(4.5), day(6), day(6)]})
    asked = {"slots": 1, "history": 5, "exclude": "none", "showings": 2, "users": True}
    frame = contexts_at(lake, moments, **asked).frame
    assert frame["shown"].to_list() == [["b1", "c1"], ["b1", "c1"], ["a1"]]
    assert frame["user_vector"].to_list() == [[1.0, 2.0], [3.0, 4.0], None]
    assert frame["user_attributes"].to_list() == ['{"plan": "0"}', '{"plan": "5"}', None]
    # what comes later changes nothing
    later = [
        *SLATES,
        ("d6", "u1", 6.0, "home", ["a1"], 6.0),
        ("d7", "u1", 4.2, "home", ["a1"], 7.0),
    ]
    other = lake_of(later, [*known, ("u1", 6.5, [9.0, 9.0]), ("u2", 7.0, [9.0, 9.0])])
    assert contexts_at(other, moments, **asked).frame.equals(frame)
    day_of_play = lp.contexts_from_log(lake, slots=1, history=5, showings=9, users=True).frame
    assert day_of_play.filter(pl.col("user_id") == "u1")["shown"].to_list() == [
        ["a1", "b1"],
        ["a1", "b1", "c1"],
    ]


def test_contexts_without_decisions_or_users_carry_nothing():
    lake = lp.Lake.memory()
    lake.append("log", events=pl.DataFrame(EVENTS[2:]), watermark=day(20), now=day(20))
    moments = pl.DataFrame({"user_id": ["u2"], "time": [day(6)]})
    frame = contexts_at(lake, moments, slots=1, history=5, showings=9, users=True).frame
    assert frame.select("shown", "shown_time", "user_vector").null_count().row(0) == (1, 1, 1)


class Reader:
    """A policy that remembers the contexts it was given."""

    history = 1

    def __init__(self, name: str, showings: int, reads_users: bool) -> None:
        self.name = name
        self.showings = showings
        self.reads_users = reads_users
        self.seen: list[pl.DataFrame] = []

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        self.seen.append(contexts.frame)
        slates = pl.Series("slate", [["a1"]] * len(contexts), dtype=pl.List(pl.String))
        return Decisions.of(contexts, slates, np.zeros((len(contexts), 1)), self.name)

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> np.ndarray:
        self.seen.append(contexts.frame)
        return np.zeros((len(contexts), 1))


def test_an_experiment_hands_each_arm_what_it_reads():
    lake = lake_of(SLATES, [("u1", 0.0, [1.0]), ("u2", 0.0, [2.0])])
    users = [f"u{number % 2 + 1}" for number in range(2)] + [f"v{number}" for number in range(20)]
    moments = pl.DataFrame({"user_id": users, "time": [day(6)] * len(users)})
    contexts = contexts_at(lake, moments, slots=1, history=5, showings=9, users=True)
    plain, reader = Reader("plain@1", 0, False), Reader("reader@1", 2, True)
    trial = lp.Experiment(control=plain, treatment=reader, salt="s")
    decided = trial.decide(contexts, np.random.default_rng(1))
    trial.log_prob(contexts, decided.slates)
    for frame in plain.seen:
        assert frame["shown"].null_count() == len(frame) == frame["user_vector"].null_count()
    for frame in reader.seen:
        assert frame["shown"].list.len().max() <= 2
        assert frame["shown"].null_count() == 0
    assert len(plain.seen) == len(reader.seen) == 2


def test_a_policy_is_valued_off_policy_with_the_showings_it_would_have_read():
    lake = lake_of(SLATES, [("u1", 0.0, [1.0])])
    lake.append("contexts", contexts=_contexts(lake), watermark=day(20), now=day(20))
    signal = lp.Signal("days", entry=lp.exposure(), measure=lp.days_with("creator"), window=(1, 2))
    slots = logged_slots(
        lake, signal.outcomes(lake).on(lake.decisions), users="all", surface="home"
    )
    seen = as_seen_by(Reader("reader@1", 2, True), slots, lake).contexts.frame.sort("context_id")
    assert seen.select("context_id", "shown").rows() == [
        ("d1", []),
        ("d4", ["b1", "c1"]),
        ("d5", []),
    ]
    assert seen["user_vector"].to_list() == [[1.0], [1.0], None]


def _contexts(lake: lp.Lake) -> pl.DataFrame:
    decisions = lake.decisions
    parts = []
    for row in decisions.iter_rows(named=True):
        parts.append(
            Contexts.of(
                [row["user_id"]],
                row["time"],
                slots=len(row["slate"]),
                surface=row["surface"],
                ids=[row["context_id"]],
            ).frame
        )
    return pl.concat(parts)
