"""The server that a command talks to, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc.aio import AioRpcError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from grpcerrors.cli._inputs import Authority

# By default gRPC waits a second after the first failure and longer after each further one, so it
# would find a server that is just starting late.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),  # images and audio have more than 4 MiB
]
# Seconds between two checks of the channel's state.
_POLL = 0.02
# The text of a failure while a server is not listening yet.
_NOT_YET = "Connection refused"
# Called to learn why there is no connection; it changes nothing if it arrives.
_HARMLESS = "/grpc.health.v1.Health/Check"


# The header that tells a router, or a backend with several models, which one a call is for.
MODEL_ID = "x-model-id"


class Server(NamedTuple):
    """A server, and how to talk to it.

    Attributes:
        address: HOST:PORT.
        metadata: headers to send with each call.
        authority: certificates to trust over TLS; None for plain text.
        wait: seconds to wait for the port to open.
        timeout: seconds to wait for the answer of each call.
    """

    address: str
    metadata: Sequence[tuple[str, str | bytes]] = ()
    authority: Authority | None = None
    wait: float = 5.0
    timeout: float = 5.0

    def with_header(self, key: str, value: str) -> Server:
        """Return the server with one more header to send."""
        return self._replace(metadata=(*self.metadata, (key, value)))

    def command(self, name: str, *words: str) -> str:
        """Return a shell command that calls this server.

        The values of headers are left out, except for the model: they may be secret.
        """
        headers = (
            ("--model", str(value)) if key == MODEL_ID else ("--metadata", f"{key}=...")
            for key, value in self.metadata
        )
        tls = ("--tls-ca", self.authority.path) if self.authority else ()
        options = (word for header in headers for word in header)
        return shlex.join(["grpcerrors", name, self.address, *words, *options, *tls])


class CommandError(Exception):
    """The command cannot do what it is asked. The message says why, and what to do."""


def open_channel(package: Any, server: Server) -> Any:
    """Open a channel of `grpc` or `grpc.aio` without waiting for the connection."""
    # With an explicit scheme, so that no host name is taken for one ("unix:50051").
    address = f"dns:///{server.address}"
    if server.authority is None:
        return package.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(server.authority.pem)
    return package.secure_channel(address, credentials, options=_OPTIONS)


@contextlib.asynccontextmanager
async def connect(server: Server) -> AsyncGenerator[Any, None]:
    """Open an aio channel to the server, waiting for the port to open.

    Raises:
        CommandError: the server cannot be reached.
    """
    async with open_channel(grpc.aio, server) as channel:
        failure = await _settle(channel, server.wait)
        if channel.get_state() is not grpc.ChannelConnectivity.READY:
            raise CommandError(_unreachable(server, failure))
        yield channel


async def _settle(channel: Any, timeout: float) -> str:
    """Wait until the channel is connected or has failed for good; return the last failure."""
    failure = ""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    # Not channel.wait_for_state_change(): gRPC keeps the watch of a waiter that has given up.
    while (left := deadline - clock()) > 0:
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            break
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            failure = await _cause(channel, left) or failure
            if failure and _NOT_YET not in failure:
                break
        await asyncio.sleep(_POLL)
    return failure


async def _cause(channel: Any, timeout: float) -> str:
    """Return why there is no connection; "" if there is one now."""
    try:
        await channel.unary_unary(_HARMLESS)(b"", timeout=timeout)
    except AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return error.details() or ""
    return ""


def _unreachable(server: Server, failure: str) -> str:
    if not failure:
        return (
            f"{server.address} did not speak gRPC within {server.wait:g} s: is it the port of"
            " the backend, and does the backend's own log say that it serves?"
        )
    hint = (
        "start the backend first, or wait longer with --wait; if it serves TLS, name its CA with"
        " --tls-ca"
        if server.authority is None
        else "if it serves plain text, leave --tls-ca out; else its certificate must be for this"
        " host and signed by that CA"
    )
    return f"cannot reach {server.address}: {failure} ({hint})"
