"""Stage `train`: next-item training of the generative recommender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import AliasChoices, Field

from longplay.errors import ConfigError
from longplay.files import tree_digest
from longplay.results.code_figures import CodesResult
from longplay.results.training_figures import TrainingCheck, TrainResult
from longplay.run.engine import LEARNERS, Stage, Work, depends_on, versions
from longplay.run.stages.reward import RewardTable, check_declared, models_by_name
from longplay.run.tables import Configuration, Positive, Table

if TYPE_CHECKING:
    from longplay.policies.generative_policy import Generative

Part = Annotated[float, Field(ge=0, lt=1)]


class Train(Table):
    """Next-item training."""

    scale: Literal["tiny", "small"] = "tiny"
    base: Annotated[str, Field(min_length=1)] | None = (
        None  # a pretrained model folder, relative to the run.toml
    )
    steps: Positive = 600
    exclude: Literal["seen", "creator", "none"] = "seen"
    reads: list[
        Literal["gap", "surface", "kind"]
    ] = []  # beside items: how long ago, where, what was done
    # items have tokens of their own in place of their last codes; of a model from scratch; older
    # run.toml files call it `whole`
    item_tokens: bool = Field(default=False, validation_alias=AliasChoices("item_tokens", "whole"))
    optimizer: Literal["adamw", "muon"] = "adamw"  # of a model from scratch
    dropout: Part = 0.0  # of activations, against overfitting; of a model from scratch
    thin: Part = (
        0.0  # share of events that each epoch leaves out, others each time; of a model from scratch
    )
    patience: Annotated[int, Field(ge=0)] = (
        0  # checks without a better one after which training stops early; 0: it runs all its steps
    )
    want: str | None = None  # the signal whose outcome the policy can be asked for
    ask: float | None = None  # the outcome it asks for, in that signal's unit

    younger: ClassVar[frozenset[str]] = frozenset(
        {"reads", "item_tokens", "optimizer", "dropout", "thin", "patience", "want", "ask"}
    )

    def hashed(self) -> dict[str, Any]:
        """As in every table; `item_tokens` under its older name, so that finished runs stay so."""
        return {
            "whole" if name == "item_tokens" else name: value
            for name, value in super().hashed().items()
        }


def run(work: Work) -> TrainResult:
    """Train the generative recommender on the log as known when training ends."""
    import torch

    torch.set_num_threads(work.config.run.threads)
    table = work.config.of(Train)
    policy = _start(work).train(
        work.past,
        outcomes=_wanted(work),
        progress=work.bar("training"),
        checkpoint=work.folder / "checkpoint.safetensors",
    )
    policy.save(work.folder / "policy")
    (work.folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return TrainResult(
        policy=policy.name,
        scale="base" if policy.base else table.scale,
        parameters=policy.decoder.model.num_parameters(),
        steps=table.steps,
        curve=tuple(
            TrainingCheck(int(row["step"]), row["loss"], row.get("validation"), row.get("ndcg"))
            for row in policy.curve
        ),
    )


def _start(work: Work) -> Generative:
    """The untrained policy over the run's semantic IDs."""
    from longplay.codes import Codebook
    from longplay.policies.generative_policy import Generative

    table = work.config.of(Train)
    codebook = Codebook.load(
        work.places["codes"] / "codes.parquet", work.results.of(CodesResult).width
    )
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
        item_tokens=table.item_tokens,
        dropout=table.dropout,
        thin=table.thin,
        patience=table.patience,
    )
    return policy.with_codes(work.past, codebook)


def _wanted(work: Work) -> pl.DataFrame | None:
    """Early beliefs about the outcome of each past event, by the signal that training asks for.

    Beliefs are used, so that events whose outcomes have not matured teach too.
    """
    wanted = work.config.of(Train).want
    if wanted is None:
        return None
    past = work.past
    signal = work.config.declared()[wanted]
    outcomes = signal.outcomes(past)
    early = models_by_name()[work.config.of(RewardTable).model](signal).fit(past, outcomes)
    return outcomes.frame.with_columns(value=early.belief(outcomes, signal.days).mean)


def _check(config: Configuration) -> None:
    """Check that the signal that training asks for is declared."""
    table = config.of(Train)
    if table.want is not None:
        check_declared(config, [("train.want", table.want)])
    elif table.ask is not None:
        raise ValueError(
            f"train.ask = {table.ask} but no train.want; name the signal whose outcome is asked for"
        )


def _depends(config: Configuration, base: Path) -> Any:
    """What the result depends on: also the files of a pretrained base, and the signal that training
    asks for with its early reward."""
    depends = depends_on("split.train_until", "train")(config, base)
    table = config.of(Train)
    if table.want is not None:
        depends |= {"signal": config.signals[table.want], "model": config.of(RewardTable).model}
    if table.base is None:
        return depends
    folder = base / table.base
    if not folder.exists():
        raise ConfigError(
            f"train.base: {folder} does not exist; paths are relative to the run.toml"
        )
    return depends | {"base": tree_digest(folder), "libraries": versions(("peft", "tokenizers"))}


def _line(result: TrainResult) -> str:
    return (
        f"{result.policy}: {result.parameters:,} parameters, loss {result.curve[-1].loss:.3f} nats "
        "per item"
    )


STAGE = Stage(
    name="train",
    order=60,
    version=3,
    help="Train the generative recommender on next items under the trie.",
    table=Train,
    check=_check,
    needs=("ingest", "simulate", "codes"),
    depends=_depends,
    run=run,
    line=_line,
    resumes=True,
    libraries=LEARNERS,
    loads=("torch", "transformers", "longplay.policies.generative_policy"),
)
