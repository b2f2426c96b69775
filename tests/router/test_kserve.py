"""The Open Inference Protocol: routed by the same router, over nodes that speak both or only it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import abort, model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter
from grpcerrors_router.errors import InUse, LoadFailed, UnloadUnsupported
from tests.router.conftest import HANG, QUICK
from tests.router.support.processes import fleet
from tests.router.support.rawnode import Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE = 60.0


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as made:
        made.node.script = Script(replies=(v2.ModelInferResponse(id="hi").SerializeToString(),))
        yield made


def asks(model: str, *texts: bytes) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name=model)
    contents = v2.InferTensorContents(bytes_contents=texts)
    request.inputs.add(name="text", datatype="BYTES", shape=[len(texts)], contents=contents)
    return request


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("requested", "key", "model"),
    [
        ("m", "", "m"),
        ("", "m", "m"),
        ("m", "m", "m"),
        ("alias", "", "alias"),
        ("weights.gguf", "", "alias"),
        ("weights.gguf", "alias", "alias"),
        ("alias", "alias", "alias"),
        ("twin", "twin-b", "twin-b"),
        ("twin-b", "twin-b", "twin-b"),
    ],
)
async def test_the_model_is_named_by_either_name_or_by_the_key(
    served: Stack, requested: str, key: str, model: str
) -> None:
    stub = GRPCInferenceServiceStub(served.through)
    metadata = (("x-model-id", key),) if key else ()
    assert (await stub.ModelInfer(asks(requested), metadata=metadata)).id == "hi"
    (seen,) = served.node.seen
    assert seen.method == "/inference.GRPCInferenceService/ModelInfer"
    assert ("x-model-id", model) in seen.metadata
    assert seen.requests == [asks(requested).SerializeToString()]


@pytest.mark.parametrize(
    ("requested", "key", "words"),
    [
        ("", "", "set model_name or the metadata key x-model-id"),
        ("m", "alias", 'x-model-id is "alias", but model_name is "m"'),
        ("twin", "", '"twin-a" and "twin-b" are both loaded as "twin"'),
    ],
)
async def test_a_model_that_is_not_clear_is_refused(
    served: Stack, requested: str, key: str, words: str
) -> None:
    stub = GRPCInferenceServiceStub(served.through)
    metadata = (("x-model-id", key),) if key else ()
    error = await refused(stub.ModelInfer(asks(requested), metadata=metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (error.details() or "")
    assert not served.node.seen


async def test_metadata_of_a_model_is_asked_from_its_node(served: Stack) -> None:
    stub = GRPCInferenceServiceStub(served.through)
    served.node.script = Script(
        replies=(v2.ModelMetadataResponse(platform="p").SerializeToString(),)
    )
    assert (await stub.ModelMetadata(v2.ModelMetadataRequest(name="m"))).platform == "p"
    assert served.node.loads == ["m"]


async def test_a_stream_needs_the_key(served: Stack) -> None:
    stub = GRPCInferenceServiceStub(served.through)
    response = v2.ModelStreamInferResponse(error_message="hi")
    served.node.script = Script(replies=(response.SerializeToString(),))
    call = stub.ModelStreamInfer(iter([asks("m")]), metadata=(("x-model-id", "m"),))
    assert [reply.error_message async for reply in call] == ["hi"]
    # The refusal may come while the message is sent, so the call knows more than what it raises.
    refused_call = stub.ModelStreamInfer(iter([asks("m")]))
    assert "set the metadata key x-model-id" in (await refused_call.details() or "")


async def test_the_router_answers_for_itself_and_loads_nothing(served: Stack) -> None:
    stub = GRPCInferenceServiceStub(served.through)

    async def ready(model: str) -> bool:
        return bool((await stub.ModelReady(v2.ModelReadyRequest(name=model))).ready)

    async def index(*, only_ready: bool = False) -> dict[str, str]:
        request = v2.RepositoryIndexRequest(ready=only_ready)
        return {each.name: each.state for each in (await stub.RepositoryIndex(request)).models}

    assert (await stub.ServerLive(v2.ServerLiveRequest())).live
    assert (await stub.ServerReady(v2.ServerReadyRequest())).ready
    assert (await stub.ServerMetadata(v2.ServerMetadataRequest())).name == "grpcerrors-router"
    assert not await ready("m")
    assert set((await index()).values()) == {"UNAVAILABLE"}
    assert not served.node.loads

    served.node.load_gate = asyncio.Event()
    work = asyncio.ensure_future(stub.ModelInfer(asks("weights.gguf")))
    async with asyncio.timeout(HANG):
        while not served.node.loads:
            await asyncio.sleep(0.01)
    assert (await index())["alias"] == "LOADING"
    assert not await ready("alias")
    served.node.load_gate.set()
    await work
    assert await ready("alias")
    assert await ready("weights.gguf")
    assert await index(only_ready=True) == {"alias": "READY"}

    error = await refused(ready("n"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    for entry in served.router.table.nodes.values():
        served.router.table.set_state(entry, reachable=False, busy=False)
    assert not (await stub.ServerReady(v2.ServerReadyRequest())).ready


async def test_a_request_that_the_router_cannot_read_is_the_callers_mistake(served: Stack) -> None:
    index = served.through.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
    error = await refused(index(b"\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == (
        "the request of RepositoryIndex is not a inference.RepositoryIndexRequest; send one"
    )


async def test_loading_and_unloading_are_not_passed_on(served: Stack) -> None:
    stub = GRPCInferenceServiceStub(served.through)
    for call in (
        stub.RepositoryModelLoad(v2.RepositoryModelLoadRequest(model_name="m")),
        stub.RepositoryModelUnload(v2.RepositoryModelUnloadRequest(model_name="m")),
    ):
        error = await refused(call)
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "grpcerrors-router load|unload" in (error.details() or "")
    assert not served.node.loads


class OnlyKServe(GRPCInferenceServiceServicer):
    """A server of the Open Inference Protocol alone, as Triton is."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, dict[str, str]]] = []
        self.held: set[str] = set()
        self.executed = Counter[bytes]()
        self.says = "details"
        self.fails = ""
        self.denies = False
        self.repository = grpc.StatusCode.OK

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        if self.repository is not grpc.StatusCode.OK:
            await context.abort(self.repository, "no model repository")
        if self.fails:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.fails)
        if self.denies:  # as KServe's Python server can
            return v2.RepositoryModelLoadResponse(model_name=request.model_name, isLoaded=False)
        options = {key: value.string_param for key, value in request.parameters.items()}
        self.loads.append((request.model_name, options))
        self.held.add(request.model_name)
        return v2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        if self.repository is not grpc.StatusCode.OK:
            await context.abort(self.repository, "no model repository")
        if self.denies:
            name = request.model_name
            return v2.RepositoryModelUnloadResponse(model_name=name, isUnloaded=False)
        self.held.discard(request.model_name)
        return v2.RepositoryModelUnloadResponse()

    async def ModelReady(self, request: Any, context: Any) -> Any:
        if self.says == "words" and request.name not in self.held:  # as KServe's Python server
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Model with name {request.name}...")
        return v2.ModelReadyResponse(ready=request.name in self.held)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        name = request.model_name
        if name not in self.held:
            if self.says == "words":
                text = f"Request for unknown model: '{name}' is not found"
                await context.abort(grpc.StatusCode.NOT_FOUND, text)
            await abort(context, model_not_loaded("triton", model=name))
        self.executed[request.id] += 1
        return v2.ModelInferResponse(model_name=name, id=request.id)


