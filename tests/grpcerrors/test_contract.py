from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpcerrors import CATALOGUE
from grpcerrors._wire import TRAILERS_LIMIT

CONTRACT = Path(__file__).parents[2] / "CONTRACT.md"

pytestmark = pytest.mark.skipif(
    not CONTRACT.exists(), reason="CONTRACT.md does not travel with the wheel"
)


def table(heading: str) -> list[tuple[str, ...]]:
    """The rows of the first table under a heading, without their markup."""
    section = CONTRACT.read_text().split(f"# {heading}\n", 1)[1]
    block = re.search(r"^\|.*?\n(?!\|)", section, re.DOTALL | re.MULTILINE)
    assert block is not None
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in block.group().splitlines()[2:]]
    return [tuple(cell.strip().strip("`").replace(r"\|", "|") for cell in row) for row in rows]


def yes(value: object) -> str:
    return "yes" if value else "no"


def test_the_conditions_are_those_of_the_catalogue() -> None:
    assert table("Conditions") == [
        (
            each.reason,
            each.code.name,
            each.message,
            yes(each.dialects),
            yes(each.code_alone),
            yes(each.unexecuted),
        )
        for each in CATALOGUE
    ]


def test_the_words_are_those_of_the_dialects() -> None:
    assert table("The words") == [
        (
            each.reason,
            dialect.system,
            ", ".join(sorted(code.name if code else "none" for code in dialect.codes)),
            dialect.pattern.pattern,
        )
        for each in CATALOGUE
        for dialect in each.dialects
    ]


def test_the_numbers_are_those_of_the_code() -> None:
    text = CONTRACT.read_text()
    assert f"**{TRAILERS_LIMIT:,} bytes**" in text
    assert {each.domain for each in CATALOGUE} == {"grpcerrors"}
