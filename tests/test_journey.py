"""The worked example on Complete Journey: it runs, and its page quotes what it prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/complete_journey"
EXAMPLE = ROOT / "examples/journey.py"
PAGE = (ROOT / "docs/journey.md").read_text()
NUMBER = r"\d[\d,.]*\d|\d"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason=f"the Complete Journey files are not in {DATA}"
)


@pytest.fixture(scope="module")
def journey() -> ModuleType:
    spec = importlib.util.spec_from_file_location("journey", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def printed(journey: ModuleType) -> str:
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen):
        journey.main(DATA)
    return screen.getvalue()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@needs_data
def test_every_block_of_the_page_is_printed_and_nothing_else_is(printed: str) -> None:
    for block in blocks("text"):
        assert block in printed
    assert sorted("".join(blocks("text")).split()) == sorted(printed.split())


@needs_data
def test_every_figure_in_the_pages_sentences_is_printed(printed: str) -> None:
    sentences = re.sub(r"```.*?```|`[^`\n]*`", "", PAGE, flags=re.DOTALL)
    figures = re.findall(NUMBER, sentences)
    assert len(figures) > 15
    assert not set(figures) - set(re.findall(NUMBER, printed))


def test_the_page_shows_the_declarations_of_the_code_and_their_sentences(
    journey: ModuleType,
) -> None:
    (shown,) = blocks("python")
    assert textwrap.indent(shown, " " * 8) in EXAMPLE.read_text()
    for signal in journey.SIGNALS.values():
        assert f"{signal}\n" in PAGE


@needs_data
def test_days_are_the_shops_days_and_every_line_is_there(journey: ModuleType) -> None:
    lines = pl.read_parquet(DATA / "transactions_sample.parquet").with_row_index("line")
    lake = journey.journey_lake(DATA)
    bought = lake.events.filter(kind="purchase").with_columns(
        line=pl.col("event_id").str.strip_prefix("line-").cast(pl.UInt32)
    )
    both = bought.join(lines, on="line")
    assert both.height == bought.height == lines.filter(pl.col("quantity") > 0).height
    assert (
        lake.events.filter(kind="visit").height
        == pl.read_parquet(DATA / "coupon_redemptions.parquet").height
    )
    own_week = (
        both["time"].dt.date() - pl.date(2016, 12, 26)
    ).dt.total_days() // 7 + 1  # the file's weeks begin on Mondays
    assert (
        both.select(own_week=own_week, week="week")
        .filter(pl.col("own_week") != pl.col("week"))
        .is_empty()
    )


def test_without_a_folder_it_says_what_it_expects() -> None:
    for given in ([], ["no such folder"]):
        run = subprocess.run(
            [sys.executable, str(EXAMPLE), *given], capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (1, "")
        assert (
            run.stderr
            == "usage: python examples/journey.py FOLDER, which holds transactions_sample.parquet "
            "and its fellows\n"
        )
