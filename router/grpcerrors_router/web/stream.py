"""Server-sent events: the newest state for one viewer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Scope, Send

SLOW = 30.0
"""Seconds after which a viewer that reads nothing is dropped."""


class EventStream(StreamingResponse):
    """Sends each text as an event. Ends when the viewer leaves, or reads nothing for SLOW seconds.

    The viewer's browser connects again by itself.
    """

    media_type = "text/event-stream"

    def __init__(self, texts: AsyncIterator[str]) -> None:
        super().__init__(_events(texts))
        self.headers["x-accel-buffering"] = "no"  # nginx would collect the events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""

        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(SLOW):
                await send(message)

        await super().__call__(scope, receive, send_soon)


async def _events(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    async for text in texts:
        yield f"data: {text}\n\n"
