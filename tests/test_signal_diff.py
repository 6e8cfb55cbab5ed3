"""What another version changes, against plain Python: entries, outcomes, base rates by segment, the
backfill."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product

import polars as pl
import pytest

import longplay as lp
from longplay.errors import DataError
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.lake import Lake
from longplay.policies.simple import Popular
from longplay.signals import (
    READY,
    Signal,
    active_days,
    days_with,
    discovery,
    event,
    exposure,
    minutes,
    plays,
    sessions,
    user_day,
)
from longplay.signals.outcomes.definition_diff import changed_parts
from longplay.signals.outcomes.in_files import BaseRate, base_rates
from longplay.signals.outcomes.version_diff import CHANGES, Backfill, diff_of
from longplay.world import World

START = datetime(2026, 1, 1, tzinfo=UTC)
HABIT = READY["habit"]


@pytest.fixture(scope="module")
def lake() -> Lake:
    return World(users=60, items=60, seed=5).run(Popular(slate=3, explore=0.3), days=90)


def log(rows: list[tuple[str, float, str, str]], days: int) -> Lake:
    """Events of (user, day, kind, item) from 1 January on, complete for `days` days; the creator is
    the item's first letter."""
    made = Lake.memory()
    events = [
        {
            "event_id": f"e{n}",
            "user_id": user,
            "item_id": item,
            "creator_id": item[0],
            "kind": kind,
            "surface": "home" if user < "v" else None,
            "time": START + timedelta(days=day),
        }
        for n, (user, day, kind, item) in enumerate(rows)
    ]
    made.append("rows", events=pl.DataFrame(events), watermark=START + timedelta(days=days))
    return made


# -- the definition
# ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (replace(HABIT, window=(1, 14)), ["window: days 1 to 28, now days 1 to 14"]),
        (
            replace(HABIT, window=(7, 7), measure=days_with("creator")),
            [
                "threshold: at least 3, now none, the amount itself",
                "window: days 1 to 28, now day 7",
            ],
        ),
        (
            replace(HABIT, measure=days_with("creator") >= 2),
            ["threshold: at least 3, now at least 2"],
        ),
        (
            replace(HABIT, entry=discovery(56)),
            ["new: none in 28 days before, now none in 56 days before"],
        ),
        (
            replace(HABIT, entry=discovery(None)),
            ["new: none in 28 days before, now none before in the log"],
        ),
        (
            replace(HABIT, origin=("organic", "recommended"), gameable=True),
            ["origins: organic, now organic, recommended"],
        ),
        (
            replace(HABIT, entry=exposure()),
            [
                "entry: a discovery, now a slot that is shown",
                "new: none in 28 days before, now not asked",
            ],
        ),
        (replace(HABIT, entry=event("save", "creator", 28)), ["entry: a discovery, now a save"]),
        (
            replace(HABIT, measure=active_days() >= 3),
            ["measure: days with that creator, now active days"],
        ),
        (
            replace(HABIT, measure=minutes("creator") >= 3, origin=("organic",)),
            ["measure: days with that creator, now minutes of that creator"],
        ),
        (replace(HABIT, name="renamed"), []),
        (replace(HABIT, origin=("organic",)), []),  # a default written out
    ],
)
def test_the_parts_that_changed_are_named_and_no_others(new: Signal, said: list[str]) -> None:
    assert [str(part) for part in changed_parts(HABIT, new)] == said


def test_ratios_baselines_and_dormancy_are_parts_too() -> None:
    depth = Signal("depth", user_day(), plays() / sessions(), (1, 7))
    assert [str(part) for part in changed_parts(depth, replace(depth, measure=plays()))] == [
        "per: sessions, now nothing"
    ]
    above = replace(depth, measure=plays().above_baseline(14))
    assert [str(part) for part in changed_parts(replace(depth, measure=plays()), above)] == [
        "baseline: none, now the user's own rate in 14 days before"
    ]
    late = replace(depth, entry=user_day(dormant_for=1))
    assert [str(part) for part in changed_parts(depth, late)] == [
        "dormant: not asked, now 1 day or more before"
    ]


