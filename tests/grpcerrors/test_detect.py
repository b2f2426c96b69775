"""What may be handed to the detector, and what comes out."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api_core import exceptions as api_core
from google.rpc import status_pb2
from grpc import StatusCode
from grpc_status import rpc_status

import grpcerrors
from grpcerrors import (
    CATALOGUE,
    Evidence,
    Verdict,
    classify,
    explain,
    held_model,
    matches,
    model_not_loaded,
)
from tests.grpcerrors.support import connect, errors
from tests.grpcerrors.support.serving import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

NOT_LOADED = grpcerrors.model_not_loaded("x", model="m")
RICH = errors.details_of(NOT_LOADED)
RICH_PROTO = status_pb2.Status.FromString(RICH)


class Subclass(api_core.FailedPrecondition):
    """A user's own kind of an API error."""


class OwnCode(Exception):
    """An exception whose `code` has nothing to do with gRPC."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.code = 503


class OwnStatus(grpc.Status):
    """A status as an application writes it, for `abort_with_status`."""

    def __init__(self, error: grpcerrors.ContractError) -> None:
        self.code = error.code
        self.details = error.details
        self.trailing_metadata = error.trailing_metadata


def _group(*members: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", members)


def _caused_by(err: BaseException) -> Exception:
    return errors.wrapped(err, "x: model not loaded")


def _api_core_from_rpc() -> Any:
    return api_core.from_grpc_error(
        errors.sync_error(NOT_LOADED.code, NOT_LOADED.details, NOT_LOADED.trailing_metadata)
    )


def _api_core_from_rest() -> Any:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "domain": "grpcerrors",
        "reason": "MODEL_NOT_LOADED",
        "metadata": {"backend": "x", "model": "m"},
    }
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure"}
    body = {"error": {"code": 400, "message": "gone", "details": [quota, info]}}
    request = SimpleNamespace(method="POST", url="https://example.com/v1/predict")
    return api_core.from_http_response(
        SimpleNamespace(status_code=400, request=request, json=lambda: body)
    )


@pytest.mark.parametrize(
    "given",
    [
        NOT_LOADED,
        rpc_status.to_status(RICH_PROTO),
        OwnStatus(NOT_LOADED),
        RICH_PROTO,
        errors.sync_error(StatusCode.FAILED_PRECONDITION, "gone", errors.trailers(RICH)),
        errors.stream_error(StatusCode.FAILED_PRECONDITION, "gone", errors.trailers(RICH)),
        errors.aio_error(StatusCode.FAILED_PRECONDITION, "gone", errors.trailers(RICH)),
        errors.sync_error(StatusCode.UNKNOWN, "gone", errors.trailers(RICH, RICH)),
        _api_core_from_rpc(),
        _api_core_from_rest(),
        connect.error(Answer(StatusCode.FAILED_PRECONDITION, "gone", errors.trailers(RICH))),
        errors.wrapped(errors.wrapped(NOT_LOADED)),
        _group(ValueError("boom"), _group(NOT_LOADED)),
        errors.wrapped(_group(ValueError("boom"), errors.wrapped(NOT_LOADED))),
    ],
    ids=lambda given: type(given).__name__,
)
def test_details_are_read_of(given: object) -> None:
    """Whatever carries the details shows them."""
    verdict = classify(given)
    assert verdict.condition is grpcerrors.MODEL_NOT_LOADED
    assert verdict.evidence is Evidence.DETAILS
    assert (verdict.backend, verdict.model) == ("x", "m")
    assert grpcerrors.is_model_not_loaded(given)


@pytest.mark.parametrize(
    "given",
    [
        Exception("x: model not loaded"),
        Exception(7, "x: model not loaded"),
        BaseException("x: model not loaded"),
        OwnCode("x: model not loaded"),
        grpc.RpcError("x: model not loaded"),
        errors.sync_error(StatusCode.UNKNOWN, "Exception calling application: Model not loaded"),
        api_core.InternalServerError("x: model not loaded"),
        connect.error(Answer(StatusCode.INTERNAL, "x: model not loaded")),
        Subclass("x: model not loaded"),
        status_pb2.Status(code=2, message="x: model not loaded"),
        errors.wrapped(ConnectionError("reset"), "x: model not loaded"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_words_are_read_of(given: object) -> None:
    """Whatever carries the words shows them."""
    assert classify(given).condition is grpcerrors.MODEL_NOT_LOADED
    assert classify(given).evidence is Evidence.TEXT


@pytest.mark.parametrize(
    "given",
    [
        errors.sync_error(StatusCode.FAILED_PRECONDITION, ""),
        api_core.FailedPrecondition("not now"),
        Subclass("not now"),
        connect.error(Answer(StatusCode.FAILED_PRECONDITION, "not now")),
        status_pb2.Status(code=9, message="not now"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_code_is_read_of(given: object) -> None:
    """Whatever carries a bare FAILED_PRECONDITION shows it, and it proves nothing executed."""
    verdict = classify(given)
    assert verdict.condition is grpcerrors.MODEL_NOT_LOADED
    assert verdict.evidence is Evidence.CODE
    assert not verdict.unexecuted


def test_python_that_reads_what_only_loading_sets_may_have_begun() -> None:
    """Such a handler says not loaded, but not that it had not begun."""
    text = "Exception calling application: 'BackendServicer' object has no attribute 'llm'"
    verdict = classify(errors.sync_error(StatusCode.UNKNOWN, text))
    assert verdict.evidence is Evidence.TEXT
    assert not verdict.unexecuted


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        "x: model not loaded",
        b"x: model not loaded",
        {"code": StatusCode.FAILED_PRECONDITION},
        object(),
        Exception,
        Exception(),
        Exception(b"x: model not loaded"),
        OwnCode(),
        status_pb2.Status(code=12345, message="boom"),
        errors.stream_error(None, "", ()),
        errors.sync_error(StatusCode.INVALID_ARGUMENT, "x: model not loaded"),
        errors.sync_error(StatusCode.UNKNOWN, "x", (("other-bin", RICH),)),
        errors.sync_error(StatusCode.OK, ""),
        errors.wrapped(
            errors.sync_error(StatusCode.INVALID_ARGUMENT, "no voice 'model not loaded'"),
            "no voice 'model not loaded'",
        ),
    ],
    ids=lambda given: type(given).__name__,  # the same in every worker of pytest-xdist
)
def test_nothing_is_read_of(given: object) -> None:
    """What is no error, has no words, or has a user's words."""
    assert classify(given) == grpcerrors.Verdict()
    assert not grpcerrors.is_model_not_loaded(given)


