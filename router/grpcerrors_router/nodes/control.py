"""The control plane: the router's own calls to nodes.

They use the backend protocol. A node without it, such as Triton, is asked over the Open Inference
Protocol; there the name of a model in models.toml is its `model_name`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health_pb2

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID
from grpcerrors_router.validation import NAME_LIMIT, NUMBER_LIMIT

Headers = Callable[[], tuple[tuple[str, str], ...]]

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpcerrors_router.entities import ModelSpec, Node, Replica
    from grpcerrors_router.nodes.channels import Channels

_OPERATOR = fleet_pb2.DESCRIPTOR.services_by_name["Operator"].full_name

_log = structlog.get_logger("router.nodes")


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer to LoadModel or Free.

    Attributes:
        ok: whether the node did it.
        message: the node's reason if it did not.
        boot_id: the process that answered; "" when unknown.
        inventory: the node's inventory counter; 0 when unknown.
    """

    ok: bool
    message: str = ""
    boot_id: str = ""
    inventory: int = 0


class ControlPlane:
    """Calls Health, Status, LoadModel and Free of nodes, or what a KServe node has instead.

    `headers` returns metadata to add to each LoadModel, such as the context of a trace.

    Timeouts are seconds. Every method raises `grpc.aio.AioRpcError` when the call fails.
    """

    def __init__(self, channels: Channels, headers: Headers = tuple) -> None:
        self._channels = channels
        self._headers = headers

    async def health(self, node: Node, timeout: float) -> None:
        """Wait for the answer to Health."""
        await self._channels.stub(node).Health(pb.HealthMessage(), timeout=timeout)

    async def has_model(self, node: Node, model: str, timeout: float) -> bool:
        """Return whether the node reports READY or BUSY for the model."""
        try:
            reply = await self._channels.stub(node).Status(
                pb.HealthMessage(), timeout=timeout, metadata=[(MODEL_ID, model)]
            )
        except grpc.aio.AioRpcError as error:
            return await self._is_ready(error, node, model, timeout)
        return reply.state in (pb.StatusResponse.READY, pb.StatusResponse.BUSY)

    async def is_router(self, node: Node, timeout: float) -> bool:
        """Return whether a router's gateway answers at the address of a node."""
        method = (
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=_OPERATOR)
        call = self._channels.multicallable(node, "unary_unary", method)
        try:
            answer = await call(request, timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def load(self, node: Node, spec: ModelSpec, generation: int, timeout: float) -> Answer:
        """Load a model as that generation.

        Raises ValueError for options that a KServe node has no place for.
        """
        options = pb.ModelOptions(**{**spec.options, "Model": spec.identity})
        metadata = [(MODEL_ID, spec.name), (GENERATION, str(generation)), *self._headers()]
        call = self._channels.stub(node).LoadModel(options, timeout=timeout, metadata=metadata)
        try:
            return _answer(await call, await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return await self._load_over_kserve(error, node, spec, timeout)

    async def free(self, node: Node, row: Replica, timeout: float) -> Answer:
        """Unload a model; a node that knows generations unloads no other load of it."""
        metadata = [(MODEL_ID, row.model)]
        if row.held:
            metadata.append((GENERATION, str(row.held)))
        call = self._channels.stub(node).Free(
            pb.HealthMessage(), timeout=timeout, metadata=metadata
        )
        try:
            return _answer(await call, await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            unload = v2.RepositoryModelUnloadRequest(model_name=row.model)
            response = v2.RepositoryModelUnloadResponse
            unloaded = await self._over_kserve(error, node, unload, response, timeout)
            if unloaded.model_name and not unloaded.isUnloaded:
                return Answer(ok=False, message="it answers that the model is not unloaded")
            return Answer(ok=True)

    async def _load_over_kserve(
        self, error: grpc.aio.AioRpcError, node: Node, spec: ModelSpec, timeout: float
    ) -> Answer:
        """Load a model on a node without LoadModel, as `error` says.

        Not every such node can be asked to load: it may have no model repository, or, as Triton by
        default, load at its start only; and KServe 0.21 in Python reports every load as a failure.
        There a model that is ready counts as loaded.
        """
        load = v2.RepositoryModelLoadRequest(model_name=spec.name)
        for key, text in _parameters(spec):
            load.parameters[key].string_param = text
        try:
            loaded = await self._over_kserve(
                error, node, load, v2.RepositoryModelLoadResponse, timeout
            )
            if loaded.isLoaded or not loaded.model_name:  # Triton's response has neither field
                return Answer(ok=True)
            said = "it answers that the model is not loaded"
        except grpc.aio.AioRpcError as refusal:
            if refusal.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            said = refusal.details() or refusal.code().name
        if not await self._is_ready(error, node, spec.name, timeout):
            return Answer(ok=False, message=said)
        _log.warning("the node does not load, but has the model", model=spec.name, node=node.name)
        return Answer(ok=True)

    async def _is_ready(
        self, error: grpc.aio.AioRpcError, node: Node, model: str, timeout: float
    ) -> bool:
        """Return whether a node without Status, as `error` says, has a model."""
        asked = v2.ModelReadyRequest(name=model)
        try:
            answer = await self._over_kserve(error, node, asked, v2.ModelReadyResponse, timeout)
        except grpc.aio.AioRpcError as refusal:
            if refusal.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return bool(answer.ready)

    async def _over_kserve(
        self,
        error: grpc.aio.AioRpcError,
        node: Node,
        request: Any,
        response: Any,
        timeout: float,
    ) -> Any:
        """Make the call that corresponds to one that ended with `error`.

        Raises `error` unless it is UNIMPLEMENTED; if the node has neither RPC, its own error.
        """
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise error
        name = request.DESCRIPTOR.name.removesuffix("Request")
        method = (
            f"/inference.GRPCInferenceService/{name}",
            type(request).SerializeToString,
            response.FromString,
        )
        call = self._channels.multicallable(node, "unary_unary", method)
        return await call(request, timeout=timeout)


def _parameters(spec: ModelSpec) -> Iterable[tuple[str, str]]:
    """Return the load options of a model for a KServe node."""
    if unknown := ", ".join(sorted(spec.options.keys() - {"Options"})):
        text = f"a node of the Open Inference Protocol has no place for {unknown}, only for Options"
        raise ValueError(text)
    for option in spec.options.get("Options", ()):
        key, _, text = option.partition(":")
        yield key, text


def _answer(result: pb.Result, trailers: Iterable[tuple[str, str | bytes]] | None) -> Answer:
    texts = {key: value for key, value in trailers or () if isinstance(value, str)}
    version = texts.get(INVENTORY_VERSION, "")
    # Ignore what the database cannot store.
    inventory = int(version) if version.isdecimal() and len(version) < len(str(NUMBER_LIMIT)) else 0
    return Answer(result.success, result.message, texts.get(BOOT_ID, "")[:NAME_LIMIT], inventory)
