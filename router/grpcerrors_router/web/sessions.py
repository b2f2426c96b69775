"""Sessions: who has logged in to the page with an operator's token."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_router.errors import Unauthenticated
from grpcerrors_router.security.tokens import Role

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

    from grpcerrors_router.security.access import Access

LIFETIME = 12 * 3600
"""Seconds after which an operator must log in again."""

SESSIONS_LIMIT = 1000
"""Sessions at a time; the oldest is ended first."""


@dataclass(frozen=True, slots=True)
class _Session:
    header: str
    ends_at: float


class Sessions:
    """Keeps the sessions of one router, in memory only.

    A session ends when its token is revoked or loses the role *operator*.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def log_in(self, token: str, response: Response, connection: HTTPConnection) -> bool:
        """Begin a session and set its cookie; return False if the token is no operator's."""
        header = f"Bearer {token.strip()}"
        if self._name_of(header) is None:
            return False
        key = secrets.token_urlsafe(32)
        self._sessions[key] = _Session(header, time.monotonic() + LIFETIME)
        while len(self._sessions) > SESSIONS_LIMIT:
            self._sessions.popitem(last=False)
        response.set_cookie(
            _cookie(connection),
            key,
            httponly=True,
            samesite="strict",
            secure=connection.url.scheme == "https",
        )
        return True

    def log_out(self, response: Response, connection: HTTPConnection) -> None:
        """End the session and delete its cookie."""
        name = _cookie(connection)
        self._sessions.pop(connection.cookies.get(name, ""), None)
        response.delete_cookie(name, httponly=True, samesite="strict")

    def operator(self, connection: HTTPConnection) -> str | None:
        """Return the name of the token of a request's session; None if there is no session."""
        key = connection.cookies.get(_cookie(connection), "")
        session = self._sessions.get(key)
        if session is None:
            return None
        name = self._name_of(session.header) if time.monotonic() < session.ends_at else None
        if name is None:
            del self._sessions[key]
        return name

    def _name_of(self, header: str) -> str | None:
        try:
            token = self._access.identify([("authorization", header)])
        except Unauthenticated:
            return None
        return token.name if Role.OPERATOR in token.roles else None


def _cookie(connection: HTTPConnection) -> str:
    # Browsers send a cookie to every port of a host, on which other routers may have pages.
    server = connection.scope.get("server") or ("", 0)
    return f"grpcerrors-router-{server[1]}"
