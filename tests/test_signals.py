"""A declaration says one thing: in words, in TOML, and in its version."""

from __future__ import annotations

import html
import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from examples import examples
from hypothesis import given, reject
from hypothesis import strategies as st

from longplay.errors import ConfigError
from longplay.lake.schema import KINDS, ORIGINS
from longplay.signals import (
    Entry,
    Measure,
    Signal,
    active_days,
    cancelled,
    completion,
    count,
    days_with,
    discovery,
    enrolment,
    event,
    exposure,
    habits,
    minutes,
    plays,
    returned,
    saves,
    sessions,
    skips,
    time_to_return,
    user_day,
)
from longplay.signals.declare.entry import KEYS

NUMBER = st.one_of(st.integers(1, 400), st.floats(min_value=1e-6, max_value=1e9))
OF, KIND, LENGTH = st.sampled_from(KEYS), st.sampled_from(KINDS), st.integers(1, 365)
SOME = st.none() | OF
ENTRY = st.one_of(
    st.builds(discovery, st.none() | LENGTH, OF),
    st.builds(exposure, OF),
    st.builds(user_day, st.none() | LENGTH),
    st.builds(enrolment),
    st.builds(event, KIND, SOME, st.none() | LENGTH),
)
PLAIN = st.one_of(
    st.sampled_from((active_days(), returned(), cancelled(), sessions())),
    st.builds(days_with, OF),
    st.builds(habits, OF, st.integers(1, 30)),
    st.builds(count, KIND, SOME),
    *(
        st.builds(measure, SOME)
        for measure in (minutes, plays, saves, skips, completion, time_to_return)
    ),
)
FORM = st.sampled_from(("plain", "plain", "ratio", "baseline"))
SOURCES = st.none() | st.lists(st.sampled_from(ORIGINS), min_size=1, max_size=4).map(tuple)


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    """Everything that can be declared: entries x measures x thresholds x origins x windows; what
    cannot is in `IMPOSSIBLE`."""
    entry, measure, form, threshold = draw(ENTRY), draw(PLAIN), draw(FORM), draw(st.none() | NUMBER)
    first = draw(st.integers(0, 365))
    window, origin = (first, draw(st.integers(first, 365))), draw(SOURCES)
    try:
        measure = (
            measure / draw(PLAIN)
            if form == "ratio"
            else measure.above_baseline(draw(LENGTH))
            if form == "baseline"
            else measure
        )
        measure = measure if threshold is None else measure >= threshold
        return declared(
            draw(st.sampled_from(("habit", "A", "z-1_", "b" * 64))), entry, measure, window, origin
        )
    except ConfigError:
        reject()


def declared(
    name: str,
    entry: Entry,
    measure: Measure,
    window: tuple[int, int],
    origin: tuple[str, ...] | None,
) -> Signal:
    """The signal, marked as gameable where it must be."""
    shown = set(origin or ("organic",)) - {"organic"}
    habitual = measure.kind == "habits" or (measure.of is not None and measure.of_activity)
    return Signal(name, entry, measure, window, origin, gameable=bool(shown) and habitual)


def meaning(signal: Signal) -> tuple[object, ...]:
    """What a signal means, defaults resolved: equal meanings must have equal versions, and only
    they."""
    return (
        signal.entry,
        replace(signal.measure, threshold=None),
        signal.threshold,
        signal.window,
        frozenset(signal.origins),
    )


