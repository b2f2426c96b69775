"""Inference calls: find the model, keep it loaded during the call, translate its exceptions."""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog

from grpcerrors import ContractError, model_loading, model_mismatch, model_not_loaded
from grpcerrors_backends.host.control import value
from grpcerrors_backends.host.holding import Held, LoadingError, NotHeldError
from grpcerrors_backends.model import BadInput, NotFound, TooLarge
from grpcerrors_protocol.logs import request_id
from grpcerrors_protocol.metadata import MODEL_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from grpcerrors_backends.host.requests import Requests
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_backends.model import Model
    from grpcerrors_protocol import backend_pb2 as pb

log = structlog.get_logger()
_TEXT_LIMIT = 1000  # bytes
_CODES = {
    BadInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Inference:
    """Runs calls of the backend *name* on the models in *slots*, and counts their *requests*."""

    def __init__(self, name: str, slots: Slots[Model, pb.ModelOptions], requests: Requests) -> None:
        self._name = name
        self._holding = requests.holding
        self._slots = slots

    @contextmanager
    def _model(self, rpc: str, request: object, context: Any) -> Iterator[Callable[..., Any]]:
        """Lease the model that a call is for, and yield its method for the RPC.

        The metadata key `x-model-id` names the model, else the `ModelIdentity` of the request; a
        call that names none gets the model loaded last. Raises ContractError if the model is not
        held, or is not the one that the request names.
        """
        requested = getattr(request, "ModelIdentity", "")
        named = value(context.invocation_metadata() or (), MODEL_ID)
        with self._lease(named, requested) as held:
            if requested not in ("", held.alias):
                raise model_mismatch(self._name, loaded=held.alias, requested=requested)
            yield getattr(held.model, rpc)

    @contextmanager
    def _lease(self, identity: str, alias: str) -> Iterator[Held[Model, pb.ModelOptions]]:
        """Lease a model, or raise the ContractError that says why that is not possible."""
        try:
            with self._slots.lease(identity, alias) as held:
                yield held
        except LoadingError:
            raise model_loading(self._name, model=identity or alias) from None
        except NotHeldError:
            raise model_not_loaded(self._name, model=identity or alias) from None

    def _about(self, context: Any) -> dict[str, object]:
        """Return what a log line says about the call, as far as its metadata tell."""
        metadata = tuple(context.invocation_metadata() or ())
        named = value(metadata, MODEL_ID)
        held = {model: generation for model, generation, _ in self._slots.inventory().models}
        return {
            "model": named,
            "generation": held.get(named) or None,
            "request_id": request_id(metadata),
        }

    def _failure(self, rpc: str, context: Any, error: Exception) -> tuple[grpc.StatusCode, str]:
        """Return the status code and the text that the client gets for *error*."""
        for kind, code in _CODES.items():
            if isinstance(error, kind):
                return code, _cut(f"{self._name}: {error}")
        log.error("call failed", rpc=rpc, **self._about(context), exc_info=error)
        text = f"{self._name}: {rpc} failed with {type(error).__name__}; see the log of the host"
        return grpc.StatusCode.INTERNAL, text

    def behaviour(self, rpc: str, *, streams: bool, is_aio: bool) -> Callable[..., Any]:
        """Return the handler of an RPC; *streams* if it returns a stream of responses."""
        if is_aio:
            return self._aio_stream(rpc) if streams else self._aio_unary(rpc)
        return self._stream(rpc) if streams else self._unary(rpc)

    # ---- sync ----

    def _unary(self, rpc: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                with self._holding(request), self._model(rpc, request, context) as method:
                    return method(request, context)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises
                self._abort(rpc, context, error)

        return handle

    def _stream(self, rpc: str) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with self._holding(request), self._model(rpc, request, context) as method:
                    yield from method(request, context)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises
                self._abort(rpc, context, error)

        return handle

    def _abort(self, rpc: str, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        # context.abort, called by the method, sets a code and raises a bare Exception. Once the
        # client has gone, it does not matter what the method raises.
        aborted = type(error) is Exception and not error.args and context.code() is not None
        if isinstance(error, ContractError) or aborted or not context.is_active():
            raise error
        context.abort(*self._failure(rpc, context, error))
        raise error  # not reached: abort raises

    # ---- aio ----

    def _aio_unary(self, rpc: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                with self._holding(request), self._model(rpc, request, context) as method:
                    return await method(request, context)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises
                await self._aio_abort(rpc, context, error)

        return handle

    def _aio_stream(self, rpc: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            try:
                with self._holding(request), self._model(rpc, request, context) as method:
                    async with aclosing(method(request, context)) as responses:
                        async for response in responses:
                            yield response
            except Exception as error:  # noqa: BLE001 - whatever a backend raises
                await self._aio_abort(rpc, context, error)

        return handle

    async def _aio_abort(self, rpc: str, context: Any, error: Exception) -> NoReturn:
        if isinstance(error, (ContractError, grpc.aio.AbortError)):
            raise error
        await context.abort(*self._failure(rpc, context, error))
        raise error  # not reached: abort raises


def _cut(text: str) -> str:
    """Cut a text that quotes a request to what fits into trailers, however it is encoded there.

    gRPC turns a longer one into a RESOURCE_EXHAUSTED of its own.
    """
    cut = text.encode(errors="replace")[:_TEXT_LIMIT].decode(errors="ignore")
    return text if cut == text else f"{cut}..."
