"""Scenarios with nodes that stop, hang or are busy, and with bursts of calls."""

from __future__ import annotations

import asyncio

from bench.faults.capacity import loading
from bench.faults.report import Result, right
from bench.faults.stale import warm
from bench.faults.traffic import Callers
from bench.faults.world import World, until


async def sigstop(world: World, seconds: float) -> Result:
    """The node with the only replica of a model stops for half of the time; another has room."""
    gateway = await world.gateway(world.models("a", "b"))
    for index in range(2):
        await world.node(f"n{index}", gateway, slots=2)
    result = Result("sigstop")
    async with Callers(gateway.address) as callers:
        for model in "ab":
            await warm(callers, model)
        (holder,) = await world.holders(gateway, "a")

        async def stop() -> None:
            await asyncio.sleep(seconds / 8)
            world.nodes[holder].pause()
            await asyncio.sleep(seconds / 2)
            world.nodes[holder].resume()

        stopped = asyncio.create_task(stop())
        result.count(await callers.drive(100, seconds, "ab", deadline=5))
        await stopped
    await world.record(result)
    most = round(result.sent * 0.05)
    result.check("lost", f"<= {most}", result.lost, passed=result.lost <= most)
    result.check_none("executed twice", result.twice)
    return result


async def hanging_load(world: World, seconds: float) -> Result:
    """LoadModel hangs on the node that is chosen first, while another node is idle."""
    gateway = await world.gateway(world.models("m"))
    hanging = await world.foreign("--hang-load")
    await world.add_node(gateway, hanging, "a-hangs", "echo")
    result = Result("hanging-load")
    async with Callers(gateway.address, 4) as callers:
        # A node that has answered before is preferred, so the hanging one must be the only one.
        first = asyncio.create_task(callers.predict("m", "first", deadline=10))
        await until(lambda: loading(gateway))
        await world.node("b-idle", gateway)
        result.count([await first])
        result.count(await callers.drive(5, seconds, ["m"], deadline=10))
    await world.record(result)
    result.notes.append(f"{len(world.ledger('LoadModel'))} x LoadModel on the hanging node")
    result.check_share("answered within 10 s", result.ok, result.sent, 0.99)
    result.check_none("executed twice", result.twice)
    return result


async def burst(world: World, _seconds: float, calls: int = 4000) -> Result:
    """Thousands of concurrent calls, first to a loaded model, then to one that is not loaded."""
    models = world.models("warm", answer_seconds=0.2)
    cold = world.models("cold", load_seconds=2).removeprefix("[models]\n")
    gateway = await world.gateway(f"{models}\n{cold}")
    await world.node("n", gateway, slots=2)
    result = Result("burst")
    async with Callers(gateway.address, 8) as callers:
        await warm(callers, "warm")
        for model in ("warm", "cold"):
            requests = [callers.predict(model, f"{model}{i}", deadline=60) for i in range(calls)]
            answers = await asyncio.gather(*requests)
            result.count(answers)
            cancelled = sum("CANCELLED" in answer.outcome for answer in answers)
            result.check_none(f"CANCELLED, {model}", cancelled)
            result.check_share(f"answered, {model}", right(answers), calls, 0.999)
    await world.record(result)
    result.check_none("executed twice", result.twice)
    return result


async def foreign_burst(world: World, _seconds: float, calls: int = 4000) -> Result:
    """The same with a foreign backend, whose server has gRPC's default limits."""
    gateway = await world.gateway('[models]\nm = { backend = "foreign" }\n')
    node = await world.foreign("--load-seconds", "2")
    await world.add_node(gateway, node, "f", "foreign")
    result = Result("foreign-burst")
    async with Callers(gateway.address, 8) as callers:
        requests = [callers.predict("m", f"{i}", deadline=60) for i in range(calls)]
        result.count(await asyncio.gather(*requests))
    await world.record(result)
    result.check_none("CANCELLED", result.failures("CANCELLED"))
    result.check_share("answered", result.ok, calls, 0.999)
    result.check_none("executed twice", result.twice)
    return result


async def one_worker(world: World, _seconds: float, busy: float = 16.0) -> Result:
    """A request reaches a server whose only thread is busy for another 6 s."""
    gateway = await world.gateway('[models]\nm = { backend = "foreign" }\n')
    node = await world.foreign("--workers", "1")
    await world.add_node(gateway, node, "f", "foreign")
    result = Result("one-worker")
    async with Callers(gateway.address) as callers:
        await warm(callers, "m")
        long = asyncio.create_task(callers.predict("m", "long", 60, prompt=f"wait {busy}"))
        await until(lambda: _begun(world, "long"))
        await asyncio.sleep(busy * 10 / 16)
        second = await callers.predict("m", "second", deadline=30)
        answers = [await long, second]
    result.count(answers)
    await world.record(result)
    result.check_share("both answered", result.ok, result.sent, 1.0)
    result.check("loads", "1", result.loads, passed=result.loads == 1)
    return result


async def _begun(world: World, request: str) -> bool:
    return request in world.ledger()