# -- the sentence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        (
            Signal("habit", discovery(28), days_with("creator") >= 3, (1, 28)),
            "habit: of a user's discoveries of a creator (first touch in 28 days), the share "
            "where the user is active with that creator "
            "on at least 3 days, organically, in days 1 to 28 after",
        ),
        (
            Signal("back", enrolment(), returned(), (7, 7)),
            "back: of users, from their enrolment (first exposure in a trial, else first event), "
            "the share where the user is active again, organically, on day 7 after",
        ),
        (
            Signal("back", user_day(), returned() >= 2, (1, 7), origin=ORIGINS),
            "back: of the days on which a user is active, the share where the user is active "
            "again on at least 2 days in days 1 to 7 after",
        ),
        (
            Signal(
                "taste",
                exposure("item"),
                minutes("creator"),
                (0, 3),
                origin=("autoplay", "organic"),
            ),
            "taste: of the slots that show a user some item, the mean number of minutes with that "
            "creator, "
            "by autoplay or organically, in days 0 to 3 after",
        ),
        (
            Signal("keep", discovery(None, "item"), plays() >= 1.5, (1, 28)),
            "keep: of a user's discoveries of an item (first touch in the log), the share with at "
            "least 1.5 plays in days 1 to 28 after",
        ),
        (
            Signal("days", user_day(), active_days() >= 1, (1, 28)),
            "days: of the days on which a user is active, the share where the user is active on "
            "at least 1 day, organically, in days 1 to 28 after",
        ),
        (
            Signal("late", user_day(dormant_for=28), time_to_return(), (1, 28)),
            "late: of the days on which a user is active after 28 days or more without activity, "
            "the mean number of days until the user is active again, organically, at most 28, in "
            "days 1 to 28 after",
        ),
        (
            Signal(
                "again",
                event("save", "item"),
                time_to_return("item"),
                (2, 7),
                ORIGINS,
                gameable=True,
            ),
            "again: of a user's saves of an item, the mean number of days until the user is "
            "active again with that item at most 7, "
            "in days 2 to 7 after; a policy can manufacture it by showing",
        ),
        (
            Signal("paid", event("purchase", novel_for=90), count("refund"), (0, 30)),
            "paid: of a user's purchases (the first in 90 days), the mean number of refunds in "
            "days 0 to 30 after",
        ),
        (
            Signal("left", event("skip", "creator", 1), cancelled(), (1, 60), ("organic",)),
            "left: of a user's skips of a creator (the first in 1 day), the share where the user "
            "cancels, organically, in days 1 to 60 after",
        ),
        (
            Signal("saved", discovery(28, "item"), saves("item") >= 1, (0, 0)),
            "saved: of a user's discoveries of an item (first touch in 28 days), the share with "
            "at least 1 save of that item on the same day",
        ),
        (
            Signal("skipped", exposure(), skips("creator"), (1, 1), ("recommended",)),
            "skipped: of the slots that show a user some creator, the mean number of skips of "
            "that creator, when recommended, on day 1 after",
        ),
        (
            Signal("heard", discovery(28), completion("creator") >= 0.9, (0, 7)),
            "heard: of a user's discoveries of a creator (first touch in 28 days), "
            "the share where plays of that creator last at least 0.9 of an item on average in "
            "days 0 to 7 after",
        ),
        (
            Signal("heard", enrolment(), completion(), (1, 7)),
            "heard: of users, from their enrolment (first exposure in a trial, else first event), "
            "the mean share of an item that a play lasts in days 1 to 7 after",
        ),
        (
            Signal("visits", enrolment(), sessions() >= 1, (1, 7)),
            "visits: of users, from their enrolment (first exposure in a trial, else first event), "
            "the share with at least 1 session in days 1 to 7 after",
        ),
        (
            Signal("wide", user_day(), habits("item", days=2) >= 1, (1, 28)),
            "wide: of the days on which a user is active, the share with at least 1 item that the "
            "user is active with on at least 2 days, "
            "organically, in days 1 to 28 after",
        ),
        (
            Signal("deep", discovery(28), (plays("creator") / sessions()) >= 2, (1, 28)),
            "deep: of a user's discoveries of a creator (first touch in 28 days), the share with "
            "at least 2 plays of that creator per session "
            "in days 1 to 28 after",
        ),
        (
            Signal(
                "share", discovery(28, "item"), days_with("item") / days_with("creator"), (1, 28)
            ),
            "share: of a user's discoveries of an item (first touch in 28 days), "
            "the mean number of days active with that item per day active with that creator, "
            "organically, in days 1 to 28 after",
        ),
        (
            Signal("more", enrolment(), minutes().above_baseline(7), (1, 28)),
            "more: of users, from their enrolment (first exposure in a trial, else first event), "
            "the mean number of minutes above the user's own rate in the 7 days before in days 1 "
            "to 28 after",
        ),
        (
            Signal("more", exposure(), days_with("creator").above_baseline(14) >= 1, (1, 14)),
            "more: of the slots that show a user some creator, the share where the user is active "
            "with that creator on at least 1 day "
            "above the user's own rate in the 14 days before, organically, in days 1 to 14 after",
        ),
    ],
)
def test_a_signal_prints_as_the_sentence_it_means(signal: Signal, sentence: str) -> None:
    assert str(signal) == sentence
    assert signal.version in signal._repr_html_()
    assert sentence.split(": ", 1)[1] in html.unescape(signal._repr_html_())


@given(
    signals(),
    st.sampled_from((1e-9, 1.0, 1e3)),
    st.none() | st.lists(st.sampled_from(ORIGINS), min_size=1, max_size=3).map(tuple),
)
@examples(80)
def test_signals_that_print_alike_mean_alike(
    one: Signal, nudge: float, origin: tuple[str, ...] | None
) -> None:
    threshold = one.measure.threshold
    try:
        nudged = (
            one
            if threshold is None
            else replace(one, measure=replace(one.measure, threshold=threshold + nudge))
        )
        others = (nudged, declared(one.name, one.entry, one.measure, one.window, origin))
    except ConfigError:
        reject()
    for other in others:
        assert (str(other) == str(one)) == (meaning(other) == meaning(one))


