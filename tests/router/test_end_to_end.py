"""Real processes: the gateway and echo nodes, with the failures of production."""

from __future__ import annotations

import asyncio
import random
import re
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from tests.router.support.processes import Fleet, fleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

PATIENCE = 60.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Fleet]:
    models = f"""
        [models]
        a = {{ backend = "echo", replicas = 2, options.Options = ["ledger:{tmp_path}/ledger"] }}
        b = {{ backend = "echo", options.Options = ["ledger:{tmp_path}/ledger"] }}
    """
    async with fleet(tmp_path, models) as made:
        yield made


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():
            await asyncio.sleep(0.1)


async def predict(stub: Any, model: str, request_id: str) -> grpc.StatusCode:
    """Make a unary or a streaming call; return its code, and check the answer if it is OK."""
    request = pb.PredictOptions(Prompt="one two", ModelIdentity=model, CorrelationId=request_id)
    try:
        if request_id.endswith("0"):
            answer = b"".join(
                [reply.message async for reply in stub.PredictStream(request, timeout=PATIENCE)]
            )
        else:
            answer = (await stub.Predict(request, timeout=PATIENCE)).message
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    assert answer == b"one two"
    return grpc.StatusCode.OK


async def in_flight(metrics: str) -> float:
    def scrape() -> str:
        with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
            text: bytes = page.read()
            return text.decode()

    text = await asyncio.to_thread(scrape)
    return sum(
        float(each) for each in re.findall(r"^router_in_flight{.*} (.*)$", text, re.MULTILINE)
    )


async def storm(world: Fleet, seconds: float) -> None:
    """100 requests per second, while five times per second a node loses a model."""
    gateway = await world.gateway()
    nodes = [await world.node(gateway.address, f"n{index}") for index in range(3)]
    rng = random.Random(4)
    channel = grpc.aio.insecure_channel(gateway.address)
    stub = BackendStub(channel)
    behind = [grpc.aio.insecure_channel(node.address) for node in nodes]

    async def evict() -> None:
        # A pause after each eviction, so that a slow machine does not cause a burst of them.
        while True:
            await asyncio.sleep(rng.uniform(0.1, 0.3))
            free = BackendStub(rng.choice(behind)).Free
            key = (("x-model-id", rng.choice("ab")),)
            await free(pb.HealthMessage(), metadata=key, timeout=PATIENCE)

    assert await predict(stub, "a", "warm-a") is grpc.StatusCode.OK
    assert await predict(stub, "b", "warm-b") is grpc.StatusCode.OK
    loop = asyncio.get_running_loop()
    start = loop.time()
    calls = []
    evictor = asyncio.create_task(evict())
    for index in range(int(seconds * 100)):
        await asyncio.sleep(max(0.0, start + index / 100 - loop.time()))
        calls.append(asyncio.create_task(predict(stub, rng.choice("ab"), f"r{index}")))
    codes = Counter(await asyncio.gather(*calls))
    evictor.cancel()

    assert codes[grpc.StatusCode.OK] >= 0.999 * len(calls), codes
    executions = Counter(world.ledger())
    assert {request: count for request, count in executions.items() if count > 1} == {}
    assert len(executions) >= codes[grpc.StatusCode.OK]
    heals = await world.registry.heals(1000)
    assert len([heal for heal in heals if heal.action == "dropped"]) >= seconds
    assert await in_flight(gateway.addresses[1]) == 0
    for each in [channel, *behind]:
        await each.close()
    assert await gateway.stop() == 0


async def test_evictions_under_load_are_not_noticed(world: Fleet) -> None:
    await storm(world, 10)


@pytest.mark.soak
async def test_evictions_under_load_for_a_minute_are_not_noticed(world: Fleet) -> None:
    await storm(world, 60)


