"""The Backend service of one host: handlers for the control plane and for what the model does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from backends.inference import Inference
from backends.model import BadInput
from protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor

    from backends.control import Answer, Control, Metadata
    from backends.model import Model
    from backends.slots import Slots

SERVICE = pb.DESCRIPTOR.services_by_name["Backend"]
CONTROL = ("Health", "LoadModel", "Free", "Status")
# Control-plane calls that wait (for a load, for calls to end) must not keep others from starting.
WAITING = 64


def implemented(model: type[Model]) -> list[MethodDescriptor]:
    """Return the inference RPCs that *model* defines."""
    return [rpc for rpc in SERVICE.methods if hasattr(model, rpc.name) and rpc.name not in CONTROL]


def service(
    model: type[Model], slots: Slots[Model, pb.ModelOptions], control: Control
) -> grpc.GenericRpcHandler:
    """Return the service for the surface of *model*.

    It registers what is implemented and nothing else: gRPC itself answers UNIMPLEMENTED for the
    rest, whether or not a model is loaded.
    """
    inference = Inference(model.name, slots)
    is_aio = model.surface == "aio"
    unary, stream = (
        (inference.aio_unary, inference.aio_stream)
        if is_aio
        else (inference.unary, inference.stream)
    )
    handlers = {
        rpc.name: _handler(rpc, (stream if rpc.server_streaming else unary)(rpc.name))
        for rpc in implemented(model)
    }
    wrap = _aio_control(ThreadPoolExecutor(WAITING, "control")) if is_aio else _sync_control
    for name in CONTROL:
        handlers[name] = _handler(SERVICE.methods_by_name[name], wrap(getattr(control, name)))
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _handler(rpc: MethodDescriptor, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
    shape = [("unary", "stream")[s] for s in (rpc.client_streaming, rpc.server_streaming)]
    make = getattr(grpc, f"{'_'.join(shape)}_rpc_method_handler")
    return make(
        behaviour,
        request_deserializer=GetMessageClass(rpc.input_type).FromString,
        response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
    )


def _sync_control(answer: Callable[[Any, Metadata], Answer]) -> Callable[..., object]:
    def handle(request: Any, context: grpc.ServicerContext) -> object:
        try:
            response, trailers = answer(request, context.invocation_metadata() or ())
        except BadInput as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        context.set_trailing_metadata(trailers)
        return response

    return handle


def _aio_control(pool: ThreadPoolExecutor) -> Callable[..., Callable[..., Awaitable[object]]]:
    def wrap(answer: Callable[[Any, Metadata], Answer]) -> Callable[..., Awaitable[object]]:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> object:
            metadata = tuple(context.invocation_metadata() or ())
            loop = asyncio.get_running_loop()
            try:
                response, trailers = await loop.run_in_executor(pool, answer, request, metadata)
            except BadInput as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            context.set_trailing_metadata(trailers)
            return response

        return handle

    return wrap
