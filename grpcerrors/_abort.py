"""End a call with an error of the contract, from any kind of handler."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

from grpcerrors import _wire

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from grpcerrors._error import ContractError


class SyncContext(Protocol):
    """What `abort` needs of a sync handler's context, on either server."""

    def add_callback(self, callback: Any, /) -> Any: ...
    def set_trailing_metadata(self, metadata: Any, /) -> Any: ...
    def abort(self, code: Any, details: str, /) -> Any: ...


class AioContext(Protocol):
    """What `abort` needs of an aio handler's context."""

    def add_done_callback(self, callback: Any, /) -> Any: ...
    def set_trailing_metadata(self, metadata: Any, /) -> Any: ...
    def abort(self, code: Any, details: str, /) -> Awaitable[Any]: ...


@overload
def abort(context: SyncContext, error: ContractError) -> NoReturn: ...
@overload
def abort(context: AioContext, error: ContractError) -> Coroutine[Any, Any, NoReturn]: ...
def abort(context: Any, error: ContractError) -> Coroutine[Any, Any, NoReturn]:
    """End the call with `error`. It never returns: nothing after it runs.

    In a sync handler, on a sync or an aio server: `abort(context, model_not_loaded("x"))`.
    In an aio handler: `await abort(context, model_not_loaded("x"))`.
    A sync handler that another interceptor runs in a thread pool counts as sync, whatever context
    it got. Trailers set earlier are kept, which `context.abort_with_status` does not do; a
    `grpcerrors-held` among them counts within the error's 4,096 bytes.

    Raises:
        Exception: always; on gRPC's own contexts the one with which gRPC ends a handler, else
            `error`.
    """
    earlier = [item for item in trailers_of(context) if item[0].lower() != _wire.DETAILS_KEY]
    held = sum(_wire.trailer_size(item) for item in earlier if item[0] == _wire.HELD_KEY)
    status = error.within(_wire.TRAILERS_LIMIT - held)
    context.set_trailing_metadata((*earlier, *status.trailing_metadata))
    sent = context.abort(status.code, status.details)
    if inspect.isawaitable(sent):
        if not _on_a_loop() and (loop := _loop_of(context)):
            # A sync handler that an interceptor of an aio server runs in a thread pool: nobody
            # would await what it gets.
            run(sent, loop)
        return _finish(sent, error)
    # Older grpcio returns here from a sync handler's abort on an aio server.
    raise error


async def _finish(sent: Awaitable[Any], error: ContractError) -> NoReturn:
    await sent
    raise error


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
    return sent if _on_a_loop() else asyncio.run_coroutine_threadsafe(sent, loop).result()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _loop_of(context: Any) -> asyncio.AbstractEventLoop | None:
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
