"""What the page's server refuses, and the headers of all its answers.

A browser may be made to send requests to the router by any other site. So no answer can be read or
framed by another site, a request that changes something must come from this one, and without tokens
the router must be addressed by a name that no other site can point at it (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer, with which a browser sends "Origin: null" along with a form.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses requests that another site may have caused; passes on the others.

    Args:
        app: the application.
        host: the name or address that `--http` gives.
        any_host: whether the router may be addressed by any name, since it asks for a token.
    """

    def __init__(self, app: ASGIApp, host: str, *, any_host: bool) -> None:
        self._app = app
        self._host = host.lower()
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # A file that has not changed is not sent again; a state is never stored.
                headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            status, text = refusal
            answer = JSONResponse({"error": text}, status)
            await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any_host and not self._is_own(host):
            return 421, (
                "without --tokens, the page is served only to those who address the router by an "
                "IP address, as localhost, or by the name that --http gives"
            )
        site = headers.get("sec-fetch-site", "same-origin")
        opens_page = headers.get("sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if site not in ("same-origin", "none") and not opens_page:
            return 403, "this request comes from another site"
        # A proxy in front of the router may serve TLS and pass on plain HTTP.
        own = {f"{scope['scheme']}://{host}", f"https://{host}"}
        if scope["method"] not in ("GET", "HEAD") and headers.get("origin") not in own:
            return 403, "a request that changes something must come from the page itself"
        return None

    def _is_own(self, host: str) -> bool:
        if host.startswith("["):
            name = host[1:].partition("]")[0]
        else:
            name = host.lower().partition(":")[0]
        if name in ("localhost", self._host):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
