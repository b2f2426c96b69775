"""Limits on what healing may cost: retries (invariant 12) and reloads (invariant 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.clock import Clock
    from router.settings import Settings


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


class Quarantine:
    """Keeps a model away from a node where it is dropped again and again without ever working."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._drops: dict[tuple[str, str], int] = {}
        self._until: dict[tuple[str, str], float] = {}

    def dropped(self, node: str, model: str, *, proven: bool) -> None:
        """Count a drop; `proven` when the load had served a request before."""
        key = (node, model)
        drops = 1 if proven else self._drops.get(key, 0) + 1
        self._drops[key] = drops
        over = drops - self._settings.storm_drops
        if over >= 0:
            pause = min(self._settings.storm_base * 2.0 ** min(over, 30), self._settings.storm_max)
            self._until[key] = self._clock.monotonic() + pause

    def worked(self, node: str, model: str) -> None:
        """A request succeeded there: start counting anew."""
        self._drops.pop((node, model), None)
        self._until.pop((node, model), None)

    def left(self, node: str, model: str) -> float:
        """Seconds until the node may be tried again with the model, 0 when it may be now."""
        until = self._until.get((node, model))
        return max(0.0, until - self._clock.monotonic()) if until is not None else 0.0
