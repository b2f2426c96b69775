"""The table of words in CONTRACT.md: `python -m tests.grpcerrors.support.make_words`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from grpcerrors import CATALOGUE

if TYPE_CHECKING:
    from grpcerrors import Condition, Dialect

CONTRACT = Path(__file__).parents[3] / "CONTRACT.md"
_TABLE = re.compile(r"(### The words\n.*?(?:\|---){5}\|\n)((?:\|[^\n]*\n)*)", re.DOTALL)


def words(text: str) -> str:
    """Return CONTRACT.md's text with the table as it should be."""
    rows = "".join(_row(each, dialect) for each in CATALOGUE for dialect in each.dialects)
    return _TABLE.sub(lambda table: table[1] + rows, text)


def _row(condition: Condition, dialect: Dialect) -> str:
    codes = ", ".join(sorted(code.name if code else "none" for code in dialect.codes))
    patterns = f"{_shown(dialect.pattern)} | {_shown(dialect.unless)}"
    return f"| `{condition.reason}` | {dialect.system} | {codes} | {patterns} |\n"


def _shown(pattern: str) -> str:
    if not pattern:
        return ""
    text = pattern.replace("|", r"\|")
    # As many backticks as stand nowhere together in the text.
    runs = {len(run) for run in re.findall("`+", text)}
    fence = "`" * next(length for length in range(1, 9) if length not in runs)
    return f"{fence}{text}{fence}"


if __name__ == "__main__":
    CONTRACT.write_text(words(CONTRACT.read_text()))
