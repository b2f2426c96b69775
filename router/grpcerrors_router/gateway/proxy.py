"""The proxy: one gRPC address for every model. It forwards any method without changing a byte."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.message_factory import GetMessageClass

from grpcerrors import classify
from grpcerrors._wire import UNEXECUTED_KEY
from grpcerrors_protocol import backend_pb2, inference_pb2
from grpcerrors_protocol.logs import request_id
from grpcerrors_protocol.metadata import HOP
from grpcerrors_router.errors import (
    InternalFailure,
    NodeLost,
    Overloaded,
    PermissionDenied,
    ProxyLoop,
    RegistryUnavailable,
    RouteError,
    UnknownModel,
)
from grpcerrors_router.gateway.admission import Admission, Admitted, host_of
from grpcerrors_router.gateway.answers import Answers
from grpcerrors_router.gateway.authorization import RefusalLog
from grpcerrors_router.gateway.catalogue import Catalogue
from grpcerrors_router.gateway.headers import Headers
from grpcerrors_router.gateway.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from grpcerrors_router.gateway.model_key import Metadata
    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.security.access import Access

log = structlog.get_logger("router")

SERVICES = (
    backend_pb2.DESCRIPTOR.services_by_name["Backend"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
"""The services whose requests name a model."""

_FAILURES = (Exception, asyncio.CancelledError)


class _BegunError(Exception):
    """An error after part of the request or of the answer has been forwarded."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__()
        self.error = error


