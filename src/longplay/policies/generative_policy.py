"""The generative recommender: a causal language model over semantic IDs, as a Policy."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedModel

from longplay.codes import Codebook, fit_codebook, item_vectors, with_catalogue
from longplay.codes.trie import Allowed
from longplay.decisions import (
    Contexts,
    Decisions,
    check_exclude,
    check_one_each,
    check_rule,
    context_chance,
)
from longplay.display import facts_html, facts_text
from longplay.errors import ConfigError, DataError
from longplay.index import ItemIndex
from longplay.lake.lake import Lake
from longplay.policies.generative.circumstances import NOTHING, Circumstances, checked_reads
from longplay.policies.generative.decoder import (
    Decoder,
    Size,
    new_model,
    size_of,
)
from longplay.policies.generative.fast.compiled import Compiled
from longplay.policies.generative.known_users import KnownUsers, check_knows
from longplay.policies.generative.policy_files import PolicyParts
from longplay.policies.generative.pretrained import (
    adapted,
    load_base,
    merged,
    weight_of,
    with_tokens,
)
from longplay.policies.generative.prompts import Prompts, encode, latest
from longplay.policies.generative.scoring import (
    catalogue_log_probs,
    draw_slates,
    most_probable_items,
    slate_log_probs,
)
from longplay.policies.generative.texts import Described, Words
from longplay.policies.generative.token_rows import with_codes_of, with_item_tokens
from longplay.policies.generative.vocabulary import Vocabulary
from longplay.policies.plackett import plackett_luce_log_prob
from longplay.policies.training.descent import OPTIMIZERS
from longplay.policies.training.histories import Histories, histories_from_log
from longplay.policies.training.next_item import train_next_items
from longplay.policies.training.with_words import train_with_words
from longplay.progress import Progress, reporting

STEPS = {"tiny": 600, "small": 3000}
BASE_STEPS = 400  # of a pretrained base
BASE_HISTORY = 20  # items that a pretrained base reads
KNOWN_WEIGHT = 2.0  # of the items' own vectors in semantic IDs, beside 1 of behaviour


@dataclass(frozen=True, eq=False)
class Generative:
    """The generative recommender: a language model over semantic IDs, trained on next items; its
    slates have exact propensities.

    Attributes:
        scale: `tiny` (about 80 thousand parameters), `small` (3.4 million), or a `Size`; sets
            everything else.
        seed: initial weights, codes and the order of training.
        slate: slots a world or a service asks for by default.
        exclude: the rule it is trained under, what training contexts forbid: `seen` items, items of
            seen `creator`s, or `none`. Contexts that state another rule are refused, once it was
            rewarded under it: `rule`, which next-item training, where nothing is excluded, leaves
            null.
        codebook: items and their semantic IDs; null before `fit`.
        model: the Hugging Face model; null before `fit`.
        words: the base's tokenizer and titles; null without a base.
        circumstances: tokens of what is read beside items.
        items_with_token: items that have a token of their own; null where none has.
        rule: the rule of exclusions that it was rewarded under; null before that.
        also_under: one more rule that it may be deployed under: see `under`.
        steps: training steps; default by scale.
        dropout: share of activations dropped in training, against overfitting: .2 and more for
            models that are large for their log.
        thin: share of events that each epoch leaves out, others each time (`Histories.batches`),
            against it too; of a model from scratch.
        patience: checks without a better one after which training stops early; 0: it runs all its
            steps. Either way the weights kept are those of the best check.
        optimizer: `adamw`, or `muon`, with which wide models learn more in the same time
            (`descent.optimizers_of`); a base is adapted by AdamW.
        base: a local Hugging Face folder of a causal LM to begin with, instead of `scale`. It reads
            a context's prompt too, and is trained by LoRA: on next items, on items that words
            describe and on titles.
        item_tokens: whether a token of its own stands for each item's last code, read and said in
            its place: sharper where items are known well, and sooner overfitted (docs/semantic-ids.md),
            for as many embeddings as there are items; not with a base. That of an item added later
            begins as the mean of its neighbours' (`adapt`).
        reads: what it reads beside items, some of `gap` (how long ago), `surface`, `kind` (of the
            event) and `want` (the outcome asked for; training then needs `outcomes`); see
            `circumstances.Circumstances`. Each costs a token per item.
        curve: figures of its training, step by step.
        alarms: what fell by half where it was reinforced, in words (`learning.variety`).
        knows: what a service knows, and the policy reads; default nothing. "users": the
            `user_vector` of contexts, which next-item training does not teach, but rewards do
            (`tilt`, `reinforce`). "items": the `vector` of items decides on semantic IDs, beside
            who plays what and words.
        ask: the outcome it asks for where a context wants none, in the unit of the outcomes it was
            trained on; with `want` among `reads`.
        encoder: prompts encoded by OpenVINO; null: by PyTorch.
        known_users: what reads users; null where nothing is read of them.
    """

    scale: str | Size = "tiny"
    seed: int = 0
    slate: int = 5
    exclude: str = "seen"
    steps: int | None = None
    dropout: float = 0.0
    thin: float = 0.0
    patience: int = 0
    optimizer: str = "adamw"
    base: str | None = None
    item_tokens: bool = False
    reads: tuple[str, ...] = ()
    knows: tuple[str, ...] = ()
    ask: float | None = None
    codebook: Codebook | None = None
    model: PreTrainedModel | None = None
    words: Words | None = None
    circumstances: Circumstances = NOTHING
    items_with_token: pl.Series | None = None
    curve: tuple[dict[str, float], ...] = ()
    alarms: tuple[str, ...] = ()
    rule: str | None = None
    also_under: str | None = None
    encoder: Compiled | None = None
    known_users: KnownUsers | None = None

    def __post_init__(self) -> None:
        size_of(self.scale)
        check_exclude("Generative", self.exclude)
        checked_reads(self.reads)
        check_knows(self.knows)
        if self.item_tokens and self.base is not None:
            raise ConfigError(
                f"Generative: item_tokens=True, base={self.base!r} given; a base reads items "
                "by their codes, leave item_tokens out"
            )
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"Generative: optimizer={self.optimizer!r} given, expected one of "
                f"{', '.join(OPTIMIZERS)}"
            )
        if self.ask is not None and ("want" not in self.reads or not np.isfinite(self.ask)):
            raise ConfigError(
                f"Generative: ask={self.ask}, reads={self.reads} given; a number can be asked for "
                "where reads has 'want'"
            )
        for name, share in (("dropout", self.dropout), ("thin", self.thin)):
            if not 0 <= share < 1:
                raise ConfigError(
                    f"Generative: {name}={share} given, expected a share from 0 to below 1"
                )
        if self.slate < 1:
            raise ConfigError(f"Generative: slate={self.slate} given, expected at least 1 slot")

    @property
    def history(self) -> int:
        """Number of past items that it reads."""
        return BASE_HISTORY if self.base else size_of(self.scale).history

    @property
    def reads_users(self) -> bool:
        """Whether it reads what the service knows of the user of a context."""
        return "users" in self.knows

    @property
    def name(self) -> str:
        """`generative@` and a digest of weights, semantic IDs and the items they stand for.

        Of a policy that may be deployed under another rule than its own,
        `generative-seen-under-none@` and so on.
        """
        return self._name

    @cached_property
    def _name(self) -> str:
        """See `name`; computed once, as models are large."""
        decoder, codebook = self._fitted()
        reads = (
            [self.circumstances.settings() | {"ask": self.ask}] if self.circumstances.reads else []
        )
        items_with_token = (
            [] if self.items_with_token is None else [self.items_with_token.to_list()]
        )
        digest = hashlib.sha256(
            json.dumps(
                [decoder.trie.version, codebook.items.to_list(), *reads, *items_with_token]
            ).encode()
        )
        known_users = {} if self.known_users is None else self.known_users.tensors()
        for key, value in [*decoder.model.state_dict().items(), *known_users.items()]:
            digest.update(key.encode() + value.numpy().tobytes())
        kind = "generative"
        if self.also_under is not None:
            kind = f"generative-{self.rule}-under-{self.also_under}"
        return f"{kind}@{digest.hexdigest()[:8]}"

    def _facts(self) -> dict[str, str]:
        """The facts that are printed of the policy, by name."""
        scale = self.base or (self.scale if isinstance(self.scale, str) else "a size of its own")
        facts = {"base" if self.base else "scale": scale}
        if self.model is not None:
            facts["parameters"] = f"{self.model.num_parameters():,}"
        if self.codebook is not None:
            codebook = self.codebook
            facts["codes"] = (
                f"{codebook.levels} levels of {codebook.width} for {len(codebook.items):,} items, "
                f"{int(codebook.available.sum()):,} of them available"
            )
        details = f", and their {', '.join(self.reads)}" if self.reads else ""
        facts["history"] = f"reads the last {self.history} items{details}"
        if self.known_users is not None:
            columns = self.known_users.map.in_features
            facts["users"] = f"reads {columns} numbers that the service knows of a user"
        rule = {"none": "nothing is excluded", "seen": "items engaged with are excluded"}.get(
            self.exclude, "items of creators engaged with are excluded"
        )
        facts["exclusions"] = rule if self.also_under is None else f"{rule}; also {self.also_under}"
        facts["slate"] = f"{self.slate} slots"
        if self.curve:
            last = self.curve[-1]
            figures = (f"{name} {value:.4g}" for name, value in last.items() if name != "step")
            facts["trained"] = f"{last.get('step', 0):,.0f} steps; {', '.join(figures)}"
        if self.alarms:
            facts["ALARM"] = "; ".join(self.alarms)
        return facts

    def _title(self) -> str:
        return "generative, not fitted" if self.model is None else self.name

    def __repr__(self) -> str:
        return facts_text(self._title(), self._facts())

    def _repr_html_(self) -> str:
        return facts_html(self._title(), self._facts())

    @property
    def trained_under(self) -> Mapping[str, str]:
        """The rule of exclusions that it was rewarded under, by its name; empty where it was only
        trained on next items."""
        return {} if self.rule is None else {self.name: self.rule}

    def under(self, exclude: str) -> Self:
        """The same policy, allowed under another rule of exclusions than that of its training; its
        name says so.

        Raises:
            ConfigError: no such rule.
        """
        check_exclude("Generative.under", exclude)
        return replace(self, also_under=None if self.rule in (None, exclude) else exclude)

    @property
    def index(self) -> ItemIndex:
        """Item ids <-> leaves of the trie, which are the columns of `item_log_prob`."""
        return self._fitted()[1].index

    def fit(
        self, lake: Lake, *, outcomes: pl.DataFrame | None = None, progress: Progress = None
    ) -> Self:
        """Semantic IDs from the lake's items, then next-item training on its visits; see
        `train`."""
        with reporting("Generative.fit", "training steps", progress) as tell:
            return self.with_codes(lake).train(lake, outcomes=outcomes, progress=tell)

    def with_codes(self, lake: Lake, codebook: Codebook | None = None) -> Self:
        """The untrained policy over the lake's catalogue: codes by residual k-means, weights from
        `seed`."""
        if codebook is None:
            items = lake.items
            index = ItemIndex(items["item_id"])
            codebook = fit_codebook(
                items["item_id"],
                item_vectors(
                    lake,
                    index,
                    seed=self.seed,
                    known_weight=KNOWN_WEIGHT if "items" in self.knows else 0.0,
                ),
                available=items["available"].to_numpy(),
                seed=self.seed,
            )
        circumstances = Circumstances.of(self.reads, lake.events["surface"])
        untrained = replace(
            self,
            codebook=codebook,
            circumstances=circumstances,
            items_with_token=codebook.items if self.item_tokens else None,
        )
        if self.base is None:
            items = len(codebook.items) if self.item_tokens else 0
            return untrained._with_new_model(
                lake,
                new_model(
                    self.scale,
                    codebook.levels,
                    codebook.width,
                    self.seed,
                    circumstances.token_count,
                    items,
                ),
            )
        model, words = load_base(Path(self.base))
        described = Described.of(lake.items, codebook.index)
        model = with_tokens(model, words, codebook, described, self.seed, circumstances.token_count)
        return replace(untrained._with_new_model(lake, model), words=words)

    def _with_new_model(self, lake: Lake, model: PreTrainedModel) -> Self:
        """The policy with untrained weights, and what reads the users of `lake` where it should."""
        if not self.reads_users:
            return self.with_model(model)
        width = weight_of(model.get_input_embeddings()).shape[1]
        return replace(self.with_model(model), known_users=KnownUsers.of(lake, width))

    def train(
        self,
        lake: Lake,
        *,
        outcomes: pl.DataFrame | None = None,
        progress: Progress = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Train on the next items of the lake's histories; goes on from `checkpoint` where it
        exists.

        `outcomes` are needed where `reads` has `want`: columns user_id, item_id, time and value of
        the events they are of, as in `Outcomes.frame`, value null where it is not known; or with
        early beliefs in it, so that what has not matured teaches too.
        """
        codebook = self._fitted()[1]
        histories = histories_from_log(
            lake, codebook.index, codebook.available, self.circumstances, outcomes
        )
        start = replace(self, circumstances=histories.circumstances)
        with reporting("Generative.train", "training steps", progress) as tell:
            return start._train(lake, histories, tell, checkpoint)

    def _train(
        self,
        lake: Lake,
        histories: Histories,
        progress: Callable[..., None],
        checkpoint: Path | None,
    ) -> Self:
        codebook = self._fitted()[1]
        trained = self.learner(self.seed)
        if self.words is not None:
            curve = train_with_words(
                trained,
                histories,
                Described.of(lake.items, codebook.index),
                self.words,
                steps=BASE_STEPS if self.steps is None else self.steps,
                history=self.history,
                seed=self.seed,
                patience=self.patience,
                progress=progress,
                checkpoint=checkpoint,
            )
            return replace(self.settled(trained), curve=tuple(curve), alarms=())
        curve = train_next_items(
            trained,
            histories,
            steps=STEPS.get(str(self.scale), STEPS["small"]) if self.steps is None else self.steps,
            history=self.history,
            dropout=self.dropout,
            thin=self.thin,
            patience=self.patience,
            optimizer=self.optimizer,
            seed=self.seed,
            progress=progress,
            checkpoint=checkpoint,
        )
        return replace(self.settled(trained), curve=tuple(curve), alarms=())

    def decide(self, contexts: Contexts, rng: np.random.Generator) -> Decisions:
        """One slate per context, drawn without replacement, with exact log-probabilities.

        The luck of a context follows from `rng`'s next number and its id alone
        (`decisions.context_chance`), and two policies over the same codes share it path by path
        (`search.beam_slates`).

        Raises:
            DataError: a context allows fewer items than it has slots.
            ConfigError: contexts state another rule of exclusions than the policy was trained under
                (see `under`).
        """
        decoder, codebook = self._fitted()
        if self.rule is not None:
            check_rule(self.name, self.rule, self.also_under, contexts)
        slots = contexts.slots if len(contexts) else 1
        if slots == 0:
            nothing_NS = np.zeros((len(contexts), 0))
            slates = codebook.index.slates(nothing_NS.astype(np.int64))
            return Decisions.of(contexts, slates, nothing_NS, self.name, codebook.trie.version)
        chance = context_chance(contexts, rng)
        leaves_NS, item_log_prob_NS = draw_slates(decoder, self.prompts, contexts, slots, chance)
        return Decisions.of(
            contexts,
            codebook.index.slates(leaves_NS),
            plackett_luce_log_prob(item_log_prob_NS),
            self.name,
            codebook.trie.version,
        )

    def log_prob(self, contexts: Contexts, slates: pl.Series) -> NDArray[np.float64]:
        """Log-probability of every slot given the slots before it, shape [N, S]: -inf for an item
        that is not allowed, and from the first repeat on.

        Raises:
            DataError: not one slate per context, slates of different lengths, or an item that the
                catalogue does not hold.
        """
        decoder, codebook = self._fitted()
        check_one_each(contexts, slates)
        leaves_NS = codebook.index.slate_rows(slates)
        if leaves_NS.shape[1] == 0:
            return np.zeros(leaves_NS.shape)
        return slate_log_probs(decoder, self.prompts, contexts, leaves_NS)

    def item_log_prob(self, contexts: Contexts) -> NDArray[np.float64]:
        """Log-probability of every item of `index` in the first slot, shape [N, I]; -inf where it
        cannot be shown.

        Enumerates the catalogue: meant for evaluation and small catalogues.
        """
        return catalogue_log_probs(self.decoder, self.prompts, contexts)

    def ranked(self, contexts: Contexts, k: int = 10, *, beams: int = 50) -> pl.DataFrame:
        """The `k` most probable items of each context, by constrained beam search; see
        `search.best_items`.

        Columns: row (of the context), position (from 1), item_id, log_prob (of the first slot). For
        catalogues that are too large to enumerate.
        """
        decoder, codebook = self._fitted()
        ids = codebook.index.ids
        return most_probable_items(decoder, self.prompts, contexts, ids, k, max(k, beams))

    def with_available(self, items: pl.Series) -> Self:
        """The same model, restricted to these of its items; see `Codebook.with_available`. `adapt`
        sets anew what is available."""
        return replace(self, codebook=self._fitted()[1].with_available(items))

    def adapt(self, items: pl.DataFrame, events: pl.DataFrame | None = None) -> Self:
        """The same weights over the catalogue as it is now: items that it did not know get codes
        near those of their creators and words, and what can be shown is what is available.

        A world and a service call it at midnight (`decisions.Adaptive`); `decisions.Frozen` keeps
        a policy's catalogue. No code of an older item changes. With a token per item, a new one's
        begins as the mean of its neighbours'.

        Args:
            items: the whole catalogue, e.g. `lake.items`; see `codes.with_catalogue`.
            events: what happened since; nothing is learned of it.

        Returns:
            The same object where nothing changed.

        Raises:
            DataError: the policy was not fitted, the catalogue holds none of its items, or new
                items cannot be given codes.
        """
        decoder, known = self._fitted()
        codebook = with_catalogue(known, items)
        if codebook is known:
            return self
        living = replace(self, codebook=codebook)
        if self.items_with_token is None:
            return living
        model, items_with_token = with_item_tokens(
            decoder.model, decoder.vocabulary, codebook, self.items_with_token
        )
        if model is decoder.model:
            return living
        return replace(living, items_with_token=items_with_token).with_model(model)

    def recoded(self, codebook: Codebook) -> Self:
        """The policy over other codes, to train on from: a new code begins as the mean of those
        that its items had, all other weights stay (`token_rows.with_codes_of`).

        Codes that were fitted to a later log describe its items better, but the model has yet to
        learn them; `codes.code_churn` says how many items move. Its curve begins anew.

        Args:
            codebook: of the same service; as many levels as the policy's, of any width.

        Raises:
            DataError: the policy was not fitted, another number of levels, or no item in common.
        """
        decoder, known = self._fitted()
        model = with_codes_of(
            decoder.model, decoder.vocabulary, known, codebook, self.items_with_token
        )
        return replace(
            self,
            codebook=codebook,
            items_with_token=None if self.items_with_token is None else codebook.items,
            curve=(),
        ).with_model(model)

    def prompts(self, contexts: Contexts) -> Prompts:
        """Prompts of the contexts' histories, with a base also of their prompt words. Exclusions
        are not read; they limit what may be shown."""
        decoder, codebook = self._fitted()
        offsets, leaves = codebook.index.ragged_rows(contexts.frame["history"])
        temperature = contexts.frame["temperature"].to_numpy().astype(float)
        texts = None if self.words is None else self.words.texts(contexts.frame["prompt"].to_list())
        circumstance_tokens = None
        if self.circumstances.reads:
            offsets, recent = latest(offsets, leaves, self.history)
            circumstance_tokens = self.circumstances.of_contexts(
                contexts, offsets, recent, self.ask
            )
            leaves = leaves[recent]
        prompts = encode(
            decoder.trie,
            offsets,
            leaves,
            self.history,
            temperature,
            self.allowed(contexts),
            decoder.vocabulary,
            texts,
            circumstance_tokens,
            decoder.item_token_I,
        )
        if self.known_users is None:
            return prompts
        known = contexts.frame.select("user_vector", "user_id")
        return replace(prompts, users=self.known_users.read(*known))

    def allowed(self, contexts: Contexts) -> Allowed:
        """The items that each context may be shown: those that are available and not excluded."""
        decoder, codebook = self._fitted()
        return Allowed.of(decoder.trie, *codebook.index.ragged_rows(contexts.frame["exclusions"]))

    def learner(self, seed: int) -> Decoder:
        """A copy of the decoder to train. From scratch all weights are trained; of a base, LoRA and
        the new tokens (`pretrained.adapted`, by `seed`)."""
        decoder, codebook = self._fitted()
        if self.words is not None:
            return adapted(decoder, seed)
        return Decoder(
            copy.deepcopy(decoder.model),
            codebook.trie,
            decoder.vocabulary,
            item_token_I=decoder.item_token_I,
            user_map=copy.deepcopy(decoder.user_map),
        )

    def settled(self, trained: Decoder) -> Self:
        """The policy with the weights of a trained `learner`."""
        settled = self.with_model(
            trained.model if self.words is None else merged(self.decoder, trained)
        )
        if self.known_users is None or trained.user_map is None:
            return settled
        return replace(settled, known_users=self.known_users.with_map(trained.user_map))

    def rewarded(
        self,
        trained: Decoder,
        *,
        exclude: str,
        curve: tuple[dict[str, float], ...],
        alarms: tuple[str, ...],
    ) -> Self:
        """The policy with the weights of a `learner` that was trained on a reward under a rule of
        exclusions."""
        return replace(
            self.settled(trained),
            exclude=exclude,
            rule=exclude,
            also_under=None,
            curve=curve,
            alarms=alarms,
        )

    def with_model(self, model: PreTrainedModel) -> Self:
        """The same policy with other weights."""
        return replace(self, model=model, encoder=None)

    def compiled(self) -> Self:
        """The same policy with prompts encoded by OpenVINO, in two thirds to four fifths of the CPU
        time. Probabilities are equal to single precision.

        To serve with: it is compiled for this process and is not saved, and a policy trained from
        it encodes by PyTorch again.

        Raises:
            ConfigError: OpenVINO is not installed, or the policy reads users, which the compiled
                model cannot.
        """
        if self.known_users is not None:
            raise ConfigError(
                "compiled: a policy with knows=('users',) is encoded by PyTorch; serve it as it is"
            )
        return replace(self, encoder=Compiled(self.decoder.model))

    def save(self, folder: Path) -> None:
        """Write model (safetensors), codes and settings to `folder`; see `PolicyParts.save`."""
        decoder, codebook = self._fitted()
        PolicyParts(
            scale=self.scale,
            settings={
                "seed": self.seed,
                "slate": self.slate,
                "exclude": self.exclude,
                "steps": self.steps,
                "dropout": self.dropout,
                "thin": self.thin,
                "patience": self.patience,
                "optimizer": self.optimizer,
                "base": self.base,
                "ask": self.ask,
                "item_tokens": self.item_tokens,
                "rule": self.rule,
                "also_under": self.also_under,
                "knows": list(self.knows),
            },
            codebook=codebook,
            model=decoder.model,
            words=self.words,
            circumstances=self.circumstances,
            items_with_token=self.items_with_token,
            known_users=self.known_users,
            curve=self.curve,
            alarms=self.alarms,
        ).save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; see `PolicyParts.load`.

        Raises:
            DataError: there is no policy, or its files are not as `save` wrote them.
        """
        parts = PolicyParts.load(folder)
        return cls(
            parts.scale,
            **parts.settings,
            reads=parts.circumstances.reads,
            circumstances=parts.circumstances,
            codebook=parts.codebook,
            model=parts.model,
            words=parts.words,
            items_with_token=parts.items_with_token,
            known_users=parts.known_users,
            curve=parts.curve,
            alarms=parts.alarms,
        )

    @property
    def decoder(self) -> Decoder:
        """The fitted language model under its trie."""
        return self._fitted()[0]

    def _fitted(self) -> tuple[Decoder, Codebook]:
        """The decoder and the codebook of a fitted policy.

        Raises:
            DataError: the policy was not fitted.
        """
        if self.model is None or self.codebook is None:
            raise DataError("Generative: it has no model yet; call .fit(lake) first")
        decoder = Decoder(
            self.model,
            self.codebook.trie,
            self._vocabulary(self.model, self.codebook),
            item_token_I=self._item_token_I,
            compiled=self.encoder,
            user_map=None if self.known_users is None else self.known_users.map,
        )
        return decoder, self.codebook

    def _vocabulary(self, model: PreTrainedModel, codebook: Codebook) -> Vocabulary:
        """The vocabulary of the model: which token stands for what."""
        vocabulary = Vocabulary(
            codebook.levels,
            codebook.width,
            circumstances=self.circumstances.token_count,
            items=0 if self.items_with_token is None else len(self.items_with_token),
        )
        if self.words is None:
            return vocabulary
        with_one_word = replace(vocabulary, words=1)
        tokens = len(weight_of(model.get_input_embeddings()))
        return replace(vocabulary, words=tokens - (len(with_one_word) - 1))

    @cached_property
    def _item_token_I(self) -> NDArray[np.int64] | None:  # noqa: N802 (its axis)
        """The token that stands for each leaf's last code: that of the item where it has one, else
        that of the code. Null where no item has one. Computed once, as catalogues are large."""
        if self.items_with_token is None or self.model is None or self.codebook is None:
            return None
        trie = self.codebook.trie
        vocabulary = self._vocabulary(self.model, self.codebook)
        place = ItemIndex(self.items_with_token).rows(self.codebook.items)
        return np.where(
            place >= 0,
            vocabulary.item + place,
            vocabulary.code(trie.levels - 1) + trie.codes[:, -1],
        )
