"""Draw docs/api/*.md: every public name of longplay once, on the page of its package."""

from __future__ import annotations

from pathlib import Path

import longplay

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "api"
# file -> title, what it is for, packages whose public names it shows, and further types they take or return
PAGES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "lake": ("Lake", "What happened: events, slates and items, as known at a time.", ("lake",), ()),
    "signals": (
        "Signals",
        "What we hope for: outcomes declared as data.",
        ("signals",),
        (
            "signals.declare.declaration.Declaration",
            "signals.declare.entry.Entry",
            "signals.declare.measure.Measure",
            "signals.outcomes.in_files.base_rates",
            "signals.outcomes.enrolled_sums.enrolled_sums",
        ),
    ),
    "attribution": (
        "Attribution",
        "One delayed outcome shared out over the exposures before it.",
        ("attribution",),
        (
            "attribution.credits.Credits",
            "attribution.rules",
            "attribution.unexposed.Unexposed",
        ),
    ),
    "rewards": (
        "Early rewards",
        "What we believe of an outcome before it has matured.",
        ("rewards", "belief"),
        (),
    ),
    "policies": (
        "Policies",
        "Who recommends: contexts in, slates with exact log-probabilities out.",
        ("decisions", "policies"),
        (),
    ),
    "learning": (
        "Learning and ranking",
        "How a policy improves, and how well it ranks what users did next.",
        ("learning", "ranking"),
        (),
    ),
    "off-policy": (
        "Off-policy values",
        "What would have happened: an estimate from the log alone, or a refusal.",
        ("estimate", "ope"),
        ("estimate.Refusal", "ope.diagnostics.Diagnosis"),
    ),
    "experiments": (
        "Experiments and audits",
        "What did happen, and whether the early reward was true.",
        ("experiments", "audits"),
        (
            "experiments.readout",
            "experiments.power",
            "experiments.holdout.Holdout",
            "audits.Audit",
            "audits.Verdict",
        ),
    ),
    "world": (
        "Worlds",
        "Simulated services with a known long-term truth.",
        ("world",),
        ("world.parameters", "world.facts", "world.simulator.Simulator", "world.gym"),
    ),
    "run": ("Runs and errors", "The whole loop, and what can go wrong.", ("run", "errors"), ()),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / f"{name}.md").write_text(text)
    print(f"{FOLDER.relative_to(ROOT)} is up to date")


def pages() -> dict[str, str]:
    """Text of every page, by the name of its file."""
    return {
        name: page(title, purpose, packages, further)
        for name, (title, purpose, packages, further) in PAGES.items()
    }


def page(title: str, purpose: str, packages: tuple[str, ...], further: tuple[str, ...]) -> str:
    """Public names of `packages` in the order of `longplay.__all__`, then further types."""
    public = [path for path in public_paths() if path.split(".")[1] in packages]
    lines = [f"# {title}", "", purpose, ""]
    lines += [f"::: {path}" for path in public]
    if further:
        lines += ["", "## Further types and functions", ""]
        lines += [f"::: longplay.{path}" for path in further]
    return "\n".join(lines) + "\n"


def public_paths() -> list[str]:
    """Where each public name is defined, as a dotted path."""
    values = [getattr(longplay, name) for name in longplay.__all__ if name != "__version__"]
    return [f"{value.__module__}.{value.__qualname__}" for value in values]


if __name__ == "__main__":
    main()