GRID_ENTRIES = (
    *(discovery(novel_for, of) for novel_for in (None, 1, 28) for of in KEYS),
    *(exposure(of) for of in KEYS),
    *(user_day(dormant_for) for dormant_for in (None, 1, 28)),
    enrolment(),
    *(
        event(kind, of, novel_for)
        for kind in ("play", "save", "cancel")
        for of in (None, *KEYS)
        for novel_for in (None, 1, 28)
    ),
)
GRID_AMOUNTS = (
    *(active_days(), days_with("creator"), days_with("item"), sessions()),
    *(measure(of) for measure in (minutes, plays, saves, skips) for of in (None, *KEYS)),
    *(count(kind, of) for kind in KINDS for of in (None, *KEYS)),
)
GRID_MEASURES = (
    *GRID_AMOUNTS,
    *(returned(), cancelled()),
    *(measure(of) for measure in (completion, time_to_return) for of in (None, *KEYS)),
    *(habits(of, days) for of in KEYS for days in (1, 2, 3)),
    *(one.above_baseline(days) for one in GRID_AMOUNTS for days in (1, 2, 60)),
    *(one / other for one in GRID_AMOUNTS for other in GRID_AMOUNTS if one != other),
)


def test_in_a_grid_of_everything_sentence_version_and_meaning_tell_the_same_signals_apart() -> None:
    tried = [
        (entry, measure, None, (1, 28), None)
        for entry in (discovery(7, "item"), enrolment())
        for measure in GRID_MEASURES
    ]
    some = [
        measure
        for number, measure in enumerate(GRID_MEASURES)
        if measure.per is None or number % 97 == 0
    ]
    tried += [(entry, measure, None, (1, 28), None) for entry in GRID_ENTRIES for measure in some]
    tried += [
        (discovery(7, "item"), measure, at_least, (1, 28), None)
        for measure in some
        for at_least in (0.5, 1, 1.5, 2)
    ]
    windows = ((1, 28), (2, 28), (1, 27), (0, 28), (0, 0), (1, 1))
    sources = (
        None,
        ORIGINS,
        *((origin,) for origin in ORIGINS),
        ("autoplay", "organic"),
        ("recommended", "organic"),
    )
    tried += [
        (discovery(7, "item"), measure, None, window, origin)
        for measure in some
        for window in windows
        for origin in sources
    ]
    told, meant, versions = set[str](), set[object](), set[str]()
    for entry, measure, at_least, window, origin in tried:
        try:
            one = declared(
                "s", entry, measure if at_least is None else measure >= at_least, window, origin
            )
        except ConfigError:
            continue
        told.add(str(one))
        meant.add(meaning(one))
        versions.add(one.version)
    assert len(told) == len(versions) == len(meant) > 5_000


@given(signals(), signals())
@examples(60)
def test_two_signals_of_different_meaning_never_print_alike(one: Signal, other: Signal) -> None:
    same = replace(other, name=one.name)
    assert (
        (str(same) == str(one)) == (meaning(same) == meaning(one)) == (same.version == one.version)
    )


# -- TOML and version
# --------------------------------------------------------------------------------


@given(signals())
@examples(100)
def test_every_declaration_survives_toml(signal: Signal) -> None:
    text = signal.to_toml()
    back = Signal.from_toml(text)
    assert back == signal
    assert hash(back) == hash(signal)
    assert (back.version, back.label, str(back)) == (signal.version, signal.label, str(signal))
    assert Signal.from_mapping(signal.name, tomllib.loads(text)["signals"][signal.name]) == signal


@given(signals(), signals(), st.data())
@examples(100)
def test_the_version_changes_when_and_only_when_the_definition_does(
    one: Signal, other: Signal, data: st.DataObject
) -> None:
    assert replace(one, name="another").version == one.version
    assert (
        replace(one, origin=tuple(data.draw(st.permutations(one.origins)))).version == one.version
    )
    try:
        moved = declared(one.name, one.entry, one.measure, one.window, other.origin)
    except ConfigError:
        reject()
    for changed in (other, moved):
        assert (changed.version == one.version) == (meaning(changed) == meaning(one))


def test_a_default_written_out_is_the_same_version() -> None:
    for measure, origins in (
        (days_with("creator"), ("organic",)),
        (minutes(), ORIGINS),
        (plays("item"), ORIGINS[::-1]),
    ):
        entry = discovery(of="item")
        assert (
            Signal("s", entry, measure).version
            == Signal("s", entry, measure, (1, 28), origins).version
        )
    assert (
        Signal("s", user_day(), returned()).version
        == Signal("s", user_day(), returned() >= 1).version
    )


