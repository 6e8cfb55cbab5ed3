"""The Open Bandit Dataset through the adapter: estimates equal plain NumPy from the CSV files, to
1e-10."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import longplay as lp
from longplay.chance import keyed_bits
from longplay.cli import app
from longplay.errors import ConfigError
from longplay.estimate import Estimate
from longplay.lake import Lake
from longplay.lake.adapters import read_open_bandit
from longplay.ope import diagnose, doubly_robust, ips, snips
from longplay.ope.diagnostics import weigh
from longplay.ope.estimators import ips_mean, snips_mean
from longplay.ope.logged import logged_slots
from longplay.ope.value import doubly_robust_mean
from longplay.policies.simple import Uniform

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "obd_sample"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the Open Bandit sample is not there")
CAMPAIGNS = [
    (policy, campaign) for policy in ("random", "bts") for campaign in ("all", "men", "women")
]
CLICK = lp.Signal(
    "click", entry=lp.exposure(of="item"), measure=lp.plays("item") >= 1, window=(0, 0)
)


def csv_of(policy: str, campaign: str) -> dict[str, np.ndarray]:
    frame = pl.read_csv(DATA / policy / campaign / f"{campaign}.csv", infer_schema_length=None)
    times = (
        frame["timestamp"].str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="us").dt.epoch("us")
    )
    order = np.lexsort(
        (
            np.array([f"{policy}/{campaign}:{line}" for line in range(1, frame.height + 1)]),
            times.to_numpy(),
        )
    )
    columns = {
        name: frame[name].to_numpy()
        for name in ("item_id", "position", "click", "propensity_score")
    }
    columns |= {"time": times.to_numpy(), "line": np.arange(1, frame.height + 1)}
    return {name: values[order] for name, values in columns.items()}


def lake_of(policy: str, campaign: str) -> Lake:
    source = read_open_bandit(DATA / policy / campaign)
    lake = Lake.memory()
    lake.append(
        "obd",
        events=source.events,
        items=source.items,
        decisions=source.decisions,
        contexts=source.contexts,
        watermark=source.complete_until,
    )
    return lake


def half(lake: Lake) -> Uniform:
    """Uniform over the items with an even number: a law fixed beforehand, other than the
    logger's."""
    even = lake.items.with_columns(available=pl.col("item_id").cast(pl.Int64) % 2 == 0)
    return Uniform(slate=1).adapt(even, lake.events.clear())


def dr_by_hand(log: dict[str, np.ndarray], law_I: np.ndarray, user_N: list[str]) -> float:
    """Doubly robust with a ridge regression cross-fitted by user, written down once more: slot,
    item mean, time, and their products."""
    n, items = len(log["click"]), len(law_I)
    weight_N = law_I[log["item_id"]] / log["propensity_score"]
    fold_N = (keyed_bits("longplay: ope fold", pl.Series(user_N)) % np.uint64(5)).astype(int)

    def item_means(keep_N: np.ndarray) -> np.ndarray:
        count_I = np.bincount(log["item_id"][keep_N], minlength=items)
        sum_I = np.bincount(
            log["item_id"][keep_N], weights=log["click"][keep_N].astype(float), minlength=items
        )
        base = sum_I.sum() / count_I.sum()
        key_I = (sum_I + 50 * base) / (
            count_I + 50
        )  # an item is its own key: shrunk to the base, then to itself
        return np.column_stack([(sum_I + 50 * key_I) / (count_I + 50), key_I])

    shown_q_N, direct_N = np.zeros(n), np.zeros(n)
    for fold in range(5):
        x, y = [], []
        for other in range(5):
            if other != fold:
                rows = np.flatnonzero(fold_N == other)
                means = item_means((fold_N != fold) & (fold_N != other))[log["item_id"][rows]]
                x.append(np.column_stack([means, log["time"][rows] / 86_400e6]))
                y.append(log["click"][rows].astype(float))
        x_NC, y_N = np.concatenate(x), np.concatenate(y)
        low, high = np.quantile(x_NC, [0.01, 0.99], axis=0)
        clipped = np.clip(x_NC, low, high)
        centre, scale = clipped.mean(0), clipped.std(0)

        def expand(x: np.ndarray, low=low, high=high, centre=centre, scale=scale) -> np.ndarray:
            z = (np.clip(x, low, high) - centre) / scale
            left, right = np.triu_indices(3)
            return np.hstack([z, z[:, left] * z[:, right]])

        design = expand(x_NC)
        middle, mean = design.mean(0), y_N.mean()
        design = design - middle
        beta = np.linalg.solve(
            design.T @ design + 1_000.0 * np.eye(design.shape[1]), design.T @ (y_N - mean)
        )
        mine = np.flatnonzero(fold_N == fold)
        means_I, day_N = item_means(fold_N != fold), log["time"][mine] / 86_400e6
        q = np.column_stack(
            [
                mean
                + (expand(np.column_stack([np.tile(means_I[i], (len(mine), 1)), day_N])) - middle)
                @ beta
                for i in range(items)
            ]
        )
        shown_q_N[mine] = q[np.arange(len(mine)), log["item_id"][mine]]
        direct_N[mine] = q @ law_I
    return float(np.mean(direct_N + weight_N * (log["click"] - shown_q_N)))


