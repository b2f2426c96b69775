"""What is read of an error of each kind, exactly, and by which way."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import grpc
import pytest
from google.rpc import status_pb2
from grpc import StatusCode
from grpc._interceptor import _UnaryOutcome

import grpcerrors
from grpcerrors import _facts, _patience
from grpcerrors._facts import survey
from tests.grpcerrors.support import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grpcerrors._facts import Facts

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

INTERNAL = StatusCode.INTERNAL
NOTHING: Facts = (None, "", (), (), None)
NUMBERED = tuple(ValueError(str(number)) for number in range(10_050))


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
    _facts._reader.cache_clear()


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that nobody sets before the test has ended; waiting for it is given up at once."""
    event = threading.Event()
    monkeypatch.setattr(_patience, "_BUDGET_SECONDS", 0.01)
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == _patience.THREAD_NAME:
            thread.join(30)


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
    """Not by shape, which takes several times as long, and not in a thread."""
    monkeypatch.setattr(_facts, "_read_shape", None)
    monkeypatch.setattr(_facts, "_read_apart", None)
    cause = ValueError("reset")
    assert survey(make(INTERNAL, "boom")) == [(INTERNAL, "boom", (), (), None)]
    assert survey(_with_cause(make(INTERNAL, "boom"), cause)) == [
        (INTERNAL, "boom", (), (cause,), None),
        (None, "reset", (), (), None),
    ]
    rich = grpcerrors.model_not_loaded("x")
    [(_, _, [info], *_)] = survey(make(INTERNAL, "boom", rich.trailing_metadata))
    assert (info.domain, info.reason) == ("grpcerrors", "MODEL_NOT_LOADED")


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
def test_what_is_no_error_costs_no_thread(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to wait for."""
    monkeypatch.setattr(_facts, "Patience", None)
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
    found = survey(ExceptionGroup("several", NUMBERED))
    assert len(found) == 10_000
    assert found[-1][1] == "9998"


def test_all_that_an_error_of_another_make_wraps_is_read() -> None:
    """Its cause, the response that google-api-core keeps, and the members of a group."""
    cause, response, member = ValueError("cause"), ValueError("response"), ValueError("member")
    err = _with_cause(Fake("boom"), cause)
    err.response = response
    err.exceptions = (member,)
    assert survey(err)[0] == (INTERNAL, "", (), (cause, response, member), None)
    err.response, err.exceptions = "none", [member]
    assert survey(err)[0] == (INTERNAL, "", (), (cause,), None)


@pytest.mark.parametrize(
    "make",
    [
        lambda wait: grpcerrors.model_not_loaded("x"),
        lambda wait: ValueError("boom"),
        lambda wait: ExceptionGroup("several", [ValueError("boom")]),
        lambda wait: Fake(),
        lambda wait: SimpleNamespace(),
    ],
    ids=["attributes", "exception", "group", "class", "object"],
)
def test_a_hung_accessor_is_called_apart(make: Callable[[Any], Any]) -> None:
    """In a thread that is known by its name, and that no program waits for when it ends."""
    called: list[tuple[str, bool]] = []

    def code() -> StatusCode:
        thread = threading.current_thread()
        called.append((thread.name, thread.daemon))
        return INTERNAL

    err = make(None)
    err.code = code
    assert survey(err)[0][0] is INTERNAL
    assert called == [(_patience.THREAD_NAME, True)]


def test_one_patience_for_all_that_an_error_wraps(stuck: threading.Event) -> None:
    """The first has its own; of all the others, one is waited for in vain, and no more."""

    def blocking() -> Exception:
        err = Fake("boom")
        err.code = stuck.wait  # type: ignore[method-assign]
        return err

    found = survey(ExceptionGroup("several", [blocking() for _ in range(5)]))
    assert [text for _, text, *_ in found] == ["several"] + ["boom"] * 5
    assert len([each for each in threading.enumerate() if each.name == _patience.THREAD_NAME]) == 1


def test_patience_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a moment after it."""
    clock = mock.Mock()
    monkeypatch.setattr(_patience, "time", clock)
    patience = _patience.Patience()
    clock.monotonic.return_value = 100.0
    assert patience.run(lambda: "in time") == "in time"
    clock.monotonic.return_value += _patience._BUDGET_SECONDS
    assert patience.run(lambda: "too late") is None
