"""Cost of the router inside a Python program, without the gateway."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import grpc
import sqlalchemy as sa

from bench.router.load import REQUEST
from bench.router.peers import MODEL
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec, NodeRegistry, Settings, SmartRouter
from grpcerrors_router.entities import Node, NodeView, Replica, Snapshot
from grpcerrors_router.view.table import RoutingTable

if TYPE_CHECKING:
    from pathlib import Path

BATCH = 100
SPECS = {MODEL: ModelSpec(MODEL, "bench")}


async def added_latency(upstream: str, folder: Path, rounds: int) -> tuple[float, float]:
    """Return the median times of direct and of tracked calls in seconds; the calls alternate."""
    router = SmartRouter(NodeRegistry(f"sqlite:///{folder}/latency.db"), SPECS)
    async with router, grpc.aio.insecure_channel(upstream) as channel:
        await router.registry.add_node(upstream, "bench")
        stubs = BackendStub(channel), BackendStub(router.channel(MODEL))
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds * 4):
            for stub, times in zip(stubs, taken, strict=True):
                times.extend(await _batch(stub.Predict))
        warm = rounds * BATCH
        return median(taken[0][warm:]), median(taken[1][warm:])


async def _batch(predict: Any) -> list[float]:
    times = []
    for _ in range(BATCH):
        start = time.perf_counter()
        await predict(REQUEST)
        times.append(time.perf_counter() - start)
    return times


async def statements(upstream: str, folder: Path, calls: int) -> int:
    """Count the database statements of `calls` warm calls, without background work."""
    still = Settings(poll_interval=3600, lease_flush=3600)
    registry = NodeRegistry(f"sqlite:///{folder}/statements.db")
    async with SmartRouter(registry, SPECS, settings=still) as router:
        await registry.add_node(upstream, "bench")
        predict = BackendStub(router.channel(MODEL)).Predict
        await predict(REQUEST)
        count = 0

        def note(*_: object) -> None:
            nonlocal count
            count += 1

        sa.event.listen(registry.store.engine, "before_cursor_execute", note)
        for _ in range(calls):
            await predict(REQUEST)
        return count


def picking(replicas: int, rounds: int = 30, picks: int = 2000) -> float:
    """Return the best time of one pick in seconds, including its accounting."""
    table = RoutingTable()
    views = [
        NodeView(1, name, Node(name, "127.0.0.1:1", "bench"), (Replica(name, "m", 1, 1),))
        for name in (f"n{index}" for index in range(replicas))
    ]
    table.replace(Snapshot(1, tuple(views)))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(picks):
            entry = table.pick("m")
            assert entry is not None
            table.enter(entry)
            table.leave(entry)
        best = min(best, (time.perf_counter() - start) / picks)
    return best
