"""The login form, for a router with tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from grpcerrors_router.web.requests import client_of, form_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from grpcerrors_router.web.sessions import Sessions

_FORM = Path(__file__).with_name("static") / "login.html"

_log = structlog.get_logger("router.page")


def login_routes(sessions: Sessions) -> list[Route]:
    """Return the routes that begin and end a session."""

    async def form(_request: Request) -> Response:
        return FileResponse(_FORM)

    async def log_in(request: Request) -> Response:
        token = (await form_of(request)).get("token", "")
        entered = RedirectResponse("/", 303)
        if sessions.log_in(token, entered, request):
            return entered
        _log.warning("refused a login to the page", client=client_of(request))
        return HTMLResponse(_FORM.read_text().replace(" hidden", ""), 401)

    async def log_out(request: Request) -> Response:
        left = RedirectResponse("/login", 303)
        sessions.log_out(left, request)
        return left

    return [
        Route("/login", form),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
