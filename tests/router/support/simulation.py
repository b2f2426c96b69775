"""A world for the production router without sockets, threads or real time.

Only what lies beyond the router's edge is simulated: nodes, the wire, the clock, and the threads
of the database. Registry, table, flights, tracked client and healing are the real code, run on one
event loop whose time stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc
import sqlalchemy as sa

from grpcerrors_router import ModelSpec, NodeRegistry, Settings, SmartRouter
from grpcerrors_router.entities import Load
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.registry import rows
from tests.router.support.simulated_nodes import SimCall, SimChannels, SimControl, SimNode
from tests.router.support.virtual import InlineExecutor, LoopClock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpcerrors_router.entities import Replica
    from grpcerrors_router.registry.jobs import JobRequest, Outcome, Refusal

MODELS = {name: ModelSpec(name, "sim") for name in "mn"}
SETTINGS = Settings(
    fresh_for=1e9, load_backoff=0.1, lease_ttl=10.0, load_lease=20.0, storm_drops=10**9,
    quiesce_timeout=1.0, failure_memory=5.0,
)  # fmt: skip
_ROUNDING = 1e-6
LIVENESS = 60.0
"""Seconds within which a request is answered once all faults have stopped (invariant 17)."""


class WatchedRegistry(NodeRegistry):
    """The real registry; drops and ends of loads are checked when they happen.

    A check compares the rows before and after, if nothing else was written meanwhile. `silent` are
    the nodes that the router of a load took for silent when it claimed it, by generation.
    """

    silent: dict[int, Collection[str]]

    def look(self) -> Any:
        """Read the rows without the router's threads, which may be held or dead."""
        with self.store.engine.connect() as conn:
            return rows.snapshot(conn, self.store.now(conn))

    def rows(self) -> dict[tuple[str, str], Replica]:
        return {(r.node, r.model): r for view in self.look().nodes for r in view.replicas}

    async def remove_node_model(
        self, node: str, model: str, generation: int | None = None, **more: Any
    ) -> bool:
        before = self.look()
        dropped = await super().remove_node_model(node, model, generation, **more)
        after = self.look()
        if after.revision == before.revision + 1:
            kept = {r for view in after.nodes for r in view.replicas}
            gone = {r for view in before.nodes for r in view.replicas} - kept
            assert {row.generation for row in gone} <= {generation}, (
                "invariant 1: a drop removed another generation"
            )
        return dropped

    async def claim_load(self, request: JobRequest) -> Load | Refusal:
        claim = await super().claim_load(request)
        if isinstance(claim, Load):
            self.silent[claim.generation] = request.unreachable
        return claim

    async def finish_load(self, load: Load, outcome: Outcome) -> str | None:
        before = self.look()
        jobs = {(j.node, j.model, j.generation) for v in before.nodes for j in v.loads
                if j.state == "running"}  # fmt: skip
        done = await super().finish_load(load, outcome)
        after = self.look()
        if (load.node, load.model, load.generation) not in jobs:
            assert done is None, "invariant 4: a stale token was accepted"
            if after.revision == before.revision + 1:
                plain = [[(v.replicas, v.loads) for v in s.nodes] for s in (before, after)]
                assert plain[0] == plain[1], "invariant 4: a stale token changed rows"
        return done


class Member:
    """One router's process."""

    def __init__(self, world: World, number: int, name: str, url: str) -> None:
        self.number = number
        self.threads = InlineExecutor()
        # The clocks of the routers need not agree.
        clock = LoopClock(world.loop, skew=3600.0 * number)
        self.registry = WatchedRegistry(
            url, router=name, clock=LoopClock(world.loop), timeout=1e6, threads=self.threads
        )
        self.registry.silent = world.silent_at_claim
        nodes: Any = NodeClient(SimChannels(world, self), SimControl(world, self))  # type: ignore[arg-type]
        self.router = SmartRouter(
            self.registry, MODELS, settings=SETTINGS, clock=clock, nodes=nodes
        )
        self._loops: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        await self.registry.open()
        await self.router.watcher.relist()
        await self.router.presence.enter()
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self.router.watcher.follow()),
                       loop.create_task(self.router.presence.run())]  # fmt: skip

    async def alive(self) -> None:
        """Return if the process is alive; wait forever if it is dead."""
        if self.threads.dead:
            await asyncio.get_running_loop().create_future()

    def crash(self) -> None:
        """Act like kill -9: the process stops, and what it requested continues elsewhere."""
        self.threads.dead = True
        for task in self._loops:
            task.cancel()


