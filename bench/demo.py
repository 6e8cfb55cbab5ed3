"""The demo's loop over ten seeds: is a decision reached, is it right, and does the trial tell the
truth that only the world knows?

A seed is a catalogue, its listeners, their luck, the weights and the assignment's luck. Two seeds
run side by side.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tomllib
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from remembered import CACHE, remembered
from scipy import stats

from longplay.estimate import clustered_mean
from longplay.results import RunResults, to_json
from longplay.results.audit_figures import AuditResult
from longplay.results.experiment_figures import ExperimentResult
from longplay.results.offpolicy_figures import OffpolicyResult
from longplay.results.ranking_figures import EvaluateResult
from longplay.run import RunConfig, run_stages
from longplay.run.engine import read_stage

VERSION = 3  # of what is computed here: raise it when a result could change
ARMS = {"reinforced": "reinforced on habit", "clicks": "reinforced on clicks"}
AUDITS = {"reinforced": "keep", "clicks": "drop"}  # the recommendation that is right
SMALL = {
    "simulate": {"users": 200, "items": 60},
    "train": {"steps": 5},
    "reinforce": {"steps": 1, "contexts": 4, "group": 2},
    "evaluate": {"visits": 20, "true_value_users": 5},
    "experiment": {"true_users": 20, "days": 36},
}


def configuration(seed: int, changes: dict[str, dict[str, Any]]) -> RunConfig:
    """The demo's own configuration with another seed, and with `changes` of its tables."""
    tables = tomllib.loads(resources.files("longplay.run").joinpath("demo.toml").read_text())
    tables["run"]["seed"] = seed
    for table, values in changes.items():
        tables[table] |= values
    return RunConfig.model_validate(tables)


@remembered(VERSION)
def loop(*, config: str) -> dict[str, Any]:
    """What one run of the loop found: per arm the truth, the estimates, the decision and the audit;
    and what it took."""
    parsed = RunConfig.model_validate_json(config)
    folder = (
        CACHE / f"demo-{parsed.run.seed}-{parsed.simulate.users}"
    )  # a killed run goes on from it
    places = run_stages(parsed, base=Path.cwd(), folder=folder)
    results = RunResults({name: read_stage(name, place) for name, place in places.items()})
    timing = [json.loads((place / "timing.json").read_text()) for place in places.values()]
    shutil.rmtree(folder)
    trial, ranking = results.of(ExperimentResult), results.of(EvaluateResult)
    truth = {row.arm: row for row in trial.truth}
    lines = {line.arm: line for line in trial.readout.lines if line.signal == trial.north_star}
    decisions = {row.arm: row for row in trial.readout.decisions}
    logged = {row.policy: row.estimates for row in results.of(OffpolicyResult).policies}
    values = {row.policy: row.value for row in ranking.true_value.policies}
    audits = results.of(AuditResult).arms
    arms = {}
    for arm in parsed.experiment.arms:
        effect = lines[arm].effect
        arms[arm] = {
            "true": to_json(truth[arm].difference),
            "true level": truth["control"].level.value,
            "trial": None if effect is None else to_json(effect.difference),
            "decision": to_json(decisions[arm]),
            "off-policy": to_json(logged[arm]["doubly robust"]),
            "true value": values[arm].value,
            "audit": to_json(audits[arm].verdicts),
        }
    return {
        "arms": arms,
        "seconds": sum(one["seconds"] for one in timing),
        "cpu_seconds": sum(one["cpu_seconds"] for one in timing),
    }


def wrong(one: dict[str, Any], minimum_effect: float) -> bool:
    """Whether a decision goes against the truth: shipped what certainly harms, or refused what
    certainly gains all that was looked for."""
    low, high, verdict = one["true"]["low"], one["true"]["high"], one["decision"]["verdict"]
    return (verdict == "ship" and high < 0) or (
        verdict == "do not ship" and low > minimum_effect * one["true level"]
    )


