"""Guessing the roles of columns: user, item, time and the rest, by name and by content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import polars as pl

from longplay.errors import DataError, LongplayError
from longplay.lake.adapters.cells import ids, numbers, times
from longplay.lake.sift import EARLIEST

# Names by which a column is known, the surest first; compared without case, spaces and punctuation.
NAMES: Mapping[str, tuple[str, ...]] = {
    "user_id": (
        "user_id",
        "user",
        "uid",
        "user_hash",
        "customer_id",
        "customer",
        "household_id",
        "household",
        "member_id",
        "member",
        "account_id",
        "account",
        "client_id",
        "visitor_id",
        "visitor",
        "subscriber_id",
        "subscriber",
        "listener_id",
        "listener",
        "viewer_id",
        "player_id",
        "profile_id",
        "username",
        "user_name",
        "reviewer_id",
        "device_id",
    ),
    "item_id": (
        "item_id",
        "item",
        "product_id",
        "product",
        "sku",
        "stock_code",
        "article_id",
        "article",
        "track_id",
        "spotify_track_uri",
        "track_uri",
        "song_id",
        "video_id",
        "movie_id",
        "episode_id",
        "spotify_episode_uri",
        "content_id",
        "asset_id",
        "asin",
        "game_id",
        "book_id",
        "course_id",
        "lesson_id",
        "title_id",
        "track",
        "song",
        "video",
        "movie",
        "episode",
        "content",
        "game",
        "book",
        "track_name",
        "song_name",
        "master_metadata_track_name",
    ),
    "time": (
        "time",
        "timestamp",
        "ts",
        "event_time",
        "event_timestamp",
        "datetime",
        "date_time",
        "played_at",
        "listened_at",
        "watched_at",
        "occurred_at",
        "end_time",
        "start_time",
        "started_at",
        "created_at",
        "transaction_timestamp",
        "transaction_time",
        "invoice_date",
        "order_date",
        "purchase_date",
        "transaction_date",
        "unixtime",
        "unix_time",
        "event_date",
        "date",
        "day",
        "when",
    ),
    "ingested_at": ("ingested_at", "received_at", "server_received_at", "arrived_at", "loaded_at"),
    "creator_id": (
        "creator_id",
        "creator",
        "artist_id",
        "artist",
        "artist_name",
        "master_metadata_album_artist_name",
        "author_id",
        "author",
        "show_id",
        "show",
        "show_name",
        "episode_show_name",
        "podcast_id",
        "podcast",
        "channel_id",
        "channel",
        "publisher_id",
        "publisher",
        "brand_id",
        "brand",
        "manufacturer_id",
        "manufacturer",
        "seller_id",
        "seller",
        "studio",
        "developer",
        "series_id",
        "series",
        "category_id",
        "category",
        "department",
    ),
    "kind": (
        "kind",
        "event_type",
        "event_name",
        "event",
        "action",
        "action_type",
        "interaction",
        "interaction_type",
        "activity",
        "behavior",
        "verb",
        "type",
    ),
    "seconds": (
        "seconds",
        "ms_played",
        "milliseconds_played",
        "duration_played",
        "played_ms",
        "seconds_played",
        "play_duration",
        "listen_duration",
        "watch_duration",
        "listen_time",
        "watch_time",
        "play_time",
        "time_spent",
        "dwell_time",
        "dwell",
        "listened_seconds",
        "watched_seconds",
        "duration_s",
        "duration_sec",
        "duration_seconds",
        "duration_ms",
        "duration_min",
        "duration",
        "elapsed",
    ),
    "surface": ("surface", "screen", "placement", "page_type"),
    "origin": (
        "origin",
        "source",
        "play_source",
        "traffic_source",
        "source_type",
        "reason_start",
        "entry_point",
        "context",
        "is_recommended",
    ),
    "event_id": ("event_id", "event_uuid", "uuid", "id", "row_id", "log_id"),
    "session_id": (
        "session_id",
        "session",
        "visit_id",
        "basket_id",
        "order_id",
        "invoice",
        "invoice_no",
        "invoice_id",
        "transaction_id",
    ),
    "title": (
        "title",
        "item_title",
        "item_name",
        "product_name",
        "product_title",
        "track_name",
        "song_name",
        "master_metadata_track_name",
        "episode_name",
        "movie_title",
        "video_title",
        "name",
        "description",
    ),
    "tags": ("tags", "genres", "genre", "categories"),
    "length": (
        "length",
        "item_length",
        "track_length",
        "track_duration",
        "track_duration_ms",
        "song_length",
        "video_length",
        "video_duration",
        "length_s",
        "length_ms",
        "length_seconds",
        "track_s",
        "track_ms",
        "runtime",
        "runtime_min",
        "total_duration",
    ),
    "decision_id": ("decision_id",),
    "slot": ("slot",),
}
SHOP = (
    "price",
    "quantity",
    "invoice",
    "basket",
    "order",
    "sales",
    "amount",
    "purchase",
    "transaction",
)
PROPENSITIES = (
    "propensity",
    "propensity_score",
    "pscore",
    "action_prob",
    "logging_prob",
    "log_prob",
    "logprob",
)

KIND_WORDS: Mapping[str, tuple[str, ...]] = {
    "play": (
        "play",
        "played",
        "stream",
        "streamed",
        "listen",
        "listened",
        "watch",
        "watched",
        "click",
        "clicked",
        "read",
        "consume",
        "start",
        "complete",
    ),
    "skip": ("skip", "skipped", "dislike", "thumbs_down"),
    "save": (
        "save",
        "saved",
        "bookmark",
        "add_to_playlist",
        "add_to_library",
        "wishlist",
        "add_to_wishlist",
        "download",
        "add_to_cart",
        "cart",
        "basket",
    ),
    "like": (
        "like",
        "liked",
        "thumbs_up",
        "favorite",
        "favourite",
        "upvote",
        "love",
        "heart",
        "rate",
        "rating",
        "review",
        "share",
        "comment",
    ),
    "follow": ("follow", "followed", "subscribe_to", "follow_artist"),
    "purchase": (
        "purchase",
        "purchased",
        "buy",
        "bought",
        "order",
        "ordered",
        "transaction",
        "checkout",
        "sale",
        "sold",
        "paid",
        "rent",
    ),
    "refund": ("refund", "refunded", "return", "returned", "chargeback"),
    "visit": (
        "visit",
        "visited",
        "open",
        "app_open",
        "login",
        "session_start",
        "pageview",
        "page_view",
        "search",
        "home",
    ),
    "cancel": ("cancel", "cancelled", "canceled", "cancellation", "churn", "unsubscribe"),
}
VIEWED = ("view", "viewed", "detail_view", "product_view", "item_view")
ORIGIN_WORDS: Mapping[str, tuple[str, ...]] = {
    "organic": (
        "organic",
        "user",
        "search",
        "library",
        "direct",
        "manual",
        "own",
        "browse",
        "clickrow",
        "playbtn",
        "false",
        "0",
        "no",
        "collection",
    ),
    "recommended": (
        "recommended",
        "recommendation",
        "recommendations",
        "reco",
        "rec",
        "recs",
        "recommender",
        "home",
        "discover",
        "feed",
        "for_you",
        "true",
        "1",
        "yes",
        "ad",
        "push",
        "email",
        "promotion",
    ),
    "autoplay": (
        "autoplay",
        "auto",
        "trackdone",
        "radio",
        "next_up",
        "continuous",
        "queue",
        "endplay",
    ),
}
EPOCHS = {
    9: "epoch_s",
    10: "epoch_s",
    12: "epoch_ms",
    13: "epoch_ms",
    15: "epoch_us",
    16: "epoch_us",
    18: "epoch_ns",
    19: "epoch_ns",
}
DATES = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
CLOCKS = (
    "",
    " %H:%M:%S",
    " %H:%M",
    " %H:%M:%S%.f",
    "T%H:%M:%S",
    " %I:%M %p",
    " %I:%M:%S %p",
    ", %H:%M",
    ", %H:%M:%S",
)
WHOLE = ("%Y%m%d%H%M%S", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y")
MOST_WORDS = 60  # different values that a kind or an origin may have
ENOUGH = 0.9  # share of a column's values that must be what it is taken for
TOO_LONG_S = 21_600  # a median duration above six hours is in milliseconds


@dataclass(frozen=True)
class Roles:
    """The role of each column, and the format of its values.

    Attributes:
        columns: longplay column -> source column.
        constants: longplay column -> the value of every row.
        kinds: source word -> longplay word.
        origins: source word -> longplay word.
        time_format: as of `read_table`.
        seconds_unit: as of `read_table`.
        length_unit: as of `read_table`.
        first: the span of the times that were looked at, UTC.
        last: the span of the times that were looked at, UTC.
        users: different ones among the rows that were looked at.
        items: different ones among the rows that were looked at.
        kind_words: longplay kinds and origins that occur; without a column all events are organic.
        origin_words: longplay kinds and origins that occur; without a column all events are
            organic.
        bad_share: share of these rows that are no event.
        notes: what was guessed, or seen and not used, in words.
        has_propensity: a column holds probabilities of what was shown.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    kinds: Mapping[str, str]
    origins: Mapping[str, str]
    time_format: str | None
    seconds_unit: str
    length_unit: str
    first: datetime
    last: datetime
    users: int
    items: int
    kind_words: tuple[str, ...]
    origin_words: tuple[str, ...]
    bad_share: float
    notes: tuple[str, ...] = ()
    has_propensity: bool = False


