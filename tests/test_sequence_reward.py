"""The sequence reward: nothing from after a decision reaches it, order is learnt, and it fits where other
early rewards do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy import special

import longplay as lp
from longplay.decisions import Contexts
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.rewards.particulars import Catalogue
from longplay.rewards.sequence.event_tokens import (
    MOST_EVENTS,
    EarlierEvents,
    EventTokens,
    Vocabulary,
)

torch = pytest.importorskip("torch")

START = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = 24  # the first half of one genre, the others of the other
DAYS = 32
RETURNS = lp.Signal(
    "returns", entry=lp.discovery(novel_for=3), measure=lp.days_with("creator"), window=(1, 5)
)
SMALL = {"members": 2, "width": 16, "steps": 64}


def moody_log(users: int = 400, seed: int = 0, moody: bool = True) -> lp.Lake:
    """A log in which a slot is played with the chance .5 if its genre is that of the user's last play,
    else .06; moods change by searches. Not moody: .28 always. An entry leads to a day more often, too,
    where the mood of its moment is the item's genre."""
    rng = np.random.default_rng(seed)
    events = []
    decisions = []
    for u in range(users):
        mood = int(rng.integers(2))
        for day in np.flatnonzero(rng.random(DAYS) < 0.6).tolist():
            noon = START + timedelta(days=day, hours=12)
            if day == 0 or rng.random() < 0.3:
                mood = int(rng.integers(2))
                item = int(rng.integers(ITEMS // 2) + mood * ITEMS // 2)
                events.append((f"u{u}", item, noon - timedelta(hours=2), "search", "organic", None))
            shown = rng.permutation(ITEMS)[:3].tolist()
            name = f"d{u}-{day}"
            decisions.append((name, f"u{u}", noon, shown))
            before = mood
            for item in shown:
                likes = int(item >= ITEMS // 2) == before
                chance = (0.5 if likes else 0.06) if moody else 0.28
                if rng.random() >= chance:
                    continue
                mood = int(item >= ITEMS // 2)
                moment = noon + timedelta(minutes=1 + len(events) % 9)
                events.append((f"u{u}", item, moment, "home", "recommended", name))
                for later in np.flatnonzero(rng.random(5) < (0.35 if likes else 0.1)) + 1:
                    again = moment + timedelta(days=int(later))
                    events.append((f"u{u}", item, again, "library", "organic", None))
    end = START + timedelta(days=DAYS)
    columns = ["user_id", "item", "time", "surface", "origin", "decision_id"]
    frame = pl.DataFrame(events, schema=columns, orient="row", infer_schema_length=None)
    frame = frame.filter(pl.col("time") < end).with_row_index("event_id")
    shown = pl.DataFrame(
        decisions, schema=["decision_id", "user_id", "time", "items"], orient="row"
    )
    lake = lp.Lake.memory()
    lake.append(
        "log",
        events=frame.select(
            pl.col("event_id").cast(pl.String),
            "user_id",
            pl.format("i{}", "item").alias("item_id"),
            pl.format("c{}", "item").alias("creator_id"),
            "time",
            "surface",
            "origin",
            "decision_id",
            kind=pl.lit("play"),
        ),
        decisions=shown.select(
            "decision_id",
            "user_id",
            "time",
            context_id="decision_id",
            slate=pl.col("items").list.eval(pl.format("i{}", pl.element())),
            log_prob=pl.lit([-1.0] * 3, dtype=pl.List(pl.Float64)),
            surface=pl.lit("home"),
            policy=pl.lit("logger@1"),
        ),
        items=pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(ITEMS)],
                "creator_id": [f"c{i}" for i in range(ITEMS)],
                "title": ["loud"] * (ITEMS // 2) + ["calm"] * (ITEMS // 2),
                "added_at": [START - timedelta(days=1)] * ITEMS,
            }
        ),
        watermark=end,
    )
    return lake


@pytest.fixture(scope="module")
def moody() -> tuple[lp.Lake, lp.SequenceReward]:
    lake = moody_log()
    early = lp.SequenceReward(RETURNS, **SMALL).fit(lake, RETURNS.outcomes(lake), progress=False)
    return lake, early


# -- tokens ------------------------------------------------------------------------------------------


def vocabulary_of(lake: lp.Lake) -> Vocabulary:
    items = ItemIndex(lake.items["item_id"])
    keys = ItemIndex(lake.items["creator_id"])
    key_I = np.append(keys.rows(lake.items["creator_id"]), -1)
    catalogue = Catalogue(items, keys, key_I, np.zeros((len(items) + 1, 0)), None)
    return Vocabulary.of(lake, catalogue, by_creator=True)


def small_lake(times: list[datetime], arrivals: list[datetime] | None = None) -> lp.Lake:
    lake = lp.Lake.memory()
    n = len(times)
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(n)],
            "user_id": ["u"] * n,
            "item_id": [f"i{k % 3}" for k in range(n)],
            "creator_id": [f"c{k % 3}" for k in range(n)],
            "kind": ["play"] * n,
            "time": times,
            "origin": ["organic"] * n,
            "surface": ["search"] * n,
            **({} if arrivals is None else {"ingested_at": arrivals}),
        }
    )
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(3)],
            "creator_id": [f"c{k}" for k in range(3)],
            "added_at": [START] * 3,
        }
    )
    last = max([*times, *(arrivals or [])])
    lake.append("log", events=events, items=items, watermark=last + timedelta(days=1))
    return lake


