"""The folder of a saved generative policy: written whole, checked by digests, read under older names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from longplay.codes import Codebook
from longplay.errors import DataError, LongplayError
from longplay.files import changed_file, digests_of, make_folder, sync_tree, write_file
from longplay.policies.generative.circumstances import Circumstances
from longplay.policies.generative.decoder import Size, load_model, save_model
from longplay.policies.generative.known_users import KnownUsers
from longplay.policies.generative.texts import Words

SETTINGS = "policy.json"
CODES = "codes.parquet"
ITEMS_WITH_TOKEN = "items_with_token.parquet"
KNOWN_USERS = "known_users.safetensors"
SETTING_NAMES = frozenset(
    {
        "seed",
        "slate",
        "exclude",
        "steps",
        "dropout",
        "thin",
        "patience",
        "optimizer",
        "base",
        "ask",
        "item_tokens",
        "rule",
        "also_under",
        "knows",
    }
)
# names in files that were written before these were called so
OLDER_SETTINGS = {"whole": "item_tokens"}
OLDER_FIGURES = {"held_out": "validation"}
OLDER_ITEMS_WITH_TOKEN = "known.parquet"


@dataclass(frozen=True)
class PolicyParts:
    """What a saved policy consists of.

    Attributes:
        scale: of the model.
        settings: further arguments of the policy by name, some of `SETTING_NAMES`.
        codebook: items and their semantic IDs.
        model: the Hugging Face model.
        words: the base's tokenizer and titles; null without a base.
        circumstances: what is read beside items.
        items_with_token: items that have a token of their own; null where none has.
        known_users: what reads users; null where nothing does.
        curve: figures of its training, step by step.
        alarms: what fell far behind the start, in words.
    """

    scale: str | Size
    settings: Mapping[str, Any]
    codebook: Codebook
    model: PreTrainedModel
    words: Words | None
    circumstances: Circumstances
    items_with_token: pl.Series | None
    known_users: KnownUsers | None
    curve: tuple[dict[str, float], ...]
    alarms: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Write all parts to `folder`.

        `policy.json` comes last, once the other files are on disk, and holds their SHA-256: without
        it there is no policy.
        """
        make_folder(folder)
        (folder / SETTINGS).unlink(missing_ok=True)
        save_model(self.model, folder)
        if self.words is not None:
            self.words.save(folder)
        self.codebook.save(folder / CODES)
        if self.items_with_token is not None:
            self.items_with_token.to_frame("item_id").write_parquet(folder / ITEMS_WITH_TOKEN)
        (folder / KNOWN_USERS).unlink(missing_ok=True)
        if self.known_users is not None:
            save_file(self.known_users.tensors(), folder / KNOWN_USERS)
        scale = asdict(self.scale) if isinstance(self.scale, Size) else self.scale
        sync_tree(folder)
        settings = {
            "scale": scale,
            "reads": self.circumstances.settings(),
            **self.settings,
            "width": self.codebook.width,
            "curve": list(self.curve),
            "alarms": list(self.alarms),
            "files": digests_of(folder),
        }
        digest = _settings_digest(settings)
        write_file(folder / SETTINGS, json.dumps(settings | {"sha256": digest}, indent=1))

    @classmethod
    def load(cls, folder: Path) -> PolicyParts:
        """Read what `save` wrote.

        A policy saved before there were digests is taken as it is, as far as it can be read.

        Raises:
            DataError: there is no policy, or its files are not as `save` wrote them.
        """
        settings = _settings_of(folder)
        try:
            return cls._of(folder, settings)
        except LongplayError:
            raise
        except Exception as error:
            # without digests, libraries run into whatever is wrong with a damaged file
            raise _damaged(
                folder, f"{folder}: cannot be loaded ({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _of(cls, folder: Path, settings: dict[str, Any]) -> PolicyParts:
        settings = {OLDER_SETTINGS.get(name, name): value for name, value in settings.items()}
        codebook = Codebook.load(folder / CODES, settings.pop("width"))
        curve = current_figures(settings.pop("curve"))
        scale = settings.pop("scale")
        alarms = tuple(settings.pop("alarms", ()))
        settings["knows"] = tuple(settings.get("knows", ()))
        reads = settings.pop("reads")
        if unknown := sorted(settings.keys() - SETTING_NAMES):
            raise _damaged(folder, f"{folder / SETTINGS}: {unknown[0]} is unknown")
        return cls(
            scale=Size(**scale) if isinstance(scale, dict) else scale,
            settings=settings,
            codebook=codebook,
            model=load_model(folder),
            words=Words.load(folder) if settings["base"] else None,
            circumstances=Circumstances(**{name: tuple(reads[name]) for name in reads}),
            items_with_token=_items_with_token(folder) if settings["item_tokens"] else None,
            known_users=_known_users(folder),
            curve=tuple(curve),
            alarms=alarms,
        )


def current_figures(curve: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """The rows of a training curve under today's names of their figures.

    >>> current_figures([{"step": 50, "held_out": 2.5}])
    [{'step': 50, 'validation': 2.5}]
    """
    return [{OLDER_FIGURES.get(name, name): value for name, value in row.items()} for row in curve]


def _known_users(folder: Path) -> KnownUsers | None:
    file = folder / KNOWN_USERS
    return KnownUsers.from_tensors(load_file(file)) if file.exists() else None


def _items_with_token(folder: Path) -> pl.Series:
    file = folder / ITEMS_WITH_TOKEN
    older_file = folder / OLDER_ITEMS_WITH_TOKEN
    if older_file.exists() and not file.exists():
        file = older_file
    return pl.read_parquet(file)["item_id"]


def _settings_of(folder: Path) -> dict[str, Any]:
    """The settings of a saved policy, once all its files are as they were written."""
    file = folder / SETTINGS
    if not os.path.lexists(file):
        raise DataError(
            f"{folder}: holds no {SETTINGS}; expected a folder that `Generative.save` wrote"
        )
    try:
        settings: dict[str, Any] = json.loads(file.read_bytes().decode())
        stated = settings.pop("sha256", None)
        files = settings.pop("files", {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(folder, f"{file}: cannot be read ({error})") from error
    # digests of files without a digest of the settings were put there by hand
    digest = _settings_digest(settings | {"files": files})
    changed = bool(files) if stated is None else stated != digest
    if changed:
        raise _damaged(folder, f"{file}: was changed after it was written")
    if (why := changed_file(folder, files)) is not None:
        raise _damaged(folder, why)
    return settings


def _settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _damaged(folder: Path, why: str) -> DataError:
    return DataError(
        f"policy: {why}; save it again, or delete {folder} and let the run make it anew"
    )
