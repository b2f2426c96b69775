"""Nodes and operators on the gateway's port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub, OperatorStub
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


@pytest.mark.parametrize(
    "changes", [{"node": ""}, {"address": "nowhere"}, {"backend": ""}, {"slots": 0}, {"slots": -1}]
)
async def test_a_heartbeat_that_makes_no_sense_is_refused(
    served: Stack, changes: dict[str, object]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await FleetStub(served.through).Heartbeat(beat(served.node, **changes))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details()
    assert set(served.router.table.nodes) == {"raw-1"}


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
