"""Output of the demo: headings, lines and results, in colour on a terminal."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

_WIDTH = 98


class StepFailed(AssertionError):
    """A step failed. The message names the check."""


class Screen:
    """Prints the steps of the demo."""

    def __init__(self) -> None:
        self._console = Console(width=_WIDTH, highlight=False, soft_wrap=False)

    def title(self, text: str) -> None:
        """Print a heading."""
        self._console.rule(Text(text, "bold"), align="left")

    def step(self, text: str) -> None:
        """Print the heading of a step."""
        self._console.print()
        self._console.print(Text(text, "bold cyan"))

    def say(self, text: str) -> None:
        """Print a line of information."""
        self._write("   ", text, "")

    def quote(self, text: str) -> None:
        """Print the output of a program."""
        for line in text.splitlines():
            self._write("     | ", line, "dim")

    def check(self, text: str, *, held: bool) -> None:
        """Print a check and its result. Raises StepFailed unless it `held`."""
        self._write(" ok " if held else " NO ", text, "green" if held else "bold red")
        if not held:
            raise StepFailed(text)

    def command(self, command: str, purpose: str) -> None:
        """Print a command to paste, with its purpose below."""
        print(f"\n  {command}\n      {purpose}", flush=True)

    def _write(self, margin: str, text: str, style: str) -> None:
        indent = " " * len(margin)
        wrapped = textwrap.wrap(text, _WIDTH - len(margin), break_on_hyphens=False) or [""]
        for number, line in enumerate(wrapped):
            self._console.print(Text((margin if number == 0 else indent) + line, style))