def test_a_whole_and_a_decimal_threshold_are_one_definition() -> None:
    whole = Signal.from_toml(
        '[signals.s]\nentry = "user_day"\nmeasure = { kind = "minutes", threshold = 3 }\n'
    )
    decimal = Signal("s", user_day(), minutes() >= 3.0)
    assert whole == decimal
    assert (
        whole.version
        == decimal.version
        == Signal("s", user_day(), minutes() >= cast(Any, np.int64(3))).version
    )


@pytest.mark.parametrize(
    "changed",
    [
        Signal("habit", discovery(27), days_with("creator") >= 3, (1, 28)),
        Signal("habit", discovery(None), days_with("creator") >= 3, (1, 28)),
        Signal("habit", discovery(28, "item"), days_with("creator") >= 3, (1, 28)),
        Signal("habit", exposure(), days_with("creator") >= 3, (1, 28)),
        Signal("habit", discovery(28), days_with("creator") >= 4, (1, 28)),
        Signal("habit", discovery(28), days_with("creator"), (1, 28)),
        Signal("habit", discovery(28), active_days() >= 3, (1, 28)),
        Signal("habit", discovery(28), days_with("creator") >= 3, (2, 28)),
        Signal("habit", discovery(28), days_with("creator") >= 3, (1, 27)),
        Signal(
            "habit",
            discovery(28),
            days_with("creator") >= 3,
            (1, 28),
            origin=ORIGINS,
            gameable=True,
        ),
        Signal("habit", event("play", "creator", 28), days_with("creator") >= 3, (1, 28)),
        Signal("habit", discovery(28), (days_with("creator") / active_days()) >= 1, (1, 28)),
        Signal("habit", discovery(28), days_with("creator").above_baseline(60) >= 3, (1, 28)),
    ],
)
def test_every_part_of_a_definition_is_in_its_version(changed: Signal) -> None:
    habit = Signal("habit", discovery(28), days_with("creator") >= 3, (1, 28))
    assert changed.version != habit.version
    assert changed != habit


@pytest.mark.parametrize(
    ("signal", "version"),
    [
        (Signal("s", discovery(28), days_with("creator") >= 3, (1, 28)), "bc08241b"),
        (Signal("s", user_day(), returned(), (1, 7)), "f6c1a668"),
        (Signal("s", user_day(28), active_days() >= 3, (1, 28)), "bfae320d"),
        (Signal("s", user_day(), plays() / sessions(), (1, 7)), "b5826375"),
        (Signal("s", enrolment(), habits(), (1, 28)), "76d4a1be"),
        (Signal("s", event("save", "item"), days_with("item") >= 1, (1, 28)), "7e5168af"),
        (Signal("s", user_day(), cancelled(), (1, 60)), "f92d8411"),
    ],
)
def test_the_version_of_a_definition_does_not_drift_between_releases(
    signal: Signal, version: str
) -> None:
    """Stored beliefs, rewards and cards name versions: a change here orphans all of them."""
    assert signal.version == version


def test_one_meaning_has_one_name() -> None:
    for counted, measure in (("play", plays), ("save", saves), ("skip", skips)):
        assert count(counted) == measure()
        assert count(counted, "item") == measure("item")
    assert (count("cancel") >= 1) == cancelled()
    for other in (
        count("cancel"),
        count("cancel") >= 2,
        count("cancel", "item") >= 1,
        count("cancel").above_baseline(7) >= 1,
    ):
        assert other.kind == "count"
    assert (
        (count("cancel") / sessions()) >= 1
    ).per == sessions()  # the threshold is the ratio's, so it is no yes or no
    assert Signal.from_mapping(
        "s", {"entry": "user_day", "measure": {"kind": "count", "event": "save"}}
    ) == Signal("s", user_day(), saves())


