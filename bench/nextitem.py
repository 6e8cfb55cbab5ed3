"""Next item, full ranking: the generative recommender and SASRec on the same sequences, with the
same schedule and choice of weights."""

from __future__ import annotations

import ctypes
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from remembered import CACHE
from sasrec import SASRec, Shape

from longplay.codes import Codebook, fit_codebook, item2vec
from longplay.estimate import clustered_mean
from longplay.policies.generative.decoder import Decoder, Size, new_model
from longplay.policies.generative.vocabulary import Vocabulary
from longplay.policies.training.descent import Watch, descend
from longplay.policies.training.histories import Histories, Questions
from longplay.policies.training.next_item import (
    DEPTH,
    MOST_ASKED,
    ndcg_of,
    positions,
    train_next_items,
)
from longplay.results import to_json

CHECKS = 25  # of a training
SASREC_ROW, GENERATIVE_ROW = (
    "SASRec, full softmax",
    "generative, softmax over children",
)  # rows of a table say what the loss is over
WHAT = {"test": "test", "unseen": "items of the history left out, test"}  # as claims say it
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """What is trained on, what chooses the weights, and what is told; items 0..items-1. `user`:
    whose each test question is."""

    items: int
    train: Histories
    valid: Questions
    test: Questions
    user: Ints

    @cached_property
    def fresh(self) -> Ints:
        """The test questions whose answer is not an item of the history."""
        row = np.repeat(np.arange(len(self.test)), np.diff(self.test.offsets))
        return np.setdiff1d(
            np.arange(len(self.test)), row[self.test.leaves == self.test.target[row]]
        )

    @property
    def asked(self) -> list[tuple[str, Questions, bool]]:
        """What is measured: name, questions, and whether items of the history are left out of the
        ranking, as by a policy with exclusions."""
        return [
            ("valid", self.valid, False),
            ("test", self.test, False),
            ("unseen", self.test.take(self.fresh), True),
        ]

    def users(self, asked: str) -> Ints:
        """Whose the questions of "test" or "unseen" are."""
        return self.user[self.fresh] if asked == "unseen" else self.user

    def renamed(self, leaf: Ints) -> Split:
        """Item i is called `leaf[i]`."""

        def questions(asked: Questions) -> Questions:
            return replace(asked, leaves=leaf[asked.leaves], target=leaf[asked.target])

        return replace(
            self,
            train=replace(self.train, leaves=leaf[self.train.leaves]),
            valid=questions(self.valid),
            test=questions(self.test),
        )


def codebook_of(split: Split, codes: str, levels: int, width: int) -> Codebook:
    """Semantic IDs: `real` by item2vec of the training sequences; `random` vectors; `shuffled`: the
    real IDs, given to other items."""
    rng = np.random.default_rng(0)
    if codes == "random":
        vectors = rng.normal(size=(split.items, 64))
    else:
        vectors = item2vec(split.train.offsets, split.train.leaves, split.items, dim=64)
    if codes == "shuffled":
        vectors = vectors[rng.permutation(split.items)]
    return fit_codebook(
        pl.Series([str(item) for item in range(split.items)]), vectors, levels=levels, width=width
    )


