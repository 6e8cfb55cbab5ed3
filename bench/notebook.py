"""Draw docs/tutorial.ipynb: the tutorial as an executed notebook. Needs `pip install nbformat
nbclient ipykernel`."""

from __future__ import annotations

import argparse
import doctest
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
FENCE = re.compile(r"^```pycon\n(.*?)^```\n", re.M | re.DOTALL)
FLAGS = re.compile(r"\s*# doctest: .*$", re.M)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        import nbclient
        import nbformat
    except ImportError:
        sys.exit("nbformat or nbclient is not installed: pip install nbformat nbclient ipykernel")
    notebook = nbformat.v4.new_notebook()
    for number, (kind, text) in enumerate(cells(PAGE.read_text())):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.append(make(text, id=f"cell-{number}"))
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times differ from run to run
        if cell.cell_type == "code":  # progress lines are gone once the cell is done
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK.relative_to(ROOT)} is up to date")


def cells(page: str) -> list[tuple[str, str]]:
    """(kind, text) of each cell: the page's prose, and the code of its doctests without prompts.

    >>> cells("# One\\n\\n```python\\n>>> 1 + 1\\n2\\n\\n```\\n")
    [('markdown', '# One'), ('code', '1 + 1')]
    """
    parts: list[tuple[str, str]] = []
    for number, text in enumerate(FENCE.split(page)):
        if number % 2:
            examples: list[Any] = doctest.DocTestParser().get_examples(text)
            code = "".join(example.source for example in examples)
            parts.append(("code", FLAGS.sub("", code).strip()))
        elif text.strip():
            parts.append(("markdown", text.strip()))
    return parts


if __name__ == "__main__":
    main()
