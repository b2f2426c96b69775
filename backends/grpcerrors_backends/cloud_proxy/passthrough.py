"""Filtering of what a Forward call may send to the upstream."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from grpcerrors_backends.model import BadInput
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import httpx

_BODILESS: Final = ("GET", "HEAD", "OPTIONS")
_METHODS: Final = (*_BODILESS, "POST", "PUT", "PATCH", "DELETE")
# Headers of one connection (RFC 9110, section 7.6.1), and those that httpx sets itself.
_HOP_BY_HOP: Final = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PATH: Final = re.compile(r"/[!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*")


def target(upstream: httpx.URL, path: str) -> httpx.URL:
    """Return the URL of a call: *upstream*, with *path* if it has no path, as in LocalAI.

    Raises BadInput for a path that is not absolute or could leave the host.
    """
    if upstream.path not in ("", "/"):
        return upstream
    steps = unquote(path.partition("?")[0]).replace("\\", "/").split("/")
    if not _PATH.fullmatch(path) or path.startswith("//") or {".", ".."} & set(steps):
        message = f"path {path[:100]!r}: expected an absolute path such as /v1/models, without .."
        raise BadInput(message)
    return upstream.copy_with(raw_path=path.encode("ascii"))


def method(request: pb.ForwardRequest) -> str:
    """Return the HTTP method of a call, POST by default. Raises BadInput."""
    name = request.method.upper() or "POST"
    if name not in _METHODS:
        message = f"method {request.method[:20]!r}: expected one of {', '.join(_METHODS)}"
        raise BadInput(message)
    return name


def headers(request: pb.ForwardRequest, *, has_key: bool) -> list[tuple[str, str]]:
    """Return the headers to send to the upstream. Raises BadInput for an invalid header.

    This drops the headers of the caller's connection, and the caller's Authorization if *has_key*.
    """
    pairs = [(header.name, header.value) for header in request.headers]
    for name, value in pairs:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            message = (
                f"header {name[:50]!r}: a name must be a token, and a value one line of Latin-1"
            )
            raise BadInput(message)
    dropped = _dropped(pairs) | ({"authorization"} if has_key else set())
    return [(name, value) for name, value in pairs if name.lower() not in dropped]


def reply_headers(response: httpx.Response) -> list[pb.ForwardHeader]:
    """Return the headers of the upstream's response to send to the caller."""
    pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.headers.raw]
    dropped = _dropped(pairs) - {"content-length"}
    return [pb.ForwardHeader(name=n, value=v) for n, v in pairs if n.lower() not in dropped]


def body(
    name: str, first: pb.ForwardRequest, rest: AsyncIterator[pb.ForwardRequest]
) -> AsyncIterator[bytes] | None:
    """Return the chunks of the body as they arrive, or None if the method *name* has no body.

    Raises BadInput for a body with such a method.
    """
    if name not in _BODILESS:
        return _chunks(first, rest)
    if first.body_chunk:
        message = f"{name} has no body: leave body_chunk empty"
        raise BadInput(message)
    return None


async def _chunks(
    first: pb.ForwardRequest, rest: AsyncIterator[pb.ForwardRequest]
) -> AsyncIterator[bytes]:
    if first.body_chunk:
        yield first.body_chunk
    async for request in rest:
        if request.body_chunk:
            yield request.body_chunk


def _dropped(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the lower-case names of this hop's headers: fixed ones and those in Connection."""
    listed = (value for name, value in pairs if name.lower() == "connection")
    return _HOP_BY_HOP.union(part.strip().lower() for value in listed for part in value.split(","))