def claims(
    found: list[dict[str, Any]], minimum_effect: float, command: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def add(
        claim: str,
        value: float,
        low: float | None,
        high: float | None,
        bar: str,
        ok: bool,
        readme: bool = False,
    ) -> None:
        rows.append(
            {
                "claim": f"demo: {claim}",
                "value": value,
                "low": low,
                "high": high,
                "bar": bar,
                "ok": bool(ok),
                "seeds": len(found),
                "command": command,
                "readme": readme,
            }
        )
        print(
            f"{'  ' if ok else 'NO'} {claim}: {value:.4g}"
            + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
            + f"  ({bar})",
            flush=True,
        )

    def over(values: list[float]) -> tuple[float, float, float]:
        mean = clustered_mean(values)
        return (
            (mean.value, *mean.interval())
            if len(values) > 1
            else (mean.value, mean.value, mean.value)
        )

    n, z = len(found), []
    for arm, label in ARMS.items():
        ours = [one["arms"][arm] for one in found]
        verdicts = [one["decision"]["verdict"] for one in ours]
        print(
            f"   {label}: "
            f"{', '.join(f'{verdict} {verdicts.count(verdict)}' for verdict in sorted(set(verdicts)))}"
        )
        print(
            f"   {label}, audit: "
            f"{[said['recommendation'] for one in ours for said in one['audit']]}"
        )
        audits = [audit for one in ours for audit in one["audit"]]
        expected = AUDITS[arm]
        agreeing = sum(audit["recommendation"] == expected for audit in audits)
        low, high = stats.binomtest(agreeing, len(audits)).proportion_ci()
        add(
            f"{label}, audits that say {expected}",
            agreeing / len(audits),
            low,
            high,
            "at least 0.9",
            agreeing >= 0.9 * len(audits),
            readme=True,
        )
        decided = sum(verdict != "keep running" for verdict in verdicts)
        add(
            f"{label}, trials that reach a decision",
            decided / n,
            None,
            None,
            "at least 0.7",
            decided >= 0.7 * n,
            readme=True,
        )
        add(
            f"{label}, decisions against the truth",
            sum(wrong(one, minimum_effect) for one in ours) / n,
            None,
            None,
            "0",
            not any(wrong(one, minimum_effect) for one in ours),
        )
        true, low, high = over([one["true"]["value"] / one["true level"] for one in ours])
        bar, ok = (
            ("interval above 0", low > 0) if arm == "reinforced" else ("interval below 0", high < 0)
        )
        add(
            f"{label} less incumbent, true active days in 28, relative",
            true,
            low,
            high,
            bar,
            ok,
            readme=True,
        )
        for one in ours:
            if one["trial"] is not None:
                true_error = (one["true"]["high"] - one["true"]["low"]) / 3.92
                z.append(
                    (one["trial"]["value"] - one["true"]["value"])
                    / float(np.hypot(one["trial"]["std_error"], true_error))
                )
        refused = sum("value" not in one["off-policy"] for one in ours)
        add(f"{label}, off-policy refusals", refused / n, None, None, "none: reported", True)
    apart = over(
        [
            one["arms"]["reinforced"]["true"]["value"] - one["arms"]["clicks"]["true"]["value"]
            for one in found
        ]
    )
    add(
        "reinforced on habit less reinforced on clicks, true active days in 28",
        *apart,
        "interval above 0",
        apart[1] > 0,
        readme=True,
    )
    ranked = [
        one["arms"]
        for one in found
        if all("value" in one["arms"][arm]["off-policy"] for arm in ARMS)
    ]
    right = sum(
        arms["reinforced"]["off-policy"]["value"] > arms["clicks"]["off-policy"]["value"]
        for arms in ranked
    )
    add(
        "off-policy puts habit above clicks, share of seeds where both are estimable",
        right / max(len(ranked), 1),
        None,
        None,
        "at least 0.9",
        right >= 0.9 * len(ranked),
    )
    if len(z) > 1:
        held = float(np.mean(np.abs(z) < 1.96))
        add(
            "trials within 1.96 standard errors of the truth (both errors)",
            held,
            None,
            None,
            "at least 0.85",
            held >= 0.85,
            readme=True,
        )
        mean, low, high = over(z)
        add(
            "trial less truth, standard errors, mean over arms and seeds",
            mean,
            low,
            high,
            "interval holds 0",
            low <= 0 <= high,
        )
        add(
            "trial less truth, standard errors, standard deviation",
            float(np.std(z, ddof=1)),
            None,
            None,
            "none: 1 expected",
            True,
        )
    wall, cpu = (np.median([one[what] for one in found]) for what in ("seconds", "cpu_seconds"))
    add(
        "the loop, CPU seconds on one thread, median",
        float(cpu),
        None,
        None,
        "under 270",
        cpu < 270,
        readme=True,
    )
    add(
        "the loop, wall seconds, median, another seed beside it",
        float(wall),
        None,
        None,
        "none: shared machine",
        True,
    )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--quick",
        action="store_true",
        help="one tiny seed: shows that the script runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument("--seeds", type=int, default=10)
    given = options.parse_args()
    seeds = 1 if given.quick else given.seeds
    configs = [configuration(seed, SMALL if given.quick else {}) for seed in range(1, seeds + 1)]
    if given.quick:
        found = [_one(config.model_dump_json()) for config in configs]
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = []
            for seed, one in enumerate(
                pool.map(_one, [config.model_dump_json() for config in configs]), 1
            ):
                found.append(one)
                print(
                    seed,
                    {
                        arm: (said["decision"]["verdict"], said["true"], said["trial"])
                        for arm, said in one["arms"].items()
                    },
                    flush=True,
                )
    rows = claims(
        found, configs[0].experiment.minimum_effect, f"python bench/demo.py --seeds {given.seeds}"
    )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def _one(config: str) -> dict[str, Any]:
    return loop(config=config)


if __name__ == "__main__":
    main()