def microseconds(moment: datetime) -> np.ndarray:
    return np.array([round(moment.timestamp() * 1_000_000)])


def test_an_event_at_the_moment_itself_is_not_seen():
    moment = START + timedelta(days=2)
    times = [moment - timedelta(microseconds=1), moment, moment + timedelta(microseconds=1)]
    lake = small_lake(times)
    tokens = EventTokens.of(lake, vocabulary_of(lake))
    view = tokens.before(np.array([0]), microseconds(moment))
    assert view.time_P.tolist() == microseconds(times[0]).tolist()
    windows = tokens.windows(pl.Series(["u"]), microseconds(moment))
    assert windows.place_N.tolist() == [1]


def test_what_had_not_arrived_is_not_seen():
    moment = START + timedelta(days=2)
    times = [START + timedelta(days=1), START + timedelta(hours=30)]
    lake = small_lake(times, [moment + timedelta(microseconds=1), moment])
    tokens = EventTokens.of(lake, vocabulary_of(lake))
    view = tokens.before(np.array([0]), microseconds(moment))
    assert view.time_P.tolist() == microseconds(times[1]).tolist()


def test_a_view_with_an_event_at_its_moment_cannot_be_made():
    moment = microseconds(START)
    zero = np.array([0])
    with pytest.raises(DataError, match="strictly before"):
        EarlierEvents(moment, np.array([0, 1]), moment, zero, zero, zero, zero, zero)
    EarlierEvents(moment, np.array([0, 1]), moment - 1, zero, zero, zero, zero, zero)


def test_a_window_that_is_encoded_once_gives_the_state_of_every_moment(moody):
    """The state after k events of a window is that of a moment that knows these events alone: nothing
    flows back from later ones, and no place is off by one."""
    lake, early = moody
    tokens = early._tokens_of(lake)
    network = early.ensemble.members[0]
    user = "u3"
    times = lake.decisions.filter(pl.col("user_id") == user)["time"].sort()
    time_N = times.dt.epoch("us").to_numpy()
    from longplay.rewards.sequence.network import as_batch

    windows = tokens.windows(pl.Series([user] * len(times)), time_N)
    assert windows.window_N.tolist() == [0] * len(times)
    assert len(set(windows.place_N.tolist())) > 5
    with torch.no_grad():
        at_once = network.states(as_batch(windows.events))[0, windows.place_N].numpy()
        row = tokens.users.rows(pl.Series([user]))[0]
        for n, moment in enumerate(time_N):
            alone = tokens.before(np.array([row]), np.array([moment]))
            state = network.states(as_batch(alone))[0, len(alone.time_P)].numpy()
            np.testing.assert_allclose(at_once[n], state, atol=1e-5)