def test_an_error_met_while_handling_another_is_not_that_other() -> None:
    """`__context__` is not followed."""
    err = KeyError("clean-up")
    err.__context__ = NOT_LOADED
    assert not grpcerrors.is_model_not_loaded(err)


# There is one for each condition, named alike.
PREDICATES = {each: getattr(grpcerrors, f"is_{each.reason.lower()}") for each in CATALOGUE}


@pytest.mark.parametrize(
    ("code", "text", "condition"),
    [
        (
            StatusCode.NOT_FOUND,
            'x: model identity mismatch: loaded "a", requested "b"',
            grpcerrors.MODEL_MISMATCH,
        ),
        (StatusCode.NOT_FOUND, "model identity mismatch.wav", None),
        (StatusCode.UNKNOWN, "model identity mismatch", None),
        (StatusCode.NOT_FOUND, "no face detected", None),
        (
            StatusCode.UNIMPLEMENTED,
            "Method not found!",
            grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED,
        ),
        (StatusCode.UNKNOWN, "unimplemented", grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED),
        (StatusCode.INTERNAL, "unimplemented", None),
        (
            StatusCode.UNIMPLEMENTED,
            "x: streaming transcription unsupported: offline",
            grpcerrors.STREAM_TRANSCRIPTION_UNSUPPORTED,
        ),
        (
            StatusCode.UNKNOWN,
            "x: Live transcription unsupported: offline",
            grpcerrors.LIVE_TRANSCRIPTION_UNSUPPORTED,
        ),
    ],
)
def test_the_other_conditions(
    code: StatusCode, text: str, condition: grpcerrors.Condition | None
) -> None:
    """Each by its own words and codes, and none for another."""
    err = errors.sync_error(code, text)
    assert classify(err).condition == condition
    for each, predicate in PREDICATES.items():
        assert predicate(err) is (each == condition)


@pytest.mark.parametrize("condition", tuple(CATALOGUE), ids=lambda condition: condition.reason)
def test_each_condition_has_a_predicate_and_no_other_answers_for_it(
    condition: grpcerrors.Condition,
) -> None:
    """By details, by the plain trailer alone, and by the words alone."""
    fields: dict[str, Any] = dict.fromkeys(condition.fields, "x")
    error = grpcerrors.ContractError(condition, **fields)
    details, plain = error.trailing_metadata
    codes = {condition.code} & {code for each in condition.dialects for code in each.codes}
    for given in (
        error,
        errors.sync_error(StatusCode.ABORTED, "", (details,)),
        errors.aio_error(StatusCode.ABORTED, "", (plain,)),
        *(errors.stream_error(code, error.details, ()) for code in codes),
    ):
        assert [each for each, predicate in PREDICATES.items() if predicate(given)] == [condition]
        assert matches(given, condition)
    assert codes
    predicate = PREDICATES[condition]
    assert predicate.__name__ == f"is_{condition.reason.lower()}"
    assert condition.reason in str(predicate.__doc__)


@pytest.mark.parametrize(
    "text",
    [
        "Exception calling application: tiny: model not loaded",
        "Exception iterating responses: tiny: model not loaded",
        "Unexpected <class 'grpcerrors._error.ContractError'>: tiny: model not loaded",
        "tiny: model not loaded",
    ],
)
def test_the_backend_is_named_without_what_grpcio_writes_before_it(text: str) -> None:
    assert classify(errors.sync_error(StatusCode.UNKNOWN, text)).backend == "tiny"


