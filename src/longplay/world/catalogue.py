"""What can be listened to: creators and their items, with appeal and depth as separate properties."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

from longplay.decisions import ItemIndex
from longplay.world.config import WorldConfig

Float = NDArray[np.float64]
Int = NDArray[np.int64]

START = datetime(2026, 1, 1, tzinfo=UTC)

_GENRES = ("folk", "jazz", "techno", "metal", "soul", "chamber", "hiphop", "ambient", "history", "science", "crime", "comedy")
_MOODS = ("Slow", "Bright", "Hidden", "Northern", "Electric", "Quiet", "Golden", "Restless", "Paper", "Distant", "Velvet", "Early")
_THINGS = ("Rivers", "Signals", "Gardens", "Engines", "Letters", "Harbour", "Mirrors", "Winter", "Lanterns", "Echoes", "Orchard", "Maps")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """C creators and I items; items of a creator are contiguous rows. Everything here is the hidden truth.

    Attributes:
        frame: the items table of the lake (what a policy may see).
        index: item ids <-> rows.
        creator_I: creator number of each item; creators: their ids, shape [C].
        taste_ID: unit genre vectors of items; taste_CD: of creators.
        appeal_I: chance in (0, 1) that a neutral item in first position gets played by an average user at perfect match.
        depth_I: how much a play builds habit, relative to the median item (log-normal, > 0).
        fame_C: chance weights of organic discovery within a genre. fame_I: of items within their creator.
        genre_C: main genre of each creator.
        first_C, count_C: first item row and number of items of each creator.
    """

    frame: pl.DataFrame
    index: ItemIndex
    creators: pl.Series
    creator_I: Int
    taste_ID: Float
    taste_CD: Float
    appeal_I: Float
    depth_I: Float
    fame_C: Float
    fame_I: Float
    genre_C: Int
    first_C: Int
    count_C: Int
    cumulative_fame_I: Float
    genre_order_C: Int
    genre_cumulative_C: Float
    genre_span_D2: Float

    def __len__(self) -> int:
        return len(self.index)

    def item_of(self, creator_R: Int, u_R: Float) -> Int:
        """An item of each creator, by fame within the creator, from a uniform draw; shape [R]."""
        first_R = self.first_C[creator_R]
        last_R = first_R + self.count_C[creator_R] - 1
        low_R = np.where(first_R > 0, self.cumulative_fame_I[first_R - 1], 0.0)
        aim_R = low_R + u_R * (self.cumulative_fame_I[last_R] - low_R)
        return np.clip(np.searchsorted(self.cumulative_fame_I, aim_R, side="right"), first_R, last_R)

    def creator_by_fame(self, genre_R: Int, u_R: Float) -> Int:
        """A creator of each genre, by fame, from a uniform draw; -1 where the genre has none; shape [R]."""
        low_R, high_R = self.genre_span_D2[genre_R].T
        place_R = np.searchsorted(self.genre_cumulative_C, low_R + u_R * (high_R - low_R), side="right")
        return np.where(high_R > low_R, self.genre_order_C[np.minimum(place_R, len(self.genre_order_C) - 1)], -1)


def make_catalogue(items: int, seed: int, config: WorldConfig) -> Catalogue:
    """A catalogue of `items` items drawn from (config, seed)."""
    rng = np.random.default_rng([seed, 1])
    n_creators = max(1, round(items / config.items_per_creator))
    weight_C = rng.lognormal(0.0, 0.6, n_creators)
    count_C = 1 + rng.multinomial(items - n_creators, weight_C / weight_C.sum())
    creator_I = np.repeat(np.arange(n_creators), count_C)
    genre_C = rng.choice(config.genres, n_creators, p=_genre_shares(config.genres))
    taste_CD = _unit(np.eye(config.genres)[genre_C] + np.abs(rng.normal(0.0, 0.25, (n_creators, config.genres))))
    taste_ID = _unit(taste_CD[creator_I] + np.abs(rng.normal(0.0, 0.1, (items, config.genres))))

    depth_z_I = _standard(_two_level(rng, creator_I, config.creator_share))
    own_z_I = _two_level(rng, creator_I, config.creator_share)
    if items > 2:
        # residuals, so that the correlation of this very catalogue is the configured one
        own_z_I = _standard(own_z_I - depth_z_I * (own_z_I @ depth_z_I) / (depth_z_I @ depth_z_I))
    correlation = config.appeal_depth_correlation
    appeal_z_I = correlation * depth_z_I + np.sqrt(1 - correlation**2) * own_z_I

    fame_C = rng.pareto(config.popularity_tail, n_creators) + 0.2
    fame_I = rng.pareto(config.popularity_tail, items) + 0.5
    order_C = np.argsort(genre_C, kind="stable")
    cumulative_C = np.cumsum(fame_C[order_C])
    ends = np.searchsorted(genre_C[order_C], np.arange(config.genres + 1))
    bounds = np.concatenate([[0.0], cumulative_C])[ends]
    ids = _ids("i", items, 6)
    creators = _ids("c", n_creators, 5)
    return Catalogue(
        frame=_items_frame(ids, creators, creator_I, genre_C, rng),
        index=ItemIndex(ids),
        creators=creators,
        creator_I=creator_I,
        taste_ID=taste_ID,
        taste_CD=taste_CD,
        appeal_I=expit(logit(np.clip(config.click, 1e-6, 1 - 1e-6)) + config.appeal_spread * appeal_z_I),
        depth_I=np.exp(config.depth_spread * depth_z_I),
        fame_C=fame_C,
        fame_I=fame_I,
        genre_C=genre_C,
        first_C=np.concatenate([[0], np.cumsum(count_C)[:-1]]),
        count_C=count_C,
        cumulative_fame_I=np.cumsum(fame_I),
        genre_order_C=order_C,
        genre_cumulative_C=cumulative_C,
        genre_span_D2=np.stack([bounds[:-1], bounds[1:]], axis=1),
    )


def _items_frame(ids: pl.Series, creators: pl.Series, creator_I: Int, genre_C: Int, rng: np.random.Generator) -> pl.DataFrame:
    """The lake's items table: titles and tags carry the genre (so that content helps), never appeal or depth."""
    genre_I = genre_C[creator_I]
    names = [_GENRES[genre] if genre < len(_GENRES) else f"genre{genre}" for genre in range(int(genre_C.max()) + 1)]
    mood_I, thing_I = rng.integers(len(_MOODS), size=len(ids)), rng.integers(len(_THINGS), size=len(ids))
    genre = pl.Series(names).gather(genre_I)
    mood = pl.Series(_MOODS).gather(mood_I)
    creator_id = creators.gather(creator_I)
    return pl.DataFrame({"item_id": ids, "creator_id": creator_id, "genre": genre, "mood": mood, "thing": pl.Series(_THINGS).gather(thing_I)}).select(
        "item_id",
        "creator_id",
        pl.format("{} {} ({})", "mood", "thing", "genre").alias("title"),
        pl.format("{} {} by {}", pl.col("mood").str.to_lowercase(), "genre", "creator_id").alias("text"),
        pl.concat_list("genre", pl.col("mood").str.to_lowercase()).alias("tags"),
        pl.lit(START - timedelta(days=1)).cast(pl.Datetime("us", "UTC")).alias("added_at"),
        pl.lit(True).alias("available"),
    )


def _ids(letter: str, n: int, width: int) -> pl.Series:
    """`n` ids of fixed width, so that adding rows leaves the others' ids alone."""
    return pl.select((pl.lit(letter) + pl.int_range(n).cast(pl.String).str.zfill(width)).alias("id"))["id"]


def _genre_shares(genres: int) -> Float:
    share_D = 1.0 / np.sqrt(np.arange(genres) + 1.0)
    return share_D / share_D.sum()


def _two_level(rng: np.random.Generator, creator_I: Int, share: float) -> Float:
    """Normal values of items of which `share` of the variance is common to a creator's items."""
    common_C = rng.normal(size=int(creator_I.max()) + 1)
    return np.sqrt(share) * common_C[creator_I] + np.sqrt(1 - share) * rng.normal(size=len(creator_I))


def _standard(x: Float) -> Float:
    centred = x - x.mean()
    return centred / max(float(centred.std()), 1e-12)


def _unit(x: Float) -> Float:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
