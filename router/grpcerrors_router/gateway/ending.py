"""How a call to the gateway ends with an error of the router."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from grpcerrors_router.errors import InternalFailure, InvalidNode, RouteError
from grpcerrors_router.validation import Invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

log = structlog.get_logger("router")


async def abort(context: Any, error: grpc.aio.AioRpcError) -> None:
    """End the call of `context` with `error`, trailers and all."""
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata()))


@contextlib.asynccontextmanager
async def errors_of(context: Any) -> AsyncIterator[None]:
    """End the call with what the body raises: a RouteError as it is, Invalid as InvalidNode.

    Anything else is a mistake of the router. Its text stays in the log: gRPC would send it, with
    SQL in it, to the caller.
    """
    try:
        yield
    except RouteError as error:
        await abort(context, error)
    except Invalid as error:
        await abort(context, InvalidNode(str(error)))
    except Exception:  # the caller gets an answer, the log the traceback
        log.exception("a call failed for a reason that the router does not know")
        await abort(context, InternalFailure())
