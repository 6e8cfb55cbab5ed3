"""What can be listened to: creators and their items, with appeal and depth as separate
properties."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from scipy.special import expit, logit

from longplay.arrays import Float, Int
from longplay.frames import as_lists
from longplay.index import ItemIndex
from longplay.lake.schema import VECTOR
from longplay.world.factors import known_factors, standardised
from longplay.world.luck import Stream
from longplay.world.parameters import WorldConfig

START = datetime(2026, 1, 1, tzinfo=UTC)
ANNOUNCED = timedelta(hours=1)  # before the midnight of its first day, the service hears of an item

_GENRES = (
    "folk",
    "jazz",
    "techno",
    "metal",
    "soul",
    "chamber",
    "hiphop",
    "ambient",
    "history",
    "science",
    "crime",
    "comedy",
)
_MOODS = (
    "Slow",
    "Bright",
    "Hidden",
    "Northern",
    "Electric",
    "Quiet",
    "Golden",
    "Restless",
    "Paper",
    "Distant",
    "Velvet",
    "Early",
)
_THINGS = (
    "Rivers",
    "Signals",
    "Gardens",
    "Engines",
    "Letters",
    "Harbour",
    "Mirrors",
    "Winter",
    "Lanterns",
    "Echoes",
    "Orchard",
    "Maps",
)
_FIRST = (
    "Ada",
    "Bela",
    "Cleo",
    "Dario",
    "Edda",
    "Femi",
    "Gita",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaia",
    "Lior",
    "Mina",
    "Nuno",
    "Odile",
    "Piet",
)
_LAST = (
    "Abara",
    "Brandt",
    "Castel",
    "Duarte",
    "Ekholm",
    "Farrow",
    "Greco",
    "Halloran",
    "Ito",
    "Jansen",
    "Kovac",
    "Lindqvist",
    "Moreau",
    "Noor",
)

NEW_FOR = 28  # days for which a release counts as new
AT_ONCE = -1  # release day of what was there before the world began
LENGTH_S = 200  # seconds; length of every item, which no play exceeds


@dataclass(frozen=True, eq=False)
class Catalogue:
    """C creators and I items; the items of a creator are contiguous rows. All of it is the hidden
    truth.

    Attributes:
        frame: the items table of the lake, of all items; `World.items` is what has been released.
        index: item ids <-> rows.
        creator_I: creator number of each item.
        creators: their ids, shape [C].
        names: what they are called.
        taste_ID: unit genre vectors of items.
        taste_CD: of creators.
        appeal_I: chance in (0, 1) that a neutral item in first position gets played by an average
            user at perfect match.
        depth_I: how much a play builds habit, relative to the median item (log-normal, > 0).
        loop_I: mean number of autoplay plays that follow a play of the item.
        release_I: day on which the item is released; `AT_ONCE` before the first.
        fame_C: chance weights of organic discovery within a genre.
        fame_I: of items within their creator.
        genre_C: main genre of each creator.
        first_C: first item row and number of items of each creator.
        count_C: first item row and number of items of each creator.
    """

    frame: pl.DataFrame
    index: ItemIndex
    creators: pl.Series
    names: pl.Series
    creator_I: Int
    taste_ID: Float
    taste_CD: Float
    appeal_I: Float
    depth_I: Float
    loop_I: Float
    release_I: Int
    fame_C: Float
    fame_I: Float
    genre_C: Int
    first_C: Int
    count_C: Int

    def __len__(self) -> int:
        return len(self.index)

    def market(self, day: int) -> Market:
        """The released part of the catalogue on `day`."""
        out_I = self.release_I <= day
        has_C = np.bincount(self.creator_I[out_I], minlength=len(self.creators)) > 0
        order_C = np.argsort(self.genre_C, kind="stable")
        cumulative_C = np.cumsum(np.where(has_C, self.fame_C, 0.0)[order_C])
        genres = self.taste_ID.shape[1]
        ends = np.searchsorted(self.genre_C[order_C], np.arange(genres + 1))
        bounds = np.concatenate([[0.0], cumulative_C])[ends]
        rows = np.flatnonzero(out_I)
        by_genre = rows[np.argsort(self.genre_C[self.creator_I[rows]], kind="stable")]
        places = np.full(len(self), -1)
        places[by_genre] = np.arange(len(by_genre))
        return Market(
            catalogue=self,
            until=int(self.release_I[~out_I].min(initial=NEVER)),
            cumulative_fame_I=np.cumsum(np.where(out_I, self.fame_I, 0.0)),
            genre_order_C=order_C,
            genre_cumulative_C=cumulative_C,
            genre_span_D2=np.stack([bounds[:-1], bounds[1:]], axis=1),
            item_by_genre=by_genre,
            place_I=places,
            genre_first_D=np.searchsorted(
                self.genre_C[self.creator_I[by_genre]], np.arange(genres + 1)
            ),
        )

    def new_on(self, day: int) -> Int:
        """Rows of the items released in the last `NEW_FOR` days up to and including `day`."""
        return np.flatnonzero(
            (self.release_I > day - NEW_FOR) & (self.release_I <= day) & (self.release_I > AT_ONCE)
        )


NEVER = 10**9


@dataclass(frozen=True, eq=False)
class Market:
    """The released part of a catalogue, ready to be searched. It holds until the day before
    `until`.

    Attributes:
        catalogue: what this is a part of.
        until: first day on which it no longer holds.
        cumulative_fame_I: running sum of the released items' fame, by item row.
        genre_order_C: creator rows, genre by genre.
        genre_cumulative_C: running sum of the creators' fame in that order.
        genre_span_D2: of each genre, where its creators' fame begins and ends in that sum.
        item_by_genre: released item rows, genre by genre.
        place_I: where each item stands there, -1 unreleased.
        genre_first_D: where each genre begins there, and the end.
    """

    catalogue: Catalogue
    until: int
    cumulative_fame_I: Float
    genre_order_C: Int
    genre_cumulative_C: Float
    genre_span_D2: Float
    item_by_genre: Int
    place_I: Int
    genre_first_D: Int

    def fame_of(self, creator_R: Int) -> Float:
        """Total fame of each creator's released items, shape [R]."""
        first_R = self.catalogue.first_C[creator_R]
        low_R = np.where(first_R > 0, self.cumulative_fame_I[first_R - 1], 0.0)
        return self.cumulative_fame_I[first_R + self.catalogue.count_C[creator_R] - 1] - low_R

    def shelf_of(self, creator_R: Int, wanted: int) -> tuple[Int, Int, int]:
        """For each creator: the place of its genre's first item in `item_by_genre`, their number,
        and how many of them to list beside an item.

        A genre with no more than `wanted` items is listed with the whole market.
        """
        genre_R = self.catalogue.genre_C[creator_R]
        first_R = self.genre_first_D[genre_R]
        last_R = self.genre_first_D[genre_R + 1]
        small_R = last_R - first_R <= wanted
        total = len(self.item_by_genre)
        return (
            np.where(small_R, 0, first_R),
            np.where(small_R, total, last_R - first_R),
            min(wanted, total - 1),
        )

    def item_of(self, creator_R: Int, u_R: Float) -> Int:
        """A released item of each creator, by fame within the creator, from a uniform draw; shape
        [R]."""
        first_R = self.catalogue.first_C[creator_R]
        last_R = first_R + self.catalogue.count_C[creator_R] - 1
        low_R = np.where(first_R > 0, self.cumulative_fame_I[first_R - 1], 0.0)
        high_R = self.cumulative_fame_I[last_R]
        # the cumulative fame does not grow at an unreleased item, so side="right" passes over it;
        # draws are below the total
        aim_R = np.minimum(low_R + u_R * (high_R - low_R), np.nextafter(high_R, 0.0))
        return np.clip(
            np.searchsorted(self.cumulative_fame_I, aim_R, side="right"), first_R, last_R
        )

    def creator_by_fame(self, genre_R: Int, u_R: Float) -> Int:
        """A creator of each genre with something released, by fame, from a uniform draw; -1 where
        the genre has none; shape [R]. Genre -1: of any genre."""
        whole = [[0.0, self.genre_cumulative_C[-1]]]  # the last row, which genre -1 reads
        low_R, high_R = np.concatenate([self.genre_span_D2, whole])[genre_R].T
        place_R = np.searchsorted(
            self.genre_cumulative_C, low_R + u_R * (high_R - low_R), side="right"
        )
        return np.where(
            high_R > low_R, self.genre_order_C[np.minimum(place_R, len(self.genre_order_C) - 1)], -1
        )


