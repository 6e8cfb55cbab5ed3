"""What another version of a signal changes: in its definition, in the entries of a log, in the base
rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html import escape
from typing import Any, cast

import polars as pl

from longplay.display import html_table, number, plus_minus, text_table
from longplay.errors import ConfigError, DataError
from longplay.estimate import Estimate, Refusal, clustered_mean
from longplay.lake.lake import Lake
from longplay.signals.declare.checks import kind_of
from longplay.signals.declare.declaration import Declaration
from longplay.signals.declare.entry import Entry
from longplay.signals.declare.sentence import bound_in_words, opener, title, unit
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

_SEGMENT_HEAD = ("base rate", "old", "new", "both know", "difference there")
_EXAMPLE_HEAD = ("example", "user", "of", "entered", "old", "new")


@dataclass(frozen=True)
class Part:
    """One part of a definition that differs; prints as `window: days 1 to 28, now days 1 to 14`."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old}, now {self.new}"


def changed_parts(old: Declaration, new: Declaration) -> tuple[Part, ...]:
    """The parts of the definition in which two signals differ, defaults resolved; none where their
    versions are equal.

    >>> from longplay.signals import READY
    >>> from dataclasses import replace
    >>> print(*changed_parts(READY["habit"], replace(READY["habit"], window=(1, 14))))
    window: days 1 to 28, now days 1 to 14
    """
    parts = (Part(name, words(old), words(new)) for name, words in _PARTS.items())
    return tuple(part for part in parts if part.old != part.new)


def _novel(entry: Entry) -> str:
    if entry.novel_for is None:
        return "none before in the log" if entry.is_discovery else "not asked"
    return f"none in {_days(entry.novel_for)} before"


def _window(signal: Declaration) -> str:
    start, stop = signal.window
    return f"day {start}" if start == stop else f"days {start} to {stop}"


def _days(count: int | None) -> str:
    return "1 day" if count == 1 else f"{count} days"


# what it is called: how it reads for a signal; together all that is in the version
_PARTS: dict[str, Callable[[Declaration], str]] = {
    "entry": lambda s: opener(s.entry),
    "about": lambda s: s.entry.of or "the user",
    "new": lambda s: _novel(s.entry),
    "dormant": lambda s: (
        "not asked"
        if s.entry.dormant_for is None
        else f"{_days(s.entry.dormant_for)} or more before"
    ),
    "measure": lambda s: title(s.measure),
    "per": lambda s: "nothing" if s.measure.per is None else title(s.measure.per),
    "baseline": lambda s: (
        "none"
        if s.measure.baseline is None
        else f"the user's own rate in {_days(s.measure.baseline)} before"
    ),
    "threshold": lambda s: bound_in_words(s.measure, s.threshold) or "none, the amount itself",
    "window": _window,
    "origins": lambda s: ", ".join(sorted(s.origins)),
}


