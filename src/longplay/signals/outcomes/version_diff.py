"""The differences between two versions of a signal on a log: in entries, outcomes and base rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html import escape
from typing import Any, cast

import polars as pl

from longplay.display import html_table, number, plus_minus, text_table
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.lake.lake import Lake
from longplay.signals.declare.checks import described
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.sentence import unit
from longplay.signals.outcomes.definition_diff import (
    ChangedPart,
    changed_parts,
    days_in_words,
    definition_lines,
)
from longplay.signals.outcomes.in_memory import Outcomes, outcomes_of

CHANGES = (
    "only in old",
    "only in new",
    "changed",
    "newly known",
    "no longer known",
    "equal",
    "unknown in both",
)
SEGMENTS = ("surface", "origin", "month")
SHOWN_SEGMENTS = 12  # of each kind; `Diff.segments` has all
SHOWN_ID = 14  # characters of an id in an example; `Diff.rows` has all
DAY = timedelta(days=1)
SEGMENT_SCHEMA = {
    "by": pl.String,
    "segment": pl.String,
    "old_entries": pl.Int64,
    "old": pl.Float64,
    "old_low": pl.Float64,
    "old_high": pl.Float64,
    "new_entries": pl.Int64,
    "new": pl.Float64,
    "new_low": pl.Float64,
    "new_high": pl.Float64,
    "common": pl.Int64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
}

_SEGMENT_HEAD = ("base rate", "old", "new", "both know", "difference there")
_EXAMPLE_HEAD = ("example", "user", "of", "entered", "old", "new")


@dataclass(frozen=True)
class Backfill:
    """What has to be computed for a new version on a log. Nothing of an old version is reused, and
    nothing of it is changed.

    Attributes:
        entries: number of entries that get an outcome.
        mature: number of entries that have it now.
        first: day of the first entry; null without entries.
        last: day of the last entry; null without entries.
        look_back: days before the first entry that are read, as far as the log has them, for
            novelty and baseline; null: all.
        read_to: the last day of the log that is read; null without entries.
        complete_at: when the last entry matures (UTC); null without entries.
    """

    entries: int
    mature: int
    first: date | None
    last: date | None
    look_back: int | None
    read_to: date | None
    complete_at: datetime | None

    @classmethod
    def of(cls, outcomes: Outcomes) -> Backfill:
        """The backfill of a version, from its outcomes."""
        frame = outcomes.frame
        signal = outcomes.signal
        if frame.is_empty():
            return cls(0, 0, None, None, 0, None, None)
        first = cast(datetime, frame["time"].min()).date()
        last = cast(datetime, frame["time"].max()).date()
        look_back = max(signal.entry.novel_for or 0, signal.measure.baseline or 0)
        last_known_day = (outcomes.as_of - timedelta(microseconds=1)).date()
        return cls(
            entries=frame.height,
            mature=int((frame["matures_at"] <= outcomes.as_of).sum()),
            first=first,
            last=last,
            look_back=None if signal.entry.looks_back_forever else look_back,
            read_to=min(last + signal.window[1] * DAY, last_known_day),
            complete_at=cast(datetime, frame["matures_at"].max()),
        )

    def __str__(self) -> str:
        if not self.entries:
            return "nothing to compute: the log has no entry of the new version"
        if self.look_back is None:
            earlier = ", and all before"
        elif self.look_back:
            earlier = f", and up to {days_in_words(self.look_back)} before"
        else:
            earlier = ""
        text = (
            f"compute {self.entries:,} entries of {self.first} to {self.last}; that reads the "
            f"days {self.first} to {self.read_to}{earlier}; {self.mature:,} are mature now"
        )
        if immature := self.entries - self.mature:
            text += (
                f"; {immature:,} are still open, the last until "
                f"{self.complete_at:%Y-%m-%d %H:%M} UTC"
            )
        return text


@dataclass(frozen=True)
class Diff:
    """The differences between two versions of a signal on one log, from the definition down to
    single entries.

    Attributes:
        old: the signal's old version.
        new: the signal's new version.
        as_of: the moment of knowledge (UTC), the same for both.
        rows: one row per entry of either version: user_id, item_id, creator_id, time, origin,
            surface, old_value, new_value, change (one of `CHANGES`).
        old_rate: base rate of the old version, clustered by user.
        new_rate: base rate of the new version, clustered by user.
        difference: mean of new minus old over the entries whose outcome is known in both, clustered
            by user; a refusal where the versions have different units.
        segments: one row per segment of the entries: by (surface, origin or month), segment,
            old_entries, old, old_low, old_high, new_entries, new, new_low, new_high, common,
            difference, difference_low, difference_high. Intervals are 95%, null where there are
            none.
        backfill: what has to be computed for the new version.
        truncated: whether the figures count truncated entries. Else `rows` has no entry that is
            truncated in either version.
        old_truncated: number of truncated entries of the old version.
        new_truncated: number of truncated entries of the new version.
    """

    old: Declaration
    new: Declaration
    as_of: datetime
    rows: pl.DataFrame
    old_rate: Estimate | Refusal
    new_rate: Estimate | Refusal
    difference: Estimate | Refusal
    segments: pl.DataFrame
    backfill: Backfill
    truncated: bool = False
    old_truncated: int = 0
    new_truncated: int = 0

    @property
    def parts(self) -> tuple[ChangedPart, ...]:
        """The parts of the definition that differ."""
        return changed_parts(self.old, self.new)

    @property
    def counts(self) -> dict[str, int]:
        """Number of entries by change, all of `CHANGES`."""
        counts = dict(self.rows["change"].value_counts().iter_rows())
        return {change: counts.get(change, 0) for change in CHANGES}

    def examples(self, each: int = 2) -> pl.DataFrame:
        """The first `each` entries of every kind of change, by time; none of those that are equal or
        unknown in both."""
        rows = self.rows.sort("time", "user_id")
        changes = [change for change in CHANGES if change not in ("equal", "unknown in both")]
        return pl.concat(rows.filter(pl.col("change") == change).head(each) for change in changes)

    def findings(self) -> str:
        """The differences on the log as text, without those of the definition."""
        tables = [text_table(head, rows) for head, rows in self._tables() if rows]
        return "\n".join([*self._lines(), *(line for table in tables for line in ("", table))])

    def __str__(self) -> str:
        return "\n".join([*definition_lines(self.old, self.new), self.findings()])

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<p>{escape(line)}</p>"
            for line in [*definition_lines(self.old, self.new), *self._lines()]
        )
        return lines + "".join(html_table(head, rows) for head, rows in self._tables() if rows)

    def _lines(self) -> list[str]:
        counts = self.counts
        in_both = sum(counts[change] for change in CHANGES[2:])
        by_change = ", ".join(
            f"{counts[change]:,} {change}" for change in CHANGES[2:] if counts[change]
        )
        return [
            f"at {self.as_of:%Y-%m-%d %H:%M} UTC: {counts['only in old']:,} entries only in old, "
            f"{counts['only in new']:,} only in new, "
            f"{in_both:,} in both" + (f" ({by_change})" if in_both else ""),
            f"base rate old: {self.old_rate}",
            f"base rate new: {self.new_rate}",
            f"new minus old on the entries that both know: {self.difference}",
            *self._truncated_lines(),
        ]

    def _truncated_lines(self) -> list[str]:
        if not self.old_truncated and not self.new_truncated:
            return []
        how = (
            "counted in all of this"
            if self.truncated
            else "left out of all of this; --truncated (truncated=True) counts them"
        )
        return [
            f"truncated, near the log's begin: {self.old_truncated:,} entries of old, "
            f"{self.new_truncated:,} of new, {how}"
        ]

    def _tables(self) -> list[tuple[Sequence[str], list[list[str]]]]:
        return [(_SEGMENT_HEAD, self._segment_rows()), (_EXAMPLE_HEAD, self._example_rows())]

    def _segment_rows(self) -> list[list[str]]:
        table = []
        for by in SEGMENTS:
            segments = self.segments.filter(pl.col("by") == by)
            for row in segments.head(SHOWN_SEGMENTS).iter_rows(named=True):
                table.append(
                    [
                        f"{by} {row['segment'] or 'unknown'}",
                        _plus_minus(row, "old"),
                        _plus_minus(row, "new"),
                        f"{row['common']:,}",
                        _plus_minus(row, "difference", signed=True),
                    ]
                )
            if segments.height > SHOWN_SEGMENTS:
                table.append([f"{by}: {segments.height - SHOWN_SEGMENTS} more", "", "", "", ""])
        return table

    def _example_rows(self) -> list[list[str]]:
        key = f"{self.new.entry.of or 'user'}_id"
        return [
            [
                row["change"],
                _short(row["user_id"]),
                _short(row[key]) if key != "user_id" else "-",
                f"{row['time']:%Y-%m-%d %H:%M}",
                _number_or_dash(row["old_value"]),
                _number_or_dash(row["new_value"]),
            ]
            for row in self.examples().iter_rows(named=True)
        ]


def diff(
    old: Declaration,
    new: Declaration,
    lake: Lake,
    as_of: datetime | None = None,
    *,
    truncated: bool = False,
) -> Diff:
    """Compare two versions of a signal on a log: entries, outcomes, base rate by segment. Nothing is
    written.

    Args:
        old: the version in use.
        new: the version that may replace it.
        lake: the log on which both are computed.
        as_of: the moment of knowledge, UTC; default the lake's watermark.
        truncated: whether entries count that are uncertain, because they are near the log's beginning.

    Raises:
        ConfigError: one of the two is no signal.
        DataError: the lake cannot answer one of them; see `Signal.outcomes`.
    """
    for signal, which in ((old, "old"), (new, "new")):
        if not isinstance(signal, Declaration):
            raise ConfigError(
                f"diff: {described(signal)} given as the {which} version, expected a signal: "
                "diff(old, new, lake)"
            )
    return diff_of(
        outcomes_of(old, lake, as_of), outcomes_of(new, lake, as_of), truncated=truncated
    )


def diff_of(old: Outcomes, new: Outcomes, *, truncated: bool = False) -> Diff:
    """The differences between the outcomes of two versions of a signal on one log.

    An entry is in both where the same user enters at the same moment with the same creator (or
    item, or slot). Entries about different things, e.g. a creator and an item, are never the same.

    Args:
        old: outcomes of the earlier version.
        new: outcomes of the later version, of the same log as of the same time.
        truncated: whether truncated entries count. Else each base rate leaves out those of its
            version, and comparisons of entries leave out those of either: where one version is
            unsure of an entry, a difference says nothing about the definitions.

    Raises:
        DataError: the outcomes are of different moments, so that the log's growth would look like a
            change of the definition.
    """
    if old.as_of != new.as_of:
        raise DataError(
            f"diff: outcomes at {old.as_of:%Y-%m-%d %H:%M} and {new.as_of:%Y-%m-%d %H:%M} given, "
            "expected one moment for both"
        )
    all_rows = _rows(old, new)
    if truncated:
        all_rows = all_rows.with_columns(old_truncated=False, new_truncated=False)
    rows = all_rows.filter(_is_certain("old", "new")).drop("old_truncated", "new_truncated")
    difference = _difference(old.signal, new.signal, rows)
    in_old = (pl.col("change") != "only in new") & _is_certain("old")
    in_new = (pl.col("change") != "only in old") & _is_certain("new")
    segments = _segments(all_rows.filter(in_old | in_new), isinstance(difference, Estimate))
    return Diff(
        old.signal,
        new.signal,
        old.as_of,
        rows,
        _rate(old, truncated),
        _rate(new, truncated),
        difference,
        segments,
        Backfill.of(new),
        truncated,
        old.truncated,
        new.truncated,
    )


def _difference(old: Declaration, new: Declaration, rows: pl.DataFrame) -> Estimate | Refusal:
    """Mean of new minus old over the entries whose outcome is known in both."""
    estimand = f"{new.label} minus {old.label} on entries that both know"
    valued = _with_values(rows, "old_value", "new_value")
    if unit(old) != unit(new):
        return Refusal(f"not comparable: old is in {unit(old)}, new in {unit(new)}", estimand)
    if valued.is_empty():
        return Refusal("not estimable: no entry has a known outcome in both", estimand)
    return _mean(valued, pl.col("new_value") - pl.col("old_value"), estimand)


def _is_certain(*sides: str) -> pl.Expr:
    """Whether none of these versions ("old", "new") calls the entry truncated. A version that does
    not have the entry does not."""
    return pl.all_horizontal(~pl.col(f"{side}_truncated").fill_null(False) for side in sides)


def _rows(old: Outcomes, new: Outcomes) -> pl.DataFrame:
    """One row per entry of either version, see `Diff.rows`; also old_truncated and new_truncated."""
    old_side = _side(old, "old")
    new_side = _side(new, "new")
    if old.signal.entry.unit != new.signal.entry.unit:
        # entries about different things are never the same: these keys match nothing
        new_side = new_side.with_columns(key_n=-pl.col("key_n"))
    keys = [name for name in old_side.columns if name.startswith("key_")]
    joined = old_side.join(
        new_side, on=keys, how="full", coalesce=True, nulls_equal=True, suffix="_new"
    )
    entry_columns = ("user_id", "item_id", "creator_id", "time", "origin", "surface")
    rows = joined.with_columns(
        pl.when("in_old").then(name).otherwise(f"{name}_new").alias(name) for name in entry_columns
    )
    values = ("old_value", "new_value", "old_truncated", "new_truncated")
    order = ("time", "user_id", "item_id", "creator_id")
    return rows.select(*entry_columns, *values, _change().alias("change")).sort(
        order, nulls_last=True, maintain_order=True
    )


def _change() -> pl.Expr:
    """Which of `CHANGES` a row of both versions is."""
    old = pl.col("old_value")
    new = pl.col("new_value")
    return (
        pl.when(pl.col("in_new").is_null())
        .then(pl.lit("only in old"))
        .when(pl.col("in_old").is_null())
        .then(pl.lit("only in new"))
        .when(old.is_null() & new.is_null())
        .then(pl.lit("unknown in both"))
        .when(old.is_null())
        .then(pl.lit("newly known"))
        .when(new.is_null())
        .then(pl.lit("no longer known"))
        .when(old == new)
        .then(pl.lit("equal"))
        .otherwise(pl.lit("changed"))
    )


def _side(outcomes: Outcomes, side: str) -> pl.DataFrame:
    """The entries of one version ("old" or "new"), with the keys by which entries of both are
    matched."""
    entry = outcomes.signal.entry
    key = f"{entry.of}_id" if entry.of else None
    if entry.is_slot:
        key = "item_id"
    frame = outcomes.frame.select(
        "user_id",
        "item_id",
        "creator_id",
        "time",
        "origin",
        "surface",
        pl.col("value").alias(f"{side}_value"),
        pl.col("truncated").alias(f"{side}_truncated"),
        pl.lit(True).alias(f"in_{side}"),
        key_user=pl.col("user_id"),
        key_time=pl.col("time"),
        key_of=pl.lit(None, pl.String) if key is None else pl.col(key),
    )
    # two saves of an item in one microsecond are two entries
    nth = pl.int_range(1, pl.len() + 1).over("key_user", "key_time", "key_of")
    return frame.with_columns(key_n=nth)


def _with_values(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The rows in which none of these columns is null."""
    return rows.filter(pl.all_horizontal(pl.col(column).is_not_null() for column in columns))


