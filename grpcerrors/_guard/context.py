"""What grpcio's server contexts hide: the loop of an aio server, and trailers already set."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any


def run(sent: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """Await on a server's loop, from whatever thread, what an aio context returned.

    Args:
        sent: a coroutine of the server.
        loop: the server's loop.

    Returns:
        Its result; in a thread that runs a loop itself the coroutine, for the caller to await.

    Raises:
        Exception: as the coroutine, such as `grpc.aio.AbortError`.
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
    """Return the running loop of an aio context's server, by gRPC's internals; None without one."""
    for held in gc.get_referents(context):
        if isinstance(held, asyncio.AbstractEventLoop) and held.is_running():
            return held
    return None


def trailers_of(context: Any) -> tuple[Any, ...]:
    """Return the trailers that have been set on a context of any kind."""
    read: Any = getattr(context, "trailing_metadata", None)
    if read is None:
        # On an aio server a sync handler's context has the trailers and no way to read them. This
        # leans on its internals: should they change, earlier trailers are lost, the error is not.
        inner = (getattr(held, "trailing_metadata", None) for held in gc.get_referents(context))
        read = next(filter(callable, inner), None)
    trailers: Iterable[Any] | None = read() if read is not None else ()
    return tuple(trailers) if isinstance(trailers, Iterable) else ()
