"""Unloading of models that are idle or that do not fit into memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import structlog

from grpcerrors_backends.host.memory import MIB, resident

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_backends.host.slots import Slots

TICK = 0.5
log = structlog.get_logger()


class Janitor:
    """Unloads models from a background thread.

    Args:
        slots: the models to unload.
        idle_ttl: seconds without a call after which a model is unloaded; None for never.
        max_rss: limit of the resident size in MiB. Above it, the least recently used models are
            unloaded one by one until the process fits. None for no limit.
        resident: returns the resident size in bytes.
    """

    def __init__(
        self,
        slots: Slots[Any, Any],
        *,
        idle_ttl: float | None = None,
        max_rss: float | None = None,
        resident: Callable[[], int] = resident,
    ) -> None:
        self._slots = slots
        self._idle_ttl = idle_ttl
        self._max_rss = max_rss
        self._resident = resident
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        """Start the thread if there is a limit to enforce."""
        if self._idle_ttl is not None or self._max_rss is not None:
            self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end. Returns at once."""
        self._stopping.set()

    def sweep(self) -> None:
        """Enforce the limits once. Blocks while a model that must go still serves calls."""
        if self._idle_ttl is not None:
            self._slots.evict_idle(self._idle_ttl)
        while self._max_rss is not None and self._resident() > self._max_rss * MIB:
            if self._slots.evict_one() is None:
                break

    def _run(self) -> None:
        tick = TICK if self._idle_ttl is None else min(TICK, self._idle_ttl / 4)
        while not self._stopping.wait(max(tick, 0.01)):
            try:
                self.sweep()
            except Exception:
                log.exception("check of idle time and memory failed; retrying")
