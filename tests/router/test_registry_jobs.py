"""Load jobs in the registry: leases, fencing, slots and evictions."""

from __future__ import annotations

import asyncio

import pytest

from grpcerrors_router import Held, NodeRegistry
from grpcerrors_router.entities import Load
from grpcerrors_router.registry.jobs import Outcome, Refusal
from tests.router.support.registry import CLOCK, beat, evicting, loaded, node, request, rows


async def test_a_drop_names_a_generation(registry: NodeRegistry) -> None:
    """Invariant 1."""
    await node(registry)
    old = await loaded(registry)
    assert await registry.remove_node_model("a", "m", old.generation)
    new = await loaded(registry)
    assert new.generation > old.generation
    assert not await registry.remove_node_model("a", "m", old.generation)
    assert (await rows(registry))["a", "m"].generation == new.generation


async def test_a_stale_token_changes_nothing(registry: NodeRegistry) -> None:
    """Invariant 4: a router outlives its lease, and another takes the job over."""
    await node(registry)
    stalled = await registry.claim_load(request())
    assert isinstance(stalled, Load)
    CLOCK.advance(11)
    successor = await registry.claim_load(request())
    assert isinstance(successor, Load)
    assert not await registry.renew_load(stalled, 10)
    assert await registry.finish_load(stalled, Outcome()) is None
    assert await registry.finish_load(stalled, Outcome("failed", retry_after=60)) is None
    assert await rows(registry) == {}
    assert await registry.finish_load(successor, Outcome()) == ""
    assert (await rows(registry))["a", "m"].generation == successor.generation


async def test_a_renewed_lease_is_not_taken_over(registry: NodeRegistry) -> None:
    await node(registry)
    load = await registry.claim_load(request())
    assert isinstance(load, Load)
    CLOCK.advance(8)
    assert await registry.renew_load(load, 10)
    CLOCK.advance(8)
    assert await registry.claim_load(request()) is Refusal.ENOUGH


async def test_no_more_loads_than_wanted(registry: NodeRegistry) -> None:
    """Invariant 3."""
    for name in ("a", "b", "c"):
        await node(registry, name)
    claims = await asyncio.gather(*(registry.claim_load(request(n, wanted=2)) for n in "aabbcc"))
    assert sum(isinstance(claim, Load) for claim in claims) == 2
    assert await registry.claim_load(request("c", wanted=3, unreachable=[])) is not Refusal.FULL


async def test_a_hedge_counts_the_loads_that_its_router_does_not_know(
    registry: NodeRegistry,
) -> None:
    """Invariant 3: a load that takes long may have been followed by another one meanwhile."""
    for name in ("a", "b"):
        await node(registry, name)
    slow = await registry.claim_load(request("a"))
    assert isinstance(slow, Load)
    CLOCK.advance(11)
    hedge = request("b", hedges=[slow.generation])
    new = await registry.claim_load(request("a"))
    assert isinstance(new, Load)
    assert await registry.claim_load(hedge) is Refusal.ENOUGH
    hedge = request("b", hedges=[new.generation])
    assert isinstance(await registry.claim_load(hedge), Load)
    assert await registry.finish_load(new, Outcome()) == ""
    await node(registry, "c")
    hedge = request("c", hedges=[new.generation])
    assert await registry.claim_load(hedge) is Refusal.ENOUGH, "the slow load succeeded meanwhile"


async def test_silent_nodes_do_not_count_towards_what_is_wanted(registry: NodeRegistry) -> None:
    await node(registry, "a")
    await node(registry, "b")
    await loaded(registry, name="a")
    assert await registry.claim_load(request("b")) is Refusal.ENOUGH
    assert isinstance(await registry.claim_load(request("b", unreachable=["a"])), Load)


async def test_slots_are_never_overbooked(registry: NodeRegistry) -> None:
    await node(registry, slots=2)
    await loaded(registry, "m1")
    claims = await asyncio.gather(*(registry.claim_load(request(model=m)) for m in ("m2", "m3")))
    assert sorted(isinstance(claim, Load) for claim in claims) == [False, True]
    assert Refusal.FULL in claims


