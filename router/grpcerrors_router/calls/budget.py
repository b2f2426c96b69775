"""Limits retries to a share of the requests (invariant 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings


class RetryBudget:
    """Allows retries up to a share of the requests of the window, and always a few.

    Two half windows roll, so that nothing has to be remembered per request.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._since = clock.monotonic()
        self._requests = [0, 0]
        self._retries = [0, 0]

    def request(self) -> None:
        """Count a request."""
        self._requests[1] += 1

    def take(self) -> bool:
        """Count a retry in, if one is allowed now."""
        self._roll()
        allowed = max(self._settings.retry_min, self._settings.retry_ratio * sum(self._requests))
        if sum(self._retries) >= allowed:
            return False
        self._retries[1] += 1
        return True

    def _roll(self) -> None:
        now = self._clock.monotonic()
        half = self._settings.retry_window / 2
        halves = int((now - self._since) / half)
        for _ in range(min(halves, 2)):
            self._requests = [self._requests[1], 0]
            self._retries = [self._retries[1], 0]
        self._since += halves * half
