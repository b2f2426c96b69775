"""Random input for the ports of routers and nodes: bytes, HTTP/2 frames, messages, metadata."""

from __future__ import annotations

import asyncio
import contextlib
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import hpack
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from grpcerrors_protocol import backend_pb2, fleet_pb2, inference_pb2

if TYPE_CHECKING:
    import random

    from google.protobuf.message import Message

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SERVICES = (
    backend_pb2.DESCRIPTOR.services_by_name["Backend"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    fleet_pb2.DESCRIPTOR.services_by_name["Fleet"],
    fleet_pb2.DESCRIPTOR.services_by_name["Operator"],
)
METHODS = [
    (f"/{service.full_name}/{method.name}", GetMessageClass(method.input_type))
    for service in SERVICES
    for method in service.methods
]
OTHERS = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/other.Service/Anything",
]
# Each would be correct to wait for minutes, or to do what it says.
SKIPPED = ("/fleet.v1.Fleet/Leave", "/fleet.v1.Operator/Drain", "/fleet.v1.Operator/RemoveNode")
KEYS = (
    *("x-model-id", "x-generation", "x-boot-id", "x-inventory-version", "authorization"),
    *("cookie", "x-request-id", "grpcerrors-hop", "grpcerrors-held", "grpcerrors-unexecuted"),
    *("grpc-status-details-bin", "traceparent", "x-random", "x-random-bin", "te", "host"),
)
TEXTS = (
    *("m", "", "x" * 300, "model not loaded", "../../etc/passwd", "1e999", "a:", "127.0.0.1:0"),
    *("\x1b[31mred", "\u202e"),
)
PATHS = (
    *("/", "/metrics", "/../etc/passwd", "/%00", "/" + "x" * 9000, "/events", "/history"),
    *("/history?model=%ff", "/actions/load", "/actions/x", "/static/../app.py", "/static/%2e%2e/"),
    *("/login", "/logout", "*", "http://x/", "/\x1b[31m"),
)
DEADLINE = 1.0


@dataclass
class Found:
    """What a run has seen: how many inputs, and the status codes of calls."""

    inputs: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)


