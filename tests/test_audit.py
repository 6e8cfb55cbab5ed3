"""Whether an early reward was true: every row of the decision table, and logs whose answer is
known."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib import import_module

import numpy as np
import polars as pl
import pytest
from test_experiments import BEGIN, DAY, ITEMS, Keyed, names, played, shown

import longplay as lp
from longplay import Lake, Signal, active_days, days_with, discovery, enrolment, plays
from longplay.audits import Audit, Recommendation, Verdict, audit, judge
from longplay.belief import Belief
from longplay.errors import ConfigError
from longplay.estimate import Estimate
from longplay.experiments import Experiment
from longplay.experiments.statistics import Contrast
from longplay.lake.schema import TIME
from longplay.signals import Outcomes

MET = Signal("met", discovery(28), days_with("creator"), (1, 14))
ACTIVE = Signal("active", enrolment(), active_days(), (1, 28))


# -- the decision table
# ---------------------------------------------------------------------------------------------------


def at(value: float, std_error: float = 0.1) -> Contrast:
    return Contrast(value, std_error, 1e6)


UP, DOWN, NOTHING = at(1.0), at(-1.0), at(0.1)
HIGH, LOW = at(0.5), at(-0.5)  # of the north star less its margin
SPANS = at(0.05)


@pytest.mark.parametrize(
    ("early", "late", "gap", "gain", "loss", "agreement", "recommendation", "why"),
    [
        # late holds 0: whatever the north star did
        (UP, NOTHING, at(0.9), HIGH, HIGH, "differs", "undecided", "did not move the signal"),
        (at(0.1), NOTHING, at(0.0), LOW, LOW, "differs", "undecided", "did not move the signal"),
        # it rose
        (
            UP,
            UP,
            at(0.0),
            SPANS,
            HIGH,
            "agrees",
            "undecided",
            "whether the north star gained its margin is not known",
        ),
        (
            UP,
            UP,
            at(0.0),
            LOW,
            HIGH,
            "agrees",
            "drop",
            "it rose while the north star certainly gained less than its margin",
        ),
        (
            UP,
            UP,
            at(0.0),
            LOW,
            LOW,
            "agrees",
            "drop",
            "it rose while the north star certainly gained less",
        ),  # the north star fell
        (UP, UP, at(0.0), HIGH, HIGH, "agrees", "keep", "early and late agree"),
        (
            at(0.9, 0.01),
            at(1.0, 0.01),
            at(-0.1, 0.01),
            HIGH,
            HIGH,
            "agrees",
            "keep",
            "up to their errors or a factor of 1.25",
        ),  # surely off, by a hair
        (
            at(0.7, 0.01),
            at(1.0, 0.01),
            at(-0.3, 0.01),
            HIGH,
            HIGH,
            "off by a factor",
            "reweight",
            "off by a factor",
        ),
        (at(0.4), UP, at(-0.6), HIGH, HIGH, "off by a factor", "reweight", "off by a factor"),
        (at(3.0), UP, at(2.0), HIGH, HIGH, "off by a factor", "reweight", "off by a factor"),
        (DOWN, UP, at(-2.0), HIGH, HIGH, "opposite", "drop", "pointed the other way"),
        (at(0.1), UP, at(-0.9), HIGH, HIGH, "differs", "undecided", "did not see it"),
        (at(-0.1, 1.0), UP, at(-1.1, 1.0), HIGH, HIGH, "differs", "undecided", "too noisy"),
        # it fell
        (
            DOWN,
            DOWN,
            at(0.0),
            LOW,
            SPANS,
            "agrees",
            "undecided",
            "whether the north star lost its margin is not known",
        ),
        (
            DOWN,
            DOWN,
            at(0.0),
            LOW,
            HIGH,
            "agrees",
            "drop",
            "it fell while the north star certainly lost less than its margin",
        ),
        (
            DOWN,
            DOWN,
            at(0.0),
            HIGH,
            HIGH,
            "agrees",
            "drop",
            "it fell while the north star certainly lost less",
        ),  # the north star rose
        (DOWN, DOWN, at(0.0), LOW, LOW, "agrees", "keep", "the north star lost its margin"),
        (at(-3.0), DOWN, at(-2.0), LOW, LOW, "off by a factor", "reweight", "off by a factor"),
        (UP, DOWN, at(2.0), LOW, LOW, "opposite", "drop", "pointed the other way"),
        (at(0.1), DOWN, at(1.1), LOW, LOW, "differs", "undecided", "did not see it"),
    ],
)
def test_every_row_of_the_decision_table(
    early: Contrast,
    late: Contrast,
    gap: Contrast,
    gain: Contrast,
    loss: Contrast,
    agreement: str,
    recommendation: str,
    why: str,
) -> None:
    found = judge(early, late, gap, gain, loss, 0.95)
    assert found[:2] == (agreement, recommendation)
    assert why in found[2]


# -- logs whose answer is known
# ---------------------------------------------------------------------------------------------


@dataclass
class Extrapolates:
    """Someone's own early reward: the days so far, times `factor`. Keeps what it was shown."""

    signal: Signal
    factor: float = 1.0
    seen: list[Outcomes] = field(default_factory=list)
    name: str = "extrapolates"

    def belief(self, outcomes: Outcomes, age: int) -> Belief:
        self.seen.append(outcomes)
        mean = self.factor * np.asarray(outcomes.trace(age).sum(axis=1)).ravel()
        return Belief(mean, np.zeros_like(mean), np.ones_like(mean), age, self.signal.label)


