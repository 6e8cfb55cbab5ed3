"""A simulated video app in the style of Gymnasium, as somebody else might have written it.

It knows nothing of longplay. A phone is one user: `reset` opens the app, `step` shows a page of
videos and says what was done with it, until the user puts the phone away. Users and videos are
integers, the clock counts minutes, and all luck comes from one generator. `video_adapter.py` makes
a longplay simulator of many phones.

What lasts here: videos that hold what they promise lift the mood, and who is in a good mood opens
the app sooner; a channel that was watched to the end a few times is followed, and then looked up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DAY = 1_440  # minutes


class Videos:
    """The catalogue: the channel of every video, how it attracts, what it is worth, when it comes
    out."""

    def __init__(self, count: int = 120, channels: int = 24, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        quality = rng.uniform(0.0, 1.0, channels)
        self.channel = np.arange(count) % channels
        self.quality = quality[self.channel]
        self.thrill = np.clip(1.0 - self.quality + rng.normal(0.0, 0.2, count), 0.05, 0.95)
        self.minutes = rng.uniform(1.0, 6.0, count)
        self.release = np.where(rng.random(count) < 0.8, -1, rng.integers(0, 60 * DAY, count))

    def out(self, minute: float) -> np.ndarray:
        """The videos that are out at this minute."""
        return np.flatnonzero(self.release < minute)


@dataclass
class Phone:
    """One user and their app."""

    videos: Videos
    user: int
    minute: float  # when the app is opened next or, while it is open, when the next page is asked for
    rng: np.random.Generator
    open: bool = False
    sessions: int = 0
    pages: int = 0
    patience: float = 0.0
    mood: float = 0.0

    def __post_init__(self) -> None:
        self.bond = np.zeros(int(self.videos.channel.max()) + 1)

    def reset(self) -> int | None:
        """Open the app. Returns the video of a followed channel that the user looks up, if any."""
        self.open = True
        self.sessions += 1
        self.pages = 0
        self.patience = self.rng.uniform(3.0, 9.0)
        channel = int(self.bond.argmax())
        if self.rng.random() >= np.tanh(self.bond[channel]):
            return None
        out = self.videos.out(self.minute)
        video = int(self.rng.choice(out[self.videos.channel[out] == channel]))
        self._watch(video, 1.0)
        return video

    def step(self, page: list[int]) -> tuple[list[float], list[bool], bool]:
        """Show a page. Returns the share of each video that was watched, which were liked, and
        whether the user puts the phone away."""
        shares = []
        likes = []
        for video in page:
            stays = self.rng.random() < self.videos.thrill[video]
            share = self.rng.uniform(0.3, 1.0) if stays else self.rng.uniform(0.0, 0.1)
            shares.append(float(share))
            likes.append(bool(self.rng.random() < 0.3 * share * self.videos.quality[video]))
            self._watch(video, share)
            self.patience -= 1.0 + 2.0 * stays * (1.0 - self.videos.quality[video])
        self.pages += 1
        self.minute += 1.0
        if page and self.patience > 0:
            return shares, likes, False
        self.open = False
        wait = self.rng.exponential(2.5 * DAY) / (1.0 + 2.0 * max(self.mood, 0.0))
        self.minute += 30.0 + min(wait, 30.0 * DAY)
        self.bond *= 0.9
        self.mood *= 0.8
        return shares, likes, True

    def _watch(self, video: int, share: float) -> None:
        value = share * (self.videos.quality[video] - 0.4)
        self.mood = float(np.clip(self.mood + 0.3 * value, -1.0, 2.0))
        self.bond[self.videos.channel[video]] += 0.4 * max(value, 0.0)
        self.minute += share * self.videos.minutes[video]
