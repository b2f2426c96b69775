"""Limits retries to a share of the requests (invariant 12)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings

_PARTS = 20


class RetryBudget:
    """Allows retries up to a share of the requests of the window, and always a few per second.

    A retry that is not allowed at the moment waits for its turn, so that a storm of stale replicas
    costs its callers time before it costs them errors.

    Args:
        settings: `retry_ratio` is the share, `retry_floor` the retries per second that are always
            allowed, `retry_window` the seconds that both are counted over, `retry_wait` how many
            seconds a retry may wait, `retry_queue` how many may wait at once.
        clock: the time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # The window rolls in parts, so that nothing is remembered per request.
        self._part = settings.retry_window / _PARTS
        self._since = clock.monotonic()
        self._requests: deque[int] = deque([0] * _PARTS, _PARTS)
        self._retries: deque[int] = deque([0] * _PARTS, _PARTS)
        self._turn = asyncio.Lock()
        self._waiting = 0

    def request(self) -> None:
        """Count a request."""
        self._roll()
        self._requests[-1] += 1

    async def take(self, timeout: float | None) -> bool:
        """Count a retry, when one is allowed; False when that takes too long.

        Args:
            timeout: the seconds that the caller can wait; None for no limit of its own.
        """
        if not self._waiting and self._take():
            return True
        if self._waiting >= self._settings.retry_queue:
            return False
        wait = self._settings.retry_wait
        self._waiting += 1
        try:
            async with asyncio.timeout(wait if timeout is None else min(wait, timeout)), self._turn:
                while not self._take():
                    await self._clock.sleep(self._part / 2)
                # One after the other: each may find the replica stale that the next would get.
                await self._clock.sleep(self._settings.retry_window / self._allowed())
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._waiting -= 1

    def _take(self) -> bool:
        self._roll()
        if sum(self._retries) >= self._allowed():
            return False
        self._retries[-1] += 1
        return True

    def _allowed(self) -> float:
        floor = self._settings.retry_floor * self._settings.retry_window
        return max(floor, self._settings.retry_ratio * sum(self._requests))

    def _roll(self) -> None:
        parts = int((self._clock.monotonic() - self._since) / self._part)
        if parts:
            self._requests.extend([0] * min(parts, _PARTS))
            self._retries.extend([0] * min(parts, _PARTS))
            self._since += parts * self._part
