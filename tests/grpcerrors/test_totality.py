"""Detection takes any object, never raises, never blocks, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import grpc
import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

import grpcerrors
from grpcerrors import _patience
from tests.grpcerrors.support import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("code", "details", "trailing_metadata", "grpc_status_code", "message", "response")
_ENOUGH = 30.0


class HostileText(str):
    """A string that minds being looked at."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError

    def lower(self) -> str:
        """Do not."""
        raise RuntimeError

    __hash__ = str.__hash__

    def __eq__(self, _: object) -> bool:
        raise RuntimeError


def _raises(err: BaseException) -> Any:
    def accessor(*_: object) -> Any:
        raise err

    return accessor


async def _coroutine(*_: object) -> StatusCode:
    return StatusCode.FAILED_PRECONDITION


def _forever(*_: object) -> Any:
    while True:
        yield ("key", b"value")


VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.text(),
    st.binary(),
    st.sampled_from(
        [
            *StatusCode,
            b"\xff" * 2**20,
            "model not loaded " * 2**16,
            HostileText("model not loaded"),
            ((("grpc-status-details-bin", b"\xff" * 2**20)),),
            (("grpc-status-details-bin", None),),
            (("grpc-status-details-bin",),),
            ((1, 2, 3),),
            [object()],
            {"grpc-status-details-bin": b"\xff"},
            object(),
            mock.MagicMock(),
        ]
    ),
)
ACCESSORS = st.one_of(
    VALUES,
    VALUES.map(lambda value: lambda *_: value),
    st.sampled_from(
        [
            _raises(RuntimeError()),
            _raises(KeyboardInterrupt()),
            _raises(SystemExit()),
            _coroutine,
            _forever,
            property(_raises(AttributeError())),
            property(_raises(ValueError())),
        ]
    ),
)


@st.composite
def hostile(draw: st.DrawFn) -> object:
    """Draw an instance of a class with accessors of any kind, on the class or the instance."""
    base = draw(st.sampled_from([object, Exception, grpc.RpcError, grpc.Call, SimpleNamespace]))
    members: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from([*NAMES, "__str__", "__getattr__", "args", "__cause__", "exceptions"]),
            ACCESSORS,
            max_size=4,
        )
    )
    cls = type("Hostile", (base,), members)
    cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    node = cls()
    for name, value in draw(st.dictionaries(st.sampled_from(NAMES), ACCESSORS, max_size=3)).items():
        try:
            setattr(node, name, value)
        except Exception:  # noqa: BLE001 - some of them cannot be set
            continue
    return node


@st.composite
def tangled(draw: st.DrawFn) -> object:
    """Draw a hostile object, perhaps wrapped, perhaps in a circle."""
    node = draw(hostile())
    if not isinstance(node, Exception):
        return node
    for _ in range(draw(st.integers(0, 3))):
        node = errors.wrapped(node, draw(st.text()))
    if draw(st.booleans()):
        innermost = BaseException.__dict__["__cause__"].__get__(node) or node
        BaseException.__dict__["__cause__"].__set__(innermost, node)
    return node


@given(tangled())
def test_any_object_is_judged(node: object) -> None:
    """A verdict, an explanation, and no warning of a coroutine that nobody awaited."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verdict = grpcerrors.classify(node)
        assert isinstance(verdict, grpcerrors.Verdict)
        assert isinstance(grpcerrors.is_model_not_loaded(node), bool)
        assert grpcerrors.explain(node)
        assert isinstance(verdict.backend + verdict.model, str)
        assert isinstance(verdict.started, bool)
    assert not caught


def test_no_coroutine_is_left_unawaited() -> None:
    """A live aio call answers with coroutines; they are closed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fake = SimpleNamespace(code=_coroutine, details=_coroutine, trailing_metadata=_coroutine)
        assert grpcerrors.classify(fake) == grpcerrors.Verdict()
        assert not grpcerrors.is_model_not_loaded(mock.AsyncMock(spec=["code", "details"]))
        gc.collect()
    assert not caught


