"""The plain two-part ridge: the regression, what it reads, and what it makes of a slot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_progressive import made_outcomes

import longplay as lp
from longplay.decisions import Contexts
from longplay.index import ItemIndex
from longplay.rewards.ridge_parts import between_over_within, fit_outcomes
from longplay.rewards.ridge_regression import FOLDS, PENALTIES, RidgeFit, designs, states
from longplay.signals import Signal, days_with, discovery

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = lp.Signal("days", entry=lp.discovery(), measure=lp.days_with("creator"), window=(1, 7))
USERS, ITEMS, LENGTH = 600, 24, 24


# -- the regression --------------------------------------------------------------------------------


def regression(noise: float, pairs: int = 3_000):
    """Features of pairs by hand, what is predicted, and what `RidgeFit.of` is given."""
    rng = np.random.default_rng(3)
    rate_LR = rng.random((2, 20, 2))
    item_LW = rng.normal(size=(20, 2))
    user_NV = rng.normal(size=(pairs, 2))
    half_N, row_N = rng.integers(0, 2, pairs), rng.integers(0, 20, pairs)
    slot_N = rng.integers(0, 5, pairs)
    rate_NR, item_NW = rate_LR[half_N, row_N], item_LW[row_N]
    match_N = (user_NV * item_NW).sum(axis=1)
    x_NF = np.column_stack(
        [
            rate_NR,
            item_NW,
            user_NV,
            np.log1p(slot_N),
            match_N,
            rate_NR[:, 1] * match_N,
            user_NV * item_NW,
        ]
    )
    y_N = x_NF @ rng.normal(size=x_NF.shape[1]) + noise * rng.normal(size=pairs)
    user_N = rng.integers(0, 200, pairs)
    design_HLFZ = np.stack([designs(rate_LR[half], item_LW, 2) for half in (0, 1)])
    state_NZ = states(user_NV, slot_N)
    return x_NF, y_N, (design_HLFZ, half_N, row_N, state_NZ, y_N, user_N % FOLDS)


@pytest.mark.parametrize("noise", [0.5, 30.0])
def test_weights_penalty_and_covariance_are_those_of_a_ridge_on_scaled_features(noise):
    # catches: a penalised intercept, penalties in raw units, folds that are not of users, a pair that
    # takes the rates of the wrong half, a covariance of unscaled weights
    x_NF, y_N, arguments = regression(noise)
    fit = RidgeFit.of(*arguments)
    errors = {
        penalty: -cross_val_score(
            make_pipeline(StandardScaler(), Ridge(penalty)),
            x_NF,
            y_N,
            groups=arguments[-1],
            cv=GroupKFold(FOLDS),
            scoring="neg_mean_squared_error",
        ).mean()
        for penalty in PENALTIES
    }
    assert fit.penalty == min(errors, key=errors.get)
    scale_F = x_NF.std(axis=0)
    z_NF = (x_NF - x_NF.mean(axis=0)) / scale_F
    oracle = Ridge(fit.penalty).fit(z_NF, y_N)
    np.testing.assert_allclose(fit.weight_F[1:], oracle.coef_ / scale_F, rtol=1e-7)
    np.testing.assert_allclose(
        np.column_stack([np.ones(len(x_NF)), x_NF]) @ fit.weight_F, oracle.predict(z_NF), atol=1e-8
    )
    assert fit.noise_std == pytest.approx(np.std(y_N - oracle.predict(z_NF)))
    inverse = np.linalg.inv(z_NF.T @ z_NF + fit.penalty * np.eye(z_NF.shape[1]))
    variance_N = fit.noise_std**2 * (1 / len(y_N) + np.einsum("nf,fg,ng->n", z_NF, inverse, z_NF))
    rows = np.flatnonzero(arguments[1] == 0)[:50]
    forms = fit.forms(arguments[0][0], np.zeros(20))
    mean_M, variance_M = forms.pairs(arguments[3][rows], arguments[2][rows])
    np.testing.assert_allclose(mean_M, oracle.predict(z_NF)[rows], atol=1e-8)
    np.testing.assert_allclose(variance_M, variance_N[rows], rtol=1e-6)
    every = forms.all_pairs(arguments[3][rows])
    at = np.arange(len(rows)), arguments[2][rows]
    np.testing.assert_allclose(every[0][at], mean_M, atol=1e-10)
    np.testing.assert_allclose(every[1][at], variance_M, rtol=1e-8)


def test_variance_between_keys_by_hand():
    # two keys of two outcomes: within ((0-1)^2 + (2-1)^2 + 0 + 0) / 2 = 1; between 2 (1-3)^2 + 2 (5-3)^2
    # = 16, less 1 x within, over 4 - 8 / 4
    ratio = between_over_within(np.array([0, 0, 1, 1]), np.array([0.0, 2.0, 5.0, 5.0]))
    assert ratio == pytest.approx((16 - 1) / 2)
    assert between_over_within(np.array([0, 0]), np.array([1.0, 1.0])) == 0.0


# -- a log with taste ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake() -> lp.Lake:
    """Slates of three random items a day; user and item have one factor, and a play is likely where
    their product is positive. Users come back to what they like."""
    rng = np.random.default_rng(5)
    taste_U = rng.choice([-1.0, 1.0], USERS)
    factor_I = rng.choice([-1.0, 1.0], ITEMS)
    events, shown = [], []
    played = np.zeros((USERS, ITEMS), dtype=bool)
    for day in range(LENGTH):
        for user in range(USERS):
            noon = START + timedelta(days=day, hours=12)
            slate = rng.choice(ITEMS, 3, replace=False)
            shown.append((f"d{user}-{day}", f"u{user}", noon, [f"i{item}" for item in slate]))
            like_S = taste_U[user] * factor_I[slate] > 0
            for slot, item in enumerate(slate):
                chance = (0.35 if like_S[slot] else 0.05) * (0.6 if slot else 1.0)
                if rng.random() < chance:
                    later = noon + timedelta(minutes=1 + slot)
                    events.append((f"u{user}", f"i{item}", later, "recommended", f"d{user}-{day}"))
                    played[user, item] = True
            for item in np.flatnonzero(played[user] & (rng.random(ITEMS) < 0.1)):
                if item in slate:
                    continue
                later = noon + timedelta(hours=2)
                events.append((f"u{user}", f"i{item}", later, "organic", None))
    frame = pl.DataFrame(
        events,
        schema=["user_id", "item_id", "time", "origin", "decision_id"],
        orient="row",
        infer_schema_length=None,
    ).with_columns(
        kind=pl.lit("play"), event_id=pl.int_range(pl.len()).cast(pl.String), seconds=pl.lit(60.0)
    )
    decisions = pl.DataFrame(
        shown, schema=["decision_id", "user_id", "time", "slate"], orient="row"
    ).with_columns(
        context_id="decision_id",
        policy=pl.lit("random@1"),
        surface=pl.lit("home"),
        log_prob=pl.lit([-1.0, -1.0, -1.0]),
    )
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(ITEMS)],
            "creator_id": [f"c{k // 2}" for k in range(ITEMS)],
            "added_at": [START - timedelta(days=1)] * ITEMS,
            "vector": [[float(x), 1.0] for x in factor_I],
        }
    )
    known = USERS - 20
    users = pl.DataFrame(
        {
            "user_id": [f"u{k}" for k in range(known)],
            "added_at": [START - timedelta(days=1)] * known,
            "vector": [[float(x), 0.5] for x in taste_U[:known]],
        }
    )
    made = lp.Lake.memory()
    made.append(
        "all",
        events=frame,
        decisions=decisions,
        items=items,
        users=users,
        watermark=START + timedelta(days=LENGTH),
    )
    return made


@pytest.fixture(scope="module")
def fitted(lake) -> dict[tuple[str, ...], lp.TwoPartRidge]:
    outcomes = DAYS.outcomes(lake)
    return {
        knows: lp.TwoPartRidge(DAYS, knows=knows).fit(lake, outcomes)
        for knows in ((), ("items",), ("users",), ("users", "items"))
    }


def visits(users: list[str], lake: lp.Lake, slots: int = 1) -> Contexts:
    return Contexts.of(users, lake.watermark, slots=slots)


def new_pairs(lake: lp.Lake, users: list[str]) -> np.ndarray:
    """Whether the user never touched the item's creator, [N, I]."""
    touched = set(
        lake.events.with_columns(creator=pl.col("item_id").str.slice(1).cast(pl.Int64) // 2)
        .select("user_id", "creator")
        .iter_rows()
    )
    creators = [int(item[1:]) // 2 for item in lake.items["item_id"]]
    return np.array([[(user, creator) not in touched for creator in creators] for user in users])


def test_a_slate_is_worth_what_its_slots_are_worth(lake, fitted):
    # catches: whole slates that are valued by beliefs alone
    contexts = visits(["u0", "u1", "nobody"], lake, slots=3)
    slates = pl.Series([["i0", "i1", "i5"]] * 3)
    for model in fitted.values():
        value = model.value(contexts, slates, lake)
        whole = model.slate_value(contexts, slates, lake)
        np.testing.assert_allclose(whole.mean, value.mean.sum(axis=1), rtol=1e-12)
        assert 0 < whole.mean[2] < 1
        assert (whole.std <= value.std.sum(axis=1) + 1e-12).all()


def test_factors_are_read_only_where_declared(lake, fitted):
    # catches: vectors read undeclared, or declared and of no effect
    users = ["u0", "u1", "u2", "nobody"]
    ids = lake.items["item_id"]
    plain = fitted[()].item_value(visits(users, lake), ids, lake)
    bare = lp.Lake.memory()
    bare.append(
        "all",
        events=lake.events,
        decisions=lake.decisions,
        items=lake.items.drop("vector"),
        watermark=lake.watermark,
    )
    without = lp.TwoPartRidge(DAYS).fit(bare, DAYS.outcomes(bare))
    np.testing.assert_allclose(
        plain.mean, without.item_value(visits(users, bare), ids, bare).mean, rtol=1e-9
    )
    new = new_pairs(lake, users)
    assert np.array_equal(plain.mean > 0, new)  # what is familiar is worth exactly 0
    informed = fitted[("users", "items")].item_value(visits(["nobody"], lake), ids, lake).mean[0]
    likes = np.array(lake.items["vector"].to_list())[:, 0]
    assert np.corrcoef(informed, likes)[0, 1] < 0.5  # of a user whose factors are not known


def test_a_user_whose_factors_are_not_known_gets_the_mean(lake, fitted):
    # catches: a missing vector read as zeros in raw units, or as NaN
    model = fitted[("users", "items")]
    mean = model.known.users.mean_C
    carried = Contexts.of(
        ["someone"], lake.watermark, slots=1, user_vector=pl.Series([mean.tolist()])
    )
    ids = lake.items["item_id"]
    usual = model.item_value(carried, ids, lake)
    unknown = model.item_value(visits(["nobody"], lake), ids, lake)
    np.testing.assert_allclose(usual.mean, unknown.mean, rtol=1e-9)
    np.testing.assert_allclose(usual.std, unknown.std, rtol=1e-9)


def test_with_factors_it_finds_what_a_user_likes(lake, fitted):
    # catches: factors of the wrong user or item, or not in the product
    users = [f"u{k}" for k in range(60)]
    ids = lake.items["item_id"]
    described = lake.users.filter(pl.col("user_id").is_in(users))
    taste = np.array(described["vector"].to_list())
    order = described["user_id"].to_list()
    likes = taste[:, :1] * np.array(lake.items["vector"].to_list())[:, 0]
    new = new_pairs(lake, order)
    for knows, least, most in (((), 0.25, 0.75), (("users", "items"), 0.97, 1.0)):
        value = fitted[knows].item_value(visits(order, lake), ids, lake).mean
        wins = [
            np.mean(value[n][new[n] & (likes[n] > 0)][:, None] > value[n][new[n] & (likes[n] < 0)])
            for n in range(len(order))
            if (new[n] & (likes[n] > 0)).any() and (new[n] & (likes[n] < 0)).any()
        ]
        assert least <= np.mean(wins) <= most, knows


@pytest.mark.parametrize("knows", [(), ("items",), ("users",), ("users", "items")])
def test_a_slate_is_paid_as_its_items_alone_less_what_a_creator_was_paid_above(lake, fitted, knows):
    # catches: `value` and `item_value` that disagree, a creator paid twice, the place left out, a slot
    # above that is familiar taken as shown to a new one
    model = fitted[knows]
    users = ["u3", "nobody"]
    ids = pl.Series(["i0", "i1", "i6"])  # i0 and i1 are of one creator
    alone = model.item_value(visits(users, lake), ids, lake)
    for k in range(3):
        single = model.value(visits(users, lake), pl.Series([[ids[k]]] * 2), lake)
        np.testing.assert_allclose(single.mean[:, 0], alone.mean[:, k], rtol=1e-9)
        np.testing.assert_allclose(single.std[:, 0], alone.std[:, k], rtol=1e-9)
        np.testing.assert_allclose(single.spread[:, 0], alone.spread[:, k], rtol=1e-9)
    slate = model.value(visits(users, lake, 3), pl.Series([ids.to_list()] * 2), lake).mean
    swapped = model.value(visits(users, lake, 3), pl.Series([["i1", "i0", "i6"]] * 2), lake).mean
    np.testing.assert_allclose(slate[:, 0], alone.mean[:, 0], rtol=1e-9)
    assert (slate[1, 1:] < alone.mean[1, 1:]).all()  # a later place
    place = model.value(visits(users, lake, 3), pl.Series([["?", "i1", "i6"]] * 2), lake).mean
    # of the same creator: times the chance that the slot above had no entry
    outcome = model.items(pl.Series(["c0"])).mean[0] if not knows else None
    if outcome is not None:
        chance = slate[1, 0] / outcome
        assert slate[1, 1] == pytest.approx(place[1, 1] * (1 - chance))
    assert slate[1, 2] == pytest.approx(place[1, 2])
    assert swapped[1, 0] == pytest.approx(alone.mean[1, 1])


def test_beliefs_wait_for_the_window_and_a_new_creator_has_the_prior(lake, fitted):
    # catches: immature entries counted as zeros, or read at all
    model = fitted[()]
    outcomes = DAYS.outcomes(lake)
    young = model.observe(outcomes, age=6)
    ids = pl.Series(["c0", "c5", "?"])
    assert np.ptp(young.items(ids).mean) == 0
    assert np.ptp(young.items(ids).std) == 0
    known = model.observe(outcomes, age=7).items(ids)
    assert known.std[0] < known.std[2]
    assert known.mean[2] == pytest.approx(young.items(ids).mean[0])


def test_an_entry_does_not_foretell_itself():
    # catches: rates of training that hold the entry's own outcome: noise would get a weight of 1 or more
    rng = np.random.default_rng(0)
    signal = Signal("amount", discovery(None, "item"), days_with("item"), (1, 10))
    item_N = np.repeat(np.arange(400), 6)
    trace_ND = (rng.random((len(item_N), 10)) < 0.3).astype(float)
    outcomes = made_outcomes(signal, item_N, trace_ND)
    standing = fit_outcomes(outcomes, np.zeros((len(item_N), 0)), ItemIndex([]), np.zeros((1, 0)))
    slope = standing.fit.weight_F[1]
    own_slope = np.polyfit(standing.mean_K[standing.index.rows(outcomes.keys)], outcomes.value, 1)[
        0
    ]
    assert own_slope > 3
    assert abs(slope) < 0.3
