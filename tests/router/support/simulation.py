"""A world for the production router without sockets, threads or real time.

Only what lies beyond the router's edge is simulated: nodes, the wire and the clock. Registry,
table, flights, tracked client and healing are the real code, run on one event loop, step by step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors import model_not_loaded
from grpcerrors_router import Heartbeat, Held, ModelSpec, NodeRegistry, Settings, SmartRouter
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.nodes.control import Answer
from grpcerrors_router.registry import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from grpcerrors_router.entities import Load, Replica
    from grpcerrors_router.registry.jobs import Outcome

MODELS = {name: ModelSpec(name, "sim") for name in "mn"}
SETTINGS = Settings(
    place_retry=0.0, place_timeout=0.0, fresh_for=1e9, load_backoff=0.0, lease_ttl=10.0,
    load_lease=20.0, storm_drops=10**9, quiesce_timeout=1.0,
)  # fmt: skip


class HandClock:
    """Stands still until `advance`."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, sleeper))
        await sleeper

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for at, sleeper in list(self._sleepers):
            if at <= self.now:
                self._sleepers.remove((at, sleeper))
                if not sleeper.done():
                    sleeper.set_result(None)


class SimNode:
    """A host. `gate` holds LoadModel back while it is set."""

    def __init__(self, name: str, slots: int) -> None:
        self.name, self.slots = name, slots
        self.address = f"{name}:1"
        self.boots = 0
        self.silent = False
        self.slow = False
        self.gates: list[asyncio.Future[None]] = []
        self.restart()

    def restart(self) -> None:
        self.boots += 1
        self.boot = f"{self.name}-{self.boots}"
        self.inventory = 0
        self.held: dict[str, int] = {}

    def evict(self, model: str) -> None:
        if self.held.pop(model, None) is not None:
            self.inventory += 1

    def beat(self) -> Heartbeat:
        held = tuple(Held(m, g) for m, g in sorted(self.held.items()))
        return Heartbeat(
            self.name, self.address, "sim", self.slots, self.boot, self.inventory, held
        )


class SimCall:
    """One call on the wire: its fate is sealed when it is sent, its end comes when it is told."""

    def __init__(
        self, world: World, router: int, node: SimNode, request: Any, stream: bool
    ) -> None:
        self.world, self.router, self.node = world, router, node
        self.request, self.model = request
        self.boot = node.boot
        self.stream = stream
        self.stale = self.model not in node.held
        self.delivered = 0
        self._callbacks: list[Callable[[Any], None]] = []
        self._status: grpc.StatusCode | None = None
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        world.sent[self.request] += 1
        if not self.stale:
            world.executed[self.request] += 1
        world.calls.append(self)

    def end(self, code: grpc.StatusCode) -> None:
        if self._status is not None:
            return
        self._status = code
        self.world.calls.remove(self)
        for callback in self._callbacks:
            callback(self)

    def tell(self) -> None:
        """Deliver the end, or the next message of a stream."""
        if self.stale or self.boot != self.node.boot:
            error: grpc.aio.AioRpcError
            if self.stale:
                typed = model_not_loaded("sim", model=self.model)
                trailers = grpc.aio.Metadata(*typed.trailing_metadata)
                error = grpc.aio.AioRpcError(
                    typed.code, grpc.aio.Metadata(), trailers, typed.details
                )
            else:
                error = grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone"
                )
            self.end(error.code())
            self._reply(error)
        elif self.stream and self.delivered < 2:
            self.delivered += 1
            self._reply("message")
        else:
            self.end(grpc.StatusCode.OK)
            self._reply(grpc.aio.EOF if self.stream else "answer")

    def _reply(self, what: Any) -> None:
        if self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
        if isinstance(what, BaseException):
            self._answer.set_exception(what)
            self._answer.exception()
        else:
            self._answer.set_result(what)

    async def read(self) -> Any:
        try:
            answer = await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._status is None:
            self._answer = asyncio.get_running_loop().create_future()
        return answer

    def __await__(self) -> Generator[Any, None, Any]:
        return self.read().__await__()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)
        if self._status is not None:
            callback(self)

    def cancel(self) -> bool:
        running = self._status is None
        self.end(grpc.StatusCode.CANCELLED)
        if not self._answer.done():
            self._answer.cancel()
        return running

    def done(self) -> bool:
        return self._status is not None

    def cancelled(self) -> bool:
        return self._status is grpc.StatusCode.CANCELLED

    async def code(self) -> grpc.StatusCode:
        assert self._status is not None
        return self._status


class SimControl:
    """The control plane of all nodes, as one router sees it."""

    def __init__(self, world: World, router: int) -> None:
        self._world, self._router = world, router

    def _node(self, address: str) -> SimNode:
        node = self._world.nodes[address.split(":", maxsplit=1)[0]]
        if node.silent:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "silent")
        return node

    async def health(self, address: str, timeout: float) -> None:
        self._node(address)

    async def has_model(self, address: str, model: str, timeout: float) -> bool:
        return model in self._node(address).held

    async def load(self, address: str, spec: ModelSpec, generation: int, timeout: float) -> Answer:
        node = self._node(address)
        self._world.loading.append((node.name, spec.name, generation))
        self._world.check_single_flight()
        try:
            if node.slow:
                gate = asyncio.get_running_loop().create_future()
                node.gates.append(gate)
                await gate
            if len(node.held) >= node.slots and spec.name not in node.held:
                return Answer(ok=False, message="no free slot")
            if generation < node.held.get(spec.name, 0):
                return Answer(ok=False, message="an older load")
            node.held[spec.name] = generation
            node.inventory += 1
            return Answer(True, "", node.boot, node.inventory)
        finally:
            self._world.loading.remove((node.name, spec.name, generation))

    async def free(self, address: str, row: Replica, timeout: float) -> Answer:
        node = self._node(address)
        if row.held in (0, node.held.get(row.model, 0)):
            self._world.check_free(node, row)
            node.evict(row.model)
        return Answer(True, "", node.boot, node.inventory)


