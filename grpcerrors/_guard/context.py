"""What grpcio's server contexts hide: the loop of an aio server, and trailers already set."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any


def run(sent: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Run on a server's loop, from any thread, the coroutine that an aio context returned.

    Args:
        sent: a coroutine of the server.
        loop: the server's loop.

    Returns:
        The coroutine's result; in a thread that runs an event loop, the coroutine itself, for the
        caller to await.

    Raises:
        Exception: whatever the coroutine raises, such as `grpc.aio.AbortError`.
    """
    return sent if on_a_loop() else asyncio.run_coroutine_threadsafe(sent, loop).result()


def on_a_loop() -> bool:
    """Whether this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def loop_of(context: Any) -> asyncio.AbstractEventLoop | None:
    """Return the running loop of an aio context's server, found in gRPC's internals, or None."""
    for held in gc.get_referents(context):
        if isinstance(held, asyncio.AbstractEventLoop) and held.is_running():
            return held
    return None


def trailers_of(context: Any) -> tuple[Any, ...]:
    """Return the trailers that have been set on a context of any kind."""
    read: Any = getattr(context, "trailing_metadata", None)
    if read is None:
        # On an aio server, a sync handler's context has the trailers but no method to read them.
        # This relies on its internals: if they change, earlier trailers are lost, not the error.
        inner = (getattr(held, "trailing_metadata", None) for held in gc.get_referents(context))
        read = next(filter(callable, inner), None)
    trailers: Iterable[Any] | None = read() if read is not None else ()
    return tuple(trailers) if isinstance(trailers, Iterable) else ()
