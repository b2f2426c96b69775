"""The page as `serve --http` starts and stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_router.web.app import Page
from grpcerrors_router.web.server import HttpServer
from grpcerrors_router.web.sessions import Sessions

if TYPE_CHECKING:
    from grpcerrors_protocol.tls import ServerTls
    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.security.access import Access


class PageServer:
    """Serves the page of a router.

    Args:
        router: the router.
        at: host and port; port 0 for any free port.
        access: the tokens; None if anybody may look and act.
        tls: the certificate; None for plain HTTP.

    Attributes:
        page: the page.
        address: "host:port".
    """

    def __init__(
        self,
        router: SmartRouter,
        at: tuple[str, int],
        *,
        access: Access | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        host, port = at
        self.page = Page(router, host, None if access is None else Sessions(access))
        self._http = HttpServer(self.page.app, host, port, None if tls is None else tls.context())
        self._scheme = "http" if tls is None else "https"
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> str:
        """Bind and serve; return the page's URL. Raises OSError."""
        port = await self._http.start()
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return f"{self._scheme}://{self.address}/"

    async def stop(self, grace: float) -> None:
        """End the streams, and let other requests run for `grace` seconds."""
        await self.page.close()
        await self._http.stop(grace)