USERS = names(600)
HOUR = timedelta(hours=1)
SEEN_LATE = BEGIN + 60 * DAY


def trial_of(salt: str = "s", **more: object) -> Experiment:
    return Experiment(Keyed(), Keyed(), salt=salt, **more)  # type: ignore[arg-type]


def log_of(
    trial: Experiment,
    met: tuple[int, int],
    later: tuple[int, int],
    *,
    salt: int = 0,
    end: datetime = SEEN_LATE,
) -> Lake:
    """Everybody meets c1 after an hour, plays it on `met[arm]` (+0..2) of days 1 to 6 and visits on
    `later[arm]` (+0..2) days from day 16 on."""
    arm_U, rows, visits = trial.assign(USERS), [], []
    extra_U = np.random.default_rng(salt).integers(0, 3, (2, len(USERS)))
    for number, (user, arm) in enumerate(zip(USERS, arm_U, strict=True)):
        rows += [(user, "i1", BEGIN + HOUR)]
        rows += [
            (user, "i1", BEGIN + day * DAY) for day in range(1, 1 + met[arm] + extra_U[0, number])
        ]
        visits += [
            (user, None, BEGIN + day * DAY)
            for day in range(16, 16 + later[arm] + extra_U[1, number])
        ]
    events = pl.concat([played(rows), visited(visits)])
    lake = Lake.memory()
    lake.append(
        "all",
        events=events.filter(pl.col("time") < end),
        decisions=shown(trial, USERS, BEGIN),
        items=ITEMS,
        watermark=end,
    )
    return lake


def visited(rows: list[tuple[str, None, datetime]], tag: str = "v") -> pl.DataFrame:
    frame = pl.DataFrame(
        rows, schema={"user_id": pl.String, "item_id": pl.String, "time": TIME}, orient="row"
    )
    return frame.with_columns(
        event_id=pl.format("{}{}", pl.lit(tag), pl.int_range(pl.len())),
        creator_id=pl.lit(None, pl.String),
        kind=pl.lit("visit"),
    )


