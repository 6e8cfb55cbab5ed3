"""CDNOW (Fader & Hardie): our signals against figures that others published, customer by
customer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln

import longplay as lp
from longplay.lake.adapters import Source, read_table
from longplay.signals.outcomes.in_memory import Outcomes

DATA = Path(__file__).resolve().parents[2] / "shared/data/cdnow"
SAMPLE, MASTER, SUMMARY = (
    DATA / name for name in ("CDNOW_sample.txt", "CDNOW_master.txt", "cdnow_customers_summary.csv")
)
pytestmark = pytest.mark.skipif(
    not all(file.exists() for file in (SAMPLE, MASTER, SUMMARY)),
    reason=f"the CDNOW files are not in {DATA}",
)

END = datetime(1998, 7, 1, tzinfo=UTC)  # the log is whole until then
CALIBRATED = datetime(
    1997, 10, 1, tzinfo=UTC
)  # the published figures are as of the end of 30 September 1997
REPEAT = lp.Signal(
    "repeat", lp.enrolment(), lp.active_days(), (1, 365)
)  # the days after the first one on which somebody bought


def read_cdnow(file: Path, names: list[str], folder: Path) -> Source:
    """The log at `file`, fields between spaces, as purchases; `customer` and `date` are among its
    `names`."""
    fields = pl.Series(file.read_text().splitlines()).str.extract_all(r"\S+")
    rows = (
        pl.DataFrame({"fields": fields})
        .select(pl.col("fields").list.to_struct(fields=names))
        .unnest("fields")
    )
    rows.filter(pl.col("customer") != "customer_id").write_parquet(folder / f"{file.stem}.parquet")
    columns = {"user_id": "customer", "time": "date"}
    return read_table(
        folder / f"{file.stem}.parquet",
        columns,
        constants={"kind": "purchase"},
        time_format="%Y%m%d",
    )


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> lp.Lake:
    """The 2,357 sampled customers, by the sample's own id of them."""
    source = read_cdnow(
        SAMPLE,
        ["id_in_master", "customer", "date", "cds", "dollars"],
        tmp_path_factory.mktemp("cdnow"),
    )
    lake = lp.Lake.memory()
    lake.append(
        "sample", events=source.events, rejected=source.rejected, max_bad_share=0, watermark=END
    )
    assert lake.events.height == 6_919
    return lake


@pytest.fixture(scope="module")
def repeat(sample: lp.Lake) -> Outcomes:
    """Their repeat purchases as they were known on 1 October 1997."""
    return REPEAT.outcomes(sample, as_of=CALIBRATED)


def summary_of(
    repeat: Outcomes,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per entry: repeat purchase days, weeks from the first purchase to the last, weeks from the
    first to the end; shape [N] each."""
    row, day, _ = repeat.hits
    last_N = np.zeros(len(repeat))
    np.maximum.at(last_N, row, day + repeat.signal.window[0])
    return np.asarray(repeat.trace().sum(axis=1))[:, 0], last_N / 7, repeat.observed() / 7


def test_repeat_counts_recency_and_age_of_every_customer_are_the_published_ones(
    repeat: Outcomes,
) -> None:
    frequency, recency, age = summary_of(repeat)
    ours = repeat.frame.select(ID=pl.col("user_id").cast(pl.Int64)).with_columns(
        frequency=frequency.astype(np.int64), recency=recency.round(2), T=age.round(2)
    )
    published = pl.read_csv(SUMMARY)
    assert published.height == 2_357
    assert ours.sort("ID").rows() == published.rows()


def test_a_year_is_not_over_so_no_outcome_is_known_yet(repeat: Outcomes) -> None:
    assert not repeat.mature.any()
    assert repeat.frame["value"].null_count() == 2_357


def test_several_purchases_on_a_day_are_one_repeat_but_each_a_purchase(
    sample: lp.Lake, repeat: Outcomes
) -> None:
    purchases = lp.Signal("purchases", lp.enrolment(), lp.count("purchase"), (1, 365)).outcomes(
        sample, as_of=CALIBRATED
    )
    by_day = (
        sample.before(CALIBRATED)
        .events.group_by("user_id", pl.col("time").dt.date().alias("day"))
        .len()
    )
    later = by_day.filter(pl.col("day") > pl.col("day").min().over("user_id"))
    assert (repeat.trace().sum(), purchases.trace().sum()) == (later.height, later["len"].sum())
    assert later["len"].sum() > later.height


def minus_log_likelihood(
    log_parameters: NDArray[np.float64],
    x: NDArray[np.float64],
    t_x: NDArray[np.float64],
    T: NDArray[np.float64],
) -> float:
    """BG/NBD (Fader, Hardie & Lee 2005, eq. 6) of x repeats until t_x of T weeks, at the logarithms
    of r, alpha, a, b."""
    r, alpha, a, b = np.exp(log_parameters)
    shared = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + T)
    gone = betaln(a + 1, b + np.maximum(x, 1) - 1) - betaln(a, b) - (r + x) * np.log(alpha + t_x)
    return -float((shared + np.where(x > 0, np.logaddexp(alive, gone), alive)).sum())


def test_the_published_maximum_likelihood_follows_from_our_numbers(repeat: Outcomes) -> None:
    fit = minimize(
        minus_log_likelihood,
        np.zeros(4),
        args=summary_of(repeat),
        method="L-BFGS-B",
        options={"ftol": 1e-12, "gtol": 1e-8},
    )
    assert [round(value, 3) for value in np.exp(fit.x)] == [0.243, 4.414, 0.793, 2.426]
    assert round(-fit.fun, 1) == -9582.4


def test_the_full_log_loads_without_loss_and_says_the_same_of_the_sample(
    repeat: Outcomes, tmp_path: Path
) -> None:
    source = read_cdnow(MASTER, ["customer", "date", "cds", "dollars"], tmp_path)
    lake = lp.Lake.open(tmp_path / "lake")
    done = lake.append(
        "master", events=source.events, rejected=source.rejected, max_bad_share=0, watermark=END
    )
    assert str(done) == "batch master: 69,659 events"
    assert lake.events["user_id"].n_unique() == 23_570
    everybody = REPEAT.outcomes(lake, as_of=CALIBRATED)
    assert len(everybody) == 23_570
    year = REPEAT.outcomes(lake)
    assert year.mature.all(), "all began in the first quarter, and the log is 18 months long"
    since = (pl.col("time") - pl.col("time").min().over("user_id")).dt.total_days()
    days = (
        lake.events.select("user_id", since=since)
        .filter(pl.col("since").is_between(1, 365))
        .n_unique()
    )
    assert year.base_rate().value == pytest.approx(days / 23_570)

    ids = (
        pl.Series(SAMPLE.read_text().splitlines())
        .str.extract_groups(r"^\s*(?<master>\S+)\s+(?<sample>\S+)")
        .struct.unnest()
        .unique()
    )
    theirs = everybody.where(everybody.frame["user_id"].is_in(ids["master"].implode()))
    assert len(theirs) == 2_357
    for few, many in zip(summary_of(repeat), summary_of(theirs), strict=True):
        one = dict(zip(repeat.frame["user_id"], few, strict=True))
        other = dict(zip(theirs.frame["user_id"], many, strict=True))
        assert [one[sample] for sample in ids["sample"]] == [
            other[master] for master in ids["master"]
        ]
