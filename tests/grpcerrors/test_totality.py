"""Detection takes any object, never raises, never blocks, and leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import grpc
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from hypothesis import assume, given
from hypothesis import strategies as st

import grpcerrors
from grpcerrors import _read
from grpcerrors.testing import FakeRpcError
from tests.grpcerrors.support import errors

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("code", "details", "trailing_metadata", "grpc_status_code", "message", "response")
_ENOUGH = 30.0


def _raises(err: BaseException) -> Any:
    def accessor(*_: object) -> Any:
        raise err

    return accessor


class HostileText(str):
    """A string that minds being looked at."""

    __slots__ = ()
    __getitem__ = lower = __hash__ = __len__ = __eq__ = _raises(RuntimeError())
    __bool__ = __str__ = __iter__ = encode = _raises(RuntimeError())


class HostileBytes(bytes):
    """The same in bytes."""

    __slots__ = ()
    __getitem__ = decode = __hash__ = __len__ = __eq__ = _raises(RuntimeError())


class Hostile:
    """An object that minds being asked for its class, or whether it is true."""

    __class__ = property(_raises(RuntimeError()))
    __bool__ = __iter__ = __eq__ = _raises(RuntimeError())
    __hash__ = _raises(RuntimeError())


async def _coroutine(*_: object) -> StatusCode:
    return StatusCode.FAILED_PRECONDITION


def _forever(*_: object) -> Any:
    while True:
        yield ("key", b"value")


class Made(NamedTuple):
    """What makes a value when it is needed: Hypothesis looks at what it draws."""

    make: Callable[[], Any]


def _made(value: Any) -> Any:
    return value.make() if type(value) is Made else value


HOSTILE = [
    Hostile,
    lambda: HostileText("model not loaded"),
    lambda: HostileBytes(b"model not loaded"),
    lambda: ((HostileText("grpc-status-details-bin"), b"\xff"),),
    lambda: (("grpc-status-details-bin", HostileBytes(b"\xff")),),
    lambda: (("grpc-status-details-bin", Hostile()),),
    lambda: (("grpcerrors-held", HostileText("m")),),
]
VALUES = st.one_of(
    st.sampled_from(HOSTILE).map(Made),
    st.none(),
    st.integers(),
    st.text(),
    st.binary(),
    st.sampled_from(
        [
            *StatusCode,
            b"\xff" * 2**20,
            "model not loaded " * 2**16,
            ["x"],
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
    VALUES.map(lambda value: lambda *_: _made(value)),
    st.sampled_from(
        [
            _raises(RuntimeError()),
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
    drawn: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from([*NAMES, "__str__", "__getattr__", "args", "__cause__", "exceptions"]),
            ACCESSORS,
            max_size=4,
        )
    )
    members = {name: _made(value) for name, value in drawn.items()}
    # What such a class returns cannot be told from a coroutine that somebody keeps in an attribute.
    assume(members.get("__getattr__") is not _coroutine)
    cls = type("Hostile", (base,), members)
    cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    node = cls()
    for name, value in draw(st.dictionaries(st.sampled_from(NAMES), ACCESSORS, max_size=3)).items():
        try:
            setattr(node, name, _made(value))
        except Exception:  # noqa: BLE001 - some of them cannot be set
            continue
    return node


@st.composite
def trusted(draw: st.DrawFn) -> object:
    """Draw an error of a class whose accessors are called, which says anything."""
    code, details, trailers = (_made(draw(ACCESSORS)) for _ in range(3))
    kind = draw(st.sampled_from(["aio", "fake", "unary", "stream", "call"]))
    if kind == "aio":
        return AioRpcError(code, Metadata(), trailers, details)
    if kind == "fake":
        err = FakeRpcError(code, details)
        err._trailing_metadata = trailers
        return err
    if kind == "call":
        accessors = {"code": code, "details": details, "trailing_metadata": trailers}
        cls = type("Hung", (grpc.RpcError, grpc.Call), accessors)
        cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
        return cls()
    make = errors.sync_error if kind == "unary" else errors.stream_error
    return make(code, details, trailers)


@st.composite
def tangled(draw: st.DrawFn) -> object:
    """Draw a hostile object, perhaps wrapped, perhaps in a circle."""
    node = draw(st.one_of(hostile(), trusted()))
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


def test_a_stream_call_that_keeps_its_state_elsewhere_says_nothing() -> None:
    """Rather than calling accessors that may wait."""
    call = errors.stream_error(StatusCode.FAILED_PRECONDITION, "gone", ())
    state = call.__dict__.pop("_state")
    assert grpcerrors.classify(call) == grpcerrors.Verdict()
    call._state = state


async def test_a_live_aio_call_is_not_waited_for() -> None:
    """It is no error yet, and its accessors are coroutines."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        call = channel.unary_unary("/x/y")(b"", timeout=_ENOUGH, wait_for_ready=True)
        stream = channel.stream_stream("/x/y")(timeout=_ENOUGH, wait_for_ready=True)
        for each in (call, stream):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert grpcerrors.classify(each) == grpcerrors.Verdict()
                gc.collect()
            assert not caught
            each.cancel()


