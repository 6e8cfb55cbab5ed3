"""Amazon Beauty, leave-one-out, full ranking: the generative recommender beside SASRec and popular items.

22,363 users, 12,101 items. Of every user's items the last is the test, the last but one chooses the weights (NDCG@10), those before train.
All items are ranked, those of the history too. SASRec and the generative model get the same sequences, the same optimiser, schedule, early stopping and
budget of CPU time, one thread each. Items on one day have no order but that of their ids in these files (half of all gaps): what that order gives away,
it gives to every model.

    PYTHONPATH=src python bench/beauty.py --quick
    PYTHONPATH=src python bench/beauty.py --only sasrec --seeds 1           # one row; every row is remembered, a stopped one goes on
    PYTHONPATH=src python bench/beauty.py --json bench/results/beauty.json  # all of them: about 6 CPU-hours
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from remembered import CACHE, remembered
from sasrec import SASRec, Shape

from longplay.codes import Codebook, fit_codebook, item2vec
from longplay.estimate import clustered_mean
from longplay.policies.decoder import Decoder, Size, new_model
from longplay.policies.descent import Watch, descend
from longplay.policies.histories import Histories, Questions
from longplay.policies.supervised import DEPTH, MOST_ASKED, ndcg_of, positions, train_next_items

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "amazon_beauty" / "Beauty.txt"
ITEMS = 12_101
READ = 50  # items of history
SIZE = {"hidden": 256, "layers": 2, "heads": 4, "inner": 512, "history": READ}
CODES = {"levels": 2, "width": 256}
CHECKS = 25  # of a training
Ints = NDArray[np.int64]


@cache
def sequences() -> tuple[Ints, ...]:
    """Every user's items 0..ITEMS-1, oldest first."""
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark needs it")
    return tuple(np.array(line.split()[1:], dtype=np.int64) - 1 for line in DATA.read_text().splitlines())


def split(relabel: Ints, users: int) -> tuple[Histories, Questions, Questions]:
    """Training histories, validation questions and test questions of the first `users`, items renamed by `relabel[I]`."""
    rows = [relabel[row] for row in sequences()[:users]]

    def questions(back: int) -> Questions:
        before = [row[:-back] for row in rows]
        return Questions(np.cumsum([0, *map(len, before)]), np.concatenate(before), np.array([row[-back] for row in rows]))

    train = [row[:-2] for row in rows]
    return Histories(np.cumsum([0, *map(len, train)]), np.concatenate(train), np.zeros(len(train), dtype=bool)), questions(2), questions(1)


def codebook_of(codes: str, users: int) -> Codebook:
    """Semantic IDs: `real` by item2vec of the training sequences; `random` vectors; `shuffled`: the real IDs, given to other items."""
    train, _, _ = split(np.arange(ITEMS), users)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, 64)) if codes == "random" else item2vec(train.offsets, train.leaves, ITEMS, dim=64)
    if codes == "shuffled":
        vectors = vectors[rng.permutation(ITEMS)]
    return fit_codebook(pl.Series([str(item) for item in range(ITEMS)]), vectors, **CODES)


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
            print(f"{self.name}: step {step:,} of {of:,}, {self.minutes:.1f} CPU-min, loss {figures['loss']:.3f}", flush=True)


