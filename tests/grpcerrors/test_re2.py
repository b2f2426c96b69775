"""Every pattern runs in RE2 with the same answers, so that Go, Rust and C++ can run them too."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import re2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

import grpcerrors
from grpcerrors import CATALOGUE
from grpcerrors._condition import _compiled, _stripped, _unquoted
from grpcerrors.testing import vectors
from tests.grpcerrors.support.answers import ANSWERS, MORE_ANSWERS
from tests.grpcerrors.test_users_words import FIRST, TEMPLATES, given_by_a_user

DATA = json.loads(Path(grpcerrors.__file__).with_name("contract.json").read_bytes())
QUOTATION: list[str] = list(DATA["quotation"].values())
PATTERNS: list[str] = sorted(
    {
        pattern
        for condition in CATALOGUE
        for dialect in condition.dialects
        for pattern in (dialect.pattern, dialect.unless)
        if pattern
    }
)
MESSAGES = [each.message for each in (*ANSWERS, *MORE_ANSWERS)]
MESSAGES += [each.message for each in vectors().detect]
# The only characters outside ASCII that are equal to a letter when case does not count: CONTRACT.md
# leaves them to the engine.
LETTERS = re.compile("[\N{LATIN SMALL LETTER LONG S}\N{KELVIN SIGN}]")


@cache
def engine(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = pattern.startswith("^")
    options.log_errors = False
    return re2.compile(pattern, options)


def found(match: Any) -> object:
    """What a match says, in characters."""
    return match and (match.span(), match.groups())


def assert_same_answers(text: str) -> None:
    whole = _stripped(text)
    looked_for = [(text, QUOTATION), (whole, QUOTATION + PATTERNS), (_unquoted(whole), PATTERNS)]
    for searched, patterns in looked_for:
        for pattern in patterns:
            ours, theirs = (found(run(pattern).search(searched)) for run in (_compiled, engine))
            assert ours == theirs, (pattern, searched)


def test_the_patterns_are_there() -> None:
    assert len(PATTERNS) > 15
    assert len(QUOTATION) == 3


def test_an_answer_of_another_engine_is_told_apart() -> None:
    assert found(_compiled("^(?P<a>b)").search("bc")) == ((0, 1), ("b",))
    assert found(engine("^(?P<a>b)").search("bc")) == ((0, 1), ("b",))
    assert found(engine("b").search("aB")) == ((1, 2), ())
    assert found(engine("^b").search("B")) is None


def test_they_find_the_same_in_what_backends_say() -> None:
    for message in MESSAGES:
        assert_same_answers(message)


@pytest.mark.slow
@settings(max_examples=200)
@given(pattern=st.sampled_from(PATTERNS), data=st.data())
def test_they_find_the_same_in_what_a_pattern_matches(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(_compiled(pattern), alphabet=st.characters()))
    assert_same_answers(LETTERS.sub("", text))


@pytest.mark.slow
@settings(max_examples=200)
@given(text=given_by_a_user(), template=st.sampled_from([*TEMPLATES, *FIRST, "{}"]))
def test_they_find_the_same_in_what_users_write(text: str, template: str) -> None:
    assert_same_answers(LETTERS.sub("", template.format(text)))
