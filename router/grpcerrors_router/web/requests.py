"""What the page's server reads from requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from grpcerrors_router.validation import Invalid

if TYPE_CHECKING:
    from starlette.requests import Request

BODY_LIMIT = 16 * 1024
"""Bytes of a request's body."""


async def _body_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise Invalid(f"the request has more than {BODY_LIMIT} bytes")
    return body


async def json_of(request: Request) -> dict[str, Any]:
    """Return the object that a request sends. Raises Invalid."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Invalid("send application/json")
    body = await _body_of(request)
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise Invalid("the request is not a JSON object")
    return sent


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; none if it cannot be read."""
    try:
        return dict(parse_qsl((await _body_of(request)).decode("ascii"), max_num_fields=10))
    except ValueError:
        return {}


def client_of(request: Request) -> str:
    """Return the address that a request came from."""
    return request.client.host if request.client is not None else ""