def keep_memory() -> None:
    """Large tensors get memory that was freed before, not new pages from the kernel for every one:
    a third of SASRec's CPU time, a tenth of ours.

    What glibc does for all of a process once it is told (mallopt(3): no maps of their own, no
    trimming); elsewhere nothing.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for parameter, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
            libc.mallopt(parameter, value)


class Clock:
    """CPU minutes of a training, over all the processes that took part in it."""

    def __init__(self, name: str) -> None:
        self.name, self.file = name, CACHE / f"{name}.minutes"
        self.before = float(self.file.read_text()) if self.file.exists() else 0.0
        self.began = time.process_time()

    @property
    def minutes(self) -> float:
        """So far."""
        return self.before + (time.process_time() - self.began) / 60

    def tick(self, step: int, of: int, figures: dict[str, float]) -> None:
        """Progress: now and then say how far it is, and write the time down."""
        if step % 250 == 0 or step == of:
            self.file.write_text(str(self.minutes))
            print(
                f"{self.name}: step {step:,} of {of:,}, {self.minutes:.1f} CPU-min, loss "
                f"{figures['loss']:.3f}",
                flush=True,
            )


def train_generative(
    split: Split,
    name: str,
    *,
    codes: str,
    book: dict[str, int],
    seed: int,
    epochs: int,
    dropout: float,
    lr: float,
    size: dict[str, int],
    batch: int,
    optimizer: str,
    whole: bool,
    thin: float,
) -> dict[str, Any]:
    """Positions on validation and test of a generative model trained for `epochs`; its learning
    curve."""
    keep_memory()
    codebook, around = codebook_of(split, codes, **book), split.train.circumstances.token_count
    split = split.renamed(np.argsort(codebook.items.cast(pl.Int64).to_numpy()))
    items = split.items if whole else 0
    vocabulary = Vocabulary(codebook.levels, codebook.width, circumstances=around, items=items)
    model = new_model(Size(**size), codebook.levels, codebook.width, seed, around, items)
    decoder = Decoder(
        model,
        codebook.trie,
        vocabulary,
        item_token_I=vocabulary.item + np.arange(items) if whole else None,
    )
    clock, read = Clock(name), size["history"]
    per_epoch = -(-len(split.train.offsets) // batch)
    curve = train_next_items(
        decoder,
        split.train,
        steps=epochs * per_epoch,
        history=read,
        batch=batch,
        lr=lr,
        seed=seed,
        dropout=dropout,
        thin=thin,
        optimizer=optimizer,
        check_every=per_epoch * max(epochs // CHECKS, 1),
        questions=split.valid,
        checkpoint=CACHE / f"{clock.name}.safetensors",
        progress=clock.tick,
    )
    answer = {
        name: positions(decoder, asked, read, beams=50, unseen=unseen).tolist()
        for name, asked, unseen in split.asked
    }
    return {
        "curve": curve,
        "minutes": clock.minutes,
        "report": to_json(codebook.report),
        "parameters": decoder.model.num_parameters(),
        "positions": answer,
    }


def train_sasrec(
    split: Split,
    name: str,
    *,
    seed: int,
    epochs: int,
    dropout: float,
    lr: float,
    shape: dict[str, int],
    read: int,
    batch: int,
    thin: float,
) -> dict[str, Any]:
    """The same of SASRec."""
    keep_memory()
    train = split.train
    torch.manual_seed(seed)
    model = SASRec(split.items, Shape(**shape, dropout=dropout, longest=read))
    clock = Clock(name)
    per_epoch = -(-len(train.offsets) // batch)
    long = np.flatnonzero(np.diff(train.offsets) > 1)
    # a window that thinning left with one item has nothing to follow, and such windows come
    # together
    batches = enumerate(
        windows
        for windows in train.batches(long, read, batch, seed, thin)
        if windows.real.shape[1] > 1
    )

    def loss_of_step(step: int) -> torch.Tensor:
        windows = next(one for number, one in batches if number == step)
        torch.manual_seed(seed * 1_000_003 + step)
        model.train()
        return model.loss(torch.from_numpy(windows.leaves), torch.from_numpy(windows.real))

    few = split.valid.sample(MOST_ASKED, seed)
    curve = descend(
        model,
        loss_of_step,
        Watch(lambda: {"ndcg": float(ndcg_of(ranks(model, few, read)).mean())}, "ndcg"),
        steps=epochs * per_epoch,
        lr=lr,
        seed=seed,
        weight_decay=0.0,
        check_every=per_epoch * max(epochs // CHECKS, 1),
        checkpoint=CACHE / f"{clock.name}.safetensors",
        progress=clock.tick,
    )
    answer = {
        name: ranks(model, asked, read, unseen=unseen).tolist()
        for name, asked, unseen in split.asked
    }
    return {
        "curve": curve,
        "minutes": clock.minutes,
        "parameters": sum(one.numel() for one in model.parameters()),
        "positions": answer,
    }


def ranks(model: SASRec, questions: Questions, read: int, *, unseen: bool = False) -> Ints:
    """As `positions`, of SASRec; of two items of equal score the target comes first."""
    model.eval()
    found = np.zeros(len(questions), dtype=np.int64)
    order = np.argsort(np.diff(questions.offsets), kind="stable")
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        stop = questions.offsets[rows + 1]
        seen = Histories(questions.offsets, questions.leaves, np.zeros(0, dtype=bool)).window(
            np.maximum(stop - read, questions.offsets[rows]), stop
        )
        score = model.last_scores(
            torch.from_numpy(seen.leaves), torch.from_numpy(seen.real)
        ).numpy()
        if unseen:
            row = np.repeat(np.arange(len(rows)), np.diff(questions.offsets)[rows])
            score[row, questions.take(rows).leaves] = -np.inf
        place = 1 + (score > score[np.arange(len(rows)), questions.target[rows]][:, None]).sum(
            axis=1
        )
        found[rows] = np.where(place <= DEPTH, place, 0)
    return found


def popular(split: Split) -> dict[str, Any]:
    """Positions of the items asked for among the most popular of training; ties by item number."""
    place = np.argsort(
        np.argsort(-np.bincount(split.train.leaves, minlength=split.items), kind="stable")
    )  # of each item, from 0
    found = {}
    for name, asked, unseen in split.asked:
        position = 1 + place[asked.target]
        if unseen:
            row, leaf = np.unique(
                np.stack([np.repeat(np.arange(len(asked)), np.diff(asked.offsets)), asked.leaves]),
                axis=1,
            )
            position = position - np.bincount(
                row[place[leaf] < place[asked.target[row]]], minlength=len(asked)
            )
        found[name] = np.where(position <= DEPTH, position, 0).tolist()
    return {"positions": found}


def frequent(split: Split) -> dict[str, Any]:
    """Positions among the items of one's own history, most frequent first (ties: the last one
    first), then the popular ones.

    The baseline that much of next-basket literature does not beat where people come back for what
    they bought (Li et al. 2021, arXiv 2109.14233).
    """
    order = np.argsort(-np.bincount(split.train.leaves, minlength=split.items), kind="stable")
    found = {}
    for name, asked, unseen in split.asked:
        if unseen:  # of what is left the popular ones
            found[name] = popular(split)["positions"][name]
            continue
        position = np.zeros(len(asked), dtype=np.int64)
        for row in range(len(asked)):
            past = asked.leaves[asked.offsets[row] : asked.offsets[row + 1]][::-1]
            items, last, count = np.unique(past, return_index=True, return_counts=True)
            own = items[np.lexsort([last, -count])]
            ranked = np.concatenate([own, order[~np.isin(order, own)]])[:DEPTH]
            position[row] = (
                int(np.argmax(ranked == asked.target[row])) + 1
                if asked.target[row] in ranked
                else 0
            )
        found[name] = position.tolist()
    return {"positions": found}


def measures(position: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """R@5, N@5, R@10, N@10 of every question."""
    return {
        f"{name}@{k}": np.where(position <= k, value, 0.0)
        for k in (5, 10)
        for name, value in (("R", (position > 0).astype(float)), ("N", ndcg_of(position)))
    }


def rows_of(
    log: str,
    name: str,
    runs: list[dict[str, Any]],
    user: Ints,
    least: dict[str, float] | None = None,
    asked: str = "test",
) -> list[dict[str, Any]]:
    """Figures of one row of the table, clustered by user; over several seeds, each question's mean.
    `least`: what a measure must reach."""
    about = (
        ""
        if "minutes" not in runs[0]
        else f" ({max(run['minutes'] for run in runs):.0f} CPU minutes, "
        f"{runs[0]['parameters'] / 1e6:.2f}M parameters)"
    )
    answer = []
    per_seed = [measures(np.array(run["positions"][asked])) for run in runs]
    for measure in per_seed[0]:
        estimate = clustered_mean(np.mean([one[measure] for one in per_seed], axis=0), user)
        low, high = estimate.interval()
        bar = (least or {}).get(measure)
        answer.append(
            {
                "claim": f"{log}, {WHAT[asked]} {measure}: {name}{about}",
                "value": estimate.value,
                "low": low,
                "high": high,
                "bar": "none: reported" if bar is None else f"at least {bar:g}",
                "ok": bar is None or bool(estimate.value >= bar),
                "seeds": len(runs),
            }
        )
    return answer


def difference_row(
    log: str,
    names: tuple[str, str],
    ours: list[dict[str, Any]],
    theirs: list[dict[str, Any]],
    user: Ints,
    asked: str = "test",
) -> dict[str, Any]:
    """R@10 of one row of the table less that of another, question by question (each the mean of its
    seeds), clustered by user."""
    one, other = (
        np.mean([measures(np.array(run["positions"][asked]))["R@10"] for run in runs], axis=0)
        for runs in (ours, theirs)
    )
    estimate = clustered_mean(one - other, user)
    low, high = estimate.interval()
    return {
        "claim": f"{log}, {WHAT[asked]} R@10: {names[0]} less {names[1]}",
        "value": estimate.value,
        "low": low,
        "high": high,
        "bar": "none: reported",
        "ok": True,
        "seeds": min(len(ours), len(theirs)),
    }


def curve_row(log: str, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The best validation NDCG@10 of the first training, with every run's curve: (CPU minutes,
    NDCG@10) of each check."""
    curves = [
        [
            [
                round(run["minutes"] * row["step"] / run["curve"][-1]["step"], 2),
                round(row["ndcg"], 5),
            ]
            for row in run["curve"]
            if "ndcg" in row
        ]
        for run in runs
    ]
    claim = f"{log}: learning curve, {name}, best validation NDCG@10"
    best = max((ndcg for _, ndcg in curves[0]), default=0.0)
    return {
        "claim": claim,
        "value": best,
        "low": None,
        "high": None,
        "bar": "none: reported",
        "ok": True,
        "seeds": 1,
        "curves": curves,
    }
