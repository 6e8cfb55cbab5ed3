"""Signals of a grocery chain, on the Complete Journey sample: `python examples/journey.py FOLDER`.

FOLDER holds transactions_sample, products, demographics, coupon_redemptions, campaigns and
campaign_descriptions, as Parquet files. A household is a user, a product an item, a product
category what habits are formed with. docs/journey.md walks through what this prints.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

import longplay as lp
from longplay.signals.outcomes.in_memory import Outcomes

SIGNALS = {
    signal.name: signal
    for signal in (
        lp.Signal("back_7d", lp.user_day(), lp.returned(), (1, 7)),
        lp.Signal("back_28d", lp.user_day(), lp.returned(), (1, 28)),
        lp.Signal(
            "category_habit", lp.discovery(novel_for=56), lp.days_with("creator") >= 2, (1, 56)
        ),
        lp.Signal(
            "lasting_category", lp.discovery(novel_for=56), lp.days_with("creator") >= 1, (57, 84)
        ),
        lp.Signal("reactivation", lp.user_day(dormant_for=28), lp.active_days() >= 2, (1, 28)),
        lp.Signal("variety", lp.enrolment(), lp.habits("creator", days=2), (1, 182)),
        lp.Signal(
            "after_coupon",
            lp.event("visit", novel_for=28),
            lp.count("purchase").above_baseline(28),
            (1, 28),
        ),
        lp.Signal("after_any_day", lp.user_day(), lp.count("purchase").above_baseline(28), (1, 28)),
    )
}
END = datetime(2018, 1, 1, tzinfo=UTC)
NO_CATEGORY = (
    "COUPON/MISC ITEMS"  # fuel, gift cards, key rings: a rest, not something to form a habit with
)
CAMPAIGN = "18"  # that of most households


def journey_lake(folder: Path) -> lp.Lake:
    """The sample as a lake: a purchase per line that sold something, a visit per coupon that was
    redeemed."""
    lines = pl.read_parquet(folder / "transactions_sample.parquet").with_row_index("line")
    products = pl.read_parquet(folder / "products.parquet").select(
        "product_id", "product_type", category="product_category"
    )
    sold = lines.filter(pl.col("quantity") > 0).join(
        products, on="product_id", how="left", maintain_order="left"
    )
    # Times are moments, in UTC, of shops on Eastern time: the file's own weeks begin at 04:00 or
    # 05:00. Days of longplay are UTC days, so the
    # shops' clock is given as if it were UTC; else the evening's shopping would count on the day
    # after.
    clock = (
        pl.col("transaction_timestamp")
        .dt.convert_time_zone("America/New_York")
        .dt.replace_time_zone(None)
        .dt.replace_time_zone("UTC")
    )
    sold = sold.with_columns(
        clock=clock, category=pl.when(pl.col("category") != NO_CATEGORY).then("category")
    )
    with_coupon = (pl.col("coupon_disc") > 0) | (pl.col("coupon_match_disc") > 0)
    purchases = sold.select(
        event_id=pl.format("line-{}", "line"),
        user_id="household_id",
        item_id="product_id",
        creator_id="category",
        kind=pl.lit("purchase"),
        time="clock",
        surface=pl.format("store {}", "store_id"),
        origin=pl.when(with_coupon).then(pl.lit("recommended")).otherwise(pl.lit("organic")),
    )
    coupons = pl.read_parquet(folder / "coupon_redemptions.parquet").with_row_index("line")
    visits = coupons.select(
        event_id=pl.format("coupon-{}", "line"),
        user_id="household_id",
        item_id=pl.lit(None, pl.String),
        creator_id=pl.lit(None, pl.String),
        kind=pl.lit("visit"),
        time=pl.col("redemption_date").cast(pl.Int32).cast(pl.Date).cast(pl.Datetime("us", "UTC")),
        surface=pl.format("campaign {}", "campaign_id"),
        origin=pl.lit("recommended"),
    )
    items = sold.group_by("product_id").agg(
        pl.col("category", "product_type").first(), pl.col("clock").min()
    )
    items = items.select(
        item_id="product_id", creator_id="category", title="product_type", added_at="clock"
    )
    lake = lp.Lake.memory()
    print(lake.append("journey", events=pl.concat([purchases, visits]), items=items, watermark=END))
    moved = sold.filter(
        pl.col("clock").dt.date() != pl.col("transaction_timestamp").dt.date()
    ).height
    print(
        f"{lines.height:,} lines, {lines.height - sold.height:,} of them sold nothing; "
        f"{sold['household_id'].n_unique():,} households, "
        f"{sold['product_id'].n_unique():,} products, {sold['category'].drop_nulls().n_unique()} "
        "categories\n"
        f"{sold['category'].null_count():,} lines have no category; "
        f"{purchases.filter(origin='recommended').height:,} were bought with a coupon; "
        f"{moved:,} would count on the next day in UTC"
    )
    return lake


def by_category(habit: Outcomes) -> None:
    """The categories most often taken up, of those with enough entries."""
    habit = habit.certain()
    mature = (
        habit.frame.filter(pl.col("value").is_not_null())
        .group_by("creator_id")
        .agg(pl.len(), pl.col("value").mean())
    )
    best = mature.filter(pl.col("len") >= 500).sort("value", "creator_id", descending=[True, False])
    for category in best["creator_id"].head(5):
        print(f"  {category}: {habit.where(habit.keys == category).base_rate()}")


def by_household_size(lake: lp.Lake, outcomes: list[Outcomes], demographics: pl.DataFrame) -> None:
    """The rates of households of every size, and of those of which nothing is known."""
    sizes = demographics.select(user_id="household_id", size="household_size")
    bought = lake.events.filter(kind="purchase").join(sizes, on="user_id", how="left")
    for size in (*sorted(set(sizes["size"])), None):
        lines = bought.filter(pl.col("size").eq_missing(size))
        of_size = [
            one.where(one.frame["user_id"].is_in(lines["user_id"].unique().implode()))
            for one in outcomes
        ]
        rates = "; ".join(f"{one.signal.name} {one.base_rate()}" for one in of_size)
        households = lines["user_id"].n_unique()
        print(
            f"  {size or 'not known'}: {households:,} households of "
            f"{lines.height / households:.1f} lines each; {rates}"
        )


def by_month(lake: lp.Lake, habit: Outcomes) -> None:
    """How many lines are first touches, month by month: the log's beginning makes more of them."""
    bought = lake.events.filter(pl.col("creator_id").is_not_null())
    for start, end in pairwise(
        [*(datetime(2017, month, 1, tzinfo=UTC) for month in range(1, 13)), END]
    ):
        entered, lines = (
            habit.entered(start, end),
            bought.filter(pl.col("time").is_between(start, end, closed="left")).height,
        )
        rate = entered.base_rate(truncated=True) if entered.mature.any() else "no habit known yet"
        uncertain, mature = entered.frame["truncated"].mean() or 0, entered.mature.mean()
        print(
            f"  {start:%B}: {len(entered) / lines:.0%} of {lines:,} lines, {uncertain:.0%} "
            f"truncated, {mature:.0%} mature; {rate}"
        )


