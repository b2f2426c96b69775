"""Request streams that can be sent twice: what was sent is kept, up to a bound, until a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import anyio

_END = object()


class WriteQueue:
    """The request stream of a caller who writes instead of passing an iterator.

    A write waits until the message is taken; one that is cancelled has written nothing.
    """

    def __init__(self) -> None:
        self._send, self.messages = anyio.create_memory_object_stream[Any](0)

    async def put(self, message: object) -> bool:
        """Hand a message over; False when the call ended before it was taken.

        Raises:
            asyncio.InvalidStateError: after `close`, as grpc does.
        """
        try:
            await self._send.send(message)
        except anyio.BrokenResourceError:
            return False
        except anyio.ClosedResourceError:
            msg = 'RPC is half closed after calling "done_writing".'
            raise asyncio.InvalidStateError(msg) from None
        return True

    def close(self) -> None:
        """End the stream after what is being written. Idempotent."""
        self._send.close()

    def abort(self) -> None:
        """Let go of all who write: the call is over."""
        self.messages.close()
        self._send.close()


class ReplayBuffer:
    """A request stream that several attempts can read from its start, one after the other.

    `replayable` turns False once more than `max_bytes` or `max_messages` have gone through, or the
    stream is committed; what was kept is let go then.
    """

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any],
        *,
        max_bytes: int,
        max_messages: int,
    ) -> None:
        self._source = _iterate(source)
        self._kept: list[Any] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._ended = False
        self._next: asyncio.Task[object] | None = None
        self.replayable = True

    def commit(self) -> None:
        """No attempt will need the past any more."""
        self.replayable = False

    def close(self) -> None:
        """The call is over: stop waiting for messages that nobody will send."""
        if self._next is not None:
            self._next.cancel()

    async def attempt(self) -> AsyncIterator[Any]:
        """All messages: those kept, then those still to come from the source."""
        position = 0
        while position < len(self._kept):
            yield self._kept[position]
            position += 1
        if not self.replayable:
            self._kept.clear()
        while not self._ended:
            message = await self._pull()
            if message is _END:
                self._ended = True
                return
            yield message
            if not self.replayable:
                self._kept.clear()

    async def _pull(self) -> object:
        # An attempt that fails is cancelled while it waits here; the source must not notice, and
        # the message that it was waiting for belongs to the next attempt.
        if self._next is None and not self.replayable:
            return await self._advance()
        if self._next is None:
            self._next = asyncio.ensure_future(self._advance())
        message = await asyncio.shield(self._next)
        self._next = None
        if message is not _END:
            self._keep(message)
        return message

    async def _advance(self) -> object:
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            return _END

    def _keep(self, message: Any) -> None:
        if not self.replayable:
            return
        self._bytes += _size(message)
        if self._bytes > self._max_bytes or len(self._kept) >= self._max_messages:
            self.replayable = False
        else:
            self._kept.append(message)


async def _from_iterable(source: Iterable[Any]) -> AsyncIterator[Any]:
    for message in source:
        yield message


def _iterate(source: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        return aiter(source)
    return _from_iterable(source)


def _size(message: Any) -> int:
    if isinstance(message, (bytes, bytearray, memoryview)):
        return len(message)
    measure = getattr(message, "ByteSize", None)
    return int(measure()) if measure is not None else 1
