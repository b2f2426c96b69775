"""What heartbeats change in the registry, and who owns a name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grpcerrors_router import Held, NodeRegistry
from grpcerrors_router.entities import Correction, Load, Node
from grpcerrors_router.errors import NameTaken
from grpcerrors_router.registry.jobs import Outcome
from tests.router.support.registry import CLOCK, beat, loaded, node, request, rows


async def test_registering_again_with_the_same_boot_changes_nothing(
    registry: NodeRegistry,
) -> None:
    """Invariant 15."""
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    before = await rows(registry)
    assert await registry.heartbeat(beat("b1", 1, Held("m", 7))) == Correction()
    assert await rows(registry) == before


async def test_a_new_boot_invalidates_the_rows_of_the_old_one_for_good(
    registry: NodeRegistry,
) -> None:
    """Invariant 15: the last heartbeat of the old boot arrives late."""
    await registry.heartbeat(beat("b1", 5, Held("m", 7)))
    correction = await registry.heartbeat(beat("b2", 1, Held("n", 9)))
    assert [row.model for row in correction.restarted] == ["m"]
    assert correction.heals == (), "a restart is no heal"
    assert await registry.heals() == []
    fresh = await rows(registry)
    assert set(fresh) == {("a", "n")}
    assert await registry.heartbeat(beat("b1", 6, Held("m", 7))) == Correction()
    assert await rows(registry) == fresh


async def test_a_heartbeat_disproves_and_adopts(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    heals = (await registry.heartbeat(beat("b1", 2, Held("n"), Held("o")))).heals
    assert [(heal.model, heal.evidence) for heal in heals] == [("m", "heartbeat")]
    adopted = await rows(registry)
    assert set(adopted) == {("a", "n"), ("a", "o")}
    assert len({row.generation for row in adopted.values()}) == 2


async def test_a_heartbeat_older_than_the_load_disproves_nothing(registry: NodeRegistry) -> None:
    """Invariant 14: only an inventory at least as new as the load can disprove it."""
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(request())
    assert isinstance(claim, Load)
    assert await registry.heartbeat(beat("b1", 1)) == Correction()
    await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2))
    assert await registry.heartbeat(beat("b1", 1)) == Correction()
    assert set(await rows(registry)) == {("a", "m")}
    assert len((await registry.heartbeat(beat("b1", 3))).heals) == 1


async def test_a_heartbeat_does_not_adopt_what_is_just_being_loaded(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(request())
    assert isinstance(claim, Load)
    await registry.heartbeat(beat("b1", 2, Held("m", claim.generation)))
    assert await rows(registry) == {}
    await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2))
    assert (await rows(registry))["a", "m"].generation == claim.generation


async def test_a_load_by_a_process_that_is_gone_is_not_published(registry: NodeRegistry) -> None:
    """Invariant 5."""
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(request())
    assert isinstance(claim, Load)
    await registry.heartbeat(beat("b2", 1))
    assert await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2)) is None
    late = await registry.claim_load(request())
    assert isinstance(late, Load)
    await registry.finish_load(late, Outcome(boot_id="b1", inventory=2))
    assert await rows(registry) == {}


async def test_another_load_under_the_same_name_is_another_generation(
    registry: NodeRegistry,
) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    before = (await rows(registry))["a", "m"].generation
    await registry.heartbeat(beat("b1", 3, Held("m", 8)))
    after = (await rows(registry))["a", "m"]
    assert after.generation > before
    assert after.held == 8


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ({"address": "nowhere"}, "HOST:PORT"),
        ({"slots": 0}, "1 to 1000 slots"),
        ({"backend": ""}, "backend type"),
        ({"boot_id": ""}, "boot id"),
    ],
)
async def test_a_senseless_heartbeat_is_refused(
    registry: NodeRegistry, bad: dict[str, object], hint: str
) -> None:
    with pytest.raises(ValueError, match=hint):
        await registry.heartbeat(replace(beat(), **bad))  # type: ignore[arg-type]


async def test_leaving_names_a_boot(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m")))
    await registry.heartbeat(beat("b2", 1, Held("m")))
    assert not await registry.leave("a", "b1")
    assert not await registry.leave("a", "")
    assert await registry.leave("a", "b2")
    assert (await registry.snapshot()).nodes == ()
    await registry.heartbeat(beat("b2", 2, Held("m")))
    assert (await registry.snapshot()).nodes == (), "a heartbeat that was overtaken"
    await registry.heartbeat(beat("b3", 1, Held("m")))
    assert len((await registry.snapshot()).nodes) == 1


async def test_leaving_is_for_nodes_that_register_themselves(registry: NodeRegistry) -> None:
    await node(registry)
    assert not await registry.leave("a", "")
    assert len((await registry.snapshot()).nodes) == 1


async def test_a_node_that_was_removed_by_hand_may_come_back(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m")))
    assert await registry.remove_node("a")
    await registry.heartbeat(beat("b1", 1, Held("m")))
    assert set(await rows(registry)) == {("a", "m")}


async def test_a_name_belongs_to_one_living_process(registry: NodeRegistry) -> None:
    known = beat("b1", 1, Held("m"))
    second = replace(beat("b2", 1), address="127.0.0.1:5002")
    await registry.heartbeat(known, alive_for=8)
    CLOCK.advance(7)
    with pytest.raises(NameTaken, match=r"127\.0\.0\.1:5001.*127\.0\.0\.1:5002"):
        await registry.heartbeat(second, alive_for=8)
    assert set(await rows(registry)) == {("a", "m")}, "the known node keeps its rows"
    CLOCK.advance(2)
    await registry.heartbeat(second, alive_for=8)
    assert await rows(registry) == {}
    with pytest.raises(NameTaken):
        await registry.heartbeat(known, alive_for=8)
    CLOCK.advance(9)
    await registry.heartbeat(known, alive_for=8)
    assert set(await rows(registry)) == {("a", "m")}, "it was displaced, not banned"


async def test_a_restart_at_the_same_address_takes_over_at_once(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m")), alive_for=8)
    correction = await registry.heartbeat(beat("b2", 1), alive_for=8)
    assert [row.model for row in correction.restarted] == ["m"]


async def test_what_the_router_evicts_is_no_heal(registry: NodeRegistry) -> None:
    """The node's heartbeat arrives before the end of the job, and after it."""
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    row = (await rows(registry))["a", "m"]
    job = await registry.claim_unload(request(victim="m", victim_generation=row.generation))
    assert job is not None
    assert await registry.heartbeat(beat("b1", 2)) == Correction()
    await registry.finish_load(job, Outcome("unloaded", "b1", 2, freed=True))
    assert await registry.heartbeat(beat("b1", 2)) == Correction()
    assert await registry.heals() == []
    assert await rows(registry) == {}


