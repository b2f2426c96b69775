"""The check of the token that callers of a host must send, before anything else sees a call.

The rules are those of LocalAI's backends, so that what calls these can call a host: each value of
`authorization` must be "Bearer TOKEN", exactly, for every RPC, Health too. Only the health service
of gRPC is open: it says no more than that the process serves.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from grpc_health.v1 import health

from grpcerrors import ContractError, abort
from grpcerrors_backends.host.refusals import UNAUTHENTICATED
from grpcerrors_protocol.seldom import Seldom
from grpcerrors_protocol.token_file import TokenFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

log = structlog.get_logger()

VARIABLE: Final = "LOCALAI_GRPC_AUTH_TOKEN"
"""The environment variable with which LocalAI gives its backends their token."""

_OPEN = f"/{health.SERVICE_NAME}/"


def check_of(backend: str, path: Path | None) -> Check | None:
    """Return the check of *backend* by the file at *path* and the environment; None without both.

    Raises TokenFileError if the file cannot be used.
    """
    file = None if path is None else TokenFile(path)
    variable = os.environ.get(VARIABLE, "")
    return Check(backend, file, variable) if file or variable else None


class Check:
    """Decides whether a call has a token of *file*, or *token*."""

    def __init__(self, backend: str, file: TokenFile | None, token: str = "") -> None:
        self._backend = backend
        self._file = file
        self._fixed = (token,) if token else ()
        self._seldom = Seldom()

    def allows(self, call: Any) -> bool:
        """Return whether the call of these HandlerCallDetails may be handled."""
        if call.method.startswith(_OPEN):
            return True
        pairs: Iterable[tuple[str, str | bytes]] = call.invocation_metadata
        sent = [value for key, value in pairs if key == "authorization"]
        return bool(sent) and all(self._is_valid(value) for value in sent)

    def _is_valid(self, sent: str | bytes) -> bool:
        header = sent.encode(errors="surrogatepass") if isinstance(sent, str) else sent
        tokens = (*(self._file.tokens if self._file else ()), *self._fixed)
        # With each of them, and to the end, so that the time shows nothing about them.
        return sum(hmac.compare_digest(header, f"Bearer {each}".encode()) for each in tokens) > 0

    def refusal(self, peer: str) -> ContractError:
        """Log the refusal of a call, and return the error."""
        others = self._seldom.now()
        if others is not None:
            log.warning("refused a call without a valid token", peer=peer, others=others)
        problem = (
            'no valid token; send the metadata authorization: "Bearer TOKEN" with a token of '
            f"the file of --token-file (or of {VARIABLE}) of this backend"
        )
        return ContractError(UNAUTHENTICATED, backend=self._backend, problem=problem)


class TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """The check on a sync server."""

    def __init__(self, check: Check) -> None:
        self._check = check

        def refuse(_requests: object, context: Any) -> Any:
            abort(context, check.refusal(context.peer()))

        # A stream of messages in each direction fits every RPC, and waits for none.
        self._refuse = grpc.stream_stream_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Callable[[Any], Any], call: Any) -> Any:
        """Return the handler of a call that is allowed, or one that refuses it."""
        return continuation(call) if self._check.allows(call) else self._refuse


class AioTokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """The check on an aio server."""

    def __init__(self, check: Check) -> None:
        self._check = check

        async def refuse(_requests: object, context: Any) -> Any:
            await abort(context, check.refusal(context.peer()))

        self._refuse = grpc.stream_stream_rpc_method_handler(refuse)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], call: Any
    ) -> Any:
        """Return the handler of a call that is allowed, or one that refuses it."""
        return await continuation(call) if self._check.allows(call) else self._refuse