def test_two_reasons_at_once_contradict_each_other() -> None:
    """They count as foreign: they decide nothing, and they rule the bare code out."""
    both = errors.status(
        StatusCode.FAILED_PRECONDITION,
        "",
        ("grpcerrors", "MODEL_NOT_LOADED"),
        ("grpcerrors", "MODEL_MISMATCH"),
    )
    metadata = errors.trailers(both)
    err = errors.sync_error(StatusCode.FAILED_PRECONDITION, "", metadata)
    assert classify(err) == grpcerrors.Verdict()
    err = errors.sync_error(StatusCode.FAILED_PRECONDITION, "model not loaded", metadata)
    assert classify(err).evidence is Evidence.TEXT


def test_ours_counts_among_foreign_details() -> None:
    """A proxy may have added its own."""
    value = errors.status(
        StatusCode.UNKNOWN, "", ("example.com", "QUOTA"), ("grpcerrors", "MODEL_NOT_LOADED")
    )
    err = errors.sync_error(StatusCode.UNKNOWN, "", errors.trailers(value))
    assert classify(err).evidence is Evidence.DETAILS


def test_a_group_says_all_that_its_members_say() -> None:
    """On the strongest rung: predicates find each, classify names the first."""
    mismatch = grpcerrors.model_mismatch("x", loaded="a", requested="b")
    group = _group(mismatch, NOT_LOADED, ValueError("unimplemented"))
    assert classify(group).condition is grpcerrors.MODEL_MISMATCH
    assert grpcerrors.is_model_not_loaded(group)
    assert grpcerrors.is_model_mismatch(group)
    assert not grpcerrors.is_live_transcription_unsupported(group)


def test_what_wraps_counts_before_what_is_wrapped() -> None:
    """Outermost first, and what an error wraps before the next of a group."""
    mismatch = grpcerrors.model_mismatch("x", loaded="a", requested="b")
    assert classify(_group(errors.wrapped(NOT_LOADED), mismatch)).condition == (
        grpcerrors.MODEL_NOT_LOADED
    )


def test_base_groups_are_read() -> None:
    """As a task group raises them when it is cancelled."""
    assert grpcerrors.is_model_not_loaded(
        BaseExceptionGroup("stop", [KeyboardInterrupt(), NOT_LOADED])
    )


@pytest.mark.parametrize("link", [errors.wrapped, _group, _caused_by])
def test_deep_chains(link: Callable[[Any], Exception]) -> None:
    """A thousand links deep, whatever links them."""
    err: Exception = grpcerrors.model_not_loaded("x")
    for _ in range(1000):
        err = link(err)
    assert classify(err).evidence is Evidence.DETAILS


def test_cycles() -> None:
    """Each error is visited once."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert classify(first) == grpcerrors.Verdict()
    own = grpcerrors.model_not_loaded("x")
    own.__cause__ = own
    assert grpcerrors.is_model_not_loaded(own)


def _held(code: StatusCode, text: str, metadata: Any = ()) -> grpc.RpcError:
    trailers = (*metadata, ("grpcerrors-held", "tiny.en"))
    return errors.sync_error(code, text, trailers)


@pytest.mark.parametrize(
    "err",
    [
        _held(StatusCode.FAILED_PRECONDITION, "no"),
        _held(StatusCode.UNKNOWN, "x: model not loaded"),
        errors.wrapped(_held(StatusCode.UNKNOWN, "x: model not loaded"), "x: model not loaded"),
    ],
    ids=["code", "words", "wrapped"],
)
def test_a_guard_that_held_the_model_vetoes_words_and_code(err: BaseException) -> None:
    """The failure is not staleness, whatever it says."""
    assert classify(err) == Verdict()
    assert held_model(err) == "tiny.en"
    assert "held" in explain(err)


def test_typed_evidence_counts_although_a_guard_held_the_model() -> None:
    """A handler may say of another model that it is not loaded."""
    err = _held(StatusCode.UNKNOWN, "", model_not_loaded("x").trailing_metadata)
    assert classify(err).evidence is Evidence.DETAILS
    assert held_model(err) == "tiny.en"


def test_the_plain_trailer_is_weaker_than_details_in_another_error() -> None:
    """Whichever is the outer one."""
    plain = errors.sync_error(StatusCode.ABORTED, "", model_not_loaded("x").trailing_metadata[1:])
    mismatch = grpcerrors.model_mismatch("x", loaded="a", requested="b")
    for both in (_group(plain, mismatch), _group(mismatch, plain)):
        assert classify(both).condition is grpcerrors.MODEL_MISMATCH
        assert not grpcerrors.is_model_not_loaded(both)


@pytest.mark.parametrize("err", [None, 7, ValueError(), errors.sync_error(StatusCode.UNKNOWN, "")])
def test_nobody_says_that_a_model_was_held(err: object) -> None:
    assert held_model(err) is None