def _mean(rows: pl.DataFrame, value: pl.Expr, estimand: str = "") -> Estimate:
    # ranks of users sort a hundred times faster than their ids
    columns = rows.select(value=value, user=pl.col("user_id").rank("dense"))
    return clustered_mean(
        columns["value"].to_numpy(), columns["user"].to_numpy(), estimand=estimand
    )


def _rate(outcomes: Outcomes, truncated: bool) -> Estimate | Refusal:
    """A version's base rate, or why there is none."""
    try:
        return outcomes.base_rate(truncated=truncated)
    except DataError as reason:
        return Refusal(str(reason), f"mean {outcomes.signal.label}")


def _segments(rows: pl.DataFrame, is_comparable: bool) -> pl.DataFrame:
    """One row per segment, see `Diff.segments`.

    Args:
        rows: the entries, with old_truncated and new_truncated.
        is_comparable: both versions have one unit, so there is a difference.
    """
    rows = rows.with_columns(month=pl.col("time").dt.strftime("%Y-%m"))
    table: list[dict[str, Any]] = []
    for by in SEGMENTS:
        parts = rows.partition_by(by, as_dict=True)
        for (segment,), part in sorted(parts.items(), key=lambda pair: _order(by, pair)):
            common = _with_values(part.filter(_is_certain("old", "new")), "old_value", "new_value")
            table.append(
                {"by": by, "segment": segment, "common": common.height}
                | _side_cells(part, "old")
                | _side_cells(part, "new")
                | _cells(
                    common if is_comparable else common.clear(),
                    pl.col("new_value") - pl.col("old_value"),
                    "difference",
                )
            )
    return pl.DataFrame(table, schema=SEGMENT_SCHEMA)


