"""What the registry keeps, and for how long: leases of routers, use, and what is pruned."""

from __future__ import annotations

import sqlalchemy as sa

from grpcerrors_router import Held, NodeRegistry
from grpcerrors_router.entities import Load, RouterRow, Use
from grpcerrors_router.registry.jobs import Outcome
from tests.router.conftest import HANG
from tests.router.support.registry import CLOCK, beat, loaded, node, request


async def test_a_router_is_alive_as_long_as_its_lease(url: str) -> None:
    """Invariant 9."""
    async with (
        NodeRegistry(url, router="r1", clock=CLOCK, timeout=HANG) as one,
        NodeRegistry(url, router="r2", clock=CLOCK, timeout=HANG) as two,
    ):
        assert await one.sign_in(1, 10) is None
        CLOCK.advance(8)
        assert await two.sign_in(5, 10) is None
        assert [(r.name, r.seen_revision) for r in await two.routers()] == [("r1", 1), ("r2", 5)]
        CLOCK.advance(3)
        assert [router.name for router in await two.routers()] == ["r2"]
        await two.sign_out()
        assert await two.routers() == []


async def test_a_second_router_of_the_same_name_is_refused(url: str) -> None:
    async with (
        NodeRegistry(url, router="same", clock=CLOCK, timeout=HANG) as one,
        NodeRegistry(url, router="same", clock=CLOCK, timeout=HANG) as two,
    ):
        assert await one.sign_in(7, 10) is None
        other = await two.sign_in(9, 10)
        assert isinstance(other, RouterRow)
        await two.sign_out()
        assert [row.seen_revision for row in await one.routers()] == [7]
        CLOCK.advance(11)
        assert await two.sign_in(9, 10) is None, "the first one has died"


async def test_use_and_signs_of_life_are_noted(registry: NodeRegistry) -> None:
    await node(registry)
    row = await loaded(registry)
    await registry.note({"a": 2.0, "gone": 1.0}, [Use(row.generation, 3, 4.0), Use(1, 1, 1.0)])
    (view,) = (await registry.snapshot()).nodes
    assert view.node is not None
    assert view.node.last_seen == CLOCK.now - 2
    assert (view.replicas[0].in_flight, view.replicas[0].last_used) == (3, CLOCK.now - 4)
    await registry.note({"a": 60.0}, [])
    assert (await registry.snapshot()).nodes[0].node == view.node, "news never goes back"


async def test_silent_nodes_old_heals_and_dead_jobs_are_pruned(registry: NodeRegistry) -> None:
    await node(registry, "foreign")
    await registry.heartbeat(beat("b1", 1, Held("m"), name="silent"))
    await registry.heartbeat(beat("b1", 2, name="silent"))
    await registry.claim_load(request("foreign"))
    CLOCK.advance(3601)
    await registry.heartbeat(beat("b9", 1, name="heard"))
    await registry.prune(node_retention=3600, heal_retention=7200)
    snapshot = await registry.snapshot()
    assert {view.name for view in snapshot.nodes} == {"foreign", "heard"}
    assert not any(view.loads for view in snapshot.nodes), "the router that loaded has died"
    assert len(await registry.heals()) == 1
    await registry.prune(node_retention=3600, heal_retention=3600)
    assert await registry.heals() == []


async def test_a_failed_load_is_kept_as_long_as_a_heal(registry: NodeRegistry) -> None:
    await node(registry, "a")
    job = await registry.claim_load(request("a"))
    assert isinstance(job, Load)
    await registry.finish_load(job, Outcome("out of memory", retry_after=10.0, answered=True))
    CLOCK.advance(600)
    await registry.prune(node_retention=3600, heal_retention=600)
    (view,) = (await registry.snapshot()).nodes
    assert [load.message for load in view.loads] == ["out of memory"]
    CLOCK.advance(11)
    await registry.prune(node_retention=3600, heal_retention=600)
    (view,) = (await registry.snapshot()).nodes
    assert not view.loads


async def test_old_boots_and_changes_are_pruned(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1))
    await registry.heartbeat(beat("b2", 1))
    await registry.store.write(
        lambda conn: conn.execute(sa.text("update revision set number = number + 20000"))
    )
    await registry.prune(node_retention=3600, heal_retention=3600)

    def kept(conn: sa.Connection) -> tuple[list[str], int]:
        names = conn.scalars(sa.text("select boot_id from boots")).all()
        return list(names), int(conn.scalar(sa.text("select count(*) from changes")) or 0)

    assert await registry.store.read(kept) == (["b2"], 0)
