"""The tests of LocalAI's PR 10181, for every inference RPC and all four RPC shapes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from grpcerrors import is_model_not_loaded
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import InFlightTrackingClient, NodeRegistry, SmartRouter
from tests.router.conftest import QUICK, fleet
from tests.router.support.nodes import INFERENCE, Node, message_class

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")
RPCS = pytest.mark.parametrize("rpc", INFERENCE, ids=lambda rpc: rpc.name)


class CountingRegistry(NodeRegistry):
    """A registry that counts removals, and fails on demand."""

    def __init__(self, url: str, **named: Any) -> None:
        super().__init__(url, **named)
        self.removals: list[tuple[str, str, int | None]] = []
        self.broken = False

    async def remove_node_model(
        self, node: str, model: str, generation: int | None = None, *, evidence: str = "operator"
    ) -> bool:
        self.removals.append((node, model, generation))
        if self.broken:
            msg = "the registry is broken"
            raise RuntimeError(msg)
        return await super().remove_node_model(node, model, generation, evidence=evidence)


Stage = tuple[SmartRouter, Node, CountingRegistry]


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Stage]:
    node = Node("a")
    calm = replace(QUICK, storm_drops=1_000_000, retry_floor=1_000_000)
    url = f"sqlite:///{folder / 'registry.db'}"
    async with fleet(url, node, registry=CountingRegistry, settings=calm) as (router,):
        assert isinstance(router.registry, CountingRegistry)
        yield router, node, router.registry


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def warm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with served(tmp_path_factory.mktemp("rpcs")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def warm_without_details(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with served(tmp_path_factory.mktemp("rpcs")) as made:
        made[1].says = "text"
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stage(warm: Stage) -> Stage:
    """Load the model, and reset the counts."""
    router, node, registry = warm
    node.says, node.fail = "details", None
    registry.broken = False
    await router.load("m")
    registry.removals.clear()
    return warm


async def call(channel: InFlightTrackingClient, rpc: Any) -> list[Any]:
    """Make one call through a generated stub, and read the whole answer."""
    request = message_class(rpc.input_type)()
    method = getattr(BackendStub(channel), rpc.name)

    async def requests() -> AsyncIterator[Any]:
        yield request
        yield request

    answer = method(requests() if rpc.client_streaming else request, timeout=10)
    if rpc.server_streaming:
        return [message async for message in answer]
    return [await answer]


@RPCS
async def test_success_drops_nothing(stage: Any, rpc: Any) -> None:
    router, _, registry = stage
    assert await call(router.channel("m", on_stale="return"), rpc)
    assert registry.removals == []
    assert router.table.in_flight() == 0


@RPCS
@pytest.mark.parametrize("says", ["details", "mismatch"])
async def test_not_loaded_drops_the_row_once(stage: Any, rpc: Any, says: str) -> None:
    router, node, registry = stage
    entry = router.table.pick("m")
    node.says = says
    node.evict("m")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.channel("m", on_stale="return"), rpc)
    assert registry.removals == [("a", "m", entry.generation)]
    assert router.table.pick("m") is None
    assert (await registry.snapshot()).nodes[0].replicas == ()
    assert is_model_not_loaded(caught.value) is (says != "mismatch")
    assert router.table.in_flight() == entry.in_flight == 0


@RPCS
async def test_words_drop_the_row_where_no_error_has_details(
    warm_without_details: Stage, rpc: Any
) -> None:
    router, node, registry = warm_without_details
    await router.load("m")
    registry.removals.clear()
    entry = router.table.pick("m")
    assert entry is not None
    node.evict("m")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(router.channel("m", on_stale="return"), rpc)
    assert registry.removals == [("a", "m", entry.generation)]


@RPCS
async def test_unrelated_error_drops_nothing_and_comes_out_unchanged(stage: Any, rpc: Any) -> None:
    router, node, registry = stage
    node.fail = (grpc.StatusCode.INVALID_ARGUMENT, "model not loaded, says the prompt")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.channel("m"), rpc)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "model not loaded, says the prompt"
    assert ("x-origin", "a") in tuple(caught.value.trailing_metadata())
    assert registry.removals == []
    assert router.table.in_flight() == 0


@RPCS
async def test_the_original_error_comes_out_byte_for_byte(stage: Any, rpc: Any) -> None:
    router, node, _ = stage
    node.evict("m")
    async with grpc.aio.insecure_channel(node.address) as direct:
        told = (("x-model-id", "m"),)
        method = getattr(BackendStub(direct), rpc.name)
        request = message_class(rpc.input_type)()
        # Only one message: a second write may hide the status (grpc issue 36066).
        plain = method(iter([request]) if rpc.client_streaming else request, metadata=told)
        with pytest.raises(grpc.aio.AioRpcError) as expected:
            await (plain.read() if rpc.server_streaming else plain)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.channel("m", on_stale="return"), rpc)
    assert _status(caught.value) == _status(expected.value)


@RPCS
async def test_the_same_request_heals(stage: Any, rpc: Any) -> None:
    router, node, registry = stage
    loads = len(node.loads)
    node.evict("m")
    assert await call(router.channel("m", on_stale="retry"), rpc)
    assert len(registry.removals) == 1
    assert len(node.loads) == loads + 1
    assert router.table.in_flight() == 0


@RPCS
async def test_a_failing_registry_does_not_break_the_call(stage: Any, rpc: Any) -> None:
    router, node, registry = stage
    registry.broken = True
    node.evict("m")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(router.channel("m", on_stale="return"), rpc)
    assert is_model_not_loaded(caught.value)
    registry.broken = False
    await NodeRegistry.remove_node_model(registry, "a", "m")


def _status(error: grpc.aio.AioRpcError) -> tuple[Any, ...]:
    return error.code(), error.details(), tuple(error.trailing_metadata())
