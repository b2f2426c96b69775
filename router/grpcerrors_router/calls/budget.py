"""Limits retries to a share of the requests (invariant 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings


class RetryBudget:
    """Allows retries up to a share of the requests of the window, and always a few per second.

    Args:
        settings: `retry_ratio` is the share, `retry_floor` the retries per second that are always
            allowed, `retry_window` the seconds that both are counted over.
        clock: the time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # Two halves of the window roll, so that nothing is remembered per request.
        self._since = clock.monotonic()
        self._requests = [0, 0]
        self._retries = [0, 0]

    def request(self) -> None:
        """Count a request."""
        self._roll()
        self._requests[1] += 1

    def take(self) -> bool:
        """Count a retry in, if one is allowed now."""
        self._roll()
        floor = self._settings.retry_floor * self._settings.retry_window
        allowed = max(floor, self._settings.retry_ratio * sum(self._requests))
        if sum(self._retries) >= allowed:
            return False
        self._retries[1] += 1
        return True

    def _roll(self) -> None:
        half = self._settings.retry_window / 2
        halves = int((self._clock.monotonic() - self._since) / half)
        if not halves:
            return
        for _ in range(min(halves, 2)):
            self._requests = [self._requests[1], 0]
            self._retries = [self._retries[1], 0]
        self._since += halves * half
