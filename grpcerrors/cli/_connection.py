"""The server to check, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc.aio import AioRpcError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

# By default gRPC waits a second after the first failure and longer after each further one, so it
# would find a server that is just starting late.
_RETRY = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
# Seconds between two checks of the channel's state.
_POLL = 0.02
# The text of a failure while a server is not listening yet.
_NOT_YET = "Connection refused"
# Called to learn why there is no connection; it changes nothing if it arrives.
_HARMLESS = "/grpc.health.v1.Health/Check"


class Target(NamedTuple):
    """What to check, and how.

    Attributes:
        address: HOST:PORT.
        service: its full name.
        methods: the RPCs to call; empty to find them.
        every: whether to call every RPC of the service except LocalAI's control plane.
        metadata: headers to send with each call.
        authority: certificates in PEM form to trust over TLS; None for plain text.
        timeout: seconds to wait for the server, and for each call.
    """

    address: str
    service: str
    methods: Sequence[str] = ()
    every: bool = False
    metadata: Sequence[tuple[str, str | bytes]] = ()
    authority: bytes | None = None
    timeout: float = 5.0


class CannotCheckError(Exception):
    """The check is not possible. The message says why, and what to do."""


@contextlib.asynccontextmanager
async def connect(target: Target) -> AsyncGenerator[Any, None]:
    """Open an aio channel to the target, waiting for the port to open.

    Raises:
        CannotCheckError: the server cannot be reached.
    """
    # With an explicit scheme, so that no host name is taken for one ("unix:50051").
    address = f"dns:///{target.address}"
    if target.authority is None:
        made = grpc.aio.insecure_channel(address, options=_RETRY)
    else:
        credentials = grpc.ssl_channel_credentials(target.authority)
        made = grpc.aio.secure_channel(address, credentials, options=_RETRY)
    async with made as channel:
        failure = await _settle(channel, target.timeout)
        if channel.get_state() is not grpc.ChannelConnectivity.READY:
            raise CannotCheckError(_unreachable(target, failure))
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


def _unreachable(target: Target, failure: str) -> str:
    if not failure:
        return (
            f"{target.address} did not speak gRPC within {target.timeout:g} s: is it the port of"
            " the backend, and does the backend's own log say that it serves?"
        )
    hint = (
        "start the backend first; if it serves TLS, name its CA with --tls-ca"
        if target.authority is None
        else "if it serves plain text, leave --tls-ca out; else its certificate must be for this"
        " host and signed by that CA"
    )
    return f"cannot reach {target.address}: {failure} ({hint})"
