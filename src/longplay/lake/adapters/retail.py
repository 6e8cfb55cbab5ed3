"""The Online Retail log of a British gift shop (UCI; Chen, Sain and Guo 2012,
doi:10.1057/dbm.2012.17)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError
from longplay.lake.adapters.layout import Layout
from longplay.lake.adapters.record_files import AMOUNT, KIND, read_source
from longplay.lake.adapters.source import Source
from longplay.lake.adapters.table import map_rows

COLUMNS = {
    "user_id": "user_id",
    "item_id": "item_id",
    "time": "ts",
    "session_id": "invoice",
    "title": "item_title",
}

# Stock codes that are charges, discounts, samples or money, not products: postage (POST, DOT),
# carriage (C2), manual entries (M, m), discount (D), samples (S), bank and marketplace fees, a
# charity's commission, bad debt (B), cushion pads sold at 0.001 (PADS), and vouchers (gift_0001_20
# ...). DCGS... are products.
FEES = ("POST", "DOT", "C2", "M", "m", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS")
VOUCHER = "gift_"
PRICE = "price"  # of one piece


def read_retail(path: str | Path) -> Source:
    """Purchases and refunds of the log at `path` (the columns invoice, item_id, item_title,
    quantity, ts, price, user_id, country).

    One event per invoice line, its id the file and row number, its session the invoice, its surface
    "shop". Rows without a customer are in `rejected` as "missing user": in the full log 135,080 of
    541,909, so append with `max_bad_share=0.25`. Fees stay as events, since a purchase is activity,
    but are not `available` as items. The amount of a line is quantity x price, where the file has
    a price.

    Raises:
        ConfigError: a column is missing.
        DataError: the file cannot be read.
    """
    rows = read_source(path, needed={"invoice", "quantity", PRICE, *COLUMNS.values()})
    for name in ("invoice", "quantity"):
        if name not in rows.columns:
            has = ", ".join(rows.columns)
            raise ConfigError(
                f"{path}: no column {name!r}, expected the Online Retail log, has {has}; use "
                "read_table for another shop"
            )
    cancelled = pl.col("invoice").cast(pl.String).str.starts_with("C") | (
        pl.col("quantity").cast(pl.Float64, strict=False) < 0
    )
    columns = dict(COLUMNS)
    if PRICE in rows.columns:
        columns["amount"] = AMOUNT
    judged = rows.table.with_columns(
        pl.when(cancelled.fill_null(False))
        .then(pl.lit("refund"))
        .otherwise(pl.lit("purchase"))
        .alias(KIND),
        _paid(rows.columns).alias(AMOUNT),
    )
    source = map_rows(
        replace(rows, table=judged),
        str(path),
        Layout(columns | {"kind": KIND}, constants={"surface": "shop"}),
    )
    assert source.items is not None  # a title is mapped
    assert source.events is not None
    is_fee = pl.col("item_id").is_in(FEES) | pl.col("item_id").str.starts_with(VOUCHER)
    items = source.items.with_columns(available=~is_fee)
    refunds = source.events.filter(pl.col("kind") == "refund").height
    anonymous = source.rejected.filter(pl.col("reason") == "missing user").height
    notes = (
        f"{refunds:,} cancelled invoice lines are refunds: kept, and counted as no activity",
        f"{anonymous:,} rows have no customer and are set aside",
        f"{items.height - int(items['available'].sum()):,} stock codes are fees or vouchers: "
        "their purchases count, but they are never recommended",
        "quantity tells refunds from purchases, and makes the amount (quantity x price): a line "
        "counts once however many were bought",
        "times are the shop's local time, taken as UTC",
    )
    return replace(source, items=items, notes=notes + source.notes)


def _paid(columns: Collection[str]) -> pl.Expr:
    """Amount of a line, paid or refunded: quantity x price in pounds, null where unknown."""
    if PRICE not in columns:
        return pl.lit(None, pl.Float64)
    quantity, price = (pl.col(name).cast(pl.Float64, strict=False) for name in ("quantity", PRICE))
    # a price below 0 is an adjustment of the books, not what a customer paid
    return pl.when(price >= 0).then(quantity.abs() * price)
