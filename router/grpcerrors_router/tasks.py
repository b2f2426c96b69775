"""How background tasks are stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their end. Their exceptions are dropped.

    Raises:
        BaseException: of a task, if it is no Exception and no CancelledError: KeyboardInterrupt.
    """
    stopped = list(tasks)
    for task in stopped:
        task.cancel()
    for end in await asyncio.gather(*stopped, return_exceptions=True):
        if isinstance(end, BaseException) and not isinstance(
            end, (Exception, asyncio.CancelledError)
        ):
            raise end
