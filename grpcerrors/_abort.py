"""End a call with an error of the contract, from any kind of handler."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

from grpcerrors import _wire

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from grpcerrors._error import ContractError


class SyncContext(Protocol):
    """What `abort` asks of a sync handler's context, on either server."""

    def add_callback(self, callback: Any, /) -> Any: ...
    def set_trailing_metadata(self, metadata: Any, /) -> Any: ...
    def abort(self, code: Any, details: str, /) -> Any: ...


class AioContext(Protocol):
    """What `abort` asks of an aio handler's context."""

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
    Trailers set earlier are kept, which `context.abort_with_status` does not do; `grpcerrors-held`
    counts within the error's limit of 4,096 bytes.

    Args:
        context: the handler's context.
        error: what to answer.

    Raises:
        Exception: always; on gRPC's own contexts the one with which gRPC ends a handler, else
            `error`.
    """
    earlier = [item for item in _trailers(context) if item[0].lower() != _wire.DETAILS_KEY]
    held = sum(_wire.trailer_size(item) for item in earlier if item[0] == _wire.HELD_KEY)
    status = error.within(_wire.TRAILERS_LIMIT - held)
    context.set_trailing_metadata((*earlier, *status.trailing_metadata))
    sent = context.abort(status.code, status.details)
    if inspect.isawaitable(sent):
        return _finish(sent, error)
    # Older grpcio returns here from a sync handler's abort on an aio server.
    raise error


async def _finish(sent: Awaitable[Any], error: ContractError) -> NoReturn:
    await sent
    raise error


def _trailers(context: Any) -> Iterable[Any]:
    read: Any = getattr(context, "trailing_metadata", None)
    if read is None:
        # On an aio server a sync handler's context has the trailers and no way to read them. This
        # leans on its internals: should they change, earlier trailers are lost, the error is not.
        inner = (getattr(held, "trailing_metadata", None) for held in gc.get_referents(context))
        read = next(filter(callable, inner), None)
    trailers: Iterable[Any] | None = read() if read is not None else ()
    return tuple(trailers) if isinstance(trailers, Iterable) else ()
