"""One request and its attempts on the replicas of its model.

A request is retried only if the error proves that it was not executed, no part of an answer has
been delivered, everything that was sent is still in memory, and the caller has time left
(invariants 7, 8 and 12). The caller gets any other error unchanged.

While a node loads the model, the request waits as long as the node asks for, unless another replica
can serve it.

A stream that the peer refused (HTTP/2 REFUSED_STREAM) was not executed either. gRPC itself retries
such a call, and if that fails, reports UNAVAILABLE as for a lost connection. `grpc.aio` does not
distinguish the two, so the router does not retry it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import grpc

from grpcerrors_protocol import logs
from grpcerrors_protocol.metadata import REQUEST_ID
from grpcerrors_router.calls.reconcile import Reaction
from grpcerrors_router.calls.replay import ReplayBuffer
from grpcerrors_router.calls.status import is_stand_in, known_code, known_error
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_router.calls.dispatch import Attempt, Dispatcher
    from grpcerrors_router.tracing import RequestTrace
    from grpcerrors_router.view.entries import ReplicaEntry

OnStale: TypeAlias = Literal["retry", "return", "off"]
Shape: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


class RetryingCall:
    """Sends one request until it is answered, and heals the registry after stale replicas.

    `opening` returns the unary response, or the first message of a stream (`grpc.aio.EOF` when
    there is none). `call` is the latest attempt, whose status the caller sees.

    Args:
        dispatcher: picks the replicas.
        model: the routing key.
        on_stale: what to do when a replica is stale.
        shape: the RPC shape.
        method: path, request serializer and response deserializer, as a stub passes them.
        body: the request, or a ReplayBuffer of requests.
        timeout: seconds for all attempts together; None for no deadline.
        options: further arguments of the method, including `metadata`.
        reserved: a replica picked in advance.
        trace: the span of the request; None if it is not traced.
        background: whether to run in a task of its own. If not, there is no `opening`, and
            `answer` runs in its caller's task.
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
        trace: RequestTrace | None = None,
        background: bool = True,
    ) -> None:
        self._trace = trace
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
        self._request_id = ""
        self.call: Any = None
        self.started = asyncio.Event()
        dispatcher.budget.request()
        if background:
            self.opening = asyncio.get_running_loop().create_task(self.answer())
            self.opening.add_done_callback(self._opened)
            if self._stream is not None:
                self.on_done(self._stream.close)
            if trace is not None and trace.client:
                self.on_done(lambda: trace.end(self._code()))

    async def answer(self) -> Any:
        """Return the first answer, after up to `Settings.attempts` attempts.

        Raises:
            RouteError: no replica can be had.
            grpc.aio.AioRpcError: the error of the node; the registry has been corrected.
        """
        original: grpc.aio.AioRpcError | None = None
        stale: tuple[ReplicaEntry, float] | None = None
        attempts = self._dispatcher.settings.attempts
        while True:
            try:
                attempt = await self._next(again=original is not None)
            except RouteError as error:
                if original is not None:
                    raise original from error
                raise
            try:
                first = await self._send(attempt)
            except grpc.aio.AioRpcError as error:
                failed_at = self._dispatcher.clock.monotonic()
                reaction = await self._reconcile(error, attempt)
                if reaction is not Reaction.LOADING:  # which is waited out within the deadline
                    attempts -= 1
                unexecuted = reaction in (Reaction.STALE, Reaction.LOADING)
                if unexecuted and attempts > 0 and await self._may_resend(attempt):
                    original = original or error
                    if reaction is Reaction.STALE:
                        stale = stale or (attempt.entry, failed_at)
                    continue
                # The first error replaces a later one only if both prove the same.
                if unexecuted and original is not None:
                    raise original from error
                raise
            if stale is not None:
                self._recovered(*stale, attempt.entry)
            return first

    def _recovered(self, stale: ReplicaEntry, since: float, now: ReplicaEntry) -> None:
        self._dispatcher.events.recovered(
            self._model,
            stale.node.name,
            stale.generation,
            self._dispatcher.clock.monotonic() - since,
            now.node.name,
            now.generation,
        )

    async def _next(self, *, again: bool) -> Attempt:
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            if reserved.entry.live and self._dispatcher.holds(reserved.entry):
                return reserved
            reserved.release(None)
        dispatcher, model, trace = self._dispatcher, self._model, self._trace
        if trace is None or dispatcher.table.pick(model) is not None:
            return await dispatcher.attempt(model, self._deadline, again=again)
        since = time.monotonic()
        try:
            return await dispatcher.attempt(model, self._deadline, again=again)
        finally:
            trace.waited(model, since)

    async def _reconcile(self, error: grpc.aio.AioRpcError, attempt: Attempt) -> Reaction:
        reaction = Reaction.KEEP
        if self._on_stale != "off":
            reaction = await self._dispatcher.reconciler.reconcile(
                error,
                attempt.entry,
                self._method[0],
                timeout=self.remaining(),
                request_id=self.request_id,
            )
        if self._trace is not None:
            self._trace.failed(attempt.entry, error, reaction)
        return reaction

    def request_id(self) -> str:
        """Return the id that names the request in logs; later attempts send it too."""
        if not self._request_id:
            metadata = tuple(self._options["metadata"])
            self._request_id = logs.request_id(metadata)
            if not self._request_id:
                traced = self._trace.trace_id if self._trace is not None else ""
                self._request_id = traced or logs.new_request_id()
                self._options["metadata"] = (*metadata, (REQUEST_ID, self._request_id))
        return self._request_id

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
        """Make one attempt and return its first answer."""
        self._attempt = attempt
        attempt.method = self._method[0]
        if self._trace is not None:
            attempt.trace_id = self._trace.trace_id
        channels, node = self._dispatcher.channels, attempt.entry.node.info
        try:
            body = self._body if self._stream is None else self._stream.attempt()
            multicallable = channels.multicallable(node, self._shape, self._method)
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
            # The caller gave up, or the message cannot be serialized: end the call here.
            self.call.cancel()
            attempt.release(grpc.StatusCode.CANCELLED)
            raise
        self._dispatcher.reconciler.served(attempt.entry, self._method[0])
        if self._trace is not None:
            self._trace.answered(attempt.entry)
        if self._stream is not None:
            self._stream.commit()
        self._body = None
        return first

    def _seal(self, call: Any) -> None:
        if not self._sealed and call is self.call:
            self._sealed, self._truth = True, known_error(call)

    def _true(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | None:
        """Return the server's own error; None if the server ended the stream with OK."""
        if not is_stand_in(error) or not self._sealed:
            return error
        return self._truth if self._truth is not None or self._streams_back else error

    async def status(self) -> grpc.aio.AioRpcError | None:
        """Return the error of the call; None if it ends with OK or was never made."""
        if not self.opening.done():
            await asyncio.wait({self.opening})
        failure = self.failure()
        if isinstance(failure, grpc.aio.AioRpcError):
            return failure
        if self.call is None or await self.call.code() is grpc.StatusCode.OK:
            return None
        return self._truth if self._sealed else known_error(self.call)

    async def read(self) -> Any:
        """Return the next message after the first, or `grpc.aio.EOF`. It never retries.

        Raises:
            grpc.aio.AioRpcError: the error of the node; the registry has been corrected.
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
        """Call `callback` when the call is done."""

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
        # Keep asyncio from logging "exception was never retrieved" if the caller ignores it.
        if not task.cancelled():
            task.exception()

    def failure(self) -> BaseException | None:
        """Return why `opening` failed; None if it has not failed (yet)."""
        if not self.opening.done() or self.opening.cancelled():
            return None
        return self.opening.exception()

    def _code(self) -> grpc.StatusCode:
        """Return the code of a call that is done."""
        failure = self.failure()
        if isinstance(failure, grpc.aio.AioRpcError):
            return failure.code()
        if failure is not None:
            return grpc.StatusCode.UNKNOWN
        if self.call is None or self.opening.cancelled():
            return grpc.StatusCode.CANCELLED
        if self._truth is not None:
            return self._truth.code()
        return known_code(self.call) if self.call.done() else grpc.StatusCode.OK

    def cancel(self) -> bool:
        """Cancel the call; return False if it was already done."""
        pending = self.opening.cancel()
        running = self.call is not None and self.call.cancel()
        if self._stream is not None:
            self._stream.close()
        return pending or running

    def done(self) -> bool:
        """Return whether the call is done."""
        if not self.opening.done():
            return False
        if self.opening.cancelled() or self.opening.exception() is not None:
            return True
        return not self._streams_back or bool(self.call.done())

    def cancelled(self) -> bool:
        """Return whether the call was cancelled on this side."""
        if self.opening.cancelled():
            return True
        return self.call is not None and self.opening.done() and bool(self.call.cancelled())
