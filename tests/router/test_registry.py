"""The registry's rules on SQLite and PostgreSQL: rows, jobs, inventories, leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from grpcerrors_router import Heartbeat, Held, NodeRegistry, RegistryUnavailable, RoutingTable
from grpcerrors_router.entities import Load, NodeView, Replica, Usage
from grpcerrors_router.entities import Node as Row
from grpcerrors_router.registry.jobs import Outcome, Refusal, Wish
from grpcerrors_router.registry.schema import changes, metadata, replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class HandClock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


CLOCK = HandClock()


@pytest_asyncio.fixture
async def registry(url: str) -> AsyncIterator[NodeRegistry]:
    async with NodeRegistry(url, router="r1", clock=CLOCK) as registry:
        yield registry


def wish(node: str = "a", model: str = "m", wanted: int = 1, **more: object) -> Wish:
    return Wish(node, model, "r1", wanted, 10.0, **more)  # type: ignore[arg-type]


async def node(registry: NodeRegistry, name: str = "a", slots: int = 1) -> None:
    await registry.add_node("127.0.0.1:5001", "fake", name=name, slots=slots)


async def loaded(registry: NodeRegistry, model: str = "m", name: str = "a") -> Load:
    claim = await registry.claim_load(wish(name, model, 99))
    assert isinstance(claim, Load)
    assert await registry.finish_load(claim, Outcome())
    return claim


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
           "evicting": False, "loaded_at": 0.0}  # fmt: skip
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
    """Invariant 4: the owner sleeps through its lease, another takes over, the first wakes up."""
    await node(registry)
    stalled = await registry.claim_load(wish())
    assert isinstance(stalled, Load)
    CLOCK.now += 11
    successor = await registry.claim_load(wish())
    assert isinstance(successor, Load)
    assert not await registry.renew_load(stalled, 10)
    assert not await registry.finish_load(stalled, Outcome())
    assert not await registry.finish_load(stalled, Outcome("failed", retry_after=60))
    assert await rows(registry) == {}
    assert await registry.finish_load(successor, Outcome())
    assert (await rows(registry))["a", "m"].generation == successor.generation


async def test_a_renewed_lease_is_not_taken_over(registry: NodeRegistry) -> None:
    await node(registry)
    load = await registry.claim_load(wish())
    assert isinstance(load, Load)
    CLOCK.now += 8
    assert await registry.renew_load(load, 10)
    CLOCK.now += 8
    assert await registry.claim_load(wish()) is Refusal.ENOUGH


async def test_no_more_loads_than_wanted(registry: NodeRegistry) -> None:
    """Invariant 3."""
    for name in ("a", "b", "c"):
        await node(registry, name)
    claims = await asyncio.gather(*(registry.claim_load(wish(n, wanted=2)) for n in "aabbcc"))
    assert sum(isinstance(claim, Load) for claim in claims) == 2
    assert await registry.claim_load(wish("c", wanted=3, unreachable=[])) is not Refusal.FULL


async def test_silent_nodes_do_not_count_towards_what_is_wanted(registry: NodeRegistry) -> None:
    await node(registry, "a")
    await node(registry, "b")
    await loaded(registry, name="a")
    assert await registry.claim_load(wish("b")) is Refusal.ENOUGH
    assert isinstance(await registry.claim_load(wish("b", unreachable=["a"])), Load)


async def test_slots_are_never_overbooked(registry: NodeRegistry) -> None:
    await node(registry, slots=2)
    await loaded(registry, "m1")
    claims = await asyncio.gather(*(registry.claim_load(wish(model=m)) for m in ("m2", "m3")))
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
            wish(model="m2", victim="m1", victim_generation=old.generation + 1)
        )
        is Refusal.FULL
    )
    claim = await registry.claim_load(
        wish(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(claim, Load)
    assert (await rows(registry))["a", "m1"].evicting
    assert await registry.finish_load(claim, Outcome("in use"))
    assert not (await rows(registry))["a", "m1"].evicting
    again = await registry.claim_load(
        wish(model="m2", victim="m1", victim_generation=old.generation)
    )
    assert isinstance(again, Load)
    assert await registry.finish_load(again, Outcome(freed=True))
    assert set(await rows(registry)) == {("a", "m2")}


async def test_the_victim_of_a_dead_router_can_be_picked_again(registry: NodeRegistry) -> None:
    await node(registry)
    old = await loaded(registry, "m1")
    await registry.claim_load(wish(model="m2", victim="m1", victim_generation=old.generation))
    CLOCK.now += 11
    assert await registry.claim_load(wish(model="m1")) is Refusal.ENOUGH
    assert not (await rows(registry))["a", "m1"].evicting


async def test_a_failed_load_is_left_alone_for_a_while(registry: NodeRegistry) -> None:
    await node(registry)
    claim = await registry.claim_load(wish())
    assert isinstance(claim, Load)
    await registry.finish_load(claim, Outcome("no such file", retry_after=5))
    assert await registry.claim_load(wish()) is Refusal.BACKOFF
    job = (await registry.snapshot()).nodes[0].loads[0]
    assert (job.state, job.message, job.failures) == ("failed", "no such file", 1)
    CLOCK.now += 6
    again = await registry.claim_load(wish())
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
    assert await registry.heartbeat(beat("b1", 1, Held("m", 7))) == []
    assert await rows(registry) == before


async def test_a_new_boot_invalidates_the_rows_of_the_old_one_for_good(
    registry: NodeRegistry,
) -> None:
    """Invariant 15, with the old boot's last heartbeat arriving late."""
    await registry.heartbeat(beat("b1", 5, Held("m", 7)))
    heals = await registry.heartbeat(beat("b2", 1, Held("n", 9)))
    assert [(heal.model, heal.evidence) for heal in heals] == [("m", "boot")]
    fresh = await rows(registry)
    assert set(fresh) == {("a", "n")}
    assert await registry.heartbeat(beat("b1", 6, Held("m", 7))) == []
    assert await rows(registry) == fresh


