"""The shared truth: which node has which model loaded (LocalAI's NodeRegistry)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Self, TypeVar

import sqlalchemy as sa

from grpcerrors_router.entities import (
    Correction,
    Heal,
    Heartbeat,
    Load,
    Node,
    NodeView,
    Replica,
    RouterRow,
    Snapshot,
    Use,
)
from grpcerrors_router.registry import jobs, membership, retention, routers, rows
from grpcerrors_router.registry.schema import nodes, replicas
from grpcerrors_router.registry.store import Store
from grpcerrors_router.validation import check_heartbeat, check_node

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from types import TracebackType

    from sqlalchemy.engine import Connection

    from grpcerrors_router.clock import Clock

T = TypeVar("T")

Listener = Callable[[NodeView], object]


class NodeRegistry:
    """Nodes, replicas, load jobs, heals and routers in one database, for any number of routers.

    `url` is `sqlite:///file.db` or `postgresql://...`. Every method raises RegistryUnavailable when
    the database cannot be reached. Changes made through this object are told to its listeners
    before the method returns; those of other processes come through `changes_since`.
    """

    def __init__(
        self,
        url: str,
        *,
        router: str = "",
        clock: Clock | None = None,
        timeout: float = 5.0,
        threads: Executor | None = None,
    ) -> None:
        self.store = Store(url, clock=clock, timeout=timeout, threads=threads)
        self.router = router or f"router-{uuid.uuid4().hex[:8]}"
        self._session = uuid.uuid4().hex
        self._listeners: list[Listener] = []

    async def open(self, *, migrate: bool = True) -> None:
        """Create or upgrade the schema. Safe when several routers do it at once.

        With `migrate` False nothing is changed. Raises RegistryOutdated when the schema is not the
        one that this version reads.
        """
        if migrate:
            await self.store.migrate()
        else:
            await self.store.check_schema()

    async def close(self) -> None:
        """Give back the connections, once the transactions that are under way have ended."""
        await asyncio.to_thread(self.store.close)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` on the event loop with every node that a method here has changed."""
        self._listeners.append(listener)

    async def _change(self, node: str, change: Callable[[Connection, int], T], *, by: int = 1) -> T:
        def transaction(conn: Connection) -> tuple[T, tuple[NodeView, ...]]:
            revision = self.store.bump(conn, node, by)
            result = change(conn, revision)
            return result, rows.view(conn, revision, self.store.now(conn), [node])

        result, views = await self.store.write(transaction)
        for view in views:
            for listener in self._listeners:
                listener(view)
        return result

    # Reading

    async def snapshot(self) -> Snapshot:
        """Everything, as of one revision."""
        return await self.store.read(lambda conn: rows.snapshot(conn, self.store.now(conn)))

    async def changes_since(self, revision: int) -> Snapshot | None:
        """The nodes that changed after `revision`; None when only a new `snapshot` can tell."""
        return await self.store.read(lambda conn: rows.since(conn, revision, self.store.now(conn)))

    async def heals(self, limit: int = 50) -> list[Heal]:
        """The heal log, newest first."""
        return await self.store.read(lambda conn: rows.latest_heals(conn, limit))

    async def routers(self) -> list[RouterRow]:
        """The routers that are alive."""
        return await self.store.read(lambda conn: routers.alive(conn, self.store.now(conn)))

    # Nodes

    async def add_node(
        self, address: str, backend: str, *, name: str | None = None, slots: int = 1
    ) -> Node:
        """Add, or update, a node that registers with nobody; the router probes it with Health.

        Raises ValueError for what `validation.check_node` refuses.
        """
        node = Node(name or address, address, backend, slots, foreign=True)
        check_node(node.name, address, backend, slots)

        def change(conn: Connection, _: int) -> Node:
            values = {"address": address, "backend": backend, "slots": slots, "foreign": True}
            where = nodes.c.name == node.name
            if not conn.execute(sa.update(nodes).where(where).values(**values)).rowcount:
                conn.execute(sa.insert(nodes).values(**asdict(node)))
            return node

        return await self._change(node.name, change)

    async def remove_node(self, name: str) -> bool:
        """Forget a node and its rows; False when it is unknown."""
        return await self._change(name, lambda conn, _: membership.remove(conn, name))

    async def leave(self, name: str, boot_id: str) -> bool:
        """Forget a node that stops and its rows; False when another process has the name by now."""
        return await self._change(
            name, lambda conn, revision: membership.leave(conn, name, boot_id, revision)
        )

    async def set_draining(self, name: str, draining: bool) -> bool:  # noqa: FBT001 - reads well
        """Stop, or go on, sending new requests and loads to a node; False when it is unknown."""
        update = sa.update(nodes).where(nodes.c.name == name).values(draining=draining)
        return await self._change(name, lambda conn, _: bool(conn.execute(update).rowcount))

    async def heartbeat(self, beat: Heartbeat, *, alive_for: float = 0.0) -> Correction:
        """Bring the rows of a node in line with what it says.

        Raises ValueError for what `validation.check_heartbeat` refuses, NameTaken when another
        process that was heard within `alive_for` seconds has the name.
        """
        check_heartbeat(beat)
        return await self._change(
            beat.node,
            lambda conn, revision: membership.apply(
                conn, beat, revision, self.store.now(conn), self.router, alive_for
            ),
            by=max(1, len(beat.models)),
        )

    # Replicas

    async def set_node_model(self, node: str, model: str, *, boot_id: str = "") -> int:
        """Say that a node has a model loaded, without having loaded it; the new generation."""

        def change(conn: Connection, revision: int) -> int:
            where = (replicas.c.node == node, replicas.c.model == model)
            conn.execute(sa.delete(replicas).where(*where))
            now = self.store.now(conn)
            row = Replica(node, model, revision, 0, boot_id, loaded_at=now, last_used=now)
            conn.execute(sa.insert(replicas).values(**asdict(row)))
            return revision

        return await self._change(node, change)

    async def remove_node_model(
        self, node: str, model: str, generation: int | None = None, *, evidence: str = ""
    ) -> bool:
        """Drop a row; False, and nothing changed, when it is not there.

        With `evidence`, what proved the row stale, the drop is logged as a heal. With `generation`,
        a row of any other generation stays: a late error cannot undo a fresh load (invariant 1).
        """

        def change(conn: Connection, _: int) -> bool:
            where = [replicas.c.node == node, replicas.c.model == model]
            if generation is not None:
                where.append(replicas.c.generation == generation)
            gone = conn.execute(
                sa.delete(replicas).where(*where).returning(replicas.c.generation)
            ).scalar_one_or_none()
            if gone is not None and evidence:
                at = self.store.now(conn)
                heal = Heal(at, node, model, gone, evidence, "dropped", self.router)
                membership.log(conn, [heal])
            return gone is not None

        return await self._change(node, change)

    async def log_heal(self, node: str, model: str, generation: int, evidence: str) -> None:
        """Log evidence on which the row was kept."""

        def transaction(conn: Connection) -> None:
            at = self.store.now(conn)
            heal = Heal(at, node, model, generation, evidence, "kept", self.router)
            membership.log(conn, [heal])

        await self.store.write(transaction)

    # Load jobs

    async def claim_load(self, wish: jobs.Wish) -> Load | jobs.Refusal:
        """Ask for a load (single flight, invariant 3); its fencing token is its generation."""
        return await self._change(
            wish.node,
            lambda conn, revision: jobs.claim(conn, wish, revision, self.store.now(conn)),
        )

    async def claim_unload(self, wish: jobs.Wish) -> Load | None:
        """Ask for the eviction of `wish.victim`; None when that generation is gone."""
        return await self._change(
            wish.node,
            lambda conn, revision: jobs.claim_unload(conn, wish, revision, self.store.now(conn)),
        )

    async def renew_load(self, load: Load, lease: float) -> bool:
        """Extend the lease of a job by `lease` seconds; False when it was taken over."""
        return await self._change(
            load.node, lambda conn, _: jobs.renew(conn, load, self.store.now(conn) + lease)
        )

    async def finish_load(self, load: Load, outcome: jobs.Outcome) -> str | None:
        """End a job; return why it did not publish a replica, "" when it did.

        None, and nothing changed, when it was taken over (invariant 4).
        """
        return await self._change(
            load.node, lambda conn, _: jobs.finish(conn, load, outcome, self.store.now(conn))
        )

    # Routers

    async def sign_in(self, seen_revision: int, ttl: float) -> RouterRow | None:
        """Say that this router is alive for `ttl` seconds, and how far it has followed.

        `seen_revision` also says that it has nothing in flight on what was being evicted by then.
        Return the other living router of this name, if there is one: then nothing is changed.
        """

        def transaction(conn: Connection) -> RouterRow | None:
            now = self.store.now(conn)
            me = RouterRow(self.router, seen_revision, now + ttl, self._session)
            return routers.sign_in(conn, me, now)

        return await self.store.write(transaction)

    async def sign_out(self) -> None:
        """Say that this router stops."""
        await self.store.write(lambda conn: routers.sign_out(conn, self.router, self._session))

    async def note(self, heard: Mapping[str, float], uses: Iterable[Use]) -> None:
        """Write how many seconds ago nodes were heard, and how replicas are used."""
        if heard:
            await self.store.write(
                lambda conn: routers.note_heard(conn, heard, self.store.now(conn))
            )
        if used := list(uses):
            await self.store.write(lambda conn: routers.note_use(conn, used, self.store.now(conn)))

    async def prune(self, *, node_retention: float, heal_retention: float) -> None:
        """Delete what nobody needs any more; `retention` in seconds.

        That is: nodes that registered themselves and were silent for so long, old heals, jobs of
        routers that died, and boots that nothing can hear of again.
        """

        def due(conn: Connection) -> tuple[list[str], list[str]]:
            now = self.store.now(conn)
            return membership.silent(conn, now - node_retention), jobs.abandoned(conn, now)

        silent, abandoned = await self.store.read(due)
        for name in silent:

            def forget(conn: Connection, _: int, name: str = name) -> bool:
                before = self.store.now(conn) - node_retention
                return name in membership.silent(conn, before) and membership.remove(conn, name)

            await self._change(name, forget)
        for name in abandoned:

            def clear(conn: Connection, _: int, name: str = name) -> bool:
                return jobs.drop_expired(conn, self.store.now(conn), name)

            await self._change(name, clear)
        await self.store.write(
            lambda conn: retention.prune(conn, self.store.now(conn), heal_retention)
        )
