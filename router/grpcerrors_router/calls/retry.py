"""One request on its way through at most two replicas.

A request is sent again only when the error proves that it was not executed, nothing of an answer
has been delivered, all that was sent is still at hand, and the caller has time left (invariants 7,
8 and 12). Anything else comes out as it came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from grpcerrors_router.calls.reconcile import Reaction
from grpcerrors_router.calls.status import is_stand_in, known_error
from grpcerrors_router.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_router.calls.replay import ReplayBuffer


class Attempt(Protocol):
    """A replica picked for one try, with the call counted in."""

    @property
    def address(self) -> str:
        """Where to send."""

    def follow(self, call: Any) -> None:
        """Count the call out when it ends."""

    def release(self, code: grpc.StatusCode) -> None:
        """Count the call out now, unless that has been done."""


class Path(Protocol):
    """Where attempts come from and where their errors are judged."""

    async def track(self, deadline: float | None, *, last_try: bool) -> Attempt:
        """Pick a replica and count a call in. Raises RouteError."""

    async def reconcile(self, error: grpc.aio.AioRpcError, attempt: Attempt) -> Reaction:
        """Correct the registry if the error is evidence against the replica."""

    def may_retry(self, attempt: Attempt) -> bool:
        """Whether policy and budget allow to send again."""

    def remaining(self, deadline: float | None) -> float | None:
        """Seconds left."""


class RetryingCall:
    """Sends the request and sees the first answer in, healing on the way.

    `send(address, request, timeout)` starts one real call. `opening` ends with the response of a
    unary answer, or the first message of a stream (`grpc.aio.EOF` when there is none). With
    `background` False there is no `opening`, and `answer` does the work in its caller's task.
    """

    opening: asyncio.Task[Any]

    def __init__(
        self,
        path: Path,
        send: Callable[[str, Any, float | None], Any],
        *,
        request: Any = None,
        stream: ReplayBuffer | None = None,
        streams_back: bool,
        deadline: float | None,
        background: bool = True,
    ) -> None:
        self._path = path
        self._send = send
        self._request = request
        self._stream = stream
        self._streams_back = streams_back
        self._deadline = deadline
        self._attempt: Attempt | None = None
        self._sealed = False
        self._truth: grpc.aio.AioRpcError | None = None
        self.call: Any = None
        self.started = asyncio.Event()
        if background:
            self.opening = asyncio.get_running_loop().create_task(self.answer())
            self.opening.add_done_callback(self._opened)
            if stream is not None:
                self.on_done(stream.close)

    async def answer(self) -> Any:
        """See the first answer in. Raises as the call does, healing done."""
        original: grpc.aio.AioRpcError | None = None
        while True:
            try:
                attempt = await self._path.track(self._deadline, last_try=original is not None)
            except RouteError as error:
                if original is not None:
                    raise original from error
                raise
            try:
                return await self._try(attempt)
            except grpc.aio.AioRpcError as error:
                reaction = await self._path.reconcile(error, attempt)
                if original is not None:
                    # Only a second error that proves as much as the first may hide behind it.
                    if reaction is Reaction.STALE:
                        raise original from error
                    raise
                if reaction is not Reaction.STALE or not self._can_resend(attempt):
                    raise
                original = error

    async def _try(self, attempt: Attempt) -> Any:
        self._attempt = attempt
        try:
            body = self._request if self._stream is None else self._stream.attempt()
            self.call = self._send(attempt.address, body, self._path.remaining(self._deadline))
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
        if self._stream is not None:
            self._stream.commit()
        self._request = None
        return first

    def _seal(self, call: Any) -> None:
        if not self._sealed and call is self.call:
            self._sealed, self._truth = True, known_error(call)

    def _true(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError | None:
        """What the server said; None when it ended a stream well."""
        if not is_stand_in(error) or not self._sealed:
            return error
        return self._truth if self._truth is not None or self._streams_back else error

    async def status(self) -> grpc.aio.AioRpcError | None:
        """The error that the call ends with, None when it ends well or was never made."""
        if not self.opening.done():
            await asyncio.wait({self.opening})
        failure = self.failure()
        if isinstance(failure, grpc.aio.AioRpcError):
            return failure
        if self.call is None or await self.call.code() is grpc.StatusCode.OK:
            return None
        return self._truth if self._sealed else known_error(self.call)

    def _can_resend(self, attempt: Attempt) -> bool:
        left = self._path.remaining(self._deadline)
        return (
            (left is None or left > 0)
            and (self._stream is None or self._stream.replayable)
            and self._path.may_retry(attempt)
        )

    async def read(self) -> Any:
        """The next message after the first, or `grpc.aio.EOF`; nothing is sent again any more."""
        try:
            return await self.call.read()
        except grpc.aio.AioRpcError as shown:
            error = self._true(shown)
            if error is None:
                return grpc.aio.EOF
            if self._attempt is not None:
                await self._path.reconcile(error, self._attempt)
            raise error from None

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
        # A caller who never looks must not be told that an "exception was never retrieved".
        if not task.cancelled():
            task.exception()

    def failure(self) -> BaseException | None:
        """Why the opening failed, None when it did not (yet)."""
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
        """Whether it is over."""
        if not self.opening.done():
            return False
        if self.opening.cancelled() or self.opening.exception() is not None:
            return True
        return not self._streams_back or bool(self.call.done())

    def cancelled(self) -> bool:
        """Whether it was stopped from this side."""
        if self.opening.cancelled():
            return True
        return self.call is not None and self.opening.done() and bool(self.call.cancelled())
