"""Ready signals: the outcomes that are needed most often, each with its use and its trap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from longplay.signals.declare.entry import discovery, enrolment, event, user_day
from longplay.signals.declare.measure_functions import (
    active_days,
    cancelled,
    days_with,
    habits,
    plays,
    returned,
    sessions,
    skips,
)
from longplay.signals.signal import Signal


@dataclass(frozen=True)
class Ready:
    """A ready signal with advice.

    Attributes:
        signal: the declaration.
        use: what it is good for, in a sentence or two.
        trap: how it can mislead, in a sentence or two.
    """

    signal: Signal
    use: str
    trap: str


CATALOGUE = (
    Ready(
        Signal("return_1d", user_day(), returned(), (1, 1)),
        "Watch the service from day to day: it matures overnight.",
        "Not a reward: it follows the day of the week and the mix of users, and frequent users open "
        "most entries.",
    ),
    Ready(
        Signal("return_7d", user_day(), returned(), (1, 7)),
        "Weekly return without the effect of weekdays: every window holds each weekday once.",
        "Nearly always 1 for daily users, who open most entries; it says little about those who "
        "are about to leave.",
    ),
    Ready(
        Signal("return_28d", user_day(), returned(), (1, 28)),
        "Churn: a 0 is four weeks of silence.",
        "Too close to 1 to move in a small trial, and one visit counts as much as twenty.",
    ),
    Ready(
        Signal("active_days_28d", enrolment(), active_days(), (1, 28)),
        "The north star of a trial: one number per user, from the day of enrolment.",
        "Not a reward of a slot: it is about a user, so it belongs to no single recommendation.",
    ),
    Ready(
        Signal("habit", discovery(novel_for=28), days_with("creator") >= 3, (1, 28)),
        "Reward recommendations that last: a new creator whom the user comes back to unprompted.",
        "It counts who is discovered, too: in a trial compare sums per enrolled user, never the "
        "mean over entries.",
    ),
    Ready(
        Signal("stickiness_60d", discovery(novel_for=28), days_with("creator"), (1, 59)),
        "The value of a discovery in days: with the day of the discovery itself, 60 of them.",
        "It takes two months to mature; use an early reward. A few fans make up most of the mean.",
    ),
    Ready(
        Signal("lasting_discovery", discovery(novel_for=28), days_with("creator") >= 1, (30, 59)),
        "Lasting interest: still there in the second month, whatever the first month was like.",
        "An early reward sees nothing of its window for 30 days, and one stray play is enough.",
    ),
    Ready(
        Signal("session_depth", user_day(), plays() / sessions(), (1, 7)),
        "How much is played per visit: a guardrail beside signals of return.",
        "Rises when there are fewer sessions: never use it without a count of days. Autoplay counts. "
        "Null for users who do not come back.",
    ),
    Ready(
        Signal("save_and_return", event("save", of="item"), days_with("item") >= 1, (1, 28)),
        "Whether saves are used: what was saved for later is used later.",
        "Only about users who save. A button that saves more easily lowers it although nothing "
        "got worse.",
    ),
    Ready(
        Signal("dormant_reactivation", user_day(dormant_for=28), active_days() >= 3, (1, 28)),
        "Whether those who come back after four weeks stay.",
        "Not how many come back: more campaigns open more, and weaker, entries. A log needs more "
        "than 28 days before the first.",
    ),
    Ready(
        Signal("diversity_of_habits", enrolment(), habits("creator", days=3), (1, 28)),
        "Breadth: with how many creators a user has something to come back to.",
        "Users who spend more time have more habits: read it beside active_days_28d. It counts old "
        "habits, too.",
    ),
    Ready(
        Signal("regret", discovery(novel_for=28, of="item"), skips("item") >= 1, (0, 0)),
        "Clickbait: what was started for the first time was skipped on the same day.",
        "It needs skips in the log. Not every skip is regret, and browsing causes many. The whole day "
        "counts, also what came before the first touch.",
    ),
    Ready(
        Signal("cancel_60d", user_day(), cancelled(), (1, 60)),
        "What the business loses: a guardrail that no recommender may raise.",
        "Rare and late: small trials see nothing. It weighs users by their active days, and users "
        "who have stopped coming open no entries.",
    ),
)
READY: Mapping[str, Signal] = MappingProxyType({row.signal.name: row.signal for row in CATALOGUE})


def ready() -> tuple[Signal, ...]:
    """All ready signals; `longplay signals` lists each with its use.

    >>> [signal.name for signal in ready()][:3]
    ['return_1d', 'return_7d', 'return_28d']
    >>> READY["habit"].window
    (1, 28)
    """
    return tuple(READY.values())


def markdown() -> str:
    """The catalogue as the table of docs/signals.md."""
    lines = ["| signal | what it says | what it is for | how it misleads |", "|---|---|---|---|"]
    for row in CATALOGUE:
        name, sentence = str(row.signal).split(": ", 1)
        label = f"`{name}`<br>`@{row.signal.version}`"
        lines.append(f"| {label} | {sentence} | {row.use} | {row.trap} |")
    return "\n".join(lines) + "\n"
