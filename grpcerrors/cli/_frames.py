"""Whether an error comes trailers-only, which gRPC does not tell its users."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors.cli._connection import Server

# HTTP/2 (RFC 9113): the preface, types of frames, and flags.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_STREAM = 1
_LONGEST_BLOCK = 16_384  # bytes of a frame that any peer accepts
_PREFIX = 127  # the largest length in the first byte of an HPACK string


async def is_trailers_only(server: Server, path: str, request: bytes) -> bool | None:
    """Call an RPC, and return whether the first that comes of the answer is also the last.

    gRPC ends a refused call with one HEADERS frame, unless headers or messages went out before.
    Proxies send a call again only in the first case: they have passed nothing on by then.

    Args:
        server: the server, which is known to be reachable.
        path: /SERVICE/METHOD.
        request: the serialized message to send.

    Returns:
        None if the answer ended in another way.
    """
    with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError, ValueError):
        return await asyncio.wait_for(_first_is_last(server, path, request), server.timeout)
    return None


async def _first_is_last(server: Server, path: str, request: bytes) -> bool | None:
    host, _, port = server.address.rpartition(":")
    tls = None
    if server.tls is not None:
        tls = server.tls.context()
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT  # gRPC has accepted the certificate before
        tls.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=tls)
    try:
        block = b"".join(_literal(name, value) for name, value in _headers(server, path))
        if len(block) > _LONGEST_BLOCK:
            return None
        message = struct.pack(">BL", 0, len(request)) + request
        writer.write(
            _PREFACE
            + _frame(_SETTINGS)
            + _frame(_HEADERS, _END_HEADERS, _STREAM, block)
            + _frame(_DATA, _END_STREAM, _STREAM, message)
        )
        return await _outcome(reader, writer)
    finally:
        writer.transport.abort()  # nobody waits for the rest of the answer
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _outcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool | None:
    while True:
        head = await reader.readexactly(9)
        kind, flags = head[3:5]
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == _HEADERS:
            return bool(flags & _END_STREAM)
        if kind in (_RESET, _GOAWAY):
            return None
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            writer.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))


def _headers(server: Server, path: str) -> Iterator[tuple[str, bytes]]:
    yield ":method", b"POST"
    yield ":scheme", b"http" if server.tls is None else b"https"
    yield ":path", path.encode()
    yield ":authority", server.address.encode()
    yield "te", b"trailers"
    yield "content-type", b"application/grpc"
    for key, value in server.metadata:
        yield key, base64.b64encode(value) if isinstance(value, bytes) else value.encode()


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream) + payload


def _literal(name: str, value: bytes) -> bytes:
    """Encode a header for HPACK (RFC 7541, section 6.2.2) without any compression."""
    return b"\0" + _string(name.encode()) + _string(value)


def _string(value: bytes) -> bytes:
    if (rest := len(value) - _PREFIX) < 0:
        return bytes([len(value)]) + value
    length = [_PREFIX]
    while rest >= 128:  # noqa: PLR2004 - seven bits in each byte
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + value