async def test_a_heartbeat_disproves_and_adopts(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1, Held("m", 7)))
    heals = await registry.heartbeat(beat("b1", 2, Held("n"), Held("o")))
    assert [(heal.model, heal.evidence) for heal in heals] == [("m", "heartbeat")]
    adopted = await rows(registry)
    assert set(adopted) == {("a", "n"), ("a", "o")}
    assert len({row.generation for row in adopted.values()}) == 2


async def test_a_heartbeat_older_than_the_load_disproves_nothing(registry: NodeRegistry) -> None:
    """Invariant 14: only an inventory at least as new as the row speaks against it."""
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(wish())
    assert isinstance(claim, Load)
    assert await registry.heartbeat(beat("b1", 1)) == []
    await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2))
    assert await registry.heartbeat(beat("b1", 1)) == []
    assert set(await rows(registry)) == {("a", "m")}
    assert len(await registry.heartbeat(beat("b1", 3))) == 1


async def test_a_heartbeat_does_not_adopt_what_is_just_being_loaded(registry: NodeRegistry) -> None:
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(wish())
    assert isinstance(claim, Load)
    await registry.heartbeat(beat("b1", 2, Held("m", claim.generation)))
    assert await rows(registry) == {}
    await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2))
    assert (await rows(registry))["a", "m"].generation == claim.generation


async def test_a_load_by_a_process_that_is_gone_is_not_published(registry: NodeRegistry) -> None:
    """Invariant 5."""
    await registry.heartbeat(beat("b1", 1))
    claim = await registry.claim_load(wish())
    assert isinstance(claim, Load)
    await registry.heartbeat(beat("b2", 1))
    assert not await registry.finish_load(claim, Outcome(boot_id="b1", inventory=2))
    late = await registry.claim_load(wish())
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
    assert not await registry.remove_node("a", "b1")
    assert await registry.remove_node("a", "b2")
    assert (await registry.snapshot()).nodes == ()


# Following, leases


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
    assert await registry.changes_since(gone.revision + 100) is None, "another database: list anew"


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


async def test_counts_expire_with_their_router(url: str) -> None:
    """Invariant 9: a dead router's calls in flight count no longer than its lease."""
    async with (
        NodeRegistry(url, router="r1", clock=CLOCK) as one,
        NodeRegistry(url, router="r2", clock=CLOCK) as two,
    ):
        await node(one)
        row = await loaded(one)
        mine = Usage("r1", "a", "m", row.generation, 3, CLOCK.now)
        await one.publish_usage(1, 10, [mine], {})
        assert await two.publish_usage(1, 10, [], {}) == [mine]
        CLOCK.now += 8
        assert await two.publish_usage(1, 10, [], {}) == [mine]
        CLOCK.now += 3
        assert await two.publish_usage(1, 10, [], {}) == []
        assert [router.name for router in await two.routers()] == ["r2"]


async def test_an_unreachable_registry_says_so() -> None:
    registry = NodeRegistry("postgresql://nobody@127.0.0.1:1/none", timeout=5)
    with pytest.raises(RegistryUnavailable):
        await registry.snapshot()
    await registry.close()


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        NodeRegistry("mysql://x/y")


async def test_a_new_database_numbers_its_loads_above_those_of_an_older_one(tmp_path: Path) -> None:
    """A node that has loaded for a database that was deleted takes loads of the next one."""
    generations = []
    for name in ("older", "newer"):
        async with NodeRegistry(f"sqlite:///{tmp_path}/{name}.db") as registry:
            await node(registry, "a")
            generations.append((await loaded(registry)).generation)
    assert generations[0] < generations[1]