def thinned(lake: lp.Lake, every: int) -> lp.Lake:
    """The lake with one of `every` lines of the file, which is in random order, and with all
    coupons."""
    line = pl.col("event_id").str.strip_prefix("line-").cast(pl.Int64, strict=False)
    thin = lp.Lake.memory()
    thin.append(
        "thin",
        events=lake.events.filter((pl.col("kind") != "purchase") | (line % every == 0)),
        items=lake.items,
        watermark=END,
    )
    return thin


def by_thinning(lake: lp.Lake) -> None:
    """What the same signals say of half and of a quarter of the lines."""
    for every, share in ((1, "all"), (2, "half"), (4, "a quarter")):
        thin = thinned(lake, every)
        found = {
            name: SIGNALS[name].outcomes(thin)
            for name in ("back_28d", "category_habit", "reactivation")
        }
        touched = thin.events["creator_id"].count()
        print(
            f"  {share} of the lines: {len(found['category_habit']) / touched:.0%} of {touched:,} "
            "are first touches"
        )
        for name, outcomes in found.items():
            print(f"    {name}: {len(outcomes):,} entries, {outcomes.base_rate()}")


def by_campaign(folder: Path, back: Outcomes) -> None:
    """Households in the largest campaign beside the rest, in four weeks that were over before it
    began, and in its first four."""
    begins = (
        pl.read_parquet(folder / "campaign_descriptions.parquet")
        .filter(campaign_id=CAMPAIGN)["start_date"]
        .item()
    )
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(begins))
    chosen = pl.read_parquet(folder / "campaigns.parquet").filter(campaign_id=CAMPAIGN)[
        "household_id"
    ]
    in_it = back.frame["user_id"].is_in(chosen.implode())
    print(
        f"\ncampaign {CAMPAIGN}, from {start:%d %B} on, to {len(chosen):,} households: "
        f"{back.signal.name}"
    )
    for words, days in (("before", -36), ("after", 0)):
        first, last = start + timedelta(days=days), start + timedelta(days=days + 27)
        for who, mask in (("chosen", in_it), ("others", ~in_it)):
            print(
                f"  {words}, {first:%d %B} to {last:%d %B}, {who}: "
                f"{back.where(mask).entered(first, last + timedelta(days=1)).base_rate()}"
            )


def main(folder: Path) -> None:
    """Print the sentences, what the log says of each, and where one must be careful."""
    lake = journey_lake(folder)
    found = {name: signal.outcomes(lake) for name, signal in SIGNALS.items()}
    print()
    for name, signal in SIGNALS.items():
        print(f"{signal}\n  {str(found[name]).partition(': ')[2]}")

    habit, back = found["category_habit"], found["back_28d"]
    built = habit.maturity_curve().filter(pl.col("day").is_in([7, 14, 28, 42, 56]))
    print(
        "\ncategory_habit, had its window ended on day",
        ", ".join(f"{day}: {value:.4f}" for day, value in built.iter_rows()),
    )
    print("\ncategory_habit, of categories with 500 mature entries or more")
    by_category(habit)
    print("\nby size of the household")
    by_household_size(lake, [back, habit], pl.read_parquet(folder / "demographics.parquet"))
    print("\nfirst touches of a category, by month")
    by_month(lake, habit)
    print("\nwhat thinning does")
    by_thinning(lake)
    by_campaign(folder, found["back_7d"])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(
            "usage: python examples/journey.py FOLDER, which holds transactions_sample.parquet "
            "and its fellows"
        )
    main(Path(sys.argv[1]))
