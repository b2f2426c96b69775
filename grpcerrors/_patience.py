"""A bound on the time that code of unknown origin gets."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_BUDGET_SECONDS = 0.25

THREAD_NAME = "grpcerrors-accessor"

# Threads that never came back; past this many, nothing more is tried until one does.
STUCK_LIMIT = 8
_stuck: list[threading.Thread] = []


class Patience:
    """Runs calls that might block in a thread each; all of them together get a quarter second."""

    __slots__ = ("_deadline",)

    def __init__(self) -> None:
        self._deadline: float | None = None

    def run(self, call: Callable[[], T]) -> T | None:
        """Return what `call` returns, or None when it raises or does not come back in time."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + _BUDGET_SECONDS
        _stuck[:] = [thread for thread in _stuck if thread.is_alive()]
        if now >= self._deadline or len(_stuck) >= STUCK_LIMIT:
            return None
        results: list[T] = []

        def work() -> None:
            try:
                results.append(call())
            except BaseException:  # noqa: BLE001 - whatever it raises, even SystemExit, it is its own
                return

        thread = threading.Thread(target=work, name=THREAD_NAME, daemon=True)
        thread.start()
        thread.join(self._deadline - now)
        if thread.is_alive():
            _stuck.append(thread)
        return results[0] if results else None
