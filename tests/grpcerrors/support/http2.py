"""A call over a socket, to see the frames of the answer, which gRPC's clients do not show."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0x0, 0x1, 0x3, 0x4, 0x6
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_SECONDS = 30.0  # that only a hang reaches


class Frames(NamedTuple):
    """The kinds of the frames of an answer, in order, and whether its first one was its last."""

    kinds: list[str]
    trailers_only: bool


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header that is not indexed (RFC 7541, section 6.2.2); each length is below 127."""
    pair = (name.encode(), value.encode())
    return b"\0" + b"".join(bytes([len(text)]) + text for text in pair)


def ask(target: str, path: str, message: Any) -> Frames:
    """Call an RPC with one message, and read frames until the call has ended."""
    host, _, port = target.rpartition(":")
    body = message.SerializeToString()
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", target),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*each) for each in headers))
            + _frame(_DATA, _END_STREAM, 1, b"\0" + struct.pack(">I", len(body)) + body)
        )
        with connection.makefile("rb") as answer:
            kinds: list[str] = []
            while True:
                length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + answer.read(9))
                payload = answer.read(length)
                if kind in (_SETTINGS, _PING) and not flags & _ACK:
                    back = payload if kind == _PING else b""
                    connection.sendall(_frame(kind, _ACK, 0, back))
                if stream != 1 or kind not in (_DATA, _HEADERS, _RST_STREAM):
                    continue
                kinds.append({_DATA: "DATA", _HEADERS: "HEADERS"}.get(kind, "RST_STREAM"))
                if kind == _RST_STREAM or flags & _END_STREAM:
                    return Frames(kinds, kinds == ["HEADERS"])