@pytest.mark.parametrize(
    ("factor", "met", "later", "recommendation"),
    [
        (1.0, (2, 4), (2, 4), "keep"),
        (0.5, (2, 4), (2, 4), "reweight"),
        (3.0, (2, 4), (2, 4), "reweight"),
        (-1.0, (2, 4), (2, 4), "drop"),
        (0.0, (2, 4), (2, 4), "undecided"),
        (
            1.0,
            (2, 4),
            (5, 3),
            "drop",
        ),  # days with c1 instead of days later: active days stay what they were
        (1.0, (2, 4), (9, 3), "drop"),  # or fall
        (1.0, (2, 2), (2, 4), "undecided"),
        (1.0, (4, 2), (2, 4), "drop"),
        (1.0, (4, 2), (2, 9), "drop"),
        (1.0, (4, 2), (4, 2), "keep"),
    ],
)
def test_a_log_whose_answer_is_known_gets_that_answer(
    factor: float, met: tuple[int, int], later: tuple[int, int], recommendation: str
) -> None:
    trial = trial_of()
    lake = log_of(trial, met, later)
    found = audit(
        Extrapolates(MET, factor),
        trial,
        lake,
        north_star=ACTIVE,
        margin=0.02 if met[1] - met[0] + later[1] - later[0] else 0.04,
    )
    verdict = found.verdicts[0]
    assert verdict.recommendation == recommendation
    assert verdict.late is not None
    assert verdict.early is not None
    assert verdict.late.value == pytest.approx(met[1] - met[0], abs=0.2)
    assert verdict.early.value == pytest.approx(
        factor * verdict.late.value
    )  # all days with c1 are in the first week
    assert verdict.late.n == 600
    if recommendation == "reweight":
        assert verdict.factor is not None
        assert verdict.factor.value == pytest.approx(1 / factor)
        assert verdict.factor.std_error == pytest.approx(
            0, abs=1e-6
        )  # early is late times a constant, so nothing is left to be unsure of
        assert f"late is {1 / factor:.3g} times early" in verdict.reason
    else:
        assert verdict.factor is None


def test_the_estimates_are_those_of_the_trial() -> None:
    trial = trial_of()
    lake = log_of(trial, (2, 3), (2, 3))
    found, readout = (
        audit(Extrapolates(MET), trial, lake, north_star=ACTIVE),
        trial.analyze(lake, [ACTIVE]),
    )
    verdict = found.verdicts[0]
    assert verdict.north_star == readout.line("active").difference
    assert verdict.late == trial.analyze(lake, MET).line("met").difference
    assert verdict.gap is not None
    assert verdict.gap.value == pytest.approx(0, abs=1e-12)
    assert verdict.gap.std_error == pytest.approx(
        0, abs=1e-12
    )  # paired: the same users on both sides
    assert verdict.early is not None
    assert "entry age 7 days" in verdict.early.estimand
    assert (found.arm, found.age, found.level, found.experiment) == ("treatment", 7, 0.95, "s")


def test_early_looks_only_at_what_was_known_when_the_last_entry_was_seven_days_old() -> None:
    trial, model = trial_of(), Extrapolates(MET)
    lake = log_of(trial, (2, 4), (2, 4))
    first = audit(model, trial, lake, north_star=ACTIVE).verdicts[0]
    # enrolled at midnight of day 0, entries until the end of day 13; 7 days of the window from day
    # 14 on: the midnight that begins day 21
    assert [outcomes.as_of for outcomes in model.seen] == [BEGIN + 21 * DAY]
    assert model.seen[0].frame["value"].null_count() == 0 or model.seen[0].as_of < SEEN_LATE
    treated = USERS.filter(pl.Series(trial.assign(USERS) == 1))
    # days 8 to 14 with c1 in the treatment only, and a discovery that arrives late: late changes,
    # early does not
    more = played(
        [(user, "i1", BEGIN + day * DAY) for user in treated for day in (8, 9, 10)]
    ).with_columns(event_id="x" + pl.col("event_id"))
    late = played([(user, "i2", BEGIN + 2 * DAY) for user in treated]).with_columns(
        event_id="y" + pl.col("event_id")
    )
    lake.append(
        "more",
        events=pl.concat(
            [
                more.with_columns(ingested_at=pl.col("time")),
                late.with_columns(ingested_at=pl.lit(BEGIN + 21 * DAY + HOUR).cast(TIME)),
            ]
        ),
    )
    second = audit(model, trial, lake, north_star=ACTIVE).verdicts[0]
    assert second.early == first.early
    assert first.late is not None
    assert second.late is not None
    assert second.late.value == pytest.approx(first.late.value + 3)
    assert second.agreement == "off by a factor"
    older = audit(model, trial, lake, north_star=ACTIVE, age=14).verdicts[0]
    assert older.early is not None
    assert older.early.value == pytest.approx(second.late.value)
    assert audit(model, trial, lake, north_star=ACTIVE, age=99).verdicts[0].early == replace(
        older.early, estimand=older.early.estimand.replace("14", "99")
    )


