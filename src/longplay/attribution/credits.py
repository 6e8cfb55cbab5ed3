"""Attribution: one delayed outcome shared out over the exposures that came before it, exactly.

A rule decides who gets which share; a baseline decides how much of the outcome is shared. The
effect on a single user is not identifiable, so no rule is right for a single user. Whether a rule's
total is right can be tested by a randomised holdout (`experiments.holdout`). How an outcome is split
is in `attribution.rules`. Axes: N entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import numpy as np
import polars as pl

from longplay.attribution.rules import LOOKBACK_DAYS, RULE_KINDS, Rule, apportion, weights
from longplay.attribution.unexposed import Unexposed
from longplay.decisions import Decisions
from longplay.display import html_table, text_table
from longplay.errors import ConfigError, DataError
from longplay.lake.daily import DAY_US
from longplay.signals.declare.checks import MAX_WINDOW_DAYS, check_choice, is_whole_number
from longplay.signals.declare.declaration import Declaration
from longplay.signals.outcomes.in_memory import Outcomes, slates_of

BY = (
    "entry",
    "user_id",
    "decision_id",
    "slot",
    "surface",
    "item_id",
    "creator_id",
    "position",
    "exposed",
)
ENTRY_AND_EXPOSURE = (
    "entry",
    "user_id",
    "decision_id",
    "slot",
    "surface",
    "item_id",
    "creator_id",
    "time",
    "position",
    "touches",
)


@dataclass(frozen=True)
class Credits:
    """Outcomes shared out over exposures; returned by `Outcomes.credit`.

    The credits of an entry sum to its outcome less its baseline, exactly, in whatever order they
    are added.

    Attributes:
        signal: whose outcomes were shared out.
        rule: how they were shared out.
        lookback: days before an entry in which an exposure can be credited.
        as_of: the moment of knowledge (UTC).
        frame: one row per entry and credited exposure: entry (row of `Outcomes.frame`), user_id,
            decision_id, slot, surface, item_id, creator_id, time (of the exposure), position (1 for
            the earliest touch of the entry), touches (their number), credit (null while the outcome
            is immature or unknown, never 0). An entry without a credited exposure has one row, in
            which all columns of the exposure are null.
        entries: one row per entry: entry, user_id, time, outcome, baseline, due (outcome less
            baseline: the amount that is shared out).
        baseline: what was subtracted from the outcome, in words.
    """

    signal: Declaration
    rule: Rule
    lookback: int
    as_of: datetime
    frame: pl.DataFrame
    entries: pl.DataFrame
    baseline: str

    def __len__(self) -> int:
        return self.frame.height

    @property
    def name(self) -> str:
        """The rule's name, and "less unexposed" where a learnt baseline was subtracted."""
        return self.rule.kind + (" less unexposed" if "unexposed" in self.baseline else "")

    def totals(self, by: str | Sequence[str] = "exposed") -> pl.DataFrame:
        """Sum of credits by some of `BY`; `exposed` is whether an exposure is credited at all.

        Columns: those of `by`, entries, credit. Immature outcomes are left out. The credits of all
        rows sum to `due`, to the last bit where they are added by `math.fsum`.

        Raises:
            ConfigError: a column that is not in `BY`.
        """
        names = [by] if isinstance(by, str) else list(by)
        for name in names:
            check_choice("totals", "by", name, BY)
        matured = self.frame.filter(pl.col("credit").is_not_null()).with_columns(
            exposed=pl.col("decision_id").is_not_null()
        )
        groups = (
            matured.group_by(names)
            .agg(entries=pl.col("entry").n_unique(), credits=pl.col("credit"))
            .sort(names, nulls_last=True)
        )
        return groups.with_columns(
            credit=pl.Series([math.fsum(part) for part in groups["credits"]], dtype=pl.Float64)
        ).drop("credits")

    @property
    def credited(self) -> float:
        """Sum of the credits of exposures."""
        return math.fsum(
            self.frame.filter(pl.col("decision_id").is_not_null())["credit"].drop_nulls()
        )

    @property
    def due(self) -> float:
        """Sum of outcomes less baselines over the entries whose outcome is known."""
        return math.fsum(self.entries["due"].drop_nulls())

    def __str__(self) -> str:
        matured = self.entries.filter(pl.col("due").is_not_null())
        baseline = math.fsum(matured["baseline"])
        uncredited = self.due - self.credited
        if matured.height < self.entries.height:
            waiting = f"; {self.entries.height - matured.height:,} immature or unknown"
        else:
            waiting = ""
        return (
            f"{self.signal.label} by {self.rule}, {self.lookback} days back: "
            f"{math.fsum(matured['outcome']):,.6g} of {matured.height:,} entries = "
            f"{self.credited:,.6g} to exposures + {uncredited:,.6g} to none + {baseline:,.6g} baseline "
            f"({self.baseline}){waiting}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>" + self.totals("surface")._repr_html_()


@dataclass(frozen=True)
class Comparison:
    """All rules side by side on the same outcomes and exposures; returned by `compare_rules`.

    Attributes:
        signal: whose outcomes were shared out.
        lookback: days before an entry in which an exposure can be credited.
        credits: the credits by each rule.
        frame: one row per rule: rule, outcome, to_exposures, to_none, baseline (sums over known
            outcomes; outcome is the sum of the other three), exposures (number of credited
            exposures), top_1% (share of the credit that the 1% most credited exposures get).
    """

    signal: Declaration
    lookback: int
    credits: tuple[Credits, ...]
    frame: pl.DataFrame

    def _table(self) -> tuple[list[str], list[list[str]]]:
        head = ["rule", "to exposures", "to none", "baseline", "exposures", "top 1%"]
        rows = [
            [
                row["rule"],
                f"{row['to_exposures']:,.1f}",
                f"{row['to_none']:,.1f}",
                f"{row['baseline']:,.1f}",
                f"{row['exposures']:,}",
                f"{row['top_1%']:.0%}",
            ]
            for row in self.frame.iter_rows(named=True)
        ]
        return head, rows

    @property
    def _title(self) -> str:
        return (
            f"{self.signal.label}, {self.lookback} days back: a sum of "
            f"{self.frame['outcome'][0]:,.6g} shared out"
        )

    def __str__(self) -> str:
        return f"{self._title}\n{text_table(*self._table())}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._title)}</p>{html_table(*self._table())}"


def credit(
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame,
    rule: Rule | str | None = None,
    *,
    lookback: int = LOOKBACK_DAYS,
    baseline: Unexposed | None = None,
) -> Credits:
    """Share each outcome out over the exposures before its entry; see docs/attribution.md.

    Args:
        outcomes: what is shared out.
        decisions: what was shown; usually without what the user asked for: `shown_unasked(lake)`.
        rule: last_touch, first_touch, discovery_touch, position or recency, or a `Rule` with
            numbers of its own; default discovery_touch for discoveries, else recency.
        lookback: whole days before the entry's day from which exposures count, 0 to 365.
        baseline: the outcomes expected without exposure (`unexposed_baseline`), to be subtracted.
            A baseline that the signal declares is subtracted in any case.

    Raises:
        ConfigError: an unknown rule, one that does not fit the signal, or a lookback that is not
            whole days.
    """
    if rule is None:
        chosen = default_rule(outcomes.signal)
    elif isinstance(rule, str):
        chosen = Rule(rule)  # type: ignore[arg-type]
    else:
        chosen = rule
    if not isinstance(chosen, Rule):
        raise ConfigError(
            f"credit: rule={rule!r} given, expected one of {', '.join(RULE_KINDS)}, or a Rule"
        )
    return _share(outcomes, touches_of(outcomes, decisions, lookback), chosen, lookback, baseline)


def default_rule(signal: Declaration) -> Rule:
    """The rule that is used where none is given: discovery_touch if it fits the signal, else
    recency. `bench/attribution.py` measured which are best, see docs/attribution.md."""
    discovery = Rule("discovery_touch")
    return discovery if discovery.fits(signal) else Rule("recency")


def compare_rules(
    outcomes: Outcomes,
    decisions: Decisions | pl.DataFrame,
    rules: Sequence[Rule | str] | None = None,
    *,
    lookback: int = LOOKBACK_DAYS,
    baseline: Unexposed | None = None,
) -> Comparison:
    """Compare attribution rules on the same outcomes and exposures, as a table.

    Args:
        outcomes: what is shared out.
        decisions: what was shown; see `credit`.
        rules: default all rules that fit the signal.
        lookback: whole days before the entry's day from which exposures count, 0 to 365.
        baseline: adds a row per rule with this baseline subtracted.
    """
    every = [Rule(kind) for kind in RULE_KINDS]
    if rules is None:
        chosen = [rule for rule in every if rule.fits(outcomes.signal)]
    else:
        chosen = [Rule(rule) if isinstance(rule, str) else rule for rule in rules]  # type: ignore[arg-type]
    touches = touches_of(outcomes, decisions, lookback)
    baselines = [None] if baseline is None else [None, baseline]
    results = [
        _share(outcomes, touches, rule, lookback, subtracted)
        for subtracted in baselines
        for rule in chosen
    ]
    rows = []
    for result in results:
        matured = result.entries.filter(pl.col("due").is_not_null())
        paid = result.frame.filter(
            pl.col("decision_id").is_not_null() & pl.col("credit").is_not_null()
        )
        paid_E = np.sort(
            paid.group_by("decision_id", "slot").agg(pl.col("credit").sum())["credit"].to_numpy()
        )[::-1]
        if len(paid_E) and paid_E.sum() > 0:
            best = float(paid_E[: max(len(paid_E) // 100, 1)].sum() / paid_E.sum())
        else:
            best = math.nan
        rows.append(
            {
                "rule": result.name,
                "outcome": math.fsum(matured["outcome"]),
                "to_exposures": result.credited,
                "to_none": result.due - result.credited,
                "baseline": math.fsum(matured["baseline"]),
                "exposures": len(paid_E),
                "top_1%": best,
            }
        )
    return Comparison(outcomes.signal, lookback, tuple(results), pl.DataFrame(rows))


def touches_of(
    outcomes: Outcomes, decisions: Decisions | pl.DataFrame, lookback: int = LOOKBACK_DAYS
) -> pl.DataFrame:
    """Every exposure that may be credited for an entry, sorted by entry and time.

    These are exposures of the entry's creator (or item) to its user, or of anything where entries
    are about users. They were shown on days -lookback to 0 from the entry's day, and not after the
    entry's moment. At the same moment the order is slot, then decision id.

    Returns:
        Columns entry, user_id, decision_id, slot, surface, item_id, creator_id, time, age (days
        before the entry), position, touches, named (whether the entry's event names this exposure
        as its source; null where it names none of these decisions).

    Raises:
        ConfigError: a lookback that is not 0 to 365 whole days.
        DataError: a decision id twice.
    """
    if not is_whole_number(lookback) or not 0 <= lookback <= MAX_WINDOW_DAYS:
        raise ConfigError(
            f"credit: lookback={lookback!r} given, expected 0 to {MAX_WINDOW_DAYS} whole days"
        )
    frame = slates_of("credit", decisions)
    if frame["decision_id"].n_unique() != frame.height:
        raise DataError(
            f"credit: {frame.height - frame['decision_id'].n_unique():,} decision ids occur "
            "twice; expected every decision once"
        )
    of = outcomes.signal.entry.of
    by = ["user_id"] if of is None else ["user_id", f"{of}_id"]
    event = {"event_item": "item_id", "event_decision": "decision_id", "event_slot": "slot"}
    entries = outcomes.frame.with_row_index("entry").select(
        pl.col("entry").cast(pl.Int64),
        *by,
        "day",
        entered="time",
        **{name: pl.col(column) for name, column in event.items()},
    )
    slots = (
        frame.select("user_id", "decision_id", "surface", "time", "slate")
        .join(entries.select("user_id").unique(), on="user_id", how="semi")
        .with_columns(slot=pl.int_ranges(0, pl.col("slate").list.len(), dtype=pl.Int32))
        .explode("slate", "slot", empty_as_null=False)
        .rename({"slate": "item_id"})
        .join(outcomes.creators, on="item_id", how="left")
        .with_columns(shown_day=pl.col("time").dt.epoch("us") // DAY_US)
        .with_columns(stretch=pl.col("shown_day") // (lookback + 1))
    )
    # joined by stretches as long as the lookback, of which an entry reaches two, so that not every
    # slot of a user is compared with every entry
    reached = pl.concat_list(
        (pl.col("day").cast(pl.Int64) - days) // (lookback + 1) for days in (lookback, 0)
    ).list.unique()
    sought = (
        entries.filter(pl.col(by[-1]).is_not_null())
        .with_columns(stretch=reached)
        .explode("stretch", empty_as_null=False)
    )
    near = sought.join(slots, on=[*by, "stretch"], how="inner")
    near = near.filter(
        (pl.col("time") <= pl.col("entered")) & (pl.col("shown_day") >= pl.col("day") - lookback)
    )
    near = near.sort("entry", "time", "slot", "decision_id")
    names_a_decision = pl.col("event_decision").is_in(frame["decision_id"].implode())
    same_item = (pl.col("item_id") == pl.col("event_item")).fill_null(True)
    # without a slot, its item says which
    same_slot = (pl.col("slot") == pl.col("event_slot")).fill_null(same_item)
    return near.select(
        "entry",
        "user_id",
        "decision_id",
        "slot",
        "surface",
        "item_id",
        "creator_id",
        "time",
        age=(pl.col("entered") - pl.col("time")).dt.total_microseconds() / 86_400e6,
        position=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("entry"),
        touches=pl.len().over("entry").cast(pl.Int32),
        named=pl.when(names_a_decision).then(
            (pl.col("decision_id") == pl.col("event_decision")) & same_slot
        ),
    )


def _share(
    outcomes: Outcomes, touches: pl.DataFrame, rule: Rule, lookback: int, baseline: Unexposed | None
) -> Credits:
    """Share outcomes out over their touches; see `credit`.

    Args:
        outcomes: what is shared out, N entries.
        touches: columns of `touches_of`, T rows.
        rule: how it is shared out.
        lookback: days that the touches reach back.
        baseline: what is subtracted first; null: nothing but what the signal declares.
    """
    if not rule.fits(outcomes.signal):
        raise ConfigError(
            f"credit: rule 'discovery_touch' given, but {outcomes.signal.name} is entered by "
            f"{outcomes.signal.entry.kind}; expected an entry by "
            "discovery() or event(of=...), whose own event says where it came from"
        )
    entries, baseline_text = _entries_with_due(outcomes, touches, baseline)
    weight_T = weights(touches, rule, outcomes.frame)
    entry_T = touches["entry"].to_numpy()
    sum_N = np.bincount(entry_T, weights=weight_T, minlength=len(outcomes))
    is_credited_T = (weight_T > 0) & (sum_N[entry_T] > 0)
    entry_T = entry_T[is_credited_T]
    due_N = entries["due"].fill_null(math.nan).to_numpy()
    credit_T = apportion(due_N[entry_T], weight_T[is_credited_T], entry_T)
    credited = (
        touches.filter(pl.Series(is_credited_T))
        .select(*ENTRY_AND_EXPOSURE)
        .with_columns(credit=pl.Series(credit_T, dtype=pl.Float64, nan_to_null=True))
    )
    has_credit_N = np.isin(np.arange(len(outcomes)), entry_T)
    uncredited = entries.filter(~pl.Series(has_credit_N)).select("entry", "user_id", credit="due")
    frame = pl.concat([credited, uncredited], how="diagonal").sort("entry", maintain_order=True)
    return Credits(outcomes.signal, rule, lookback, outcomes.as_of, frame, entries, baseline_text)


def _entries_with_due(
    outcomes: Outcomes, touches: pl.DataFrame, baseline: Unexposed | None
) -> tuple[pl.DataFrame, str]:
    """The table `Credits.entries`, and the text `Credits.baseline`."""
    value_N = outcomes.value
    outcome_N = value_N
    has_own_baseline = "baseline" in outcomes.frame.columns
    if baseline is not None:
        touched_N = np.zeros(len(outcomes), dtype=bool)
        touched_N[touches["entry"].to_numpy()] = True
        baseline_N = baseline.of(outcomes, touched_N)
        text = f"what unexposed pairs come to, {baseline.lookback} days"
    elif has_own_baseline:
        baseline_N = outcomes.frame["baseline"].fill_null(0.0).to_numpy().astype(float)
        text = f"the user's own rate in the {outcomes.signal.measure.baseline} days before"
    else:
        baseline_N = np.zeros(len(outcomes))
        text = "none declared"
    if has_own_baseline:  # the signal has subtracted it already
        due_N = value_N
        outcome_N = value_N + baseline_N
    else:
        due_N = value_N - baseline_N
    entries = outcomes.frame.select("user_id", "time").with_row_index("entry")
    entries = entries.with_columns(
        pl.col("entry").cast(pl.Int64),
        outcome=pl.Series(outcome_N, nan_to_null=True),
        baseline=pl.when(pl.Series(np.isfinite(value_N))).then(pl.Series(baseline_N)),
        due=pl.Series(due_N, nan_to_null=True),
    )
    return entries, text
