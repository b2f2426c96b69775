"""HTTP/2 frames of one call, which no gRPC library shows, and a server that breaks off."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import StringValue

from tests.interop.support.errors import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4


def is_trailers_only(address: str, shape: str, row: str) -> bool:
    """Call a method, and return whether the answer is one block of headers and nothing else."""
    host, _, port = address.rpartition(":")
    message = StringValue(value=row).SerializeToString()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/interop.Errors/{shape}",
        ":authority": address,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # A literal header without indexing, and without Huffman coding (RFC 7541, section 6.2.2).
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    body = struct.pack(">BI", 0, len(message)) + message
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        connection.sendall(_frame(_DATA, _END_STREAM, 1, body))
        kind, flags = next(_answer(connection))
    return kind == _HEADERS and bool(flags & _END_STREAM)


@contextmanager
def serving_crashes() -> Iterator[tuple[str, list[str]]]:
    """Serve calls as a process that crashes: read the request, then break the connection.

    Yield the address, and a list that grows by one with each call.
    """
    begun: list[str] = []

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(_frame(_SETTINGS, 0, 0))
            self.rfile.read(len(_PREFACE))
            while len(head := self.rfile.read(9)) == 9:
                kind, flags, _ = struct.unpack(">BBI", head[3:])
                self.rfile.read(int.from_bytes(head[:3], "big"))
                if kind == _SETTINGS and not flags & _ACK:
                    self.wfile.write(_frame(_SETTINGS, _ACK, 0))
                if kind == _DATA and flags & _END_STREAM:
                    begun.append("call")
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", begun
        finally:
            server.shutdown()
            thread.join()


def _text(text: str) -> bytes:
    assert len(text) < 0x7F  # a longer length takes more bytes
    return bytes([len(text)]) + text.encode("ascii")


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = struct.pack(">I", len(payload))[1:]
    return length + struct.pack(">BBI", kind, flags, stream) + payload


def _answer(connection: socket.socket) -> Iterator[tuple[int, int]]:
    """Yield type and flags of each frame of stream 1."""
    with connection.makefile("rb") as received:
        while len(head := received.read(9)) == 9:
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            received.read(int.from_bytes(head[:3], "big"))
            if kind == _SETTINGS and not flags & _ACK:
                connection.sendall(_frame(_SETTINGS, _ACK, 0))
            if stream == 1:
                assert kind != _RST_STREAM
                yield kind, flags
