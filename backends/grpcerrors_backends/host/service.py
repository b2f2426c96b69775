"""The gRPC services of a host: handlers for the control plane and for the RPCs of the model."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from grpcerrors import ContractError, abort
from grpcerrors_backends.host import kserve
from grpcerrors_backends.host.control import WAITING_LOADS, Call
from grpcerrors_backends.host.inference import Inference
from grpcerrors_backends.model import Model
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.wellformed import wellformed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.descriptor import MethodDescriptor

    from grpcerrors_backends.host.control import Answer, Control
    from grpcerrors_backends.host.requests import Requests
    from grpcerrors_backends.host.slots import Slots

SERVICE = pb.DESCRIPTOR.services_by_name["Backend"]
CONTROL = ("Health", "LoadModel", "Free", "Status")
_SPARE = 8  # threads that can still answer while the others wait


class NotARpcError(Exception):
    """A backend has a public method that is not an RPC. The text says what to do."""


def implemented(model: type[Model]) -> list[MethodDescriptor]:
    """Return the inference RPCs that *model* defines.

    Raises NotARpcError for any other public method, so that a misspelt RPC is reported.
    """
    rpcs = {rpc.name: rpc for rpc in SERVICE.methods}
    inference = [name for name in rpcs if name not in CONTROL]
    for name in _public_methods(model):
        if name in CONTROL:
            raise NotARpcError(
                f"{model.__name__}.{name}: the host answers {name} itself; "
                "move its work into load and close"
            )
        if name not in rpcs:
            close = difflib.get_close_matches(name.lower(), map(str.lower, inference), 1)
            near = [f"did you mean {rpc}? " for rpc in inference if rpc.lower() in close]
            raise NotARpcError(
                f"{model.__name__}.{name} is not an RPC of {SERVICE.full_name}; {''.join(near)}"
                "start the name of a helper with an underscore"
            )
    return [rpcs[name] for name in inference if hasattr(model, name)]


def _public_methods(model: type[Model]) -> list[str]:
    """Return the public methods that *model* adds to Model, without those of mixins."""
    parts = [part for part in model.__mro__ if issubclass(part, Model) and part is not Model]
    names = {
        name: None
        for part in parts
        for name, member in vars(part).items()
        if inspect.isfunction(member) and not name.startswith("_") and not hasattr(Model, name)
    }
    return list(names)


def services(
    model: type[Model],
    slots: Slots[Model, pb.ModelOptions],
    control: Control,
    requests: Requests,
) -> dict[str, grpc.GenericRpcHandler]:
    """Return the services for the surface of *model*, by full name.

    They register only the implemented RPCs. gRPC itself answers UNIMPLEMENTED for all others, with
    or without a model.
    """
    is_aio = model.surface == "aio"
    threads = _Threads(slots.capacity)
    inference = Inference(model.name, slots, requests)
    handlers = {
        rpc.name: _handler(
            rpc, inference.behaviour(rpc.name, streams=rpc.server_streaming, is_aio=is_aio)
        )
        for rpc in implemented(model)
    }
    for name in CONTROL:
        rpc = SERVICE.methods_by_name[name]
        handlers[name] = _handler(rpc, threads.behaviour(getattr(control, name), is_aio=is_aio))
    both = {SERVICE.full_name: handlers}
    if model.inputs:
        both[kserve.SERVICE.full_name] = _kserve(model, slots, control, threads, requests)
    return {
        service: grpc.method_handlers_generic_handler(service, handlers)
        for service, handlers in both.items()
    }


def _kserve(
    model: type[Model],
    slots: Slots[Model, pb.ModelOptions],
    control: Control,
    threads: _Threads,
    requests: Requests,
) -> dict[str, grpc.RpcMethodHandler]:
    is_aio = model.surface == "aio"
    rpcs = kserve.SERVICE.methods_by_name
    infer = kserve.KServeInference(model.name, slots, requests)
    behaviour = infer.behaviour("ModelInfer", streams=False, is_aio=is_aio)
    handlers = {"ModelInfer": _handler(rpcs["ModelInfer"], behaviour)}
    adapter = kserve.KServeControl(model, slots, control)
    for name, rpc in rpcs.items():
        if answer := getattr(adapter, name, None):
            handlers[name] = _handler(rpc, threads.behaviour(answer, is_aio=is_aio))
    return handlers


class _Threads:
    """The threads of the control plane.

    Calls that wait for a load or for other calls must not delay the answers to the rest.
    """

    def __init__(self, slots: int) -> None:
        load = ThreadPoolExecutor(WAITING_LOADS + _SPARE, "load")
        free = ThreadPoolExecutor(slots + _SPARE, "free")
        self._slow = {
            "LoadModel": load,
            "RepositoryModelLoad": load,
            "Free": free,
            "RepositoryModelUnload": free,
        }
        self._probes = ThreadPoolExecutor(_SPARE, "probe")

    def behaviour(
        self, answer: Callable[[Any, Call], Answer], *, is_aio: bool
    ) -> Callable[..., Any]:
        """Return the handler that *answer*, a method named as its RPC, is the work of."""
        pool = self._slow.get(answer.__name__)
        return _aio(answer, pool) if is_aio else _sync(answer, pool or self._probes)


def _handler(rpc: MethodDescriptor, behaviour: Callable[..., Any]) -> grpc.RpcMethodHandler:
    shape = [("unary", "stream")[s] for s in (rpc.client_streaming, rpc.server_streaming)]
    make = getattr(grpc, f"{'_'.join(shape)}_rpc_method_handler")
    handler = make(
        behaviour,
        request_deserializer=GetMessageClass(rpc.input_type).FromString,
        response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
    )
    return wellformed(handler)


def _sync(answer: Callable[[Any, Call], Answer], pool: ThreadPoolExecutor) -> Callable[..., object]:
    def handle(request: Any, context: grpc.ServicerContext) -> object:
        try:
            response, trailers = answer(request, _call(context))
        except ContractError as refusal:
            abort(context, refusal)
        context.set_trailing_metadata(trailers)
        return response

    vars(handle)["experimental_thread_pool"] = pool  # grpc.server looks for it
    return handle


def _aio(
    answer: Callable[[Any, Call], Answer], pool: ThreadPoolExecutor | None
) -> Callable[..., Awaitable[object]]:
    async def handle(request: Any, context: grpc.aio.ServicerContext) -> object:
        call = _call(context)
        try:
            if pool is None:
                response, trailers = answer(request, call)
            else:
                loop = asyncio.get_running_loop()
                response, trailers = await loop.run_in_executor(pool, answer, request, call)
        except ContractError as refusal:
            await abort(context, refusal)
        context.set_trailing_metadata(trailers)
        return response

    return handle


def _call(context: Any) -> Call:
    left = context.time_remaining()
    return Call(tuple(context.invocation_metadata() or ()), math.inf if left is None else left)
