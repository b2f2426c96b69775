"""A limit for log lines that anyone can cause."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Seldom:
    """Allows something at most once each `interval` seconds by a clock, from any thread."""

    def __init__(self, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._next = float("-inf")
        self._skipped = 0

    def now(self) -> int | None:
        """Return how often it was not allowed since the last time; None if it is not allowed."""
        with self._lock:
            moment = self._clock()
            if moment < self._next:
                self._skipped += 1
                return None
            self._next = moment + self._interval
            skipped, self._skipped = self._skipped, 0
            return skipped
