"""The rules of the registry on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from grpcerrors_router import Heartbeat, Held, NodeRegistry, RegistryUnavailable, RoutingTable
from grpcerrors_router.entities import Correction, Load, NodeView, Replica, RouterRow, Use
from grpcerrors_router.entities import Node as Row
from grpcerrors_router.errors import NameTaken, RegistryOutdated
from grpcerrors_router.registry.jobs import JobRequest, Outcome, Refusal
from grpcerrors_router.registry.schema import changes, metadata, replicas
from tests.router.support.clock import HandClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


CLOCK = HandClock()


@pytest_asyncio.fixture
async def registry(url: str) -> AsyncIterator[NodeRegistry]:
    async with NodeRegistry(url, router="r1", clock=CLOCK) as registry:
        yield registry


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


async def test_the_migrations_make_the_schema(registry: NodeRegistry) -> None:
    with registry.store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": "router_version"})
        assert compare_metadata(context, metadata) == []


async def test_two_routers_may_migrate_at_once(url: str) -> None:
    registries = [NodeRegistry(url) for _ in range(4)]
    await asyncio.gather(*(registry.open() for registry in registries))
    for registry in registries:
        assert (await registry.snapshot()).nodes == ()
        await registry.close()


async def test_the_database_enforces_one_row_per_node_and_model(registry: NodeRegistry) -> None:
    """Invariant 2."""
    await node(registry)
    await loaded(registry)
    row = {"node": "a", "model": "m", "generation": 999, "held": 0, "boot_id": "",
           "loaded_at": 0.0}  # fmt: skip
    with pytest.raises(sa.exc.IntegrityError):
        await registry.store.write(lambda conn: conn.execute(sa.insert(replicas).values(**row)))


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


# Inventories


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


# Names


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


# Evictions are no heals


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


# Following, routers


async def test_changes_say_which_nodes_to_read_again(registry: NodeRegistry) -> None:
    await node(registry, "a")
    await node(registry, "b")
    seen = (await registry.snapshot()).revision
    await loaded(registry, name="b")
    batch = await registry.changes_since(seen)
    assert batch is not None
    assert [view.name for view in batch.nodes] == ["b"]
    assert batch.nodes[0].replicas
    await registry.remove_node("b")
    gone = await registry.changes_since(batch.revision)
    assert gone is not None
    assert gone.nodes[0].node is None
    assert await registry.changes_since(gone.revision + 100) is None, (
        "another database: list everything"
    )


async def test_a_gap_in_the_changes_is_noticed(registry: NodeRegistry) -> None:
    """Invariant 16."""
    await node(registry, "a")
    seen = (await registry.snapshot()).revision
    for _ in range(3):
        await loaded(registry)
        await registry.remove_node_model("a", "m")
    await registry.store.write(
        lambda conn: conn.execute(sa.delete(changes).where(changes.c.revision < seen + 4))
    )
    assert await registry.changes_since(seen) is None


def test_the_table_never_goes_back() -> None:
    """Invariant 16: views may arrive in any order."""
    table = RoutingTable()
    row = Row("a", "127.0.0.1:1", "fake")
    new = NodeView(9, "a", row, (Replica("a", "m", 9, 9),))
    assert table.apply(new)
    assert not table.apply(NodeView(5, "a", row, (Replica("a", "m", 5, 5),)))
    assert not table.apply(NodeView(8, "a", None))
    entry = table.pick("m")
    assert entry is not None
    assert entry.generation == 9
    assert table.drop(entry)
    assert table.apply(new), "the registry has not heard of the drop yet"
    assert table.pick("m") is None


async def test_a_router_is_alive_as_long_as_its_lease(url: str) -> None:
    """Invariant 9."""
    async with (
        NodeRegistry(url, router="r1", clock=CLOCK) as one,
        NodeRegistry(url, router="r2", clock=CLOCK) as two,
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
        NodeRegistry(url, router="same", clock=CLOCK) as one,
        NodeRegistry(url, router="same", clock=CLOCK) as two,
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


async def test_reading_never_migrates(url: str) -> None:
    registry = NodeRegistry(url)
    with pytest.raises(RegistryOutdated, match="no tables yet"):
        await registry.open(migrate=False)
    await registry.open()
    await registry.open(migrate=False)
    await registry.store.write(
        lambda conn: conn.execute(sa.text("update router_version set version_num = '9999'"))
    )
    with pytest.raises(RegistryOutdated, match="newer"):
        await registry.open(migrate=False)
    await registry.close()


async def test_a_large_heartbeat_is_a_few_statements(registry: NodeRegistry) -> None:
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    sa.event.listen(registry.store.engine, "before_cursor_execute", count)
    held = [Held(f"model-{number}", 7) for number in range(1000)]
    await registry.heartbeat(beat("b1", 1, *held))
    await registry.heartbeat(beat("b1", 2))
    assert statements < 50
    assert len(await registry.heals(2000)) == 1000


@pytest.mark.slow
async def test_transactions_that_deadlock_are_repeated(postgres_url: str) -> None:
    async with NodeRegistry(postgres_url) as registry:
        await node(registry, "a")
        await node(registry, "b")
        met = threading.Barrier(2)
        tries = 0

        def crosswise(first: str, second: str) -> Callable[[sa.Connection], None]:
            def transaction(conn: sa.Connection) -> None:
                nonlocal tries
                tries += 1
                touch = sa.text("update nodes set last_seen = 1 where name = :name")
                conn.execute(touch, {"name": first})
                if tries <= 2:
                    met.wait(60)
                conn.execute(touch, {"name": second})

            return transaction

        await asyncio.gather(
            registry.store.write(crosswise("a", "b")), registry.store.write(crosswise("b", "a"))
        )
        assert tries >= 3, "one of the two was repeated"


async def test_an_unreachable_registry_says_so() -> None:
    registry = NodeRegistry("postgresql://nobody@127.0.0.1:1/none", timeout=5)
    with pytest.raises(RegistryUnavailable):
        await registry.snapshot()
    await registry.close()


def test_another_kind_of_database_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="sqlite:///") as caught:
        NodeRegistry("mysql://me:hunter2@x/y")
    assert "hunter2" not in str(caught.value)


async def test_a_new_database_numbers_its_loads_above_those_of_an_older_one(tmp_path: Path) -> None:
    """A node that served a deleted database accepts the loads of a new one."""
    generations = []
    for name in ("older", "newer"):
        async with NodeRegistry(f"sqlite:///{tmp_path}/{name}.db") as registry:
            await node(registry, "a")
            generations.append((await loaded(registry)).generation)
    assert generations[0] < generations[1]
