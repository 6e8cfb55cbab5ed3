"""A griffe extension for the documentation site: doctests in docstrings are shown as code.

Markdown reads `>>> ` as a quotation in a quotation. Fences in the docstrings themselves would be
part of the expected output, so they are added when the site is built.
"""

from __future__ import annotations

import griffe


class Fences(griffe.Extension):
    """Puts every doctest of a docstring into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """`text` with a fence around each run of lines from `>>> ` to the next blank line.

    >>> print(fenced("Adds.\\n\\n>>> 1 + 1\\n2\\n\\nThen more."))
    Adds.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    Then more.
    """
    lines: list[str] = []
    inside = False
    for line in [*text.split("\n"), ""]:
        starts = line.lstrip().startswith(">>> ")
        if starts and not inside:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [*([""] if lines and lines[-1].strip() else []), f"{indent}```pycon"]
            inside = True
        if inside and not line.strip():
            lines.append(f"{indent}```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1])