VARIANTS = [
    *READY.values(),
    replace(HABIT, measure=days_with("creator") >= 3.5),
    replace(HABIT, measure=days_with("creator") >= 3.25),
    replace(
        READY["diversity_of_habits"], measure=replace(READY["diversity_of_habits"].measure, days=4)
    ),
    replace(
        READY["diversity_of_habits"],
        measure=replace(READY["diversity_of_habits"].measure, of="item"),
    ),
    replace(READY["save_and_return"], entry=event("like", "item")),
    replace(READY["save_and_return"], entry=event("like", "item", 7)),
]


def test_parts_differ_where_and_only_where_versions_do() -> None:
    for old, new in product(VARIANTS, VARIANTS):
        assert (changed_parts(old, new) == ()) == (old.version == new.version), (old, new)


# -- on a log
# ----------------------------------------------------------------------------------------


def test_every_kind_of_change_on_a_log_counted_by_hand() -> None:
    """Old: 1 of days 1-4. New: not within 3 days of another, 2 of days 2-7. The log is known for 20
    days."""
    rows = [
        ("u", 0, "play", "a1"),
        ("u", 2, "play", "a1"),
        ("u", 3, "play", "a1"),  # the first: 1, 1; day 2 only in old: 1
        ("u", 0, "play", "b1"),
        ("u", 1, "play", "b1"),  # old 1, new 0
        ("v", 0, "play", "c1"),
        ("v", 2, "play", "c1"),
        ("v", 4, "play", "c1"),  # the first: 1, 1; day 2 and 4 only in old: 1 and 0
        ("v", 14, "play", "d1"),  # old 0 at 19; new would be at 22: null
        ("v", 19, "play", "e1"),  # null in both
    ]
    old = Signal("s", discovery(1), days_with("creator") >= 1, (1, 4))
    new = Signal("s", discovery(3), days_with("creator") >= 1, (2, 7))
    found = lp.diff(old, new, log(rows, days=20), truncated=True)
    assert found.counts == {
        "only in old": 3,
        "only in new": 0,
        "changed": 1,
        "newly known": 0,
        "no longer known": 1,
        "equal": 2,
        "unknown in both": 1,
    }
    backwards = lp.diff(new, old, log(rows, days=20), truncated=True)
    assert backwards.counts == {
        "only in old": 0,
        "only in new": 3,
        "changed": 1,
        "newly known": 1,
        "no longer known": 0,
        "equal": 2,
        "unknown in both": 1,
    }
    assert found.difference.value == pytest.approx(
        (0 - 1 + 0) / 3
    )  # three entries whose outcome both know
    assert backwards.difference.value == pytest.approx(1 / 3)
    row = found.rows.filter(pl.col("change") == "changed").row(0, named=True)
    assert (row["user_id"], row["creator_id"], row["old_value"], row["new_value"]) == (
        "u",
        "b",
        1.0,
        0.0,
    )
    surfaces = {
        row["segment"]: row
        for row in found.segments.filter(pl.col("by") == "surface").iter_rows(named=True)
    }
    assert surfaces["home"]["old"] == 1.0
    assert surfaces["home"]["new"] == 0.5
    assert surfaces["home"]["old_low"] is None  # one user says nothing of others
    assert surfaces[None]["common"] == 1
    assert found.backfill == Backfill(
        5, 3, date(2026, 1, 1), date(2026, 1, 20), 3, date(2026, 1, 20), START + timedelta(days=27)
    )


