"""One request on its way through the replicas of its model.

A request is sent again only when the error proves that it was not executed, nothing of an answer
has been delivered, all that was sent is still at hand, and the caller has time left (invariants 7,
8 and 12). Any other error comes out as it came.

A stream that the peer refused (HTTP/2 REFUSED_STREAM) was not executed either, but `grpc.aio` does
not say so: gRPC itself retries such a call, and what comes out after that is UNAVAILABLE like that
of a lost connection. So it is not sent again here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import grpc

from grpcerrors_router.calls.reconcile import Reaction
from grpcerrors_router.calls.replay import ReplayBuffer
from grpcerrors_router.calls.status import is_stand_in, known_error
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_router.calls.dispatch import Attempt, Dispatcher

OnStale: TypeAlias = Literal["retry", "return", "off"]
Shape: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


class RetryingCall:
    """Sends one request until it is answered, and heals the registry on the way.

    `opening` ends with the response of a unary answer, or with the first message of a stream
    (`grpc.aio.EOF` when there is none). `call` is the attempt that the caller gets to see.

    Args:
        dispatcher: gives the replicas.
        model: the routing key.
        on_stale: what happens when a replica turns out stale.
        shape: of the RPC.
        method: path, request serializer and response deserializer, as a stub gives them.
        body: the request, or a ReplayBuffer of requests.
        timeout: seconds for all attempts together.
        options: further arguments of the method, `metadata` among them.
        reserved: a replica picked in advance.
        background: whether to work in a task of its own. Without, there is no `opening`, and
            `answer` does the work in its caller's task.
    """

    opening: asyncio.Task[Any]

    def __init__(  # noqa: PLR0913 - one request
        self,
        dispatcher: Dispatcher,
        model: str,
        on_stale: OnStale,
        *,
        shape: Shape,
        method: tuple[Any, ...],
        body: Any,
        timeout: float | None,
        options: dict[str, Any],
        reserved: Attempt | None = None,
        background: bool = True,
    ) -> None:
        self._dispatcher = dispatcher
        self._model = model
        self._on_stale = on_stale
        self._shape = shape
        self._method = method
        self._body = body
        self._stream = body if isinstance(body, ReplayBuffer) else None
        self._streams_back = shape.endswith("stream")
        self._deadline = None if timeout is None else dispatcher.clock.monotonic() + timeout
        self._options = options
        self._reserved = reserved
        self._attempt: Attempt | None = None
        self._sealed = False
        self._truth: grpc.aio.AioRpcError | None = None
        self.call: Any = None
        self.started = asyncio.Event()
        dispatcher.budget.request()
        if background:
            self.opening = asyncio.get_running_loop().create_task(self.answer())
            self.opening.add_done_callback(self._opened)
            if self._stream is not None:
                self.on_done(self._stream.close)

    async def answer(self) -> Any:
        """Return the first answer, after as many attempts as it takes and the settings allow.

        Raises:
            RouteError: there is no replica to send to.
            grpc.aio.AioRpcError: what the node answered; the registry is corrected by then.
        """
        original: grpc.aio.AioRpcError | None = None
        attempts = self._dispatcher.settings.attempts
        while True:
            try:
                attempt = await self._next(again=original is not None)
            except RouteError as error:
                if original is not None:
                    raise original from error
                raise
            try:
                return await self._send(attempt)
            except grpc.aio.AioRpcError as error:
                attempts -= 1
                stale = await self._reconcile(error, attempt) is Reaction.STALE
                if stale and attempts > 0 and await self._may_resend(attempt):
                    original = original or error
                    continue
                # Only an error that proves as much as the first may hide behind it.
                if stale and original is not None:
                    raise original from error
                raise

    async def _next(self, *, again: bool) -> Attempt:
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            if reserved.entry.live:
                return reserved
            reserved.release(None)
        return await self._dispatcher.attempt(self._model, self._deadline, again=again)

    async def _reconcile(self, error: grpc.aio.AioRpcError, attempt: Attempt) -> Reaction:
        if self._on_stale == "off":
            return Reaction.KEEP
        reconciler = self._dispatcher.reconciler
        return await reconciler.reconcile(
            error, attempt.entry, self._method[0], timeout=self.remaining()
        )

    async def _may_resend(self, attempt: Attempt) -> bool:
        left = self.remaining()
        if (
            self._on_stale != "retry"
            or (left is not None and left <= 0)
            or (self._stream is not None and not self._stream.replayable)
            or not await self._dispatcher.budget.take(attempt.entry, left)
        ):
            return False
        self._dispatcher.events.retry(self._model, attempt.entry.node.name)
        return True

    async def _send(self, attempt: Attempt) -> Any:
        """Make one attempt; return its first answer."""
        self._attempt = attempt
        channels, address = self._dispatcher.channels, attempt.entry.node.info.address
        try:
            body = self._body if self._stream is None else self._stream.attempt()
            multicallable = channels.multicallable(address, self._shape, self._method)
            self.call = multicallable(body, timeout=self.remaining(), **self._options)
        except BaseException:
            attempt.release(grpc.StatusCode.INTERNAL)
            raise
        attempt.follow(self.call)
        if self._stream is not None:
            self._sealed = False
            self.call.add_done_callback(self._seal)
        self.started.set()
        try:
            first = await (self.call.read() if self._streams_back else self.call)
        except grpc.aio.AioRpcError as error:
            shown = self._true(error)
            if shown is None:
                return grpc.aio.EOF
            raise shown from None
        except BaseException:
            # A message that cannot be serialised, or a caller who gave up: nothing else ends it.
            self.call.cancel()
            attempt.release(grpc.StatusCode.CANCELLED)
            raise
        self._dispatcher.reconciler.served(attempt.entry, self._method[0])
        if self._stream is not None:
            self._stream.commit()
        self._body = None
        return first

    def _seal(self, call: Any) -> None:
        if not self._sealed and call is self.call:
            self._sealed, self._truth = True, known_error(call)

    def _true(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | None:
        """Return what the server said; None when it ended a stream well."""
        if not is_stand_in(error) or not self._sealed:
            return error
        return self._truth if self._truth is not None or self._streams_back else error

    async def status(self) -> grpc.aio.AioRpcError | None:
        """Return the error that the call ends with; None when it ends well or was never made."""
        if not self.opening.done():
            await asyncio.wait({self.opening})
        failure = self.failure()
        if isinstance(failure, grpc.aio.AioRpcError):
            return failure
        if self.call is None or await self.call.code() is grpc.StatusCode.OK:
            return None
        return self._truth if self._sealed else known_error(self.call)

    async def read(self) -> Any:
        """Return the next message after the first, or `grpc.aio.EOF`. Nothing is sent again.

        Raises:
            grpc.aio.AioRpcError: what the node answered; the registry is corrected by then.
        """
        try:
            return await self.call.read()
        except grpc.aio.AioRpcError as shown:
            error = self._true(shown)
            if error is None:
                return grpc.aio.EOF
            if self._attempt is not None:
                await self._reconcile(error, self._attempt)
            raise error from None

    def remaining(self) -> float | None:
        """Return the seconds left for all attempts; None without a deadline."""
        return self._dispatcher.remaining(self._deadline)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call back when it is over."""

        def opened(_: asyncio.Task[Any]) -> None:
            if self._streams_back and self.call is not None:
                self.call.add_done_callback(lambda _: callback())
            else:
                callback()

        self.opening.add_done_callback(opened)

    def _opened(self, task: asyncio.Task[Any]) -> None:
        self.started.set()
        if self._reserved is not None:  # cancelled before its first step
            self._reserved.release(None)
        # A caller who never looks must not be told that an "exception was never retrieved".
        if not task.cancelled():
            task.exception()

    def failure(self) -> BaseException | None:
        """Return why the opening failed; None when it did not (yet)."""
        if not self.opening.done() or self.opening.cancelled():
            return None
        return self.opening.exception()

    def cancel(self) -> bool:
        """Stop it; False when it is over already."""
        pending = self.opening.cancel()
        running = self.call is not None and self.call.cancel()
        if self._stream is not None:
            self._stream.close()
        return pending or running

    def done(self) -> bool:
        """Return whether it is over."""
        if not self.opening.done():
            return False
        if self.opening.cancelled() or self.opening.exception() is not None:
            return True
        return not self._streams_back or bool(self.call.done())

    def cancelled(self) -> bool:
        """Return whether it was stopped from this side."""
        if self.opening.cancelled():
            return True
        return self.call is not None and self.opening.done() and bool(self.call.cancelled())
