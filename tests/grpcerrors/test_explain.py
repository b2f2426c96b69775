"""What a person reads, word for word, for each rung that may decide."""

from __future__ import annotations

import pytest
from grpc import StatusCode

import grpcerrors
from grpcerrors import explain
from tests.grpcerrors.support import errors


def _with(code: StatusCode, text: str, *infos: tuple[str, str]) -> object:
    return errors.sync_error(code, text, errors.trailers(errors.status(code, text, *infos)))


CASES = {
    "details": (
        grpcerrors.model_not_loaded("x", model="m"),
        """\
model not loaded, backend 'x', model 'm'
  because its details say so (grpcerrors/MODEL_NOT_LOADED)
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/MODEL_NOT_LOADED backend='x' \
model='m'""",
    ),
    "details, started": (
        grpcerrors.model_not_loaded("x", started=True),
        """\
model not loaded, backend 'x'
  because its details say so (grpcerrors/MODEL_NOT_LOADED); the handler had begun on the request
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/MODEL_NOT_LOADED backend='x' \
started='true'""",
    ),
    "details, of a later version": (
        _with(StatusCode.FAILED_PRECONDITION, "x: model not loaded", ("grpcerrors", "FROM_2030")),
        """\
nothing that the contract knows
  because its details say so (grpcerrors/FROM_2030), a reason that this version does not know; \
text and code do not count
  error: FAILED_PRECONDITION, 'x: model not loaded', grpcerrors/FROM_2030""",
    ),
    "words": (
        errors.wrapped(errors.sync_error(StatusCode.INTERNAL, "x: model not loaded")),
        """\
model not loaded, backend 'x'
  because of its words, as said by LocalAI and others; \
no details decided
  error: no code, 'the request failed'
  wraps: INTERNAL, 'x: model not loaded'""",
    ),
    "code": (
        errors.sync_error(StatusCode.FAILED_PRECONDITION, "not now"),
        """\
model not loaded
  because of its bare code, FAILED_PRECONDITION: no details, and no words that the contract \
knows. Ask the backend's Status before acting on it
  error: FAILED_PRECONDITION, 'not now'""",
    ),
    "details of another domain": (
        _with(StatusCode.FAILED_PRECONDITION, "not now", ("example.com", "QUOTA")),
        """\
nothing that the contract knows
  because the details are of another domain, which rules out the code, and no words decide
  error: FAILED_PRECONDITION, 'not now', example.com/QUOTA""",
    ),
    "nothing": (
        None,
        """\
nothing that the contract knows
  because neither details, nor words, nor code say anything that it knows
  error: no code, ''""",
    ),
}


@pytest.mark.parametrize(("err", "said"), CASES.values(), ids=CASES)
def test_what_decided_is_told(err: object, said: str) -> None:
    assert explain(err) == said


def test_a_long_text_is_cut() -> None:
    """To a line that fits a screen."""
    assert f"\n  error: no code, '{'x' * 88}'" in explain(ValueError("x" * 88))
    assert f"\n  error: no code, '{'x' * 87}…'" in explain(ValueError("x" * 89))


def _chain(length: int) -> Exception:
    err = Exception(f"error {length}")
    for number in range(length - 1, 0, -1):
        err = errors.wrapped(err, f"error {number}")
    return err


def test_five_errors_of_a_chain_are_shown() -> None:
    """Of the others, how many they are."""
    shown = [f"  wraps: no code, 'error {number}'" for number in range(2, 6)]
    assert explain(_chain(5)).splitlines()[2:] == ["  error: no code, 'error 1'", *shown]
    lines = explain(_chain(7)).splitlines()
    assert lines[2:] == ["  error: no code, 'error 1'", *shown, "  and 2 more that it wraps"]
