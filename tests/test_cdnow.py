"""CDNOW, computed by our signals: repeats, recency and T of every customer as published, and the published model from them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import betaln, gammaln

from longplay.lake import Lake
from longplay.signals import Outcomes, Signal, active_days, count, enrolment

DATA = Path(__file__).resolve().parents[2] / "shared/data/cdnow"
END = datetime(1997, 10, 1, tzinfo=UTC)  # the midnight that ends the calibration period
REPEAT = Signal("repeat", enrolment(), active_days(), (1, 365))

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the CDNOW log is not on this machine (../shared/data/cdnow)")


def lake_of(name: str, customer: int) -> Lake:
    """Purchases of a file with columns separated by blanks; `customer` is the column of the id, the next two are date and number of discs."""
    lines = [line.split() for line in (DATA / name).read_text().splitlines() if line.split()[0].isdigit()]
    rows = [
        (f"line-{number}", line[customer], datetime.strptime(line[customer + 1], "%Y%m%d").replace(tzinfo=UTC)) for number, line in enumerate(lines)
    ]
    events = pl.DataFrame(rows, schema={"event_id": pl.String, "user_id": pl.String, "time": pl.Datetime("us", "UTC")}, orient="row")
    lake = Lake.memory()
    lake.append(name, events=events.with_columns(kind=pl.lit("purchase")), watermark=datetime(1998, 7, 1, tzinfo=UTC))
    return lake


def per_customer(outcomes: Outcomes) -> pl.DataFrame:
    """Repeats, weeks of the last of them and weeks observed, by customer; of outcomes that are still open."""
    trace = outcomes.trace().tocsr()
    last = [int(trace.indices[start:end].max()) + 1 if end > start else 0 for start, end in zip(trace.indptr, trace.indptr[1:])]
    return pl.DataFrame(
        {
            "customer": outcomes.frame["user_id"],
            "frequency": np.asarray(trace.sum(axis=1))[:, 0].astype(int),
            "recency": np.array(last) / 7,
            "T": outcomes.observed() / 7,
        }
    ).sort("customer")


def test_repeats_recency_and_age_equal_the_published_table_row_by_row() -> None:
    lake = lake_of("CDNOW_sample.txt", customer=1)
    assert lake.events.height == 6_919
    outcomes = REPEAT.outcomes(lake, as_of=END)
    assert not outcomes.mature.any()  # a year has not passed: what is known of the open windows is in the trace
    ours = per_customer(outcomes)
    published = pl.read_csv(DATA / "cdnow_customers_summary.csv").with_columns(customer=pl.col("ID").cast(pl.String).str.zfill(4)).sort("customer")
    assert ours.height == published.height == 2_357
    assert ours["customer"].to_list() == published["customer"].to_list()
    for name in ("frequency", "recency", "T"):
        assert ours[name].round(2).to_list() == published[name].cast(ours[name].dtype).to_list()


def test_several_purchases_on_a_day_are_one_repeat_but_each_a_purchase() -> None:
    lake = lake_of("CDNOW_sample.txt", customer=1)
    days, purchases = (
        Signal("s", enrolment(), measure, (1, 365)).outcomes(lake, as_of=END).trace().sum() for measure in (active_days(), count("purchase"))
    )
    by_day = lake.events.filter(pl.col("time") < END).group_by("user_id", pl.col("time").dt.date().alias("day")).len()
    later = by_day.filter(pl.col("day") > pl.col("day").min().over("user_id"))
    assert (days, purchases) == (later.height, later["len"].sum())
    assert purchases > days


def test_the_whole_log_loads_without_loss_and_matures() -> None:
    lake = lake_of("CDNOW_master.txt", customer=0)
    assert (lake.events.height, lake.events["user_id"].n_unique()) == (69_659, 23_570)
    outcomes = REPEAT.outcomes(lake)
    assert (len(outcomes), int(outcomes.mature.sum())) == (23_570, 23_570)  # all began in the first quarter, and the log is 18 months long
    assert outcomes.base_rate().value == pytest.approx(
        lake.events.with_columns(since=(pl.col("time") - pl.col("time").min().over("user_id")).dt.total_days())
        .filter(pl.col("since").is_between(1, 365))
        .select("user_id", "since")
        .n_unique()
        / 23_570
    )


def test_the_published_model_follows_from_our_columns() -> None:
    """BG/NBD (Fader, Hardie, Lee 2005): r .243, alpha 4.414, a .793, b 2.426, log-likelihood -9582.4."""
    ours = per_customer(REPEAT.outcomes(lake_of("CDNOW_sample.txt", customer=1), as_of=END))
    x, t_x, t = (ours[name].round(2).to_numpy().astype(float) for name in ("frequency", "recency", "T"))

    def loss(logs: NDArray[np.float64]) -> float:
        r, alpha, a, b = np.exp(logs)
        common = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + t)
        gone = np.where(x > 0, betaln(a + 1, b + np.maximum(x, 1) - 1) - betaln(a, b) - (r + x) * np.log(alpha + t_x), -np.inf)
        return -float(np.sum(common + np.logaddexp(alive, gone)))

    best = optimize.minimize(loss, np.zeros(4), method="L-BFGS-B")
    assert np.exp(best.x) == pytest.approx([0.243, 4.414, 0.793, 2.426], abs=5e-3)
    assert -best.fun == pytest.approx(-9582.4, abs=0.1)
