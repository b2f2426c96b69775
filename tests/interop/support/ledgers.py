"""Which calls have been executed, how often, and with which messages."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.wrappers_pb2 import StringValue

import grpcerrors
import grpcerrors.aio
from tests.interop.support import errors, vectors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractContextManager

ATTEMPT = "x-envoy-attempt-count"
STARTED = "build/not loaded, handler had begun"
REFUSAL = "refuse/not loaded"  # which is what a guard of that name answers
_GUARD: str = vectors.BUILD["not loaded"]["fields"]["backend"]
_GUARDED = grpcerrors.Protocol("interop.Errors")
CALL = "x-call"
_LENGTH = 3  # messages of a long stream


class Run(NamedTuple):
    """One execution of a call: which attempt of Envoy it was, and the messages it received."""

    attempt: int
    messages: list[str]


class Ledger:
    """The executions of all calls, by name, and handlers that write them down and echo."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self._begun: dict[str, threading.Event] = defaultdict(threading.Event)
        self._numbers = itertools.count()

    def new_call(self) -> str:
        """Return the name of a call that there has not been."""
        return f"call {next(self._numbers)}"

    def begun(self, call: str) -> threading.Event:
        """Return what is set once a handler has received a message of a call, or the call ended."""
        return self._begun[call]

    def _note(self, context: Any) -> tuple[Run, threading.Event]:
        metadata = dict(context.invocation_metadata())
        call = metadata[CALL]
        run = Run(int(metadata.get(ATTEMPT, 1)), [])
        self.runs[call].append(run)
        return run, self._begun[call]

    def _unary(self, request: StringValue, context: Any) -> StringValue:
        self._note(context)[0].messages.append(request.value)
        return request

    def _server_stream(self, request: StringValue, context: Any) -> Iterator[StringValue]:
        self._note(context)[0].messages.append(request.value)
        yield from [request] * _LENGTH

    def _bidi(self, requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:
        run, begun = self._note(context)
        for request in requests:
            run.messages.append(request.value)
            begun.set()
            yield request

    def _client_stream(self, requests: Iterator[StringValue], context: Any) -> StringValue:
        return list(self._bidi(requests, context))[-1]

    async def _aio_unary(self, request: StringValue, context: Any) -> StringValue:
        return self._unary(request, context)

    async def _aio_server_stream(
        self, request: StringValue, context: Any
    ) -> AsyncIterator[StringValue]:
        for message in self._server_stream(request, context):
            yield message

    async def _aio_bidi(
        self, requests: AsyncIterator[StringValue], context: Any
    ) -> AsyncIterator[StringValue]:
        run, begun = self._note(context)
        async for request in requests:
            run.messages.append(request.value)
            begun.set()
            yield request

    async def _aio_client_stream(
        self, requests: AsyncIterator[StringValue], context: Any
    ) -> StringValue:
        return [request async for request in self._aio_bidi(requests, context)][-1]

    def serving(self, interceptors: Any = ()) -> AbstractContextManager[str]:
        """Execute every call, on a sync server."""
        behaviours = (self._unary, self._server_stream, self._client_stream, self._bidi)
        return errors.serving(behaviours, interceptors)

    def serving_guarded(self) -> AbstractContextManager[str]:
        """Execute no call, since a guard refuses them all."""
        return self.serving([grpcerrors.ModelGuard(_GUARD, protocol=_GUARDED)])

    def serving_guarded_aio(self) -> AbstractContextManager[str]:
        """Do the same on an aio server."""
        return errors.serving_aio(
            (self._aio_unary, self._aio_server_stream, self._aio_client_stream, self._aio_bidi),
            [grpcerrors.aio.ModelGuard(_GUARD, protocol=_GUARDED)],
        )


class Result(NamedTuple):
    """What a client got: an error or none, the messages before it, and who executed the call."""

    error: Any
    received: int
    runs: list[Run]

    @property
    def sends(self) -> int:
        """How often Envoy sent the call that ended with an error before any other message."""
        return int(dict(self.error.trailing_metadata())[ATTEMPT])


def call(
    channel: grpc.Channel,
    ledger: Ledger,
    shape: str,
    row: str,
    *,
    waits: bool = False,
    metadata: tuple[tuple[str, str], ...] = (),
) -> Result:
    """Make a call; if it succeeds, assert that it was executed once and with all its messages.

    A client that streams sends one message and the end of its stream. If it `waits`, it sends one
    message, and more when a handler has begun or the call has ended.
    """
    name = ledger.new_call()
    begun = ledger.begun(name)
    sends: Any = StringValue(value=row)
    if shape in {"ClientStream", "Bidi"}:
        sends = _messages(row, begun) if waits else iter([sends])
    method: Any = errors.method(channel, shape)
    options = {"timeout": errors.SECONDS, "metadata": ((CALL, name), *metadata)}
    if shape in errors.STREAMING:
        replies = method(sends, **options)
    else:
        replies = method.future(sends, **options)
    if waits and not replies.add_callback(begun.set):
        begun.set()  # the call has ended
    received = 0
    try:
        if shape in errors.STREAMING:
            for _ in replies:
                received += 1
        else:
            replies.result()
            received = 1
    except grpc.RpcError as error:
        return Result(error, received, ledger.runs[name])
    (run,) = ledger.runs[name]
    assert run.messages == [row] * (_LENGTH if waits else 1)
    assert received == (len(run.messages) if shape == "Bidi" else _ANSWERS[shape])
    return Result(None, received, ledger.runs[name])


_ANSWERS = {"Unary": 1, "ServerStream": _LENGTH, "ClientStream": 1}


def _messages(row: str, begun: threading.Event) -> Iterator[StringValue]:
    yield StringValue(value=row)
    assert begun.wait(errors.SECONDS)
    yield from [StringValue(value=row)] * (_LENGTH - 1)


_TRIES = 40  # of which a proxy sends every second one to the server that fails


def outcome(channel: grpc.Channel, ledger: Ledger, shape: str, row: str, **options: Any) -> str:
    """Say what became of a call that met the server that fails; the options are those of `call`."""
    for _ in range(_TRIES):
        result = call(channel, ledger, shape, row, **options)
        if result.error is None and result.runs[0].attempt == 1:
            continue  # it met the other server first
        return "sent again" if result.error is None else what(result, row)
    msg = "the proxy has sent none of the calls to the server that fails, or each of them again"
    raise AssertionError(msg)


def what(result: Result, row: str) -> str:
    """Say how an error has arrived. No call may end with one after it was executed."""
    assert not result.runs
    kind, _, name = row.partition("/")
    detects = kind == "detect"
    given = (vectors.DETECT if detects else vectors.BUILD)[name]
    trailers = result.error.trailing_metadata() or ()
    details = [value.hex() for key, value in trailers if key == errors.DETAILS]
    plain = [[key, value] for key, value in trailers if key.startswith("grpcerrors-")]
    assert details == ((given["details_hex"] or []) if detects else [given["details_hex"]])
    assert plain == given["trailers"]
    if result.error.code() is grpc.StatusCode.CANCELLED:
        return "CANCELLED, trailers intact"
    assert result.error.code() is vectors.CODES[given["code"]]
    assert result.error.details() == given["message"]
    return "intact"
