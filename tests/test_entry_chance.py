"""The chance of an entry: earlier showings, shrunk effects, tastes beyond expectation, and what they
come to together."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special

import longplay as lp
from longplay.decisions import Contexts
from longplay.errors import ConfigError
from longplay.index import ItemIndex
from longplay.rewards.effects import WEIGHT_VARIANCE, Group, fit_effects
from longplay.rewards.repetition import HALF_LIVES, MOST, EarlierShowings, Showings
from longplay.rewards.showing_check import check_showing
from longplay.rewards.taste import TasteLaw, fit_tastes

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
HABIT = lp.Signal(
    "habit", entry=lp.discovery(novel_for=28), measure=lp.days_with("creator") >= 3, window=(1, 7)
)


# -- earlier showings ------------------------------------------------------------------------------

SHOWN = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(-1, 3)), min_size=0, max_size=25
)


@examples(60)
@given(
    shown=SHOWN,
    asked=st.lists(
        st.tuples(st.integers(-1, 2), st.integers(0, 10), st.integers(-1, 3)),
        min_size=1,
        max_size=6,
    ),
)
def test_features_of_earlier_showings_equal_a_plain_loop(shown, asked):
    # catches: a showing at the moment itself, another user's, an unknown item or creator that counts
    key_I = np.array([0, 0, 1, -1, -1])  # of items 0 to 3, and of unknown ones
    user, day, item = (
        (np.array(column, dtype=np.int64) for column in zip(*shown, strict=True))
        if shown
        else (np.zeros(0, np.int64),) * 3
    )
    showings = Showings.of(user, day * DAY_US, item)
    user_N, day_N, item_N = (np.array(column) for column in zip(*asked, strict=True))
    past = showings.before(user_N, day_N * DAY_US)
    got = past.features(np.arange(len(asked)), item_N, key_I)
    for n, (who, when, what) in enumerate(asked):
        expected = []
        earlier = [(d, i) for u, d, i in shown if u == who and d < when]
        for matches in (
            lambda i, what=what: i == what and i >= 0,
            lambda i, what=what: key_I[i] == key_I[what] and key_I[i] >= 0,
            lambda i: True,
        ):
            expected += [
                sum(0.5 ** ((when - d) / h) for d, i in earlier if matches(i)) for h in HALF_LIVES
            ]
        np.testing.assert_allclose(got[n], expected, atol=1e-12)


def test_only_the_last_showings_are_looked_back_on():
    showings = Showings.of(
        np.zeros(MOST + 5, np.int64), np.arange(MOST + 5) * 1_000, np.zeros(MOST + 5, np.int64)
    )
    past = showings.before(np.array([0]), np.array([10**9]))
    assert len(past.owner_P) == MOST
    assert past.age_P.max() == pytest.approx((10**9 - 5_000) / DAY_US)


def test_what_contexts_carry_of_showings_is_what_the_log_says():
    # catches: ages in another unit, the order of lists, contexts that carry nothing
    now = START + timedelta(days=9)
    contexts = Contexts.of(
        ["a", "b"],
        now,
        slots=1,
        shown=[["i1", "?"], []],
        shown_time=[[START, START + timedelta(days=8)], []],
    )
    past = EarlierShowings.of_contexts(contexts, ItemIndex(["i0", "i1"]))
    assert past is not None
    assert (past.owner_P.tolist(), past.item_P.tolist()) == ([0, 0], [1, -1])
    np.testing.assert_allclose(past.age_P, [9.0, 1.0])
    assert EarlierShowings.of_contexts(Contexts.of(["a"], now, slots=1), ItemIndex(["i0"])) is None


# -- effects ---------------------------------------------------------------------------------------


def test_effects_are_the_maximum_of_the_posterior_density():
    # catches: a wrong gradient, a penalty on the wrong scale, effects of one group that are another's
    rng = np.random.default_rng(1)
    n = 400
    x = rng.normal(size=(n, 2)) * [1.0, 5.0] + [0.0, 3.0]
    levels = [rng.integers(0, 5, n), rng.integers(0, 3, n)]
    y = (
        rng.random(n) < special.expit(-0.5 + 0.3 * x[:, 0] + rng.normal(size=5)[levels[0]])
    ).astype(float)
    fitted = fit_effects(x, [Group(levels[0], 5), Group(levels[1], 3)], y)
    scale = x.std(axis=0)

    def loss(parameters: np.ndarray) -> float:
        b, w, a, c = np.split(parameters, [1, 3, 8])
        odds = b[0] + x @ w + a[levels[0]] + c[levels[1]]
        value = (
            np.logaddexp(0, odds).sum()
            - y @ odds
            + 0.5 * ((w * scale) ** 2).sum() / WEIGHT_VARIANCE
        )
        # the last round was fitted under the variances of the round before, which have converged
        return value + 0.5 * (a @ a) / fitted.variance[0] + 0.5 * (c @ c) / fitted.variance[1]

    best = optimize.minimize(loss, np.zeros(11), method="BFGS", options={"gtol": 1e-8}).x
    ours = np.concatenate([[fitted.intercept], fitted.weight_F, *fitted.effect_L])
    assert loss(ours) <= loss(best) + 0.05
    np.testing.assert_allclose(ours[1:3], best[1:3], atol=0.03)


def test_variances_of_effects_and_the_weight_of_content_are_recovered():
    rng = np.random.default_rng(2)
    levels, per_level = 300, 150
    content = rng.normal(size=(levels, 1))
    effect = 0.6 * content[:, 0] + rng.normal(size=levels) * 0.5
    level = np.repeat(np.arange(levels), per_level)
    nothing = rng.integers(0, 200, len(level))  # a group without any effect
    y = (rng.random(len(level)) < special.expit(-1.5 + effect[level])).astype(float)
    x = np.zeros((len(level), 1))
    content_new = np.vstack([content, [[2.0]]])  # the last level is new: it has no slots
    fitted = fit_effects(x, [Group(level, levels + 1, content_new), Group(nothing, 200)], y)
    assert fitted.variance[0] == pytest.approx(0.25, rel=0.25)
    assert fitted.variance[1] < 0.04
    assert fitted.content_C[0][0] == pytest.approx(0.6, abs=0.1)
    assert fitted.effect_L[0][-1] == pytest.approx(1.2, abs=0.2)
    assert np.corrcoef(fitted.effect_L[0][:-1], effect)[0, 1] > 0.9


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_log_in_which_all_or_no_slots_have_an_entry_is_fitted(label):
    level = np.repeat(np.arange(4), 10)
    fitted = fit_effects(np.ones((40, 1)), [Group(level, 4)], np.full(40, label))
    chance = special.expit(fitted.intercept + fitted.weight_F[0] + fitted.effect_L[0])
    assert np.isfinite(chance).all()
    assert (np.abs(chance - label) < 0.1).all()


# -- taste -----------------------------------------------------------------------------------------


def test_a_taste_is_the_ridge_of_its_formula():
    rng = np.random.default_rng(3)
    law = TasteLaw(np.array([0.5, 0.2, 0.0]), np.array([[0.1, -0.3, 0.2]]))
    x, excess, information = rng.normal(size=(7, 3)), rng.normal(size=7), rng.uniform(0.05, 0.25, 7)
    user = np.array([[1.0], [2.0], [-1.0]])
    got = law.taste(x, excess, information, np.array([0, 4, 4, 7]), user)
    for n, (low, high) in enumerate([(0, 4), (4, 4), (4, 7)]):
        usual = user[n] @ law.usual_VR
        rows = x[low:high]
        left = excess[low:high] - information[low:high] * (rows @ usual)
        used = rows[:, :2]  # the third coordinate does not vary
        gram = np.diag([2.0, 5.0]) + (used * information[low:high, None]).T @ used
        step = np.linalg.solve(gram, used.T @ left)
        np.testing.assert_allclose(got[n], usual + np.append(step, 0.0), atol=1e-12)


def lived(rng: np.random.Generator, users: int, slots: int, spread: float, bilinear: float):
    """Slots of users whose taste varies by `spread` around what their vectors say."""
    vector = rng.normal(size=(users, 2))
    usual = np.array([[0.0, bilinear, 0.0], [0.0, 0.0, bilinear]])
    taste = vector @ usual + rng.normal(size=(users, 3)) * [0.3, spread, 0.0]
    item = rng.normal(size=(200, 2))
    user = np.repeat(np.arange(users), slots)
    x = np.column_stack([np.ones(len(user)), item[rng.integers(0, 200, len(user))]])
    usual_odds = np.full(len(user), -1.5)
    y = rng.random(len(user)) < special.expit(usual_odds + np.einsum("nr,nr->n", x, taste[user]))
    chance = np.full(len(user), y.mean())
    return vector, taste, user, x, y - chance, chance * (1 - chance)


def test_the_law_of_tastes_is_recovered_and_nothing_is_found_where_there_is_none():
    rng = np.random.default_rng(4)
    vector, taste, user, x, excess, information = lived(rng, 3_000, 60, 0.3, 0.25)
    law = fit_tastes(x, excess, information, user, 3_000, vector)
    assert law.variance_R[1] == pytest.approx(0.09, rel=0.35)
    assert law.variance_R[2] < 0.02
    np.testing.assert_allclose(law.usual_VR[:, 1:], 0.25 * np.eye(2), atol=0.06)
    start = np.arange(0, len(user) + 1, 60)
    got = law.taste(x, excess, information, start, vector)
    assert np.corrcoef(got[:, 1], taste[:, 1])[0, 1] > 0.75
    without = law.taste(x[:0], excess[:0], information[:0], np.zeros(3_001, np.int64), vector)
    assert np.corrcoef(without[:, 1], taste[:, 1])[0, 1] == pytest.approx(
        0.25 / np.hypot(0.25, 0.3), abs=0.05
    )
    nothing = fit_tastes(x, excess, information, user, 3_000, rng.permutation(vector))
    assert np.abs(nothing.usual_VR).max() < 0.05
    _, _, user, x, excess, information = lived(rng, 3_000, 60, 0.0, 0.0)
    assert (
        fit_tastes(x, excess, information, user, 3_000, np.zeros((3_000, 0))).variance_R[1:].max()
        < 0.02
    )


# -- together --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> lp.World:
    numbers = {
        "base": "weary",
        "known": 0.9,
        "new_share": 0.0,
        "habit_gain": 0.4,
        "click": 0.8,
        "genres": 4,
    }
    service = lp.World(users=900, items=80, seed=3, config=lp.world.WorldConfig.of(numbers))
    service.run(lp.Popular(slate=4, explore=0.5), days=60)
    return service


@pytest.fixture(scope="module")
def lake(world: lp.World) -> lp.Lake:
    return world.lake


@pytest.fixture(scope="module")
def early(lake: lp.Lake) -> lp.ProgressiveReward:
    return lp.ProgressiveReward(HABIT, knows=("users", "items")).fit(lake, HABIT.outcomes(lake))


def visits(world: lp.World, lake: lp.Lake, users: int = 60, **columns) -> Contexts:
    return Contexts.of(world.user_ids.head(users), lake.watermark, slots=1, **columns)


def test_values_of_a_catalogue_are_the_values_of_slates_of_one_item(world, lake, early):
    # catches: two roads that differ in a feature, in what is familiar, or in an unknown item
    contexts = visits(world, lake, 40)
    ids = pl.concat([lake.items["item_id"], pl.Series(["never seen"])])
    table = early.item_value(contexts, ids, lake)
    assert table.mean.shape == (40, len(ids))
    assert (table.mean == 0).any()
    for column in [0, 7, 33, len(ids) - 1]:
        slates = pl.Series("slate", [[ids[column]]] * 40)
        each = early.value(contexts, slates, lake)
        for name in ("mean", "std", "spread"):
            np.testing.assert_allclose(
                getattr(table, name)[:, column], getattr(each, name)[:, 0], rtol=1e-9, atol=1e-12
            )


def test_a_context_that_carries_the_showings_of_the_log_has_the_value_of_the_log(
    world, lake, early
):
    contexts = visits(world, lake)
    shown = (
        lake.decisions.filter(pl.col("surface") == "home")
        .sort("time")
        .explode("slate")
        .group_by("user_id", maintain_order=True)
        .agg("slate", "time")
    )
    mine = contexts.frame.select("user_id").join(
        shown, on="user_id", how="left", maintain_order="left"
    )
    empty_ids = pl.Series([[]], dtype=pl.List(pl.String))
    carrying = visits(
        world,
        lake,
        shown=mine["slate"].fill_null(empty_ids).list.tail(MOST),
        shown_time=mine["time"]
        .fill_null(empty_ids.cast(pl.List(pl.Datetime("us", "UTC"))))
        .list.tail(MOST),
    )
    ids = lake.items["item_id"]
    np.testing.assert_allclose(
        early.item_value(carrying, ids, lake).mean,
        early.item_value(contexts, ids, lake).mean,
        rtol=1e-9,
    )


def test_what_was_shown_again_and_again_is_worth_less_where_showings_tire(world, lake, early):
    # catches: repetition that is not read at the visit, or a wrong sign
    assert (early.showing.entry.weight_F[1:].sum() < 0).all()
    users, times = 60, [lake.watermark - timedelta(hours=h) for h in range(200, 0, -10)]
    item = lake.items["item_id"][5]
    ids = pl.Series([item])
    tired = visits(world, lake, users, shown=[[item] * 20] * users, shown_time=[times] * users)
    fresh = visits(world, lake, users, shown=[[]] * users, shown_time=[[]] * users)
    before, after = (early.item_value(c, ids, lake).mean[:, 0] for c in (fresh, tired))
    new = before > 0
    assert new.sum() > 20
    assert (after[new] < 0.7 * before[new]).all()


def test_a_creator_in_the_history_of_a_context_is_familiar(world, lake, early):
    # catches: a policy that runs on after the log, and recommends what was discovered meanwhile
    contexts = visits(world, lake, 1)
    values = early.item_value(contexts, lake.items["item_id"], lake).mean[0]
    new = int(np.argmax(values))
    item = lake.items["item_id"][new]

    def heard(days_ago: float) -> float:
        time = pl.Series([[lake.watermark - timedelta(days=days_ago)]])
        column = pl.DataFrame({"history_time": time})
        past = visits(world, lake, 1, history=[[item]], history_columns=column)
        return float(early.item_value(past, pl.Series([item]), lake).mean[0, 0])

    assert values[new] > 0
    assert heard(0.5) == 0.0
    assert heard(28.0) == 0.0
    assert heard(28.5) == pytest.approx(values[new])


def test_nothing_after_the_moment_changes_a_value(world, lake, early):
    # catches: labels of slots whose day has not ended, later showings, later vectors
    moment = START + timedelta(days=40, hours=12)
    contexts = Contexts.of(world.user_ids.head(80), moment, slots=1)
    ids = lake.before(moment).items["item_id"]
    np.testing.assert_allclose(
        early.item_value(contexts, ids, lake).mean,
        early.item_value(contexts, ids, lake.before(moment)).mean,
        rtol=1e-9,
    )


def test_factors_make_the_chance_personal_and_are_not_read_undeclared(world, lake, early):
    log = replace(early, knows=(), showing=None).fit(lake, HABIT.outcomes(lake))
    contexts = visits(world, lake, 300, shown=[[]] * 300, shown_time=[[]] * 300)
    rows = np.arange(300)
    taste = world.listeners.taste_UD[rows].astype(float) @ world.catalogue.taste_ID.T
    ids = world.catalogue.index.ids

    def personal(model: lp.ProgressiveReward) -> float:
        view = model.showing.view(lake)
        chance, _ = model.showing.catalogue_gain(contexts, view, view.index.items.rows(ids))
        known = (chance > 0) & (chance.std(axis=0) > 0)
        odds = np.where(known, special.logit(np.clip(chance, 1e-9, 1 - 1e-9)), np.nan)
        odds = odds - np.nanmean(odds, axis=0) - np.nanmean(odds, axis=1, keepdims=True)
        match = taste - taste.mean(axis=0) - taste.mean(axis=1, keepdims=True)
        return float(np.corrcoef(odds[known], match[known])[0, 1])

    assert personal(early) > 0.25
    assert personal(early) > personal(log) + 0.15
    assert len(log.showing.entry.user_scaling.mean_C) == 0
    with pytest.raises(ConfigError, match='expected some of \\("users", "items"\\)'):
        lp.ProgressiveReward(HABIT, knows=("everything",))
    with pytest.raises(ConfigError, match="expected some of"):
        lp.ProgressiveReward(HABIT, knows="users")  # type: ignore[arg-type]


def test_early_rewards_of_a_signal_share_their_model_of_showing_and_a_longer_log_has_its_own(world):
    # catches: a model of an older log that is taken for that of a newer one
    service = world.fork()
    log = service.run(lp.Popular(slate=4, explore=0.5), days=40)
    outcomes = HABIT.outcomes(log)
    first, second = (
        model(HABIT).fit(log, outcomes) for model in (lp.ProgressiveReward, lp.MaturedOnly)
    )
    assert first.showing is second.showing
    assert (
        replace(first, showing=None, knows=("users",)).fit(log, outcomes).showing
        is not first.showing
    )
    longer = service.run(lp.Popular(slate=4, explore=0.5), days=1)
    assert (
        lp.ProgressiveReward(HABIT).fit(longer, HABIT.outcomes(longer)).showing is not first.showing
    )


def test_the_chance_keeps_its_word_about_held_out_users_and_says_what_repetition_is_worth(
    world, lake, early
):
    # catches: users of the fit that judge it, labels of slots that could not open an entry
    checked = check_showing(early, lake)
    assert checked is not None
    assert checked.surface == "home"
    assert checked.judged > 300
    for row in checked.reliability:
        assert row.realised == pytest.approx(row.predicted, abs=max(0.03, 4 * row.std_error))
    assert sum(row.n for row in checked.reliability) > checked.judged
    repetition = checked.parts["repetition"]
    # a part that cannot change the order within a slate would have a standard error of 0
    assert all(part.gain_se for part in checked.parts.values())
    assert checked.parts["items"].gain > 0
    assert repetition.gain_se is not None
    assert repetition.gain > 0
    assert repetition.usual > 0
    names = [name for name in checked.weights if "shown" in name]
    assert sum(checked.weights[name] for name in names) < 0
    # without decisions there is no chance to check
    assert check_showing(lp.ProgressiveReward(HABIT).fit(None, HABIT.outcomes(lake)), lake) is None
