"""Backend nodes in this process: real gRPC servers with fake models."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import grpc

from grpcerrors import ContractError, abort, model_mismatch, model_not_loaded
from grpcerrors._wire import HELD_KEY
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID
from grpcerrors_router.entities import Heartbeat, Held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from grpcerrors_protocol.tls import ServerTls

SERVICE = pb.DESCRIPTOR.services_by_name["Backend"]
CONTROL = frozenset(
    {
        "Health", "LoadModel", "Free", "Status", "GetMetrics", "ModelMetadata",
        "StoresSet", "StoresDelete", "StoresGet", "StoresFind",
        "StartFineTune", "FineTuneProgress", "StopFineTune", "ListCheckpoints", "ExportModel",
        "StartQuantization", "QuantizationProgress", "StopQuantization",
    }
)  # fmt: skip
INFERENCE = tuple(m for m in SERVICE.methods if m.name not in CONTROL)
REQUEST_ID = "x-request-id"


def message_class(descriptor: Any) -> Any:
    """Return the class of a message of the protocol."""
    return getattr(pb, descriptor.name)


class Node:
    """A host with `slots` models; `evict` makes it lose one without telling the router.

    Attributes:
        says: how it reports that a model is gone: `details` (typed), `trailer` (the plain one
            only), `text`, or `code` (bare).
        fail: the code and text with which every inference call fails instead.
        fails: the same for single methods.
        load_fails: the errors with which the next loads end, one each.
        loading_says: what it answers to every inference call while it loads a model.
        refused: how many calls got that answer.
        free_fails: those of the next unloads, after which the model is gone nevertheless.
        serves_anyway: it answers OK without the model, like many real backends.
        vouches: its errors carry the trailer of a guard that still holds the model.
        chunks: how many messages a streamed answer has.
        die_after: after how many of them the model is lost.
    """

    def __init__(
        self,
        name: str = "",
        *,
        backend: str = "fake",
        slots: int = 1,
        tls: ServerTls | None = None,
    ) -> None:
        self.name = name or f"node-{uuid.uuid4().hex[:6]}"
        self.backend = backend
        self.slots = slots
        self.tls = tls
        self.port = 0
        self.says = "details"
        self.fail: tuple[grpc.StatusCode, str] | None = None
        self.started_mark = False
        self.load_error = ""
        self.load_fails: list[tuple[Any, ...]] = []
        self.loading_says: tuple[Any, ...] | None = None
        self.health_says: tuple[Any, ...] | None = None
        self.refused = 0
        self.load_gate: asyncio.Event | None = None
        self.load_delay = 0.0
        self.work = 0.0
        self.gate: asyncio.Event | None = None
        self.chunks = 3
        self.die_after: int | None = None
        self.fails: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.vouches = False
        self.serves_anyway = False
        self.status_state: pb.StatusResponse.State | None = None
        self.status_unimplemented = False
        self.status_delay = 0.0
        self.free_unimplemented = False
        self.free_fails: list[tuple[Any, ...]] = []
        self.boots = itertools.count(1)
        self.reset()
        self.server: Any = None

    def reset(self) -> None:
        """Restart: a new boot id, no models, and an empty ledger."""
        self.boot_id = f"{self.name}-boot-{next(self.boots)}"
        self.inventory = 0
        self.held: dict[str, int] = {}
        self.loads: list[tuple[str, int]] = []
        self.loading = 0
        self.most_loading = 0
        self.frees: list[str] = []
        self.seen = Counter[str]()
        self.executed = Counter[str]()
        self.running = Counter[str]()
        self.freed_in_use = 0
        self.statuses = 0
        self.healths = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Self:
        """Serve; after a stop, on the same port again."""
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {m.name: self._handler(m) for m in SERVICE.methods}
        generic = grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)
        self.server.add_generic_rpc_handlers((generic,))
        if self.tls is None:
            self.port = self.server.add_insecure_port(self.address)
        else:
            self.port = self.server.add_secure_port(self.address, self.tls.credentials())
        await self.server.start()
        return self

    async def stop(self) -> None:
        """Die at once."""
        if self.server is not None:
            await self.server.stop(None)
            self.server = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def evict(self, model: str) -> None:
        """Lose a model while the process lives on."""
        if self.held.pop(model, None) is not None:
            self.inventory += 1

    def heartbeat(self) -> Heartbeat:
        """Return the heartbeat that the host would send now."""
        models = tuple(Held(m, g, self.running[m]) for m, g in sorted(self.held.items()))
        return Heartbeat(
            self.name,
            self.address,
            self.backend,
            self.slots,
            self.boot_id,
            self.inventory,
            models,
            tls=self.tls is not None,
        )

    def _handler(self, method: Any) -> Any:
        request, response = message_class(method.input_type), message_class(method.output_type)
        shape = "_".join(
            "stream" if streams else "unary"
            for streams in (method.client_streaming, method.server_streaming)
        )
        special = getattr(self, f"_{method.name}", None)
        behaviour = special or self._inference(method.name, shape, response)
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(behaviour, request.FromString, response.SerializeToString)

    # Control plane

    async def _Health(self, request: Any, context: Any) -> Any:
        self.healths += 1
        if self.health_says is not None:
            await context.abort(*self.health_says)
        return pb.Reply(message=b"OK")

    async def _Status(self, request: Any, context: Any) -> Any:
        self.statuses += 1
        if self.status_unimplemented:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Status here")
        await asyncio.sleep(self.status_delay)
        if self.status_state is not None:
            return pb.StatusResponse(state=self.status_state)
        loaded = _told(context, MODEL_ID) in self.held
        return pb.StatusResponse(state="READY" if loaded else "UNINITIALIZED")

    async def _LoadModel(self, request: Any, context: Any) -> Any:
        model = _told(context, MODEL_ID) or request.Model
        generation = int(_told(context, GENERATION) or 0)
        self.loads.append((model, generation))
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            await asyncio.sleep(self.load_delay)
            if self.load_gate is not None:
                await self.load_gate.wait()
        finally:
            self.loading -= 1
        if self.load_fails:
            await context.abort(*self.load_fails.pop(0))
        if self.load_error:
            return pb.Result(success=False, message=self.load_error)
        if self.slots == 1:
            for other in list(self.held):
                self.evict(other)
        elif len(self.held) >= self.slots and model not in self.held:
            return pb.Result(success=False, message="no free slot")
        self.held[model] = generation
        self.inventory += 1
        self._tell(context)
        return pb.Result(success=True)

    async def _Free(self, request: Any, context: Any) -> Any:
        if self.free_unimplemented:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Free here")
        model, generation = _told(context, MODEL_ID), int(_told(context, GENERATION) or 0)
        self.frees.append(model)
        if generation in (0, self.held.get(model, 0)):
            self.freed_in_use += self.running[model]
            self.evict(model)
        if self.free_fails:
            await context.abort(*self.free_fails.pop(0))
        self._tell(context)
        return pb.Result(success=True)

    def _tell(self, context: Any) -> None:
        context.set_trailing_metadata(
            ((BOOT_ID, self.boot_id), (INVENTORY_VERSION, str(self.inventory)))
        )

    # Inference

    def _inference(self, name: str, shape: str, response: Any) -> Any:  # noqa: C901 - four shapes
        async def answer(context: Any) -> AsyncIterator[Any]:
            model = await self._admit(name, context)
            self.running[model] += 1
            try:
                await asyncio.sleep(self.work)
                if self.gate is not None:
                    await self.gate.wait()
                self.executed[_told(context, REQUEST_ID)] += 1
                for number in range(self.chunks):
                    if number == self.die_after:
                        self.evict(model)
                        await abort(context, model_not_loaded("fake", model=model, started=True))
                    yield response()
            finally:
                self.running[model] -= 1

        async def unary_unary(_: Any, context: Any) -> Any:
            return [message async for message in answer(context)][-1]

        async def unary_stream(_: Any, context: Any) -> AsyncIterator[Any]:
            async for message in answer(context):
                yield message

        async def stream_unary(requests: AsyncIterator[Any], context: Any) -> Any:
            async for _ in requests:
                pass
            return [message async for message in answer(context)][-1]

        async def stream_stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            # Like many real backends, check for the model when the first message arrives.
            async for _ in requests:
                break
            async for message in answer(context):
                yield message
            async for _ in requests:
                yield response()

        return locals()[shape]

    async def _admit(self, name: str, context: Any) -> str:
        model = _told(context, MODEL_ID)
        self.seen[_told(context, REQUEST_ID)] += 1
        if self.loading_says is not None:
            self.refused += 1
            await context.abort(*self.loading_says)
        fail = self.fails.get(name, self.fail)
        if fail is not None:
            held = ((HELD_KEY, model),) if self.vouches and model in self.held else ()
            context.set_trailing_metadata((("x-origin", self.name), *held))
            await context.abort(*fail)
        if model not in self.held and not self.serves_anyway:
            await self._refuse(model, context)
        return model

    async def _refuse(self, model: str, context: Any) -> None:
        if self.says == "mismatch":
            await abort(context, model_mismatch("fake", loaded="another", requested=model))
        elif self.says == "text":
            await context.abort(grpc.StatusCode.INTERNAL, "fake: model not loaded")
        elif self.says == "code":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "bring it up first")
        error: ContractError = model_not_loaded("fake", model=model, started=self.started_mark)
        if self.says == "trailer":
            await context.abort(error.code, error.details, error.trailing_metadata[1:])
        await abort(context, error)


def _told(context: Any, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return str(value)
    return ""