def test_what_is_not_degenerate_is_not_refused() -> None:
    """The other side of each refusal: a check that refuses everything would pass the list above."""
    for signal in (
        Signal("s", event("save"), saves() >= 2, (0, 7)),
        Signal("s", event("save"), saves() >= 1, (1, 7)),
        Signal(
            "s", event("save"), saves() >= 1, (0, 7), ("organic",)
        ),  # the entry may be of another origin
        Signal("s", event("save"), skips() >= 1, (0, 7)),
        Signal("s", user_day(), sessions() >= 2, (0, 7)),
        Signal("s", event("cancel"), sessions() >= 1, (0, 7)),
        Signal("s", discovery(7), days_with("creator").above_baseline(28)),
        Signal("s", discovery(28), skips("creator").above_baseline(28)),  # a skip is no touch
        Signal(
            "s", discovery(28), minutes().above_baseline(28)
        ),  # of everything, not of what was discovered
        Signal("s", discovery(28, "item"), plays("creator").above_baseline(28)),
        Signal("s", user_day(7), plays().above_baseline(28)),
        Signal("s", user_day(28), skips().above_baseline(7)),
        Signal("s", event("save", "item", 28), plays("item").above_baseline(7)),
        Signal("s", event("save", "item", 28), saves().above_baseline(7)),
        Signal("s", event("save", "item"), saves("item").above_baseline(7)),
        Signal("s", event("save", "item"), cancelled(), (0, 7)),
        Signal("s", event("cancel"), count("cancel"), (0, 7)),
        Signal("s", user_day(), active_days() / sessions(), (1, 7), ORIGINS),
        Signal("s", exposure(), sessions() >= 1, (0, 7)),
        Signal("s", user_day(), habits(days=7) >= 100, (1, 7)),
        Signal("s", discovery(), (days_with("creator") / active_days()) >= 1),
        Signal("s", discovery(), (minutes("creator") / active_days()) >= 2),
        Signal("s", event("play", "creator"), days_with("creator").above_baseline(28)),
        Signal("s", user_day(), minutes() >= 1_440, (1, 1)),
        Signal("s", enrolment(), active_days(), (1, 28), ORIGINS),
        Signal("s", discovery(), minutes("creator"), (0, 28)),
    ):
        assert Signal.from_toml(signal.to_toml()) == signal


def test_signals_are_keys_of_a_dictionary_however_their_parts_were_given() -> None:
    table = {
        "entry": "user_day",
        "measure": "minutes",
        "window": [0, 7],
        "origin": ["organic", "autoplay", "organic"],
    }
    from_lists = Signal.from_mapping("s", table)
    plain = Signal("s", user_day(), minutes(), (0, 7), ("autoplay", "organic"))
    assert {from_lists: 1.0}[plain] == 1.0


def test_a_short_form_of_entry_and_measure_is_read() -> None:
    assert Signal.from_mapping("s", {"entry": "user_day", "measure": "returned"}) == Signal(
        "s", user_day(), returned(), (1, 28)
    )


# -- what cannot be meant
# ------------------------------------------------------------------------------


def declare(**table: Any) -> Callable[[], Signal]:
    return lambda: Signal.from_mapping("s", {"entry": "user_day", "measure": "minutes", **table})


