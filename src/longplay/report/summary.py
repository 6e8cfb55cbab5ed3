"""Key figures with intervals, alarms, versions and the glossary of the page."""

from __future__ import annotations

from collections.abc import Sequence

from longplay.display import decimal, percent, signed
from longplay.intervals import wilson
from longplay.ranking import fallen
from longplay.report.blocks import Fact
from longplay.report.phrases import MODEL_NAMES, interval_words, too_few_items, verdict
from longplay.report.policy_names import INCUMBENT, policy_names
from longplay.report.sections.evaluate import figures_of
from longplay.report.sections.experiment import collect as collect_loop
from longplay.report.sections.experiment import loop_rows
from longplay.report.sections.outcomes import value_words
from longplay.report.sections.reward import loss_difference, widest_coverage
from longplay.results import NotEstimable, RunResults
from longplay.results.code_figures import CodesResult
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.log_figures import LogResult, SimulateResult
from longplay.results.outcome_figures import OutcomesResult
from longplay.results.ranking_figures import EvaluateResult
from longplay.results.reinforcement_figures import ReinforceResult
from longplay.results.reward_figures import EarlyRewardFigures, RewardResult
from longplay.results.training_figures import TrainResult
from longplay.run_policies import MAIN, START, baseline_names, comparisons

GLOSSARY = (
    (
        "signal",
        "A declared outcome: who enters, what is measured, over which days, and when it is "
        "mature. Its version is a hash of its definition.",
    ),
    (
        "mature, immature",
        "An outcome is mature once its window has closed. Before that it is unknown, never 0.",
    ),
    ("belief", "What is expected of an outcome that has not matured: a mean, a std and a spread."),
    (
        "std and spread",
        "std: how unsure we are of the expected outcome; it shrinks with data. spread: how much "
        "single outcomes vary around "
        "it; it does not.",
    ),
    (
        "value of showing",
        "The outcome expected if the item is shown, minus that if it is not, over the same "
        "horizon. What would have happened "
        "anyway earns nothing.",
    ),
    (
        "association",
        "What goes together in the log. Without a record of what was shown it is not an effect.",
    ),
    ("early reward", "A model that says what an outcome is worth long before it has matured."),
    ("caution", "How many std are subtracted from a belief before a policy is rewarded for it."),
    ("prior alone", "Knowing nothing of the item: one number for all."),
    (
        "PIT",
        "Where an outcome fell in its predicted distribution, from 0 to 1; flat if the "
        "predictions are calibrated. For rare "
        "yes/no outcomes it is a weak check.",
    ),
    (
        "KL",
        "How far a policy has moved from the start, in nats per slot: the mean log-ratio of their "
        "probabilities on what it shows.",
    ),
    (
        "zero advantage",
        "The share of groups of slates whose rewards are all equal: nothing can be learned from "
        "them.",
    ),
    (
        "HR@k, NDCG@k",
        "Share of visits with a hit among the first k; the same with earlier places counting more "
        "(1 is the best possible order).",
    ),
    (
        "habit NDCG",
        "NDCG in which only discoveries that became a habit count, over the visits that had one.",
    ),
    (
        "coverage, cold-start share",
        "Share of the catalogue in anybody's first 10; share of those places held by items with "
        "fewer than 10 plays in training.",
    ),
    (
        "95% interval",
        "A range that, over repetitions of the sampling, holds the true value 95 times in 100. "
        "Clustered by user unless said "
        "otherwise.",
    ),
)
LOOP_GLOSSARY = (
    (
        "north star",
        "The signal that everything else is meant to move, e.g. the days on which people come "
        "back. Audits judge by it.",
    ),
    (
        "incumbent",
        "The policy that runs now: the control of the experiment. Every difference is from it.",
    ),
    (
        "estimand: one_step",
        "The value of deviating in one slot and then following the logging policy, per slot. "
        "Off-policy estimates measure this.",
    ),
    (
        "estimand: policy",
        "The value of living under a policy throughout, per user. An experiment and the world's "
        "truth measure this.",
    ),
    (
        "off-policy estimate",
        "What a policy would have been worth, from slots that another policy showed with known "
        "probabilities. IPS, SNIPS and doubly robust are three estimators; where too few logged "
        "slots resemble the policy's, the estimate is refused. Effective slots or users (n_eff): "
        "the number of equally weighted ones that carry as much information.",
    ),
    (
        "CUPED, adjusted",
        "Means corrected for what was known of users before the experiment (Deng et al. 2013): the "
        "same difference in expectation, with "
        "less noise. The column variance says how much.",
    ),
    (
        "superior, deteriorates, open",
        "The interval of the difference lies above 0; lies below 0; contains 0.",
    ),
    (
        "keep, reweight, drop, undecided",
        "What the audit recommends for a signal as a reward: keep it; multiply its weight by late "
        "/ early; stop paying for it; this experiment cannot tell.",
    ),
)