@remembered(version=1)
def generative(
    *, seed: int, epochs: int, codes: str, dropout: float, lr: float, size: dict[str, int], users: int, batch: int = 256
) -> dict[str, Any]:
    """Positions on the test of a generative model trained for `epochs`; its learning curve."""
    book = codebook_of(codes, users)
    leaf = np.argsort(book.items.cast(pl.Int64).to_numpy())
    train, valid, test = split(leaf, users)
    decoder = Decoder(new_model(Size(**size), book.levels, book.width, seed), book.trie)
    clock = Clock(f"beauty-{codes}-{seed}-{epochs}-{dropout:g}-{lr:g}-{size['hidden']}x{size['layers']}-{users}-{batch}")
    per_epoch = -(-len(train.offsets) // batch)
    curve = train_next_items(
        decoder, train, steps=epochs * per_epoch, history=READ, batch=batch, lr=lr, seed=seed, dropout=dropout, half=True,
        check_every=per_epoch * max(epochs // CHECKS, 1), questions=valid, checkpoint=CACHE / f"{clock.name}.safetensors", progress=clock.tick,
    )  # fmt: skip
    answer = [positions(decoder, asked, READ, beams=50).tolist() for asked in (valid, test)]
    return {"curve": curve, "minutes": clock.minutes, "report": book.report, "parameters": decoder.model.num_parameters(), "positions": answer}


@remembered(version=1)
def sasrec(*, seed: int, epochs: int, dropout: float, lr: float, shape: dict[str, int], users: int, batch: int = 256) -> dict[str, Any]:
    """The same of SASRec."""
    train, valid, test = split(np.arange(ITEMS), users)
    torch.manual_seed(seed)
    model = SASRec(ITEMS, Shape(**shape, dropout=dropout, longest=READ))
    clock = Clock(f"beauty-sasrec-{seed}-{epochs}-{dropout:g}-{lr:g}-{shape['hidden']}x{shape['blocks']}-{users}-{batch}")
    per_epoch = -(-len(train.offsets) // batch)
    long = np.flatnonzero(np.diff(train.offsets) > 1)
    batches = enumerate(train.batches(long, READ, batch, seed))

    def loss_of_step(step: int) -> torch.Tensor:
        leaves, real = next(one for number, one in batches if number == step)
        torch.manual_seed(seed * 1_000_003 + step)
        model.train()
        return model.loss(torch.from_numpy(leaves), torch.from_numpy(real))

    few = valid.sample(MOST_ASKED, seed)
    curve = descend(
        model, loss_of_step, Watch(lambda: {"ndcg": float(ndcg_of(ranks(model, few)).mean())}, "ndcg"),
        steps=epochs * per_epoch, lr=lr, seed=seed, weight_decay=0.0, check_every=per_epoch * max(epochs // CHECKS, 1),
        checkpoint=CACHE / f"{clock.name}.safetensors", progress=clock.tick,
    )  # fmt: skip
    parameters = sum(one.numel() for one in model.parameters())
    return {
        "curve": curve,
        "minutes": clock.minutes,
        "parameters": parameters,
        "positions": [ranks(model, asked).tolist() for asked in (valid, test)],
    }


def ranks(model: SASRec, questions: Questions) -> Ints:
    """As `positions`, of SASRec; of two items of equal score the target comes first."""
    model.eval()
    found = np.zeros(len(questions), dtype=np.int64)
    order = np.argsort(np.diff(questions.offsets), kind="stable")
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        stop = questions.offsets[rows + 1]
        leaves, real = Histories(questions.offsets, questions.leaves, np.zeros(0, dtype=bool)).window(
            np.maximum(stop - READ, questions.offsets[rows]), stop
        )
        score = model.last_scores(torch.from_numpy(leaves), torch.from_numpy(real)).numpy()
        place = 1 + (score > score[np.arange(len(rows)), questions.target[rows]][:, None]).sum(axis=1)
        found[rows] = np.where(place <= DEPTH, place, 0)
    return found


def popular(users: int) -> Ints:
    """Positions of the test items among the most popular of training; ties by item number."""
    train, _, test = split(np.arange(ITEMS), users)
    first = np.argsort(-np.bincount(train.leaves, minlength=ITEMS), kind="stable")[:DEPTH]
    hit = test.target[:, None] == first
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def measures(position: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """R@5, N@5, R@10, N@10 of every user."""
    return {
        f"{name}@{k}": np.where(position <= k, value, 0.0)
        for k in (5, 10)
        for name, value in (("R", (position > 0).astype(float)), ("N", ndcg_of(position)))
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="300 users, one epoch: shows that the script runs, proves nothing")
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument("--only", choices=["sasrec", "generative", "ablations"], help="train these alone, and write nothing")
    options.add_argument("--seeds", type=int, default=3, help="of the generative row")
    given = options.parse_args()
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
