"""A model that does nothing, and slots that hold it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from grpcerrors_backends.host.slots import Slots

if TYPE_CHECKING:
    from concurrent.futures import Future

TIMEOUT = 10


class Thing:
    def __init__(self, options: str) -> None:
        self.options = options
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(capacity: int = 1, **options: object) -> Slots[Thing, str]:
    return Slots(Thing, capacity, **options)  # type: ignore[arg-type]


def held(slots: Slots[Thing, str]) -> set[str]:
    return {identity for identity, _, _ in slots.inventory().models}


def joined_by(slots: Slots[Thing, str], loads: list[Future[int]]) -> None:
    """Wait until all *loads* are running; none may have ended."""
    for load in loads:
        while not load.running():
            pass
    assert not any(load.done() for load in loads)
