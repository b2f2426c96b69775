"""How the gateway ends a call with an error of the router."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from grpcerrors_router.errors import InternalFailure, InvalidNode, RouteError
from grpcerrors_router.validation import Invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

log = structlog.get_logger("router")


async def abort(context: Any, error: grpc.aio.AioRpcError) -> None:
    """End the call of `context` with `error` and its trailers."""
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))


@contextlib.asynccontextmanager
async def errors_of(
    context: Any, refused: Callable[[RouteError], None] = lambda _: None
) -> AsyncIterator[None]:
    """End the call with what the body raises: a RouteError as it is, Invalid as InvalidNode.

    Any other exception is a bug. Its text, which may contain SQL, goes to the log and not to the
    caller. `refused` is called with the others.
    """
    try:
        yield
    except (RouteError, Invalid) as error:
        refusal = error if isinstance(error, RouteError) else InvalidNode(str(error))
        refused(refusal)
        await abort(context, refusal)
    except Exception:
        log.exception("call failed: internal error")
        await abort(context, InternalFailure())
