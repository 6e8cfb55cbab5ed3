"""`longplay lm convert`: convert a language model from GGUF into a folder that Hugging Face
loads."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from longplay.cli.screen import console, guarded, wide
from longplay.errors import MissingExtra

lm = typer.Typer(no_args_is_help=True, help="Language models, as Hugging Face loads them.")


@lm.callback()
def _group() -> None:
    """Language models, as Hugging Face loads them."""


@lm.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A .gguf file, or the name of an installed package that holds one.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the model goes; new or empty.")
    ],
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="float32|bfloat16",
            help="float32 keeps every number; bfloat16 halves it.",
        ),
    ] = "float32",
) -> None:
    """Convert a GGUF model into a folder of safetensors, configuration and tokenizer that Hugging
    Face loads without a network.

    The package is not imported, and nothing of it runs. The folder appears whole or not at all; a
    file that cannot be converted whole is refused, with the reason.
    """

    def write() -> None:
        try:
            from longplay.models.gguf import convert
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"longplay lm convert needs {error.name}: pip install 'longplay[llm]'"
            ) from error
        with (
            console.status("loading", spinner="dots") as status,
            redirect_stderr(io.StringIO()),
        ):  # the libraries' bars run into this one
            done = convert(source, folder, dtype, lambda words: status.update(escape(words)))
        wide().print(Text(f"wrote {done}"), soft_wrap=True)

    guarded(write)