def test_long_histories_are_cut_into_windows_that_know_the_same_events():
    times = [START + timedelta(hours=k) for k in range(3 * MOST_EVENTS)]
    lake = small_lake(times)
    tokens = EventTokens.of(lake, vocabulary_of(lake))
    moments = [START + timedelta(hours=k + 0.5) for k in range(0, 3 * MOST_EVENTS, 5)]
    time_N = np.concatenate([microseconds(moment) for moment in moments])
    windows = tokens.windows(pl.Series(["u"] * len(moments)), time_N)
    assert windows.events.lengths.max() <= MOST_EVENTS
    for n, moment in enumerate(time_N):
        start = windows.events.offsets[windows.window_N[n]]
        seen = windows.events.time_P[start : start + windows.place_N[n]]
        every = tokens.time_E[tokens.time_E < moment]
        assert len(seen) >= min(len(every), MOST_EVENTS // 2)
        np.testing.assert_array_equal(seen, every[-len(seen) :])


def test_what_happened_after_the_log_comes_from_the_context_and_nothing_twice():
    times = [START + timedelta(days=1), START + timedelta(days=2)]
    lake = small_lake(times)  # complete before day 3
    vocabulary = vocabulary_of(lake)
    tokens = EventTokens.of(lake, vocabulary)
    carried = [times[1], START + timedelta(days=4)]
    contexts = Contexts.of(
        ["u"],
        START + timedelta(days=5),
        slots=1,
        history=[["i1", "i2"]],
        history_columns=pl.DataFrame({"history_time": [carried]}),
    )
    watermark = int(microseconds(lake.watermark)[0])
    view = tokens.before_contexts(contexts, watermark, vocabulary)
    expected = [*times, carried[1]]
    assert view.time_P.tolist() == [int(microseconds(time)[0]) for time in expected]
    assert view.item_P.tolist() == vocabulary.items.rows(pl.Series(["i0", "i1", "i2"])).tolist()


# -- nothing from after the decision -------------------------------------------------------------------


def changed_after(lake: lp.Lake, moment: datetime, how: str) -> lp.Lake:
    """The same log with other events at and after a moment."""
    events = lake.events
    later = pl.col("time") >= moment
    if how == "removed":
        events = events.filter(~later)
    if how == "changed":
        other = pl.format("i{}", (pl.col("item_id").str.slice(1).cast(int) + 5) % ITEMS)
        events = events.with_columns(
            pl.when(later).then(other).otherwise("item_id").alias("item_id"),
            pl.when(later)
            .then(other.str.replace("i", "c"))
            .otherwise("creator_id")
            .alias("creator_id"),
            pl.when(later).then(pl.lit("other")).otherwise("surface").alias("surface"),
        )
    if how == "added":
        users = events["user_id"].unique().sort()
        more = pl.DataFrame({"user_id": users}).with_columns(
            event_id=pl.format("more-{}", "user_id"),
            item_id=pl.lit("i1"),
            creator_id=pl.lit("c1"),
            kind=pl.lit("play"),
            surface=pl.lit("search"),
            origin=pl.lit("organic"),
            time=pl.lit(moment).cast(events.schema["time"]),
            ingested_at=pl.lit(moment).cast(events.schema["time"]),  # known at once
        )
        events = pl.concat([events, more], how="diagonal_relaxed")
    result = lp.Lake.memory()
    result.append(
        "log",
        events=events,
        decisions=lake.decisions,
        items=lake.items,
        watermark=lake.watermark,
    )
    return result


@pytest.mark.parametrize("how", ["removed", "changed", "added"])
@pytest.mark.parametrize("day", [9, 23])
def test_nothing_at_or_after_the_moment_reaches_a_value(moody, how, day):
    """To the bit: tokens, values of slots and of the catalogue."""
    lake, early = moody
    moment = START + timedelta(days=day, hours=12)
    other = changed_after(lake, moment, how)
    users = lake.events["user_id"].unique().sort().head(40)
    contexts = Contexts.of(users, moment, slots=2)
    views = []
    for log in (lake, other):
        tokens = EventTokens.of(log, early.ensemble.vocabulary)
        times = np.repeat(microseconds(moment), len(users))
        views.append(tokens.before(tokens.users.rows(users), times))
    for column in ("offsets", "time_P", "kind_P", "surface_P", "origin_P", "item_P", "key_P"):
        first, second = (vars(view)[column] for view in views)
        np.testing.assert_array_equal(first, second)
    assert len(views[0].time_P) > 40
    ids = lake.items["item_id"]
    slates = pl.Series([["i3", "i20"]] * len(users))
    before = early.item_value(contexts, ids, lake), early.value(contexts, slates, lake)
    after = early.item_value(contexts, ids, other), early.value(contexts, slates, other)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first.mean, second.mean)
        np.testing.assert_array_equal(first.std, second.std)


def test_what_happens_just_before_the_moment_does_reach_a_value(moody):
    """The counterpart: the test above would pass if histories were not read at all."""
    lake, early = moody
    moment = START + timedelta(days=23, hours=12)
    other = changed_after(lake, moment - timedelta(days=1), "changed")
    contexts = Contexts.of(lake.events["user_id"].unique().sort().head(40), moment, slots=2)
    values = [early.item_value(contexts, lake.items["item_id"], log).mean for log in (lake, other)]
    assert np.abs(values[0] - values[1]).max() > 1e-3


