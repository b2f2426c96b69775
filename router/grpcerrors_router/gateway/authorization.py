"""The check of every call's token and role, before any service sees the call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.seldom import Seldom
from grpcerrors_router.errors import PermissionDenied, RouteError
from grpcerrors_router.gateway.ending import abort
from grpcerrors_router.security.tokens import Role
from grpcerrors_router.validation import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpcerrors_router.security.access import Access

_log = structlog.get_logger("router.security")

_OPEN = f"/{health.SERVICE_NAME}/"
_REFLECTION = "/grpc.reflection."
_ROLES = {
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name: Role.NODE,
    fleet_pb2.DESCRIPTOR.services_by_name["Operator"].full_name: Role.OPERATOR,
}


def role_for(method: str) -> Role | None:
    """Return the role that an RPC needs; None if any token will do.

    What is not known to be something else is a call for a model, so nothing is open by accident.
    """
    if method.startswith(_REFLECTION):
        return None
    return _ROLES.get(method[1:].partition("/")[0], Role.CALLER)


class Authorization(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Refuses calls whose token does not have the role that their service needs.

    The services themselves check what depends on the request: the model, or the node's name.

    Args:
        access: finds the tokens.
        refused: called with the error of each call that is refused.
    """

    def __init__(self, access: Access, refused: Callable[[RouteError], None]) -> None:
        self._access = access
        self._refused = refused
        self._log = RefusalLog()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Return the handler of a call that is allowed, or one that refuses it."""
        method: str = handler_call_details.method
        if not method.startswith(_OPEN):
            try:
                self._check(method, handler_call_details.invocation_metadata)
            except RouteError as error:
                return self._refusing(method, error)
        return await continuation(handler_call_details)

    def _check(self, method: str, metadata: Any) -> None:
        token = self._access.identify(metadata)
        role = role_for(method)
        if role is not None and role not in token.roles:
            needs = f"call {method}, which needs the role {role}"
            raise PermissionDenied(token.name, needs, "add the role")

    def _refusing(self, method: str, error: RouteError) -> Any:
        async def refuse(_requests: object, context: Any) -> None:
            self._refused(error)
            self._log.refused(error, method, context.peer())
            await abort(context, error)

        # A stream of messages in each direction fits every RPC, and waits for none.
        return grpc.stream_stream_rpc_method_handler(refuse)


class RefusalLog:
    """Logs refused calls, at most one each second, with the number of the others."""

    def __init__(self, seldom: Seldom | None = None) -> None:
        self._seldom = seldom or Seldom()

    def refused(self, error: RouteError, method: str, peer: str) -> None:
        """Log a refused call, or count it; the metrics count them all."""
        others = self._seldom.now()
        if others is not None:
            _log.warning(
                "refused a call",
                reason=error.reason,
                why=error.details(),
                method=shown(method) if method else "",
                peer=peer,
                others=others or "",
            )
