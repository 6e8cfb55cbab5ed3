"""Amazon Beauty, leave-one-out, full ranking: the generative recommender beside SASRec and popular
items.

22,363 users, 12,101 items. Of every user's items the last is the test, the last but one chooses the
weights (NDCG@10), those before train. All items are ranked, those of the history too; and again
without them, as in most published tables (S3-Rec's program leaves them out; here nobody has an item
twice). SASRec and the generative model get the same sequences, the same schedule and choice of
weights, at most an hour of CPU time on one thread each. Items of one day stand in the order of
their ids in these files (half of all gaps): what that order gives away, it gives to every model.

    PYTHONPATH=src python bench/beauty.py --quick PYTHONPATH=src python bench/beauty.py --only
    sasrec                     # some rows; every training is remembered, a stopped one goes on
    PYTHONPATH=src python bench/beauty.py --json bench/results/beauty.json  # all of them: about 3
    CPU-hours
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nextitem import (
    GENERATIVE_ROW,
    SASREC_ROW,
    Ints,
    Split,
    curve_row,
    difference_row,
    popular,
    rows_of,
    train_generative,
    train_sasrec,
)
from remembered import CACHE, remembered

from longplay.policies.training.histories import Histories, Questions

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "amazon_beauty" / "Beauty.txt"
ITEMS = 12_101
READ = 50  # items of history
BATCH = 256
SIZE = {"hidden": 128, "layers": 2, "heads": 4, "inner": 256, "history": READ}
CODES = {"levels": 2, "width": 256}
GENERATIVE: dict[str, Any] = {
    "epochs": 60,
    "dropout": 0.3,
    "lr": 2e-3,
    "size": SIZE,
    "optimizer": "muon",
    "whole": True,
    "thin": 0.5,
}
SASREC: dict[str, Any] = {
    "epochs": 60,
    "dropout": 0.5,
    "lr": 1e-3,
    "shape": {"hidden": 64, "blocks": 2, "heads": 2},
    "thin": 0.0,
}
BRIEF = 18  # epochs at which codes are compared with others: ten CPU minutes
PARTS = ("sasrec", "generative", "brief", "ablations")
LOG, COMMAND = "Amazon Beauty", "python bench/beauty.py"
QUICK: dict[str, Any] = GENERATIVE | {"epochs": 1, "size": SIZE | {"hidden": 16, "inner": 32}}
QUICK_SASREC: dict[str, Any] = SASREC | {
    "epochs": 1,
    "shape": {"hidden": 16, "blocks": 1, "heads": 2},
}


@cache
def sequences() -> tuple[Ints, ...]:
    """Every user's items 0..ITEMS-1, oldest first."""
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: this benchmark needs it")
    return tuple(
        np.array(line.split()[1:], dtype=np.int64) - 1 for line in DATA.read_text().splitlines()
    )


def split(users: int) -> Split:
    """Of the first `users` users: the last item is the test, the one before chooses the weights."""
    rows = sequences()[:users]

    def questions(back: int) -> Questions:
        before = [row[:-back] for row in rows]
        return Questions(
            np.cumsum([0, *map(len, before)]),
            np.concatenate(before),
            np.array([row[-back] for row in rows]),
        )

    train = [row[:-2] for row in rows]
    histories = Histories(
        np.cumsum([0, *map(len, train)]), np.concatenate(train), np.zeros(len(train), dtype=bool)
    )
    return Split(ITEMS, histories, questions(2), questions(1), np.arange(len(rows)))


@remembered(version=2)
def generative(*, seed: int, codes: str, users: int, **given: Any) -> dict[str, Any]:
    """A generative model; see `nextitem.train_generative`."""
    size = given["size"]
    name = f"beauty-{codes}-{seed}-{given['epochs']}-{given['dropout']:g}-{given['lr']:g}"
    name += f"-{size['hidden']}x{size['layers']}-{users}"
    name += f"-{given['optimizer']}{'-whole' * given['whole']}-{given['thin']:g}"
    return train_generative(
        split(users), name, codes=codes, book=CODES, seed=seed, batch=BATCH, **given
    )


