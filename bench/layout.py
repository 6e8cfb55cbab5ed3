"""Draw docs/layout.md: every file of the repository with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "layout.md"
TOP = {
    "bench": "Programs that measure what the documentation claims, and those that draw it",
    "examples": "Runs and programs to copy from",
    "tests": "What must hold",
    "tests/golden": "The JSON of every stage's result, which other programs may rely on",
}
WITHOUT_DOCSTRING = {
    ".css": "The style of the page",
    ".html": "The page, as a Jinja2 template",
    ".json": "What a test compares with",
    ".typed": "Marks the package as typed",
}
HEAD = """\
# Layout

Where to find what. This page is drawn from the docstrings of the files by `python bench/layout.py`, and a test checks
that it is up to date. [Design](design.md) explains the layers, and CONTRIBUTING.md lists the files that a typical
change touches.
"""


def main() -> None:
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(ROOT)} is up to date")


def page() -> str:
    """Text of docs/layout.md: a heading per folder, a table row per file."""
    lines = [HEAD, "## The package", ""]
    for folder in _folders(ROOT / "src" / "longplay"):
        lines += _section(folder, _summary(folder / "__init__.py"))
    for name, purpose in TOP.items():
        lines += _section(ROOT / name, purpose, level=2)
    return "\n".join(lines)


def _folders(top: Path) -> list[Path]:
    inner = sorted(path for path in top.iterdir() if (path / "__init__.py").exists())
    return [top, *(folder for path in inner for folder in _folders(path))]


def _files(folder: Path) -> list[Path]:
    suffixes = {".py", ".toml", *WITHOUT_DOCSTRING}
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes)


def _section(folder: Path, purpose: str, level: int = 3) -> list[str]:
    """A heading with the folder's purpose, and a row per file."""
    files = [path for path in _files(folder) if path.name != "__init__.py"]
    rows = [f"| `{path.name}` | {_summary(path)} |" for path in files]
    title = folder.relative_to(ROOT).as_posix()
    head = [f"{'#' * level} `{title}/`", "", f"{purpose}.", ""]
    return [*head, "| file | what it holds |", "|---|---|", *rows, ""]


def _summary(path: Path) -> str:
    """First sentence of a Python file's docstring, or of the comment that a TOML file begins with."""
    if path.suffix in WITHOUT_DOCSTRING:
        return WITHOUT_DOCSTRING[path.suffix]
    if path.suffix == ".toml":
        text = re.sub(r"^# ?", "", path.read_text().partition("\n")[0])
    else:
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<!et al)\. (?=[A-Z`])", paragraph)[0]
    return sentence.rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    main()
