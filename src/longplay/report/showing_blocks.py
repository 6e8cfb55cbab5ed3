"""The chance of an entry in the report: the sign and weight of every feature, calibration by bin, and
what each part is worth."""

from __future__ import annotations

from collections.abc import Sequence

from longplay.display import Bounded, decimal, signed, span
from longplay.report import charts
from longplay.report.blocks import Block, Chart, Heading, Note, Table
from longplay.results.reward_figures import ReliabilityBin, ShowingFigures

PART_NAMES = {
    "items": "rates of items and creators",
    "repetition": "earlier showings of item, creator and page",
    "taste": "the user's taste",
    "above": "the slots above in the slate",
}


def reliability_bins(rows: Sequence[ReliabilityBin]) -> list[dict[str, float | int]]:
    """Bins of predictions for a reliability diagram, with their 95% intervals."""
    bins = []
    for row in rows:
        low = row.realised - 1.96 * row.std_error
        bins.append(
            {
                "n": row.n,
                "predicted": row.predicted,
                "realised": row.realised,
                "std_error": row.std_error,
                "low": max(0.0, low) if row.realised >= 0 else low,
                "high": row.realised + 1.96 * row.std_error,
            }
        )
    return bins


def showing_plot(showing: ShowingFigures | None) -> Chart | None:
    """Realised against predicted chances of an entry; null where there are none."""
    if showing is None or not showing.reliability:
        return None
    return charts.reliability(
        reliability_bins(showing.reliability), charts.FAINT, "chance of an entry"
    )


def showing_blocks(showing: ShowingFigures | None, plot: Chart | None) -> list[Block]:
    """The chance of an entry where something is shown, as far as the log says it."""
    if showing is None:
        return []
    text = (
        f"Fitted on {decimal(showing.slots)} slots, most of them on {showing.surface}; judged on "
        f"{decimal(showing.judged)} slates of held-out users, from what was known before each visit. "
        "A positive weight means that an entry is likelier."
    )
    weights = tuple((name, signed(Bounded(weight))) for name, weight in showing.weights.items())
    blocks: list[Block] = [Heading("How likely is an entry where something is shown?", text)]
    if plot is not None:
        blocks.append(plot)
    blocks.append(
        Table("Weights on the log odds of an entry", ("feature", "weight"), weights, "lr")
    )
    if not showing.parts:
        blocks.append(
            Note("Too few slates of held-out users to say what each part is worth.", "plain")
        )
        return blocks
    rows = []
    for name, part in showing.parts.items():
        gain = Bounded.around(part.gain, part.gain_se)
        rows.append(
            (PART_NAMES.get(name, name), f"{signed(gain)} ({span(gain)})", decimal(part.usual, 4))
        )
    blocks.append(
        Table(
            "What the best slot of a slate comes to (entries x belief), beyond the best slot chosen "
            "without the part",
            ("part", "gain (95% interval)", "a usual slot"),
            tuple(rows),
            "lrr",
        )
    )
    return blocks
