"""The server that a command talks to, and the connection to it."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc.aio import AioRpcError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from grpcerrors.cli._inputs import Pem, Token

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
# The text of a failure when the server has closed the connection.
_CLOSED = "Socket closed"
# What the failures over TLS mean. The wording of the host's check differs between versions of gRPC.
_MUST_BE_SIGNED = "its certificate must be valid, and signed by a CA in --tls-ca"
_TLS_HINTS = (
    ("WRONG_VERSION_NUMBER", "it serves plain text: leave the options of TLS out"),
    ("Hostname Verification", "its certificate must be for this host, as you have named it"),
    ("not in peer certificate", "its certificate must be for this host, as you have named it"),
    ("CERTIFICATE_VERIFY_FAILED", _MUST_BE_SIGNED),
    ("BAD_SIGNATURE", _MUST_BE_SIGNED),  # by another CA of the same name
    (_CLOSED, "if it asks its clients for a certificate, give --tls-cert and --tls-key"),
)
# Called to learn why there is no connection; it changes nothing if it arrives.
_HARMLESS = "/grpc.health.v1.Health/Check"


# The header that tells a router, or a backend with several models, which one a call is for.
MODEL_ID = "x-model-id"


class Trust(NamedTuple):
    """How to connect over TLS.

    Attributes:
        ca: certificates to trust; None for those that the system trusts.
        cert: the certificate to show; None for none.
        key: its private key.
    """

    ca: Pem | None = None
    cert: Pem | None = None
    key: Pem | None = None

    def check(self) -> None:
        """Check that the files can be used. Raises CommandError."""
        try:
            Trust(self.ca).context()
        except ssl.SSLError as error:
            path = self.ca and self.ca.path
            raise CommandError(f"--tls-ca {path} cannot be read: it is damaged") from error
        if self.cert is None and self.key is None:
            return
        if self.cert is None or self.key is None:
            raise CommandError("--tls-cert and --tls-key need each other: give both")
        try:
            self.context()
        except ssl.SSLError as error:
            raise CommandError(
                f"--tls-key {self.key.path} does not belong to --tls-cert {self.cert.path}, or it"
                " is encrypted or damaged"
            ) from error

    def context(self) -> ssl.SSLContext:
        """Return a context for a connection without gRPC."""
        context = ssl.create_default_context(cadata=_text(self.ca.pem) if self.ca else None)
        if self.cert and self.key:
            # With an empty password, since OpenSSL would ask for it at the terminal.
            context.load_cert_chain(self.cert.path, self.key.path, "")
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials for a channel."""
        return grpc.ssl_channel_credentials(
            *(pem and pem.pem for pem in (self.ca, self.key, self.cert))
        )

    def options(self) -> list[str]:
        """Return the options of a command that connects like this."""
        named = (("--tls-ca", self.ca), ("--tls-cert", self.cert), ("--tls-key", self.key))
        words = [word for option, pem in named if pem for word in (option, pem.path)]
        return words if self.ca else ["--tls", *words]


def _text(pem: bytes) -> str:
    """Return the certificates in a file; the names between them may be in any script."""
    return pem.decode("ascii", "ignore")


class Server(NamedTuple):
    """A server, and how to talk to it.

    Attributes:
        address: HOST:PORT.
        headers: headers to send with each call, without the token.
        tls: how to connect over TLS; None for plain text.
        token: the token to send; None for none.
        wait: seconds to wait for the port to open.
        timeout: seconds to wait for the answer of each call.
    """

    address: str
    headers: Sequence[tuple[str, str | bytes]] = ()
    tls: Trust | None = None
    token: Token | None = None
    wait: float = 5.0
    timeout: float = 5.0

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """All headers to send with each call."""
        if self.token is None:
            return tuple(self.headers)
        return (*self.headers, ("authorization", f"Bearer {self.token.text}"))

    def with_header(self, key: str, value: str) -> Server:
        """Return the server with one more header to send."""
        return self._replace(headers=(*self.headers, (key, value)))

    def command(self, name: str, *words: str) -> str:
        """Return a shell command that calls this server.

        The values of headers are left out, except for the model: they may be secret.
        """
        headers = (
            ("--model", str(value)) if key == MODEL_ID else ("--metadata", f"{key}=...")
            for key, value in self.headers
        )
        options = [word for header in headers for word in header]
        if self.token:
            options += ["--token-file", self.token.path]
        if self.tls:
            options += self.tls.options()
        return shlex.join(["grpcerrors", name, self.address, *words, *options])


class CommandError(Exception):
    """The command cannot do what it is asked. The message says why, and what to do."""


def open_channel(package: Any, server: Server) -> Any:
    """Open a channel of `grpc` or `grpc.aio` without waiting for the connection."""
    # With an explicit scheme, so that no host name is taken for one ("unix:50051").
    address = f"dns:///{server.address}"
    if server.tls is None:
        return package.insecure_channel(address, options=_OPTIONS)
    return package.secure_channel(address, server.tls.credentials(), options=_OPTIONS)


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
    return f"cannot reach {server.address}: {failure} ({_hint(server, failure)})"


def _hint(server: Server, failure: str) -> str:
    if server.tls is not None:
        for sign, hint in _TLS_HINTS:
            if sign in failure:
                return hint
    elif _CLOSED in failure:
        return "if it serves TLS, name its CA with --tls-ca, or give --tls if the system trusts it"
    return "start the backend first, or wait longer with --wait"