def test_a_live_stream_is_not_waited_for() -> None:
    """A sync stream call is an exception whose `code()` waits for its end."""
    live = errors.stream_error(None, "", ())
    assert grpcerrors.classify(live) == grpcerrors.Verdict()
    assert grpcerrors.classify(errors.wrapped(live)) == grpcerrors.Verdict()


def test_a_stream_call_of_another_make_is_read_apart() -> None:
    """Where grpcio keeps its state elsewhere, its accessors are called with a bound on the time."""
    call = errors.stream_error(StatusCode.FAILED_PRECONDITION, "gone", ())
    state = call.__dict__.pop("_state")
    assert grpcerrors.classify(call) == grpcerrors.Verdict()
    call._state = state


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """A gate that blocks whoever waits at it until the test has ended."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == _patience.THREAD_NAME:
            thread.join(_ENOUGH)


class Blocking(grpc.RpcError):
    """An error whose accessors block."""

    def __init__(self, gate: threading.Event, *args: object) -> None:
        super().__init__(*args)
        self._gate = gate

    def code(self) -> StatusCode:
        """Block."""
        self._gate.wait(_ENOUGH)
        return StatusCode.FAILED_PRECONDITION


def test_blocking_accessors_are_not_waited_for(gate: threading.Event) -> None:
    """What is known without them counts: the arguments, and what the error wraps."""
    begun = time.monotonic()
    assert not grpcerrors.is_model_not_loaded(Blocking(gate))
    assert grpcerrors.is_model_not_loaded(Blocking(gate, "x: model not loaded"))
    err = Blocking(gate)
    err.__cause__ = grpcerrors.model_not_loaded("x")
    assert grpcerrors.is_model_not_loaded(err)
    assert time.monotonic() - begun < _ENOUGH


def test_many_blocking_accessors_share_one_patience(gate: threading.Event) -> None:
    """A chain of them costs no more than one, and threads left behind are few."""
    err: Exception = Blocking(gate)
    for _ in range(50):
        outer = Blocking(gate)
        outer.__cause__ = err
        err = outer
    begun = time.monotonic()
    for _ in range(20):
        assert not grpcerrors.is_model_not_loaded(err)
    assert time.monotonic() - begun < _ENOUGH
    stuck = [each for each in threading.enumerate() if each.name == _patience.THREAD_NAME]
    assert len(stuck) <= _patience.STUCK_LIMIT


def test_fakes_are_read() -> None:
    """A test's own kinds of errors, mocks among them, are as good as gRPC's."""

    class Fake(grpc.RpcError):
        def code(self) -> StatusCode:
            return StatusCode.INTERNAL

        def details(self) -> str:
            return "x: model not loaded"

    class Spoken(Exception):
        def __str__(self) -> str:
            return "x: model not loaded"

    mocked = mock.Mock(spec=["code", "details"])
    mocked.code.return_value = StatusCode.UNKNOWN
    mocked.details.return_value = "x: model not loaded"
    hung = errors.aio_error(StatusCode.UNKNOWN, "")
    hung.details = lambda: "x: model not loaded"
    rich = grpcerrors.model_not_loaded("x")
    as_dict = SimpleNamespace(
        code=StatusCode.UNKNOWN, trailing_metadata=dict(rich.trailing_metadata)
    )
    in_bytes = SimpleNamespace(code=StatusCode.UNKNOWN, details=b"x: model not loaded")
    for each in (Fake(), Spoken(), mocked, hung, as_dict, in_bytes):
        assert grpcerrors.is_model_not_loaded(each), each


def test_overridden_attributes_of_our_own_error_are_read_apart(gate: threading.Event) -> None:
    """Somebody may have hung a method on it."""
    error = grpcerrors.model_not_loaded("x")
    error.code = lambda: gate.wait(_ENOUGH)
    assert grpcerrors.is_model_not_loaded(error), "its arguments still say so"


class Chatty(type):
    """A metaclass that minds being asked."""

    __module__ = property(_raises(RuntimeError()))


def test_a_hostile_class_says_nothing() -> None:
    """Its instances cannot be read, and that is all."""
    assert grpcerrors.classify(Chatty("Odd", (Exception,), {})()) == grpcerrors.Verdict()
