"""The outbox: changes to the registry, queued in order while it cannot be written."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import structlog

from grpcerrors_router.errors import RegistryUnavailable

if TYPE_CHECKING:
    from grpcerrors_router.events import Events

Change = Callable[[], Awaitable[object]]
Access = Literal["read", "write"]

_log = structlog.get_logger("router.outbox")


class Outbox:
    """Writes changes at once if it can, queues them otherwise, and never raises.

    A change must be idempotent and fenced by a generation, since it may be applied late, and twice
    if the answer was lost. Changes with the same name are the same change, and are queued once.

    Args:
        events: receives the loss and the return of the registry.
        limit: how many changes may be queued; beyond that, the oldest is dropped and logged.
    """

    def __init__(self, events: Events, limit: int = 10_000) -> None:
        self._events = events
        self._limit = limit
        self._waiting: OrderedDict[str, Change] = OrderedDict()
        self._flushing = False
        self._failing: set[Access] = set()
        self._was_down = False
        self._applied = 0

    @property
    def down(self) -> bool:
        """Whether the registry cannot be read, or cannot be written (a full disk, for example)."""
        return bool(self._failing)

    def __len__(self) -> int:
        return len(self._waiting)

    async def write(self, what: str, change: Change) -> None:
        """Apply a change now, or queue it behind those that wait. `what` identifies it."""
        if self._waiting:
            self._wait(what, change)
            return
        try:
            await change()
            self.note_up("write")
        except RegistryUnavailable as error:
            self._wait(what, change)
            self.note_down(error, "write")
        except Exception:  # noqa: BLE001 - requests must not fail because of it
            _log.exception("dropped a change that the registry refused", change=what)

    def _wait(self, what: str, change: Change) -> None:
        self._waiting[what] = change
        if len(self._waiting) > self._limit:
            oldest, _ = self._waiting.popitem(last=False)
            _log.error("dropped the oldest change: too many wait for the registry", change=oldest)

    async def flush(self) -> None:
        """Apply the queued changes, oldest first, until one cannot be written."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._waiting:
                what, change = next(iter(self._waiting.items()))
                try:
                    await change()
                except RegistryUnavailable as error:
                    self.note_down(error, "write")
                    return
                except Exception:  # noqa: BLE001 - requests must not fail because of it
                    _log.exception("dropped a change that the registry refused", change=what)
                self._waiting.pop(what, None)
                self._applied += 1
                self.note_up("write")
        finally:
            self._flushing = False

    def note_down(self, error: RegistryUnavailable, access: Access) -> None:
        """Note that the registry could not be read or written."""
        if not self._was_down:
            self._was_down = True
            _log.warning(
                "registry is down: routing from memory, queueing changes",
                error=error.details(),
            )
            self._events.registry_down(str(error.details()))
        self._failing.add(access)

    def note_up(self, access: Access) -> None:
        """Note that the registry was read or written; the one does not imply the other."""
        if access == "read" or not self._waiting:
            self._failing.discard(access)
        if self._was_down and not self.down:
            self._was_down = False
            _log.info("registry is up", applied=self._applied)
            self._events.registry_up(self._applied)
            self._applied = 0