class Gateway(grpc.GenericRpcHandler):
    """Proxies every call that no other service of the server handles.

    It answers the methods of `Answers` itself. `LoadModel` and `Free` are UNIMPLEMENTED, as the
    RPCs that load and unload in the Open Inference Protocol, since they would change a node without
    the registry.

    Args:
        router: dispatches the calls, and receives an event for each that reached no node.
        access: finds the callers' tokens; None if everyone may call every model.
        headers: which headers are passed on; see Headers for those that are by default.
    """

    def __init__(
        self,
        router: SmartRouter,
        *,
        access: Access | None = None,
        headers: Headers | None = None,
    ) -> None:
        self._router = router
        self.catalogue = Catalogue(router, access)
        self._answers = Answers(router, self.catalogue)
        self._access = access
        self.admission = Admission(router.settings)
        self._headers = headers or Headers()
        self._refusals = RefusalLog()
        self._watch = Watch(router)
        # Not the router's name, which two routers of different registries may share.
        self._hop = (HOP, secrets.token_hex(8))
        self._known = {
            f"/{service.full_name}/{method.name}": self._known_handler(method)
            for service in SERVICES
            for method in service.methods
        }

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method, known or not."""
        method: str = handler_call_details.method
        known = self._known.get(method)
        if known is not None:
            return known
        # On the wire, every RPC shape is a stream of messages in each direction.
        return self._stream(method, known=False)

    def _known_handler(self, method: MethodDescriptor) -> Any:
        path = f"/{method.containing_service.full_name}/{method.name}"
        own = getattr(self._answers, method.name, None)
        if own is not None:
            return grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, own))
        if method.client_streaming:
            return self._stream(path, known=True)
        kind = GetMessageClass(method.input_type)
        # A unary call is several times cheaper than a stream that carries one message.
        return (self._unary_stream if method.server_streaming else self._unary)(path, kind)

    def _unary(self, path: str, kind: type[Message]) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            metadata = context.invocation_metadata()
            model = ""
            try:
                with self._admitted(context, metadata) as admitted, admitted.holding(request):
                    model = self.catalogue.key(path, kind, metadata, request)
                    forwarded = self._forwarded(metadata, model)
                    reply, call = await self._router.channel(model).unary(
                        path, request, context.time_remaining(), forwarded
                    )
                    self._answer_held(admitted, reply, context)
            except _FAILURES as error:
                await self._fail(context, model, error)
            back = self._headers.back
            if initial := await call.initial_metadata():
                await context.send_initial_metadata(back(initial))
            if trailing := await call.trailing_metadata():
                context.set_trailing_metadata(back(trailing))
            return reply

        return grpc.unary_unary_rpc_method_handler(self._watch.over(path, unary, known=True))

    def _unary_stream(self, path: str, kind: type[Message]) -> Any:
        async def unary_stream(request: bytes, context: Any) -> None:
            metadata = context.invocation_metadata()
            model = ""
            try:
                with self._admitted(context, metadata) as admitted, admitted.holding(request):
                    model = self.catalogue.key(path, kind, metadata, request)
                    forwarded = self._forwarded(metadata, model)
                    call = self._router.channel(model).unary_stream(path)(
                        request, timeout=context.time_remaining(), metadata=forwarded
                    )
                    await self._relay(call, context, admitted)
            except _FAILURES as error:
                await self._fail(context, model, error)

        watched = self._watch.over(path, unary_stream, known=True)
        return grpc.unary_stream_rpc_method_handler(watched)

    def _stream(self, path: str, *, known: bool) -> Any:
        async def stream(_iterator: object, context: Any) -> None:
            metadata = context.invocation_metadata()
            model = ""
            refused: list[_BegunError] = []
            try:
                with self._admitted(context, metadata) as admitted:
                    model = self.catalogue.key(path, None, metadata, b"")
                    forwarded = self._forwarded(metadata, model)
                    messages = self._messages(context, asyncio.current_task(), admitted, refused)
                    call = self._router.channel(model).stream(
                        path, messages, context.time_remaining(), forwarded, admitted
                    )
                    await self._relay(call, context, admitted)
            except _FAILURES as error:
                await self._fail(context, model, *refused, error)

        return grpc.stream_stream_rpc_method_handler(self._watch.over(path, stream, known=known))

    async def _answer(
        self, answer: Callable[[Metadata, bytes], Message], request: bytes, context: Any
    ) -> bytes:
        try:
            return answer(context.invocation_metadata(), request).SerializeToString()
        except Exception as error:  # noqa: BLE001 - a RouteError, or a bug
            await self._fail(context, "", error)

    def _forwarded(self, metadata: Metadata, model: str) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata for the node, with this gateway's hop added. Raises ProxyLoop."""
        if self._hop in metadata:
            raise ProxyLoop(self._router.name, model)
        self._watch.note(model)
        return (*self._headers.onward(metadata), self._hop)

    async def _messages(
        self,
        context: Any,
        handler: asyncio.Task[Any] | None,
        admitted: Admitted,
        refused: list[_BegunError],
    ) -> AsyncIterator[bytes]:
        """Yield the caller's messages. Cancel `handler` if one exceeds a limit (see `refused`)."""
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                with admitted.holding(message):
                    yield message
        except Overloaded as error:
            # The traceback leads to this frame, and so to the message, in a cycle.
            refused.append(_BegunError(error.with_traceback(None)))
            if handler is not None:
                handler.cancel()
        # Until the next loop turn, a cancelled stream looks like one that has ended.
        await asyncio.sleep(0)
        if handler is not None and handler.cancelling():
            raise asyncio.CancelledError

    def _admitted(self, context: Any, metadata: Metadata) -> Admitted:
        """Count a call of its caller. Raises Overloaded."""
        if self._access is None:
            return self.admission.call(host_of(context))
        return self.admission.call(self._access.identify(metadata).name)

    @staticmethod
    def _answer_held(admitted: Admitted, reply: bytes, context: Any) -> None:
        try:
            admitted.answering(reply, context)
        except Overloaded as error:  # the node has executed the call
            raise _BegunError(error) from None

    async def _relay(self, call: Any, context: Any, admitted: Admitted) -> None:
        begun = False
        back = self._headers.back
        try:
            initial = await call.initial_metadata()
            if initial or not call.done():
                await context.send_initial_metadata(back(initial))
            async for message in call:
                begun = True
                with admitted.holding(message):
                    await context.write(message)
            if trailing := await call.trailing_metadata():
                context.set_trailing_metadata(back(trailing))
        except grpc.aio.AioRpcError as error:
            raise (_BegunError(error) if begun else error) from None
        finally:
            call.cancel()

    def _refuse(self, context: Any, model: str, error: RouteError) -> RouteError:
        """Count an error of the router, and return it as the caller may see it."""
        if isinstance(error, UnknownModel):
            error = self.catalogue.unknown(error.model, context.invocation_metadata())
        elif isinstance(error, RegistryUnavailable):
            # The driver's text names hosts and users: it is for operators.
            error = RegistryUnavailable("the router's log says why")
        listed = model if model in self._router.models else ""
        self._router.events.refused(listed, error)
        if isinstance(error, PermissionDenied):
            self._refusals.refused(error, "", context.peer())
        return error

    async def _fail(self, context: Any, model: str, *errors: BaseException) -> NoReturn:
        """End the call with the first of `errors`; the others are its consequences."""
        error = errors[0]
        begun = isinstance(error, _BegunError)
        if isinstance(error, _BegunError):
            error = error.error
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError):
            if task is not None and task.cancelling():  # the caller has gone
                raise error
            error = NodeLost()
        elif task is not None:
            task.uncancel()
        if not isinstance(error, grpc.aio.AioRpcError):
            if context.done():  # the call has already ended, and this follows from it
                raise error
            log.error(
                "call failed: internal error",
                model=model,
                request_id=request_id(context.invocation_metadata()),
                exc_info=error,
            )
            error = InternalFailure()
        if isinstance(error, RouteError):
            error = self._refuse(context, model, error)
        self._watch.note_error(error)
        if initial := error.initial_metadata():
            with contextlib.suppress(grpc.aio.UsageError):  # a stream has already sent it
                await context.send_initial_metadata(self._headers.back(initial))
        trailers = self._headers.back(_trailers(error, begun=begun))
        await context.abort(error.code(), error.details() or "", trailers)
        raise AssertionError  # abort raises


def _trailers(error: grpc.aio.AioRpcError, *, begun: bool) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailers for the caller: `grpcerrors-unexecuted` only where it is still true.

    The router sends a request again only if no attempt has executed it, so what the last node says
    holds for all attempts. Once part of an answer has been forwarded, it holds no longer. Nor does
    it if the details say that the handler had begun.
    """
    if isinstance(error, RouteError) and not begun:
        return error.unsent
    trailers = tuple(error.trailing_metadata())
    executed = begun or classify(error).started
    return tuple(pair for pair in trailers if not (executed and pair[0] == UNEXECUTED_KEY))
