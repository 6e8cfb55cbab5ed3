"""Tokens of what stands around a history's items: against prompts written by hand, training against
serving, and what is learned from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from longplay.codes import Allowed, Codebook
from longplay.decisions import Contexts, contexts_at
from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.policies.generative.circumstances import GAPS, READS, Circumstances, gaps
from longplay.policies.generative_policy import Generative
from longplay.policies.page import Page
from longplay.policies.training.histories import Questions, histories_from_log
from longplay.policies.training.next_item import positions
from longplay.world import World

torch.set_num_threads(1)

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = [f"i{k}" for k in range(6)]
CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 2]])
WIDTH = 3
SAID: list[tuple[int, int]] = [(level, k) for level in range(2) for k in range(WIDTH)]


def log(rows: list[tuple[str, float, str, str, str | None]]) -> Lake:
    """A lake of events (user, hours from the start, item, kind, surface)."""
    lake = Lake.memory()
    events = pl.DataFrame(
        {
            "event_id": [str(k) for k in range(len(rows))],
            "user_id": [row[0] for row in rows],
            "item_id": [row[2] for row in rows],
            "creator_id": ["c"] * len(rows),
            "kind": [row[3] for row in rows],
            "time": [START + timedelta(hours=row[1]) for row in rows],
            "surface": pl.Series([row[4] for row in rows], dtype=pl.String),
        }
    )
    lake.append(
        "log",
        events=events,
        items=pl.DataFrame({"item_id": ITEMS, "added_at": [START] * len(ITEMS)}),
    )
    return lake


RICH = [
    ("u0", 0.0, "i0", "play", "home"),
    ("u0", 0.01, "i1", "save", "search"),
    ("u0", 30.0, "i2", "play", None),
    ("u0", 31.5, "i3", "like", "home"),
    ("u0", 700.0, "i5", "play", "search"),
    ("u1", 2.0, "i4", "play", "search"),
    ("u1", 2.02, "i4", "play", "home"),
    ("u2", 5.0, "i1", "purchase", "home"),
]


def untrained(lake: Lake, reads: tuple[str, ...] = READS, scale: float = 5.0) -> Generative:
    """A random policy whose laws are peaked, so that they depend on everything that is read."""
    codebook = Codebook(pl.Series("item_id", ITEMS), CODES, WIDTH, np.ones(len(ITEMS), dtype=bool))
    policy = Generative(reads=reads, seed=1).with_codes(lake, codebook)
    with torch.no_grad():
        for weight in policy.decoder.model.parameters():
            if weight.ndim == 2:
                weight.mul_(scale)
    return replace(
        policy,
        circumstances=replace(policy.circumstances, edges=(0.5, 3.0))
        if "want" in reads
        else policy.circumstances,
    )


def by_hand(policy: Generative, context: dict[str, object]) -> NDArray[np.float64]:
    """log pi of every item, from a prompt written token by token and the plain model."""
    reads, surfaces = [name for name in READS if name in policy.reads], ["home", "search"]
    names = {
        "gap": ["?", *range(len(GAPS) + 1)],
        "surface": [None, *surfaces],
        "want": [0, 1, 2, 3, 4],
        "kind": [None, *ENGAGED],
    }
    vocabulary = ["pad", "bos"] + [(name, value) for name in reads for value in names[name]] + SAID

    def around(
        before: datetime | None, time: datetime | None, surface: str | None, want: int
    ) -> list[object]:
        gap: object = "?"
        if before is not None and time is not None:
            gap = sum((time - before).total_seconds() >= edge for edge in GAPS)
        said: dict[str, object] = {
            "gap": gap,
            "surface": surface if surface in surfaces else None,
            "want": want,
        }
        return [(name, said[name]) for name in reads if name != "kind"]

    history = [str(item) for item in context["history"]]  # type: ignore[attr-defined]
    beside = {
        name: context[f"history_{name}"] or [None] * len(history)
        for name in ("time", "kind", "surface")
    }
    rows = list(zip(history, beside["time"], beside["kind"], beside["surface"], strict=True))  # type: ignore[call-overload]
    rows = [row for row in rows if row[0] in ITEMS][-policy.history :]
    said: list[object] = ["bos"]
    before = None
    for item, time, kind, surface in rows:
        said += around(before, time, surface, 0)
        said += [(level, int(code)) for level, code in enumerate(CODES[ITEMS.index(item)])]
        said += [("kind", kind)] if "kind" in reads else []
        before = time
    want = context["want"]
    wanted = 0 if want is None else 1 if want <= 0.5 else 2 if want <= 3.0 else 3  # type: ignore[operator]
    said += around(before, context["time"], context["surface"], wanted)  # type: ignore[arg-type]
    answer = np.zeros(len(ITEMS))
    for item, codes in enumerate(CODES):
        tokens = [
            vocabulary.index(token)
            for token in [*said, *((level, int(code)) for level, code in enumerate(codes))]
        ]  # type: ignore[arg-type]
        with torch.no_grad():
            logits = (
                policy.decoder.model(input_ids=torch.tensor([tokens])).logits[0].double().numpy()
            )
        for level, code in enumerate(codes):
            valid = sorted(
                {
                    int(other[level])
                    for other in CODES
                    if other[:level].tolist() == codes[:level].tolist()
                }
            )
            scores = logits[
                len(said) - 1 + level, [vocabulary.index((level, each)) for each in valid]
            ]  # type: ignore[arg-type]
            answer[item] += scores[valid.index(int(code))] - np.logaddexp.reduce(scores)
    return answer


def asked(lake: Lake, surfaces: list[str], wants: list[float | None]) -> Contexts:
    """Contexts at some moments, on surfaces and with wants of their own."""
    moments = pl.DataFrame(
        {
            "user_id": ["u0", "u0", "u1", "u2", "nobody"],
            "time": [START + timedelta(hours=h) for h in (31.6, 2_000, 2.015, 6.0, 1.0)],
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    frame = contexts_at(lake, moments, slots=2, history=9, exclude="none").frame
    return Contexts(
        frame.with_columns(
            pl.Series("surface", surfaces), pl.Series("want", wants, dtype=pl.Float64)
        )
    )


SURFACES = ["home", "search", "elsewhere", "home", "search"]
WANTS: list[float | None] = [None, 7.0, 0.5, 3.0, 0.50001]


@pytest.mark.parametrize(
    "reads", [READS, ("gap",), ("surface", "kind"), ("want",), ("kind", "gap"), ()]
)
def test_laws_are_those_of_a_prompt_written_by_hand(reads: tuple[str, ...]) -> None:
    lake = log(RICH)
    policy, contexts = untrained(lake, reads), asked(lake, SURFACES, WANTS)
    unknown = contexts.frame.with_columns(
        pl.lit(None, dtype=contexts.frame.schema[name]).alias(name)
        for name in ("history_time", "history_kind", "history_surface")
    )
    strange = contexts.frame.with_columns(
        history=pl.col("history").list.eval(
            pl.when(pl.element() == "i1").then(pl.lit("gone")).otherwise(pl.element())
        )
    )
    both = Contexts(pl.concat([contexts.frame, unknown, strange]))
    law = policy.item_log_prob(both)
    assert np.exp(law).max() > 0.4
    for row, context in enumerate(both.frame.iter_rows(named=True)):
        assert np.exp(law[row]) == pytest.approx(
            np.exp(by_hand(policy, context)), rel=1e-4, abs=1e-7
        )
    if reads:
        assert len({tuple(row) for row in law[:5].round(6).tolist()}) == 5


def test_each_circumstance_changes_the_law_and_only_those_that_are_read_do() -> None:
    lake = log(RICH)
    contexts = asked(lake, SURFACES, WANTS).take([1])
    other = {
        "gap": contexts.frame.with_columns(time=pl.col("time") - timedelta(hours=1_299)),
        "surface": contexts.frame.with_columns(surface=pl.lit("home")),
        "want": contexts.frame.with_columns(want=pl.lit(0.0)),
        "kind": contexts.frame.with_columns(
            history_kind=pl.col("history_kind").list.eval(pl.lit("follow"))
        ),
    }
    for reads in READS:
        policy = untrained(lake, (reads,))
        base = policy.item_log_prob(contexts)
        for name, frame in other.items():
            moved = np.abs(policy.item_log_prob(Contexts(frame)) - base).max()
            assert (moved > 1e-3) == (name == reads), (reads, name, moved)


def test_training_reads_what_serving_reads() -> None:
    """The packed pass over a user's events gives each item the log-probability that a context at
    that moment gives it."""
    lake = log(RICH)
    policy = untrained(lake)
    outcomes = lake.events.select("user_id", "item_id", "time").with_columns(
        value=pl.Series([0.0, 1.0, 9.0, None, 2.0, 5.0, 0.0, 1.0])
    )
    histories = histories_from_log(
        lake, policy.index, np.ones(len(ITEMS), dtype=bool), policy.circumstances, outcomes
    )
    policy = replace(policy, circumstances=histories.circumstances)
    moments = lake.events.sort("user_id", "time").select(
        "user_id", "time", "surface", "item_id", "event_id"
    )
    contexts = contexts_at(lake, moments, slots=1, history=99, exclude="none").frame.with_columns(
        surface=moments["surface"].fill_null("unnamed"), want=pl.lit(None, dtype=pl.Float64)
    )
    value = moments.join(
        outcomes, on=["user_id", "item_id", "time"], how="left", maintain_order="left"
    )["value"]
    row = policy.index.rows(moments["item_id"])
    plain = policy.item_log_prob(Contexts(contexts))[np.arange(len(row)), row]
    wanting = policy.item_log_prob(Contexts(contexts.with_columns(value.alias("want"))))[
        np.arange(len(row)), row
    ]
    assert np.abs(plain - wanting).max() > 0.01
    for user in range(3):
        low, high = histories.offsets[user], histories.offsets[user + 1]
        for stop in range(low + 1, high + 1):
            first, last = np.array([low]), np.array([stop])
            for wanted in (False, True):
                windows = histories.window(first, last, np.array([wanted]))
                with torch.no_grad():
                    log_p = policy.decoder.sequence_log_prob(
                        windows, Allowed.everything(policy.decoder.trie, 1)
                    )[0].numpy()
                expected = plain[low:stop].copy()
                if wanted:
                    expected[-1] = wanting[stop - 1]
                assert log_p == pytest.approx(expected, abs=2e-4)
    part = histories.window(
        np.array([2]), np.array([5])
    )  # from the third on: how long ago the second was is not known, as in serving
    cut = Contexts(contexts).reading(2).frame
    with torch.no_grad():
        log_p = policy.decoder.sequence_log_prob(part, Allowed.everything(policy.decoder.trie, 1))[
            0
        ].numpy()
    assert log_p[2] == pytest.approx(policy.item_log_prob(Contexts(cut))[4, row[4]], abs=2e-4)


def test_questions_of_training_are_read_like_contexts() -> None:
    lake = log(RICH)
    policy = untrained(lake, ("gap", "surface", "kind"))
    histories = histories_from_log(
        lake, policy.index, np.ones(len(ITEMS), dtype=bool), policy.circumstances
    )
    questions = Questions.last_items(histories, np.arange(3))
    place = positions(policy.decoder, questions, policy.history, beams=6, k=6)
    last = (
        lake.events.sort("user_id", "time")
        .filter(pl.col("user_id") != "u2")
        .group_by("user_id", maintain_order=True)
        .last()
    )
    frame = contexts_at(
        lake, last.select("user_id", "time"), slots=1, history=99, exclude="none"
    ).frame
    law = policy.item_log_prob(Contexts(frame.with_columns(surface=last["surface"])))
    row = policy.index.rows(last["item_id"])
    assert (
        place.tolist() == (1 + (law > law[np.arange(2), row][:, None] + 1e-9).sum(axis=1)).tolist()
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_gaps_are_those_of_a_loop(counts: list[int], data: st.DataObject) -> None:
    offsets = np.cumsum([0, *counts])
    seconds = [
        data.draw(st.one_of(st.just(0), st.sampled_from(GAPS), st.integers(0, 10**7)))
        for _ in range(offsets[-1])
    ]
    time = np.cumsum(seconds).astype(float) * 1e6
    expected = [
        0 if place in offsets[:-1] else 1 + sum(seconds[place] >= edge for edge in GAPS)
        for place in range(offsets[-1])
    ]
    assert gaps(offsets, time).tolist() == expected
    assert gaps(offsets, None).tolist() == [0] * int(offsets[-1])


@pytest.mark.parametrize(
    ("values", "edges", "levels"),
    [
        ([0.0] * 9 + [1.0], (0.0,), [1] * 9 + [2]),
        ([5.0, 5.0], (), [1, 1]),
        ([], (), []),
        (list(range(8)), (1.0, 3.0, 5.0), [1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_levels_of_a_wanted_outcome_are_quantiles(
    values: list[float], edges: tuple[float, ...], levels: list[int]
) -> None:
    circumstances = Circumstances(("want",)).wanting(np.array(values, dtype=float))
    assert circumstances.edges == edges
    assert circumstances.level(np.array(values, dtype=float)).tolist() == levels
    assert circumstances.level(np.array([np.nan, -99.0, 99.0])).tolist() == [0, 1, len(edges) + 1]


def lessons() -> tuple[Lake, pl.DataFrame]:
    """What comes after i0 depends on the surface (i1 at home, i2 in search, either on radio); i3
    after a day; i4 after a save; i2 and i4 lead on."""
    rng, rows = np.random.default_rng(0), []
    for user in range(400):
        name, hour = f"u{user:03d}", float(rng.uniform(0, 20))
        for _ in range(3):
            surface, kind, late = (
                rng.choice(["home", "search", "radio"]),
                rng.choice(["play", "save"], p=[0.75, 0.25]),
                rng.random() < 0.25,
            )
            rows.append((name, hour, "i0", str(kind), "home"))
            after = (
                "i4"
                if kind == "save"
                else "i3"
                if late
                else {"home": "i1", "search": "i2", "radio": f"i{rng.integers(1, 3)}"}[str(surface)]
            )
            hour += 30 if late else 0.02
            rows.append((name, hour, after, "play", str(surface)))
            hour += float(rng.uniform(40, 60))
    lake = log(rows)
    value = (pl.col("item_id").is_in(["i2", "i4"])).cast(pl.Float64)
    outcomes = lake.events.select("user_id", "item_id", "time").with_columns(
        value=pl.when(pl.col("item_id") != "i0").then(value)
    )
    return lake, outcomes


def test_it_learns_from_what_stands_around_the_items(tmp_path: Path) -> None:
    lake, outcomes = lessons()
    codebook = Codebook(pl.Series("item_id", ITEMS), CODES, WIDTH, np.ones(len(ITEMS), dtype=bool))
    policy = (
        Generative(reads=("gap", "surface", "kind", "want"), steps=250)
        .with_codes(lake, codebook)
        .train(lake, outcomes=outcomes)
    )
    assert policy.circumstances.edges == (0.0,)

    def asks(
        kind: str = "play", minutes: float = 1.0, surface: str = "home", want: float | None = None
    ) -> NDArray[np.float64]:
        beside = pl.DataFrame(
            {"history_time": [[START]], "history_kind": [[kind]], "history_surface": [["home"]]}
        )
        when = START + timedelta(minutes=minutes)
        context = Contexts.of(
            ["u"],
            when,
            slots=1,
            history=[["i0"]],
            surface=surface,
            want=want,
            history_columns=beside,
        )
        return np.exp(policy.item_log_prob(context)[0])

    assert asks()[1] > 0.9
    assert asks(surface="search")[2] > 0.9
    assert asks(minutes=1_800)[3] > 0.9
    assert asks(kind="save")[4] > 0.9
    assert asks(surface="radio", want=1.0)[2] > 0.9  # here what is wanted decides
    assert asks(surface="radio", want=0.0)[1] > 0.9
    unclear = Contexts.of(
        ["u"], START, slots=1, history=[["i0"]], surface="elsewhere"
    )  # nothing is known
    policy.save(tmp_path / "policy")
    again = Generative.load(tmp_path / "policy")
    assert again.name == policy.name
    assert again.circumstances == policy.circumstances
    assert again.item_log_prob(unclear) == pytest.approx(
        policy.item_log_prob(unclear), abs=1e-5
    )  # where weights lie in memory decides the last bits
    assert (
        replace(policy, circumstances=replace(policy.circumstances, edges=(0.5,))).name
        != policy.name
    )


def test_worlds_give_a_policy_what_its_lake_says() -> None:
    world = World(60, 40, seed=3)
    lake = world.run(None, days=4)
    policy = Generative(reads=("gap", "surface", "kind"), steps=3, exclude="none").fit(lake)
    lake = world.run(policy, days=3)
    contexts = lake.contexts.filter(
        pl.col("surface") == "home", pl.col("history").list.len() > 0
    ).sort("time", "user_id")
    assert contexts.height > 20
    known = contexts_at(
        lake, contexts.select("user_id", "time"), slots=5, history=policy.history, exclude="none"
    ).frame
    assert contexts["history_kind"].list.eval(pl.element() == "save").list.any().any()
    assert contexts["history_surface"].list.eval(pl.element() == "autoplay").list.any().any()
    for name in ("history", "history_kind", "history_surface"):
        assert contexts[name].equals(known[name]), name
    whole = pl.col("history_time").list.eval(pl.element().dt.truncate("1s"))
    assert contexts["history_time"].equals(known.select(whole)["history_time"])
    decisions = lake.decisions.filter(pl.col("policy") == policy.name).sort("time", "user_id")
    at = lake.contexts.filter(pl.col("context_id").is_in(decisions["context_id"].implode())).sort(
        "time", "user_id"
    )
    logged = np.array(decisions["log_prob"].to_list())
    assert np.abs(policy.log_prob(Contexts(at), decisions["slate"]) - logged).max() < 1e-5


def test_pages_of_rows_pass_on_what_was_around() -> None:
    lake = log(RICH)
    policy = untrained(lake, ("gap", "kind"))
    contexts = asked(lake, SURFACES, WANTS)
    page = Page({"only": policy}, {"only": 2})
    slates = page.decide(contexts, np.random.default_rng(0)).slates
    assert page.log_prob(contexts, slates) == pytest.approx(
        policy.log_prob(contexts, slates), abs=1e-9
    )


def test_what_cannot_be_read_is_refused() -> None:
    lake = log(RICH)
    with pytest.raises(
        ConfigError,
        match=r"\('gap', 'weather'\) given, expected a list of some of gap, surface, want, kind",
    ):
        Generative(reads=("gap", "weather"))
    with pytest.raises(ConfigError, match="reads='gap' given, expected a list"):
        Generative(reads="gap")  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match="want=nan given, expected a number in the unit of the outcome"
    ):
        Contexts.of(["u"], START, slots=1, want=float("nan"))
    with pytest.raises(
        DataError,
        match=r"1 of 1 rows have a history_kind of another length than their history, first .* with \['play', 'save'\]",
    ):
        Contexts.of(
            ["u"],
            START,
            slots=1,
            history=[["i0"]],
            history_columns=pl.DataFrame({"history_kind": [["play", "save"]]}),
        )
    policy = Generative(reads=("want",), steps=1).with_codes(lake)
    with pytest.raises(
        DataError, match=r"pass outcomes=OUTCOMES\.frame, or leave 'want' out of reads"
    ):
        policy.train(lake)
    with pytest.raises(DataError, match="outcomes have no column 'value'"):
        policy.train(lake, outcomes=lake.events.select("user_id", "item_id", "time"))
    late = lake.events.select(
        "user_id", "item_id", pl.col("time") + timedelta(seconds=1), value=pl.lit(1.0)
    )
    with pytest.raises(
        DataError, match="none of 8 known outcomes is of an event that histories hold"
    ):
        policy.train(lake, outcomes=late)


def test_items_read_whole_have_tokens_of_their_own_and_new_ones_are_read_by_their_codes(
    tmp_path: Path,
) -> None:
    lake = log(RICH)
    codebook = Codebook(pl.Series("item_id", ITEMS), CODES, WIDTH, np.ones(len(ITEMS), dtype=bool))
    policy = Generative(item_tokens=True, reads=("kind",), seed=1).with_codes(lake, codebook)
    with torch.no_grad():
        for weight in policy.decoder.model.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    contexts = asked(lake, SURFACES, WANTS)
    code = 2 + policy.circumstances.token_count
    first_item = code + 2 * WIDTH
    prompts = policy.prompts(contexts)
    said = [
        int(token) for token, real in zip(prompts.tokens[0], prompts.real[0], strict=True) if real
    ]
    expected = [1]
    for item, kind in [("i0", "play"), ("i1", "save"), ("i2", "play"), ("i3", "like")]:
        place = ITEMS.index(item)
        expected += [code + int(CODES[place][0]), first_item + place, 2 + 1 + ENGAGED.index(kind)]
    assert said == expected
    law = policy.item_log_prob(contexts)
    assert np.exp(law).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-9)
    histories = histories_from_log(
        lake, policy.index, np.ones(len(ITEMS), dtype=bool), policy.circumstances
    )
    with (
        torch.no_grad()
    ):  # training reads what serving reads: the fourth item of u0, at a moment of its own
        log_p = policy.decoder.sequence_log_prob(
            histories.window(np.array([0]), np.array([4])),
            Allowed.everything(policy.decoder.trie, 1),
        )[0]
    moment = contexts_at(
        lake,
        lake.events.filter(pl.col("item_id") == "i3").select("user_id", "time"),
        slots=1,
        history=9,
        exclude="none",
    )
    assert float(log_p[3]) == pytest.approx(
        policy.item_log_prob(moment)[0, ITEMS.index("i3")], abs=2e-4
    )

    policy.save(tmp_path / "policy")
    again = Generative.load(tmp_path / "policy")
    assert again.name == policy.name
    assert np.array_equal(again.item_log_prob(contexts), law)
    wider_codes = np.array(
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0], [2, 2]]
    )  # a new item among the old ones, which keep their tokens
    wider = Codebook(
        pl.Series("item_id", [*ITEMS[:2], "new", *ITEMS[2:]]),
        wider_codes,
        WIDTH,
        np.ones(7, dtype=bool),
    )
    later = replace(policy, codebook=wider)
    assert torch.equal(later.prompts(contexts).tokens, prompts.tokens)
    assert later.prompts(Contexts.of(["u"], START, slots=1, history=[["new"]])).tokens[
        0
    ].tolist() == [1, code, code + WIDTH + 2, 2]
    assert later.name != policy.name
    slates = later.decide(contexts, np.random.default_rng(0)).slates
    assert np.isfinite(later.log_prob(contexts, slates)).all()
    with pytest.raises(ConfigError, match="a base reads items by their codes"):
        Generative(item_tokens=True, base="folder")
