"""The Backend service of one host: handlers for the control plane and for what the model does."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from grpcerrors_backends.host.inference import Inference
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor

    from grpcerrors_backends.host.control import Answer, Control, Metadata
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_backends.model import Model

SERVICE = pb.DESCRIPTOR.services_by_name["Backend"]
# The control plane, and whether a call may have to wait: for a load, or for other calls to end.
CONTROL = {"Health": False, "LoadModel": True, "Free": True, "Status": False}
WAITING = 64  # such calls at the same time, on aio; threads do not cost much while they wait


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
    handlers = {
        rpc.name: _handler(
            rpc, inference.behaviour(rpc.name, streams=rpc.server_streaming, is_aio=is_aio)
        )
        for rpc in implemented(model)
    }
    pool = ThreadPoolExecutor(WAITING, "control")
    for name, waits in CONTROL.items():
        answer = getattr(control, name)
        behaviour = _aio(answer, pool if waits else None) if is_aio else _sync(answer)
        handlers[name] = _handler(SERVICE.methods_by_name[name], behaviour)
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _handler(rpc: MethodDescriptor, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
    shape = [("unary", "stream")[s] for s in (rpc.client_streaming, rpc.server_streaming)]
    make = getattr(grpc, f"{'_'.join(shape)}_rpc_method_handler")
    return make(
        behaviour,
        request_deserializer=GetMessageClass(rpc.input_type).FromString,
        response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
    )


def _sync(answer: Callable[[Any, Metadata], Answer]) -> Callable[..., object]:
    def handle(request: Any, context: grpc.ServicerContext) -> object:
        response, trailers = answer(request, context.invocation_metadata() or ())
        context.set_trailing_metadata(trailers)
        return response

    return handle


def _aio(
    answer: Callable[[Any, Metadata], Answer], pool: ThreadPoolExecutor | None
) -> Callable[..., Awaitable[object]]:
    async def handle(request: Any, context: grpc.aio.ServicerContext) -> object:
        metadata = tuple(context.invocation_metadata() or ())
        if pool is None:
            response, trailers = answer(request, metadata)
        else:
            loop = asyncio.get_running_loop()
            response, trailers = await loop.run_in_executor(pool, answer, request, metadata)
        context.set_trailing_metadata(trailers)
        return response

    return handle