@dataclass
class _Search:
    """The columns with a role so far."""

    sample: pl.DataFrame
    taken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def columns_named(self, role: str) -> list[str]:
        """The columns whose names match the role, best match first, without those taken."""
        by_key = {
            plain(name): name
            for name in reversed(self.sample.columns)
            if name not in self.taken.values()
        }
        return [by_key[key] for key in map(plain, NAMES[role]) if key in by_key]


def plain(name: str) -> str:
    """A name without case, spaces and punctuation.

    >>> plain("User ID"), plain("userId"), plain("user_id")
    ('userid', 'userid', 'userid')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def roles_of(sample: pl.DataFrame, log: str, whole_times: pl.Series | None = None) -> Roles:
    """The roles of a log's columns.

    Args:
        sample: rows from several places.
        log: names the log in messages.
        whole_times: gives the span; None: the sample's.

    Raises:
        DataError: no column is a time, a user or an item.
    """
    search = _Search(sample)
    time_column, time_format = _time(search, log)
    search.taken["time"] = time_column
    _ids(search, log)
    kinds, kind_constant = _kinds(search)
    origins = _origins(search)
    seconds_unit = _amount(search, "seconds")
    length_unit = _amount(search, "length")
    for role in (
        "creator_id",
        "event_id",
        "session_id",
        "title",
        "tags",
        "surface",
        "ingested_at",
        "decision_id",
        "slot",
    ):
        _describe(search, role, time_format)
    moments = _moments(sample[time_column], time_format)
    span = moments if whole_times is None else _moments(whole_times, time_format)
    span = span.filter(span.is_between(EARLIEST, datetime.now(UTC)).fill_null(False))
    if span.is_empty():
        raise DataError(
            f"{log}: no time of column {time_column!r} lies between {EARLIEST:%Y} and now, first "
            f"{sample[time_column].drop_nulls()[0]!r}"
        )
    columns = {name: search.taken[name] for name in NAMES if name in search.taken}
    if "kind" in columns:
        words = ids(sample[columns["kind"]]).replace(kinds)
    else:
        words = pl.Series([kind_constant])
    bad = moments.is_null() | ids(sample[columns["user_id"]]).is_null()
    if "kind" in columns:
        bad = bad | ~words.is_in(list(KIND_WORDS)).fill_null(False)
    if "origin" in columns:
        origin_words = ids(sample[columns["origin"]]).replace(origins)
    else:
        origin_words = pl.Series(["organic"])
    propensity = [name for name in sample.columns if plain(name) in map(plain, PROPENSITIES)]
    return Roles(
        columns=columns,
        constants={} if "kind" in columns else {"kind": kind_constant},
        kinds=kinds,
        origins=origins,
        time_format=time_format,
        seconds_unit=seconds_unit,
        length_unit=length_unit,
        first=_moment(span.min()),
        last=_moment(span.max()),
        users=sample[columns["user_id"]].n_unique(),
        items=sample[columns["item_id"]].drop_nulls().n_unique(),
        kind_words=tuple(sorted(set(words.drop_nulls()) & set(KIND_WORDS))),
        origin_words=tuple(sorted(set(origin_words.drop_nulls()) & set(ORIGIN_WORDS))),
        bad_share=int(bad.sum()) / max(len(bad), 1),
        notes=tuple(search.notes),
        has_propensity=bool(propensity),
    )


def description_of(sample: pl.DataFrame, item: str) -> dict[str, str]:
    """Which columns of a catalogue describe its items: creator_id, title, tags and length.

    Args:
        sample: rows of the catalogue.
        item: the column of item ids.
    """
    search = _Search(sample, {"item_id": item})
    for role in ("creator_id", "title", "tags"):
        _describe(search, role, None)
    _amount(search, "length")
    return {role: name for role, name in search.taken.items() if role != "item_id"}


def time_format_of(values: pl.Series) -> str | None:
    """The `time_format` of values. None for ISO 8601 and columns of times.

    Raises:
        DataError: in no way that is known.
    """
    present_values = values.drop_nulls()
    if present_values.dtype.is_temporal() and present_values.dtype not in (pl.Duration, pl.Time):
        return None
    if present_values.is_empty():
        raise DataError(f"column {values.name!r} is empty")
    if present_values.dtype.is_numeric():
        digits = len(str(int(abs(present_values.cast(pl.Float64).median() or 0))))  # type: ignore[arg-type]
        if digits in EPOCHS and _sane(times(present_values, EPOCHS[digits], "UTC")):
            return EPOCHS[digits]
        if (
            digits == 8
            and present_values.dtype.is_integer()
            and _sane(times(present_values, "%Y%m%d", "UTC"))
        ):
            return "%Y%m%d"
        raise DataError(f"column {values.name!r} holds numbers that are no time since 1970")
    if present_values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise DataError(f"column {values.name!r} is {present_values.dtype}, no time")
    written = present_values.cast(pl.String).str.strip_chars()
    parts = written.str.extract(r"^(\d+)(?:\.\d*)?$")
    if parts.null_count() < (1 - ENOUGH) * len(parts):
        lengths = parts.str.len_chars().drop_nulls()
        digits = int(lengths.median() or 0)  # type: ignore[arg-type]
        if digits in EPOCHS and _sane(times(written, EPOCHS[digits], "UTC")):
            return EPOCHS[digits]
    if _parsed(times(written, None, "UTC")) >= ENOUGH:
        return None
    formats = [date + clock for date in DATES for clock in CLOCKS] + list(WHOLE)
    head = written[:50]
    tried = {
        pattern: _parsed(times(written, pattern, "UTC"))
        for pattern in formats
        if _parsed(times(head, pattern, "UTC")) > 0
    }
    fitting = [
        pattern
        for pattern, share in tried.items()
        if share >= ENOUGH and _sane(times(written, pattern, "UTC"))
    ]
    if not fitting:
        raise DataError(
            f"column {values.name!r} holds no times that are known here, first {written[0]!r}"
        )
    most = max(tried[pattern] for pattern in fitting)
    return min(
        (pattern for pattern in fitting if tried[pattern] > most - 0.001),
        key=lambda pattern: _disorder(times(written, pattern, "UTC")),
    )


def _parsed(moments: pl.Series) -> float:
    return 1 - moments.null_count() / max(len(moments), 1)


def _sane(moments: pl.Series) -> bool:
    """Whether most of the times lie between the earliest that a log may have and ten years from
    now."""
    now = datetime.now(UTC)
    inside = moments.is_between(EARLIEST, now.replace(year=now.year + 10, day=1))
    return float(inside.mean() or 0.0) >= ENOUGH  # type: ignore[arg-type]


def _disorder(moments: pl.Series) -> tuple[float, float]:
    """Days between consecutive rows, summed, and the span. Of two ways to read dates the right
    one has the smaller sum."""
    steps = moments.dt.epoch("us").diff().abs().cast(pl.Float64)
    span = moments.dt.epoch("us").max() or 0
    return float(steps.sum()), float(span - (moments.dt.epoch("us").min() or 0))  # type: ignore[operator, arg-type]


def _moments(values: pl.Series, time_format: str | None) -> pl.Series:
    return times(values, time_format, "UTC")


def _moment(value: object) -> datetime:
    assert isinstance(value, datetime)  # of a column of times that is not empty
    return value


def _time(search: _Search, log: str) -> tuple[str, str | None]:
    other_columns = [
        name for name in search.sample.columns if name not in search.columns_named("time")
    ]
    for column in search.columns_named("time"):
        try:
            return column, time_format_of(search.sample[column])
        except LongplayError:
            continue
    for column in other_columns:
        if search.sample[column].dtype.is_float():
            continue
        try:
            time_format = time_format_of(search.sample[column])
        except LongplayError:
            continue
        search.notes.append(f"{column} is taken as the time, by what it holds")
        return column, time_format
    raise DataError(
        f"{log}: no column is a time; it has {', '.join(search.sample.columns)}. Write run.toml "
        "by hand: longplay init"
    )


def _ids(search: _Search, log: str) -> None:
    """Find the columns of user and item, by name, else by content."""
    for role in ("user_id", "item_id"):
        usable = [column for column in search.columns_named(role) if _is_id(search.sample[column])]
        if usable:
            search.taken[role] = usable[0]
    for role in ("user_id", "item_id"):
        if role in search.taken:
            continue
        columns_of_other_roles = {
            column
            for other in NAMES
            for column in search.columns_named(other)
            if other not in ("user_id", "item_id")
        }
        left = [
            name
            for name in search.sample.columns
            if name not in search.taken.values() and name not in columns_of_other_roles
        ]
        usable = [
            name
            for name in left
            if _is_id(search.sample[name])
            and 2 <= search.sample[name].n_unique() < max(3, 0.98 * search.sample.height)
        ]
        if not usable:
            word = role.removesuffix("_id")
            has = ", ".join(search.sample.columns)
            raise DataError(
                f"{log}: no column looks like the {word}; it has {has}. Write run.toml by hand: "
                "longplay init"
            )
        search.taken[role] = max(usable, key=lambda name: search.sample[name].n_unique())
        search.notes.append(
            f"{search.taken[role]} is taken as the {role.removesuffix('_id')}, by what it holds: "
            "look whether that is right"
        )


def _is_id(values: pl.Series) -> bool:
    try:
        id_texts = ids(values).drop_nulls()
    except LongplayError:
        return False
    if len(id_texts) < 0.5 * len(values):
        return False
    fractions = id_texts.str.contains(r"^-?\d+\.\d+$").mean() or 0.0
    return float(fractions) < 0.1 and int(id_texts.str.len_chars().max() or 0) <= 256  # type: ignore[arg-type]


def _words(values: pl.Series) -> list[str]:
    """The distinct values, most frequent first. Empty where they are too many."""
    try:
        counts = ids(values).drop_nulls().value_counts(sort=True)
    except LongplayError:
        return []
    return counts[values.name].to_list() if 0 < counts.height <= MOST_WORDS else []


def _known_words(words: Sequence[str], vocabulary: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    by_word = {
        plain(word): meaning for meaning, synonyms in vocabulary.items() for word in synonyms
    }
    return {word: by_word[plain(word)] for word in words if plain(word) in by_word}


def _kinds(search: _Search) -> tuple[dict[str, str], str]:
    """(source kind -> longplay kind, kind of every row where no column holds it)."""
    is_shop = any(part in plain(name) for name in search.sample.columns for part in SHOP)
    for column in search.columns_named("kind"):
        words = _words(search.sample[column])
        kind_of_word = _known_words(words, KIND_WORDS)
        sells = is_shop or "purchase" in kind_of_word.values()
        kind_of_word |= {
            word: "visit" if sells else "play"
            for word in words
            if plain(word) in map(plain, VIEWED)
        }
        if not kind_of_word:
            continue
        search.taken["kind"] = column
        if unknown := [word for word in words if word not in kind_of_word]:
            search.notes.append(
                f"rows whose {column} is {_listed(unknown)} go to quarantine: say in "
                "[ingest.kinds] what they are"
            )
        return {word: kind for word, kind in kind_of_word.items() if word != kind}, "play"
    kind = "purchase" if is_shop else "play"
    search.notes.append(
        f"no column says what was done: every row counts as a {kind} (ingest.constants)"
    )
    return {}, kind


def _origins(search: _Search) -> dict[str, str]:
    for column in search.columns_named("origin"):
        words = _words(search.sample[column])
        origin_of_word = _known_words(words, ORIGIN_WORDS)
        if len(set(origin_of_word.values())) < 2 and set(origin_of_word.values()) <= {"organic"}:
            continue
        search.taken["origin"] = column
        if unknown := [word for word in words if word not in origin_of_word]:
            search.notes.append(
                f"rows whose {column} is {_listed(unknown)} are taken as organic: see "
                "[ingest.origins]"
            )
        empty = search.sample[column].null_count()
        if empty:
            del search.taken["origin"]
            search.notes.append(
                f"{column} looks like an origin, but {empty:,} of {search.sample.height:,} rows "
                "have none: not mapped"
            )
            continue
        return {
            word: origin_of_word.get(word, "organic")
            for word in words
            if origin_of_word.get(word, "organic") != word
        }
    return {}


def _amount(search: _Search, role: str) -> str:
    """Find a column of durations. Its unit follows from its name, else from its size."""
    for column in search.columns_named(role):
        values = search.sample[column]
        if values.dtype == pl.Duration:
            search.taken[role] = column
            return "s"
        try:
            amounts, bad = numbers(values, pl.Float64)
        except LongplayError:
            continue
        present_amounts = amounts.drop_nulls()
        many_bad = (bad.sum() or 0) > (1 - ENOUGH) * len(values)
        if present_amounts.is_empty() or many_bad or cast(float, present_amounts.min()) < 0:
            continue
        search.taken[role] = column
        key = column.lower()
        if (
            re.search(r"(^|[^a-z])(ms|msec|millis|milliseconds)([^a-z]|$)|Ms$|^ms", column)
            or "milli" in key
            or key.startswith("ms")
        ):
            return "ms"
        if re.search(r"(^|_)(min|mins|minutes)($|_)", key):
            return "min"
        positive = present_amounts.filter(present_amounts > 0)
        if len(positive) and float(positive.median() or 0) > TOO_LONG_S:  # type: ignore[arg-type]
            return "ms"
        return "s"
    return "s"


def _describe(search: _Search, role: str, time_format: str | None) -> None:
    """Find the first column with the role's name and suitable values."""
    for column in search.columns_named(role):
        values = search.sample[column]
        if role == "tags" and isinstance(values.dtype, pl.List):
            search.taken[role] = column
            return
        if role == "ingested_at":
            try:
                arrived = times(values, time_format, "UTC")
            except LongplayError:
                continue
            happened = times(search.sample[search.taken["time"]], time_format, "UTC")
            if arrived.null_count() == 0 and bool((arrived >= happened).fill_null(True).all()):
                search.taken[role] = column
                return
            continue
        if not _is_id(values):
            continue
        if (
            role == "creator_id"
            and not 2 < values.n_unique() < search.sample[search.taken["item_id"]].n_unique()
        ):
            continue  # a creator has several items, and there are several
        if role == "event_id" and values.drop_nulls().n_unique() < values.len():
            continue
        search.taken[role] = column
        return


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(repr(word) for word in words[:5])
    return shown if len(words) <= 5 else f"{shown} or one of {len(words) - 5} others"
