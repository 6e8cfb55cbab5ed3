"""The report on a simulator: a line per rule, which prints as a table."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape

from longplay.display import html_table
from longplay.errors import ConfigError

_WIDTH = 100  # of the printed table, in characters
_MARKS = {True: "holds", False: "FAILS", None: "-"}


@dataclass(frozen=True)
class RuleResult:
    """What was found of one rule.

    Attributes:
        rule: its name.
        holds: whether the simulator keeps it; null where it could not be tried.
        finding: what was tried and found, or why it could not be tried.
        advice: how to mend it; empty where it holds.
    """

    rule: str
    holds: bool | None
    finding: str
    advice: str = ""


@dataclass(frozen=True)
class SimulatorReport:
    """What `check_simulator` found: a line per rule, as a table on a terminal and in a notebook.

    Attributes:
        subject: what was checked.
        lived: how it was tried.
        results: a line per rule.
    """

    subject: str
    lived: str
    results: tuple[RuleResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no rule fails."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the rules that fail."""
        return tuple(result.rule for result in self.results if result.holds is False)

    @property
    def open(self) -> tuple[str, ...]:
        """The names of the rules that could not be tried."""
        return tuple(result.rule for result in self.results if result.holds is None)

    def line(self, rule: str) -> RuleResult:
        """The line of a rule.

        Raises:
            ConfigError: there is none of this name.
        """
        for result in self.results:
            if result.rule == rule:
                return result
        raise ConfigError(
            f"report: rule {rule!r} given, expected one of "
            f"{', '.join(result.rule for result in self.results)}"
        )

    def _title(self) -> str:
        count = len(self.results) - len(self.open) - len(self.failed)
        parts = [f"{count} holding", f"{len(self.failed)} failing", f"{len(self.open)} not tried"]
        return f"{self.subject}, {len(self.results)} rules: {', '.join(parts)}"

    def __str__(self) -> str:
        width = max(len(result.rule) for result in self.results)
        indent = " " * (width + 9)
        lines = [self._title(), *textwrap.wrap(self.lived, _WIDTH), ""]
        for result in self.results:
            head = f"{result.rule:<{width}}  {_MARKS[result.holds]:<5}  "
            lines += textwrap.wrap(
                result.finding, _WIDTH, initial_indent=head, subsequent_indent=indent
            )
            if result.advice:
                lines += textwrap.wrap(
                    f"-> {result.advice}",
                    _WIDTH,
                    initial_indent=indent,
                    subsequent_indent=f"{indent}   ",
                )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = ["rule", "", "what was found", "how to mend it"]
        rows = [
            [result.rule, _MARKS[result.holds], result.finding, result.advice]
            for result in self.results
        ]
        title = f"<p>{escape(self._title())}. {escape(self.lived)}</p>"
        return title + html_table(head, rows)