# -- what it learns ------------------------------------------------------------------------------------


def mood_values(early: lp.SequenceReward, lake: lp.Lake) -> tuple[np.ndarray, np.ndarray]:
    """Chance of a play of an item of either genre (not that of the last play's creator) for a user whose
    last play was of genre 0, and for one of genre 1."""
    last = [["i2"], ["i14"]]
    when = lake.watermark + timedelta(hours=2)
    contexts = Contexts.of(
        ["new-a", "new-b"],
        when,
        slots=2,
        history=last,
        history_columns=pl.DataFrame(
            {
                "history_time": [[lake.watermark + timedelta(hours=1)]] * 2,
                "history_kind": [["play"]] * 2,
                "history_surface": [["search"]] * 2,
            }
        ),
    )
    view = early.showing.view(lake)
    refined = early._refined(contexts, view, lake)
    slates = pl.Series([["i5", "i17"]] * 2)
    rows, chance, _ = early.showing.gain(contexts, slates, view, refined)
    given, _, _ = early._given_entry(contexts, rows, view, lake)
    return chance, given


def test_what_the_last_play_says_is_learnt(moody):
    lake, early = moody
    chance, given = mood_values(early, lake)
    assert early.ensemble.play.sequence > 0.5
    assert chance[0, 0] > 2 * chance[0, 1]
    assert chance[1, 1] > 2 * chance[1, 0]
    assert given[0, 0] > 1.15 * given[0, 1]
    assert given[1, 1] > 1.15 * given[1, 0]


def test_where_the_past_says_nothing_it_stays_with_the_personal_belief():
    lake = moody_log(users=200, seed=1, moody=False)
    outcomes = RETURNS.outcomes(lake)
    early = lp.SequenceReward(RETURNS, **SMALL).fit(lake, outcomes, progress=False)
    chance, _ = mood_values(early, lake)
    assert np.abs(np.log(chance[0] / chance[1])).max() < 0.35


def test_the_same_seed_gives_the_same_values_and_members_disagree(moody):
    lake, early = moody
    outcomes = RETURNS.outcomes(lake)
    small = {"members": 2, "width": 8, "steps": 6}
    contexts = Contexts.of(["u1", "u2"], lake.watermark, slots=1)
    ids = lake.items["item_id"]
    values = [
        lp.SequenceReward(RETURNS, seed=seed, **small)
        .fit(lake, outcomes, progress=False)
        .item_value(contexts, ids, lake)
        .mean
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0
    score_AN = np.stack([np.zeros(3), np.array([0.0, 0.5, 1.0])])
    _, std_N, _ = early.ensemble.outcome(np.zeros(3), np.zeros(3), score_AN)
    assert std_N[0] == 0.0
    assert (np.diff(std_N) > 0).all()  # the more members disagree, the less sure


# -- where other early rewards stand ---------------------------------------------------------------------


def test_it_stands_where_other_early_rewards_stand(moody):
    lake, early = moody
    assert isinstance(early, lp.EarlyReward)
    outcomes = RETURNS.outcomes(lake)
    users = lake.decisions["user_id"].unique().sort().head(30)
    contexts = Contexts.of(users, lake.watermark, slots=3)
    slates = pl.Series([["i0", "i9", "i20"]] * len(users))
    value = early.value(contexts, slates, lake)
    # catches: whole slates that are valued without the sequence
    whole = early.slate_value(contexts, slates, lake)
    np.testing.assert_allclose(whole.mean, value.mean.sum(axis=1), rtol=1e-12)
    view = early.showing.view(lake)
    _, chance_NS, _ = early.showing.gain(contexts, slates, view)
    familiar_NS = chance_NS == 0
    assert familiar_NS.any()
    assert (value.mean[familiar_NS] == 0).all()
    assert (value.std >= 0).all()
    assert (value.spread >= value.std - 1e-12).all()
    ids = pl.Series(["i0", "i9", "i20"])
    alone = early.item_value(contexts, ids, lake)  # the first slot is the same in both
    np.testing.assert_allclose(value.mean[:, 0], alone.mean[:, 0], atol=1e-9)
    reward = lp.Reward({RETURNS: 1.0}, caution=1.0)
    combined = reward.combined({RETURNS: early}, contexts, slates, lake)
    assert np.shape(combined.mean) == value.mean.shape
    belief = early.belief(outcomes, 2)
    known = outcomes.known
    closed = early.belief(outcomes, RETURNS.days)
    np.testing.assert_allclose(closed.mean[known], outcomes.value[known])
    np.testing.assert_allclose(closed.std[known], 0.0)
    assert np.corrcoef(belief.mean[known], outcomes.value[known])[0, 1] > 0.5
    assert abs(belief.mean[known].mean() - outcomes.value[known].mean()) < 0.1
    assert len(early.items(pl.Series(["c0", "nobody"]))) == 2


def test_it_is_fitted_without_a_model_of_showing_too(moody):
    lake, _ = moody
    outcomes = RETURNS.outcomes(lake)
    early = lp.SequenceReward(RETURNS, members=1, width=8, steps=4).fit(
        None, outcomes, progress=False
    )
    known = outcomes.known
    belief = early.belief(outcomes, 0)
    assert abs(belief.mean[known].mean() - outcomes.value[known].mean()) < 0.15
    with pytest.raises(DataError, match="fitted without a lake"):
        early.value(Contexts.of(["u1"], lake.watermark, slots=1), pl.Series([["i0"]]), lake)


@pytest.mark.parametrize("labels", ["teacher", "matured"])
def test_labels_of_a_teacher_and_of_mature_outcomes_are_calibrated(moody, labels):
    lake, _ = moody
    outcomes = RETURNS.outcomes(lake)
    early = lp.SequenceReward(RETURNS, members=1, width=8, steps=20, labels=labels).fit(
        lake, outcomes, progress=False
    )
    known = outcomes.known
    belief = early.belief(outcomes, 0)
    assert abs(belief.mean[known].mean() - outcomes.value[known].mean()) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 2.5}, "steps=2.5 given, expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 given, expected a whole number of at least 0"),
        ({"width": 0}, "width=0 given"),
        ({"width": 7}, "width=7 given, expected an even number"),
        ({"members": True}, "members=True given"),
        ({"labels": "guesses"}, "labels='guesses' given, expected one of days, teacher, matured"),
        ({"knows": ("weather",)}, "knows="),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        lp.SequenceReward(RETURNS, **arguments)