class Fuzzer:
    """Sends random input to one port. `random` decides everything."""

    def __init__(self, address: str, rng: random.Random, found: Found) -> None:
        self._address = address
        self._random = rng
        self._found = found

    async def grpc(self, count: int) -> None:
        """Send `count` inputs to a gRPC port."""
        async with grpc.aio.insecure_channel(
            self._address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            kinds = (self._bytes, self._frames, self._headers)
            for _ in range(count):
                if self._random.random() < 0.25:
                    await self._raw(self._random.choice(kinds)())
                else:
                    await self._call(channel)
                self._found.inputs += 1

    async def http(self, count: int) -> None:
        """Send `count` inputs to an HTTP port."""
        for _ in range(count):
            await self._raw(self._random.choice((self._bytes, self._http1))())
            self._found.inputs += 1

    async def _call(self, channel: Any) -> None:
        method, request = self._request()
        times = self._random.choice((1, 1, 1, 0, 3))
        metadata = self._metadata()
        if times == 1:
            call = channel.unary_stream(method)(request, timeout=DEADLINE, metadata=metadata)
        else:
            requests = iter([request] * times)
            call = channel.stream_stream(method)(requests, timeout=DEADLINE, metadata=metadata)
        try:
            async for _ in call:
                if method.endswith("/Watch") or self._random.random() < 0.2:
                    break
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            self._found.codes[code] = self._found.codes.get(code, 0) + 1
            if code == "DEADLINE_EXCEEDED":
                self._found.slow.append(method)
            # grpc.aio's client says so when the server ends the call while it still writes.
            is_own = times != 1 and error.details() == "Internal error from Core"
            if code in ("UNKNOWN", "INTERNAL") and not is_own:
                self._found.wrong.append(f"{method} {request[:60]!r}: {code} {error.details()}")
        finally:
            call.cancel()

    def _request(self) -> tuple[str, bytes]:
        if self._random.random() < 0.1:
            return self._random.choice(OTHERS), self._bytes()
        while (chosen := self._random.choice(METHODS))[0] in SKIPPED:
            pass
        method, kind = chosen
        choice = self._random.random()
        if choice < 0.3:
            return method, self._bytes()
        message = kind()
        self._fill(message, depth=2)
        data = message.SerializeToString()
        if choice < 0.5 and data:  # nearly right
            at = self._random.randrange(len(data))
            data = data[:at] + self._random.randbytes(1) + data[at + 1 :]
        return method, data

    def _fill(self, message: Message, depth: int) -> None:
        for each in message.DESCRIPTOR.fields:
            if self._random.random() < 0.5 and not each.message_type:
                with contextlib.suppress(ValueError, TypeError):
                    value = self._value(each)
                    if each.is_repeated:
                        getattr(message, each.name).extend([value] * self._random.randrange(4))
                    else:
                        setattr(message, each.name, value)
            elif depth and each.message_type and not each.message_type.GetOptions().map_entry:
                inner = getattr(message, each.name)
                self._fill(inner.add() if each.is_repeated else inner, depth - 1)

    def _value(self, of: Any) -> Any:
        if of.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            is_bytes = of.type == FieldDescriptor.TYPE_BYTES
            return self._random.randbytes(9) if is_bytes else self._random.choice(TEXTS)
        if of.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return self._random.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
        if of.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return True
        return self._random.choice((0, 1, -1, 2**31 - 1, 2**63 - 1, 2**64 - 1))

    def _metadata(self) -> list[tuple[str, str | bytes]]:
        pairs: list[tuple[str, str | bytes]] = []
        for _ in range(self._random.randrange(4)):
            key = self._random.choice(KEYS)
            if key.endswith("-bin"):
                pairs.append((key, self._random.randbytes(self._random.randrange(40))))
            elif key == "x-model-id" and self._random.random() < 0.5:
                pairs.append((key, self._random.choice(("m", "n", "cold"))))
            else:
                pairs.append((key, self._printable()))
        return pairs

    def _printable(self) -> str:
        printable = string.ascii_letters + string.digits + string.punctuation + " "
        return "".join(self._random.choices(printable, k=self._random.randrange(60))).strip()

    def _bytes(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 5, 30, 300, 3000)))

    def _frames(self) -> bytes:
        """Return the start of an HTTP/2 connection, then frames of random kinds."""
        frames = [PREFACE, frame(4, 0, 0, b"")]
        for _ in range(self._random.randrange(8)):
            kind, flags = self._random.randrange(12), self._random.randrange(256)
            stream = self._random.choice((0, 1, 1, 3, 2, 2**31 - 1))
            size = self._random.choice((0, 4, 5, 6, 8, 50))
            frames.append(frame(kind, flags, stream, self._random.randbytes(size)))
        return b"".join(frames)

    def _headers(self) -> bytes:
        """Return an HTTP/2 connection with a call that has unusual headers, then a message."""
        method, request = self._request()
        usual = [
            (":method", self._random.choice(("POST", "POST", "GET", "\x00"))),
            (":scheme", "http"),
            (":path", self._random.choice((method, method, "/", "", "*", method + "/", "//x"))),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", self._random.choice(("application/grpc", "application/grpc+x", "x"))),
            ("grpc-timeout", self._random.choice(("1S", "0n", "99999999H", "x", "-1S", "1"))),
            ("grpc-encoding", self._random.choice(("identity", "gzip", "no-such"))),
        ]
        if self._random.random() < 0.3:
            usual.pop(self._random.randrange(len(usual)))
        odd = [
            (key, self._random.choice(("m", "\x1b[31m", "\n", "\xff", "x" * 9000)))
            for key in self._random.choices(KEYS, k=self._random.randrange(4))
        ]
        block = hpack.Encoder().encode(usual + odd)
        compressed = self._random.choice((0, 0, 1, 7))
        claimed = self._random.choice((len(request), len(request), 0, 2**32 - 1))
        body = bytes([compressed]) + claimed.to_bytes(4, "big") + request
        parts = [PREFACE, frame(4, 0, 0, b""), frame(1, 4, 1, block), frame(0, 1, 1, body)]
        if self._random.random() < 0.3:
            parts.append(frame(3, 0, 1, self._random.randbytes(4)))  # RST_STREAM
        return b"".join(parts)

    def _http1(self) -> bytes:
        method = self._random.choice(("GET", "POST", "HEAD", "PUT", "OPTIONS", "\x00"))
        path = self._random.choice(PATHS)
        name = self._random.choice(
            ("Host", "Content-Length", "Transfer-Encoding", "\x1b", "Origin")
        )
        value = self._random.choice(("x", "-1", "chunked", "99999999999", self._printable()))
        body = self._random.choice((b"", self._bytes(), b'{"model": 1}', b"[]", b'{"model": "m"}'))
        head = [f"{method} {path} HTTP/1.1", f"{name}: {value}"]
        if self._random.random() < 0.5:
            head += ["Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*head, "", ""]).encode() + body

    async def _raw(self, data: bytes) -> None:
        host, _, port = self._address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(data)
            with contextlib.suppress(OSError):
                await writer.drain()
                if self._random.random() < 0.5:
                    writer.write_eof()
            # Some connections are only closed by us, since the server waits for more.
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(reader.read(1000), 0.05)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload
