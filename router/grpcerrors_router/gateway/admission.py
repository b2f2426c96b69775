"""The limits of one gateway: concurrent calls, and bytes of their messages in memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from grpcerrors_router.calls.replay import Quota
from grpcerrors_router.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors_router.settings import Settings

ONE_WRITE = 64 * 1024
"""Bytes of an answer that gRPC takes over at once, without a wait for the caller."""


def host_of(context: Any) -> str:
    """Return the host of a call's peer: a caller without a token is known by it."""
    peer: str = context.peer()
    return peer.rpartition(":")[0]


class Use:
    """How much is in use: calls, and bytes of messages."""

    __slots__ = ("bytes", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0


class Admission:
    """Counts calls and bytes, of all callers and of each one, and refuses what exceeds a limit.

    The limits per caller keep one from using up the limits of all. gRPC's own limits answer
    CANCELLED, without a reason and without RetryInfo.

    Attributes:
        all: what all callers use.
        callers: what each caller uses.
        peak: the most bytes in use since it was set back.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.all = Use()
        self.peak = 0
        self.callers: dict[str, Use] = {}

    def call(self, caller: str) -> Admitted:
        """Count a call of a caller until the context ends. Raises Overloaded."""
        settings = self.settings
        use = self.callers.get(caller)
        if self.all.calls >= settings.max_calls:
            raise Overloaded(f"{settings.max_calls} calls at a time")
        if use is None:
            use = self.callers[caller] = Use()
        elif use.calls >= settings.max_caller_calls:
            raise Overloaded(f"{settings.max_caller_calls} calls of one caller at a time")
        use.calls += 1
        self.all.calls += 1
        return Admitted(self, caller, use)

    def forget(self, caller: str, use: Use) -> None:
        """Remove a caller that uses nothing any more."""
        if not use.calls and not use.bytes and self.callers.get(caller) is use:
            del self.callers[caller]


class Admitted(Quota):
    """A call that was admitted, as a context that counts it, and the bytes that it holds."""

    def __init__(self, admission: Admission, caller: str, use: Use) -> None:
        self._admission = admission
        self._caller = caller
        self._use = use
        self._held = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._add(-self._held)
        self._use.calls -= 1
        self._admission.all.calls -= 1
        self._admission.forget(self._caller, self._use)

    @contextlib.contextmanager
    def holding(self, message: bytes) -> Iterator[None]:
        """Count the bytes of a message while the body runs.

        One message always fits, however small the limits.

        Raises:
            Overloaded: a limit is exceeded.
        """
        size = len(message) if self._open else 0
        self._check(size)
        self._add(size)
        try:
            yield
        finally:
            if self._open:
                self._add(-size)

    def answering(self, answer: bytes, context: Any) -> None:
        """Count the bytes of a large answer until the call of `context` has ended.

        gRPC keeps them as long as the caller does not read. Raises Overloaded.
        """
        size = len(answer)
        if size <= ONE_WRITE:
            return
        self._check(size)
        total, use = self._admission.all, self._use
        self._add_to_all(size)
        use.bytes += size

        def sent(_context: object) -> None:
            total.bytes -= size
            use.bytes -= size
            self._admission.forget(self._caller, use)

        context.add_done_callback(sent)

    def take(self, size: int) -> bool:
        """Count bytes that are kept for a replay until the call ends; False if they do not fit."""
        if not self._open or self._exceeded(size):
            return False
        self._add(size)
        return True

    def give(self, size: int) -> None:
        """Count out bytes that were taken."""
        if self._open:
            self._add(-size)

    def _add(self, size: int) -> None:
        self._held += size
        self._use.bytes += size
        self._add_to_all(size)

    def _add_to_all(self, size: int) -> None:
        admission = self._admission
        admission.all.bytes += size
        admission.peak = max(admission.peak, admission.all.bytes)

    def _check(self, size: int) -> None:
        if limit := self._exceeded(size):
            raise Overloaded(limit)

    def _exceeded(self, size: int) -> str:
        settings, total, own = self._admission.settings, self._admission.all.bytes, self._use.bytes
        if total and total + size > settings.max_buffered_bytes:
            return f"{settings.max_buffered_bytes} bytes of messages in memory"
        if own and own + size > settings.max_caller_bytes:
            return f"{settings.max_caller_bytes} bytes of messages of one caller in memory"
        return ""
