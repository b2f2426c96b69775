"""Faults under load: random evictions, a killed router, a stopped database.

The short forms run in `make test`, the long ones in `make soak`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import sqlalchemy as sa

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import InUse, ModelSpec, Settings, SmartRouter
from tests.router.conftest import HANG, QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import REQUEST_ID, Node
from tests.router.support.postgres import Postgres, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def lengths(short: float, long: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "seconds",
        [
            pytest.param(short, marks=pytest.mark.slow),
            pytest.param(long, marks=pytest.mark.soak),
        ],
    )


def _brief(error: BaseException | None) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return repr(error)


MOST = 200
"""Requests in flight at a time, so that a machine too slow for the rate sends fewer of them."""


class Traffic:
    """Sends requests at a steady rate, each with an id that the nodes record in their ledgers."""

    def __init__(self, router: SmartRouter, rate: float, models: list[str]) -> None:
        self.rate, self.models = rate, models
        self.stubs: dict[str, Any] = {name: BackendStub(router.channel(name)) for name in models}
        self.sent = 0
        self.failed = Counter[str]()
        self.lost: set[int] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while (now := loop.time() - start) < seconds:
            while self.sent < now * self.rate and len(self._calls) < MOST:
                task = loop.create_task(self._one(self.sent))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
                self.sent += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*self._calls)

    async def _one(self, number: int) -> None:
        stub = self.stubs[self.models[number % len(self.models)]]
        told = ((REQUEST_ID, str(number)),)
        try:
            if number % 3:
                await stub.Predict(pb.PredictOptions(), timeout=HANG, metadata=told)
            else:
                call = stub.PredictStream(pb.PredictOptions(), timeout=HANG, metadata=told)
                assert len([message async for message in call]) == 3
        except Exception as error:  # noqa: BLE001 - counted and shown
            self.failed[f"{_brief(error)} from {_brief(error.__cause__)}"] += 1
            self.lost.add(number)


@lengths(10, 60)
async def test_random_evictions_under_load(url: str, seconds: float) -> None:
    """5 evictions and 100 requests per second: all succeed, and none is executed twice.

    With as many attempts as it takes, so that a slow machine sees the same; what the default of
    four attempts achieves is measured by bench.faults.
    """
    nodes = [Node(name, slots=2) for name in "abc"]
    for node in nodes:
        node.work = 0.002
    names = ["m", "n", "o"]
    models = {name: ModelSpec(name, "fake", replicas=2) for name in names}
    rng, events = random.Random(7), Recorder()

    async def evict() -> None:
        while True:
            await asyncio.sleep(0.2)
            node = rng.choice(nodes)
            if node.held:
                node.evict(rng.choice(sorted(node.held)))

    patient = replace(
        QUICK, attempts=1_000_000, retry_ratio=100.0, retry_wait=HANG, storm_drops=1_000_000
    )
    async with fleet(url, *nodes, models=models, events=events, settings=patient) as (router,):
        traffic = Traffic(router, 100, names)
        evictions = asyncio.create_task(evict())
        await traffic.run(seconds)
        evictions.cancel()
        shown = Counter(name for name, _ in events.seen)
        assert not traffic.failed, shown
        executed = sum((node.executed for node in nodes), start=Counter())
        assert max(executed.values()) == 1
        assert len(executed) == traffic.sent - traffic.failed.total()
        assert events.count("heal") > 5, "the evictions were felt"
        assert router.table.in_flight() == 0


@pytest.mark.slow
async def test_evictions_at_a_fifth_of_the_requests_cost_no_request(sqlite_url: str) -> None:
    """As 20 evictions per second at 100 requests: >= 99.9 % succeed, nothing is executed twice.

    By counts, not by time, so that a slow machine sees the same.
    """
    nodes = [Node(name, slots=2) for name in "ab"]
    models = {name: ModelSpec(name, "fake", replicas=2) for name in "mn"}
    rng, numbers, failed = random.Random(7), itertools.count(), Counter[str]()
    calm = replace(QUICK, retry_ratio=0.5, retry_wait=HANG, storm_drops=1_000_000)
    async with fleet(sqlite_url, *nodes, models=models, settings=calm) as (router,):
        stubs = [BackendStub(router.channel(name)) for name in models]

        async def work() -> None:
            while (number := next(numbers)) < 2000:
                if number % 5 == 0:
                    rng.choice(nodes).evict(rng.choice("mn"))
                try:
                    told = ((REQUEST_ID, str(number)),)
                    await stubs[number % 2].Predict(pb.PredictOptions(), metadata=told)
                except grpc.aio.AioRpcError as error:
                    failed[_brief(error)] += 1

        await asyncio.gather(*(work() for _ in range(4)))
    assert failed.total() <= 2, failed
    executed = sum((node.executed for node in nodes), start=Counter())
    assert max(executed.values()) == 1, "invariant 7"
    assert len(executed) == 2000 - failed.total()
    assert sum(len(node.loads) for node in nodes) > 100, "the evictions were felt"


@pytest.mark.slow
async def test_a_killed_router_is_not_waited_for(url: str) -> None:
    """Invariant 9, with the default settings: its calls keep a replica only for its lease."""
    node = Node("a")
    node.work = 600
    async with fleet(url, node, settings=Settings()) as (router,):
        await router.load("m")
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.router.support.router_process", url, "20", cwd=ROOT
        )
        try:
            await eventually(lambda: node.running["m"] == 20)
            with pytest.raises(InUse):
                await router.unload("m")
            other.kill()
            assert await router.unload("m") == ["a"]
            assert [row.name for row in await router.registry.routers()] == [router.name]
        finally:
            if other.returncode is None:
                other.kill()
            await other.wait()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that this test may stop."""
    with serving() as server:
        yield server


