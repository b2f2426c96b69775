"""Scenarios with more models than slots."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.faults.report import Result, right
from bench.faults.stale import warm
from bench.faults.traffic import Callers
from bench.faults.world import samples, until, world

if TYPE_CHECKING:
    from bench.faults.traffic import Answer
    from bench.faults.world import Process, World

LEASE = 15.0  # seconds for which a dead router still owns its load


async def thrash(world: World, seconds: float) -> Result:
    """Three models compete for one slot, at 30 requests per second."""
    gateway = await world.gateway(world.models("a", "b", "c"))
    await world.node("n", gateway)
    result = Result("thrash")
    async with Callers(gateway.address) as callers:
        result.count(await callers.drive(30, seconds, "abc", deadline=30))
    await world.record(result)
    result.check_none("NO_CAPACITY", result.failures("NO_CAPACITY"))
    result.check_share("answered", result.ok, result.sent, 0.99)
    result.check_none("executed twice", result.twice)
    result.check_none("heals", result.heals)
    return result


async def own_evictions(world: World, seconds: float, wanted: int = 100) -> Result:
    """Two models alternate in one slot until the router has evicted `wanted` times."""
    gateway = await world.gateway(world.models("a", "b"))
    await world.node("n", gateway)
    result = Result("own-evictions")
    answers: list[Answer] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with Callers(gateway.address) as callers:
        while loop.time() < end and await world.total("router_evictions_total") < wanted:
            for model in "ab":
                answers.append(await callers.predict(model, f"{model}{len(answers)}"))
    result.count(answers)
    await world.record(result)
    evicted = await world.total("router_evictions_total")
    heals = await world.heals()
    result.check("evictions", f">= {wanted}", evicted, passed=evicted >= wanted)
    result.check_none("router_heals_total", result.heals)
    result.check_none("rows in the heal log", len(heals))
    result.check_share("answered", result.ok, result.sent, 1.0)
    return result


async def kill9_eviction(_world: World, _seconds: float, load_seconds: float = 3.0) -> Result:
    """A router is killed while it replaces one model with another, then restarted."""
    result = Result("kill9-eviction")
    limit = LEASE + 2 * load_seconds + 5
    for kind in ("own", "foreign"):
        for after in (0.05, load_seconds / 2):
            async with world() as made:
                answers, took = await _kill(made, kind, after, load_seconds)
                await made.record(result)
            result.count(answers)
            ok = right(answers)
            what = f"{kind}, killed after {after} s"
            result.check_share(what, ok, len(answers), 1.0)
            result.check(f"{what}: seconds", f"<= {limit}", f"{took:.1f}", passed=took <= limit)
            said = [f"{each.model}: {each.outcome} {each.detail}".strip() for each in answers]
            result.notes += [f"{what}: {each}" for each in said]
    result.check_none("executed twice", result.twice)
    return result


async def _kill(
    made: World, kind: str, after: float, load_seconds: float
) -> tuple[list[Answer], float]:
    """Kill the router `after` seconds into a load; return the later answers and their time."""
    models = made.models("a", "b", load_seconds=load_seconds)
    gateway = await made.gateway(models)
    if kind == "own":
        await made.node("n", gateway)
    else:
        node = await made.foreign("--load-seconds", str(load_seconds))
        await made.add_node(gateway, node, "n", "echo")
    async with Callers(gateway.address) as callers:
        await warm(callers, "a")
        evicting = asyncio.create_task(callers.predict("b", "evicting", deadline=60))
        await until(lambda: loading(gateway))
        await asyncio.sleep(after)
        await gateway.kill()
        await evicting
    again = await made.gateway(models, listen=gateway.address)
    start = asyncio.get_running_loop().time()
    async with Callers(again.address) as callers:
        calls = [callers.predict(model, f"{model} again", deadline=60) for model in "ab"]
        answers = await asyncio.gather(*calls)
    return answers, asyncio.get_running_loop().time() - start


async def loading(gateway: Process) -> bool:
    return any(value for _, value in await samples(gateway, "router_loads_in_flight"))
