"""What the constructors build."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import StatusCode

import grpcerrors
from grpcerrors import ContractError

if TYPE_CHECKING:
    from collections.abc import Callable

BUILT = [
    (
        grpcerrors.model_not_loaded("parakeet-cpp"),
        grpcerrors.MODEL_NOT_LOADED,
        StatusCode.FAILED_PRECONDITION,
        "parakeet-cpp: model not loaded",
        {"backend": "parakeet-cpp"},
    ),
    (
        grpcerrors.model_not_loaded("x", model="tiny.en"),
        grpcerrors.MODEL_NOT_LOADED,
        StatusCode.FAILED_PRECONDITION,
        "x: model not loaded",
        {"backend": "x", "model": "tiny.en"},
    ),
    (
        grpcerrors.model_not_loaded("", started=True),
        grpcerrors.MODEL_NOT_LOADED,
        StatusCode.FAILED_PRECONDITION,
        ": model not loaded",
        {"started": "true"},
    ),
    (
        grpcerrors.model_loading("x", model="tiny.en", retry_after=2.5),
        grpcerrors.MODEL_LOADING,
        StatusCode.UNAVAILABLE,
        "x: model is loading",
        {"backend": "x", "model": "tiny.en"},
    ),
    (
        grpcerrors.model_mismatch("x", loaded="a", requested="b"),
        grpcerrors.MODEL_MISMATCH,
        StatusCode.NOT_FOUND,
        'x: model identity mismatch: loaded "a", requested "b"',
        {"backend": "x", "loaded": "a", "requested": "b"},
    ),
    (
        grpcerrors.live_transcription_unsupported("x", "offline model"),
        grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED,
        StatusCode.UNIMPLEMENTED,
        "x: live transcription unsupported: offline model",
        {"backend": "x", "reason": "offline model"},
    ),
    (
        grpcerrors.stream_transcription_unsupported("x", "offline model"),
        grpcerrors.STREAM_TRANSCRIPTION_UNSUPPORTED,
        StatusCode.UNIMPLEMENTED,
        "x: streaming transcription unsupported: offline model",
        {"backend": "x", "reason": "offline model"},
    ),
]


@pytest.mark.parametrize(("error", "condition", "code", "details", "fields"), BUILT)
def test_built(
    error: ContractError,
    condition: grpcerrors.Condition,
    code: StatusCode,
    details: str,
    fields: dict[str, str],
) -> None:
    """An error is an exception and a grpc.Status, and is what it says."""
    assert isinstance(error, Exception)
    assert isinstance(error, grpc.Status)
    assert (error.code, error.details, str(error)) == (code, details, details)
    assert error.condition is condition
    assert error.fields == fields
    assert error.started is ("started" in fields)
    (key, value), *plain = error.trailing_metadata
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    assert plain == ([] if error.started else [("grpcerrors-unexecuted", condition.reason)])
    verdict = grpcerrors.classify(error)
    assert (verdict.condition, verdict.evidence) == (condition, grpcerrors.Evidence.DETAILS)
    assert (dict(verdict.fields), verdict.started) == (fields, error.started)
    assert verdict.unexecuted is not error.started
    assert verdict.typed
    assert verdict.retry_after == error.retry_after
    assert (verdict.backend, verdict.model) == (fields.get("backend", ""), fields.get("model", ""))


@pytest.mark.parametrize("built", BUILT)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_copies_are_the_same(
    built: tuple[ContractError], again: Callable[[ContractError], ContractError]
) -> None:
    """Copied or pickled, an error has the same bytes."""
    error, copied = built[0], again(built[0])
    assert type(copied) is ContractError
    assert copied.trailing_metadata == error.trailing_metadata
    assert (copied.code, copied.details, copied.condition) == (
        error.code,
        error.details,
        error.condition,
    )
    assert (repr(copied), copied.started, copied.retry_after) == (
        repr(error),
        error.started,
        error.retry_after,
    )


def test_a_condition_of_another_domain_names_it_in_the_plain_trailer() -> None:
    """And one that proves nothing has no such trailer."""
    gone = grpcerrors.Condition(
        "GONE", StatusCode.ABORTED, "gone", domain="example.com", unexecuted=True
    )
    assert ContractError(gone).trailing_metadata[1:] == (
        ("grpcerrors-unexecuted", "example.com/GONE"),
    )
    assert ContractError(gone, started=True).trailing_metadata[1:] == ()
    assert ContractError(dataclasses.replace(gone, unexecuted=False)).trailing_metadata[1:] == ()


def test_loading_asks_to_wait_a_second() -> None:
    """Unless the author knows better."""
    assert grpcerrors.classify(grpcerrors.model_loading("x")).retry_after == 1.0


def test_repr_is_for_people() -> None:
    """It names the condition and the fields."""
    error = grpcerrors.model_mismatch("x", loaded="a", requested="b")
    assert repr(error) == "ContractError(MODEL_MISMATCH, backend='x', loaded='a', requested='b')"


def test_other_fields_travel_too() -> None:
    """Beyond those of the message; None and empty ones stay at home."""
    error = ContractError(grpcerrors.MODEL_NOT_LOADED, backend="x", node="n1", model=None, cause="")
    assert error.fields == {"backend": "x", "node": "n1"}


def test_a_missing_field_is_named() -> None:
    """So is each of several."""
    with pytest.raises(TypeError, match="MODEL_MISMATCH needs a value for loaded, requested"):
        ContractError(grpcerrors.MODEL_MISMATCH, backend="x", loaded=None)


def test_a_value_that_is_no_string_is_refused() -> None:
    """With its name and type."""
    with pytest.raises(TypeError, match="backend must be a string, not bytes"):
        grpcerrors.model_not_loaded(b"x")  # type: ignore[arg-type]
