"""The stages that make policies: semantic IDs, next-item training, reinforcement and its baseline.
They need torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch

from longplay.codes import Codebook, fit_codebook, item_text, item_vectors
from longplay.index import ItemIndex
from longplay.learning.reinforce import reinforce
from longplay.learning.reward_weighted import reward_weighted
from longplay.models.sentence_encoder import encoder_folder, sentence_vectors
from longplay.policies.generative_policy import Generative
from longplay.run.beliefs import MODELS, early_of, reward_of
from longplay.run.engine import Work
from longplay.run.log import past_of


def codes(work: Work) -> dict[str, Any]:
    """Semantic IDs for the catalogue as of the cut, and the fullest shelves of it."""
    past, table = past_of(work), work.config.codes
    items = past.items
    index = ItemIndex(items["item_id"])
    words = table.words
    if words not in ("tfidf", "none"):
        torch.set_num_threads(work.config.run.threads)
        words = sentence_vectors(
            item_text(items, index),
            encoder_folder(words, work.base),
            progress=work.bar("reading items"),
        )
    vectors = item_vectors(
        past,
        index,
        seed=work.config.run.seed,
        behaviour=table.behaviour,
        words=words,
        words_weight=table.words_weight,
    )
    codebook = fit_codebook(
        items["item_id"],
        vectors,
        levels=table.levels,
        width=table.width,
        available=items["available"].to_numpy(),
        seed=work.config.run.seed,
    )
    codebook.save(work.folder / "codes.parquet")
    titles = pl.DataFrame({"item_id": codebook.items}).join(
        items.select("item_id", "title"), on="item_id", how="left", maintain_order="left"
    )["title"]
    prefix, count = np.unique(codebook.codes[:, :2], axis=0, return_counts=True)
    shelves = []
    for place in np.argsort(-count, kind="stable")[:6]:
        inside = np.flatnonzero((codebook.codes[:, :2] == prefix[place]).all(axis=1))
        shelves.append(
            {
                "prefix": prefix[place].tolist(),
                "items": int(count[place]),
                "titles": [titles[int(row)] or codebook.items[int(row)] for row in inside[:6]],
            }
        )
    made_of = {
        "behaviour": table.behaviour,
        "words": table.words,
        "words_weight": table.words_weight,
        "dim": vectors.shape[1],
    }
    return codebook.report | {
        "version": codebook.trie.version,
        "vectors": made_of,
        "shelves": shelves,
        "purity": _purity(codebook, items),
    }


def _purity(codebook: Codebook, items: pl.DataFrame) -> dict[str, dict[str, list[float]]]:
    """How well prefixes agree with creators and first tags, by length short of the whole ID; the
    same of shuffled labels beside it."""
    about = items.select("item_id", creator="creator_id", tag=pl.col("tags").list.first())
    labels = pl.DataFrame({"item_id": codebook.items}).join(
        about, on="item_id", how="left", maintain_order="left"
    )
    rng, found = np.random.default_rng(0), {}
    for name in ("creator", "tag"):
        if labels[name].drop_nulls().n_unique() > 1:
            shuffled = labels[name].gather(rng.permutation(len(labels)))
            found[name] = {
                words: codebook.purity(one)[:-1]
                for words, one in (("found", labels[name]), ("shuffled", shuffled))
            }
    return found


def _start(work: Work):
    """The untrained policy over the run's semantic IDs."""

    table = work.config.train
    codebook = Codebook.load(work.places["codes"] / "codes.parquet", work.results["codes"]["width"])
    base = None if table.base is None else str((work.base / table.base).resolve())
    reads = (*table.reads, *([] if table.want is None else ["want"]))
    policy = Generative(
        scale=table.scale,
        seed=work.config.run.seed,
        exclude=table.exclude,
        steps=table.steps,
        base=base,
        reads=reads,
        ask=table.ask,
        optimizer=table.optimizer,
        whole=table.whole,
        dropout=table.dropout,
        thin=table.thin,
        patience=table.patience,
    )
    return policy.with_codes(past_of(work), codebook)


def _wanted(work: Work) -> pl.DataFrame | None:
    """What the events of the past led to, by the signal that is wanted: the early beliefs, so that
    what has not matured teaches too."""
    if work.config.train.want is None:
        return None
    past, signal = past_of(work), work.config.declared()[work.config.train.want]
    known = signal.outcomes(past)
    early = MODELS[work.config.reward.model](signal).fit(past, known)
    return known.frame.with_columns(value=early.belief(known, signal.days).mean)


def train(work: Work) -> dict[str, Any]:
    """Next-item training on the past."""
    torch.set_num_threads(work.config.run.threads)
    policy = _start(work).train(
        past_of(work),
        outcomes=_wanted(work),
        progress=work.bar("training"),
        checkpoint=work.folder / "checkpoint.safetensors",
    )
    policy.save(work.folder / "policy")
    (work.folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return {
        "policy": policy.name,
        "scale": "base" if policy.base else policy.scale,
        "parameters": policy.decoder.model.num_parameters(),
        "steps": policy.steps,
        "curve": list(policy.curve),
    }


def reinforce_and_weight(work: Work) -> dict[str, Any]:
    """Reinforcement from the trained start, reward-weighted training beside it, and the same
    reinforcement on rival rewards."""
    torch.set_num_threads(work.config.run.threads)
    config, past = work.config, past_of(work)
    table, reward, early = config.reinforce, reward_of(config), early_of(work, past)
    start = Generative.load(work.places["train"] / "policy")
    shared = {
        "steps": table.steps,
        "seed": config.run.seed,
        "lr": table.lr,
        "contexts": table.contexts,
        "group": table.group,
        "slots": table.slots,
    }
    tuned = reinforce(
        start,
        reward,
        early,
        past,
        **shared,
        kl=table.kl,
        progress=work.bar("reinforcing"),
        checkpoint=work.folder / "reinforce.safetensors",
    )
    tuned.save(work.folder / "tuned")
    rivals = {}
    for name in config.reward.rivals:
        rival = reinforce(
            start,
            reward_of(config, name),
            early,
            past,
            **shared,
            kl=table.kl,
            progress=work.bar(f"reinforcing {name}"),
            checkpoint=work.folder / f"rival-{name}.safetensors",
        )
        rival.save(work.folder / "rivals" / name)
        rivals[name] = {
            "policy": rival.name,
            "objectives": config.reward.rivals[name],
            "curve": list(rival.curve),
            "alarms": list(rival.alarms),
        }
    weighted_kl = table.kl if table.weighted_kl is None else table.weighted_kl
    weighted = reward_weighted(  # it enforces no guardrail: see docs/methods.md
        start,
        replace(reward, guardrails={}),
        early,
        past,
        **shared,
        kl=weighted_kl,
        progress=work.bar("reward-weighted training"),
        checkpoint=work.folder / "weighted.safetensors",
    )
    weighted.save(work.folder / "weighted")
    for name in ("reinforce", "weighted", *(f"rival-{rival}" for rival in rivals)):
        (work.folder / f"{name}.safetensors").unlink(missing_ok=True)
    return {
        "policy": tuned.name,
        "reward": reward.version,
        "objectives": {signal.label: weight for signal, weight in reward.objectives.items()},
        "caution": reward.caution,
        "guardrails": {metric.label: bound for metric, bound in reward.guardrails.items()},
        "alarms": list(tuned.alarms),
        "exclude": tuned.exclude,
        "kl_weight": table.kl,
        "weighted_kl": weighted_kl,
        "curve": list(tuned.curve),
        "weighted": {"policy": weighted.name, "curve": list(weighted.curve)},
        "rivals": rivals,
    }