def glossary(results: RunResults) -> tuple[tuple[str, str], ...]:
    """Terms of this page with their meaning; those of experiments only where there is one."""
    return GLOSSARY if results.find(ExperimentResult) is None else GLOSSARY + LOOP_GLOSSARY


def facts(results: RunResults) -> list[Fact]:
    """At most six key figures, each with its interval; what was not measured is left out."""
    facts = [_log(results), _signal(results), _early(results), _promise(results)]
    if results.find(ExperimentResult) is None:
        pairs = [pair for pair in comparisons() if pair[0] == MAIN]
        facts += [_difference(results, *pair) for pair in pairs]
    else:
        facts += _experiment(results)
    return [fact for fact in facts if fact is not None]


def alarms(results: RunResults) -> list[str]:
    """Sentences on trained policies that have collapsed: they show far less, or rank far worse,
    than the start they came from.

    They are read from the reinforcement's measurements at training moments and from the ranking of
    the future; there are none where nothing fell by half. One more sentence says so where the
    experiment showed the policies under another rule of exclusions than they were trained under.
    """
    names, tuned = policy_names(results), results.find(ReinforceResult)
    sentences = []
    if tuned is not None:
        by_policy = {MAIN: tuned.alarms}
        by_policy |= {policy.name: policy.alarms for policy in tuned.added}
        by_policy |= {name: rival.alarms for name, rival in tuned.rivals.items()}
        for policy, fell in by_policy.items():
            if fell:
                sentences.append(_alarm(names[policy], "on the training moments", fell))
    evaluated = results.find(EvaluateResult)
    figures = {} if evaluated is None else figures_of(evaluated.ranking)
    start = figures.get(START, {})
    for policy, figures_of_policy in figures.items():
        if policy not in baseline_names() and (fell := fallen(start, figures_of_policy)):
            sentences.append(_alarm(names[policy], "on the visits that followed", fell))
    return [*sentences, *_other_rule(results)]


def _other_rule(results: RunResults) -> list[str]:
    """Whether the experiment was under another rule of exclusions than training."""
    tuned, world = results.find(ReinforceResult), results.find(SimulateResult)
    if results.find(ExperimentResult) is None or tuned is None or world is None:
        return []
    if tuned.exclude == world.exclude:
        return []
    return [
        f"The policies were trained under exclude = “{tuned.exclude}”, and the experiment showed "
        f"them under exclude = “{world.exclude}”: they learned what to "
        "show where other items could be shown, so their gain under their own rule can be "
        "quite another."
    ]


def _alarm(policy: str, where: str, fell: Sequence[str]) -> str:
    """A sentence that names a collapsed policy and the figures that fell."""
    return f"Alarm: the policy “{policy}” is far behind the start {where}: {'; '.join(fell)}."


def versions(results: RunResults) -> list[tuple[str, str]]:
    """Versions of the signals, codes, rewards and policies behind the figures."""
    rows: list[tuple[str, str]] = []
    if (outcomes := results.find(OutcomesResult)) is not None:
        rows += [(f"signal {name}", signal.label) for name, signal in outcomes.signals.items()]
    if (codes := results.find(CodesResult)) is not None:
        rows.append(("codes", codes.version))
    if (start := results.find(TrainResult)) is not None:
        rows.append((START, start.policy))
    if (tuned := results.find(ReinforceResult)) is not None:
        rows.append(("reward", tuned.reward))
        rows.append((MAIN, tuned.policy))
        rows.append(("reward-weighted", tuned.weighted.policy))
        rows += [(policy.name, policy.policy) for policy in tuned.added]
        rows += [(f"rival {name}", rival.policy) for name, rival in tuned.rivals.items()]
    return rows