HABIT = Signal("s", discovery(), days_with("creator"))
IMPOSSIBLE: list[tuple[Callable[[], object], str, str, str]] = [
    (
        lambda: Entry(cast(Any, "birth")),
        "kind",
        "'birth'",
        "discovery, exposure, user_day, enrolment, event",
    ),
    (lambda: Measure(cast(Any, "joy")), "kind", "'joy'", "active_days, returned, days_with"),
    (lambda: discovery(of=cast(Any, "album")), "of", "'album'", "creator, item"),
    (lambda: event("play", cast(Any, "album")), "of", "'album'", "creator, item"),
    (lambda: Entry("event"), "event", "None", "play, skip, save"),
    (lambda: event("play", novel_for=366), "novel_for", "366", "1 to 365"),
    (lambda: Entry("enrolment", novel_for=3), "novel_for", "3", "only for a discovery or an event"),
    (lambda: user_day(366), "dormant_for", "366", "1 to 365"),
    (lambda: user_day(cast(Any, 2.5)), "dormant_for", "2.5", "whole days"),
    (lambda: Entry("event", event="play", dormant_for=3), "dormant_for", "3", "only for user_day"),
    (lambda: Entry("exposure"), "of", "None", "creator, item"),
    (lambda: Entry("user_day", "item"), "of", "'item'", "discovery and exposure"),
    (lambda: Entry("exposure", "item", 28), "novel_for", "28", "only for a discovery"),
    (lambda: discovery(0), "novel_for", "0", "1 to 365"),
    (lambda: discovery(366), "novel_for", "366", "1 to 365"),
    (lambda: discovery(cast(Any, 2.5)), "novel_for", "2.5", "whole days"),
    (lambda: discovery(cast(Any, "28")), "novel_for", "'28'", "whole days"),
    (lambda: discovery(True), "novel_for", "True", "whole days"),
    (lambda: Measure("days_with"), "of", "None", "creator, item"),
    (lambda: Measure("returned", "creator"), "of", "'creator'", "days_with"),
    (lambda: Measure("active_days", "item"), "of", "'item'", "days_with"),
    (lambda: minutes() >= 0, "threshold", "0", "positive"),
    (lambda: minutes() >= float("nan"), "threshold", "nan", "positive"),
    (lambda: minutes() >= float("inf"), "threshold", "inf", "positive"),
    (lambda: minutes() >= cast(Any, "3"), "threshold", "'3'", "positive number"),
    (lambda: Measure("plays", None, True), "threshold", "True", "positive number"),
    (lambda: (minutes() >= 2) >= 4, "threshold", "4", "threshold 2 already"),
    (lambda: Signal("1st", user_day(), minutes()), "name", "'1st'", "a letter"),
    (lambda: Signal("", user_day(), minutes()), "name", "''", "a letter"),
    (lambda: Signal(cast(Any, 7), user_day(), minutes()), "name", "7", "a letter"),
    (lambda: replace(HABIT, window=cast(Any, (1,))), "window", "(1,)", "two whole days"),
    (
        lambda: replace(HABIT, window=cast(Any, (1.0, 2.0))),
        "window",
        "(1.0, 2.0)",
        "two whole days",
    ),
    (lambda: replace(HABIT, window=(True, 7)), "window", "(True, 7)", "two whole days"),
    (lambda: replace(HABIT, window=cast(Any, 28)), "window", "28", "two whole days"),
    (lambda: replace(HABIT, window=(7, 1)), "window", "(7, 1)", "0 <= first <= last <= 365"),
    (lambda: replace(HABIT, window=(1, 366)), "window", "(1, 366)", "365"),
    (lambda: replace(HABIT, window=(-1, 3)), "window", "(-1, 3)", "0 <= first"),
    (lambda: replace(HABIT, window=(0, 7)), "window", "(0, 7)", "day 1"),
    (
        lambda: Signal("s", discovery(), days_with("creator") >= 4, (1, 3)),
        "threshold",
        "4",
        "at most 3",
    ),
    (lambda: Signal("s", user_day(), minutes("item")), "of", "'item'", "discovery() or exposure()"),
    (lambda: Signal("s", discovery(of="creator"), plays("item")), "of", "'item'", "'creator'"),
    (lambda: event("birth"), "event", "'birth'", "play, skip, save"),
    (
        lambda: Entry("discovery", "item", event="play"),
        "event",
        "'play'",
        "only for entries of kind event",
    ),
    (lambda: Entry("enrolment", dormant_for=3), "dormant_for", "3", "only for user_day"),
    (lambda: user_day(0), "dormant_for", "0", "1 to 365"),
    (lambda: Entry("user_day", novel_for=3), "novel_for", "3", "only for a discovery or an event"),
    (lambda: Measure("plays", event="save"), "event", "'save'", "only a count"),
    (lambda: count("joy"), "event", "'joy'", "play, skip"),
    (lambda: Measure("sessions", "creator"), "of", "'creator'", "whatever the user does"),
    (lambda: habits(days=0), "days", "0", "1 to 365"),
    (lambda: Measure("plays", days=3), "days", "3", "only habits"),
    (lambda: Measure("habits", "creator"), "days", "None", "1 to 365"),
    (lambda: returned().above_baseline(7), "baseline", "7", "no daily rate"),
    (
        lambda: (plays() / sessions()).above_baseline(7),
        "baseline",
        "7",
        "a ratio has no daily rate",
    ),
    (lambda: plays().above_baseline(0), "baseline", "0", "1 to 365"),
    (lambda: plays().above_baseline(3).above_baseline(3), "baseline", "3 days already", "one"),
    (lambda: plays().above_baseline(366), "baseline", "366", "1 to 365"),
    (lambda: habits().above_baseline(7), "baseline", "7", "habits has no daily rate"),
    (lambda: completion().above_baseline(7), "baseline", "7", "completion has no daily rate"),
    (lambda: cancelled().above_baseline(7), "baseline", "7", "cancelled has no daily rate"),
    (lambda: plays() / plays(), "per", "plays", "always 1"),
    (lambda: count("play") / plays(), "per", "plays", "always 1"),
    (lambda: plays() / cast(Any, 7), "per", "7", "another measure"),
    (lambda: completion() / sessions(), "ratio", "completion", "amounts"),
    (lambda: plays() / habits(), "ratio", "habits", "amounts"),
    (lambda: plays() / (saves() / sessions()), "per", "saves", "a plain amount"),
    (lambda: plays() / saves().above_baseline(7), "per", "saves", "a plain amount"),
    (
        lambda: Measure("count", None, cast(Any, True), "cancel"),
        "threshold",
        "True",
        "positive number",
    ),
    (lambda: plays() / sessions() / sessions(), "ratio", "plays", "one numerator"),
    (lambda: (plays() >= 3) / sessions(), "threshold", "3", "the ratio first"),
    (lambda: plays() / (sessions() >= 2), "per", "sessions", "a plain amount"),
    (lambda: plays() / returned(), "ratio", "returned", "amounts"),
    (lambda: time_to_return() >= 3, "threshold", "3", "returned() and window=(1, k)"),
    (lambda: cancelled() >= 2, "threshold", "2", "a yes or no already"),
    (lambda: completion() >= 1.5, "threshold", "1.5", "at most 1"),
    (lambda: Signal("s", enrolment(), time_to_return(), (0, 7)), "window", "(0, 7)", "day 1"),
    (
        lambda: Signal("s", event("save"), saves() >= 1, (0, 7)),
        "signal s",
        "guarantees",
        "window=(1, ...)",
    ),
    (
        lambda: Signal("s", event("save", "item"), saves("item") >= 1, (0, 7)),
        "signal s",
        "guarantees",
        "a higher threshold",
    ),
    (
        lambda: Signal("s", event("cancel"), cancelled(), (0, 7)),
        "signal s",
        "guarantees",
        "window=(1, ...)",
    ),
    (
        lambda: Signal("s", user_day(), sessions() >= 1, (0, 7)),
        "signal s",
        "guarantees",
        "window=(1, ...)",
    ),
    (
        lambda: replace(HABIT, origin=ORIGINS),
        "origin",
        "'recommended'",
        "counts the exposures it causes",
    ),
    (
        lambda: Signal("s", enrolment(), habits(), (1, 28), ("organic", "autoplay")),
        "origin",
        "'autoplay'",
        "gameable=True",
    ),
    (lambda: replace(HABIT, gameable=True), "gameable", "True", "expected false"),
    (lambda: replace(HABIT, gameable=cast(Any, "yes")), "gameable", "'yes'", "true or false"),
    (
        lambda: Signal("s", discovery(28), days_with("creator").above_baseline(28)),
        "baseline",
        "28",
        "always 0",
    ),
    (
        lambda: Signal("s", discovery(None, "item"), minutes("item").above_baseline(365)),
        "baseline",
        "365",
        "always 0",
    ),
    (
        lambda: Signal("s", discovery(28), count("like", "creator").above_baseline(7)),
        "baseline",
        "7",
        "always 0",
    ),
    (lambda: Signal("s", user_day(28), plays().above_baseline(28)), "baseline", "28", "always 0"),
    (lambda: Signal("s", user_day(28), sessions().above_baseline(7)), "baseline", "7", "always 0"),
    (
        lambda: Signal("s", event("save", "item", 28), saves("item").above_baseline(7)),
        "baseline",
        "7",
        "always 0",
    ),
    (
        lambda: Signal("s", event("skip", novel_for=7), skips().above_baseline(7)),
        "baseline",
        "7",
        "always 0",
    ),
    (lambda: Signal("s", user_day(), habits(days=9), (1, 7)), "days", "9", "at most 7"),
    (lambda: Signal("s", discovery(), habits()), "habits", "about one", "user_day()"),
    (lambda: Signal("s", user_day(), plays() / plays("item")), "of", "'item'", "event(of=...)"),
    (lambda: Signal("s", event("play"), saves("item")), "of", "'item'", "event(of=...)"),
    (lambda: Signal("s", discovery(), plays() / plays("item")), "of", "'item'", "'creator'"),
    (
        lambda: Signal("s", enrolment(), minutes() / active_days(), (0, 7)),
        "window",
        "(0, 7)",
        "day 1",
    ),
    (lambda: Signal("s", enrolment(), habits(), (0, 7)), "window", "(0, 7)", "day 1"),
    (
        lambda: Signal("s", event("save"), saves() >= 0.5, (0, 0)),
        "signal s",
        "guarantees",
        "a higher threshold",
    ),
    (
        lambda: Signal("s", event("refund"), count("refund") >= 1, (0, 7)),
        "signal s",
        "guarantees",
        "window=(1, ...)",
    ),
    (
        lambda: Signal("s", event("visit"), sessions() >= 1, (0, 7)),
        "signal s",
        "guarantees",
        "window=(1, ...)",
    ),
    (
        lambda: Signal("s", enrolment(), time_to_return(), (1, 7), ("organic",), True),
        "gameable",
        "True",
        "expected false",
    ),
    (
        lambda: Signal("s", discovery(), time_to_return("creator"), (1, 7), ORIGINS),
        "origin",
        "'recommended'",
        "gameable=True",
    ),
    (
        lambda: Signal(
            "s", discovery(), days_with("creator") / active_days(), (1, 7), ("autoplay",)
        ),
        "origin",
        "'autoplay'",
        "gameable=True",
    ),
    (lambda: Signal("s", user_day(), returned() >= 8, (1, 7)), "threshold", "8", "at most 7"),
    (
        lambda: Signal("s", user_day(), active_days().above_baseline(7) >= 8, (1, 7)),
        "threshold",
        "8",
        "at most 7",
    ),
    (
        lambda: Signal("s", discovery(), minutes("creator") >= 10_081, (1, 7)),
        "threshold",
        "10081",
        "at most 10,080",
    ),
    (
        lambda: Signal("s", user_day(), minutes() >= 1_441, (1, 1)),
        "threshold",
        "1441",
        "at most 1,440",
    ),
    (lambda: Signal("s", user_day(), sessions() >= 49, (1, 1)), "threshold", "49", "at most 48"),
    (
        lambda: Signal("s", user_day(), sessions(), (1, 1), ("organic",)),
        "origin",
        "('organic',) given",
        "a session is a run",
    ),
    (
        lambda: Signal("s", user_day(), plays() / sessions(), (1, 1), ("autoplay",)),
        "origin",
        "('autoplay',) given",
        "a session is a run",
    ),
    (
        lambda: Signal("s", user_day(), active_days() / sessions()),
        "origin",
        "where none is given",
        "all of organic, recommended, autoplay",
    ),
    (
        lambda: Signal("s", discovery(), (days_with("creator") / active_days()) >= 2),
        "threshold",
        "2",
        "at most 1",
    ),
    (lambda: replace(HABIT, origin=()), "origin", "()", "organic, recommended, autoplay"),
    (
        lambda: replace(HABIT, origin=("radio",)),
        "origin",
        "'radio'",
        "organic, recommended, autoplay",
    ),
    (declare(origin="organic"), "origin", "'organic'", "a list of some of"),
    (declare(origin=["organic", 3]), "origin", "3", "organic, recommended, autoplay"),
    (declare(origin=[["organic"]]), "origin", "['organic']", "organic, recommended, autoplay"),
    (declare(window="28"), "window", "'28'", "two whole days"),
    (declare(window=28), "window", "28", "two whole days"),
    (declare(window=[1, 28.0]), "window", "[1, 28.0]", "two whole days"),
    (declare(entry=3), "signals.s.entry", "3", "a table"),
    (declare(measure={"kind": "minutes", "threshold": "3"}), "threshold", "'3'", "positive number"),
    (
        declare(entry={"kind": "discovery", "of": "item", "novel_for": "28"}),
        "novel_for",
        "'28'",
        "whole days",
    ),
    (declare(entry={"kind": "user_day", "dormant_for": "28"}), "dormant_for", "'28'", "whole days"),
    (
        declare(measure={"kind": "habits", "of": "creator", "days": 1.5}),
        "days",
        "1.5",
        "whole days",
    ),
    (declare(measure={"kind": "plays", "per": 3}), "signals.s.measure.per", "3", "a table"),
    (declare(measure={"kind": "plays", "baseline": 0}), "baseline", "0", "1 to 365"),
    (declare(gameable=1), "gameable", "1", "true or false"),
    (lambda: Signal.from_mapping("s", cast(Any, 3)), "signals.s", "3", "a table"),
    (lambda: Signal.from_toml("signals = 3"), "signals", "3", "exactly one table"),
    (lambda: Signal.from_toml(""), "signals", "0 tables", "exactly one table"),
    (
        lambda: Signal.from_toml(HABIT.to_toml() + replace(HABIT, name="t").to_toml()),
        "signals",
        "2 tables",
        "exactly one table",
    ),
]


