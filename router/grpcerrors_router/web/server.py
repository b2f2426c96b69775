"""The HTTP server of the page, which runs on the router's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from starlette.types import ASGIApp

CONNECTIONS_LIMIT = 256
"""Connections at a time; more get 503."""

HEADER_LIMIT = 16 * 1024
"""Bytes of a request's head."""


class HttpServer:
    """Serves an application on one port.

    Args:
        app: the application.
        host: the address to bind.
        port: 0 for any free port.
        tls: the TLS context; None for plain HTTP.
    """

    def __init__(
        self, app: ASGIApp, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._host, self._port = host, port
        self._config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            log_level="warning",
            limit_concurrency=CONNECTIONS_LIMIT,
            h11_max_incomplete_event_size=HEADER_LIMIT,
        )
        self._config.load()
        self._config.ssl = tls
        self._server = _Server(self._config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Bind and serve; return the port.

        Raises OSError when the address cannot be bound.
        """
        bound = await _bind(self._host, self._port)
        self._task = asyncio.create_task(self._server.serve(sockets=[bound]))
        return int(bound.getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Accept no more requests, and let those in progress run for `grace` seconds."""
        if self._task is not None:
            # uvicorn takes whole seconds.
            self._config.timeout_graceful_shutdown = max(1, round(grace))
            self._server.should_exit = True
            await self._task


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _bind(host: str, port: int) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # so that who connects before the server runs has to wait only
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return bound
