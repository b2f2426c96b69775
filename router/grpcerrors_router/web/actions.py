"""What the buttons of the page do: load, unload, drain and forgive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpcerrors_router.state.words import number
from grpcerrors_router.tasks import stop
from grpcerrors_router.validation import Invalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpcerrors_router.router import SmartRouter

LOAD_TIMEOUT = 3600.0
"""Seconds after which a load that an operator asked for is given up."""

PATIENCE = 2.0
"""Seconds to wait for the end of a load. If it takes longer, the page shows how it proceeds."""


class Actions:
    """Acts on the router, and says in words what it did.

    Each method takes the arguments that the page sent, and raises RouteError if the router refuses,
    or Invalid if they make no sense.
    """

    def __init__(self, router: SmartRouter) -> None:
        self._router = router
        self._loads: dict[str, asyncio.Task[str]] = {}
        self.by_name: dict[str, Callable[[dict[str, Any]], Awaitable[str]]] = {
            "load": self._load,
            "unload": self._unload,
            "drain": self._drain,
            "forgive": self._forgive,
        }

    async def _load(self, asked: dict[str, Any]) -> str:
        model = _text(asked, "model")
        task = self._loads.get(model)
        if task is None:
            task = asyncio.create_task(self._router.load(model, timeout=LOAD_TIMEOUT))
            self._loads[model] = task
            task.add_done_callback(lambda task: self._ended(model, task))
        await asyncio.wait({task}, timeout=PATIENCE)
        if task.done():
            return f"{model} is loaded on {task.result()}"
        return f"{model} is being loaded"

    def _ended(self, model: str, task: asyncio.Task[str]) -> None:
        self._loads.pop(model, None)
        if not task.cancelled():
            task.exception()  # the page shows it as a problem

    async def _unload(self, asked: dict[str, Any]) -> str:
        model, node = _text(asked, "model"), _text(asked, "node", "")
        nodes = await self._router.unload(
            model, node=node or None, force=asked.get("force") is True
        )
        return f"{model} was unloaded from {', '.join(nodes)}" if nodes else f"no node held {model}"

    async def _drain(self, asked: dict[str, Any]) -> str:
        node, off = _text(asked, "node"), asked.get("off") is True
        calls = await self._router.operations.drain(node, off=off)
        if off:
            return f"{node} takes requests again"
        running = f"; {number(calls, 'call')} may still run to the end" if calls else ""
        return f"{node} is drained{running}"

    async def _forgive(self, asked: dict[str, Any]) -> str:
        model, node = _text(asked, "model", ""), _text(asked, "node", "")
        ended = await self._router.operations.forgive(model, node)
        if not ended:
            return "there was nothing to forgive"
        return f"{number(len(ended), 'pause')} ended; the next request tries again"

    async def close(self) -> None:
        """Stop waiting for loads."""
        await stop(self._loads.values())


def _text(asked: dict[str, Any], name: str, default: str | None = None) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise Invalid(f"the request must name the {name}")
    return value