PAIRS = [
    (HABIT, replace(HABIT, window=(1, 14))),
    (HABIT, replace(HABIT, entry=discovery(56), measure=days_with("creator") >= 2)),
    (READY["stickiness_60d"], READY["habit"]),
    (READY["return_7d"], READY["dormant_reactivation"]),
    (READY["active_days_28d"], READY["return_1d"]),
    (READY["habit"], READY["regret"]),
    (READY["save_and_return"], READY["regret"]),
    (
        Signal("shown", exposure(), days_with("creator") >= 1, (1, 7)),
        Signal("shown", exposure("item"), plays("item") >= 1, (1, 9)),
    ),
    (
        Signal("saves", event("save"), plays(), (0, 3)),
        Signal("saves", event("save"), plays(), (0, 5)),
    ),
]


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_rows_equal_a_plain_look_up(old: Signal, new: Signal, truncated: bool, lake: Lake) -> None:
    before, after = old.outcomes(lake), new.outcomes(lake)
    found = diff_of(before, after, truncated=truncated)
    unsure: set[tuple] = set()  # of either

    def by_key(outcomes) -> dict[tuple, float | None]:
        entry = outcomes.signal.entry
        of = "item_id" if entry.kind == "exposure" else f"{entry.of}_id" if entry.of else "user_id"
        seen: Counter = Counter()
        table = {}
        for row in outcomes.frame.iter_rows(named=True):
            key = (entry.unit, row["user_id"], row["time"], row[of])
            seen[key] += 1
            table[*key, seen[key]] = row["value"]
            if row["truncated"] and not truncated:
                unsure.add((*key, seen[key]))
        return table

    a, b = by_key(before), by_key(after)
    a, b = ({key: value for key, value in side.items() if key not in unsure} for side in (a, b))
    expected: Counter = Counter()
    for key in a.keys() | b.keys():
        one, two = a.get(key), b.get(key)
        if key not in b or key not in a:
            expected["only in old" if key in a else "only in new"] += 1
        elif one is None or two is None:
            expected[
                "unknown in both"
                if one == two
                else "newly known"
                if one is None
                else "no longer known"
            ] += 1
        else:
            expected["equal" if one == two else "changed"] += 1
    assert found.counts == {change: expected[change] for change in CHANGES}
    assert found.rows.height == len(a.keys() | b.keys())
    assert sum(value or 0 for value in a.values()) == pytest.approx(found.rows["old_value"].sum())
    assert found.rows["user_id"].null_count() == found.rows["time"].null_count() == 0


def test_base_rates_of_segments_are_those_of_their_entries_alone(lake: Lake) -> None:
    old, new = HABIT, replace(HABIT, measure=days_with("creator") >= 2)
    before, after = old.outcomes(lake), new.outcomes(lake)
    found = diff_of(before, after)
    assert isinstance(found.difference, Estimate)
    before, after = before.certain(), after.certain()
    keys = {
        "surface": pl.col("surface"),
        "origin": pl.col("origin"),
        "month": pl.col("time").dt.strftime("%Y-%m"),
    }
    assert found.old_truncated > 0
    for row in found.segments.iter_rows(named=True):
        inside = before.frame.select(
            keys[row["by"]].eq_missing(pl.lit(row["segment"])).alias("inside")
        )["inside"]
        part = before.where(inside)
        assert row["old_entries"] == len(part)
        if part.frame["value"].is_not_null().any():
            rate = part.base_rate()
            assert (row["old"], row["old_low"], row["old_high"]) == pytest.approx(
                (rate.value, *rate.interval())
            )
    for by in keys:
        assert found.segments.filter(pl.col("by") == by)["new_entries"].sum() == len(after)
    both = found.rows.drop_nulls(["old_value", "new_value"])
    paired = clustered_mean(
        (both["new_value"] - both["old_value"]).to_numpy(), both["user_id"].to_numpy()
    )
    assert (found.difference.value, found.difference.std_error) == (paired.value, paired.std_error)
    assert found.old_rate.value == before.base_rate().value
    loose = clustered_mean(
        after.frame["value"].drop_nulls().to_numpy(),
        after.frame.drop_nulls("value")["user_id"].to_numpy(),
    )
    assert found.difference.std_error < loose.std_error  # the same entries: what they share cancels


EARLY = [
    ("u", 0, "play", "a1"),
    ("u", 1, "play", "a1"),
    ("u", 2, "play", "a1"),
]  # an old habit, for all that the log can know
SURE = [
    ("u", 40, "play", "b1"),
    ("v", 40, "play", "b1"),
    ("v", 42, "play", "b1"),
    ("u", 50, "skip", "b1"),
]


