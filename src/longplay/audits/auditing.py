"""`audit`: compare an early reward with what matured in an experiment, signal by signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import polars as pl

from longplay.audits.differences import ComparedUsers, early_differences
from longplay.audits.signal_verdicts import verdict_on
from longplay.audits.verdicts import Audit, Verdict
from longplay.errors import ConfigError
from longplay.experiments import Experiment
from longplay.experiments.analysis import line_of
from longplay.experiments.enrolment import analysed, covariates_of, quality_of
from longplay.experiments.readout import Line
from longplay.lake.lake import Lake
from longplay.progress import Progress, reporting
from longplay.rewards.early import EarlyReward
from longplay.signals.outcomes.enrolled_sums import enrolled_sums
from longplay.signals.signal import Signal


def audit(
    early: EarlyReward | Mapping[Signal, EarlyReward],
    experiment: Experiment,
    lake: Lake,
    *,
    north_star: Signal,
    signals: Sequence[Signal] | None = None,
    margin: float = 0.01,
    age: int = 7,
    alpha: float = 0.05,
    treatment: str | None = None,
    as_of: datetime | None = None,
    progress: Progress = None,
) -> Audit:
    """Check whether an early reward was right about an experiment, and whether its signal mattered
    to the north star.

    Three differences between treatment and control per enrolled user are compared for each signal,
    all adjusted for the same covariates:

    - early: sums of what `early` believed of the users' entries in the entry window, when each entry
      was `age` days old;
    - late: sums of the matured outcomes of the same entries;
    - the north star, as the experiment estimates it.

    Early and late are of the same users: those who are mature for the signal. While nobody is
    mature, early is of those whose entries are old enough. The log is read as of the moment at
    which the last possible entry of the last of these users is `age` days old, so nothing later can
    leak into the beliefs. Standard errors are over users; they leave out the uncertainty of the fit
    of `early`, which the comparison with late makes visible.

    `judgement_of` states the rules that turn the differences into keep, reweight, drop or
    undecided.

    Args:
        early: one early reward or {signal: early reward}, fitted on what was known before the
            experiment.
        experiment: the experiment whose users are compared.
        lake: the log, the experiment's weeks included.
        north_star: the signal that all others are meant to move, e.g. active days from enrolment.
        signals: which to audit; default all that `early` has.
        margin: least gain of the north star worth having, relative to the control's mean, in [0,
            1).
        age: complete days since the entry's own day that the beliefs may have seen: of a window
            from day 1 on `age` days, of a window from day 30 on none.
        alpha: two-sided, of every interval, in (0, 1).
        treatment: the arm; default the only one.
        as_of: UTC; default the lake's watermark.
        progress: called with (signals audited, signals); True or False: a progress line, or none;
            default: a line on a terminal or in a notebook.

    Raises:
        ConfigError: a signal without early reward, an unknown arm, a margin outside [0, 1).
        DataError: the lake has no decision of the experiment, or cannot answer a signal.
    """
    models = _models_by_signal(early, signals)
    arm = _arm(experiment, treatment)
    if not 0 <= margin < 1 or not 0 < alpha < 1:
        raise ConfigError(
            f"audit: margin={margin}, alpha={alpha} given, expected a relative gain in [0, 1) and "
            "a level in (0, 1)"
        )
    if not isinstance(age, int) or age < 0:
        raise ConfigError(f"audit: age={age!r} given, expected whole days >= 0")
    view = lake if as_of is None else lake.before(as_of)
    with reporting("audit", "signals", progress) as report:
        verdicts = _verdicts(models, experiment, arm, view, north_star, margin, age, alpha, report)
    return Audit(
        experiment.label,
        arm,
        north_star.label,
        margin,
        age,
        1 - alpha,
        view.watermark,
        verdicts,
    )


def _verdicts(
    models: Mapping[Signal, EarlyReward],
    experiment: Experiment,
    arm: str,
    view: Lake,
    north_star: Signal,
    margin: float,
    age: int,
    alpha: float,
    report: Callable[..., None],
) -> tuple[Verdict, ...]:
    """The verdict on each signal; the arguments are those of `audit`, checked."""
    everybody = experiment.enrolled(view)
    checks = quality_of(experiment, everybody)
    failures = "; ".join(f"{check.name}: {check.words}" for check in checks if check.fails)
    pair = [experiment.arm_names[0], arm]
    users = analysed(experiment, everybody).filter(pl.col("arm").is_in(pair))
    treated_U = (users["arm"] == arm).to_numpy()
    arms = ComparedUsers(experiment, view, users, treated_U, covariates_of(view, users))
    sums = enrolled_sums([north_star, *models], view, users, entry_days=experiment.entry_days)

    def line(signal: Signal) -> Line:
        return line_of(signal, sums[signal], treated_U, arms.covariates_UK, arm, None, alpha, alpha)

    star = line(north_star)
    verdicts: list[Verdict] = []
    for signal, model in models.items():
        late = line(signal)
        differences = early_differences(model, late, sums[signal], arms, age)
        verdict = verdict_on(signal, differences, late, star, age, margin, 1 - alpha)
        if failures:
            verdict = replace(
                verdict,
                recommendation="undecided",
                reason=f"the experiment cannot be trusted; {failures}",
            )
        verdicts.append(verdict)
        report(len(verdicts), len(models))
    return tuple(verdicts)


def _models_by_signal(
    early: EarlyReward | Mapping[Signal, EarlyReward], signals: Sequence[Signal] | None
) -> dict[Signal, EarlyReward]:
    """The early reward of each signal to audit."""
    models = dict(early) if isinstance(early, Mapping) else {early.signal: early}
    for signal, model in models.items():
        if model.signal.version != signal.version:
            raise ConfigError(
                f"audit: an early reward of {model.signal.label} is given for {signal.label}; "
                "expected one of that signal"
            )
    by_version = {signal.version: signal for signal in models}
    audited = list(models) if signals is None else list(signals)
    for signal in audited:
        if signal.version not in by_version:
            raise ConfigError(
                f"audit: no early reward of {signal.label}; given "
                f"{', '.join(signal.label for signal in models)}"
            )
    if not audited:
        raise ConfigError("audit: no signal given, expected at least one with an early reward")
    return {signal: models[by_version[signal.version]] for signal in audited}


def _arm(experiment: Experiment, treatment: str | None) -> str:
    """The treatment to audit: the one named, else the only one."""
    if treatment is None and len(experiment.treatments) == 1:
        return experiment.treatments[0]
    if treatment not in experiment.treatments:
        raise ConfigError(
            f"audit: treatment={treatment!r} given, expected one of {', '.join(experiment.treatments)}"
        )
    return treatment
