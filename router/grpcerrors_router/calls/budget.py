"""The retry budget, which limits retries to a share of the requests (invariant 12)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from grpcerrors_router.tasks import stop

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings

_PARTS = 20
_KEPT_TURNS = 256


class RetryBudget:
    """Allows a share of the requests in the window to be retried, and always a few per second.

    All requests that met the same replica count as one retry, since they cost one reload: a
    thousand concurrent calls must not fail because of one eviction. A retry that exceeds the budget
    waits for its turn, so that many stale replicas at once cause delays before they cause errors.

    Args:
        settings: `retry_ratio` is the share, `retry_floor` the retries per second that are always
            allowed, `retry_window` the seconds over which both are counted, `retry_wait` the
            seconds that a retry may wait, and `retry_queue` how many may wait at a time.
        clock: the clock.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # Counts per part of the window, so that nothing is stored per request.
        self._part = settings.retry_window / _PARTS
        self._since = clock.monotonic()
        self._requests: deque[int] = deque([0] * _PARTS, _PARTS)
        self._retries: deque[int] = deque([0] * _PARTS, _PARTS)
        self._turn = asyncio.Lock()
        self._turns: dict[object, asyncio.Task[bool]] = {}
        self._waiting = 0

    def request(self) -> None:
        """Count a request."""
        self._roll()
        self._requests[-1] += 1

    async def take(self, replica: object, timeout: float | None) -> bool:
        """Return whether a request may be retried; False if its turn does not come in time.

        Args:
            replica: the replica that the request met, stale or being loaded.
            timeout: how many seconds the caller can wait; None for no limit.
        """
        turn = self._turns.get(replica)
        if turn is None or (turn.done() and (turn.cancelled() or not turn.result())):
            turn = self._turns[replica] = asyncio.create_task(self._wait())
            self._forget_old()
        if self._waiting >= self._settings.retry_queue and not turn.done():
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(turn)
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.retry_wait), self._turn:
                if not self._take():
                    while not self._take():
                        await self._clock.sleep(self._part / 2)
                    # One by one: each retry may heal the replica that the next one would meet.
                    await self._clock.sleep(self._settings.retry_window / self._allowed())
        except TimeoutError:
            return False
        else:
            return True

    def _forget_old(self) -> None:
        surplus = len(self._turns) - _KEPT_TURNS
        if surplus > 0:
            ended = [replica for replica, turn in self._turns.items() if turn.done()]
            for replica in ended[:surplus]:
                del self._turns[replica]

    async def close(self) -> None:
        """Refuse the retries that wait."""
        await stop(self._turns.values())

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
