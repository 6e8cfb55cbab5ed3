"""Enrolment: who is in an experiment since when, what was known of them before, and quality
checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from longplay.display import number, percent
from longplay.errors import DataError
from longplay.experiments.assignment import Design, assign
from longplay.experiments.statistics import sample_ratio, welch
from longplay.lake.daily import create_engaged, day_of
from longplay.lake.lake import Lake
from longplay.lake.schema import TIME
from longplay.results.experiment_figures import CheckFigures

LOOK_BACK_DAYS = 28
COVARIATES = (
    "organic active days in the 28 days before",
    "log plays in the 28 days before",
    "known before",
    "log days since first seen",
)
# of the users of any arm: more of them in two arms, or in another than their hash's, is no accident
MOST_LEFT_OUT = 0.01
DISTRUST = 0.001  # p-value of the sample ratio below which nothing is read off an experiment
LEAST_USERS = 30  # mature users an arm needs before an interval is given
# of whom so many must be expected to differ from the most common value: a rare yes has no normal
# mean
LEAST_OTHERS = 10


@dataclass(frozen=True)
class Check:
    """One quality check: `fails` refuses the experiment; a warning is only said."""

    name: str
    fails: bool
    words: str
    warns: bool = False

    def figures(self) -> CheckFigures:
        """The check as a run folder stores it."""
        return CheckFigures(self.name, self.fails, self.warns, self.words)


def enrolled_of(lake: Lake, experiment: str, arms: Sequence[str]) -> pl.DataFrame:
    """Users of `experiment` as the lake's decisions have them, oldest first.

    A decision that shows something enrols its user. An empty slate shows nothing and does not, as
    for an `enrolment()` entry, unless the experiment has an arm that logged nothing but empty
    slates: a holdout, whose users nothing else would enrol. Then empty slates enrol in all arms
    alike. So one rule holds for every arm of an experiment; an arm that is often empty shows in the
    sample ratio.

    Columns user_id, time (first decision that enrols: exposure is logged when the arm is used), arm
    (of that decision), arm_number, arms (how many different arms the user was given, by empty
    slates, too), decisions (of all kinds), arm_prob (of the decision that enrols).

    Raises:
        DataError: no decision of this experiment, or one of an arm it does not have.
    """
    with lake.connect() as con:
        return enrolled_in(con, experiment, arms)


def enrolled_in(
    con: duckdb.DuckDBPyConnection, experiment: str, arms: Sequence[str]
) -> pl.DataFrame:
    """See `enrolled_of`; in a connection to a lake that is open."""
    users = con.sql(
        """
        with shown as (
            select user_id, time, decision_id, coalesce(arm, 'null') as arm, arm_prob, len(slate) > 0 as shows
            from decisions where experiment = $1
        ),
        empty_arms as (select arm from shown group by arm having not bool_or(shows)),
        placed as (select *, shows or exists (select 1 from empty_arms) as enrols from shown)
        select user_id, min(time) filter (enrols) as time, arg_min(arm, (time, decision_id)) filter (enrols) as arm,
               list_sort(list(distinct arm)) as given, count(*) as decisions,
               arg_min_null(arm_prob, (time, decision_id)) filter (enrols) as arm_prob
        from placed group by user_id having bool_or(enrols) order by time, user_id
        """,
        params=[experiment],
    ).pl()
    if users.is_empty():
        raise DataError(
            f"experiment {experiment!r}: the lake has no decision of it; run it first, e.g. lake "
            "= world.run(experiment, days=56)"
        )
    if strange := sorted(set(users["given"].explode()) - set(arms)):
        raise DataError(
            f"experiment {experiment!r}: decisions of an arm {strange[0]!r} in the lake, expected "
            f"{', '.join(arms)}; is it another's name?"
        )
    return users.select(
        "user_id",
        pl.col("time").cast(TIME),
        "arm",
        pl.col("arm")
        .replace_strict(list(arms), list(range(len(arms))), return_dtype=pl.Int64)
        .alias("arm_number"),
        pl.col("given").list.len().alias("arms"),
        "decisions",
        "arm_prob",
    )


def logged_arms(lake: Lake, name: str | None) -> tuple[str, dict[str, float | None]]:
    """The experiment's name in the log, and its arms in order of name with their share of users,
    null where the log does not say.

    Args:
        lake: the log.
        name: the experiment; None: the only one of the log.

    Raises:
        DataError: no decision of it, several experiments and no name, or two shares for one arm.
    """
    with lake.connect() as con:
        rows = con.sql(
            "select experiment, coalesce(arm, 'null') as arm, min(arm_prob) as least, "
            "max(arm_prob) as most from decisions "
            "where experiment is not null group by experiment, arm order by experiment, arm"
        ).pl()
    names = rows["experiment"].unique().sort().to_list()
    if not names or (name is not None and name not in names):
        has = (
            f"it has {', '.join(names)}"
            if names
            else "its decisions have none; log experiment, arm and arm_prob with every decision"
        )
        raise DataError(f"experiment{'' if name is None else f' {name!r}'}: not in this log; {has}")
    if name is None and len(names) > 1:
        raise DataError(f"experiment: the log has {', '.join(names)}; name one of them")
    label = names[0] if name is None else name
    shares: dict[str, float | None] = {}
    for arm, least, most in (
        rows.filter(pl.col("experiment") == label).select("arm", "least", "most").iter_rows()
    ):
        if least is not None and most - least > 1e-9:
            raise DataError(
                f"experiment {label!r}: arm {arm!r} was logged with shares from {least:g} to "
                f"{most:g}; expected one, analyse the times apart"
            )
        shares[arm] = least
    return label, shares


def covariates_of(lake: Lake, enrolled: pl.DataFrame) -> NDArray[np.float64]:
    """What was known of each enrolled user before the UTC day of enrolment, shape [U, 4], in the
    order of `COVARIATES`.

    Organic active days (0 to 28) and log(1 + plays) in the 28 days before; whether the user had
    been seen (0 or 1) and log(1 + days since). The day of enrolment itself is left out, as a part
    of it is after. One DuckDB query, so it does not matter how long the log is.
    """
    with lake.connect() as con:
        return covariates_in(con, enrolled)


def covariates_in(con: duckdb.DuckDBPyConnection, enrolled: pl.DataFrame) -> NDArray[np.float64]:
    """See `covariates_of`; in a connection to a lake that is open."""
    create_engaged(con)
    con.register("opened", enrolled.select("user_id", "time").with_row_index("row").to_arrow())
    is_recent = f"past.day >= o.day - {LOOK_BACK_DAYS}"
    is_organic = f"past.origin = 'organic' and {is_recent}"
    table = con.sql(
        f"""
        with opened_day as (select row, user_id, {day_of("time")} as day from opened)
        select o.row,
               count(distinct past.day) filter ({is_organic}) as active_days,
               count(*) filter (past.kind = 'play' and {is_recent}) as plays,
               coalesce(any_value(o.day) - min(past.day), 0) as known_days
        from opened_day o left join engaged as past on past.user_id = o.user_id and past.day < o.day
        group by o.row order by o.row
        """
    ).pl()
    con.unregister("opened")
    active, plays, known_days = (
        table[name].to_numpy().astype(float) for name in ("active_days", "plays", "known_days")
    )
    return np.column_stack(
        [active, np.log1p(plays), (known_days > 0).astype(float), np.log1p(known_days)]
    )


def analysed(design: Design, enrolled: pl.DataFrame) -> pl.DataFrame:
    """The enrolled users who are compared: without those who were given two arms, another arm than
    their hash's, or one of another share.

    What such a user did cannot be counted for one arm. `quality_of` counts them, and distrusts an
    experiment with many; where nobody would be left, it distrusts everybody, and all are returned.

    Args:
        design: the experiment as declared.
        enrolled: of `enrolled_of`.
    """
    without_fault = enrolled.filter(~pl.any_horizontal(*_faults(design, enrolled).values()))
    return enrolled if without_fault.is_empty() else without_fault


def _faults(design: Design, enrolled: pl.DataFrame) -> dict[str, pl.Series]:
    """Per kind of fault, which users have it."""
    declared_U = np.asarray(design.shares)[enrolled["arm_number"].to_numpy()]
    logged_U = enrolled["arm_prob"].fill_null(0.0).to_numpy()
    if not design.hashed:
        logged_U = np.where(enrolled["arm_prob"].is_null(), declared_U, logged_U)
    faults = {
        "one arm per user": enrolled["arms"] > 1,
        "shares": pl.Series(np.abs(logged_U - declared_U) > 1e-9),
    }
    if design.hashed:
        assigned_U = assign(design.salt, enrolled["user_id"], design.shares)
        faults["assignment"] = pl.Series(assigned_U != enrolled["arm_number"].to_numpy())
    return faults


def quality_of(design: Design, enrolled: pl.DataFrame) -> tuple[Check, ...]:
    """Whether the users came in the declared shares, kept their arm, have the arm of their hash;
    and whether both arms decide equally often.

    A few users at fault are left out (`analysed`) and counted; more than 1% of the users of any arm
    fail the check. That both arms decide equally often is only a warning: how often a user comes
    back for a slate is an outcome.

    Args:
        design: the experiment as declared.
        enrolled: of `enrolled_of`.
    """
    arms, shares = design.arm_names, design.shares
    faults, everybody = _faults(design, enrolled), enrolled
    many = {
        name: _most_in_an_arm(everybody, at_fault) > MOST_LEFT_OUT
        for name, at_fault in faults.items()
    }
    if not any(many.values()):  # else who is left says nothing of the shares in which users came
        enrolled = analysed(design, enrolled)
    counts = np.bincount(enrolled["arm_number"].to_numpy(), minlength=len(arms)).tolist()
    p = sample_ratio(counts, shares)
    came = ", ".join(
        f"{arm} {count:,} ({percent(count / max(sum(counts), 1))} for {percent(share)})"
        for arm, count, share in zip(arms, counts, shares)
    )
    kinds = {
        "one arm per user": "were given more than one arm",
        "assignment": "have another arm than the hash of the salt gives them",
        "shares": "were assigned under other shares than those declared",
    }
    checks = [Check("sample ratio", p < DISTRUST, f"{came}; p = {number(p)}")]
    for name, fault in kinds.items():
        if name not in faults:
            checks.append(
                Check(
                    name,
                    False,
                    "not checked: another system assigned the users, its hash is not known",
                )
            )
            continue
        at_fault = int(faults[name].sum())
        left_out = " and are left out" if at_fault else ""
        too_many = f", more than {percent(MOST_LEFT_OUT)} of an arm" if many[name] else ""
        checks.append(
            Check(
                name,
                many[name],
                f"{at_fault:,} of {everybody.height:,} users {fault}{left_out}{too_many}",
            )
        )
    for number_of, arm in enumerate(arms[1:], start=1):
        treatment_U, control_U = (
            enrolled.filter(pl.col("arm_number") == k)["decisions"].to_numpy()
            for k in (number_of, 0)
        )
        if min(len(treatment_U), len(control_U)) < LEAST_USERS:
            continue
        means = welch(control_U, treatment_U)
        p = means.contrast().p_value
        words = (
            f"{means.treatment:.2f} decisions per user in {arm}, {means.control:.2f} in "
            f"{arms[0]}; p = {number(p)}"
        )
        if p < DISTRUST:
            words += (
                ": not by chance; people come back more or less often, or one arm does not "
                "log every decision"
            )
        checks.append(Check("exposure balance", False, words, warns=p < DISTRUST))
    return tuple(checks)


def _most_in_an_arm(enrolled: pl.DataFrame, at_fault: pl.Series) -> float:
    """The largest share of an arm's users who are at fault."""
    by_arm = (
        enrolled.with_columns(at_fault=at_fault)
        .group_by("arm_number")
        .agg(pl.col("at_fault").mean())
    )
    return cast(float, by_arm["at_fault"].max())
