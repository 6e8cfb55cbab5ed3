"""Count how dense and how vague the code is: a mirror, not a gate.

Prints tokens per line of code, conditional expressions and vague names per 1,000 lines of code, and the share
of lines over 120 columns. Docstrings and comments are no code. Run it on two checkouts to compare them.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONG = 120
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
VAGUE = frozenset(
    """
    one found said ours mine own kept asked told given whole who here there both others made
    known after before beside named
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Counts:
    """What was counted in some files."""

    lines: int
    code_lines: int
    tokens: int
    conditionals: int
    long_lines: int
    vague: Counter[str]

    def row(self, name: str) -> str:
        """The counts as a row of a Markdown table."""
        per_thousand = 1_000 / self.code_lines
        return (
            f"| {name} | {self.tokens / self.code_lines:.1f} "
            f"| {self.conditionals * per_thousand:.0f} "
            f"| {self.vague.total() * per_thousand:.0f} "
            f"| {self.long_lines / self.lines:.1%} |"
        )


def counts_of(files: list[Path]) -> Counts:
    """Count these Python files together."""
    lines = code_lines = tokens = conditionals = long_lines = 0
    vague: Counter[str] = Counter()
    for file in files:
        source = file.read_text()
        tree = ast.parse(source)
        code = _code_tokens(source, _docstring_lines(tree))
        tokens += len(code)
        code_lines += len(
            {line for token in code for line in range(token.start[0], token.end[0] + 1)}
        )
        conditionals += sum(isinstance(node, ast.IfExp) for node in ast.walk(tree))
        vague.update(name for node in ast.walk(tree) if (name := _identifier(node)) in VAGUE)
        lines += source.count("\n")
        long_lines += sum(len(line) > LONG for line in source.split("\n"))
    return Counts(lines, code_lines, tokens, conditionals, long_lines, vague)


def _docstring_lines(tree: ast.Module) -> set[int]:
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _code_tokens(source: str, docstring_lines: set[int]) -> list[tokenize.TokenInfo]:
    return [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in NO_CODE and token.start[0] not in docstring_lines
    ]


def _identifier(node: ast.AST) -> str:
    """The name that a node uses or defines, or nothing."""
    match node:
        case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
            return name
    return ""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="*", default=[ROOT / "src"])
    options.add_argument("--words", action="store_true", help="also which vague names, how often")
    arguments = options.parse_args()
    print(
        "| folder | tokens per line | conditionals per 1,000 | vague names per 1,000 | over 120 |"
    )
    print("|---|---|---|---|---|")
    for folder in arguments.folders:
        counts = counts_of(sorted(folder.rglob("*.py")))
        print(counts.row(str(folder)))
        if arguments.words:
            print(dict(counts.vague.most_common()))


if __name__ == "__main__":
    main()
