"""The call objects that a stub's methods return: the `grpc.aio` interface of a RetryingCall."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from grpcerrors_router.calls.replay import WriteQueue
    from grpcerrors_router.calls.retry import RetryingCall


class _Call(grpc.aio.Call):
    """What all four RPC shapes share. The status is that of the last attempt."""

    def __init__(self, retrying: RetryingCall) -> None:
        self._retrying = retrying

    def cancelled(self) -> bool:
        return self._retrying.cancelled()

    def done(self) -> bool:
        return self._retrying.done()

    def time_remaining(self) -> float | None:
        return self._retrying.remaining()

    def cancel(self) -> bool:
        return self._retrying.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._retrying.on_done(lambda: callback(self))

    async def _opened(self) -> BaseException | None:
        if not self._retrying.opening.done():
            await asyncio.wait({self._retrying.opening})
        return self._retrying.failure()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        # Return it as soon as a server has sent it. If that attempt ended, another may follow.
        await self._retrying.started.wait()
        call = self._retrying.call
        metadata = await call.initial_metadata() if call is not None else grpc.aio.Metadata()
        if call is not None and not call.done():
            return metadata
        failure = await self._opened()
        if isinstance(failure, grpc.aio.AioRpcError):
            return failure.initial_metadata()
        return await self._retrying.call.initial_metadata() if call is not None else metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        error = await self._retrying.status()
        if error is not None:
            return error.trailing_metadata() or grpc.aio.Metadata()
        call = self._retrying.call
        return await call.trailing_metadata() if call is not None else grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        error = await self._retrying.status()
        if error is not None:
            return error.code()
        return grpc.StatusCode.CANCELLED if self._retrying.call is None else grpc.StatusCode.OK

    async def details(self) -> str:
        error = await self._retrying.status()
        if error is not None:
            return error.details() or ""
        return "Locally cancelled by application!" if self._retrying.call is None else ""

    async def wait_for_connection(self) -> None:
        await self._retrying.started.wait()
        if self._retrying.call is None:
            await self._retrying.opening
        else:
            await self._retrying.call.wait_for_connection()


class _UnaryAnswer(_Call):
    def __await__(self) -> Generator[Any, None, Any]:
        return self._retrying.opening.__await__()


class _StreamAnswer(_Call):
    """A response stream, read with `async for` or `read()`. Deletion cancels it, as in grpc."""

    _opening_read = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        message = await self.read()
        while message is not grpc.aio.EOF:
            yield message
            message = await self.read()

    async def read(self) -> Any:
        if not self._opening_read:
            self._opening_read = True
            return await self._retrying.opening
        return await self._retrying.read()

    def __del__(self) -> None:
        retrying = getattr(self, "_retrying", None)
        if retrying is not None and not retrying.done():
            retrying.cancel()


class _StreamRequest(_Call):
    """A request stream, written with `write()` unless an iterator was given."""

    def __init__(self, retrying: RetryingCall, queue: WriteQueue | None) -> None:
        super().__init__(retrying)
        self._queue = queue
        if queue is not None:
            retrying.on_done(queue.abort)

    def _writer(self) -> WriteQueue:
        if self._queue is None:
            msg = "The iterator and read/write APIs may not be mixed on a single RPC."
            raise grpc.aio.UsageError(msg)
        return self._queue

    async def write(self, request: Any) -> None:
        if self.done():
            msg = "RPC already finished."
            raise asyncio.InvalidStateError(msg)
        try:
            taken = await self._writer().put(request)
        except asyncio.CancelledError:
            self.cancel()  # as grpc.aio does
            raise
        if not taken:
            failure = await self._opened()
            if failure is not None:
                raise failure
            msg = "RPC already finished."
            raise asyncio.InvalidStateError(msg)

    async def done_writing(self) -> None:
        self._writer().close()


class TrackedUnaryUnaryCall(_UnaryAnswer, grpc.aio.UnaryUnaryCall):
    """A unary-unary call: await it for the response."""


class TrackedUnaryStreamCall(_StreamAnswer, grpc.aio.UnaryStreamCall):
    """A unary-stream call: iterate over it, or read from it."""


class TrackedStreamUnaryCall(_StreamRequest, _UnaryAnswer, grpc.aio.StreamUnaryCall):
    """A stream-unary call: write to it, then await it for the response."""


class TrackedStreamStreamCall(_StreamRequest, _StreamAnswer, grpc.aio.StreamStreamCall):
    """A stream-stream call: write to it and read from it."""
