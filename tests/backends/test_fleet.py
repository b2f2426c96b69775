"""A node tells its router what it holds, and serves whether or not the router listens."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetServicer, add_FleetServicer_to_server

from .support.hosting import host, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
LONG = 600.0  # an interval that no test waits for: what comes, comes because of a change


class Router(FleetServicer):
    def __init__(self, interval: float = LONG) -> None:
        self.interval = interval
        self.lock = threading.Lock()
        self.heartbeats: list[Any] = []
        self.leaves: list[Any] = []

    def Heartbeat(self, request: Any, context: Any) -> Any:
        with self.lock:
            self.heartbeats.append(request)
        return fleet_pb2.HeartbeatReply(interval_seconds=self.interval)

    def Leave(self, request: Any, context: Any) -> Any:
        with self.lock:
            self.leaves.append(request)
        return fleet_pb2.LeaveReply()

    def held(self) -> list[tuple[str, int]]:
        if not self.heartbeats:
            return []
        return [(held.model, held.generation) for held in self.heartbeats[-1].models]


@contextlib.contextmanager
def serving(router: Router, address: str = "127.0.0.1:0") -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_FleetServicer_to_server(router, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_it_joins_tells_each_change_and_leaves() -> None:
    router = Router()
    with (
        serving(router) as address,
        host("echo", "--slots", 2, "--router", address, "--node-name", "n1") as node,
    ):
        until(lambda: bool(router.heartbeats))
        first = router.heartbeats[0]
        assert (first.node, first.address) == ("n1", node.address)
        assert (first.backend, first.slots) == ("echo", 2)
        assert (first.inventory_version, list(first.models)) == (0, [])

        told = node.load("a", metadata=[("x-generation", "7")])
        until(lambda: router.held() == [("a", 7)])
        latest = router.heartbeats[-1]
        assert latest.boot_id == first.boot_id == told["x-boot-id"]
        assert latest.inventory_version == int(told["x-inventory-version"])

        node.free()
        until(lambda: router.held() == [])
        assert router.heartbeats[-1].inventory_version == 2

        assert node.terminate() == 0
        (leave,) = router.leaves
        assert (leave.node, leave.boot_id) == ("n1", first.boot_id)


def test_it_tells_the_host_at_which_it_is_reached() -> None:
    router = Router()
    with (
        serving(router) as address,
        host("echo", "--router", address, "--advertise", "localhost") as node,
    ):
        until(lambda: bool(router.heartbeats))
        assert router.heartbeats[0].address == f"localhost:{node.address.rpartition(':')[2]}"


def test_it_repeats_itself_at_the_interval_that_the_router_asks_for() -> None:
    router = Router(interval=0.2)
    with serving(router) as address, host("echo", "--router", address):
        until(lambda: len(router.heartbeats) >= 3)


def test_it_serves_without_a_router_and_joins_when_there_is_one() -> None:
    with serving(Router()) as address:
        pass
    with host("echo", "--router", address) as node:
        node.load("a")
        assert node.stub.Predict(pb.PredictOptions(Prompt="hi")).message == b"hi"
        for _ in range(2):  # the router comes, goes, and comes again
            router = Router(interval=0.2)
            with serving(router, address):
                until(lambda router=router: router.held() == [("a", 0)])  # type: ignore[misc]
        assert node.stub.Predict(pb.PredictOptions(Prompt="hi")).message == b"hi"


def test_a_node_whose_router_is_gone_stops_in_peace() -> None:
    with serving(Router()) as address:
        pass
    with host("echo", "--router", address) as node:
        assert node.terminate() == 0
        assert "Traceback" not in node.log()