async def test_an_eviction_names_a_generation_and_is_undone_when_the_load_fails(
    registry: NodeRegistry,
) -> None:
    """Invariant 10."""
    await node(registry)
    old = await loaded(registry, "m1")
    assert (
        await registry.claim_load(
            request(model="m2", victim="m1", victim_generation=old.generation + 1)
        )
        is Refusal.FULL
    )
    claim = await registry.claim_load(
        request(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(claim, Load)
    assert await evicting(registry) == {"m1"}
    assert await registry.finish_load(claim, Outcome("in use")) == "in use"
    assert await evicting(registry) == set()
    again = await registry.claim_load(
        request(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(again, Load)
    assert await registry.finish_load(again, Outcome(freed=True)) == ""
    assert set(await rows(registry)) == {("a", "m2")}


async def test_the_victim_of_a_dead_router_can_be_picked_again(registry: NodeRegistry) -> None:
    """Invariant 17: the eviction ends when the lease expires."""
    await registry.heartbeat(beat("b1", 1, Held("m1", 7)))
    old = (await rows(registry))["a", "m1"]
    await registry.claim_load(request(model="m2", victim="m1", victim_generation=old.generation))
    assert await evicting(registry) == {"m1"}
    CLOCK.advance(11)
    assert await evicting(registry) == set()
    claim = await registry.claim_load(
        request(model="m3", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(claim, Load)


@pytest.mark.parametrize("model", ["m1", "m2"])
async def test_the_victim_of_a_dead_router_is_unknown_on_a_foreign_node(
    registry: NodeRegistry, model: str
) -> None:
    """The node was asked to unload it, and perhaps to load the other model."""
    await node(registry)
    old = await loaded(registry, "m1")
    job = await registry.claim_load(
        request(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(job, Load)
    CLOCK.advance(8)
    assert await registry.note_asked(job, 10)
    CLOCK.advance(8)
    assert await evicting(registry) == {"m1"}, "it was renewed"
    CLOCK.advance(3)
    assert isinstance(await registry.claim_load(request(model=model)), Load)
    assert await rows(registry) == {}
    assert await registry.heals() == [], "no evidence was seen"


@pytest.mark.parametrize("model", ["m1", "m2"])
async def test_a_victim_that_a_foreign_node_was_not_asked_to_unload_stays(
    registry: NodeRegistry, model: str
) -> None:
    """Invariant 9: its router died while it waited for the victim's calls to end."""
    await node(registry)
    old = await loaded(registry, "m1")
    job = await registry.claim_load(
        request(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(job, Load)
    CLOCK.advance(11)
    assert not isinstance(await registry.claim_load(request(model=model)), Load)
    assert set(await rows(registry)) == {("a", "m1")}, "invariant 9: it may be in use"
    assert not await registry.note_asked(job, 10), "invariant 4"


async def test_a_victim_s_slot_counts_once(registry: NodeRegistry) -> None:
    await node(registry, slots=2)
    one, two = await loaded(registry, "m1"), await loaded(registry, "m2")
    for model, victim in (("m3", one), ("m4", two)):
        asked = request(model=model, victim=victim.model, victim_generation=victim.generation)
        assert isinstance(await registry.claim_load(asked), Load)


async def test_an_eviction_never_ends_another_generation(registry: NodeRegistry) -> None:
    """Invariant 1: the victim was loaded again while the job ran."""
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    old = (await rows(registry))["a", "m"]
    job = await registry.claim_unload(request(victim="m", victim_generation=old.generation))
    assert job is not None
    await registry.heartbeat(beat("b1", 3, Held("m", 8)))
    await registry.finish_load(job, Outcome("unloaded", freed=True))
    assert (await rows(registry))["a", "m"].held == 8


async def test_a_failed_load_is_left_alone_for_a_while(registry: NodeRegistry) -> None:
    await node(registry)
    claim = await registry.claim_load(request())
    assert isinstance(claim, Load)
    await registry.finish_load(claim, Outcome("no such file", retry_after=5))
    assert await registry.claim_load(request()) is Refusal.BACKOFF
    job = (await registry.snapshot()).nodes[0].loads[0]
    assert (job.state, job.message, job.failures) == ("failed", "no such file", 1)
    CLOCK.advance(6)
    again = await registry.claim_load(request())
    assert isinstance(again, Load)
    assert again.failures == 1
    await registry.finish_load(again, Outcome())
    assert (await registry.snapshot()).nodes[0].loads == ()