async def test_a_heartbeat_that_an_unload_has_overtaken_adopts_nothing(
    registry: NodeRegistry,
) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    row = (await rows(registry))["a", "m"]
    job = await registry.claim_unload(request(victim="m", victim_generation=row.generation))
    assert job is not None
    await registry.finish_load(job, Outcome("unloaded", "b1", 2, freed=True))
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    assert await rows(registry) == {}


async def test_an_operator_s_drop_is_no_heal(registry: NodeRegistry) -> None:
    await node(registry)
    await loaded(registry)
    assert await registry.remove_node_model("a", "m")
    assert await registry.heals() == []


async def node_row(registry: NodeRegistry) -> Node:
    (view,) = (await registry.snapshot()).nodes
    assert view.node is not None
    return view.node


async def test_the_registry_knows_how_to_connect_to_a_node(registry: NodeRegistry) -> None:
    await registry.add_node("127.0.0.1:5001", "fake", name="a", tls=True, token="gpu")
    row = await node_row(registry)
    assert (row.tls, row.token) == (True, "gpu")
    await registry.add_node("127.0.0.1:5001", "fake", name="a")
    row = await node_row(registry)
    assert (row.tls, row.token) == (False, "")


async def test_a_node_that_registers_says_itself_whether_it_serves_tls(
    registry: NodeRegistry,
) -> None:
    await registry.add_node("127.0.0.1:5001", "fake", name="a", token="gpu")
    await registry.heartbeat(replace(beat("b1", 1), tls=True))
    row = await node_row(registry)
    assert (row.tls, row.token) == (True, ""), "it would get the token of the node before it"
    await registry.heartbeat(beat("b2", 1))
    assert not (await node_row(registry)).tls
