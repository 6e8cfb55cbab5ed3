"""Amazon Beauty, leave-one-out, full ranking: the generative recommender beside SASRec and popular items.

22,363 users, 12,101 items. Of every user's items the last is the test, the last but one chooses the weights (NDCG@10), those before train.
All items are ranked, those of the history too. SASRec and the generative model get the same sequences, the same optimiser, schedule, choice of
weights and budget of CPU time, one thread each. Items of one day stand in the order of their ids in these files (half of all gaps): what that order
gives away, it gives to every model.

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
GENERATIVE: dict[str, Any] = {"epochs": 110, "dropout": 0.3, "lr": 2e-3, "size": SIZE}  # what fits an hour of CPU time
SHORT_EPOCHS = 18  # ten minutes
SASREC: dict[str, Any] = {"epochs": 150, "dropout": 0.5, "lr": 1e-3, "shape": {"hidden": 64, "blocks": 2, "heads": 2}}
QUICK: dict[str, Any] = {"epochs": 1, "dropout": 0.3, "lr": 2e-3, "size": SIZE | {"hidden": 16, "inner": 32}}
QUICK_SASREC: dict[str, Any] = SASREC | {"epochs": 1, "shape": {"hidden": 16, "blocks": 1, "heads": 2}}
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
        windows = next(one for number, one in batches if number == step)
        torch.manual_seed(seed * 1_000_003 + step)
        model.train()
        return model.loss(torch.from_numpy(windows.leaves), torch.from_numpy(windows.real))

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
        seen = Histories(questions.offsets, questions.leaves, np.zeros(0, dtype=bool)).window(np.maximum(stop - READ, questions.offsets[rows]), stop)
        score = model.last_scores(torch.from_numpy(seen.leaves), torch.from_numpy(seen.real)).numpy()
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
    CACHE.mkdir(exist_ok=True)
    users, seeds = (300, 1) if given.quick else (len(sequences()), given.seeds)
    full, short = (QUICK, QUICK) if given.quick else (GENERATIVE, GENERATIVE | {"epochs": SHORT_EPOCHS})
    trainings: dict[str, Any] = {
        "SASRec, full softmax": lambda: [sasrec(seed=0, users=users, **(QUICK_SASREC if given.quick else SASREC))],
        "generative": lambda: [generative(seed=seed, codes="real", users=users, **full) for seed in range(seeds)],
        "generative, real codes, short": lambda: [generative(seed=0, codes="real", users=users, **short)],
        "generative, shuffled codes, short": lambda: [generative(seed=0, codes="shuffled", users=users, **short)],
        "generative, random codes, short": lambda: [generative(seed=0, codes="random", users=users, **short)],
    }
    wanted = {"sasrec": [0], "generative": [1], "ablations": [2, 3, 4], None: range(5)}[given.only]
    found = {name: train() for place, (name, train) in enumerate(trainings.items()) if place in wanted}
    rows = [one for name, runs in found.items() for one in rows_of(name, runs)]
    if given.only is None:
        rows = rows_of("popular", [{"positions": [None, popular(users).tolist()]}]) + rows
        rows += [curve_row(name, found[name][0], share) for name in list(found)[:2] for share in (0.1, 0.25, 0.5, 0.75, 1.0)]
    for one in rows:
        print(one["claim"], one["value"], one["low"], one["high"], one["bar"], one["ok"])
    if given.json and given.only is None:
        given.json.write_text(json.dumps([one | {"command": "python bench/beauty.py"} for one in rows], indent=1) + "\n")


def curve_row(name: str, run: dict[str, Any], share: float) -> dict[str, Any]:
    """Best validation NDCG@10 in the first share of a training."""
    value = max([row.get("ndcg", 0.0) for row in run["curve"] if row["step"] <= share * run["curve"][-1]["step"]] or [0.0])
    claim = f"Amazon Beauty: learning curve, {name}, validation NDCG@10 after {run['minutes'] * share:.0f} CPU minutes"
    return {"claim": claim, "value": value, "low": None, "high": None, "bar": "none: reported", "ok": True, "seeds": 1}


def rows_of(name: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Test figures of one row of the table: users are the sample; over several seeds, each user's mean."""
    about = (
        "" if "minutes" not in runs[0] else f" ({max(run['minutes'] for run in runs):.0f} CPU minutes, {runs[0]['parameters'] / 1e6:.2f}M parameters)"
    )
    answer = []
    per_seed = [measures(np.array(run["positions"][1])) for run in runs]
    for measure in per_seed[0]:
        estimate = clustered_mean(np.mean([one[measure] for one in per_seed], axis=0))
        low, high = estimate.interval()
        bar = "at least .0648" if (name, measure) == ("generative", "R@10") else "none: reported"
        ok = estimate.value >= 0.0648 or bar.startswith("none")
        row = {
            "claim": f"Amazon Beauty, test {measure}: {name}{about}",
            "value": estimate.value,
            "low": low,
            "high": high,
            "bar": bar,
            "ok": bool(ok),
        }
        answer.append(row | {"seeds": len(runs)})
    return answer


if __name__ == "__main__":
    main()