async def test_when_a_node_is_killed_the_other_replicas_serve_on(world: Fleet) -> None:
    gateway = await world.gateway()
    nodes = {f"n{index}": await world.node(gateway.address, f"n{index}") for index in range(3)}
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stub = BackendStub(channel)
        assert await predict(stub, "a", "first") is grpc.StatusCode.OK

        async def two() -> bool:
            await predict(stub, "a", "again")
            return len(await world.holders("a")) == 2

        await until(two)
        victim = nodes[next(iter(await world.holders("a")))]
        codes: Counter[grpc.StatusCode] = Counter()
        ok, workers, enough = grpc.StatusCode.OK, 8, asyncio.Event()

        async def work(worker: int) -> None:
            index = 0
            while not enough.is_set():
                codes[await predict(stub, "a", f"w{worker}-{index}")] += 1
                index += 1

        async def answered(count: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while codes[ok] < count:
                    await asyncio.sleep(0.01)

        load = [asyncio.create_task(work(worker)) for worker in range(workers)]
        await answered(200)
        await victim.kill()
        await answered(codes[ok] + 400)
        enough.set()
        await asyncio.gather(*load)
        # The outcome of its calls in flight is unknown, so these fail, and no others do.
        assert set(codes) <= {ok, grpc.StatusCode.UNAVAILABLE}
        assert codes[grpc.StatusCode.UNAVAILABLE] <= 2 * workers
    assert await in_flight(gateway.addresses[1]) == 0


async def test_a_model_loaded_behind_the_routers_back_is_adopted(world: Fleet) -> None:
    gateway = await world.gateway()
    node = await world.node(gateway.address, "n0")
    async with grpc.aio.insecure_channel(node.address) as direct:
        options = pb.ModelOptions(Model="b", Options=[f"ledger:{world.folder}/ledger"])
        assert (await BackendStub(direct).LoadModel(options)).success

        async def adopted() -> bool:
            return set(await world.holders("b")) == {"n0"}

        await until(adopted)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            assert await predict(BackendStub(channel), "b", "x") is grpc.StatusCode.OK
        # A model that the node drops by itself is dropped here without a request.
        await BackendStub(direct).Free(pb.HealthMessage())

        async def dropped() -> bool:
            return not await world.holders("b")

        await until(dropped)
        assert "heartbeat" in {heal.evidence for heal in await world.registry.heals()}


async def test_a_node_that_restarts_loses_its_rows_and_serves_again(world: Fleet) -> None:
    gateway = await world.gateway()
    node = await world.node(gateway.address, "n0")
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stub = BackendStub(channel)
        assert await predict(stub, "b", "1") is grpc.StatusCode.OK
        (generation,) = (await world.holders("b")).values()
        await node.kill()
        await world.node(gateway.address, "n0", node.address)

        async def invalidated() -> bool:
            return not await world.holders("b")

        await until(invalidated)
        assert await world.registry.heals() == [], "a restart is no heal"

        async def served() -> bool:
            return await predict(stub, "b", "2") is grpc.StatusCode.OK

        await until(served)
        (reloaded,) = (await world.holders("b")).values()
        assert reloaded > generation


async def test_a_gateway_that_restarts_finds_its_fleet(world: Fleet) -> None:
    gateway = await world.gateway()
    await world.node(gateway.address, "n0")
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        assert await predict(BackendStub(channel), "b", "1") is grpc.StatusCode.OK
    before = await world.holders("b")
    await gateway.kill()
    second = await world.gateway(gateway.address)
    async with grpc.aio.insecure_channel(second.address) as channel:
        assert await predict(BackendStub(channel), "b", "2") is grpc.StatusCode.OK
    assert await world.holders("b") == before
    assert await second.stop() == 0


async def test_a_gateway_without_healing_keeps_failing(world: Fleet) -> None:
    gateway = await world.gateway("127.0.0.1:0", "--on-stale", "off")
    files = ("--files", str(world.folder))
    node = await world.start("grpcerrors_backends", "echo", "--listen", "127.0.0.1:0", *files)
    await world.registry.add_node(node.address, "echo")
    async with (
        grpc.aio.insecure_channel(gateway.address) as channel,
        grpc.aio.insecure_channel(node.address) as direct,
    ):
        stub = BackendStub(channel)

        async def served() -> bool:
            return await predict(stub, "b", "1") is grpc.StatusCode.OK

        await until(served)
        await BackendStub(direct).Free(pb.HealthMessage())
        for index in range(5):
            code = await predict(stub, "b", f"stale-{index}")
            assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert await world.registry.heals() == []


@pytest.mark.parametrize("by", ["x-model-id", "ModelIdentity"])
async def test_a_model_of_another_identity_is_reached_by_either_name(
    tmp_path: Path, by: str
) -> None:
    """As docs/reference/gateway.md promises: `small` with `options.Model = "x.gguf"`."""
    models = '[models.small]\nbackend = "echo"\noptions.Model = "x.gguf"\n'
    async with fleet(tmp_path, models) as world:
        gateway = await world.gateway()
        await world.node(gateway.address, "n")
        identity = "x.gguf" if by == "ModelIdentity" else ""
        metadata = () if identity else (("x-model-id", "small"),)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            request = pb.PredictOptions(Prompt="hi", ModelIdentity=identity)
            reply = await BackendStub(channel).Predict(request, metadata=metadata, timeout=PATIENCE)
        assert reply.message == b"hi"