def test_an_enrolment_signal_is_believed_from_first_exposure() -> None:
    trial, early = trial_of(), Extrapolates(ACTIVE, 2.0)
    found = audit(early, trial, log_of(trial, (2, 4), (2, 4)), north_star=ACTIVE)
    assert early.seen[0].as_of == BEGIN + 8 * DAY
    assert early.seen[0].frame["time"].unique().to_list() == [BEGIN]
    assert found.verdicts[0].early is not None
    assert found.verdicts[0].early.value == pytest.approx(
        4, abs=0.4
    )  # twice the two days of the first week


def test_of_the_north_star_itself_only_the_agreement_is_asked() -> None:
    """A gain below the margin is no reason to drop the belief about the very thing that gained."""
    trial = trial_of()
    lake = log_of(trial, (2, 3), (2, 2))
    for factor, recommendation in ((1.0, "keep"), (0.5, "reweight"), (-1.0, "drop")):
        whole = Extrapolates(ACTIVE, factor)
        verdict = audit(whole, trial, lake, north_star=ACTIVE, margin=0.5, age=28).verdicts[0]
        assert verdict.recommendation == recommendation
        assert (
            audit(Extrapolates(MET, factor), trial, lake, north_star=ACTIVE, margin=0.5)
            .verdicts[0]
            .recommendation
            == "drop"
        )


@pytest.mark.parametrize(
    ("window", "window_days"),
    [
        ((1, 14), 7),
        ((0, 6), 7),
        ((0, 20), 8),
        ((5, 20), 3),
        ((7, 7), 1),
        ((8, 20), 0),
        ((30, 33), 0),
    ],
)
def test_age_is_that_of_the_entry_whatever_its_window(
    window: tuple[int, int], window_days: int
) -> None:
    asked = []

    class Asked(Extrapolates):
        def belief(self, outcomes: Outcomes, age: int) -> Belief:
            asked.append((age, outcomes.as_of, int(outcomes.observed(age).min())))
            return super().belief(outcomes, age)

    trial, signal = trial_of(), Signal("heard", discovery(28), plays("creator"), window)
    audit(Asked(signal), trial, log_of(trial, (2, 4), (2, 4)), north_star=ACTIVE)
    # entries on day 0 and the last possible one on day 13: at the end of that one's day 7 (or its
    # window) all are 7 days old
    assert asked == [(window_days, BEGIN + (13 + min(7, window[1]) + 1) * DAY, window_days)]


def test_while_late_is_immature_early_is_given_and_nothing_is_decided() -> None:
    trial = trial_of()
    lake = log_of(trial, (2, 4), (2, 4), end=BEGIN + 22 * DAY)
    verdict = audit(Extrapolates(MET), trial, lake, north_star=ACTIVE).verdicts[0]
    assert (
        verdict.agreement,
        verdict.recommendation,
        verdict.late,
        verdict.north_star,
        verdict.gap,
    ) == ("unknown", "undecided", None, None, None)
    assert verdict.early is not None
    assert verdict.early.value == pytest.approx(2, abs=0.2)
    assert "met: 0 of " in verdict.reason
    assert "active: 0 of " in verdict.reason
    too_soon = audit(
        Extrapolates(MET), trial, lake, north_star=ACTIVE, as_of=BEGIN + 20 * DAY
    ).verdicts[0]
    assert too_soon.early is None
    assert "whose entries are all 7 days old" in too_soon.reason
    assert "unknown" in str(
        audit(Extrapolates(MET), trial, lake, north_star=ACTIVE, as_of=BEGIN + 20 * DAY)
    )


