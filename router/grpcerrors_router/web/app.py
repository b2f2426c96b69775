"""The page's application: static files, the stream of states, and the buttons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from grpcerrors_router.errors import InternalFailure, RouteError
from grpcerrors_router.validation import Invalid
from grpcerrors_router.web.actions import Actions
from grpcerrors_router.web.feed import VIEWERS_LIMIT, Feed
from grpcerrors_router.web.guard import Guard
from grpcerrors_router.web.login import login_routes
from grpcerrors_router.web.requests import client_of, json_of
from grpcerrors_router.web.stream import EventStream
from grpcerrors_router.web.window import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.web.sessions import Sessions

HISTORY_LIMIT = 100
"""Entries of a model's history."""

STATIC = Path(__file__).with_name("static")

_log = structlog.get_logger("router.page")


class Page:
    """The page of one router.

    Args:
        router: the router.
        host: the name or address that `--http` gives.
        sessions: who has logged in; None if anybody may look and act.

    Attributes:
        app: the ASGI application.
        feed: what its viewers see.
    """

    def __init__(self, router: SmartRouter, host: str, sessions: Sessions | None = None) -> None:
        self._router = router
        self._sessions = sessions
        self._actions = Actions(router)
        self.feed = Feed(router.state.picture)
        routes = [
            Route("/", self._page),
            Route("/events", self._answering(self._events)),
            Route("/history", self._answering(self._history)),
            Route("/actions/{name}", self._answering(self._act), methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        if sessions is not None:
            routes += login_routes(sessions)
        self.app: ASGIApp = Guard(Starlette(routes=routes), host, any_host=sessions is not None)

    async def close(self) -> None:
        """End the streams, and stop waiting for loads."""
        await self.feed.close()
        await self._actions.close()

    def _operator(self, request: Request) -> str | None:
        """Return who asks; "" if nobody has to log in, and None if they have not."""
        return "" if self._sessions is None else self._sessions.operator(request)

    async def _page(self, request: Request) -> Response:
        if self._operator(request) is None:
            return RedirectResponse("/login", 303)
        page = (STATIC / "index.html").read_text()
        if self._sessions is not None:
            page = page.replace("<body>", "<body data-login>")
        return HTMLResponse(page)

    # Data

    def _answering(
        self, answer: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Answer only operators, and answer errors in words."""

        async def endpoint(request: Request) -> Response:
            if self._operator(request) is None:
                return JSONResponse({"error": "log in again", "reason": "UNAUTHENTICATED"}, 401)
            try:
                return await answer(request)
            except RouteError as error:
                return JSONResponse({"error": error.details(), "reason": error.reason}, 409)
            except Invalid as error:
                return JSONResponse({"error": str(error), "reason": "INVALID_REQUEST"}, 400)
            except Exception:  # noqa: BLE001 - its text may contain SQL
                _log.exception("a request of the page failed: internal error")
                bug = InternalFailure()
                return JSONResponse({"error": bug.details(), "reason": bug.reason}, 500)

        return endpoint

    async def _events(self, request: Request) -> Response:
        if self.feed.is_full:
            text = f"{VIEWERS_LIMIT} viewers are watching already; close another one"
            return JSONResponse({"error": text, "reason": "OVERLOADED"}, 503)
        return EventStream(self._updates(request))

    async def _updates(self, request: Request) -> AsyncIterator[str]:
        async with self.feed.watching():
            async for update in self.feed.updates(Window.parse(request.query_params)):
                if self._operator(request) is None:
                    return
                yield update

    async def _history(self, request: Request) -> Response:
        model = request.query_params.get("model", "")
        return JSONResponse(MessageToDict(await self._router.state.history(model, HISTORY_LIMIT)))

    async def _act(self, request: Request) -> Response:
        name = request.path_params["name"]
        act = self._actions.by_name.get(name)
        if act is None:
            return JSONResponse({"error": f"there is no action {name}"}, 404)
        asked = await json_of(request)
        known = {key: asked[key] for key in ("model", "node", "force", "off") if key in asked}
        _log.info(
            "an operator acts", action=name, operator=self._operator(request),
            client=client_of(request), **known,
        )  # fmt: skip
        try:
            return JSONResponse({"text": await act(asked)})
        finally:
            self.feed.nudge()
