"""The registry: which node holds which model, shared by all routers (LocalAI's NodeRegistry)."""

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
    Vitals,
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
    """Stores nodes, replicas, load jobs, heals and routers in a database that routers share.

    Every method that uses the database raises RegistryUnavailable if it cannot be reached or does
    not answer in time. A change made through this object is passed to its listeners before the
    method returns; `changes_since` returns those of other processes.

    Args:
        url: `sqlite:///file.db` or `postgresql://user@host/database`.
        router: the name of this router; a random one by default.
        clock: the time, for tests; see Store.
        timeout: seconds that a transaction may take.
        threads: runs the transactions, for tests.

    Raises:
        ValueError: `url` is for another kind of database.
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
        """Create or upgrade the schema. Several routers may do this at the same time.

        Args:
            migrate: whether to do so. If not, the schema is only checked.

        Raises:
            RegistryOutdated: `migrate` is False, and the schema is that of another version.
        """
        if migrate:
            await self.store.migrate()
        else:
            await self.store.check_schema()

    async def close(self) -> None:
        """Close the connections, after the transactions that are running."""
        await asyncio.to_thread(self.store.close)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` on the event loop with each node that a method of this object changed."""
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
        """Return the whole registry, as of one revision."""
        return await self.store.read(lambda conn: rows.snapshot(conn, self.store.now(conn)))

    async def changes_since(self, revision: int) -> Snapshot | None:
        """Return the nodes that changed after `revision`; None if those changes are pruned."""
        return await self.store.read(lambda conn: rows.since(conn, revision, self.store.now(conn)))

    async def heals(self, limit: int = 50, *, model: str = "", node: str = "") -> list[Heal]:
        """Return the last `limit` entries of the heal log, newest first.

        Only those of a model, or on a node, if one is given.
        """
        return await self.store.read(lambda conn: rows.latest_heals(conn, limit, model, node))

    async def vitals(self, heals: int) -> Vitals:
        """Return what changes without a new revision, with the latest `heals` heals."""
        return await self.store.read(lambda conn: rows.vitals(conn, self.store.now(conn), heals))

    async def routers(self) -> list[RouterRow]:
        """Return the routers that are alive."""
        return await self.store.read(lambda conn: routers.alive(conn, self.store.now(conn)))

    # Nodes

    async def add_node(
        self,
        address: str,
        backend: str,
        *,
        name: str | None = None,
        slots: int = 1,
        tls: bool = False,
        token: str = "",
    ) -> Node:
        """Add or update a node that does not register itself. Routers probe it with Health.

        Args:
            address: "host:port" that the backend serves on.
            backend: its backend type, as in models.toml.
            name: its name in the registry; `address` by default.
            slots: how many models it can hold at the same time.
            tls: whether it serves TLS.
            token: the name of the file with the token that it asks for; "" for none of its own.

        Raises:
            ValueError: a value breaks a rule of `validation.check_node`.
        """
        node = Node(name or address, address, backend, slots, foreign=True, tls=tls, token=token)
        check_node(node.name, address, backend, slots)

        def change(conn: Connection, _: int) -> Node:
            known = ("address", "backend", "slots", "foreign", "tls", "token")
            values = {column: getattr(node, column) for column in known}
            where = nodes.c.name == node.name
            if not conn.execute(sa.update(nodes).where(where).values(**values)).rowcount:
                conn.execute(sa.insert(nodes).values(**asdict(node)))
            return node

        return await self._change(node.name, change)

    async def remove_node(self, name: str) -> bool:
        """Remove a node and its rows; return False if it is unknown."""
        return await self._change(name, lambda conn, _: membership.remove(conn, name))

    async def leave(self, name: str, boot_id: str, *, registered_by: str = "") -> bool:
        """Remove a node that is stopping.

        Returns False if `boot_id` is not its current process, or another token registered it.
        """
        return await self._change(
            name,
            lambda conn, revision: membership.leave(conn, name, boot_id, revision, registered_by),
        )

    async def set_draining(self, name: str, draining: bool) -> bool:  # noqa: FBT001 - reads well
        """Set whether a node gets no new requests and loads; return False if it is unknown."""
        update = sa.update(nodes).where(nodes.c.name == name).values(draining=draining)
        return await self._change(name, lambda conn, _: bool(conn.execute(update).rowcount))

    async def heartbeat(self, beat: Heartbeat, *, alive_for: float = 0.0) -> Correction:
        """Apply a node's report, and return what that removed.

        Args:
            beat: the report.
            alive_for: for how many seconds after its last heartbeat another process keeps its name.

        Raises:
            ValueError: a value breaks a rule of `validation.check_heartbeat`.
            NameTaken: another live process has the name.
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
        """Record that a node holds a model that no router loaded; return the generation."""

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
        """Drop a replica; return False if it does not exist.

        Args:
            node: the node's name.
            model: the model's name.
            generation: drop this generation only, so that a late error cannot undo a newer load
                (invariant 1); None for any.
            evidence: what proved the replica stale. If given, the drop is logged as a heal.
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

    async def log_heal(
        self, node: str, model: str, generation: int, evidence: str, action: str
    ) -> None:
        """Log that a replica is there in spite of `evidence`: it was "kept" or "reloaded"."""

        def transaction(conn: Connection) -> None:
            at = self.store.now(conn)
            heal = Heal(at, node, model, generation, evidence, action, self.router)
            membership.log(conn, [heal])

        await self.store.write(transaction)

    # Load jobs

    async def claim_load(self, request: jobs.JobRequest) -> Load | jobs.Refusal:
        """Claim a load job, or return why it is refused (single flight, invariant 3)."""
        return await self._change(
            request.node,
            lambda conn, revision: jobs.claim(conn, request, revision, self.store.now(conn)),
        )

    async def claim_unload(self, request: jobs.JobRequest) -> Load | None:
        """Claim a job that evicts `request.victim`; return None if it is gone or being evicted."""
        return await self._change(
            request.node,
            lambda conn, revision: jobs.claim_unload(conn, request, revision, self.store.now(conn)),
        )

    async def renew_load(self, load: Load, lease: float) -> bool:
        """Set the lease of a job to `lease` seconds from now; return False if it was taken over."""
        return await self._change(
            load.node, lambda conn, _: jobs.renew(conn, load, self.store.now(conn) + lease)
        )

    async def note_asked(self, load: Load, lease: float) -> bool:
        """Renew a job, and record that its node is asked to give up the victim.

        Returns False if the job was taken over; then the node must not be asked.
        """
        return await self._change(
            load.node, lambda conn, _: jobs.note_asked(conn, load, self.store.now(conn) + lease)
        )

    async def finish_load(self, load: Load, outcome: jobs.Outcome) -> str | None:
        """End a job; return why it did not publish a replica, "" if it did.

        Returns None, and changes nothing, if the job was taken over (invariant 4).
        """
        return await self._change(
            load.node, lambda conn, _: jobs.finish(conn, load, outcome, self.store.now(conn))
        )

    async def forgive(self, node: str, model: str) -> bool:
        """Forget that a load of a model failed on a node; return whether one had."""
        return await self._change(node, lambda conn, _: jobs.forgive(conn, node, model))

    # Routers

    async def sign_in(self, seen_revision: int, ttl: float) -> RouterRow | None:
        """Renew the lease of this router, and acknowledge a revision.

        Args:
            seen_revision: up to which revision this router has no calls in flight on replicas that
                are being evicted.
            ttl: seconds until the lease expires.

        Returns:
            None, or the other live router of this name; then nothing is changed.
        """

        def transaction(conn: Connection) -> RouterRow | None:
            now = self.store.now(conn)
            me = RouterRow(self.router, seen_revision, now + ttl, self._session)
            return routers.sign_in(conn, me, now)

        return await self.store.write(transaction)

    async def sign_out(self) -> None:
        """End the lease of this router."""
        await self.store.write(lambda conn: routers.sign_out(conn, self.router, self._session))

    async def note(self, heard: Mapping[str, float], uses: Iterable[Use]) -> None:
        """Store how many seconds ago nodes were heard, and how replicas are used."""
        if heard:
            await self.store.write(
                lambda conn: routers.note_heard(conn, heard, self.store.now(conn))
            )
        if used := list(uses):
            await self.store.write(lambda conn: routers.note_use(conn, used, self.store.now(conn)))

    async def prune(self, *, node_retention: float, heal_retention: float) -> None:
        """Delete old rows: silent nodes, heals, failed loads, jobs of dead routers, changes, boots.

        Args:
            node_retention: seconds that a node that registered itself may be silent.
            heal_retention: seconds that a heal is kept, and a failed load after its back-off.
        """

        def due(conn: Connection) -> tuple[list[str], list[str]]:
            now = self.store.now(conn)
            over = jobs.over(conn, now, now - heal_retention)
            return membership.silent(conn, now - node_retention), over

        silent, over = await self.store.read(due)
        for name in silent:

            def forget(conn: Connection, _: int, name: str = name) -> bool:
                before = self.store.now(conn) - node_retention
                return name in membership.silent(conn, before) and membership.remove(conn, name)

            await self._change(name, forget)
        for name in over:

            def clear(conn: Connection, _: int, name: str = name) -> bool:
                now = self.store.now(conn)
                forgotten = jobs.forget_failures(conn, now - heal_retention, name)
                return jobs.drop_expired(conn, now, name) or forgotten

            await self._change(name, clear)
        await self.store.write(
            lambda conn: retention.prune(conn, self.store.now(conn), heal_retention)
        )