def test_an_experiment_that_cannot_be_trusted_decides_nothing() -> None:
    trial = trial_of()
    lake = log_of(trial, (2, 4), (2, 4))
    for n, user in enumerate(USERS[:7]):  # more than 1% of an arm of 300, whichever they are of
        other = trial.arm_names[1 - int(trial.assign([user])[0])]
        lake.append(
            f"swapped {n}",
            decisions=shown(trial, pl.Series([user]), BEGIN + DAY, f"again{n}").with_columns(
                arm=pl.lit(other)
            ),
        )
    verdict = audit(Extrapolates(MET), trial, lake, north_star=ACTIVE).verdicts[0]
    assert (verdict.recommendation, verdict.agreement) == ("undecided", "agrees")
    assert "cannot be trusted; one arm per user: 7 of 600" in verdict.reason


def test_a_user_in_two_arms_is_left_out_of_the_audit() -> None:
    trial = trial_of()
    lake = log_of(trial, (2, 4), (2, 4))
    other = trial.arm_names[1 - int(trial.assign(USERS[:1])[0])]
    lake.append(
        "swapped",
        decisions=shown(trial, USERS[:1], BEGIN + DAY, "again").with_columns(arm=pl.lit(other)),
    )
    verdict = audit(Extrapolates(MET), trial, lake, north_star=ACTIVE).verdicts[0]
    assert verdict.recommendation == "keep"
    assert verdict.late is not None
    assert verdict.late.n == 599


