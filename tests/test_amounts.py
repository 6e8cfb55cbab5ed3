"""Amounts: a column that logs may have, from the file to the sum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from older_lakes import write_older_lake

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.adapters import read_retail, read_table
from longplay.lake.content import content_digest
from longplay.lake.schema import DTYPES, conform
from longplay.signals import Measure, Signal, amount, discovery, enrolment, plays
from longplay.signals.outcomes.in_files import write_outcomes
from longplay.signals.store.signal_store import SignalStore

START = datetime(2028, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SPENT = Signal("spent", enrolment(), amount("purchase"), (1, 7))


def bought(day: int, paid: float | None, kind: str = "purchase", creator: str = "c1") -> dict:
    return {
        "event_id": f"{day}-{paid}-{kind}",
        "user_id": "u1",
        "item_id": "i1",
        "creator_id": creator,
        "kind": kind,
        "time": START + day * DAY,
        "amount": paid,
    }


def lake_of(*rows: dict) -> Lake:
    lake = Lake.memory()
    lake.append("all", events=pl.DataFrame(rows), watermark=START + 40 * DAY)
    return lake


def value(measure: Measure, *rows: dict, window: tuple[int, int] = (1, 7)) -> float | None:
    outcomes = Signal("s", enrolment(), measure, window).outcomes(lake_of(*rows))
    return outcomes.frame["value"].item()


ROWS = (
    bought(0, 5.0),
    bought(1, 0.1),
    bought(2, 0.2),
    bought(2, None),
    bought(3, 7.5, "refund"),
    bought(4, 1.25, creator="c2"),
    bought(8, 100.0),
    bought(3, None, "play"),
)


def test_amounts_of_a_kind_of_event_are_summed_over_the_days_of_the_window() -> None:
    assert value(amount("purchase"), *ROWS) == pytest.approx(1.55, abs=1e-12)
    assert value(amount("purchase"), *ROWS, window=(0, 8)) == pytest.approx(106.55, abs=1e-12)
    assert value(amount("refund"), *ROWS) == 7.5
    assert value(amount("purchase") >= 1.55, *ROWS) == 1  # to the last digit
    assert value(amount("purchase") >= 1.5501, *ROWS) == 0
    assert value(amount("purchase") <= 1.55, *ROWS) == 1
    assert value(amount("purchase") / plays(), *ROWS) == pytest.approx(1.55)
    trace = SPENT.outcomes(lake_of(*ROWS)).trace().toarray()
    assert trace.tolist() == [[0.1, 0.2, 0, 1.25, 0, 0, 0]]


def test_amounts_with_a_creator_are_of_the_entrys_own() -> None:
    signal = Signal("s", discovery(), amount("purchase", "creator"), (1, 8))
    outcomes = signal.outcomes(lake_of(*ROWS)).frame.select("creator_id", "value")
    assert dict(outcomes.rows()) == {"c1": pytest.approx(100.3), "c2": 0.0}


def test_which_way_an_amount_is_better_follows_its_event() -> None:
    assert [amount("purchase").better, amount("refund").better] == ["higher", "lower"]
    assert (amount("refund") <= 10).better == "higher"
    assert str(Signal("s", enrolment(), amount() >= 20)).endswith(
        "the share where the amount of purchases comes to at least 20 in days 1 to 28 after"
    )
    assert "the mean amount of refunds of that creator in" in str(
        Signal("s", discovery(), amount("refund", "creator"))
    )


def test_a_log_without_amounts_is_refused_and_says_what_to_map() -> None:
    nothing = bought(0, None)
    with pytest.raises(DataError, match=r"no purchase with an amount.*map a column to amount"):
        value(amount("purchase"), nothing, bought(1, None), bought(2, 3.0, "refund"))
    with pytest.raises(DataError, match="no event of kind 'refund'"):
        value(amount("refund"), nothing)
    with pytest.raises(ConfigError, match="event='gift' given"):
        amount("gift")
    with pytest.raises(ConfigError, match="amount does not ask for the seconds"):
        Measure("amount", event="purchase", seconds=3.0)


@pytest.mark.parametrize(
    ("paid", "reason"),
    [
        (-0.01, "negative amount"),
        (float("nan"), "amount not finite"),
        (float("inf"), "amount not finite"),
        (1e9 + 1, "amount above 1,000,000,000"),
    ],
)
def test_an_amount_that_cannot_be_sets_its_event_aside(paid: float, reason: str) -> None:
    lake = Lake.memory()
    rows = pl.DataFrame([bought(0, 1.0), bought(1, paid)])
    lake.append("all", events=rows, watermark=START + 40 * DAY, max_bad_share=0.5)
    assert lake.quarantine["reason"].to_list() == [reason]
    assert lake.events["amount"].to_list() == [1.0]


def test_a_lake_older_than_amounts_is_read_and_grows(tmp_path: Path) -> None:
    old = conform(pl.DataFrame([bought(0, None), bought(1, None)]), "events").drop("amount")
    write_older_lake(tmp_path / "lake", "old", {"events": old}, START + 2 * DAY)
    lake = Lake.open(tmp_path / "lake")
    assert lake.events.schema == DTYPES["events"]
    assert lake.events["amount"].to_list() == [None, None]
    with pytest.raises(DataError, match="no purchase with an amount"):
        Signal("s", enrolment(), amount(), (0, 0)).outcomes(lake)
    store = SignalStore(tmp_path / "store", lake, [SPENT])
    assert "with an amount" in store.update().waiting[SPENT.label]
    new = pl.DataFrame([bought(3, 2.5), bought(4, 0.5)])
    lake.append("new", events=new, watermark=START + 5 * DAY)
    lake.append("end", events=pl.DataFrame([bought(20, 9.0)]), watermark=START + 21 * DAY)
    assert store.update().waiting == {}
    assert store.outcomes(SPENT)["value"].to_list() == [3.0]
    for place in (lake, Lake.open(tmp_path / "lake")):
        assert place.events["amount"].to_list() == [None, None, 2.5, 0.5, 9.0]
        assert SPENT.outcomes(place).value.tolist() == [3.0]
    written = write_outcomes([SPENT], lake, tmp_path / "files")
    assert pl.read_parquet(written[SPENT.label])["value"].to_list() == [3.0]


def test_a_batch_without_amounts_says_what_it_said_before_there_were_any() -> None:
    events = conform(pl.DataFrame([bought(0, None)]), "events")
    told = conform(pl.DataFrame([bought(0, 1.0)]), "events")
    before = content_digest({"events": events.drop("amount")}, None)
    assert content_digest({"events": events}, None) == before
    assert content_digest({"events": told}, None) != before


def test_a_column_of_a_file_is_mapped_to_amounts(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text(
        "user,when,what,paid\n"
        "u1,2028-03-01T12:00:00Z,purchase,19.99\n"
        "u1,2028-03-02T12:00:00Z,purchase,\n"
        "u1,2028-03-03T12:00:00Z,purchase,much\n"
    )
    columns = {"user_id": "user", "time": "when", "kind": "what", "amount": "paid"}
    source = read_table(file, columns)
    assert source.events is not None
    assert source.events["amount"].to_list() == [19.99, None]
    assert source.rejected["reason"].to_list() == ["unparsable amount"]


def test_the_retail_log_fills_amounts_with_quantity_times_price(tmp_path: Path) -> None:
    file = tmp_path / "retail.csv"
    file.write_text(
        "invoice,item_id,item_title,quantity,ts,price,user_id,country\n"
        "1,a,A,3,2011-01-01 08:00:00,1.5,7,UK\n"
        "C2,a,A,-2,2011-01-02 08:00:00,1.5,7,UK\n"
        "3,B,debt,1,2011-01-03 08:00:00,-10,7,UK\n"
    )
    source = read_retail(file)
    assert source.events is not None
    assert source.events.select("kind", "amount").rows() == [
        ("purchase", 4.5),
        ("refund", 3.0),
        ("purchase", None),
    ]