def _log(results: RunResults) -> Fact | None:
    """Size of the log, and the share of rows that were set aside."""
    log = results.find(LogResult)
    if log is None:
        return None
    bad, rows = log.quarantined, log.source.rows
    aside = f"{percent(bad / rows, 1)} of rows set aside" if bad and rows else "no row set aside"
    return Fact(
        "Log",
        f"{decimal(log.events)} events",
        f"{decimal(log.users)} users, {decimal(log.items)} items; {aside}",
    )


def _signal(results: RunResults) -> Fact | None:
    """Base rate of the first signal that the reward pays for, else of the first signal."""
    outcomes, rewards = results.find(OutcomesResult), results.find(RewardResult)
    if outcomes is None or not outcomes.signals:
        return None
    paid = [] if rewards is None else [name for name in rewards.signals if name in outcomes.signals]
    name = next(iter([*paid, *outcomes.signals]))
    signal = outcomes.signals[name]
    entries = decimal(signal.entries)
    if signal.base_rate is None:
        return Fact(f"Signal {name}", "not mature", f"none of {entries} entries")
    rate = signal.base_rate.bounded()
    left_out = f"; {decimal(signal.truncated)} truncated left out" if signal.truncated else ""
    mature = f"{decimal(signal.mature)} of {entries} entries mature{left_out}"
    interval = interval_words(rate, share=signal.binary)
    return Fact(f"Signal {name}", value_words(rate, signal.binary), f"{interval}; {mature}")


def _first_reward(results: RunResults) -> EarlyRewardFigures | None:
    """The early reward of the first objective; null where none was fitted."""
    rewards = results.find(RewardResult)
    return None if rewards is None else next(iter(rewards.signals.values()), None)


def _early(results: RunResults) -> Fact | None:
    """Loss of the first early reward at the age of judging, compared with the prior alone."""
    figures = _first_reward(results)
    if figures is None:
        return None
    row = next((row for row in figures.comparison if row.model == figures.chosen), None)
    if row is None:
        return None
    gap = loss_difference(row)
    words = {"lower": "better than the prior", "higher": "worse than the prior"}
    model = MODEL_NAMES.get(figures.chosen, figures.chosen)
    return Fact(
        f"Early reward ({model}) − prior, loss at day {figures.age}",
        signed(gap),
        f"{interval_words(gap)}: {words.get(verdict(gap), verdict(gap))}",
    )


def _promise(results: RunResults) -> Fact | None:
    """Whether the widest intervals of the first early reward are calibrated."""
    figures = _first_reward(results)
    checked = None if figures is None else figures.calibration.get(figures.chosen)
    if isinstance(checked, NotEstimable):
        return Fact("Its intervals", "not estimable", checked.not_estimable)
    widest = None if checked is None else widest_coverage(checked)
    if checked is None or widest is None:
        return None
    level, share = widest
    if few := too_few_items(checked.groups):
        return Fact(f"Its {percent(level)} intervals hold", "not known", few)
    low, high = wilson(share, checked.groups)
    words = "as promised"
    if level > high:
        words = "too narrow"
    elif level < low:
        words = "too wide"
    return Fact(
        f"Its {percent(level)} intervals hold",
        percent(share),
        f"of {checked.groups} unseen items' means; 95% interval {percent(low)} to {percent(high)}: "
        f"{words}",
    )


def _experiment(results: RunResults) -> list[Fact | None]:
    """The first two arms of an experiment: their difference from the incumbent, the true one, and
    what was decided."""
    loop = collect_loop(results)
    if loop is None:
        return []
    return [
        Fact(
            f"Experiment: {row.policy} − incumbent, {loop.star} per user",
            row.experiment.text,
            f"95% interval {row.experiment.detail or 'unknown'}; true {row.difference}: "
            f"{row.decision}",
        )
        for row in [row for row in loop_rows(loop) if row.arm != INCUMBENT][:2]
    ]


def _difference(results: RunResults, policy: str, than: str) -> Fact | None:
    """Two policies compared: by the true value where the world knows it, else by habit NDCG@10."""
    evaluated = results.find(EvaluateResult)
    if evaluated is None:
        return None
    true = () if evaluated.true_value is None else evaluated.true_value.differences
    rows = true or tuple(row for row in evaluated.differences if row.metric == "habit NDCG@10")
    row = next((row for row in rows if (row.policy, row.than) == (policy, than)), None)
    if row is None:
        return None
    gap = row.difference.bounded()
    return Fact(
        f"{policy.capitalize()} − {than}, {row.metric}",
        signed(gap),
        f"{interval_words(gap)}: {verdict(gap)}",
    )
