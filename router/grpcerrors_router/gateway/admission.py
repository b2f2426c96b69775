"""The limits of one gateway: concurrent calls, and bytes of their messages in memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from grpcerrors_router.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors_router.settings import Settings


class Admission:
    """Counts calls and bytes, and refuses what exceeds a limit with Overloaded.

    gRPC's own limits answer CANCELLED, without a reason and without RetryInfo.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_calls = settings.max_calls
        self._max_bytes = settings.max_buffered_bytes
        self.calls = 0
        self.bytes = 0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Count a call while the body runs. Raises Overloaded."""
        if self.calls >= self._max_calls:
            raise Overloaded(f"{self._max_calls} calls at a time")
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    @contextlib.contextmanager
    def holding(self, message: bytes) -> Iterator[None]:
        """Count the bytes of a message while the body runs. Raises Overloaded.

        One message always fits, however small the limit.
        """
        size = len(message)
        if self.bytes and self.bytes + size > self._max_bytes:
            raise Overloaded(f"{self._max_bytes} bytes of messages in memory")
        self.bytes += size
        try:
            yield
        finally:
            self.bytes -= size
