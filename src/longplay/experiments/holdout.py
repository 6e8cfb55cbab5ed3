"""Credits against a randomised holdout: do a rule's credits add up to what the exposures added?

Who is right about one user nobody can know. In aggregate it is known: users from whom exposures
were withheld at random lack what those exposures added. Only logs are read. Axes: U mature enrolled
users; arms are the experiment's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from longplay.arrays import Float, Int
from longplay.attribution.credits import Credits, compare_rules
from longplay.attribution.rules import LOOKBACK_DAYS, Rule
from longplay.attribution.unexposed import Unexposed, shown_unasked, unexposed_baseline
from longplay.display import html_table, number, percent, text_table, value_with_ends
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate
from longplay.experiments.enrolment import LEAST_USERS, analysed, covariates_of, quality_of
from longplay.experiments.experiment import CONTROL, Experiment
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.signals.outcomes.enrolled_sums import closes_at, sums_by_user
from longplay.signals.outcomes.in_memory import outcomes_of
from longplay.signals.signal import Signal

EVERYTHING = "everything"
ELSEWHERE = ""  # exposures that no arm withholds


@dataclass(frozen=True)
class RuleLine:
    """The credits of one rule compared with one arm of the holdout, per enrolled user.

    Attributes:
        rule: its name.
        part: what was withheld: an arm's name, or "everything".
        credit: what the rule gives to the exposures that the arm withholds, with its error over
            users.
        effect: what those exposures added: control less arm.
        unjudged: share of what the rule gives to exposures that goes to some which the holdout did
            not withhold: shown before enrolment, or elsewhere.
        distance: credit less effect; its error knows that both are of the same users of the
            control.
    """

    rule: str
    part: str
    credit: Estimate
    effect: Estimate
    distance: Estimate
    unjudged: float

    @property
    def z(self) -> float:
        """The distance in standard errors."""
        if self.distance.std_error > 0:
            return self.distance.value / self.distance.std_error
        return math.copysign(math.inf, self.distance.value)

    @property
    def relative(self) -> float:
        """The distance relative to the effect; NaN where the effect's interval contains 0."""
        low, high = self.effect.interval()
        return math.nan if low <= 0 <= high else self.distance.value / abs(self.effect.value)

    @property
    def within(self) -> bool:
        """Whether the credit lies in the effect's 95% interval."""
        low, high = self.effect.interval()
        return low <= self.credit.value <= high