@dataclass(frozen=True)
class Backfill:
    """What computing a new version on a log takes: nothing of an old version is reused, and nothing
    of it is touched.

    Attributes:
        entries: how many entries get an outcome.
        mature: how many have it now.
        first: days of the first and the last entry; null without entries.
        last: days of the first and the last entry; null without entries.
        look_back: days before the first entry that are read as far as there are any, for novelty
            and baseline; null: all.
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
        """Of the version whose outcomes these are."""
        frame, signal = outcomes.frame, outcomes.signal
        if frame.is_empty():
            return cls(0, 0, None, None, 0, None, None)
        first, last = (
            cast(datetime, bound).date() for bound in (frame["time"].min(), frame["time"].max())
        )
        entry = signal.entry
        look_back = max(entry.novel_for or 0, signal.measure.baseline or 0)
        if entry.looks_back_forever:
            look_back = None
        known = (outcomes.as_of - timedelta(microseconds=1)).date()
        mature = int((frame["matures_at"] <= outcomes.as_of).sum())
        closes = cast(datetime, frame["matures_at"].max())
        return cls(
            frame.height,
            mature,
            first,
            last,
            look_back,
            min(last + signal.window[1] * DAY, known),
            closes,
        )

    def __str__(self) -> str:
        if not self.entries:
            return "nothing to compute: the log has no entry of the new version"
        open_ = self.entries - self.mature
        still = (
            f"; {open_:,} are still open, the last until {self.complete_at:%Y-%m-%d %H:%M} UTC"
            if open_
            else ""
        )
        before = (
            ""
            if self.look_back == 0
            else "and all before"
            if self.look_back is None
            else f"and up to {_days(self.look_back)} before"
        )
        return (
            f"compute {self.entries:,} entries of {self.first} to {self.last}; that reads the "
            f"days {self.first} to {self.read_to}"
            f"{', ' if before else ''}{before}; {self.mature:,} are mature now{still}"
        )


@dataclass(frozen=True)
class Diff:
    """The differences between two versions of a signal on one log, from the definition down to
    single entries.

    Attributes:
        old: the signals.
        new: the signals.
        as_of: what was known (UTC), the same for both.
        truncated: whether truncated entries count; else none of the figures has them.
        rows: one row per entry of either: user_id, item_id, creator_id, time, origin, surface,
            old_value, new_value, change (of `CHANGES`). Without entries that either version calls
            truncated.
        old_truncated: how many entries of each are truncated.
        new_truncated: how many entries of each are truncated.
        old_rate: mean of the known outcomes, clustered by user.
        new_rate: mean of the known outcomes, clustered by user.
        difference: new minus old on the entries whose outcome both know, paired, clustered by user;
            a refusal where they are not in one unit.
        segments: one row per segment of the entries, columns by (surface, origin, month), segment,
            old_entries, old, old_low, old_high, new_entries, new, new_low, new_high, common,
            difference, difference_low, difference_high; intervals are 95%, null where there are
            none.
        backfill: what computing the new version takes.
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
    def parts(self) -> tuple[Part, ...]:
        """What differs in the definition."""
        return changed_parts(self.old, self.new)

    @property
    def counts(self) -> dict[str, int]:
        """Number of entries by change, all of `CHANGES`."""
        found = dict(self.rows["change"].value_counts().iter_rows())
        return {change: found.get(change, 0) for change in CHANGES}

    def examples(self, each: int = 2) -> pl.DataFrame:
        """The first `each` entries of every change there is, by time; those that are equal or
        unknown in both are none."""
        order = pl.Series(
            [change for change in CHANGES if change not in ("equal", "unknown in both")]
        )
        rows = self.rows.filter(pl.col("change").is_in(order.implode())).sort("time", "user_id")
        picked = [rows.filter(pl.col("change") == change).head(each) for change in order]
        return pl.concat(picked)

    def findings(self) -> str:
        """What it changes on the log, without the definitions."""
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
        both = sum(counts[change] for change in CHANGES[2:])
        inside = (
            ", ".join(f"{counts[change]:,} {change}" for change in CHANGES[2:] if counts[change])
            or "none"
        )
        return [
            f"at {self.as_of:%Y-%m-%d %H:%M} UTC: {counts['only in old']:,} entries only in old, "
            f"{counts['only in new']:,} only in new, "
            f"{both:,} in both" + (f" ({inside})" if both else ""),
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
            found = self.segments.filter(pl.col("by") == by)
            for row in found.head(SHOWN_SEGMENTS).iter_rows(named=True):
                cells = [
                    _plus_minus(row, side, signed=side == "difference")
                    for side in ("old", "new", "difference")
                ]
                table.append(
                    [
                        f"{by} {row['segment'] or 'unknown'}",
                        cells[0],
                        cells[1],
                        f"{row['common']:,}",
                        cells[2],
                    ]
                )
            if found.height > SHOWN_SEGMENTS:
                table.append([f"{by}: {found.height - SHOWN_SEGMENTS} more", "", "", "", ""])
        return table

    def _example_rows(self) -> list[list[str]]:
        of = f"{self.new.entry.of or 'user'}_id"
        return [
            [
                row["change"],
                _short(row["user_id"]),
                _short(row[of]) if of != "user_id" else "-",
                f"{row['time']:%Y-%m-%d %H:%M}",
            ]
            + [
                "-" if value is None else number(value)
                for value in (row["old_value"], row["new_value"])
            ]
            for row in self.examples().iter_rows(named=True)
        ]


def definition_lines(old: Declaration, new: Declaration) -> list[str]:
    """Both sentences with their versions, and what differs in words."""
    if old.version == new.version:
        renamed = "" if old.name == new.name else f" under another name, {new.name}"
        return [
            f"{old.label}: {str(old).split(': ', 1)[1]}",
            f"the same definition{renamed}: nothing changes, and results of one are results of "
            "the other",
        ]
    words = (
        f"{which} {one.label}: {str(one).split(': ', 1)[1]}"
        for which, one in (("old", old), ("new", new))
    )
    return [*words, *(f"changed {part}" for part in changed_parts(old, new))]


def diff(
    old: Declaration,
    new: Declaration,
    lake: Lake,
    as_of: datetime | None = None,
    *,
    truncated: bool = False,
) -> Diff:
    """Compare `new`, another version of the signal `old`, on a log: entries, outcomes, base rate by
    segment.

    Nothing is written.

    Args:
        old: the version in use.
        new: the version that may replace it.
        lake: the log on which both are computed.
        as_of: the moment of knowledge, UTC; default the lake's watermark.
        truncated: whether entries so near the log's begin that they are not certain count, too.

    Raises:
        ConfigError: one of the two is no signal.
        DataError: the lake cannot answer one of them; see `Signal.outcomes`.
    """
    for signal, which in ((old, "old"), (new, "new")):
        if not isinstance(signal, Declaration):
            raise ConfigError(
                f"diff: {kind_of(signal)} given as the {which} version, expected a signal: "
                "diff(old, new, lake)"
            )
    return diff_of(
        outcomes_of(old, lake, as_of), outcomes_of(new, lake, as_of), truncated=truncated
    )


def diff_of(old: Outcomes, new: Outcomes, *, truncated: bool = False) -> Diff:
    """What changes on one log from one version's outcomes to another's.

    An entry is in both where the same user enters at the same moment with the same creator (or
    item, or slot). Entries about different things, e.g. a creator and an item, are never the same.

    Args:
        old: outcomes of the earlier version.
        new: outcomes of the later version, of the same log as of the same time.
        truncated: whether truncated entries count. Else each base rate leaves out those of its
            version, and what is compared entry by entry leaves out those of either: where one
            version is unsure of an entry, the definitions have not been told apart.

    Raises:
        DataError: the outcomes are not of one moment, so that the log's growth would look like a
            change of the definition.
    """
    if old.as_of != new.as_of:
        raise DataError(
            f"diff: outcomes at {old.as_of:%Y-%m-%d %H:%M} and {new.as_of:%Y-%m-%d %H:%M} given, "
            "expected one moment for both"
        )
    everything = _rows(old, new)
    if truncated:
        everything = everything.with_columns(
            pl.lit(False).alias(name) for name in ("old_truncated", "new_truncated")
        )
    rows = everything.filter(_certain("old", "new")).drop("old_truncated", "new_truncated")
    both = _known(rows, "old_value", "new_value")
    estimand = f"{new.signal.label} minus {old.signal.label} on entries that both know"
    units = unit(old.signal), unit(new.signal)
    if units[0] != units[1]:
        difference = Refusal(f"not comparable: old is in {units[0]}, new in {units[1]}", estimand)
    elif both.is_empty():
        difference = Refusal("not estimable: no entry has a known outcome in both", estimand)
    else:
        difference = _mean(both, pl.col("new_value") - pl.col("old_value"), estimand)
    counted = (pl.col("change") != "only in new") & _certain("old") | (
        pl.col("change") != "only in old"
    ) & _certain("new")
    segments = _segments(everything.filter(counted), isinstance(difference, Estimate))
    rates = _rate(old, truncated), _rate(new, truncated)
    counts = old.truncated, new.truncated
    return Diff(
        old.signal,
        new.signal,
        old.as_of,
        rows,
        *rates,
        difference,
        segments,
        Backfill.of(new),
        truncated,
        *counts,
    )


def _certain(*sides: str) -> pl.Expr:
    """Whether none of these versions calls the entry truncated; one that does not have it does
    not."""
    return pl.all_horizontal(~pl.col(f"{side}_truncated").fill_null(False) for side in sides)


def _rows(old: Outcomes, new: Outcomes) -> pl.DataFrame:
    sides = [_side(outcomes, name) for outcomes, name in ((old, "old"), (new, "new"))]
    keys = [name for name in sides[0].columns if name.startswith("key_")]
    if not _about_one(old.signal.entry, new.signal.entry):
        sides[1] = sides[1].with_columns(key_n=-pl.col("key_n"))  # meets nothing
    joined = sides[0].join(
        sides[1], on=keys, how="full", coalesce=True, nulls_equal=True, suffix="_new"
    )
    kept = ("user_id", "item_id", "creator_id", "time", "origin", "surface")
    rows = joined.with_columns(
        pl.when("in_old").then(name).otherwise(f"{name}_new").alias(name) for name in kept
    )
    a, b = pl.col("old_value"), pl.col("new_value")
    change = (
        pl.when(pl.col("in_new").is_null())
        .then(pl.lit("only in old"))
        .when(pl.col("in_old").is_null())
        .then(pl.lit("only in new"))
        .when(a.is_null() & b.is_null())
        .then(pl.lit("unknown in both"))
        .when(a.is_null())
        .then(pl.lit("newly known"))
        .when(b.is_null())
        .then(pl.lit("no longer known"))
        .when(a == b)
        .then(pl.lit("equal"))
        .otherwise(pl.lit("changed"))
    )
    order = ("time", "user_id", "item_id", "creator_id")
    own = ("old_value", "new_value", "old_truncated", "new_truncated")
    return rows.select(*kept, *own, change.alias("change")).sort(
        order, nulls_last=True, maintain_order=True
    )


def _side(outcomes: Outcomes, name: str) -> pl.DataFrame:
    """The entries of one version, with the columns that say which entry it is."""
    entry = outcomes.signal.entry
    key = "item_id" if entry.is_slot else f"{entry.of}_id" if entry.of else None
    own = (pl.col(column).alias(f"{name}_{column}") for column in ("value", "truncated"))
    frame = outcomes.frame.select(
        "user_id", "item_id", "creator_id", "time", "origin", "surface", *own
    )
    frame = frame.with_columns(
        pl.lit(True).alias(f"in_{name}"),
        key_user=pl.col("user_id"),
        key_time=pl.col("time"),
        key_of=pl.lit(None, pl.String) if key is None else pl.col(key),
    )
    again = pl.int_range(1, pl.len() + 1).over(
        "key_user", "key_time", "key_of"
    )  # two saves of an item in one microsecond are two entries
    return frame.with_columns(key_n=again)


def _about_one(old: Entry, new: Entry) -> bool:
    """Whether an entry of one can be an entry of the other."""
    return old.unit == new.unit


def _known(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return rows.filter(pl.all_horizontal(pl.col(column).is_not_null() for column in columns))


def _mean(rows: pl.DataFrame, value: pl.Expr, estimand: str = "") -> Estimate:
    found = rows.select(
        value.alias("value"), pl.col("user_id").rank("dense").alias("user")
    )  # numbers sort a hundred times faster than names
    return clustered_mean(found["value"].to_numpy(), found["user"].to_numpy(), estimand=estimand)


def _rate(outcomes: Outcomes, truncated: bool) -> Estimate | Refusal:
    try:
        return outcomes.base_rate(truncated=truncated)
    except DataError as reason:
        return Refusal(str(reason), f"mean {outcomes.signal.label}")


def _segments(rows: pl.DataFrame, comparable: bool) -> pl.DataFrame:
    month = rows.with_columns(month=pl.col("time").dt.strftime("%Y-%m"))
    table: list[dict[str, Any]] = []
    for by in SEGMENTS:
        for (segment,), part in sorted(
            month.partition_by(by, as_dict=True).items(), key=lambda pair: _order(by, pair)
        ):
            common = _known(part.filter(_certain("old", "new")), "old_value", "new_value")
            row: dict[str, Any] = {"by": by, "segment": segment, "common": common.height}
            for side in ("old", "new"):
                other = "only in new" if side == "old" else "only in old"
                entries = part.filter((pl.col("change") != other) & _certain(side))
                known = _known(entries, f"{side}_value")
                row |= {
                    f"{side}_entries": entries.height,
                    **_cells(known, pl.col(f"{side}_value"), side),
                }
            row |= _cells(
                common if comparable else common.clear(),
                pl.col("new_value") - pl.col("old_value"),
                "difference",
            )
            table.append(row)
    floats = [
        f"{side}{end}" for side in ("old", "new", "difference") for end in ("", "_low", "_high")
    ]
    schema = {
        "by": pl.String,
        "segment": pl.String,
        "old_entries": pl.Int64,
        **dict.fromkeys(floats[:3], pl.Float64),
        "new_entries": pl.Int64,
    }
    schema |= {
        **dict.fromkeys(floats[3:6], pl.Float64),
        "common": pl.Int64,
        **dict.fromkeys(floats[6:], pl.Float64),
    }
    return pl.DataFrame(table, schema=schema)


def _order(by: str, pair: tuple[tuple[Any, ...], pl.DataFrame]) -> tuple[Any, ...]:
    """Months by time, other segments by size."""
    (segment,), part = pair
    return (segment,) if by == "month" else (-part.height, segment or "")


def _cells(known: pl.DataFrame, value: pl.Expr, name: str) -> dict[str, float | None]:
    if known.is_empty():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    estimate = _mean(known, value)
    low, high = estimate.interval() if estimate.n > 1 else (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}


def _plus_minus(row: dict[str, Any], name: str, signed: bool = False) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    words = number(value) if high is None else plus_minus(value, (high - low) / 2)
    return f"+{words}" if signed and value > 0 else words


def _short(text: str | None) -> str:
    return "-" if text is None else text if len(text) <= SHOWN_ID else text[: SHOWN_ID - 1] + "…"
