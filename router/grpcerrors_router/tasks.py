"""The end of background tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; how they failed does not matter any more.

    Raises:
        BaseException: what is no Exception and no cancellation, such as the time limit of a test.
    """
    stopped = list(tasks)
    for task in stopped:
        task.cancel()
    for end in await asyncio.gather(*stopped, return_exceptions=True):
        if isinstance(end, BaseException) and not isinstance(
            end, (Exception, asyncio.CancelledError)
        ):
            raise end