@dataclass(frozen=True)
class Holdout:
    """The credits of every attribution rule, compared with what a holdout says the exposures added.

    Attributes:
        signal: whose outcomes were credited.
        lines: one per rule and part, "everything" first.
        parts: names, "everything" first.
        gap: effect of everything less the sum of the parts' effects: what parts do together that
            none does alone, or instead of each other; null without parts.
        rivals: rules that the holdout cannot tell from the closest one, in total.
        users: mature enrolled users by arm.
        lookback: days.
        as_of: UTC.
        baseline: what was learnt from unexposed pairs; null where none was.
    """

    signal: Signal
    lines: tuple[RuleLine, ...]
    parts: tuple[str, ...]
    gap: Estimate | None
    rivals: tuple[str, ...]
    users: Mapping[str, int]
    lookback: int
    as_of: datetime
    baseline: Unexposed | None

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules, in their order."""
        return tuple(line.rule for line in self.lines if line.part == EVERYTHING)

    def line(self, rule: str, part: str = EVERYTHING) -> RuleLine:
        """The line of a rule and part.

        Raises:
            ConfigError: there is none.
        """
        for line in self.lines:
            if line.rule == rule and line.part == part:
                return line
        raise ConfigError(
            f"holdout: no line of rule {rule!r} and part {part!r}; expected one of "
            f"{', '.join(self.rules)}, of {', '.join(self.parts)}"
        )

    def closest(self, part: str = EVERYTHING) -> RuleLine:
        """The line whose credit lies nearest to the part's effect, among rules of whose credit at
        least half is judged (else among all)."""
        return _nearest([line for line in self.lines if line.part == part])

    @property
    def decides(self) -> bool:
        """Whether the holdout tells the closest rule from at least one other: if not, it is too
        small, or all rules say the same."""
        return len(self.rivals) < len(self.rules) - 1

    @property
    def sentence(self) -> str:
        """A sentence: the closest rule, its distance, and the rules that it cannot be told from."""
        best = self.closest()
        off = "" if math.isnan(best.relative) else f", {percent(best.relative, signed=True)}"
        if not self.decides:
            wrong = (
                ""
                if any(line.within for line in self.lines if line.part == EVERYTHING)
                else "; no rule is right: all lie outside its interval"
            )
            return (
                f"closest: undecided; a holdout of {sum(self.users.values()):,} users cannot "
                f"tell the rules apart (nearest: {best.rule}){wrong}"
            )
        verb = "within" if best.within else "no rule is right: outside"
        same = (
            f"; not told from {', '.join(self.rivals)}" if self.rivals else "; told from all others"
        )
        parts = (
            "; by part: "
            + ", ".join(f"{part} {self.closest(part).rule}" for part in self.parts[1:])
            if len(self.parts) > 1
            else ""
        )
        return (
            f"closest: {best.rule} ({number(best.z, 2)} standard errors off{off}, {verb} the "
            f"holdout's interval){same}{parts}"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        head = ["per enrolled user", *(f"{part}" for part in self.parts), "z", "off", "unjudged"]
        effects = {
            part: next(line.effect for line in self.lines if line.part == part)
            for part in self.parts
        }
        rows = [
            [
                "holdout: exposures added",
                *(value_with_ends(effect.value, *effect.interval()) for effect in effects.values()),
                "",
                "",
                "",
            ]
        ]
        for rule in self.rules:
            rule_lines = [self.line(rule, part) for part in self.parts]
            off = (
                "-"
                if math.isnan(rule_lines[0].relative)
                else percent(rule_lines[0].relative, signed=True)
            )
            rows.append(
                [
                    rule,
                    *(
                        f"{number(line.credit.value)}{'' if line.within else ' *'}"
                        for line in rule_lines
                    ),
                    number(rule_lines[0].z, 2),
                    off,
                    percent(rule_lines[0].unjudged),
                ]
            )
        return head, rows

    def __str__(self) -> str:
        head, rows = self._table()
        counted = ", ".join(f"{arm} {count:,}" for arm, count in self.users.items())
        gap = ""
        if self.gap is not None:
            gap = (
                "interaction gap (everything less the sum of the parts): "
                f"{value_with_ends(self.gap.value, *self.gap.interval())}\n"
            )
        return (
            f"{self.signal.label} at {self.as_of:%Y-%m-%d %H:%M}, {self.lookback} days back; "
            f"users: {counted}\n{text_table(head, rows)}\n"
            "* outside the holdout's 95% interval; z and off: of everything; unjudged: goes to "
            "exposures that were not withheld\n"
            f"{gap}{self.sentence}"
        )

    def _repr_html_(self) -> str:
        gap = escape(str(self.gap or "-"))
        return (
            f"<p>{escape(self.signal.label)}</p>{html_table(*self._table())}<p>interaction gap "
            f"{gap}</p><p>{escape(self.sentence)}</p>"
        )


def against_holdout(
    experiment: Experiment,
    lake: Lake,
    signal: Signal,
    *,
    nothing: str,
    parts: Mapping[str, tuple[str, pl.Expr]] | None = None,
    rules: Sequence[Rule | str] | None = None,
    lookback: int = LOOKBACK_DAYS,
    as_of: datetime | None = None,
    covariates: bool = True,
    debias: bool = True,
    progress: Progress = None,
) -> Holdout:
    """Compare every rule's credits with what the exposures of the experiment's control added, by a
    randomised holdout.

    The control shows everything; the arm `nothing` nothing; each arm of `parts` all but a part.
    What exposures added is the difference in the signal's sum per enrolled user, over entries in
    the experiment's entry window (as `Experiment.analyze` counts), adjusted for what was known of
    users before. Credits are those of the same entries of the control's users to slots of the
    experiment; credits to whatever else was shown, and to what was shown before enrolment, are not
    what the holdout withheld and do not count. Signals of discoveries are also compared less a
    baseline learnt from the control's own unexposed pairs (`attribution.unexposed`): the arms
    without exposures teach nothing, they only judge.

    Args:
        experiment: the experiment with the holdout.
        lake: the log, the experiment's weeks included.
        signal: whose outcomes are credited.
        nothing: the arm that shows nothing.
        parts: part -> (arm that withholds it, which slots of the control it is). The slots are a
            polars expression over the columns decision_id, slot, surface, item_id, creator_id,
            time, e.g. {"top": ("without_top", pl.col("slot") < 3)}. Together the parts should be
            everything.
        rules: default all that fit the signal.
        lookback: days before an entry in which an exposure can be credited.
        as_of: UTC; default the lake's watermark.
        covariates: adjust, or compare plain means.
        debias: compare discovery signals less the learnt baseline, too; needs a log that reaches
            further back than `novel_for`.
        progress: called with (steps done, steps); True or False: a progress line, or none;
            default: a line on a terminal or in a notebook.

    Raises:
        ConfigError: an arm the experiment does not have.
        DataError: the experiment was not randomised as declared, an arm was shown what it should
            withhold, or too few users are mature.
    """
    parts = dict(parts or {})
    for arm in (nothing, *(arm for arm, _ in parts.values())):
        if arm not in experiment.treatments:
            raise ConfigError(
                f"holdout: arm {arm!r} given, expected one of {', '.join(experiment.treatments)}"
            )
    with reporting("against_holdout", "steps", progress) as report:
        report(0, 3)
        view = lake if as_of is None else lake.before(as_of)
        everybody = experiment.enrolled(view)
        if failed := [check for check in quality_of(experiment, everybody) if check.fails]:
            raise DataError(
                f"holdout: {experiment.label} was not randomised as declared, so it can judge nothing: "
                f"{failed[0].name}: {failed[0].words}"
            )
        enrolled = analysed(experiment, everybody)
        decisions = view.decisions.filter(pl.col("experiment") == experiment.label)
        outcomes = outcomes_of(signal, view, None, enrolled)
        report(1, 3)
        rows_of = {EVERYTHING: nothing} | {part: arm for part, (arm, _) in parts.items()}
        tests = {EVERYTHING: pl.lit(True)} | {part: test for part, (_, test) in parts.items()}
        _check_withheld(decisions, outcomes.creators, rows_of, tests)
        arm_U = enrolled["arm_number"].to_numpy()
        mature_U = (
            closes_at(signal, enrolled, experiment.entry_days, signal.window[1] + 1)
            <= outcomes.as_of
        ).to_numpy()
        counts = {
            arm: int((mature_U & (arm_U == experiment.arm_names.index(arm))).sum())
            for arm in (CONTROL, *rows_of.values())
        }
        for arm, count in counts.items():
            if count < LEAST_USERS:
                raise DataError(
                    f"holdout: {count} users of arm {arm!r} are mature at {outcomes.as_of:%Y-%m-%d}, "
                    f"an interval needs {LEAST_USERS}"
                )
        y_U = sums_by_user(
            outcomes.frame, np.nan_to_num(outcomes.value), enrolled, experiment.entry_days
        )
        y_U = adjusted(y_U, arm_U, mature_U, covariates_of(view, enrolled)) if covariates else y_U
        control = enrolled.filter(pl.Series(arm_U == 0))
        shown, base = shown_unasked(view), None
        if debias and signal.entry.is_discovery:
            try:
                base = unexposed_baseline(
                    outcomes, view, shown, lookback=lookback, users=control["user_id"]
                )
            except DataError as error:
                raise DataError(
                    f"holdout: not enough to learn a baseline: {error}; or compare the rules without "
                    "one: debias=False"
                ) from error
        control_outcomes = outcomes.where(
            outcomes.frame["user_id"].is_in(control["user_id"].implode())
        )
        report(2, 3)
        credits_of_rules = compare_rules(
            control_outcomes, shown, rules, lookback=lookback, baseline=base
        ).credits
        credit_RU = {
            credits.name: _per_user(credits, decisions, enrolled, tests, experiment.entry_days)
            for credits in credits_of_rules
        }
        report(3, 3)
        in_arm = {
            part: mature_U & (arm_U == experiment.arm_names.index(arm))
            for part, arm in rows_of.items()
        }
        base_U = mature_U & (arm_U == 0)
        lines = []
        for rule, credit_U in credit_RU.items():
            for part, other_U in in_arm.items():
                effect = contrast(
                    [(1.0, y_U[base_U]), (-1.0, y_U[other_U])],
                    f"what {part} adds to {signal.label} per enrolled user",
                )
                distance = contrast(
                    [(1.0, credit_U[part][base_U] - y_U[base_U]), (1.0, y_U[other_U])],
                    f"{rule} less what {part} adds",
                )
                credit = contrast(
                    [(1.0, credit_U[part][base_U])], f"credit by {rule} to {part} per enrolled user"
                )
                credited = float(
                    credit_U[EVERYTHING][base_U].sum() + credit_U[ELSEWHERE][base_U].sum()
                )
                unjudged = (
                    float(credit_U[ELSEWHERE][base_U].sum()) / credited if credited > 0 else 0.0
                )
                lines.append(RuleLine(rule, part, credit, effect, distance, unjudged))
        alone = [(1.0, y_U[in_arm[part]]) for part in parts]
        gap = contrast(
            [(1.0 - len(parts), y_U[base_U]), (-1.0, y_U[in_arm[EVERYTHING]]), *alone],
            "interaction gap per enrolled user",
        )
        best = _nearest([line for line in lines if line.part == EVERYTHING]).rule
        rivals = [
            rule
            for rule, credit_U in credit_RU.items()
            if rule != best
            and not _told_apart(
                credit_RU[best][EVERYTHING][base_U],
                credit_U[EVERYTHING][base_U],
                y_U[base_U],
                y_U[in_arm[EVERYTHING]],
            )
        ]
        return Holdout(
            signal,
            tuple(lines),
            tuple(rows_of),
            gap if parts else None,
            tuple(rivals),
            counts,
            lookback,
            outcomes.as_of,
            base,
        )


def _check_withheld(
    decisions: pl.DataFrame,
    creators: pl.DataFrame,
    arms: Mapping[str, str],
    tests: Mapping[str, pl.Expr],
) -> None:
    slots = _slots(decisions, creators)
    all_of_it = slots.filter(pl.col("arm") == CONTROL)
    if all_of_it.is_empty():
        raise DataError(
            "holdout: the control was shown nothing; expected the control to be the arm that "
            "shows everything"
        )
    for part, test in tests.items():
        arm = arms[part]
        # of a part the slot's number says nothing in the arm itself, as what is below has moved up:
        # its items do
        taken = all_of_it.filter(test)
        if taken.is_empty():
            raise DataError(
                f"holdout: the part that {arm!r} withholds is no slot of the control's; give an "
                "expression that holds for some"
            )
        left = all_of_it.join(
            taken.select("decision_id", "slot"), on=["decision_id", "slot"], how="anti"
        )["item_id"].unique()
        part_items = taken["item_id"].unique()
        only = part_items.filter(~part_items.is_in(left.implode()))
        leaked = slots.filter(
            (pl.col("arm") == arm) & pl.col("item_id").is_in(only.implode())
        ).height
        if leaked:
            raise DataError(
                f"holdout: arm {arm!r} was shown {leaked:,} slots of what it should withhold; "
                "nothing was held out there, or the part is another"
            )


def _slots(decisions: pl.DataFrame, creators: pl.DataFrame) -> pl.DataFrame:
    """One row per slot: decision_id, arm, surface, time, slot, item_id, creator_id."""
    return (
        decisions.select("decision_id", "arm", "surface", "time", "slate")
        .with_columns(slot=pl.int_ranges(0, pl.col("slate").list.len(), dtype=pl.Int32))
        .explode("slate", "slot", empty_as_null=False)
        .rename({"slate": "item_id"})
        .join(creators, on="item_id", how="left")
    )


def _per_user(
    credits: Credits,
    decisions: pl.DataFrame,
    enrolled: pl.DataFrame,
    tests: Mapping[str, pl.Expr],
    entry_days: int,
) -> dict[str, Float]:
    """Credit of each enrolled user to the experiment's slots, by part, shape [U]; of entries in the
    entry window."""
    opened = (
        credits.entries.select("entry", entered="time")
        .join(credits.frame, on="entry")
        .join(enrolled.select("user_id", enrolled="time").with_row_index("row"), on="user_id")
    )
    inside = (pl.col("entered") >= pl.col("enrolled")) & (
        pl.col("entered") < pl.col("enrolled") + timedelta(days=entry_days)
    )
    shown = opened.filter(inside & pl.col("decision_id").is_not_null()).with_columns(
        pl.col("credit").fill_null(0.0)
    )
    paid, rest = (
        shown.join(decisions.select("decision_id"), on="decision_id", how=how)
        for how in ("semi", "anti")
    )
    credit_of_part = {}
    for part, part_credits in (
        (ELSEWHERE, rest),
        *((part, paid.filter(test)) for part, test in tests.items()),
    ):
        credit_of_part[part] = np.bincount(
            part_credits["row"].to_numpy(),
            weights=part_credits["credit"].to_numpy(),
            minlength=enrolled.height,
        ).astype(float)
    return credit_of_part


def adjusted(y_U: Float, arm_U: Int, mature_U: NDArray[np.bool_], x_UK: Float) -> Float:
    """Outcomes less what covariates known before enrolment predict: slopes within arms, one for
    all, so that arms' means can be added up.

    The analysis of covariance with common slopes (Deng et al. 2013 with several covariates): a sum
    of arms' means is unbiased as the plain one is, with less noise.
    """
    rows = mature_U
    x_UK = x_UK - x_UK[rows].mean(axis=0)
    within_UK, within_U = x_UK[rows].copy(), y_U[rows].copy()
    for arm in np.unique(arm_U[rows]):
        in_arm = arm_U[rows] == arm
        within_UK[in_arm] -= within_UK[in_arm].mean(axis=0)
        within_U[in_arm] -= within_U[in_arm].mean()
    slope_K = np.linalg.lstsq(within_UK, within_U, rcond=None)[0]
    return y_U - x_UK @ slope_K


def _nearest(lines: Sequence[RuleLine]) -> RuleLine:
    return min(
        [line for line in lines if line.unjudged <= 0.5] or lines,
        key=lambda line: abs(line.distance.value),
    )


def contrast(terms: Sequence[tuple[float, Float]], estimand: str) -> Estimate:
    """A weighted sum of independent groups' means, with the degrees of freedom of Satterthwaite
    (1946)."""
    variances = [weight**2 * float(value_U.var(ddof=1)) / len(value_U) for weight, value_U in terms]
    value = sum(weight * float(value_U.mean()) for weight, value_U in terms)
    variance = sum(variances)
    n = sum(len(value_U) for _, value_U in terms)
    below = sum(
        term_variance**2 / (len(value_U) - 1)
        for term_variance, (_, value_U) in zip(variances, terms)
    )
    return Estimate(
        value,
        math.sqrt(variance),
        n=n,
        n_eff=float(n),
        estimand=estimand,
        df=variance**2 / below if below > 0 else n - 1.0,
    )


def _told_apart(best_U: Float, other_U: Float, control_U: Float, nothing_U: Float) -> bool:
    """Whether the effect lies surely (95%) on the closest rule's side of the midpoint between the
    two rules' credits.

    The nearer of two numbers to a third is decided by the midpoint. So wide intervals decide
    nothing, however many rules they hold.
    """
    if np.array_equal(best_U, other_U):
        return False
    middle = contrast(
        [(1.0, (best_U + other_U) / 2 - control_U), (1.0, nothing_U)], "midpoint less effect"
    )
    if middle.std_error == 0:
        return middle.value != 0
    return bool(2 * stats.t.sf(abs(middle.value) / middle.std_error, middle.df) < 0.05)
