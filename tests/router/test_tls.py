"""The router over TLS: its gateway, its nodes, and certificates that change under traffic."""

from __future__ import annotations

import asyncio
import datetime as dt
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub
from grpcerrors_protocol.tls import ClientTls, ServerTls
from grpcerrors_router import NodeClient
from grpcerrors_router.gateway.server import GatewayServer
from tests.certificates import Authority
from tests.router.conftest import HANG, eventually, fleet
from tests.router.support.nodes import Node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpcerrors_router import SmartRouter

NODES, CALLERS, OTHER = (Authority.create(name) for name in ("nodes", "callers", "other"))
HOST = "127.0.0.1"


class World:
    """The files of a router and a node, and what was warned of.

    The router presents a certificate of CALLERS, and the node one of NODES.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.trusted = NODES.write(folder / "nodes.pem")
        self.asked = CALLERS.write(folder / "callers.pem")
        self.shown = NODES.issue(HOST).write(folder, "node")
        self.ours = CALLERS.issue(HOST).write(folder, "router")

    def client(self, authority: Authority | None = CALLERS, name: str = "router") -> ClientTls:
        pair = authority.issue(HOST).write(self.folder, name) if authority else (None, None)
        return ClientTls(self.trusted, *pair, warn=self.warnings.append)

    def node(self, *, asks: bool = True, **options: Any) -> Node:
        asked = self.asked if asks else None
        return Node(tls=ServerTls(*self.shown, asked, warn=self.warnings.append), **options)

    @asynccontextmanager
    async def fleet(self, *nodes: Node, tls: ClientTls | None = None) -> AsyncIterator[SmartRouter]:
        url = f"sqlite:///{self.folder}/registry.db"
        async with fleet(url, *nodes, nodes=NodeClient.over_grpc(tls or self.client())) as (
            router,
        ):
            yield router


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def predict(router: SmartRouter) -> Any:
    return await BackendStub(router.channel("m")).Predict(pb.PredictOptions(), timeout=HANG)


async def test_a_node_over_mutual_tls_heals_as_over_plain_text(world: World) -> None:
    node = world.node()
    async with world.fleet(node) as router:
        await predict(router)
        node.evict("m")
        await predict(router)
        assert len(node.loads) == 2
        (heal,) = await router.registry.heals()
        assert (heal.model, heal.evidence) == ("m", "details")
        assert await router.probe_health(node.name)
        assert await router.unload("m") == [node.name]


class Traffic:
    """Calls one after the other on several tasks, and a stream from begin to end."""

    def __init__(self, router: SmartRouter) -> None:
        self._router = router
        self.answers = 0
        self._stop = False

    async def _calls(self) -> None:
        while not self._stop:
            await predict(self._router)
            self.answers += 1

    async def more(self, count: int = 20) -> None:
        """Wait for that many further answers."""
        goal = self.answers + count
        await eventually(lambda: self.answers >= goal or any(t.done() for t in self._tasks))

    async def __aenter__(self) -> Self:
        await predict(self._router)
        self._tasks = [asyncio.create_task(self._calls()) for _ in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)  # raises if a call failed


async def test_no_call_fails_while_the_router_changes_its_certificate_and_its_authorities(
    world: World,
) -> None:
    node = world.node()
    async with world.fleet(node) as router, Traffic(router) as traffic:
        channels: Any = router._channels
        node.gate = asyncio.Event()
        held = asyncio.create_task(predict(router))
        await eventually(lambda: node.running["m"] > 0)
        first = channels._links[node.address]
        CALLERS.issue(HOST).write(world.folder, "router")
        await eventually(lambda: channels._links[node.address] is not first)
        node.gate.set()
        await traffic.more()
        await held
        # The node's authority changes: first the router trusts both.
        second = channels._links[node.address]
        world.trusted.write_bytes(NODES.pem + OTHER.pem)
        await eventually(lambda: channels._links[node.address] is not second)
        OTHER.issue(HOST).write(world.folder, "node")
        await traffic.more()
        third = channels._links[node.address]
        OTHER.write(world.trusted)
        await eventually(lambda: channels._links[node.address] is not third)
        await traffic.more()
        await eventually(lambda: len(channels) == 1)  # old channels are closed


async def test_files_that_do_not_fit_the_node_leave_its_connection_alone(world: World) -> None:
    node = world.node()
    async with world.fleet(node) as router, Traffic(router) as traffic:
        channels: Any = router._channels
        link = channels._links[node.address]
        OTHER.write(world.trusted)
        await eventually(lambda: channels._successions)
        await traffic.more(200)
        assert channels._links[node.address] is link
        world.trusted.write_bytes(NODES.pem + OTHER.pem)
        await eventually(lambda: channels._links[node.address] is not link)
        await traffic.more()
        assert not channels._successions


async def test_a_lost_connection_ends_the_use_of_the_old_files(world: World) -> None:
    node = world.node()
    async with world.fleet(node) as router:
        await predict(router)
        channels: Any = router._channels
        link = channels._links[node.address]
        OTHER.write(world.trusted)
        await eventually(lambda: channels._successions)
        await node.stop()
        await node.start()
        await eventually(lambda: channels._links[node.address] is not link)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await BackendStub(router.channel("m")).Predict(pb.PredictOptions(), timeout=2)
        assert caught.value.code() is not grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (OTHER.issue(HOST), "not accepted: no authority of --tls-ca signed it"),
        (NODES.issue("gpu-1.example"), "is not for that name or address"),
        (NODES.issue(HOST, lifetime=dt.timedelta(hours=-1)), "certificate has expired"),
    ],
)
async def test_a_certificate_that_does_not_fit_shows_as_that(
    world: World, shown: Any, why: str
) -> None:
    shown.write(world.folder, "node")
    node = world.node(asks=False)
    async with world.fleet(node) as router:
        entry = router.table.nodes[node.name]
        router._prober.suspect(entry)
        assert not await router.probe_health(node.name)
        assert why in entry.trouble
        # Its heartbeats show that it lives, and not that the router reaches it.
        await router.heartbeat(node.heartbeat())
        assert not entry.reachable
        assert not await router.probe_health(node.name)
        NODES.issue(HOST).write(world.folder, "node")
        await eventually(lambda: entry.reachable)
        await predict(router)


async def test_a_node_that_asks_for_another_certificate_shows_as_that(world: World) -> None:
    node = world.node()
    async with world.fleet(node, tls=world.client(None)) as router:
        entry = router.table.nodes[node.name]
        router._prober.suspect(entry)
        assert not await router.probe_health(node.name)
        assert "give --tls-cert and --tls-key, signed by" in entry.trouble


async def test_a_node_that_was_added_without_tls_shows_as_that(world: World) -> None:
    async with world.node(asks=False) as node, world.fleet() as router:
        await router.registry.add_node(node.address, "fake", name="f")
        assert not await router.probe_health("f")
        assert "add it with add-node --node-tls" in router.table.nodes["f"].trouble
        await router.registry.add_node(node.address, "fake", name="f", tls=True)
        await predict(router)


@asynccontextmanager
async def gateway(router: SmartRouter, world: World, **options: Any) -> AsyncIterator[str]:
    tls = ServerTls(*world.ours, world.asked, warn=world.warnings.append)
    server = GatewayServer(router, f"{HOST}:0", tls=tls, **options)
    yield await server.start()
    await server.stop(0)


def caller(world: World, address: str, authority: Authority | None) -> Any:
    trusted = CALLERS.write(world.folder / "routers.pem")
    pair = authority.issue().write(world.folder, "caller") if authority else (None, None)
    tls = ClientTls(trusted, *pair, warn=world.warnings.append)
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, tls.credentials(), options)


async def test_the_gateway_serves_callers_whose_certificate_is_signed(world: World) -> None:
    node = world.node()
    async with world.fleet(node) as router, gateway(router, world) as address:
        metadata = (("x-model-id", "m"),)
        async with caller(world, address, CALLERS) as channel:
            await BackendStub(channel).Predict(pb.PredictOptions(), metadata=metadata)
            for authority in (None, OTHER):
                async with caller(world, address, authority) as refused:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await BackendStub(refused).Predict(pb.PredictOptions(), metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            CALLERS.issue(HOST).write(world.folder, "router")
            async with caller(world, address, CALLERS) as new:
                await BackendStub(new).Predict(pb.PredictOptions(), metadata=metadata)
            await BackendStub(channel).Predict(pb.PredictOptions(), metadata=metadata)


@pytest.mark.parametrize("over_tls", [True, False])
async def test_a_router_with_an_authority_for_nodes_refuses_those_without_tls(
    world: World, over_tls: bool
) -> None:
    node = Node()
    async with world.fleet() as router:
        await node.start()
        beat = fleet_pb2.HeartbeatRequest(
            node="n", address=node.address, backend="fake", slots=1, boot_id="b"
        )
        async with (
            gateway(router, world, nodes_over_tls=over_tls) as address,
            caller(world, address, CALLERS) as channel,
        ):
            if over_tls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await FleetStub(channel).Heartbeat(beat)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "start the node with --tls-cert and --tls-key" in caught.value.details()
                assert "n" not in router.table.nodes
                beat.tls = True
            await FleetStub(channel).Heartbeat(beat)
            assert router.table.nodes["n"].info.tls is over_tls
        await node.stop()