def test_truncated_entries_are_left_out_unless_asked_for_and_counted() -> None:
    """The log begins on day 0: of u's touch of `a` on that day nobody knows whether it is a first;
    of those on day 40 everybody does."""
    old = Signal("s", discovery(28), days_with("creator") >= 1, (1, 4))
    new = replace(old, measure=days_with("creator") >= 2)
    lake = log(EARLY + SURE, days=60)
    found = lp.diff(old, new, lake)
    assert (found.old_rate.value, found.new_rate.value) == (0.5, 0.0)  # v comes back once
    assert (found.old_rate.n, found.old_truncated, found.new_truncated) == (2, 1, 1)
    assert found.counts["changed"] == found.counts["equal"] == 1
    assert found.difference.value == -0.5
    assert found.segments.filter(pl.col("by") == "month")["segment"].to_list() == [
        "2026-02"
    ]  # day 40; January has the old habit alone
    assert (
        "1 entries of old, 1 of new, left out of all of this; --truncated (truncated=True) counts "
        "them" in str(found)
    )
    everything = lp.diff(old, new, lake, truncated=True)
    assert (everything.old_rate.value, everything.new_rate.value) == pytest.approx((2 / 3, 1 / 3))
    assert everything.rows.height == 3
    assert "1 entries of old, 1 of new, counted in all of this" in str(everything)
    outcomes = old.outcomes(lake)
    assert (outcomes.base_rate().value, outcomes.base_rate(truncated=True).value) == pytest.approx(
        (0.5, 2 / 3)
    )
    assert outcomes.maturity_curve()["value"].to_list() == [0.0, 0.5, 0.5, 0.5]
    assert outcomes.maturity_curve(truncated=True)["value"].to_list() == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3, 2 / 3]
    )
    assert "mature 3 of 3 entries, mean 0.5" in str(outcomes)
    assert str(outcomes).endswith("; 1 truncated entries left out of the mean")
    one_pass, with_them = (
        base_rates([old], lake, truncated=truncated)[old] for truncated in (False, True)
    )
    assert isinstance(one_pass, BaseRate)
    assert isinstance(with_them, BaseRate)
    assert one_pass.rate is not None
    assert with_them.rate is not None
    assert (one_pass.truncated, one_pass.rate.value, with_them.rate.value) == pytest.approx(
        (1, 0.5, 2 / 3)
    )


def test_an_entry_of_which_only_one_version_is_unsure_is_not_only_in_the_other() -> None:
    old = Signal("s", discovery(28), days_with("creator") >= 1, (1, 4))
    found = lp.diff(
        old,
        replace(old, entry=discovery(7)),
        log(
            [("w", 0, "play", "c1"), ("w", 1, "play", "c1"), ("u", 10, "play", "a1"), *SURE],
            days=60,
        ),
    )
    assert (found.counts["only in new"], found.counts["only in old"], found.rows.height) == (
        0,
        0,
        2,
    )
    assert (found.old_truncated, found.new_truncated) == (
        2,
        1,
    )  # day 0 for both, day 10 for the old one alone
    assert (found.old_rate.n, found.new_rate.n) == (2, 2)
    assert (found.old_rate.value, found.new_rate.value) == pytest.approx(
        (1 / 2, 1 / 3)
    )  # each of its own certain entries


def test_where_all_known_entries_are_truncated_there_is_no_rate_and_the_reason_is_said() -> None:
    old = Signal("s", discovery(28), days_with("creator") >= 1, (1, 4))
    outcomes = old.outcomes(log(EARLY, days=20))
    with pytest.raises(
        DataError,
        match="all 1 entries with a known outcome are truncated: the log begins less than 28 days "
        "before them",
    ):
        outcomes.base_rate()
    assert "no mean: all 1 entries with a known outcome are truncated" in str(outcomes)
    assert outcomes.base_rate(truncated=True).value == 1.0
    assert outcomes.maturity_curve().is_empty()
    found = lp.diff(old, replace(old, window=(1, 3)), log(EARLY, days=20))
    assert isinstance(found.old_rate, Refusal)
    assert "0 in both" in str(found)


