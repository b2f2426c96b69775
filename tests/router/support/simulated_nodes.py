"""Simulated nodes, and the wire between them and the routers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors import ContractError, model_loading, model_not_loaded
from grpcerrors_router import Heartbeat, Held, ModelSpec
from grpcerrors_router.nodes.control import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from grpcerrors_router.entities import Node, Replica
    from tests.router.support.simulation import Member, World


class SimNode:
    """A host. Loads hang while it is `slow`; it refuses calls for models that it is `reloading`."""

    def __init__(self, name: str, slots: int) -> None:
        self.name, self.slots = name, slots
        self.address = f"{name}:1"
        self.boots = 0
        self.silent = False
        self.slow = False
        self.gates: list[asyncio.Future[None]] = []
        self.reloading: set[str] = set()
        self.restart()

    def restart(self) -> None:
        self.boots += 1
        self.boot = f"{self.name}-{self.boots}"
        self.inventory = 0
        self.held: dict[str, int] = {}
        self.reloading.clear()

    def repair(self) -> None:
        """End all faults of this node."""
        self.slow = self.silent = False
        self.reloading.clear()
        while self.gates:
            gate = self.gates.pop()
            if not gate.done():
                gate.set_result(None)

    def evict(self, model: str) -> None:
        if self.held.pop(model, None) is not None:
            self.inventory += 1

    def beat(self) -> Heartbeat:
        held = tuple(Held(m, g) for m, g in sorted(self.held.items()))
        return Heartbeat(
            self.name, self.address, "sim", self.slots, self.boot, self.inventory, held
        )


class SimCall:
    """One call in flight: its result is decided when it is sent, and delivered on demand."""

    def __init__(
        self, world: World, member: Member, node: SimNode, request: Any, stream: bool
    ) -> None:
        self.world, self.member, self.node = world, member, node
        self.request, self.model = request
        self.boot = node.boot
        self.stream = stream
        self.refusal: ContractError | None = None
        if self.model in node.reloading:
            self.refusal = model_loading("sim", model=self.model)
        elif self.model not in node.held:
            self.refusal = model_not_loaded("sim", model=self.model)
        self.delivered = 0
        self._callbacks: list[Callable[[Any], None]] = []
        self._status: grpc.StatusCode | None = None
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        world.sent[self.request] += 1
        if world.prompt:
            asyncio.get_running_loop().call_soon(self.finish)
        if self.refusal is None:
            world.executed[self.request] += 1
        world.calls.append(self)

    def end(self, code: grpc.StatusCode) -> None:
        if self._status is not None:
            return
        self._status = code
        self.world.calls.remove(self)
        for callback in self._callbacks:
            callback(self)

    def finish(self) -> None:
        """Deliver everything that remains."""
        while self._status is None:
            self.tell()

    def tell(self) -> None:
        """Deliver the result, or the next message of a stream."""
        none = grpc.aio.Metadata()
        if self.refusal is not None:
            trailers = grpc.aio.Metadata(*self.refusal.trailing_metadata)
            self._fail(self.refusal.code, none, trailers, self.refusal.details)
        elif self.boot != self.node.boot:
            self._fail(grpc.StatusCode.UNAVAILABLE, none, none, "gone")
        elif self.stream and self.delivered < 2:
            self.delivered += 1
            self._reply("message")
        else:
            self.end(grpc.StatusCode.OK)
            self._reply(grpc.aio.EOF if self.stream else "answer")

    def _fail(self, *status: Any) -> None:
        self.end(status[0])
        self._reply(grpc.aio.AioRpcError(*status))

    def _reply(self, what: Any) -> None:
        if self._answer.done():
            self._answer = self.world.loop.create_future()
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

    def __init__(self, world: World, member: Member) -> None:
        self._world, self._member = world, member

    def _node(self, info: Node) -> SimNode:
        node = self._world.nodes[info.address.split(":", maxsplit=1)[0]]
        if node.silent:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "silent")
        return node

    async def health(self, info: Node, timeout: float) -> None:
        self._node(info)

    async def has_model(self, info: Node, model: str, timeout: float) -> bool:
        return model in self._node(info).held

    async def load(self, info: Node, spec: ModelSpec, generation: int, timeout: float) -> Answer:
        node = self._node(info)
        load = (node.name, spec.name, generation)
        self._world.loading.add(load)
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
            self._world.loading.discard(load)
            await self._member.alive()

    async def free(self, info: Node, row: Replica, timeout: float) -> Answer:
        await self._member.alive()
        node = self._node(info)
        if row.held in (0, node.held.get(row.model, 0)):
            self._world.check_free(node, row)
            node.evict(row.model)
        return Answer(True, "", node.boot, node.inventory)


class SimChannels:
    """The connections of one router to all nodes."""

    def __init__(self, world: World, member: Member) -> None:
        self._world, self._member = world, member

    def multicallable(self, info: Node, kind: str, method: Any) -> Callable[..., SimCall]:
        def send(request: Any, **_: Any) -> SimCall:
            node = self._world.nodes[info.address.split(":", maxsplit=1)[0]]
            return SimCall(self._world, self._member, node, request, kind == "unary_stream")

        return send

    def losses(self, info: Node) -> int:
        return 0

    async def connects(self, info: Node, timeout: float) -> bool:
        return not self._world.nodes[info.address.split(":", maxsplit=1)[0]].silent

    def follow(self) -> None:
        """Do nothing: there are no files."""

    async def retain(self, addresses: set[str]) -> None:
        """Do nothing: there are no connections."""

    async def close(self) -> None:
        """Do nothing: there are no connections."""
