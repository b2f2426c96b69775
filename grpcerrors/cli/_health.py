"""The command `grpcerrors health`: whether a server is ready for calls, as an exit code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer
from grpc.aio import AioRpcError

from grpcerrors.cli import _options
from grpcerrors.cli._connection import Server, connect
from grpcerrors.cli._text import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OK, FAILED = 0, 1

EXAMPLES = """Exit codes: 0 when the server is serving, 1 when it is not, 2 when it cannot be
reached.

Examples:

\b
  grpcerrors health 127.0.0.1:50050
  grpcerrors health localhost:50050 --tls-ca ca.pem
"""

# Of grpc.health.v1: an empty request asks for the whole server, and the answer is one enum.
_CHECK = "/grpc.health.v1.Health/Check"
_STATUS = {
    b"": "UNKNOWN",
    b"\x08\x00": "UNKNOWN",
    b"\x08\x01": "SERVING",
    b"\x08\x02": "NOT_SERVING",
    b"\x08\x03": "SERVICE_UNKNOWN",
}


@_options.connects
def health(*, server: Server) -> int:
    """Ask a server whether it is serving.

    It prints what the gRPC health service reports: SERVING or NOT_SERVING. Containers and service
    managers can use it as a probe.
    """
    return asyncio.run(_health(server._replace(timeout=server.wait)))


async def _health(server: Server) -> int:
    async with connect(server) as channel:
        check: Callable[..., Awaitable[bytes]] = channel.unary_unary(_CHECK)
        try:
            answer = await check(b"", timeout=server.timeout, metadata=server.metadata)
        except AioRpcError as error:
            typer.echo(f"{error.code().name}: {printable(error.details() or '')}", err=True)
            return FAILED
    status = _STATUS.get(answer, "UNKNOWN")
    typer.echo(status)
    return OK if status == "SERVING" else FAILED