@remembered(version=1)
def sasrec(*, seed: int, users: int, **given: Any) -> dict[str, Any]:
    """SASRec; see `nextitem.train_sasrec`."""
    shape = given["shape"]
    name = (
        f"beauty-sasrec-{seed}-{given['epochs']}-{given['dropout']:g}-{given['lr']:g}-"
        f"{shape['hidden']}x{shape['blocks']}-{users}-{given['thin']:g}"
    )
    return train_sasrec(split(users), name, seed=seed, read=READ, batch=BATCH, **given)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help="300 users, one epoch: shows that the script runs, proves nothing",
    )
    options.add_argument("--json", type=Path, help="write the rows here")
    options.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        help="train this alone, may be given several times; other rows of --json stay",
    )
    options.add_argument("--seeds", type=int, default=3, help="of the generative rows")
    given = options.parse_args()
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    users, seeds = (300, 1) if given.quick else (len(sequences()), given.seeds)
    full, rival = (QUICK, QUICK_SASREC) if given.quick else (GENERATIVE, SASREC)
    brief = full | {"epochs": full["epochs"] if given.quick else BRIEF}
    trainings: dict[str, Any] = {
        SASREC_ROW: lambda: [sasrec(seed=0, users=users, **rival)],
        f"{SASREC_ROW}, thinned as ours": lambda: [
            sasrec(seed=0, users=users, **(rival | {"thin": full["thin"]}))
        ],
        GENERATIVE_ROW: lambda: [
            generative(seed=seed, codes="real", users=users, **full) for seed in range(seeds)
        ],
        f"{GENERATIVE_ROW}, {BRIEF} epochs": lambda: [
            generative(seed=seed, codes="real", users=users, **brief) for seed in range(seeds)
        ],
        f"{GENERATIVE_ROW}, {BRIEF} epochs, shuffled codes": lambda: [
            generative(seed=0, codes="shuffled", users=users, **brief)
        ],
        f"{GENERATIVE_ROW}, {BRIEF} epochs, random codes": lambda: [
            generative(seed=0, codes="random", users=users, **brief)
        ],
        f"{GENERATIVE_ROW}, {BRIEF} epochs, no tokens of items": lambda: [
            generative(seed=0, codes="real", users=users, **(brief | {"whole": False})),
        ],
    }
    part = dict(
        zip(
            trainings,
            ("sasrec", "sasrec", "generative", "brief", "ablations", "ablations", "ablations"),
            strict=True,
        )
    )
    found = {
        name: train()
        for name, train in trainings.items()
        if given.only is None or part[name] in given.only
    }
    found = {"popular": [popular(split(users))], **found}
    rows = [
        one
        for name, runs in found.items()
        for one in rows_of_training(name, runs, np.arange(users))
    ]
    if {SASREC_ROW, GENERATIVE_ROW} <= found.keys():
        for asked in ("test", "unseen"):
            row = difference_row(
                LOG,
                (GENERATIVE_ROW, SASREC_ROW),
                found[GENERATIVE_ROW],
                found[SASREC_ROW],
                np.arange(users),
                asked,
            )
            rows.append(row | {"of": GENERATIVE_ROW, "command": COMMAND, "readme": True})
    for one in rows:
        print(one["claim"], one["value"], one["low"], one["high"], one["bar"], one["ok"])
    if given.json:
        places = ["popular", *trainings]
        kept = json.loads(given.json.read_text()) if given.only else []
        rows += [one for one in kept if one["of"] in set(places) - found.keys()]
        rows.sort(
            key=lambda one: (
                ["curve" in one["claim"], "left out" in one["claim"]],
                places.index(one["of"]),
            )
        )
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def rows_of_training(name: str, runs: list[dict[str, Any]], user: Ints) -> list[dict[str, Any]]:
    """All rows about one row of the table."""
    least = {"R@10": 0.0648} if name == GENERATIVE_ROW else None
    rows = [
        one
        for asked in ("test", "unseen")
        for one in rows_of(LOG, name, runs, user, least, asked=asked)
    ]
    rows += [curve_row(LOG, name, runs)] if "curve" in runs[0] else []
    for one in rows:  # what the README quotes
        one["readme"] = "test R@10: " in one["claim"] and one["claim"].partition("R@10: ")[
            2
        ].startswith((f"{SASREC_ROW} (", f"{GENERATIVE_ROW} ("))
    return [one | {"of": name, "command": COMMAND} for one in rows]


if __name__ == "__main__":
    main()