@pytest.mark.parametrize(
    ("make", "key", "value", "expected"),
    IMPOSSIBLE,
    ids=[f"{key}={value}-{n}" for n, (_, key, value, _) in enumerate(IMPOSSIBLE)],
)
def test_an_impossible_declaration_names_key_value_and_what_was_expected(
    make: Callable[[], object], key: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    message = str(refused.value)
    assert key in message
    assert value in message
    assert expected in message


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"entry": "user_day", "measure": "minutes", "windw": [1, 28]}, "signals.s.windw"),
        (
            {"entry": {"kind": "discovery", "novelfor": 28}, "measure": "minutes"},
            "signals.s.entry.novelfor",
        ),
        (
            {"entry": "user_day", "measure": {"kind": "minutes", "atleast": 3}},
            "signals.s.measure.atleast",
        ),
        (
            {
                "entry": "user_day",
                "measure": {"kind": "plays", "per": {"kind": "sessions", "threshold": 2}},
            },
            "signals.s.measure.per.threshold",
        ),
    ],
)
def test_an_unknown_key_is_an_error_with_its_path_and_the_keys_there_are(
    table: dict[str, Any], path: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{path}: unknown key; expected some of .*"):
        Signal.from_mapping("s", table)


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"measure": "minutes"}, "signals.s.entry"),
        ({"entry": "user_day"}, "signals.s.measure"),
        ({"entry": {}, "measure": "minutes"}, "signals.s.entry.kind"),
    ],
)
def test_a_missing_key_is_an_error_with_its_path(table: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{path}: missing"):
        Signal.from_mapping("s", table)


def test_text_that_is_no_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        Signal.from_toml("[signals.s\n")