def test_two_entries_at_one_moment_stay_two() -> None:
    rows = [("u", 1, "save", "a1"), ("u", 1, "save", "a1"), ("u", 2, "play", "a1")]
    old = Signal("s", event("save", "item"), days_with("item") >= 1, (1, 2))
    found = lp.diff(old, replace(old, window=(2, 3)), log(rows, days=9))
    assert found.counts["changed"] == found.rows.height == 2


def test_what_is_not_in_one_unit_has_no_difference(lake: Lake) -> None:
    found = lp.diff(READY["stickiness_60d"], HABIT, lake)
    assert isinstance(found.difference, Refusal)
    assert "old is in days, new in share" in str(found)
    assert found.segments["difference"].null_count() == found.segments.height
    assert found.segments["old"].drop_nulls().len() > 0


def test_outcomes_of_two_moments_are_refused(lake: Lake) -> None:
    before = HABIT.outcomes(lake, lake.watermark - timedelta(days=1))
    with pytest.raises(DataError, match="expected one moment for both"):
        diff_of(before, HABIT.outcomes(lake))


def test_the_same_definition_changes_nothing(lake: Lake) -> None:
    found = lp.diff(HABIT, replace(HABIT, name="renamed"), lake)
    counts = found.counts
    assert counts["equal"] + counts["unknown in both"] == found.rows.height
    assert "the same definition under another name, renamed" in str(found)
    assert found.examples().is_empty()


def test_a_window_that_closes_later_leaves_more_open(lake: Lake) -> None:
    longer = lp.diff(HABIT, replace(HABIT, window=(1, 50)), lake)
    shorter = lp.diff(HABIT, replace(HABIT, window=(1, 7)), lake)
    assert longer.counts["no longer known"] > 0 == longer.counts["newly known"]
    assert shorter.counts["newly known"] > 0 == shorter.counts["no longer known"]
    assert longer.backfill.mature < shorter.backfill.mature
    assert longer.backfill.complete_at == shorter.backfill.complete_at + timedelta(days=43)


@pytest.mark.parametrize(
    ("signal", "look_back"),
    [
        (HABIT, 28),
        (replace(HABIT, entry=discovery(None)), None),
        (READY["return_1d"], 0),
        (READY["dormant_reactivation"], None),
        (Signal("more", user_day(), minutes().above_baseline(14), (1, 7)), 14),
        (READY["active_days_28d"], 0),
    ],
)
def test_the_backfill_says_how_far_back_it_reads(
    signal: Signal, look_back: int | None, lake: Lake
) -> None:
    assert Backfill.of(signal.outcomes(lake)).look_back == look_back


def test_it_prints_every_part_and_escapes_what_a_notebook_would_run() -> None:
    rows = [
        ("<b>u</b>" + "x" * 40, 0, "play", "a1"),
        ("<b>u</b>" + "x" * 40, 2, "play", "a1"),
        ("w", 0, "play", "a1"),
    ]
    old = Signal("s", discovery(1), days_with("creator") >= 1, (1, 4))
    found = lp.diff(old, replace(old, window=(3, 4)), log(rows, days=20), truncated=True)
    text = str(found)
    for part in (
        old.label,
        found.new.label,
        "changed window: days 1 to 4, now days 3 to 4",
        "base rate",
        "surface home",
        "month 2026-01",
        "<b>u</b>xxxxx…",
    ):
        assert part in text
    assert max(len(line) for line in found.findings().splitlines()[5:]) <= 80
    page = found._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;u" in page


def test_a_log_without_entries_has_a_diff_that_says_so() -> None:
    old = Signal("s", event("save", "item", 7), days_with("item") >= 1, (1, 2))
    rows = [("u", 1, "play", "a1"), ("u", 3, "save", "a1")]
    found = lp.diff(old, replace(old, window=(1, 3)), log(rows, days=5), truncated=True)
    assert found.counts["unknown in both"] == 1
    assert "none of 1 entries is mature" in str(found)
    nobody = diff_of(
        old.outcomes(log(rows, days=5)).where([False]),
        old.outcomes(log(rows, days=5)).where([False]),
    )  # type: ignore[arg-type]
    assert str(nobody.backfill) == "nothing to compute: the log has no entry of the new version"
    assert "0 in both" in str(nobody)
