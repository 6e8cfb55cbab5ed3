"""Whole slates: what slots above do to those below, surfaces of different attention, and the value of a
slate as the sum of its slots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

import longplay as lp
from longplay.decisions import Contexts
from longplay.rewards.entry_chance import ABOVE, above_features
from longplay.rewards.showing import Showing
from longplay.rewards.showing_fit import fit_showing

START = datetime(2026, 1, 1, tzinfo=UTC)
SIGNAL = lp.Signal(
    "days", entry=lp.discovery(novel_for=1), measure=lp.days_with("creator"), window=(1, 2)
)
ITEMS = 24
PER_CREATOR = 4
SLOTS = 4


# -- slots above -----------------------------------------------------------------------------------


@examples(60)
@given(
    slots=st.lists(
        st.tuples(st.integers(0, 3), st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 1)),
        max_size=12,
    )
)
def test_features_of_slots_above_equal_a_plain_loop(slots):
    # catches: slots below or of another slate, unknown creators that are one, vectors of nothing
    slots.sort(key=lambda slot: slot[0])
    slate_N, key_N = (np.array([slot[c] for slot in slots], dtype=np.int64) for c in (0, 1))
    vector_NR = np.array([slot[2:] for slot in slots], dtype=float).reshape(-1, 2)
    usual_N = np.linspace(-2.0, 1.0, len(slots))
    features = above_features(slate_N, key_N, vector_NR, usual_N)
    for n in range(len(slots)):
        above = [m for m in range(n) if slate_N[m] == slate_N[n]]
        cosines = [0.0]
        for m in above:
            size = np.linalg.norm(vector_NR[m]) * np.linalg.norm(vector_NR[n])
            cosines.append(vector_NR[m] @ vector_NR[n] / size if size else 0.0)
        same = sum(key_N[m] == key_N[n] >= 0 for m in above)
        played = sum(special.expit(usual_N[m]) for m in above)
        np.testing.assert_allclose(features[n], [same, max(cosines), played], atol=1e-12)


def log(
    users: int,
    visits: int,
    odds: dict[str, float],
    above: float = 0.0,
    seed: int = 0,
    appeal_I: np.ndarray | None = None,
    known: dict[str, list] | None = None,
    released: int = 0,
) -> lp.Lake:
    """A log of slates drawn uniformly, on surfaces by turns.

    Args:
        users: who visit.
        visits: of each user, three days apart.
        odds: log odds of a play by surface.
        above: what a slot above of the same creator adds to them.
        seed: of all draws.
        appeal_I: what each item adds to the log odds; default drawn.
        known: further columns of the items' table.
        released: items at the catalogue's end that are released when the log ends.
    """
    rng = np.random.default_rng(seed)
    appeal_I = rng.normal(0, 0.4, ITEMS) if appeal_I is None else appeal_I
    items_in_all = len(appeal_I)
    decisions = []
    events = []
    for user in range(users):
        for visit in range(visits):
            time = START + timedelta(days=3 * visit, seconds=user)
            surface = list(odds)[(user + visit) % len(odds)]
            item_S = rng.permutation(items_in_all - released)[:SLOTS]
            name = f"d{user}-{visit}"
            decisions.append((name, f"u{user}", time, surface, [f"i{item:02}" for item in item_S]))
            for place, item in enumerate(item_S):
                same = (item_S[:place] // PER_CREATOR == item // PER_CREATOR).sum()
                chance = special.expit(odds[surface] + appeal_I[item] + above * same)
                if rng.random() >= chance:
                    continue
                ids = (f"u{user}", f"i{item:02}")
                events.append((*ids, time + timedelta(minutes=place + 1), "recommended", name))
                if rng.random() < 0.5:
                    events.append((*ids, time + timedelta(days=1), "organic", None))
    names = [f"i{item:02}" for item in range(items_in_all)]
    creators = [f"c{item // PER_CREATOR}" for item in range(items_in_all)]
    shown = pl.DataFrame(
        decisions, schema=["decision_id", "user_id", "time", "surface", "slate"], orient="row"
    ).with_columns(
        context_id="decision_id",
        log_prob=pl.lit([-np.log(ITEMS - place) for place in range(SLOTS)]),
        policy=pl.lit("uniform@1"),
        temperature=pl.lit(1.0),
    )
    played = pl.DataFrame(
        events, schema=["user_id", "item_id", "time", "origin", "decision_id"], orient="row"
    ).with_columns(
        event_id=pl.format("e{}", pl.int_range(pl.len())),
        creator_id=pl.col("item_id").replace(dict(zip(names, creators, strict=True))),
        kind=pl.lit("play"),
    )
    end = START + timedelta(days=3 * visits + 5)
    added = [START] * (items_in_all - released) + [end - timedelta(hours=1)] * released
    items = pl.DataFrame(
        {"item_id": names, "creator_id": creators, "added_at": added} | (known or {})
    )
    items = items.with_columns(available=pl.lit(True))
    lake = lp.Lake.memory()
    lake.append("log", events=played, decisions=shown, items=items, watermark=end, now=end)
    return lake


def fitted(lake: lp.Lake) -> Showing:
    return fit_showing(SIGNAL, lake, SIGNAL.outcomes(lake))


def new_users(lake: lp.Lake, count: int, slots: int, surface: str = "home") -> Contexts:
    return Contexts.of(
        [f"new{n}" for n in range(count)], lake.watermark, slots=slots, surface=surface
    )


def test_a_creator_above_counts_as_much_as_the_log_says_and_not_where_it_says_nothing():
    # catches: a weight of the wrong slot, of the wrong sign, or of noise
    tired = fitted(log(500, 10, {"home": -0.5}, above=-1.0)).entry.above_A
    assert tired[ABOVE.index("creator above")] == pytest.approx(-1.0, abs=0.35)
    for seed in (1, 2):
        nothing = fitted(log(500, 10, {"home": -0.5}, seed=seed)).entry.above_A
        assert nothing.tolist() == [0.0, 0.0, 0.0]


# -- surfaces --------------------------------------------------------------------------------------


def test_a_context_has_the_attention_of_its_own_surface():
    # catches: one surface's chance for all, a rare surface that moves the main one, an unknown surface
    lake = log(600, 10, {"home": 0.0, "attic": -3.0})
    showing = fitted(lake)
    view = showing.view(lake)
    slates = pl.Series("slate", [[f"i{item:02}"] for item in range(ITEMS)])
    chance = {}
    for surface in ("home", "attic", "nowhere"):
        contexts = new_users(lake, ITEMS, 1, surface)
        chance[surface] = showing.gain(contexts, slates, view)[1].mean()
        table, _ = showing.catalogue_gain(contexts, view, view.index.items.rows(slates.explode()))
        assert np.diag(table).mean() == pytest.approx(chance[surface])
    rng = np.random.default_rng(0)
    appeal_I = rng.normal(0, 0.4, ITEMS)
    assert chance["home"] == pytest.approx(special.expit(appeal_I).mean(), abs=0.06)
    assert chance["attic"] == pytest.approx(special.expit(appeal_I - 3.0).mean(), abs=0.03)
    assert chance["attic"] < chance["nowhere"] < chance["home"]


# -- whole slates ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake() -> lp.Lake:
    return log(400, 10, {"home": -0.5}, above=-1.0)


@pytest.fixture(scope="module")
def early(lake: lp.Lake) -> lp.ProgressiveReward:
    model = lp.ProgressiveReward(SIGNAL).fit(lake, SIGNAL.outcomes(lake))
    entry = replace(model.showing.entry, above_A=np.array([-0.7, 0.0, 0.0]))
    return replace(model, showing=replace(model.showing, entry=entry))


def test_the_first_slot_is_worth_what_its_item_is_worth_alone(lake, early):
    rng = np.random.default_rng(3)
    slates = pl.Series(
        "slate", [[f"i{item:02}" for item in rng.permutation(ITEMS)[:3]] for _ in range(50)]
    )
    contexts = new_users(lake, 50, 3)
    value = early.value(contexts, slates, lake).mean
    ids = lake.items["item_id"]
    alone = early.item_value(contexts, ids, lake).mean
    first = np.array([ids.to_list().index(slate[0]) for slate in slates.to_list()])
    np.testing.assert_allclose(value[:, 0], alone[np.arange(50), first], rtol=1e-9)


def test_unrelated_creators_may_change_places_and_a_creator_above_takes_away(lake, early):
    contexts = new_users(lake, 4, 3)
    slates = [
        ["i00", "i04", "i08"],
        ["i04", "i00", "i08"],
        ["i12", "i16", "i08"],
        ["i09", "i16", "i08"],  # i09 is of the creator of i08
    ]
    value = early.value(contexts, pl.Series("slate", slates), lake).mean
    np.testing.assert_allclose(value[:3, 2], value[0, 2], rtol=1e-9)
    assert value[3, 2] < value[0, 2]
    with_two = early.slate_value(contexts, pl.Series("slate", slates), lake)
    np.testing.assert_allclose(with_two.mean, value.sum(axis=1), rtol=1e-12)


def test_a_slate_is_worth_what_enumerating_its_plays_says(lake, early):
    # the oracle: which of three slots are played, whether the user came anyway, and the first entry of
    # each creator pays its belief; less what would have come anyway
    showing = early.showing
    slate = ["i00", "i08", "i01"]
    contexts = new_users(lake, 1, 3)
    view = showing.view(lake)
    slates = pl.Series("slate", [slate])
    features = showing.entry.above_A
    chance_S = []
    for place in range(3):  # of each slot by itself, with what stands above it, but nothing played
        other = ["i20", "i16", "i12"]
        other[place] = slate[place]
        if place == 2:
            other[0] = slate[0]
        separate = replace(
            showing, entry=replace(showing.entry, above_A=np.zeros(3) if place < 2 else features)
        )
        # a creator whose slot above cannot be played leaves everything to those below
        _, chance, _ = separate.gain(contexts, pl.Series("slate", [other]), view)
        chance_S.append(chance[0, place])
    creators = ["c0", "c2", "c0"]
    mean = dict(zip(("c0", "c2"), early.items(pl.Series(["c0", "c2"])).mean, strict=True))
    organic = {
        creator: showing.organic_K[showing.keys.rows(pl.Series([creator]))[0]] for creator in mean
    }
    # what slot 3 adds is paid only where slot 1 was not played
    left = 1.0 - (chance_S[0] - organic["c0"]) / (1.0 - organic["c0"])
    chance_S[2] = chance_S[2] / left + organic["c0"]
    played = [(p - organic[c]) / (1 - organic[c]) for p, c in zip(chance_S, creators, strict=True)]
    total = 0.0
    for came in product((False, True), repeat=5):
        plays, anyway = came[:3], dict(zip(mean, came[3:], strict=True))
        weight = np.prod([p if play else 1 - p for p, play in zip(played, plays, strict=True)])
        weight *= np.prod([organic[c] if anyway[c] else 1 - organic[c] for c in mean])
        for creator in mean:
            entered = anyway[creator] or any(
                play and c == creator for play, c in zip(plays, creators, strict=True)
            )
            total += weight * entered * mean[creator]
    total -= sum(showing.rho * organic[c] * mean[c] for c in mean)
    belief = early.slate_value(contexts, slates, lake)
    assert belief.mean.shape == (1,)
    assert belief.mean[0] == pytest.approx(total, rel=1e-9)
    slots = early.value(contexts, slates, lake)
    assert belief.std[0] == pytest.approx(
        np.hypot(slots.std[0, 0] + slots.std[0, 2], slots.std[0, 1])
    )


# -- new items -------------------------------------------------------------------------------------

LOUD = ("anthem", "banger", "party", "summer")
QUIET = ("drone", "static", "hum", "rain")


@pytest.mark.parametrize("source", ["vectors", "titles", "nothing"])
def test_items_that_were_never_shown_are_ranked_by_what_is_known_of_them(source):
    # catches: new items at a flat prior, content of the wrong sign, vectors that are read undeclared.
    # A tenth of the catalogue, by creators nobody has heard of, is released when the log ends
    rng = np.random.default_rng(5)
    count, new = 160, 16
    appeal_I = rng.normal(0, 0.8, count)
    vectors = np.column_stack([appeal_I + rng.normal(0, 0.4, count), rng.normal(0, 1, (count, 2))])
    is_loud_I = rng.random(count) < special.expit(20 * appeal_I)
    titles = [" ".join(rng.choice(LOUD if loud else QUIET, 2, replace=False)) for loud in is_loud_I]
    known: dict[str, list] = {"title": titles} if source == "titles" else {}
    if source != "titles":
        known = {"vector": vectors.tolist()}
    lake = log(300, 14, {"home": -0.5}, appeal_I=appeal_I, known=known, released=new)
    knows = ("items",) if source == "vectors" else ()
    showing = fit_showing(SIGNAL, lake, SIGNAL.outcomes(lake), knows=knows)
    view = showing.view(lake)
    ids = [f"i{item:03}" if item > 99 else f"i{item:02}" for item in range(count - new, count)]
    slates = pl.Series("slate", [[item] for item in ids])
    _, chance, _ = showing.gain(new_users(lake, new, 1), slates, view)
    chance_I = chance[:, 0]
    if source == "nothing":
        assert np.ptp(chance_I) < 1e-9
        return
    rank = stats.spearmanr(chance_I, appeal_I[-new:]).statistic
    if source == "vectors":
        assert rank > 0.6
    else:  # two kinds of words tell two kinds of items apart, and nothing within a kind
        assert chance_I[is_loud_I[-new:]].min() > chance_I[~is_loud_I[-new:]].max() + 0.1
        assert rank > 0.3
    truth = special.expit(-0.5 + appeal_I[-new:])
    assert ((chance_I - truth) ** 2).mean() < ((chance_I.mean() - truth) ** 2).mean()