def make_catalogue(items: int, seed: int, config: WorldConfig) -> Catalogue:
    """A catalogue of `items` items drawn from (config, seed)."""
    rng = np.random.default_rng([seed, 1])
    n_creators = max(1, round(items / config.items_per_creator))
    weight_C = rng.lognormal(0.0, 0.6, n_creators)
    count_C = 1 + rng.multinomial(items - n_creators, weight_C / weight_C.sum())
    creator_I = np.repeat(np.arange(n_creators), count_C)
    genre_C = rng.choice(config.genres, n_creators, p=_genre_shares(config.genres))
    taste_CD = _unit(
        np.eye(config.genres)[genre_C] + np.abs(rng.normal(0.0, 0.25, (n_creators, config.genres)))
    )
    taste_ID = _unit(taste_CD[creator_I] + np.abs(rng.normal(0.0, 0.1, (items, config.genres))))

    # where one or two creators share all variance, items must differ on their own
    spare = np.random.default_rng([seed, 6])
    depth_z_I = _standard(_varied(_two_level(rng, creator_I, config.creator_share), spare))
    own_z_I = _two_level(rng, creator_I, config.creator_share)
    if items > 2:
        # residuals, so that the correlation of this very catalogue is the configured one
        own_z_I = _standard(_beside(_varied(_beside(own_z_I, depth_z_I), spare), depth_z_I))
    correlation = config.appeal_depth_correlation
    appeal_z_I = correlation * depth_z_I + np.sqrt(1 - correlation**2) * own_z_I

    fame_C = rng.pareto(config.popularity_tail, n_creators) + 0.2
    fame_I = rng.pareto(config.popularity_tail, items) + 0.5
    ids = _ids("i", items, 6)
    creators = _ids("c", n_creators, 5)
    first = pl.Series(_FIRST).gather(rng.integers(len(_FIRST), size=n_creators))
    last = pl.Series(_LAST).gather(rng.integers(len(_LAST), size=n_creators))
    names = pl.select(pl.format("{} {}", first, last).alias("name"))["name"]
    late_I = rng.random(items) < config.new_share
    late_I[creator_I == 0] = False  # so that the catalogue is never empty
    release_I = np.where(late_I, rng.integers(0, config.new_days, items), AT_ONCE)
    loop_z_I = rng.normal(size=items)
    z_ID = standardised(taste_ID, taste_ID)
    return Catalogue(
        frame=_items_frame(ids, creators, names, creator_I, genre_C, release_I, rng).with_columns(
            vectors(known_factors(z_ID, Stream.ITEM_FACTOR, seed, config))
        ),
        index=ItemIndex(ids),
        creators=creators,
        names=names,
        creator_I=creator_I,
        taste_ID=taste_ID,
        taste_CD=taste_CD,
        appeal_I=expit(
            logit(np.clip(config.click, 1e-6, 1 - 1e-6)) + config.appeal_spread * appeal_z_I
        ),
        depth_I=np.exp(config.depth_spread * depth_z_I),
        loop_I=config.loop * np.exp(config.loop_spread * loop_z_I - config.loop_spread**2 / 2),
        release_I=release_I,
        fame_C=fame_C,
        fame_I=fame_I,
        genre_C=genre_C,
        first_C=np.concatenate([[0], np.cumsum(count_C)[:-1]]),
        count_C=count_C,
    )