class WatchedRegistry(NodeRegistry):
    """The real registry, run inline; drops and ends of loads are checked as they happen."""

    def __init__(self, url: str, name: str, clock: HandClock) -> None:
        super().__init__(url, router=name, clock=clock, timeout=1e6)
        self.store._in_thread = self._inline  # type: ignore[method-assign]

    async def _inline(self, work: Callable[[], Any]) -> Any:
        return work()

    async def rows(self) -> dict[tuple[str, str], Replica]:
        snapshot = await self.snapshot()
        return {(r.node, r.model): r for view in snapshot.nodes for r in view.replicas}

    async def remove_node_model(
        self, node: str, model: str, generation: int | None = None, *, evidence: str = "operator"
    ) -> bool:
        before = await self.rows()
        dropped = await super().remove_node_model(node, model, generation, evidence=evidence)
        after = await self.rows()
        gone = {row.generation for key, row in before.items() if after.get(key) != row}
        assert gone <= {generation}, "invariant 1: a drop removed another generation"
        return dropped

    async def finish_load(self, load: Load, outcome: Outcome) -> bool:
        before = await self.snapshot()
        jobs = {(j.node, j.model, j.generation) for v in before.nodes for j in v.loads
                if j.state == "running"}  # fmt: skip
        current = (load.node, load.model, load.generation) in jobs
        done = await super().finish_load(load, outcome)
        after = await self.snapshot()
        if not current:
            assert not done, "invariant 4: a stale token was accepted"
            plain = [[(v.replicas, v.loads) for v in s.nodes] for s in (before, after)]
            assert plain[0] == plain[1], "invariant 4: a stale token changed rows"
        return done


class World:
    """Two routers on one registry, two nodes, and everything that is on its way between them."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.nodes = {"a": SimNode("a", 1), "b": SimNode("b", 2)}
        self.calls: list[SimCall] = []
        self.loading: list[tuple[str, str, int]] = []
        self.sent: Counter[Any] = Counter()
        self.executed: Counter[Any] = Counter()
        self.first_message: dict[Any, int] = {}
        self.tasks: dict[int, asyncio.Task[Any]] = {}
        self.shared_at = [self.clock.now, self.clock.now]
        self.routers: list[SmartRouter] = []
        self.run(self._open(url))

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def _open(self, url: str) -> None:
        for number in range(2):
            registry = WatchedRegistry(url, f"r{number}", self.clock)
            router = SmartRouter(registry, MODELS, settings=SETTINGS, clock=self.clock)
            control: Any = SimControl(self, number)
            router._prober._nodes = NodeClient(router._channels, control)
            router._runner._control = router._dispatcher.reconciler._control = control
            router._channels.multicallable = self._wire(number)  # type: ignore[method-assign]
            await registry.open()
            await router.watcher.relist()
            self.routers.append(router)
        for node in self.nodes.values():
            await self.routers[0].heartbeat(node.beat())
        for number in range(2):
            await self.follow(number)

    def _wire(self, router: int) -> Callable[..., Any]:
        def multicallable(address: str, kind: str, method: Any) -> Any:
            def send(request: Any, **_: Any) -> SimCall:
                node = self.nodes[address.split(":", maxsplit=1)[0]]
                return SimCall(self, router, node, request, kind == "unary_stream")

            return send

        return multicallable

    async def settle(self) -> None:
        """Let everything that can go on, go on."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def follow(self, number: int) -> None:
        await self.routers[number].watcher.catch_up()
        await self.routers[number].watcher.share_once()
        self.shared_at[number] = self.clock.now

    def request(self, router: int, model: str, stream: bool, on_stale: str) -> None:
        """A client's request, on its way from now on."""
        number = len(self.tasks)
        key = (number, model)

        async def client() -> None:
            channel = self.routers[router].channel(model, on_stale=on_stale)  # type: ignore[arg-type]
            if not stream:
                await channel.unary_unary("/sim/Unary")(key)
                return
            call = channel.unary_stream("/sim/Stream")(key)
            while await call.read() is not grpc.aio.EOF:
                self.first_message.setdefault(number, self.sent[number])

        self.tasks[number] = self.loop.create_task(client())

    # Checks

    def expired(self, router: int) -> bool:
        return self.clock.now - self.shared_at[router] >= SETTINGS.lease_ttl

    def check_single_flight(self) -> None:
        registry = self.routers[0].registry
        with registry.store.engine.connect() as conn:
            views = rows.snapshot(conn).nodes
        jobs = {(j.node, j.model, j.generation) for v in views for j in v.loads
                if j.running(self.clock.now)}  # fmt: skip
        live = [entry for entry in self.loading if entry in jobs]
        for model in MODELS:
            flights = [entry for entry in live if entry[1] == model]
            assert len(flights) <= 1, f"invariant 3: {flights} under way at once"

    def check_free(self, node: SimNode, row: Replica) -> None:
        if node.held.get(row.model) is None:
            return
        users = [
            call
            for call in self.calls
            if call.node is node and call.model == row.model and call.boot == node.boot
            and not call.stale and not self.expired(call.router)
        ]  # fmt: skip
        assert not users, "invariant 10: a replica in use was freed"

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(self.settle())
        for router in self.routers:
            router.registry.store.close()
        self.loop.close()