@lengths(3, 30)
async def test_warm_traffic_outlives_a_stopped_postgresql(
    own_postgres: Postgres, seconds: float
) -> None:
    """All warm requests succeed while the database is down; the changes are applied afterwards."""
    nodes = [Node(name) for name in "ab"]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    events = Recorder()
    async with fleet(own_postgres.get_uri(), *nodes, models=models, events=events) as (router,):
        await router.load("m")
        await eventually(lambda: router.table.live_count("m") == 2)
        lost = next(entry for entry in router.table.replicas("m") if entry.node.name == "a")
        traffic = Traffic(router, 50, ["m"])
        running = asyncio.create_task(traffic.run(seconds + 2))
        await asyncio.to_thread(own_postgres.stop)
        await eventually(lambda: events.count("registry_down") == 1)
        nodes[0].evict("m")
        await asyncio.sleep(seconds)
        await eventually(lambda: not lost.live)
        await eventually(lambda: router.table.live_count("m") == 2)
        assert nodes[0].loads == 2 * [("m", lost.generation)], "loaded again without the registry"
        await asyncio.to_thread(own_postgres.start)
        await running
        assert not traffic.failed
        await eventually(lambda: events.count("registry_up") == 1)
        heals = await router.registry.heals()
        assert (lost.generation, "reloaded") in {(heal.generation, heal.action) for heal in heals}
        await router.watcher.catch_up()
        assert router.table.holds("a", "m", lost.generation)
        assert sum(len(node.loads) for node in nodes) == 3


@pytest.mark.slow
async def test_a_killed_node_leaves_the_other_replicas_serving(sqlite_url: str) -> None:
    """Only the calls in flight on the dead node are lost: none that is sent afterwards."""
    nodes = [Node(name) for name in "ab"]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, *nodes, models=models, settings=QUICK) as (router,):
        await router.load("m")
        await eventually(lambda: router.table.live_count("m") == 2)
        traffic = Traffic(router, 100, ["m"])
        running = asyncio.create_task(traffic.run(5))
        await eventually(lambda: traffic.sent > 50)
        await nodes[0].stop()
        await eventually(lambda: router._channels.losses(router.table.nodes[nodes[0].name].info))
        sent = traffic.sent
        await running
        assert {number for number in traffic.lost if number >= sent} == set(), traffic.failed
        assert traffic.sent > sent
        assert await router.registry.heals() == []
        with router.registry.store.engine.connect() as conn:
            assert conn.scalar(sa.text("select count(*) from replicas")) == 2
