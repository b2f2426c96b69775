"""What is read of an error of each kind, exactly, and by which way."""

from __future__ import annotations

import gc
import sys
import warnings
from enum import Enum
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc._interceptor import _UnaryOutcome

import grpcerrors
from grpcerrors import _read, _wire
from grpcerrors._read import survey
from grpcerrors._wire import ErrorInfo
from tests.grpcerrors.support import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors._read import Facts

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

INTERNAL = StatusCode.INTERNAL
TRAILERS = grpcerrors.model_not_loaded("x").trailing_metadata
DETAILS = errors.details_of(grpcerrors.model_not_loaded("x"))
([INFO, PLAIN], _) = _read._trailers(TRAILERS)
LIMIT = 16_384
NOTHING: Facts = (None, "", (), (), None)


class Fake(grpc.RpcError):
    """An error of a make of its own."""

    def code(self) -> StatusCode:
        return INTERNAL


class Slotted:
    """What has no `__dict__`, and none of an error's accessors."""

    __slots__ = ("other",)


@pytest.fixture(autouse=True)
def _fresh_readers() -> None:
    """Let each test choose the readers anew: a class that was seen before is looked up."""
    _read._reader.cache_clear()


def _with_cause(err: Any, cause: BaseException) -> Any:
    err.__cause__ = cause
    return err


