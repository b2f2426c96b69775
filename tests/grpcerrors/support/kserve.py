"""A KServe v2 backend with several models, on generated code, and a client for it.

`id` of an inference request, and the repository of a load or unload, say what the handler does; see
`steps`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors import KSERVE
from grpcerrors._guard import aio, sync
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol import inference_pb2_grpc
from tests.grpcerrors.support.guarded import (
    PATIENCE,
    Answer,
    Gates,
    answer,
    interceptors,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SURFACES = ("sync", "aio", "aio reader", "sync on aio", "sync behind an executor")


def steps(words: str, context: Any) -> Iterator[tuple[str, str]]:
    """Do each word, and yield those that the caller has to: `wait:GATE`, and the last, `say:NO`."""
    for word in words.split():
        kind, _, argument = word.partition(":")
        if kind == "code":
            context.set_code(grpc.StatusCode[argument])
            context.set_details("its own words")
        elif kind == "raise":
            raise ValueError("its own words")
        else:
            yield kind, argument


class Store:
    """The models that are really there."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}

    def run(self, request: Any) -> Any:
        return v2.ModelInferResponse(model_name=self.models[request.model_name])

    def load(self, request: Any, said: list[tuple[str, str]]) -> Any:
        self.models.pop(request.model_name, None)
        no = ("say", "NO") in said
        if not no:
            self.models[request.model_name] = request.model_name
        return v2.RepositoryModelLoadResponse(model_name=request.model_name, isLoaded=not no)

    def unload(self, request: Any, said: list[tuple[str, str]]) -> Any:
        self.models.pop(request.model_name, None)
        no = ("say", "NO") in said
        return v2.RepositoryModelUnloadResponse(model_name=request.model_name, isUnloaded=not no)


class SyncBackend(inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.store = Store()

    def _do(self, words: str, context: Any) -> list[tuple[str, str]]:
        said = []
        for kind, argument in steps(words, context):
            if kind == "wait":
                self.gates.wait(argument)
            said.append((kind, argument))
        return said

    def ServerLive(self, request: Any, context: Any) -> Any:
        return v2.ServerLiveResponse(live=True)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return v2.ModelReadyResponse(ready=request.name in self.store.models)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        return v2.ModelMetadataResponse(name=self.store.models[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._do(request.id, context)
        return self.store.run(request)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
        for request in requests:
            self._do(request.id, context)
            yield v2.ModelStreamInferResponse(infer_response=self.store.run(request))

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        return self.store.load(request, self._do(request.repository_name, context))

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        return self.store.unload(request, self._do(request.repository_name, context))


class AioBackend(inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.store = Store()

    async def _do(self, words: str, context: Any) -> list[tuple[str, str]]:
        said = []
        for kind, argument in steps(words, context):
            if kind == "wait":
                await self.gates.wait_aio(argument)
            said.append((kind, argument))
        return said

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return v2.ServerLiveResponse(live=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        return v2.ModelReadyResponse(ready=request.name in self.store.models)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        return v2.ModelMetadataResponse(name=self.store.models[request.name])

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await self._do(request.id, context)
        return self.store.run(request)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await self._do(request.id, context)
            yield v2.ModelStreamInferResponse(infer_response=self.store.run(request))

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        return self.store.load(request, await self._do(request.repository_name, context))

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        return self.store.unload(request, await self._do(request.repository_name, context))


class ReaderBackend(AioBackend):
    """The same, with a stream in the style of `context.read`."""

    async def ModelStreamInfer(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        while (request := await context.read()) is not grpc.aio.EOF:
            await self._do(request.id, context)
            await context.write(v2.ModelStreamInferResponse(infer_response=self.store.run(request)))


BACKENDS: dict[str, type[Any]] = {"aio": AioBackend, "aio reader": ReaderBackend}


class _Collector:
    """Stands for a server where generated code registers its handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None: ...

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        assert service == KSERVE.service
        self.handlers = handlers


class Client:
    """Calls a KServe backend."""

    def __init__(self, channel: grpc.Channel, gates: Gates, guard: Any, store: Store) -> None:
        self.channel = channel
        self.gates = gates
        self.guard = guard
        self.store = store

    def start(self, rpc: str, *requests: Any) -> Any:
        """Begin a call of any shape: one call shape on the client serves all four."""
        method = v2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[rpc]
        response = getattr(v2, method.output_type.name)
        return self.channel.stream_stream(
            f"/{KSERVE.service}/{rpc}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )(iter(requests), timeout=PATIENCE)

    def infer(self, model: str, does: str = "") -> Any:
        return self.start("ModelInfer", v2.ModelInferRequest(model_name=model, id=does))

    def stream(self, *models: str, does: str = "") -> Any:
        requests = [v2.ModelInferRequest(model_name=model, id=does) for model in models]
        return self.start("ModelStreamInfer", *requests)

    def metadata(self, model: str) -> Any:
        return self.start("ModelMetadata", v2.ModelMetadataRequest(name=model))

    def change(self, rpc: str, model: str, does: str = "") -> Any:
        kind = getattr(v2, f"RepositoryModel{rpc}Request")
        return self.start(f"RepositoryModel{rpc}", kind(model_name=model, repository_name=does))

    def load(self, model: str, does: str = "") -> Answer:
        return answer(self.change("Load", model, does))

    def unload(self, model: str, does: str = "") -> Answer:
        return answer(self.change("Unload", model, does))


@contextlib.contextmanager
def kserve(surface: str, **options: Any) -> Iterator[Client]:
    """A KServe backend behind its guard, and a client."""
    gates = Gates()
    kind = sync.ModelGuard if surface == "sync" else aio.ModelGuard
    guard = kind("tiny", **{"protocol": KSERVE, **options})
    backend = BACKENDS.get(surface, SyncBackend)(gates)
    server: Any = _Collector()
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(backend, server)
    services = {KSERVE.service: server.handlers}
    with serving(surface, interceptors(surface, guard), services) as channel:
        yield Client(channel, gates, guard, backend.store)
