"""Ending a call with an error of the contract, from any kind of handler."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

from grpcerrors import _wire
from grpcerrors._guard.context import loop_of, on_a_loop, run, trailers_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from grpcerrors._error import ContractError

_OF_THE_ERROR = (_wire.DETAILS_KEY, _wire.UNEXECUTED_KEY, _wire.HELD_KEY)


class SyncContext(Protocol):
    """What `abort` needs of a sync handler's context, on a sync or an aio server."""

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
    A sync handler that another interceptor runs in a thread pool counts as sync, whatever its
    context is. Trailers set earlier are kept, which `context.abort_with_status` does not do, except
    for details, `grpcerrors-unexecuted` and `grpcerrors-held`, which belong to another error.

    Raises:
        Exception: always; on gRPC's own contexts the one with which gRPC ends a handler, else
            `error`.
    """
    earlier = [item for item in trailers_of(context) if item[0].lower() not in _OF_THE_ERROR]
    context.set_trailing_metadata((*earlier, *error.trailing_metadata))
    sent = context.abort(error.code, error.details)
    if inspect.isawaitable(sent):
        if not on_a_loop() and (loop := loop_of(context)):
            # In a sync handler that an interceptor of an aio server runs in a thread pool, nothing
            # would await the coroutine.
            run(sent, loop)
        return _finish(sent, error)
    # Older grpcio returns here from a sync handler's abort on an aio server.
    raise error


async def _finish(sent: Awaitable[Any], error: ContractError) -> NoReturn:
    await sent
    raise error
