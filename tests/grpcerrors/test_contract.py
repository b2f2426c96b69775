from __future__ import annotations

import re
from pathlib import Path

import pytest

import grpcerrors
from grpcerrors import CATALOGUE
from grpcerrors._wire import TRAILERS_LIMIT
from tests.grpcerrors.support.make_words import CONTRACT, words

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
    text = CONTRACT.read_text()
    assert sum(len(each.dialects) for each in CATALOGUE) == len(table("The words"))
    assert text == words(text), "python -m tests.grpcerrors.support.make_words"


def test_the_numbers_are_those_of_the_code() -> None:
    text = CONTRACT.read_text()
    assert f"**{TRAILERS_LIMIT:,} bytes**" in text
    assert {each.domain for each in CATALOGUE} == {"grpcerrors"}


def test_nothing_but_the_table_is_made() -> None:
    text = CONTRACT.read_text()
    assert [line for line in words(text).splitlines() if line[:1] != "|"] == [
        line for line in text.splitlines() if line[:1] != "|"
    ]
    assert text.count("\n```\n") == 5, "a sample for each language"


def test_the_core_is_small() -> None:
    """All that neither stands in a server, nor is a command, nor helps with tests."""
    files = list(Path(grpcerrors.__file__).parent.glob("*.py"))
    assert len(files) > 5
    assert sum(len(path.read_text().splitlines()) for path in files) <= 1_100
