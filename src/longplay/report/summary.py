"""The head and the foot of the page: key facts with intervals, versions, the glossary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longplay.ranking import fallen
from longplay.report.about_log import log_of
from longplay.report.about_loop import loop_rows
from longplay.report.about_ranking import PAIRS
from longplay.report.about_rewards import loss_difference
from longplay.report.blocks import Fact
from longplay.report.phrases import (
    MODEL_NAMES,
    decimals_of,
    finite,
    interval_words,
    number,
    percent,
    share_of,
    signed,
    verdict,
    wilson,
)
from longplay.report.policy_names import INCUMBENT, names_of, rivals_of

Row = Mapping[str, Any]
Results = Mapping[str, Row]

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
        "fewer than 10 plays "
        ""
        "in training.",
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
        "The policy that runs now: the control of the trial, and what every difference is from.",
    ),
    (
        "estimand: one_step",
        "The value of deviating in one slot and then following the logging policy. What "
        "off-policy estimates are of; per slot.",
    ),
    (
        "estimand: policy",
        "The value of living under a policy throughout. What a trial measures and what its truth "
        "is of; per user.",
    ),
    (
        "off-policy estimate",
        "What a policy would have been worth, from slots that another policy showed with known "
        "probabilities. IPS, SNIPS and "
        "doubly robust are three ways; where too few logged slots resemble the policy's it is "
        "refused. Effective slots or users (n_eff): how many "
        "equally weighted ones these are worth.",
    ),
    (
        "CUPED, adjusted",
        "Means corrected for what was known of users before the trial (Deng et al. 2013): the "
        "same difference in expectation, with "
        "less noise. The column variance says how much.",
    ),
    (
        "superior, deteriorates, open",
        "The interval of the difference lies above 0; lies below 0; holds 0.",
    ),
    (
        "keep, reweight, drop, undecided",
        "What the audit says of a signal as a reward: go on; multiply its weight by late / early; "
        "stop paying for "
        "it; this trial cannot say.",
    ),
)


def glossary(results: Results) -> tuple[tuple[str, str], ...]:
    """The words of this page; those of trials only where there is one."""
    return GLOSSARY + (LOOP_GLOSSARY if results.get("experiment") else ())


def facts(results: Results) -> list[Fact]:
    """At most six key figures, each with its interval; what was not measured is left out."""
    found = [_log(results), _signal(results), _early(results), _promise(results)]
    found += (
        _trial(results)
        if results.get("experiment")
        else [_difference(results, *pair) for pair in PAIRS[:2]]
    )
    return [fact for fact in found if fact is not None]


def alarms(results: Results) -> list[str]:
    """What must be read first, in sentences: the trained policies that show far less, or rank far
    worse, than the start they came from.

    From the reinforcement's own measurement on training moments, and from the ranking of the
    future; empty where nothing fell by half. And whether a trial showed the policies under another
    rule of exclusions than they were trained under.
    """
    names, tuned = names_of(results), results.get("reinforce") or {}
    found = []
    for name, stage in (("reinforced", tuned), *rivals_of(results).items()):
        if fell := [str(words) for words in stage.get("alarms") or []]:
            found.append(_alarm(names[name], "on the training moments", fell))
    figures: dict[str, dict[str, float]] = {}
    for row in (results.get("evaluate") or {}).get("ranking") or []:
        metric, value = str(row.get("metric")), finite(row.get("value"))
        if value is not None and (
            metric in ("coverage@10", "NDCG@10") or metric.startswith("creators per slate")
        ):
            figures.setdefault(str(row.get("policy")), {})[
                metric.replace("creators", "distinct creators")
            ] = value
    start = figures.get("start", {})
    for name, after in figures.items():
        if name not in ("start", "popular") and (fell := fallen(start, after)):
            found.append(_alarm(names.get(name, name), "on the visits that followed", list(fell)))
    trained, shown = tuned.get("exclude"), (results.get("simulate") or {}).get("exclude")
    if results.get("experiment") and trained and shown and trained != shown:
        found.append(
            f"The policies were trained under exclude = “{trained}”, and the trial showed them "
            f"under exclude = “{shown}”: they learned what to "
            "show where other items could be shown, so their gain under their own rule can be "
            "quite another."
        )
    return found


def _alarm(policy: str, where: str, fell: list[str]) -> str:
    return f"Alarm: the policy “{policy}” is far behind the start {where}: {'; '.join(fell)}."


def versions(results: Results) -> list[tuple[str, str]]:
    """What the figures were made of, by version."""
    tuned = results.get("reinforce") or {}
    rows = [
        (f"signal {name}", one.get("label"))
        for name, one in (results.get("outcomes") or {}).items()
    ]
    rows += [
        ("codes", (results.get("codes") or {}).get("version")),
        ("start", (results.get("train") or {}).get("policy")),
        ("reward", tuned.get("reward")),
    ]
    rows += [
        ("reinforced", tuned.get("policy")),
        ("reward-weighted", (tuned.get("weighted") or {}).get("policy")),
    ]
    rows += [(f"rival {name}", one.get("policy")) for name, one in rivals_of(results).items()]
    return [(str(what), str(version)) for what, version in rows if version]


def _log(results: Results) -> Fact | None:
    log = log_of(results)
    if not log:
        return None
    bad, rows = log.get("quarantined") or 0, (log.get("source") or {}).get("rows")
    aside = f"{percent(bad / rows, 1)} of rows set aside" if bad and rows else "no row set aside"
    return Fact(
        "Log",
        f"{number(log.get('events'))} events",
        f"{number(log.get('users'))} users, {number(log.get('items'))} items; {aside}",
    )


def _signal(results: Results) -> Fact | None:
    outcomes = results.get("outcomes") or {}
    name = next(
        (name for name in results.get("reward") or {} if name in outcomes),
        next(iter(outcomes), None),
    )
    if name is None:
        return None
    one = outcomes[name]
    rate, share = one.get("base_rate"), bool(one.get("binary"))
    if not rate or finite(rate.get("value")) is None:
        return Fact(f"Signal {name}", "not mature", f"none of {number(one.get('entries'))} entries")
    value = share_of(rate) if share else number(rate["value"], decimals_of(rate))
    left_out = f"; {number(one['truncated'])} truncated left out" if one.get("truncated") else ""
    mature = f"{number(one.get('mature'))} of {number(one.get('entries'))} entries mature{left_out}"
    return Fact(f"Signal {name}", value, f"{interval_words(rate, share=share)}; {mature}")


def _chosen(results: Results) -> tuple[str, Row] | None:
    return next(
        ((str(one.get("chosen")), one) for one in (results.get("reward") or {}).values()), None
    )


def _early(results: Results) -> Fact | None:
    found = _chosen(results)
    row = (
        next(
            (row for row in found[1].get("comparison") or [] if row.get("model") == found[0]), None
        )
        if found
        else None
    )
    if found is None or row is None:
        return None
    gap = loss_difference(row)
    said = {"lower": "better than the prior", "higher": "worse than the prior"}.get(
        verdict(gap), verdict(gap)
    )
    return Fact(
        f"Early reward ({MODEL_NAMES.get(found[0], found[0])}) − prior, loss at day "
        f"{found[1].get('age', '?')}",
        signed(gap),
        f"{interval_words(gap)}: {said}",
    )


def _promise(results: Results) -> Fact | None:
    found = _chosen(results)
    mine = ((found[1].get("calibration") or {}).get(found[0]) or {}) if found else {}
    shares, items = (
        {float(level): share for level, share in (mine.get("coverage") or {}).items()},
        int(mine.get("groups") or 0),
    )
    if not shares or not items:
        return (
            Fact("Its intervals", "not estimable", str(mine["not_estimable"]))
            if "not_estimable" in mine
            else None
        )
    level = max(shares)
    low, high = wilson(shares[level], items)
    said = "too narrow" if level > high else "too wide" if level < low else "as promised"
    return Fact(
        f"Its {percent(level)} intervals hold",
        percent(shares[level]),
        f"of {items} unseen items' means; 95% interval {percent(low)} to {percent(high)}: {said}",
    )


def _trial(results: Results) -> list[Fact]:
    """The first two arms of a trial: their difference from the incumbent, the true one, and what
    was decided."""
    star = str(results["experiment"].get("north_star") or "the north star").split("@")[0]
    arms = [row for row in loop_rows(results) if row.arm != INCUMBENT]
    return [
        Fact(
            f"Trial: {row.policy} − incumbent, {star} per user",
            row.experiment.text,
            f"95% interval {row.experiment.detail or 'unknown'}; true {row.difference}: "
            f"{row.decision}",
        )
        for row in arms[:2]
    ]


def _difference(results: Results, ours: str, base: str) -> Fact | None:
    """Reinforcement against a rival: by the true value where the world knows it, else by habit
    NDCG@10."""
    found = results.get("evaluate") or {}
    true = (found.get("true_value") or {}).get("differences") or []
    rows, what = (
        (true, "true value per slot") if true else (found.get("differences") or [], "habit NDCG@10")
    )
    row = next(
        (
            row
            for row in rows
            if (row.get("policy"), row.get("than")) == (ours, base)
            and row.get("metric", what) == what
        ),
        None,
    )
    if row is None:
        return None
    return Fact(
        f"{ours.capitalize()} − {base}, {what}",
        signed(row),
        f"{interval_words(row)}: {verdict(row)}",
    )
