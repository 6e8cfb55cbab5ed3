"""Semantic IDs: how well they describe the items, and which items share prefixes."""

from __future__ import annotations

from longplay.display import decimal, percent
from longplay.report.blocks import Block, Bullets, Grid, Heading, Section, Table
from longplay.report.phrases import too_few_items
from longplay.report.steps import Steps
from longplay.results import RunResults
from longplay.results.code_figures import CodesResult

NAME, TITLE = "codes", "Semantic IDs"


def collect(results: RunResults) -> CodesResult | None:
    """The figures of the codes stage."""
    return results.find(CodesResult)


def draw(codes: CodesResult) -> None:
    """No chart: the figures stand in tables."""


def render(codes: CodesResult, _: None) -> Section:
    """The codebook, its purity, and its fullest shelves."""
    answer = (
        f"{decimal(codes.levels)} codes of {decimal(codes.width)} name each of "
        f"{decimal(codes.items)} items; "
        f"they explain {percent(codes.reconstruction)} of the variance of the items' "
        f"vectors, and {percent(codes.moved)} of the items "
        "did not get their nearest last code because it was taken.",
    )
    rows = (
        ("version", codes.version),
        ("items in the largest first code", decimal(codes.largest_prefix)),
        ("codes in use, by level", ", ".join(percent(share) for share in codes.usage)),
        ("made of", f"behaviour: {codes.vectors.behaviour}; words: {codes.vectors.words}"),
    )
    blocks: list[Block] = [
        Table("The codebook", ("figure", "value"), rows, "lr"),
        *_purity(codes),
    ]
    shelves = tuple(
        Bullets(
            f"Shelf {'·'.join(str(code) for code in shelf.prefix)}: {decimal(shelf.items)} items",
            tuple(title.strip() for title in shelf.titles),
        )
        for shelf in codes.shelves
    )
    if shelves:
        blocks += [
            Heading(
                "Shelves: items that share their first two codes",
                "The largest ones, with at most six titles each. Read them as a person would: do "
                "they belong together?",
            ),
            Grid(shelves, columns=3),
        ]
    return Section(NAME, TITLE, answer, tuple(blocks))


def _purity(codes: CodesResult) -> list[Block]:
    """How well prefixes agree with creators and tags, compared with shuffled labels."""
    purity = codes.purity
    lengths = max((len(shares.found) for shares in purity.values()), default=0)
    if not lengths:
        return []
    if few := too_few_items(codes.items):
        return [Heading("", f"Whether codes agree with creators and tags: {few}.")]
    rows = []
    for label, shares in purity.items():
        rows.append((label, *(percent(share) for share in shares.found)))
        rows.append((f"{label}, shuffled", *(percent(share) for share in shares.shuffled)))
    head = (
        "label",
        *(
            f"first {length} codes" if length > 1 else "first code"
            for length in range(1, lengths + 1)
        ),
    )
    caption = (
        "Share of items that carry the most frequent creator or tag of their first codes; "
        "shuffled: by chance"
    )
    return [Table(caption, head, tuple(rows), "l" + "r" * lengths)]


SECTIONS = (
    Steps(
        order=50,
        name=NAME,
        title=TITLE,
        absent="No semantic IDs were made: the codes stage has no result.",
        collect=collect,
        draw=draw,
        render=render,
    ),
)
