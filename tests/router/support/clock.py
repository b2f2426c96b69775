"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio


class HandClock:
    """Time that stands still until `advance`. A sleep only lets others run."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.now += seconds