def test_several_signals_and_treatments_are_named() -> None:
    trial = Experiment(Keyed(), {"a": Keyed(), "b": Keyed()}, salt="s")
    arm_U = trial.assign(USERS)
    rows = [
        (user, "i1", BEGIN + day * DAY + HOUR)
        for n, (user, arm) in enumerate(zip(USERS, arm_U, strict=True))
        for day in range(2 + int(arm) + n % 2)
    ]
    lake = Lake.memory()
    lake.append(
        "all",
        events=played(rows),
        decisions=shown(trial, USERS, BEGIN),
        items=ITEMS,
        watermark=SEEN_LATE,
    )
    early = {MET: Extrapolates(MET), ACTIVE: Extrapolates(ACTIVE)}
    found = {arm: audit(early, trial, lake, north_star=ACTIVE, treatment=arm) for arm in "ab"}
    assert [
        [round(verdict.late.value) for verdict in found[arm].verdicts if verdict.late]
        for arm in "ab"
    ] == [[1, 1], [2, 2]]
    assert [verdict.signal for verdict in found["a"].verdicts] == [MET.label, ACTIVE.label]
    assert [
        verdict.signal
        for verdict in audit(
            early, trial, lake, north_star=ACTIVE, treatment="a", signals=[ACTIVE]
        ).verdicts
    ] == [ACTIVE.label]
    with pytest.raises(ConfigError, match="treatment=None given, expected one of a, b"):
        audit(early, trial, lake, north_star=ACTIVE)
    with pytest.raises(ConfigError, match="no early reward of other@"):
        audit(
            early,
            trial,
            lake,
            north_star=ACTIVE,
            treatment="a",
            signals=[Signal("other", discovery(7), days_with("creator"))],
        )
    with pytest.raises(ConfigError, match="given for active@"):
        audit({ACTIVE: Extrapolates(MET)}, trial, lake, north_star=ACTIVE, treatment="a")
    with pytest.raises(ConfigError, match="no signal given"):
        audit({}, trial, lake, north_star=ACTIVE, treatment="a")
    for wrong in ({"margin": 1.0}, {"alpha": 0.0}, {"age": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            audit(early, trial, lake, north_star=ACTIVE, treatment="a", **wrong)  # type: ignore[arg-type]


def test_a_fitted_reward_is_audited() -> None:
    """The real thing: fitted on users of before the trial, who return to c1 as the control does."""
    trial = trial_of()
    before = [
        (f"p{n}", "i1", BEGIN - 50 * DAY + day * DAY)
        for n in range(300)
        for day in range(1 + 2 + n % 3)
    ]
    old = Lake.memory()
    old.append(
        "before",
        events=played(before).with_columns(event_id="b" + pl.col("event_id")),
        items=ITEMS,
        watermark=BEGIN,
    )
    for reward in (lp.ProgressiveReward, lp.AutoSurrogate):
        early = reward(MET).fit(None, MET.outcomes(old))
        found = audit(early, trial, log_of(trial, (2, 4), (2, 4)), north_star=ACTIVE)
        verdict = found.verdicts[0]
        assert verdict.early is not None
        assert verdict.early.value > 0
        assert verdict.recommendation in ("keep", "reweight")


def test_audit_is_the_function_in_whatever_order_modules_were_imported() -> None:
    import_module("longplay.audits")
    assert lp.audit is audit


# -- how it shows itself
# -------------------------------------------------------------------------------------------------------------


def an_audit(label: str = 'salt "ü" \\ \x7f') -> Audit:
    estimate = Estimate(0.25, 0.1, n=10, n_eff=10.0, estimand="policy: x")
    recommendations: tuple[Recommendation, ...] = ("keep", "reweight", "undecided")
    verdicts = [
        Verdict(
            f"s{n}@1", estimate, estimate, estimate, "agrees", given, 'a "reason" <b>', estimate
        )
        for n, given in enumerate(recommendations)
    ]
    verdicts[1] = replace(verdicts[1], factor=estimate, agreement="off by a factor")
    verdicts[2] = Verdict(
        "s2@1",
        None,
        None,
        replace(estimate, std_error=float("inf")),
        "unknown",
        "undecided",
        "immature",
    )
    return Audit(label, "treatment", "active@2", 0.01, 7, 0.95, BEGIN, tuple(verdicts))


def test_a_file_carries_the_verdicts_back_unchanged() -> None:
    found = an_audit()
    assert Audit.from_toml(found.to_toml()) == found
    trial = trial_of()
    real = audit(Extrapolates(MET, 0.5), trial, log_of(trial, (2, 4), (2, 4)), north_star=ACTIVE)
    assert Audit.from_toml(real.to_toml()) == real
    for text in (
        "not toml",
        "[audit]\nexperiment = 's'",
        "[[verdicts]]\nsignal = 's'",
        found.to_toml().replace("reason", "raison"),
    ):
        with pytest.raises(ConfigError, match="not a file that"):
            Audit.from_toml(text)


def test_an_audit_prints_and_goes_to_json() -> None:
    found = an_audit("s")
    text, html = str(found), found._repr_html_()
    assert "audit of s, treatment against control, at 2028-03-01 00:00" in text
    assert "s0: keep: a" in text
    assert "off by a factor" in text
    assert "<b>keep</b>" in html
    assert "a &quot;reason&quot; &lt;b&gt;" in html
    assert json.loads(json.dumps(found.as_json()))["verdicts"][2]["late"] is None


def test_the_program_of_the_design_runs() -> None:
    world = lp.World(users=300, items=60, seed=7)
    lake = world.run(lp.Popular(slate=3, explore=0.1), days=50)
    habit = Signal(
        "habit", entry=discovery(novel_for=28), measure=days_with("creator") >= 2, window=(1, 14)
    )
    active = Signal("active", entry=enrolment(), measure=active_days(), window=(1, 14))
    early = lp.ProgressiveReward(habit).fit(lake, habit.outcomes(lake, as_of=world.now))
    trial = Experiment(control=lp.Popular(slate=3), treatment=lp.Uniform(slate=3), salt="2026-11")
    lake = world.run(trial, days=40)
    print(trial.analyze(lake, [habit, active]), audit(early, trial, lake, north_star=active))
    verdict = audit(early, trial, lake, north_star=active).verdicts[0]
    assert verdict.late is not None
    assert verdict.early is not None
    assert verdict.recommendation in ("keep", "reweight", "drop", "undecided")
