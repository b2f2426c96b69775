"""An event loop with virtual time, which a test advances, and a thread pool without threads."""

from __future__ import annotations

import asyncio
import selectors
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY = 20_000
"""Turns of the loop within which everything must come to rest."""


class _Selector(selectors.DefaultSelector):
    """Never blocks: instead, it advances the loop's time, or stops the loop."""

    loop: VirtualLoop
    _turns = 0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        self._turns += 1
        if not events and (timeout is None or timeout > 0):
            self._turns = 0
            self.loop.idle(timeout)
        assert self._turns < BUSY, "something runs in circles, and time stands still"
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs everything that can run now; timers fire when `advance` reaches them."""

    def __init__(self) -> None:
        self.now = self._until = 1_000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def idle(self, timeout: float | None) -> None:
        if timeout is None or self.now + timeout > self._until:
            self.now = self._until
            self.stop()
        else:
            self.now += timeout

    def advance(self, seconds: float = 0.0) -> None:
        """Let that much time pass, and run everything that is due in it."""
        self._until = self.now + seconds
        self.run_forever()

    def finish(self, coroutine: Any, within: float = 0.0) -> Any:
        """Run a coroutine to its end; fail if it takes longer than `within` seconds."""
        task = self.create_task(coroutine)
        task.add_done_callback(lambda _: self.stop())
        self.advance(within)
        assert task.done(), f"still at work after {within} s"
        return task.result()


class LoopClock:
    """The time of a loop; its wall clock is off by `skew` seconds."""

    def __init__(self, loop: VirtualLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self._skew = skew

    def time(self) -> float:
        return self._loop.time() + self._skew

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class InlineExecutor(Executor):
    """Does work at once.

    Results wait while it is `held`. While its `fault` is set, work fails with that. Once it is
    `dead`, it does nothing.
    """

    def __init__(self) -> None:
        self.held = self.dead = False
        self.fault: Exception | None = None
        self._untold: list[Callable[[], None]] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.dead:
            return future
        if self.fault is not None:
            future.set_exception(self.fault)
            return future
        result, failure = None, None
        try:
            result = work(*args, **named)
        except Exception as error:  # noqa: BLE001 - the future hands it on
            failure = error

        def done() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

        if self.held:
            self._untold.append(done)
        else:
            done()
        return future

    def release(self) -> None:
        """End the fault, and deliver the results that were held."""
        self.held, self.fault = False, None
        untold, self._untold = self._untold, []
        for done in untold:
            done()