class World:
    """Two routers on one registry, two nodes, and everything in flight between them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.loop = VirtualLoop()
        self.nodes = {"a": SimNode("a", 1), "b": SimNode("b", 2)}
        self.calls: list[SimCall] = []
        self.loading: set[tuple[str, str, int]] = set()
        self.silent_at_claim: dict[int, Collection[str]] = {}
        self.broken: list[str] = []
        self.sent: Counter[Any] = Counter()
        self.executed: Counter[Any] = Counter()
        self.first_message: dict[Any, int] = {}
        self.tasks: dict[int, tuple[Member, asyncio.Task[Any]]] = {}
        self.members: list[Member] = []
        self.dead: list[Member] = []
        self.prompt = False
        asyncio.set_event_loop(self.loop)
        self.members = [Member(self, number, f"r{number}", url) for number in range(2)]
        for member in self.members:
            self.loop.finish(member.start())
        for node in self.nodes.values():
            self.loop.finish(self.members[0].router.heartbeat(node.beat()))
        for member in self.members:
            self.loop.finish(member.router.watcher.catch_up())

    def settle(self, seconds: float = 0.0) -> None:
        """Run everything that can run now."""
        self.loop.advance(seconds)
        assert not self.broken, self.broken

    def do(self, number: int, work: Any) -> None:
        """Start a task at a router that may take long, or never end."""
        task = self.loop.create_task(work)
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self.tasks[len(self.tasks)] = (self.members[number], task)
        self.settle()

    def request(self, number: int, model: str, stream: bool, on_stale: str) -> None:
        """Start a client's request."""
        key = (len(self.tasks), model)
        router = self.members[number].router

        async def client() -> None:
            channel = router.channel(model, on_stale=on_stale)  # type: ignore[arg-type]
            if not stream:
                await channel.unary_unary("/sim/Unary")(key)
                return
            call = channel.unary_stream("/sim/Stream")(key)
            while await call.read() is not grpc.aio.EOF:
                self.first_message.setdefault(key, self.sent[key])

        self.do(number, client())

    def crash(self, number: int) -> None:
        """Kill a router, and start one with another name in its place."""
        member = self.members[number]
        member.crash()
        for owner, task in self.tasks.values():
            if owner is member:
                task.cancel()
        self.settle()
        self.dead.append(member)
        self.members[number] = Member(self, number, f"r{number}-{len(self.dead)}", self.url)
        self.loop.finish(self.members[number].start())

    # Checks

    def routers_alive(self) -> set[str]:
        with self.members[0].registry.store.engine.connect() as conn:
            names = conn.execute(
                sa.text("select name from routers where expires_at > :now"), {"now": self.loop.now}
            )
            return set(names.scalars())

    def check_single_flight(self) -> None:
        """Check invariant 3: at most one LoadModel per model, and per node even if it is slow.

        A router may load a model that another load brings only if it has just taken the node of
        that load for silent, as of its claim (invariant 14: silence alone does not end a job), or
        if that load had run for `load_hedge_free` by then (design: loads are hedged).
        """
        views = self.members[0].registry.look().nodes
        running = [job for view in views for job in view.loads if job.running(self.loop.now)]
        jobs = [job for job in running if (job.node, job.model, job.generation) in self.loading]
        for first, second in itertools.permutations(jobs, 2):
            if first.model != second.model or first.generation > second.generation:
                continue
            waited = second.started_at - first.started_at
            slow = waited >= SETTINGS.load_hedge_free - _ROUNDING
            silent = first.node in self.silent_at_claim[second.generation]
            if first.node == second.node or not (slow or silent):
                self.broken.append(f"invariant 3: {first} and {second} are under way at once")

    def check_free(self, node: SimNode, row: Replica) -> None:
        if node.held.get(row.model) is None:
            return
        alive = self.routers_alive()
        users = [
            call
            for call in self.calls
            if call.node is node and call.model == row.model and call.boot == node.boot
            and call.refusal is None and call.member.router.name in alive
        ]  # fmt: skip
        if users:
            self.broken.append("invariant 10: a replica in use was freed")

    def check_liveness(self) -> None:
        """Check invariant 17: end all faults, and call every model through every router."""
        self.prompt = True
        for node in self.nodes.values():
            node.repair()
        for member in self.members:
            member.threads.release()
        for call in list(self.calls):
            call.finish()
        self.loop.create_task(self._beat())
        for member in self.members:
            for model in MODELS:
                self._check_answered(member, model)

    async def _beat(self) -> None:
        while True:
            for node in self.nodes.values():
                await self.members[0].router.heartbeat(node.beat())
                for member in self.members:
                    await member.router.probe_health(node.name)
            await asyncio.sleep(1.0)

    def _check_answered(self, member: Member, model: str) -> None:
        async def ask() -> None:
            call = member.router.channel(model).unary_unary("/sim/Unary")
            await call((f"liveness at {member.number}", model), timeout=LIVENESS)

        try:
            self.loop.finish(ask(), LIVENESS + 1)
        except grpc.aio.AioRpcError as error:
            where = f"{model} at {member.router.name}"
            raise AssertionError(f"invariant 17: {where}: {error.details()}") from error

    def close(self) -> None:
        # What is cancelled may start to clean up, which waits for the threads of a dead router.
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.advance()
        for member in self.members + self.dead:
            member.registry.store.close()
        self.loop.close()
