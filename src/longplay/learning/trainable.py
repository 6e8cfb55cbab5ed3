"""What learning asks of a policy."""

from __future__ import annotations

from typing import Protocol, Self

from longplay.codes.trie import Allowed
from longplay.decisions import Contexts
from longplay.index import ItemIndex
from longplay.policies.generative.decoder import Decoder
from longplay.policies.generative.prompts import Prompts


class Trainable(Protocol):
    """A policy whose weights can be tuned on a reward; `Generative` is one."""

    @property
    def name(self) -> str:
        """`name@version`."""
        ...

    @property
    def history(self) -> int:
        """Past item ids it wants to see in a context."""
        ...

    @property
    def slate(self) -> int:
        """Slots that it shows by default."""
        ...

    @property
    def exclude(self) -> str:
        """The rule of exclusions that it is trained under: seen, creator or none."""
        ...

    @property
    def index(self) -> ItemIndex:
        """Item ids <-> leaves of its decoder's trie."""
        ...

    @property
    def decoder(self) -> Decoder:
        """The language model under the trie."""
        ...

    def prompts(self, contexts: Contexts) -> Prompts:
        """Prompts of contexts, and what each may be shown."""
        ...

    def allowed(self, contexts: Contexts) -> Allowed:
        """The items that each context may be shown."""
        ...

    def learner(self, seed: int) -> Decoder:
        """A copy of the decoder to train."""
        ...

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
        ...
