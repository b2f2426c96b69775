"""Which calls have been executed, how often, and with which messages."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from tests.interop.support import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ATTEMPT = "x-envoy-attempt-count"
_CALL = "x-call"
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
        call = metadata[_CALL]
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

    @property
    def behaviours(self) -> tuple[Any, ...]:
        """Handlers for a sync server, in the order of `errors.SHAPES`."""
        return self._unary, self._server_stream, self._client_stream, self._bidi

    @property
    def aio_behaviours(self) -> tuple[Any, ...]:
        """Handlers for an aio server."""
        return self._aio_unary, self._aio_server_stream, self._aio_client_stream, self._aio_bidi


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
    channel: grpc.Channel, ledger: Ledger, shape: str, row: str, *, waits: bool = False
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
    options = {"timeout": errors.SECONDS, "metadata": ((_CALL, name),)}
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
