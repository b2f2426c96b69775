"""The single-file implementations in other languages agree with the tables and with CONTRACT.md.

tests/interop runs them.
"""

from __future__ import annotations

import pytest

from tests.grpcerrors.support.make_languages import FILES, LANGUAGES, summed, updated
from tests.grpcerrors.support.make_words import CONTRACT

pytestmark = pytest.mark.skipif(
    not LANGUAGES.exists(), reason="languages/ does not travel with the wheel"
)

# What a block of code is called if not by the suffix of a file.
FENCES = {"hpp": "cpp", "rs": "rust"}


@pytest.mark.parametrize("name", FILES)
def test_the_tables_are_those_of_the_contract(name: str) -> None:
    text = (LANGUAGES / name).read_text(encoding="utf-8")
    assert text == updated(name), "python -m tests.grpcerrors.support.make_languages"


@pytest.mark.parametrize("name", FILES)
def test_the_snippets_of_the_contract_are_excerpts(name: str) -> None:
    source = (LANGUAGES / name).read_text(encoding="utf-8")
    kind = name.rpartition(".")[2]
    fence = f"\n```{FENCES.get(kind, kind)}\n"
    snippets = [text.partition("```")[0] for text in CONTRACT.read_text("utf-8").split(fence)[1:]]
    assert snippets
    for snippet in snippets:
        assert snippet in source


def test_a_pattern_becomes_a_sum_of_literals_and_fragments() -> None:
    pattern = ['"{{not_loaded}}\\b', "{{gone}}", "x"]
    lines = ['"\\"" + wordsNotLoaded + "\\\\b" +', '  "|" + wordsGone +', '  "|x"']
    assert summed(pattern, "  ").splitlines() == lines
    assert summed([], "  ") == '""'
