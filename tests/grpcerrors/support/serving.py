"""A real server that fails as it is told, and clients that bring back what they get."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from concurrent import futures
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio
from grpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

UNARY = "/test.Failing/Unary"
STREAM = "/test.Failing/Stream"
TIMEOUT = 30.0
_NOT_FAILED = "the server has not failed"


class Raw:
    """Bytes that each client library takes for a message."""

    def __init__(self, data: bytes = b"") -> None:
        """Hold some bytes."""
        self.data = data

    def SerializeToString(self) -> bytes:
        """Return them."""
        return self.data

    def ParseFromString(self, data: bytes) -> None:
        """Hold others."""
        self.data = bytes(data)

    @classmethod
    def FromString(cls, data: bytes) -> Raw:
        """Hold some bytes."""
        return cls(bytes(data))


class Answer(NamedTuple):
    """How the server is to fail; it travels as the request."""

    code: StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()

    def dump(self) -> bytes:
        """Serialize."""
        metadata = [
            (key, base64.b64encode(value).decode() if isinstance(value, bytes) else [value])
            for key, value in self.trailing_metadata
        ]
        return json.dumps([self.code.name, self.details, metadata]).encode()

    @classmethod
    def load(cls, request: bytes) -> Answer:
        """Read what `dump` wrote."""
        code, details, metadata = json.loads(request)
        trailers = tuple(
            (key, value[0] if isinstance(value, list) else base64.b64decode(value))
            for key, value in metadata
        )
        return cls(StatusCode[code], details, trailers)

    @staticmethod
    @contextlib.contextmanager
    def serve() -> Iterator[str]:
        """Serve on a loopback port; yields the target."""

        def unary(request: bytes, context: Any) -> bytes:
            context.abort_with_status(Answer.load(request))
            return b""

        def stream(request: bytes, context: Any) -> Iterator[bytes]:
            yield b"first"
            context.abort_with_status(Answer.load(request))

        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Stream": grpc.unary_stream_rpc_method_handler(stream),
        }
        server = grpc.server(futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Failing", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


class Client:
    """Channels of both kinds to one server, kept open; brings back what calls raise."""

    def __init__(self, target: str) -> None:
        """Connect to `target`."""
        self._channel = grpc.insecure_channel(target)
        self._loop = asyncio.new_event_loop()
        self._aio_channel = self._loop.run_until_complete(self._connect(target))

    @staticmethod
    async def _connect(target: str) -> Any:
        return grpc.aio.insecure_channel(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._loop.run_until_complete(self._aio_channel.close())
        self._loop.close()

    def sync_failure(self, answer: Answer, *, stream: bool = False) -> Exception:
        """Return what a call of a sync channel raises."""
        try:
            if stream:
                list(self._channel.unary_stream(STREAM)(answer.dump(), timeout=TIMEOUT))
            else:
                self._channel.unary_unary(UNARY)(answer.dump(), timeout=TIMEOUT)
        except grpc.RpcError as err:
            failure: Exception = err
            return failure
        raise AssertionError(_NOT_FAILED)

    def aio_failure(self, answer: Answer, *, stream: bool = False) -> Exception:
        """Return what a call of an aio channel raises."""
        return self._loop.run_until_complete(self._aio_failure(answer, stream=stream))

    async def _aio_failure(self, answer: Answer, *, stream: bool) -> Exception:
        try:
            if stream:
                async for _ in self._aio_channel.unary_stream(STREAM)(
                    answer.dump(), timeout=TIMEOUT
                ):
                    pass
            else:
                await self._aio_channel.unary_unary(UNARY)(answer.dump(), timeout=TIMEOUT)
        except grpc.RpcError as err:
            failure: Exception = err
            return failure
        raise AssertionError(_NOT_FAILED)