def _items_frame(
    ids: pl.Series,
    creators: pl.Series,
    names: pl.Series,
    creator_I: Int,
    genre_C: Int,
    release_I: Int,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """The lake's items table: titles and tags carry the genre (so that content helps), never
    appeal, depth or loop."""
    genre_I = genre_C[creator_I]
    genres = [
        _GENRES[genre] if genre < len(_GENRES) else f"genre{genre}"
        for genre in range(int(genre_C.max()) + 1)
    ]
    mood_I = rng.integers(len(_MOODS), size=len(ids))
    noun_I = rng.integers(len(_THINGS), size=len(ids))
    # announced the evening before: what can be shown on a day is in the catalogue at its midnight
    added = START + pl.duration(days=pl.lit(pl.Series(release_I))) - ANNOUNCED
    return pl.DataFrame(
        {
            "item_id": ids,
            "creator_id": creators.gather(creator_I),
            "name": names.gather(creator_I),
            "genre": pl.Series(genres).gather(genre_I),
            "mood": pl.Series(_MOODS).gather(mood_I),
            "thing": pl.Series(_THINGS).gather(noun_I),
        }
    ).select(
        "item_id",
        "creator_id",
        pl.format("{} {} ({})", "mood", "thing", "genre").alias("title"),
        pl.format("{} {} by {}", pl.col("mood").str.to_lowercase(), "genre", "name").alias("text"),
        pl.concat_list("genre", pl.col("mood").str.to_lowercase()).alias("tags"),
        pl.lit(float(LENGTH_S)).alias("length"),
        added.cast(pl.Datetime("us", "UTC")).alias("added_at"),
        pl.lit(True).alias("available"),
        added.cast(pl.Datetime("us", "UTC")).alias("ingested_at"),
    )


def vectors(factor_RK: Float) -> pl.Series:
    """Rows of factors as the column `vector` of the lake; null where there are no factors."""
    if factor_RK.shape[1] == 0:
        return pl.Series("vector", [None], dtype=VECTOR).new_from_index(0, len(factor_RK))
    offsets = np.arange(len(factor_RK) + 1) * factor_RK.shape[1]
    return as_lists("vector", pl.Series(factor_RK.ravel()), offsets)


def _ids(letter: str, n: int, width: int) -> pl.Series:
    """`n` ids of fixed width, so that further rows do not change the ids of others."""
    return pl.select(
        (pl.lit(letter) + pl.int_range(n).cast(pl.String).str.zfill(width)).alias("id")
    )["id"]


def _genre_shares(genres: int) -> Float:
    share_D = 1.0 / np.sqrt(np.arange(genres) + 1.0)
    return share_D / share_D.sum()


def _two_level(rng: np.random.Generator, creator_I: Int, share: float) -> Float:
    """Normal values of items; items of a creator share `share` of the variance."""
    common_C = rng.normal(size=int(creator_I.max()) + 1)
    return np.sqrt(share) * common_C[creator_I] + np.sqrt(1 - share) * rng.normal(
        size=len(creator_I)
    )


def _varied(x_I: Float, rng: np.random.Generator) -> Float:
    """`x_I` where it varies, else other normal values."""
    return x_I if len(x_I) < 2 or x_I.std() > 1e-9 else rng.normal(size=len(x_I))


def _beside(x_I: Float, z_I: Float) -> Float:
    """Residuals of x after a regression on z through 0."""
    return x_I - z_I * (x_I @ z_I) / (z_I @ z_I)


def _standard(x: Float) -> Float:
    centred = x - x.mean()
    return centred / max(float(centred.std()), 1e-12)


def _unit(x: Float) -> Float:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