Foreign = tuple[OnlyKServe, SmartRouter]


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[Foreign]:
    node = OnlyKServe()
    models = {
        "a": ModelSpec("a", "triton", {"Options": ["kind:small", "path:/a:b"]}),
        "b": ModelSpec("b", "triton", {"Model": "other"}),
    }
    registry = NodeRegistry(f"sqlite:///{tmp_path / 'router.db'}", timeout=HANG)
    async with contextlib.AsyncExitStack() as cleanup:
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(node, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        cleanup.push_async_callback(server.stop, None)
        router = await cleanup.enter_async_context(SmartRouter(registry, models, settings=QUICK))
        await registry.add_node(f"127.0.0.1:{port}", "triton", name="t", slots=4)
        yield node, router


@pytest.mark.parametrize("says", ["details", "words"])
async def test_a_node_that_speaks_only_it_is_loaded_and_heals(foreign: Foreign, says: str) -> None:
    node, router = foreign
    node.says = says
    stub = GRPCInferenceServiceStub(router.channel("a"))
    for _ in range(2):
        node.held.clear()  # behind the router's back
        request = v2.ModelInferRequest(model_name="a", id=f"r{len(node.loads)}")
        assert (await stub.ModelInfer(request, timeout=HANG)).id == request.id
    assert node.loads == [("a", {"kind": "small", "path": "/a:b"})] * 2
    assert node.executed == {"r0": 1, "r1": 1}
    assert await router.unload("a") == ["t"]
    assert node.held == set()


async def test_what_such_a_node_has_no_place_for_is_reported(foreign: Foreign) -> None:
    node, router = foreign
    stub = GRPCInferenceServiceStub(router.channel("b"))
    with pytest.raises(LoadFailed, match="no place for Model, only for Options"):
        await stub.ModelInfer(v2.ModelInferRequest(model_name="b"), timeout=HANG)
    assert node.loads == []


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN])
async def test_a_node_that_does_not_load_has_its_models_from_the_start(
    foreign: Foreign, code: grpc.StatusCode
) -> None:
    node, router = foreign
    node.repository = code
    stub = GRPCInferenceServiceStub(router.channel("a"))
    request = v2.ModelInferRequest(model_name="a", id="1")
    with pytest.raises(LoadFailed, match="no model repository"):
        await stub.ModelInfer(request, timeout=HANG)
    node.held.add("a")
    async with asyncio.timeout(HANG):
        while True:
            with contextlib.suppress(LoadFailed):  # until the pause after the failure is over
                assert (await stub.ModelInfer(request, timeout=HANG)).id == "1"
                break
            await asyncio.sleep(0.05)
    with pytest.raises((UnloadUnsupported, InUse)):
        await router.unload("a")
    assert node.held == {"a"}
    node.held.clear()
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.ModelInfer(request, timeout=HANG)