def test_methods_of_unknown_classes_are_not_called() -> None:
    """They may block or do anything; what stands in attributes is read."""

    class Unknown(Exception):
        def __init__(self) -> None:
            self.message = "x: model not loaded"

        def code(self) -> StatusCode:
            called.append(self)
            raise AssertionError

        details = trailing_metadata = grpc_status_code = code

    called: list[Unknown] = []
    assert grpcerrors.is_model_not_loaded(Unknown())
    assert not called


def test_detection_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is given."""
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    for err in (Exception(), errors.stream_error(None, ""), SimpleNamespace(code=_coroutine)):
        grpcerrors.classify(err)
    assert not started


def test_an_interrupt_is_not_swallowed() -> None:
    """It is the program's, not the error's."""

    class Interrupted(grpc.RpcError):
        code = _raises(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        grpcerrors.classify(Interrupted())


@pytest.mark.parametrize("code", [StatusCode.UNKNOWN, StatusCode.NOT_FOUND])
@pytest.mark.parametrize("kind", [str, bytes])
def test_of_a_long_text_what_fits_is_judged(code: StatusCode, kind: type) -> None:
    """No more than a transport can carry: a megabyte would stop the event loop for seconds."""
    text = "model load " * 2**17
    err = errors.aio_error(code, text if kind is str else text.encode())  # type: ignore[arg-type]
    [(_, read, *_)] = _read.survey(err)
    assert read == text[:16_384]
    assert grpcerrors.classify(err) == grpcerrors.Verdict()


def test_a_thousand_long_errors_cost_no_more_than_one() -> None:
    """Their texts together have the length of one."""
    err: BaseException = ValueError("innermost")
    for number in range(1000):
        err = errors.wrapped(err, f"{number} " + "model load " * 1500)
    assert sum(len(text) for _, text, *_ in _read.survey(err)) == 16_384
    assert grpcerrors.classify(err) == grpcerrors.Verdict()


def test_fakes_are_read() -> None:
    """A test's own kinds of errors are as good as gRPC's."""

    class Fake(grpc.RpcError):
        def code(self) -> StatusCode:
            return StatusCode.INTERNAL

        def details(self) -> str:
            return "x: model not loaded"

    class Spoken(Exception):
        def __str__(self) -> str:
            return "x: model not loaded"

    hung = errors.aio_error(StatusCode.UNKNOWN, "")
    hung.details = lambda: "x: model not loaded"
    rich = grpcerrors.model_not_loaded("x")
    as_dict = SimpleNamespace(
        code=StatusCode.UNKNOWN, trailing_metadata=dict(rich.trailing_metadata)
    )
    in_bytes = SimpleNamespace(code=StatusCode.UNKNOWN, details=b"x: model not loaded")
    for each in (Fake(), Spoken(), hung, as_dict, in_bytes):
        assert grpcerrors.is_model_not_loaded(each), each


class Chatty(type):
    """A metaclass that minds being asked."""

    __module__ = property(_raises(RuntimeError()))


def test_a_hostile_class_says_nothing() -> None:
    """Its instances cannot be read, and that is all."""
    assert grpcerrors.classify(Chatty("Odd", (Exception,), {})()) == grpcerrors.Verdict()