def _order(by: str, pair: tuple[tuple[Any, ...], pl.DataFrame]) -> tuple[Any, ...]:
    """Sort key of a segment: months by time, other segments by size."""
    (segment,), part = pair
    return (segment,) if by == "month" else (-part.height, segment or "")


def _side_cells(part: pl.DataFrame, side: str) -> dict[str, float | None]:
    """Number of entries and base rate of one version in a segment."""
    other = "only in new" if side == "old" else "only in old"
    entries = part.filter((pl.col("change") != other) & _is_certain(side))
    value = f"{side}_value"
    cells = _cells(_with_values(entries, value), pl.col(value), side)
    return {f"{side}_entries": entries.height, **cells}


def _cells(rows: pl.DataFrame, value: pl.Expr, name: str) -> dict[str, float | None]:
    """The mean of a value with its interval, as the columns NAME, NAME_low and NAME_high."""
    if rows.is_empty():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    estimate = _mean(rows, value)
    low, high = estimate.interval() if estimate.n > 1 else (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}


def _plus_minus(row: dict[str, Any], name: str, signed: bool = False) -> str:
    """The cells of a mean as text."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    text = number(value) if high is None else plus_minus(value, (high - low) / 2)
    return f"+{text}" if signed and value > 0 else text


def _number_or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def _short(text: str | None) -> str:
    """An id of at most `SHOWN_ID` characters."""
    if text is None:
        return "-"
    return text if len(text) <= SHOWN_ID else text[: SHOWN_ID - 1] + "…"