async def test_such_a_nodes_reason_is_reported(foreign: Foreign) -> None:
    node, router = foreign
    node.fails = "failed to load 'a', no such directory"
    stub = GRPCInferenceServiceStub(router.channel("a"))
    with pytest.raises(LoadFailed, match="no such directory"):
        await stub.ModelInfer(v2.ModelInferRequest(model_name="a"), timeout=HANG)


async def test_such_a_node_may_answer_that_it_did_not(foreign: Foreign) -> None:
    """It answers OK, and says in the response that it did not load or unload the model."""
    node, router = foreign
    stub = GRPCInferenceServiceStub(router.channel("a"))
    request = v2.ModelInferRequest(model_name="a", id="1")
    await router.load("a")
    node.denies = True
    with pytest.raises(InUse, match="answers that the model is not unloaded"):
        await router.unload("a")
    assert (await stub.ModelInfer(request, timeout=HANG)).id == "1"
    node.denies = False
    assert await router.unload("a") == ["t"]
    node.denies = True
    with pytest.raises(LoadFailed, match="answers that the model is not loaded"):
        await stub.ModelInfer(request, timeout=HANG)


@pytest.mark.slow
async def test_a_model_killed_behind_the_routers_back_is_not_noticed(tmp_path: Path) -> None:
    """Real processes: 40 clients send the same kind of request while the model is gone."""
    models = f"""
        [models.a]
        backend = "echo"
        options = {{ Model = "a.gguf", Options = ["ledger:{tmp_path}/ledger"] }}
    """
    async with fleet(tmp_path, models) as world:
        gateway = await world.gateway()
        node = await world.node(gateway.address, "n")
        async with (
            grpc.aio.insecure_channel(gateway.address) as channel,
            grpc.aio.insecure_channel(node.address) as direct,
        ):
            stub = GRPCInferenceServiceStub(channel)

            async def infer(text: bytes) -> bytes:
                answer = await stub.ModelInfer(asks("a", text), timeout=PATIENCE)
                said: bytes = answer.outputs[0].contents.bytes_contents[0]
                return said

            assert await infer(b"first") == b"first"
            (before,) = (await world.holders("a")).values()
            unload = v2.RepositoryModelUnloadRequest(model_name="a")
            behind = GRPCInferenceServiceStub(direct)
            for drop, request in (
                (BackendStub(direct).Free, pb.HealthMessage()),
                (behind.RepositoryModelUnload, unload),
            ):
                await drop(request, timeout=PATIENCE)
                texts = [b"%d-%d" % (before, index) for index in range(40)]
                assert await asyncio.gather(*map(infer, texts)) == texts
                (after,) = (await world.holders("a")).values()
                assert after > before
                before = after
        executions = Counter(world.ledger())
        assert len(executions) == 81
        assert set(executions.values()) == {1}
