"""What a condition may be, and what a catalogue makes of several."""

from __future__ import annotations

import dataclasses

import pytest
from grpc import StatusCode

import grpcerrors
from grpcerrors import (
    CATALOGUE,
    MODEL_NOT_LOADED,
    Catalogue,
    Condition,
    ContractError,
    Dialect,
    _detect,
    matches,
)
from tests.grpcerrors.support import errors

TOKENIZER_GONE = Condition(
    reason="TOKENIZER_GONE",
    domain="example.com",
    code=StatusCode.FAILED_PRECONDITION,
    message="{backend}: tokenizer gone after {requests} requests",
    dialects=(
        Dialect(
            "tests",
            frozenset({StatusCode.INTERNAL}),
            "lost my tokenizer",
            ("tokenizer",),
            "",
        ),
    ),
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"reason": "lower_case"}, "UPPER_SNAKE_CASE"),
        ({"reason": "A" * 64}, "3 to 63"),
        ({"reason": "AB"}, "3 to 63 characters: 'AB'"),
        ({"reason": "ENDS_"}, "UPPER_SNAKE_CASE"),
        ({"domain": ""}, "1 to 190 characters of ASCII, no spaces"),
        ({"domain": "x" * 191}, "1 to 190 characters"),
        ({"domain": "beispiel.example/é"}, "ASCII"),
        ({"domain": "example.com\n"}, "no spaces"),
        ({"message": "x" * 256}, "at most 255 bytes"),
        ({"code": StatusCode.OK}, "not OK"),
        ({"message": "{}: gone"}, "plain named fields"),
        ({"message": "{0}: gone"}, "plain named fields"),
        ({"message": "{backend!r}: gone"}, "plain named fields"),
        ({"message": "{backend:>9}: gone"}, "plain named fields"),
        ({"message": "{backend.name}: gone"}, "plain named fields"),
        ({"message": "{started}: gone"}, "cannot be named started"),
        ({"message": "{retry_after}: gone"}, "cannot be named retry_after"),
    ],
)
def test_a_condition_that_cannot_travel_is_refused(
    change: dict[str, object], complaint: str
) -> None:
    """Each mistake gets a message that says what is right."""
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(TOKENIZER_GONE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"reason": "A" * 63}, {"domain": "x" * 190}, {"message": "x" * 255}]
)
def test_the_longest_condition_can_travel(change: dict[str, str]) -> None:
    """The limits themselves are allowed."""
    assert dataclasses.replace(TOKENIZER_GONE, **change)  # type: ignore[arg-type]


def test_conditions_are_named_by_domain_and_reason() -> None:
    """Equality is what the wire can tell; the rest may change from version to version."""
    assert dataclasses.replace(TOKENIZER_GONE, message="other") == TOKENIZER_GONE
    assert dataclasses.replace(TOKENIZER_GONE, domain="example.org") != TOKENIZER_GONE


def test_fields_are_those_of_the_message() -> None:
    """Each once, in order."""
    assert TOKENIZER_GONE.fields == ("backend", "requests")
    twice = dataclasses.replace(TOKENIZER_GONE, message="{a} {b} {a} {{c}}")
    assert twice.fields == ("a", "b")


def test_a_condition_of_ones_own_is_built_and_detected() -> None:
    """By the same engine, with details, in words, and never by another's details."""
    error = ContractError(TOKENIZER_GONE, backend="x", requests="7")
    assert error.details == "x: tokenizer gone after 7 requests"
    assert matches(error, TOKENIZER_GONE)
    assert matches(errors.sync_error(StatusCode.INTERNAL, "I lost my tokenizer"), TOKENIZER_GONE)
    assert not matches(errors.sync_error(StatusCode.UNKNOWN, "lost my tokenizer"), TOKENIZER_GONE)
    assert not matches(grpcerrors.model_not_loaded("x"), TOKENIZER_GONE)


def test_anothers_condition_is_not_model_not_loaded() -> None:
    """Details of a foreign domain rule the bare FAILED_PRECONDITION out."""
    error = ContractError(TOKENIZER_GONE, backend="x", requests="7")
    assert not grpcerrors.is_model_not_loaded(error)
    assert grpcerrors.classify(error) == grpcerrors.Verdict()
    both = Catalogue(*CATALOGUE, TOKENIZER_GONE)
    assert grpcerrors.classify(error, both).condition is TOKENIZER_GONE


def test_the_earlier_of_two_conditions_takes_the_bare_code() -> None:
    """Order decides between conditions that claim one code, and doubles count once."""
    ours, theirs = (
        dataclasses.replace(TOKENIZER_GONE, reason=reason, code_alone=True)
        for reason in ("OURS", "THEIRS")
    )
    catalogue = Catalogue(ours, theirs, ours)
    assert list(catalogue) == [ours, theirs]
    bare = errors.sync_error(StatusCode.FAILED_PRECONDITION, "")
    assert grpcerrors.classify(bare, catalogue).condition is ours


def test_the_condition_said_first_counts() -> None:
    """What follows the words of one condition may be quoted in it."""
    text = 'x: model identity mismatch: loaded "a", requested "model not loaded"'
    verdict = grpcerrors.classify(errors.sync_error(StatusCode.NOT_FOUND, text))
    assert verdict.condition is grpcerrors.MODEL_MISMATCH
    assert verdict.backend == "x"
    text = "live transcription unsupported: model not loaded"
    verdict = grpcerrors.classify(errors.sync_error(StatusCode.UNKNOWN, text))
    assert verdict.condition is grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED
    assert verdict.backend == ""


def _words(pattern: str) -> Dialect:
    codes = frozenset({StatusCode.UNKNOWN})
    return Dialect("tests", codes, pattern, ("gone fishing",), "here")


GONE_FISHING = errors.sync_error(StatusCode.UNKNOWN, "gone fishing")


def test_a_built_in_condition_can_learn_words() -> None:
    """The one that is asked about counts, not its namesake."""
    fishing = _words("^gone fishing$")
    extended = dataclasses.replace(MODEL_NOT_LOADED, dialects=(fishing,))
    assert matches(GONE_FISHING, extended)
    assert not matches(GONE_FISHING, MODEL_NOT_LOADED)
    assert grpcerrors.classify(GONE_FISHING, Catalogue(extended)).condition == MODEL_NOT_LOADED


@pytest.mark.parametrize("first", [True, False])
def test_whoever_was_asked_about_first_changes_nothing(first: bool) -> None:
    """Conditions of one name differ by what they know."""
    knows = dataclasses.replace(TOKENIZER_GONE, dialects=(_words("^gone fishing$"),))
    does_not = dataclasses.replace(knows, dialects=())
    for condition in (knows, does_not) if first else (does_not, knows):
        assert matches(GONE_FISHING, condition) is (condition is knows)


def test_conditions_that_nobody_holds_are_not_kept() -> None:
    """A program may make one for each error."""
    for number in range(300):
        condition = dataclasses.replace(TOKENIZER_GONE, message=f"gone {number}")
        assert not matches(GONE_FISHING, condition)
    assert _detect._predicate_of.cache_info().currsize <= 128


def test_words_do_not_count_where_an_exception_is_found() -> None:
    """The pair of patterns stands for what RE2 cannot say in one."""
    dialect = dataclasses.replace(_words("gone fishing"), unless="never gone")
    condition = dataclasses.replace(TOKENIZER_GONE, dialects=(dialect,))
    assert matches(GONE_FISHING, condition)
    never = errors.sync_error(StatusCode.UNKNOWN, "never gone fishing")
    assert not matches(never, condition)
