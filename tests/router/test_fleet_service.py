"""The Fleet and Operator services on the gateway's port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from grpcerrors import explain
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub, OperatorStub
from grpcerrors_router.gateway.server import GatewayServer
from tests.router.support.rawnode import RawNode, Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path) as made:
        yield made


def beat(at: RawNode, **changes: object) -> fleet_pb2.HeartbeatRequest:
    told = {"node": "n", "address": at.address, "backend": "raw", "slots": 2, "boot_id": "b1"}
    held = [fleet_pb2.HeldModel(model="m")]
    return fleet_pb2.HeartbeatRequest(**{**told, "inventory_version": 1, "models": held, **changes})  # type: ignore[arg-type]


async def test_a_node_registers_with_its_first_heartbeat_and_its_models_are_adopted(
    served: Stack,
) -> None:
    reply = await FleetStub(served.through).Heartbeat(beat(served.node))
    assert reply.interval_seconds == served.router.settings.heartbeat_interval
    entry = served.router.table.nodes["n"]
    assert (entry.info.backend, entry.info.slots, entry.info.boot_id) == ("raw", 2, "b1")
    assert set(entry.replicas) == {"m"}
    served.node.script = Script(replies=(b"",))
    call = served.through.unary_unary("/backend.Backend/Predict")
    await call(b"", metadata=(("x-model-id", "m"),))
    assert not served.node.loads  # it had it already


async def test_a_node_that_leaves_is_forgotten_unless_it_is_another_boot(served: Stack) -> None:
    stub = FleetStub(served.through)
    await stub.Heartbeat(beat(served.node))
    await stub.Leave(fleet_pb2.LeaveRequest(node="n", boot_id="b0"))
    assert "n" in served.router.table.nodes
    await stub.Leave(fleet_pb2.LeaveRequest(node="n", boot_id="b1"))
    assert "n" not in served.router.table.nodes


ESC = "\x1b[31mred"
HUGE = 2**64 - 1


def held(**fields: Any) -> list[fleet_pb2.HeldModel]:
    return [fleet_pb2.HeldModel(**{"model": "m", **fields})]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"node": ""}, "the node name must not be empty"),
        ({"node": "n" * 2**20}, "the node name has 1048576 characters; at most 255"),
        ({"node": "n\0"}, "the node name 'n\\x00' must be printable"),
        ({"node": ESC}, "must be printable"),
        ({"node": " n"}, "without spaces around it"),
        ({"backend": ""}, "the backend type of node 'n' must not be empty"),
        ({"backend": ESC}, "must be printable"),
        ({"boot_id": ""}, "the boot id of node 'n'"),
        ({"boot_id": "b\n"}, "must be printable"),
        ({"slots": 0}, "must offer 1 to 1000 slots, not 0"),
        ({"slots": -1}, "must offer 1 to 1000 slots, not -1"),
        ({"slots": 2**31 - 1}, "must offer 1 to 1000 slots"),
        ({"inventory_version": HUGE}, "the inventory version of node 'n' must be at most 2^63-1"),
        ({"models": held(generation=2**63)}, "the generation of 'm' on node 'n'"),
        ({"models": held(model="")}, "the model name must not be empty"),
        ({"models": held(model="m" * 300)}, "the model name has 300 characters"),
        ({"models": held(model=ESC)}, "must be printable"),
        ({"models": held(model="é")}, "cannot be sent as x-model-id"),
        ({"models": held() * 1001}, "lists 1001 models; at most 1000"),
        ({"models": held() * 2}, "lists a model twice"),
        ({"address": ""}, "HOST:PORT"),
        ({"address": "nowhere"}, "HOST:PORT"),
        ({"address": ":50051"}, "HOST:PORT"),
        ({"address": "\n\0 :1"}, "HOST:PORT"),
        ({"address": "unix:/tmp/socket:1"}, "HOST:PORT"),
        ({"address": "dns:///host:1"}, "HOST:PORT"),
        ({"address": "::1:50051"}, "HOST:PORT"),
        ({"address": "[host]:50051"}, "HOST:PORT"),
        ({"address": "h:99999"}, "HOST:PORT"),
        ({"address": "h:¹"}, "HOST:PORT"),
        ({"address": "127.0.0.1:0"}, "must name the port"),
        ({"address": "0.0.0.0:50051"}, "wildcard"),
        ({"address": "[::]:50051"}, "wildcard"),
        ({"address": "169.254.169.254:80"}, "cannot be that of a server"),
    ],
)
async def test_a_heartbeat_that_makes_no_sense_is_refused_with_what_to_fix(
    served: Stack, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FleetStub(served.through).Heartbeat(beat(served.node, **changes))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = caught.value.details() or ""
    assert words in details
    assert details.isprintable()
    assert len(details) < 500
    assert "grpcerrors/INVALID_NODE" in explain(caught.value)
    assert set(served.router.table.nodes) == {"raw-1"}


async def test_add_node_follows_the_same_rules(served: Stack) -> None:
    add_node = served.router.registry.add_node
    with pytest.raises(ValueError, match="wildcard"):
        await add_node("0.0.0.0:1", "raw")
    with pytest.raises(ValueError, match="1 to 1000 slots"):
        await add_node("h:1", "raw", slots=1001)
    with pytest.raises(ValueError, match="the node name"):
        await add_node("h:1", "raw", name=ESC)


@pytest.mark.parametrize("address", ["[::1]:50051", "node_1.example.com:1", "localhost:65535"])
async def test_good_addresses_are_taken(served: Stack, address: str) -> None:
    await FleetStub(served.through).Heartbeat(beat(served.node, address=address))
    assert served.router.table.nodes["n"].info.address == address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_routers_own_address_is_no_node(served: Stack, host: str) -> None:
    own = f"{host}:{served.address.rpartition(':')[2]}"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FleetStub(served.through).Heartbeat(beat(served.node, address=own))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is the router's own" in (caught.value.details() or "")


async def test_every_address_of_a_wildcard_server_is_its_own(served: Stack) -> None:
    server = GatewayServer(served.router, "0.0.0.0:0")
    port = (await server.start()).rpartition(":")[2]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = FleetStub(channel)
        for host in ("127.0.0.1", "127.0.0.2", "localhost"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Heartbeat(beat(served.node, address=f"{host}:{port}"))
        await stub.Heartbeat(beat(served.node, address=f"192.0.2.1:{port}"))
    await server.stop(0)


@pytest.mark.parametrize("changes", [{"node": "n\0"}, {"boot_id": ""}, {"boot_id": "\0"}])
async def test_a_leave_that_makes_no_sense_is_refused(
    served: Stack, changes: dict[str, str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FleetStub(served.through).Leave(
            fleet_pb2.LeaveRequest(**{"node": "raw-1", "boot_id": "b", **changes})
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "raw-1" in served.router.table.nodes


async def test_an_internal_error_is_logged_and_not_sent(
    served: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> float:
        raise OverflowError("INSERT INTO secrets")

    def broken_at_once(*_: object) -> None:
        raise OverflowError("INSERT INTO secrets")

    monkeypatch.setattr(served.router, "heartbeat", broken)
    monkeypatch.setattr(served.router, "channel", broken_at_once)
    metadata = (("x-model-id", "m"),)
    calls = [
        FleetStub(served.through).Heartbeat(beat(served.node)),
        served.through.unary_unary("/backend.Backend/Predict")(b"", metadata=metadata),
        served.through.unary_stream("/backend.Backend/PredictStream")(b"", metadata=metadata),
    ]
    with structlog.testing.capture_logs() as logs:
        for call in calls:
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert await call.details() == "internal error; the router's log says why"
    assert [line["log_level"] for line in logs] == ["error"] * 3


async def test_a_replica_with_calls_in_flight_is_unloaded_by_force_only(served: Stack) -> None:
    stub = OperatorStub(served.through)
    async with served.router.route("m"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Unload(fleet_pb2.UnloadRequest(model="m"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert list(served.router.table.replicas("m"))
        reply = await stub.Unload(fleet_pb2.UnloadRequest(model="m", force=True))
        assert list(reply.nodes) == ["raw-1"]
    assert not list(served.router.table.replicas("m"))


async def test_unload_on_one_node_leaves_the_others(served: Stack) -> None:
    await FleetStub(served.through).Heartbeat(beat(served.node))
    stub = OperatorStub(served.through)
    reply = await stub.Unload(fleet_pb2.UnloadRequest(model="m", node="raw-1"))
    assert not reply.nodes
    assert {each.node.name for each in served.router.table.replicas("m")} == {"n"}