@pytest.mark.parametrize(
    "make",
    [errors.sync_error, errors.aio_error, errors.stream_error],
    ids=lambda make: make.__name__,
)
def test_errors_of_grpc_are_read_the_short_way(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by shape, which takes several times as long."""
    monkeypatch.setattr(_read, "_read_shape", None)
    cause = ValueError("reset")
    assert survey(make(INTERNAL, "boom")) == [(INTERNAL, "boom", (), (), None)]
    assert survey(_with_cause(make(INTERNAL, "boom"), cause)) == [
        (INTERNAL, "boom", (), (cause,), None),
        (None, "reset", (), (), None),
    ]
    rich = grpcerrors.model_not_loaded("x")
    [(_, _, infos, *_)] = survey(make(INTERNAL, "boom", rich.trailing_metadata))
    assert [each[:2] for each in infos] == [("grpcerrors", "MODEL_NOT_LOADED")] * 2
    assert [each.plain for each in infos] == [False, True]


def test_an_error_without_details_has_no_text() -> None:
    """A client that is closed half-way gives None."""
    err = errors.sync_error(INTERNAL, "")
    err._state.details = None
    assert survey(err) == [(INTERNAL, "", (), (), None)]


def test_the_outcome_of_an_interceptor_is_read() -> None:
    """It is a call, but no exception."""
    call = mock.Mock(spec=grpc.Call)
    call.code.return_value, call.details.return_value = StatusCode.OK, "fine"
    call.trailing_metadata.return_value = None
    outcome = _UnaryOutcome("response", call)
    assert survey(outcome) == [(StatusCode.OK, "fine", (), (), None)]


def test_a_status_message_is_read() -> None:
    """By its descriptor, whichever protobuf made its class."""
    assert survey(status_pb2.Status(code=13, message="boom")) == [(INTERNAL, "boom", (), (), None)]


@pytest.mark.parametrize("given", [None, 7, "boom", object(), Slotted(), ValueError, len])
def test_what_is_no_error_says_nothing(given: object) -> None:
    assert survey(given) == [NOTHING]


def test_each_error_is_read_once() -> None:
    """In circles, and where several wrap the same."""
    shared = ValueError("shared")
    group = ExceptionGroup("several", [shared, shared, errors.wrapped(shared)])
    assert [text for _, text, *_ in survey(group)] == ["several", "shared", "the request failed"]
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert [text for _, text, *_ in survey(first)] == ["first", "second"]


def test_the_cause_of_a_group_comes_before_its_members() -> None:
    """As with any other error: what it was raised from is nearer than what it holds."""
    member, cause = ValueError("member"), ValueError("cause")
    group = _with_cause(ExceptionGroup("several", [member]), cause)
    assert survey(group)[0] == (None, "several", (), (cause, member), None)
    assert [text for _, text, *_ in survey(group)] == ["several", "cause", "member"]


def test_ten_thousand_errors_are_enough() -> None:
    """More than that are left unread, so that the time is bounded."""
    numbered = tuple(KeyError(number) for number in range(10_050))
    numbered[9_998].__cause__ = ValueError("the last one")
    found = survey(ExceptionGroup("several", numbered))
    assert len(found) == 10_000
    assert found[-1][3] == (numbered[9_998].__cause__,)


def test_the_texts_of_all_errors_are_bounded_together() -> None:
    """What exceeds the budget is cut; code and details are read all the same."""
    texts = ["a" * LIMIT, "b" * 7]
    typed = grpcerrors.model_not_loaded("x")
    found = survey(ExceptionGroup("several", [*map(ValueError, texts), typed]))
    assert [len(text) for _, text, *_ in found] == [7, LIMIT - 7, 0, 0]
    assert found[-1][2] == (INFO, PLAIN)


def test_all_that_an_error_of_another_make_wraps_is_read() -> None:
    """Its cause, the response that google-api-core keeps, and the members of a group."""
    cause, response, member = ValueError("cause"), ValueError("response"), ValueError("member")
    err = _with_cause(Fake("boom"), cause)
    err.response = response
    err.exceptions = (member,)
    assert survey(err)[0] == (INTERNAL, "", (), (cause, response, member), None)
    err.response, err.exceptions = "none", [member]
    assert survey(err)[0] == (INTERNAL, "", (), (cause,), None)


class Code(Enum):
    """Codes of another library."""

    CANCELED = 1
    NOT_FOUND = 5
    TEAPOT = 418


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (StatusCode.NOT_FOUND, StatusCode.NOT_FOUND),
        (Code.NOT_FOUND, StatusCode.NOT_FOUND),
        (Code.CANCELED, StatusCode.CANCELLED),
        (Code.TEAPOT, None),
        (SimpleNamespace(name=["NOT_FOUND"]), None),
        (5, None),
        (None, None),
    ],
)
def test_a_code_is_known_by_its_name(given: object, code: StatusCode | None) -> None:
    assert _read._status_code(given) is code


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("boom", "boom"),
        (b"boom", "boom"),
        (b"\xffboom", "\ufffdboom"),
        ("x" * (LIMIT + 1), "x" * LIMIT),
        (b"x" * (LIMIT + 1), "x" * LIMIT),
        (7, ""),
        (None, ""),
    ],
    ids=["str", "bytes", "no UTF-8", "long str", "long bytes", "int", "None"],
)
def test_a_text_is_cut(given: object, text: str) -> None:
    assert _read._text(given) == text


@pytest.mark.parametrize(
    "value",
    [None, "text", 7, [], bytearray(DETAILS)],
    ids=lambda value: type(value).__name__,
)
def test_a_trailer_that_is_no_bytes_spoils_nothing(value: Any) -> None:
    """The code and the text next to it are read."""
    metadata = ((errors.DETAILS_KEY, value),)
    assert _read._trailers(metadata) == ((), None)
    [facts] = survey(
        SimpleNamespace(code=StatusCode.OK, details="boom", trailing_metadata=metadata)
    )
    assert facts == (StatusCode.OK, "boom", (), (), None)


def test_a_thousand_pairs_of_metadata_are_enough() -> None:
    """More than that never came over a wire."""
    filler = (("key", b"value"),)
    assert _read._trailers(filler * 998 + TRAILERS) == ((INFO, PLAIN), None)
    assert _read._trailers(filler * 999 + TRAILERS) == ((INFO,), None)
    assert _read._trailers(filler * 1000 + TRAILERS) == ((), None)


def test_a_thousand_details_are_enough() -> None:
    """As with metadata."""
    [detail] = errors.packed([("d", "R")])
    assert len(_wire.decode_details([detail] * 1001)) == 1000


TYPE = "type.googleapis.com/google.rpc.ErrorInfo"


class Detail:
    """A detail as connectrpc has it."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name
        self.message_bytes = error_details_pb2.ErrorInfo(domain="d", reason="R").SerializeToString()

    def value(self) -> None:
        """Decode it: nothing that a reader may call."""
        raise AssertionError


@pytest.mark.parametrize(
    ("details", "infos"),
    [
        ([error_details_pb2.ErrorInfo(domain="d", reason="R")], (ErrorInfo("d", "R", {}),)),
        (
            [{"@type": TYPE, "domain": "d", "reason": "R", "metadata": {"k": "v"}, "more": 1}],
            (ErrorInfo("d", "R", {"k": "v"}),),
        ),
        ([{"@type": TYPE, "reason": "R"}], (ErrorInfo("", "R", {}),)),
        ([{"@type": "type.googleapis.com/google.rpc.Help", "domain": "d", "reason": "R"}], ()),
        ([{"@type": TYPE, "domain": 7, "reason": "R"}], ()),
        ([Detail("google.rpc.ErrorInfo")], (ErrorInfo("d", "R", {}),)),
        ([Detail("example.com/google.rpc.ErrorInfo")], (ErrorInfo("d", "R", {}),)),
        ([Detail("google.rpc.Help")], ()),
        ([SimpleNamespace(_name="google.rpc.ErrorInfo")], (ErrorInfo("grpcerrors", "", {}),)),
        ([SimpleNamespace(_name="google.rpc.Help")], ()),
        ([{"domain": "d", "reason": "R"}], ()),
        (
            [error_details_pb2.RetryInfo(), None, 7, *errors.packed([("d", "R")])],
            (ErrorInfo("d", "R", {}, 0.0),),
        ),
        (
            [{"@type": TYPE}, {"@type": "x/google.rpc.RetryInfo", "retryDelay": "1.5s"}],
            (ErrorInfo("", "", {}, 1.5),),
        ),
        ([{"@type": TYPE}, {"@type": "google.rpc.RetryInfo"}], (ErrorInfo("", "", {}, 0.0),)),
        (
            [{"@type": TYPE}, {"@type": "google.rpc.RetryInfo", "retryDelay": "-1s"}],
            (ErrorInfo("", "", {}),),
        ),
        (
            [{"@type": TYPE}, {"@type": "google.rpc.RetryInfo", "retryDelay": 7}],
            (ErrorInfo("", "", {}),),
        ),
        (
            [{"@type": TYPE}, SimpleNamespace(_name="google.rpc.RetryInfo")],
            (ErrorInfo("", "", {}),),
        ),
        (None, ()),
        (7, ()),
        ("boom", ()),
        (b"boom", ()),
    ],
)
def test_details_are_read_packed_or_not(details: Any, infos: tuple[ErrorInfo, ...]) -> None:
    """As google-api-core, connectrpc and grpclib have them; what is none is left out."""
    assert _wire.decode_details(details) == infos


class Words(str):
    """A string that is more than a string."""

    __slots__ = ()


def test_a_subclass_of_a_string_is_read_as_a_string() -> None:
    """Nothing of what it overrides is called later on."""
    for err in (ValueError(Words("boom")), errors.aio_error(INTERNAL, Words("boom"))):
        [(_, text, *_)] = survey(err)
        assert type(text) is str
        assert text == "boom"


@pytest.mark.parametrize("name", ["grpc_status_code", "code", "status"])
def test_an_error_names_its_code_in_one_of_these(name: str) -> None:
    """As google-api-core, Connect and grpclib do; a name that holds something else is passed."""
    given = SimpleNamespace(**{"code": 400, "status": "failed", "message": "boom", name: INTERNAL})
    assert survey(given) == [(INTERNAL, "boom", (), (), None)]


def test_a_coroutine_of_an_accessor_is_closed() -> None:
    """Somebody has written an error as if it were a live aio call."""

    class Live(grpc.RpcError):
        async def code(self) -> StatusCode:
            return INTERNAL

        details = trailing_metadata = code

    class Half(Live):
        code = Fake.code

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert survey(Live("boom")) == [(None, "boom", (), (), None)]
        assert survey(Half("boom")) == [(INTERNAL, "", (), (), None)]
        gc.collect()
    assert not caught


def test_the_version_is_that_of_the_distribution() -> None:
    assert grpcerrors.__version__ == version("grpcerrors")
