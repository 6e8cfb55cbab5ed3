"""Signals of a grocery chain, on the Complete Journey sample: `python examples/journey.py FOLDER_WITH_THE_PARQUET_FILES`.

A household is a user, a product an item, a product category what a habit is formed with. What was bought with a coupon is not organic.
docs/journey.md walks through what this prints.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

import longplay as lp

SIGNALS = [
    lp.Signal("back_7d", lp.user_day(), lp.returned(), (1, 7), origin=("organic", "recommended")),
    lp.Signal("back_28d", lp.user_day(), lp.returned(), (1, 28), origin=("organic", "recommended")),
    lp.Signal("category_habit", lp.discovery(novel_for=56), lp.days_with("creator") >= 2, (1, 56)),
    lp.Signal("lasting_category", lp.discovery(novel_for=56), lp.days_with("creator") >= 1, (57, 84)),
    lp.Signal("reactivation", lp.user_day(dormant_for=28), lp.active_days() >= 2, (1, 28)),
    lp.Signal("variety", lp.enrolment(), lp.habits("creator", days=3), (1, 84)),
    lp.Signal("after_coupon", lp.event("visit", novel_for=28), lp.count("purchase").above_baseline(28), (1, 28)),
]


def journey_lake(folder: Path) -> lp.Lake:
    """The sample as a lake: a purchase per line, a visit per coupon that was redeemed."""
    products = pl.read_parquet(folder / "products.parquet").select("product_id", "product_category", "product_type")
    lines = pl.read_parquet(folder / "transactions_sample.parquet").join(products, on="product_id", how="left", maintain_order="left")
    purchases = lines.select(
        event_id=pl.format("line-{}", pl.int_range(pl.len())),
        user_id="household_id",
        item_id="product_id",
        creator_id="product_category",
        kind=pl.lit("purchase"),
        time=pl.col("transaction_timestamp"),
        surface=pl.format("store {}", "store_id"),
        origin=pl.when((pl.col("coupon_disc") != 0) | (pl.col("coupon_match_disc") != 0)).then(pl.lit("recommended")).otherwise(pl.lit("organic")),
    )
    coupons = pl.read_parquet(folder / "coupon_redemptions.parquet").select(
        event_id=pl.format("coupon-{}", pl.int_range(pl.len())),
        user_id="household_id",
        item_id=pl.lit(None, pl.String),
        creator_id=pl.lit(None, pl.String),
        kind=pl.lit("visit"),
        time=pl.from_epoch((pl.col("redemption_date") * 86_400).cast(pl.Int64), "s").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        surface=pl.format("campaign {}", "campaign_id"),
        origin=pl.lit("recommended"),
    )
    items = lines.select(
        item_id="product_id", creator_id="product_category", title="product_type", added_at=pl.lit(datetime(2017, 1, 1, tzinfo=UTC))
    ).unique("item_id", keep="first", maintain_order=True)
    lake = lp.Lake.memory()
    lake.append("journey", events=pl.concat([purchases, coupons]), items=items, watermark=datetime(2018, 1, 1, tzinfo=UTC))
    return lake


def main(folder: Path) -> None:
    """Print the sentences, what the log says of each, and where one must be careful."""
    lake = journey_lake(folder)
    for signal in SIGNALS:
        print(signal)
        print(f"  {signal.outcomes(lake)}")
    habit = next(signal for signal in SIGNALS if signal.name == "category_habit").outcomes(lake)

    print("\ncategory_habit by income of the household")
    income = pl.read_parquet(folder / "demographics.parquet").select(user_id="household_id", income="income")
    of_entry = habit.frame.join(income, on="user_id", how="left", maintain_order="left")["income"].fill_null("not known")
    for level in ("Under 15K", "35-49K", "75-99K", "not known"):
        part = habit.where(of_entry == level)
        print(f"  {level}: {part.base_rate()} of {int(part.mature.sum()):,} mature entries")

    print("\nwhat the log's beginning does: entries and habits by month of the first touch")
    for month in (1, 2, 3, 6, 9):
        start = datetime(2017, month, 1, tzinfo=UTC)
        part = habit.entered(start, (start + timedelta(days=32)).replace(day=1))
        print(f"  {start:%B}: {len(part):,} entries, {part.frame['truncated'].mean():.0%} truncated, {part.base_rate()}")

    print("\nwhat thinning does: the same signal with a random half of the lines")
    half = lp.Lake.memory()
    half.append("half", events=lake.events.filter(pl.col("event_id").hash(seed=1) % 2 == 0), items=lake.items, watermark=lake.watermark)
    thinned = habit.signal.outcomes(half)
    print(f"  all lines: {len(habit):,} entries, {habit.base_rate()}")
    print(f"  half of them: {len(thinned):,} entries, {thinned.base_rate()}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python examples/journey.py FOLDER, which holds transactions_sample.parquet and its fellows")
    main(Path(sys.argv[1]))
