"""Rows, requests and heartbeats for the tests of the registry, on a clock moved by hand."""

from __future__ import annotations

from grpcerrors_router import Heartbeat, Held, NodeRegistry
from grpcerrors_router.entities import Load, Replica
from grpcerrors_router.registry.jobs import JobRequest, Outcome
from tests.router.support.clock import HandClock

CLOCK = HandClock()


def request(node: str = "a", model: str = "m", wanted: int = 1, **more: object) -> JobRequest:
    return JobRequest(node, model, "r1", wanted, 10.0, **more)  # type: ignore[arg-type]


async def node(registry: NodeRegistry, name: str = "a", slots: int = 1) -> None:
    await registry.add_node("127.0.0.1:5001", "fake", name=name, slots=slots)


async def loaded(registry: NodeRegistry, model: str = "m", name: str = "a") -> Load:
    claim = await registry.claim_load(request(name, model, 99))
    assert isinstance(claim, Load)
    assert await registry.finish_load(claim, Outcome()) == ""
    return claim


async def evicting(registry: NodeRegistry) -> set[str]:
    views = (await registry.snapshot()).nodes
    return {row.model for view in views for row in view.replicas if view.evicting(row)}


async def rows(registry: NodeRegistry) -> dict[tuple[str, str], Replica]:
    snapshot = await registry.snapshot()
    return {(r.node, r.model): r for view in snapshot.nodes for r in view.replicas}


def beat(boot: str = "b1", version: int = 1, *held: Held, name: str = "a") -> Heartbeat:
    return Heartbeat(name, "127.0.0.1:5001", "fake", 2, boot, version, held)
