"""The video app of `video_app.py` as a longplay simulator: the adapter."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from video_app import DAY, Phone, Videos

import longplay as lp
from longplay.decisions import Adaptive, Policy, slots_of
from longplay.lake.schema import conform, empty

START = datetime(2026, 1, 1, tzinfo=UTC)  # minute 0 of the app's clock
OPEN, PAGE = range(2)  # purposes of luck


class VideoService:
    """Many phones. User 7 is "u7", and video 12 of channel 3 is "v12" of the creator "c3"."""

    def __init__(self, users: int = 300, seed: int = 7) -> None:
        first = np.random.default_rng([seed, 1]).uniform(0, 3 * DAY, users)
        self.videos = Videos(seed=seed)
        self.phones = [Phone(self.videos, n, first[n], np.random.default_rng(0)) for n in range(users)]
        self.watched: list[list[str]] = [[] for _ in range(users)]
        self.came_on = [-1] * users  # the last day with a visit
        self.rows: list[dict[str, object]] = []  # events that are not in the lake yet
        self.seed, self.day, self.lake = seed, 0, lp.Lake.memory()

    @property
    def now(self) -> datetime:
        return START + timedelta(days=self.day)

    @property
    def items(self) -> pl.DataFrame:
        out = self.videos.out(self.day * DAY)
        ids = {"item_id": [f"v{v}" for v in out], "creator_id": [f"c{c}" for c in self.videos.channel[out]]}
        return pl.DataFrame(ids | {"added_at": [START + timedelta(minutes=float(m)) for m in self.videos.release[out]]})

    def fork(self, *, seed: int | None = None) -> VideoService:
        other = copy.deepcopy(self)
        other.seed = self.seed if seed is None else seed
        return other

    def run(self, policy: Policy | None, days: int, progress: object = None) -> lp.Lake:
        log, today = {"events": [], "contexts": [], "decisions": []}, empty("events")
        for _ in range(days):
            if isinstance(policy, Adaptive):
                policy = policy.adapt(self.items, today)
            while due := [phone for phone in self.phones if phone.minute < self.day * DAY + DAY]:
                for phone in due:
                    self.open(phone)
                # users do not meet: all who wait for a page are asked about at once
                self.show([phone for phone in due if phone.minute < self.day * DAY + DAY], policy, log)
            self.day += 1
            past = [row for row in self.rows if row["time"] < self.now]
            self.rows = [row for row in self.rows if row["time"] >= self.now]  # watched past midnight
            today = conform(pl.DataFrame(past, infer_schema_length=None), "events") if past else empty("events")
            log["events"].append(today)
        tables = {name: pl.concat(frames) for name, frames in log.items() if frames}
        self.lake.append(f"until-{self.day}", items=self.items, watermark=self.now, now=self.now, **tables)
        return self.lake.before(self.now)

    def open(self, phone: Phone) -> None:
        if self.came_on[phone.user] < self.day:  # who watches past midnight visits on both days
            self.log(phone, phone.minute, f"visit{self.day}", "visit", "home", "organic")
            self.came_on[phone.user] = self.day
        if not phone.open:
            phone.rng = self.luck(phone, OPEN)
            begin = phone.minute
            if (video := phone.reset()) is not None:
                self.log(phone, begin, "own", "play", "library", "organic", video)

    def show(self, phones: list[Phone], policy: Policy | None, log: dict[str, list]) -> None:
        pages: list[dict] = [{"slate": []} for _ in phones]
        if policy is not None and phones:
            past = [self.watched[phone.user] for phone in phones]
            contexts = lp.Contexts.of(
                [f"u{phone.user}" for phone in phones],
                [START + timedelta(minutes=phone.minute) for phone in phones],
                slots=slots_of(policy),
                ids=[f"u{phone.user}-{phone.sessions}-{phone.pages}" for phone in phones],
                history=[items[max(len(items) - policy.history, 0) :] for items in past],
                exclude="none",
            )
            decisions = policy.decide(contexts, np.random.default_rng([self.seed, self.day])).frame
            log["contexts"].append(contexts.frame)
            log["decisions"].append(decisions)
            pages = decisions.to_dicts()
        for phone, page in zip(phones, pages):
            phone.rng = self.luck(phone, PAGE)
            videos, end, number = [int(item[1:]) for item in page["slate"]], phone.minute, phone.pages
            for slot, (video, share, liked) in enumerate(zip(videos, *phone.step(videos)[:2])):
                end += share * self.videos.minutes[video]
                place = {"decision_id": page["decision_id"], "slot": slot}
                kind = "play" if share > 0.2 else "skip"
                for what in [kind, "like"] if liked else [kind]:
                    self.log(phone, end, f"{number}-{slot}{what}", what, "home", "recommended", video, place)

    def luck(self, phone: Phone, purpose: int) -> np.random.Generator:
        """A generator for one call of the app, whatever was drawn before."""
        return np.random.default_rng([self.seed, phone.user, phone.sessions, phone.pages, purpose])

    def log(self, phone: Phone, minute: float, name: str, kind: str, surface: str, origin: str, video=None, place=None):
        row = {"event_id": f"u{phone.user}-{phone.sessions}-{name}", "user_id": f"u{phone.user}", "kind": kind}
        row |= {"surface": surface, "origin": origin, "time": START + timedelta(minutes=minute)} | (place or {})
        if video is not None:
            row |= {"item_id": f"v{video}", "creator_id": f"c{self.videos.channel[video]}"}
        if kind == "play":
            self.watched[phone.user].append(f"v{video}")
        self.rows.append(row)
