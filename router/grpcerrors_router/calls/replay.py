"""Request streams that can be replayed: sent messages are kept, up to a limit, until a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import anyio

_END = object()


class WriteQueue:
    """The request stream of a caller that writes instead of passing an iterator.

    A write waits until the message is taken. A cancelled write has written nothing.
    """

    def __init__(self) -> None:
        self._send, self.messages = anyio.create_memory_object_stream[Any](0)

    async def put(self, message: object) -> bool:
        """Write a message; return False if the call ended before it was taken.

        Raises:
            asyncio.InvalidStateError: the stream was closed. grpc raises the same.
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
        """End the stream after the current write. Idempotent."""
        self._send.close()

    def abort(self) -> None:
        """Release all writers, since the call has ended."""
        self.messages.close()
        self._send.close()


class Quota:
    """What the messages that are kept are counted in. This one has no limit."""

    def take(self, size: int) -> bool:  # noqa: ARG002 - see `gateway.admission`
        """Count that many bytes; return False if they do not fit."""
        return True

    def give(self, size: int) -> None:
        """Count them out."""


class ReplayBuffer:
    """A request stream that successive attempts can read from its start.

    `replayable` becomes False when more than `max_bytes` or `max_messages` have passed, when the
    quota is used up, or when the stream is committed. The kept messages are then released at the
    next message.
    """

    def __init__(
        self,
        source: AsyncIterable[Any] | Iterable[Any],
        *,
        max_bytes: int,
        max_messages: int,
        quota: Quota,
    ) -> None:
        self._quota = quota
        self._source = _iterate(source)
        self._kept: list[Any] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._ended = False
        self._next: asyncio.Task[object] | None = None
        self.replayable = True

    def commit(self) -> None:
        """Declare that no further attempt will replay the stream."""
        self.replayable = False

    def close(self) -> None:
        """Stop waiting for further messages, since the call has ended."""
        if self._next is not None:
            self._next.cancel()
        self.replayable = False
        self._release()

    async def attempt(self) -> AsyncIterator[Any]:
        """Yield the kept messages, then those still to come from the source."""
        position = 0
        while position < len(self._kept):
            yield self._kept[position]
            position += 1
        if not self.replayable:
            self._release()
        while not self._ended:
            message = await self._pull()
            if message is _END:
                self._ended = True
                return
            yield message
            if not self.replayable:
                self._release()

    async def _pull(self) -> object:
        # A failed attempt is cancelled while it waits here. The source must not be cancelled too:
        # its next message belongs to the next attempt.
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
        size = _size(message)
        full = self._bytes + size > self._max_bytes or len(self._kept) >= self._max_messages
        if full or not self._quota.take(size):
            self.replayable = False
        else:
            self._bytes += size
            self._kept.append(message)

    def _release(self) -> None:
        if self._bytes:
            self._quota.give(self._bytes)
        self._bytes = 0
        self._kept.clear()


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