def test_before_it_is_fitted_it_says_so(moody):
    lake, _ = moody
    early = lp.SequenceReward(RETURNS)
    with pytest.raises(DataError, match="sequence: not fitted"):
        early.items(pl.Series(["c0"]))
    with pytest.raises(DataError, match="sequence: not fitted"):
        early.belief(RETURNS.outcomes(lake), 1)


def test_a_signal_that_counts_no_days_is_refused():
    minutes = lp.Signal("m", entry=lp.discovery(), measure=lp.minutes("creator"), window=(1, 7))
    with pytest.raises(ConfigError, match=r"lp\.ProgressiveReward"):
        lp.SequenceReward(minutes)


def test_progress_of_every_member_is_told(moody):
    lake, _ = moody
    told = []
    lp.SequenceReward(RETURNS, members=2, width=8, steps=6).fit(
        lake, RETURNS.outcomes(lake), progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (12, 12)
    steps = [done for done, total in told if total == 12]
    assert steps == sorted(steps)
    assert len(steps) >= 4


def test_what_the_personal_reward_believes_counts_once(moody):
    """Whatever parts the personal reward has: with the head of entries at 0, the outcome given an entry is
    that of the personal belief, put through the hazard."""
    from longplay.rewards.sequence.ensemble import HeadWeights

    lake, early = moody
    plain = replace(early, ensemble=replace(early.ensemble, entry=HeadWeights(1.0, 0.0, 0.0)))
    personal = lp.PersonalReward(RETURNS).fit(lake, RETURNS.outcomes(lake), progress=False)
    contexts = Contexts.of(["u1", "u2"], lake.watermark, slots=3)
    view = early.showing.view(lake)
    rows_NS = np.array([[0, 5, 20], [3, -1, 9]])
    mean_NS, _, _ = plain._given_entry(contexts, rows_NS, view, lake)
    believed_NS, _, _ = personal._given_entry(contexts, rows_NS, view, lake)
    score_NS = special.logit(believed_NS / RETURNS.days)
    np.testing.assert_allclose(
        mean_NS, early.ensemble.hazard.moments(score_NS.ravel())[0].reshape(2, 3), atol=1e-4
    )
    creators = pl.Series(["c0", "c20"])
    believed_K = personal.items(creators).mean
    hazard_K = early.ensemble.hazard.moments(special.logit(believed_K / RETURNS.days))[0]
    np.testing.assert_allclose(plain.items(creators).mean, hazard_K, atol=1e-4)
