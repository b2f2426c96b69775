"""The database of the registry: its schema, its changes and its failures."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from grpcerrors_router import Held, NodeRegistry, RegistryUnavailable, RoutingTable
from grpcerrors_router.entities import Node as Row
from grpcerrors_router.entities import NodeView, Replica
from grpcerrors_router.errors import RegistryOutdated
from grpcerrors_router.registry.schema import changes, metadata, replicas
from tests.router.conftest import HANG
from tests.router.support.registry import beat, loaded, node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.router.support.postgres import Postgres


async def test_the_migrations_make_the_schema(registry: NodeRegistry) -> None:
    with registry.store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": "router_version"})
        assert compare_metadata(context, metadata) == []


async def test_two_routers_may_migrate_at_once(url: str) -> None:
    registries = [NodeRegistry(url, timeout=HANG) for _ in range(4)]
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


async def test_reading_never_migrates(url: str) -> None:
    registry = NodeRegistry(url, timeout=HANG)
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
async def test_a_database_without_an_encoding_holds_any_name(postgres: Postgres) -> None:
    """PostgreSQL makes one in a cluster that was set up with the locale C."""
    with postgres.database("plain", "template template0 encoding 'SQL_ASCII'") as url:
        async with NodeRegistry(url, timeout=HANG) as registry:
            await node(registry, "größe")
            assert [view.name for view in (await registry.snapshot()).nodes] == ["größe"]


@pytest.mark.slow
async def test_transactions_that_deadlock_are_repeated(postgres_url: str) -> None:
    async with NodeRegistry(postgres_url, timeout=HANG) as registry:
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
        async with NodeRegistry(f"sqlite:///{tmp_path}/{name}.db", timeout=HANG) as registry:
            await node(registry, "a")
            generations.append((await loaded(registry)).generation)
    assert generations[0] < generations[1]
