"""A node with the token rules of LocalAI's backends, on a sync and on an aio server.

As in LocalAI, which documents LOCALAI_GRPC_AUTH_TOKEN: every RPC needs the metadata
`authorization: Bearer TOKEN`, compared as one string, the last value if there are several; any
other is UNAUTHENTICATED "invalid token". There is no health service of gRPC, and no Status.
"""

from __future__ import annotations

import asyncio
import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendServicer, add_BackendServicer_to_server

if TYPE_CHECKING:
    from types import TracebackType


class LocalAINode(BackendServicer):
    """Holds any model that is loaded; an RPC for another one is refused in words only.

    Attributes:
        token: what callers must send; it may change at any time.
        sent: the values of `authorization` of the calls, in order, refused ones too.
        loads, frees: the models that were loaded, and the number of unloads.
    """

    def __init__(self, token: str, *, aio: bool) -> None:
        self.token = token
        self.sent: list[list[str]] = []
        self.loads: list[str] = []
        self.frees = 0
        self.loaded = False
        self._aio = aio
        self._server: Any = None
        self.address = ""

    async def __aenter__(self) -> Self:
        check = (_AioCheck if self._aio else _Check)(self)
        if self._aio:
            self._server = grpc.aio.server(interceptors=(check,))
            add_BackendServicer_to_server(_Aio(self), self._server)
        else:
            self._server = grpc.server(ThreadPoolExecutor(4), interceptors=(check,))
            add_BackendServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start() if self._aio else self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._aio:
            await self._server.stop(0)
        else:
            await asyncio.to_thread(self._server.stop(0).wait)

    def accepts(self, call: Any) -> bool:
        """Return whether a call may pass."""
        self.sent.append([v for k, v in call.invocation_metadata if k == "authorization"])
        sent = dict(call.invocation_metadata).get("authorization", "")
        return hmac.compare_digest(sent, f"Bearer {self.token}")

    def Health(self, request: Any, context: Any) -> pb.Reply:
        return pb.Reply(message=b"OK")

    def LoadModel(self, request: Any, context: Any) -> pb.Result:
        self.loads.append(request.Model)
        self.loaded = True
        return pb.Result(success=True)

    def Free(self, request: Any, context: Any) -> pb.Result:
        self.frees += 1
        self.loaded = False
        return pb.Result(success=True)

    def Predict(self, request: Any, context: Any) -> pb.Reply:
        if not self.loaded:
            context.abort(grpc.StatusCode.INTERNAL, "no model loaded")
        return pb.Reply(message=b"hi")


class _Aio:
    """The same methods as coroutines."""

    def __init__(self, node: LocalAINode) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        async def call(request: Any, context: Any) -> Any:
            if name == "Predict" and not self._node.loaded:
                await context.abort(grpc.StatusCode.INTERNAL, "no model loaded")
            if name not in ("Health", "LoadModel", "Free", "Predict"):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
            return getattr(self._node, name)(request, context)

        return call


def _refuse(_request: Any, context: Any) -> Any:
    return context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")


class _Check(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, node: LocalAINode) -> None:
        self._node = node

    def intercept_service(self, continuation: Any, call: Any) -> Any:
        if self._node.accepts(call):
            return continuation(call)
        return grpc.unary_unary_rpc_method_handler(_refuse)


class _AioCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    def __init__(self, node: LocalAINode) -> None:
        self._node = node

    async def intercept_service(self, continuation: Any, call: Any) -> Any:
        if self._node.accepts(call):
            return await continuation(call)

        async def refuse(request: Any, context: Any) -> None:
            await _refuse(request, context)

        return grpc.unary_unary_rpc_method_handler(refuse)