@pytest.mark.parametrize(("policy", "campaign"), CAMPAIGNS)
@pytest.mark.parametrize("law", ["uniform", "half"])
def test_estimates_equal_plain_numpy_from_the_csv(policy: str, campaign: str, law: str) -> None:
    log, lake = csv_of(policy, campaign), lake_of(policy, campaign)
    items = lake.items.height
    target = Uniform(slate=1).fit(lake) if law == "uniform" else half(lake)
    law_I = (
        np.full(items, 1 / items)
        if law == "uniform"
        else np.where(np.arange(items) % 2 == 0, 2 / items, 0.0)
    )
    weight_N = law_I[log["item_id"]] / log["propensity_score"]
    by_hand = {
        "IPS": np.mean(weight_N * log["click"]),
        "SNIPS": np.sum(weight_N * log["click"]) / np.sum(weight_N),
        "DR": dr_by_hand(log, law_I, [f"u:{policy}/{campaign}:{line}" for line in log["line"]]),
    }
    shown = CLICK.outcomes(lake).on(lake.decisions)
    everybody = {"surface": None, "users": "all"}
    answers = {
        "IPS": ips(target, lake, shown, **everybody),
        "SNIPS": snips(target, lake, shown, **everybody),
        "DR": doubly_robust(target, lake, shown, **everybody, draws=None),
    }
    checked = diagnose(target, lake, shown, **everybody)
    assert checked.slots == checked.users == 10_000
    assert checked.mean_weight == pytest.approx(
        weight_N.mean(), abs=1e-10 * max(1, weight_N.mean())
    )
    assert checked.n_eff == pytest.approx(weight_N.sum() ** 2 / (weight_N**2).sum(), rel=1e-10)
    if (
        not checked.estimable
    ):  # the gates refuse what the weights cannot carry; the formulas below them agree all the same
        assert not any(isinstance(answer, Estimate) for answer in answers.values())
        logged = logged_slots(lake, shown, None, "all")
        own_weight_N, _ = weigh(target, logged)
        answers["IPS"] = ips_mean(own_weight_N, logged.reward_N, logged.user_N)
        answers["SNIPS"] = snips_mean(own_weight_N, logged.reward_N, logged.user_N)
        answers["DR"] = doubly_robust_mean(target, lake, shown, logged, own_weight_N, draws=None)
    for how, value in by_hand.items():
        assert answers[how].value == pytest.approx(value, abs=1e-10), how
    if policy == "random":
        assert checked.estimable


@pytest.mark.parametrize(("policy", "campaign"), CAMPAIGNS)
def test_the_logged_average_and_the_clicks_are_those_of_the_csv(policy: str, campaign: str) -> None:
    log, lake = csv_of(policy, campaign), lake_of(policy, campaign)
    shown = CLICK.outcomes(lake).on(lake.decisions)
    assert shown.frame["value"].null_count() == 0
    assert shown.frame["value"].mean() == pytest.approx(log["click"].mean(), abs=1e-12)
    names = {1: "left", 2: "center", 3: "right"}
    counts = dict(lake.decisions.group_by("surface").len().iter_rows())
    assert counts == {names[place]: int((log["position"] == place).sum()) for place in (1, 2, 3)}
    assert np.exp(shown.frame["log_prob"].to_numpy()) == pytest.approx(
        log["propensity_score"], abs=1e-12
    )
    assert lake.events.height == log["click"].sum()
    assert set(lake.events["origin"]) == {"recommended"}


def test_one_surface_counts_its_rows_alone_and_held_out_users_are_the_default() -> None:
    log, lake = csv_of("random", "men"), lake_of("random", "men")
    shown = CLICK.outcomes(lake).on(lake.decisions)
    uniform = Uniform(slate=1).fit(lake)
    left = diagnose(uniform, lake, shown, surface="left", users="all")
    assert left.slots == (log["position"] == 1).sum()
    held_out = diagnose(uniform, lake, shown, surface=None)
    assert held_out.slots == pytest.approx(2_000, abs=200)
    assert "all users" in str(ips(uniform, lake, shown, surface=None, users="all").estimand)
    with pytest.raises(ConfigError, match="'held out', or 'all'"):
        diagnose(uniform, lake, shown, surface=None, users="everyone")  # type: ignore[arg-type]


def test_features_of_users_and_items_are_attributes() -> None:
    lake = lake_of("random", "men")
    contexts = lake.contexts.select("context_id", "user_attributes").sort("context_id")
    assert contexts["user_attributes"].null_count() == 0
    csv = pl.read_csv(DATA / "random/men/men.csv", infer_schema_length=None)
    for line in (1, 2, 9_999):
        known = contexts.filter(context_id=f"c:random/men:{line}")["user_attributes"][0]
        row = csv.row(line - 1, named=True)
        assert json.loads(known) == {
            f"user_feature_{n}": row[f"user_feature_{n}"] for n in range(4)
        }
    item = json.loads(lake.items.filter(item_id="1")["attributes"][0])
    assert item["item_feature_0"] == -0.7202996418188664
    assert item["item_feature_1"] == "270de57201b8ec18df9a72ed7ecf20eb"


def test_several_campaigns_are_told_apart() -> None:
    with pytest.raises(ConfigError, match=r"give one of .*bts/all"):
        read_open_bandit(DATA)


def test_the_command_line_ingests_a_campaign(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        '[run]\nname = "obd"\n[ingest]\nformat = "open-bandit"\npath = '
        f'"{DATA / "random" / "men"}"\n'
        '[signals.click]\nentry = { kind = "exposure", of = "item" }\nmeasure = { kind = "plays", '
        'of = "item", threshold = 1 }\nwindow = [0, 0]\n'
        "[reward]\nobjectives = { click = 1.0 }\n"
    )
    result = CliRunner().invoke(app, ["ingest", str(file), "--folder", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "34 items" in result.output
