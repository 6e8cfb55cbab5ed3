"""The personal early reward: what is particular of items and users, joined with beliefs about creators."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import longplay as lp
from longplay.belief import reliability
from longplay.decisions import Contexts
from longplay.errors import ConfigError
from longplay.rewards.effects import Group, fit_effects
from longplay.rewards.entry_rates import EntryRates
from longplay.rewards.families import BINOMIAL, POISSON
from longplay.rewards.particulars import Entries, Pasts

START = datetime(2026, 1, 1, tzinfo=UTC)
CREATORS = 12
PER_CREATOR = 6
DAYS = 70
DAYS_IN_WINDOW = lp.Signal(
    "days_back", entry=lp.discovery(novel_for=7), measure=lp.days_with("creator"), window=(1, 7)
)
RETURNS = lp.Signal(
    "returns", entry=lp.discovery(novel_for=7), measure=lp.days_with("creator") >= 3, window=(1, 7)
)


def log_with_known_items(
    users: int = 3_000,
    item_spread: float = 0.8,
    user_spread: float = 0.0,
    clickbait: float = 0.0,
    seed: int = 0,
    entries_of_user: int = 3,
) -> tuple[lp.Lake, np.ndarray, np.ndarray]:
    """A log in which an entry through item i by user u leads to organic days with the chance
    .15 exp(item effect + user effect) each; returns it with the effects of items [I] and of users [U].

    Clickbait: an item's chance of a play when shown is .25 exp(-clickbait x its effect).
    """
    rng = np.random.default_rng(seed)
    items = CREATORS * PER_CREATOR
    creator_I = np.repeat(np.arange(CREATORS), PER_CREATOR)
    effect_I = item_spread * rng.normal(size=items) + 0.2 * rng.normal(size=CREATORS)[creator_I]
    effect_U = user_spread * rng.normal(size=users)
    events = []
    decisions = []
    play_I = np.clip(0.25 * np.exp(-clickbait * effect_I), 0.01, 0.9)
    for u in range(users):
        creators = rng.permutation(CREATORS)[: 4 * entries_of_user]
        for shown, creator in enumerate(creators):
            i = creator * PER_CREATOR + rng.integers(PER_CREATOR)
            moment = START + timedelta(
                days=7 + shown * 13.0 / entries_of_user + 8 * rng.random(), hours=12 * rng.random()
            )
            decisions.append((f"d{u}-{shown}", f"u{u}", moment, f"i{i:03d}"))
            if rng.random() >= play_I[i]:
                continue
            first = (f"u{u}", f"i{i:03d}", f"c{creator:02d}", moment + timedelta(minutes=1))
            events.append((*first, "recommended", f"d{u}-{shown}"))
            chance = min(0.15 * np.exp(effect_I[i] + effect_U[u]), 0.95)
            for day in np.flatnonzero(rng.random(7) < chance) + 1:
                later = (*first[:3], moment + timedelta(days=int(day)))
                events.append((*later, "organic", None))
        # somebody who is there from the first day on: the log begins there
    events.append(("first", "i000", "c00", START, "organic", None))
    events.append(("first", "i000", "c00", START + timedelta(days=1), "organic", None))
    end = START + timedelta(days=DAYS)
    frame = pl.DataFrame(
        events,
        schema=["user_id", "item_id", "creator_id", "time", "origin", "decision_id"],
        orient="row",
        infer_schema_length=None,
    ).filter(pl.col("time") < end)
    shown = pl.DataFrame(
        decisions, schema=["decision_id", "user_id", "time", "item_id"], orient="row"
    ).filter(pl.col("time") < end)
    lake = lp.Lake.memory()
    lake.append(
        "log",
        events=frame.with_row_index("event_id").with_columns(
            pl.col("event_id").cast(pl.String), kind=pl.lit("play")
        ),
        decisions=shown.select(
            "decision_id",
            "user_id",
            "time",
            context_id="decision_id",
            slate=pl.concat_list("item_id"),
            log_prob=pl.lit([-1.0], dtype=pl.List(pl.Float64)),
            surface=pl.lit("home"),
            policy=pl.lit("logger@1"),
        ),
        items=pl.DataFrame(
            {
                "item_id": [f"i{i:03d}" for i in range(items)],
                "creator_id": [f"c{c:02d}" for c in creator_I],
                "added_at": [START - timedelta(days=1)] * items,
            }
        ),
        watermark=end,
    )
    return lake, effect_I, effect_U


@pytest.fixture(scope="module")
def varied() -> tuple[lp.Lake, np.ndarray, np.ndarray]:
    return log_with_known_items()


def of_items(early: lp.PersonalReward, lake: lp.Lake, users: list[str] | None = None) -> np.ndarray:
    """Mean outcome given an entry through each item, by users [U, I]."""
    users = ["nobody"] if users is None else users
    contexts = Contexts.of(
        users, [lake.watermark] * len(users), surface="home", slots=CREATORS * PER_CREATOR
    )
    slates = pl.Series([[f"i{i:03d}" for i in range(CREATORS * PER_CREATOR)]] * len(users))
    view = early._shown().view(lake)
    rows = view.index.slots(slates).reshape(len(users), -1)
    return early._given_entry(contexts, rows, view, lake)[0]


def test_a_log_link_fit_recovers_effects_and_leaves_a_known_offset_alone():
    rng = np.random.default_rng(0)
    level_N = rng.integers(40, size=20_000)
    effect_L = 0.5 * rng.normal(size=40)
    offset_N = rng.normal(size=20_000)
    x_N1 = rng.normal(size=(20_000, 1))
    y_N = rng.poisson(np.exp(-1.0 + offset_N + 0.3 * x_N1[:, 0] + effect_L[level_N]))
    fit = fit_effects(x_N1, [Group(level_N, 40)], y_N, None, POISSON, offset_N)
    assert fit.weight_F[0] == pytest.approx(0.3, abs=0.03)
    assert fit.intercept + fit.effect_L[0] == pytest.approx(-1.0 + effect_L, abs=0.25)
    assert fit.variance[0] == pytest.approx(effect_L.var(), rel=0.3)


@pytest.mark.parametrize("family", [BINOMIAL, POISSON])
def test_a_family_is_canonical(family):
    """The slope of the mean is the variance, and the slope of the loss is mean less outcome."""
    theta, step = np.array([-2.0, -0.3, 0.4]), 1e-6
    slope = (family.mean(theta + step) - family.mean(theta - step)) / (2 * step)
    assert slope == pytest.approx(family.variance(family.mean(theta)), rel=1e-6)
    loss = (family.loss(theta + step, 1.0) - family.loss(theta - step, 1.0)) / (2 * step)
    assert loss == pytest.approx(family.mean(theta) - 1.0, rel=1e-6)
    assert family.link(family.mean(theta)) == pytest.approx(theta)


@pytest.mark.parametrize("signal", [DAYS_IN_WINDOW, RETURNS])
def test_items_of_a_creator_are_told_apart(varied, signal):
    lake, effect_I, _ = varied
    outcomes = signal.outcomes(lake)
    early = lp.PersonalReward(signal).fit(lake, outcomes)
    assert "items" in early.particulars.parts
    mean_I = of_items(early, lake)[0]
    within_I = np.log(mean_I) - np.log(mean_I.reshape(CREATORS, -1)).mean(axis=1).repeat(
        PER_CREATOR
    )
    true_I = effect_I - effect_I.reshape(CREATORS, -1).mean(axis=1).repeat(PER_CREATOR)
    assert np.corrcoef(within_I, true_I)[0, 1] > 0.9
    if signal is RETURNS:
        assert mean_I.min() >= 0
        assert mean_I.max() <= 1


def test_without_differences_between_items_it_believes_what_the_progressive_reward_believes():
    lake, _, _ = log_with_known_items(item_spread=0.0)
    outcomes = DAYS_IN_WINDOW.outcomes(lake)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    plain = lp.ProgressiveReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    plain_I = plain.items(pl.Series([f"c{c:02d}" for c in range(CREATORS)])).mean.repeat(
        PER_CREATOR
    )
    assert of_items(early, lake)[0] == pytest.approx(plain_I, rel=0.15)


@pytest.mark.parametrize("users", [1, 2])
@pytest.mark.parametrize("is_played_again", [False, True])
def test_where_nobody_teaches_an_amount_it_believes_what_the_progressive_reward_believes(
    users, is_played_again
):
    """One user is in one half only; users who never come back have no amount to learn from."""
    last = "i1" if is_played_again else "i4"
    plays = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in range(users) for _ in range(4)],
            "item_id": ["i1", "i2", "i3", last] * users,
            "creator_id": ["c1", "c2", "c3", last.replace("i", "c")] * users,
            "time": [START + timedelta(days=day) for day in (0, 10, 11, 14)] * users,
        }
    )
    lake = lp.Lake.memory()
    lake.append(
        "log",
        events=plays.with_row_index("event_id").with_columns(
            pl.col("event_id").cast(pl.String), kind=pl.lit("play"), origin=pl.lit("organic")
        ),
        watermark=START + timedelta(days=DAYS),
    )
    outcomes = DAYS_IN_WINDOW.outcomes(lake)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    plain = lp.ProgressiveReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    ids = outcomes.keys.drop_nulls().unique().sort()
    assert early.particulars.parts == ()
    assert early.items(ids).mean == pytest.approx(plain.items(ids).mean)


def test_the_entry_rate_of_clickbait_counts_against_it():
    lake, _, _ = log_with_known_items(300, clickbait=1.2, item_spread=0.8)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, DAYS_IN_WINDOW.outcomes(lake))
    assert "entry rates" in early.particulars.parts
    assert early.particulars.amounts.rate_weight < -0.3


def test_a_user_whose_entries_came_to_much_is_believed_in():
    lake, _, effect_U = log_with_known_items(user_spread=0.8, item_spread=0.0, seed=3)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, DAYS_IN_WINDOW.outcomes(lake))
    assert "user's rate" in early.particulars.parts
    users = np.arange(0, 3_000, 10)
    mean_U = of_items(early, lake, [f"u{u}" for u in users])[:, 0]
    assert np.corrcoef(np.log(mean_U), effect_U[users])[0, 1] > 0.5


def test_features_of_an_entry_use_nothing_from_after_it(varied):
    """Everything after a moment is made another: what entries before it are described by stays."""
    lake, _, _ = varied
    outcomes = DAYS_IN_WINDOW.outcomes(lake)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    moment = START + timedelta(days=35)
    rng = np.random.default_rng(1)
    other = lp.Lake.memory()
    later = pl.col("time") >= moment
    events = lake.events
    shuffled = pl.Series(rng.permutation(events["item_id"].to_numpy()))
    events = events.with_columns(
        item_id=pl.when(later).then(shuffled).otherwise("item_id"),
        creator_id=pl.when(later).then(pl.lit("c03")).otherwise("creator_id"),
    )
    other.append(
        "log",
        events=events.drop("ingested_at"),
        decisions=lake.decisions.drop("ingested_at"),
        items=lake.items.drop("ingested_at"),
        watermark=lake.watermark,
    )
    users = pl.Series([f"u{u}" for u in range(200)])
    item_N = np.arange(CREATORS * PER_CREATOR)
    now = int(moment.timestamp() * 1e6)
    catalogue = early.particulars.catalogue
    counts = []
    pasts = []
    for log in (lake, other):
        outcomes_then = DAYS_IN_WINDOW.outcomes(log)
        rates = EntryRates.of_log(
            log, outcomes_then, log.decisions, catalogue.items, catalogue.key_I
        )
        counts.append(rates.items.until(item_N, np.full(len(item_N), now)))
        entries = Entries.of(outcomes_then, catalogue)
        past = Pasts.of(outcomes_then.frame["user_id"], entries, 7, early.particulars.amounts)
        pasts.append(past.rates(users, np.full(len(users), now), 1.0))
    assert counts[0].min() > 0
    assert counts[0] == pytest.approx(counts[1])
    assert np.abs(pasts[0]).max() > 0
    assert pasts[0] == pytest.approx(pasts[1])


@pytest.mark.parametrize("age", [0, 1, 3, 5])
@pytest.mark.parametrize("signal", [DAYS_IN_WINDOW, RETURNS])
def test_beliefs_about_later_entries_come_true_in_every_bin(varied, signal, age):
    lake, _, _ = varied
    outcomes = signal.outcomes(lake)
    teach_N = (
        pl.Series(outcomes.frame["user_id"]).str.slice(1).cast(pl.Int64, strict=False) % 2 == 0
    ).fill_null(False)
    early = lp.PersonalReward(signal).fit(lake, outcomes.where(teach_N))
    judged = outcomes.where(~teach_N)
    judged = judged.where(judged.known)
    belief = early.belief(judged, age)
    plain = lp.ProgressiveReward(signal).fit(lake, outcomes.where(teach_N)).belief(judged, age)
    miss, plain_miss = (_miss(b.mean, judged.value) for b in (belief, plain))
    assert miss < (
        0.1 * judged.value.mean() if age == 0 else plain_miss + 0.05 * judged.value.mean()
    )
    # and it tells entries apart better
    assert ((belief.mean - judged.value) ** 2).mean() < ((plain.mean - judged.value) ** 2).mean()


def _miss(mean_N: np.ndarray, outcome_N: np.ndarray) -> float:
    """Mean distance of predicted from realised means over bins of belief."""
    bins = reliability(mean_N, outcome_N, 5)
    return float((bins["predicted"] - bins["realised"]).abs().mean())


def test_new_items_start_at_their_creator_and_unknown_creators_at_the_prior(varied):
    lake, _, _ = varied
    outcomes = DAYS_IN_WINDOW.outcomes(lake)
    early = lp.PersonalReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    creators = early.items(pl.Series(["c00", "c05", "nobody"]))
    plain = lp.ProgressiveReward(DAYS_IN_WINDOW).fit(lake, outcomes)
    progressive = plain.items(pl.Series(["c00", "c05", "nobody"]))
    assert creators.mean == pytest.approx(progressive.mean, rel=0.35)
    unsure = creators.std / creators.mean
    assert unsure[2] > unsure[0] > 0


def test_words_that_it_cannot_know_are_refused():
    with pytest.raises(ConfigError, match="knows"):
        lp.PersonalReward(RETURNS, knows=("weather",))
