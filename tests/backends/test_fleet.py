"""A node reports its models to the router, and serves with or without it."""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from structlog.testing import capture_logs

from grpcerrors_backends.host import membership
from grpcerrors_backends.host.holding import Inventory
from grpcerrors_backends.host.membership import Member, Node, advertised, default_name
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import FleetServicer, add_FleetServicer_to_server

from .support.hosting import host, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
LONG = 600.0  # longer than any test, so a heartbeat can only come from a change


class Router(FleetServicer):
    def __init__(self, interval: float = LONG) -> None:
        self.interval = interval
        self.lock = threading.Lock()
        self.heartbeats: list[Any] = []
        self.leaves: list[Any] = []
        self.refusal: str | None = None

    def Heartbeat(self, request: Any, context: Any) -> Any:
        with self.lock:
            self.heartbeats.append(request)
        if self.refusal is not None:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, self.refusal)
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


def test_a_model_that_no_header_can_name_does_not_cost_the_membership() -> None:
    """A router refuses a heartbeat that lists one, and with it all that the node holds."""
    router = Router()
    with (
        serving(router) as address,
        host("echo", "--slots", 6, "--router", address, "--node-name", "n1") as node,
    ):
        for name in ("", "m", "x" * 256, "\N{SNOWMAN}", "\x1b", "n" * 255):
            assert node.stub.LoadModel(pb.ModelOptions(Model=name)).success
        until(lambda: len(router.held()) == 2)
    names = {held.model for beat in router.heartbeats for held in beat.models}
    assert names == {"m", "n" * 255}


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
        for _ in range(2):  # the router starts, stops and starts again
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


def test_it_reports_the_calls_that_each_model_is_serving() -> None:
    router = Router(interval=0.2)
    with (
        serving(router) as address,
        host("tests.backends.support.samples:Aio", "--slots", 2, "--router", address) as node,
    ):
        node.load("a", "answer_seconds:0.01")
        node.load("b")
        request = pb.PredictOptions(Prompt="endless")
        streams = [
            node.stub.PredictStream(request, metadata=[("x-model-id", "a")]) for _ in range(3)
        ]
        for stream in streams:
            next(stream)

        def in_flight() -> dict[str, int]:
            return {
                held.model: held.in_flight
                for heartbeat in router.heartbeats[-1:]
                for held in heartbeat.models
            }

        until(lambda: in_flight() == {"a": 3, "b": 0})
        for stream in streams:
            stream.cancel()
        until(lambda: in_flight() == {"a": 0, "b": 0})


def test_a_refusal_is_logged_once_and_tried_again() -> None:
    router = Router()
    router.refusal = "another live process has the name n1"
    with (
        serving(router) as address,
        host("echo", "--router", address, "--node-name", "n1") as node,
    ):
        until(lambda: len(router.heartbeats) >= 4)
        router.refusal = None
        until(lambda: '"joined"' in node.log())
        (line,) = (line for line in node.log().splitlines() if "refused" in line)
        event = json.loads(line)
        assert event["event"] == "the router refused this node"
        assert event["why"] == "ALREADY_EXISTS: another live process has the name n1"
        assert event["node"] == "n1"


def test_a_generation_that_is_no_number_does_not_end_the_membership() -> None:
    router = Router(interval=0.2)
    with serving(router) as address, host("echo", "--router", address) as node:
        until(lambda: bool(router.heartbeats))
        with pytest.raises(grpc.RpcError):
            node.load("m", metadata=[("x-generation", "9" * 25)])
        seen = len(router.heartbeats)
        until(lambda: len(router.heartbeats) > seen + 2)
        node.load("m", metadata=[("x-generation", str(2**63 - 1))])
        until(lambda: router.held() == [("m", 2**63 - 1)])


class Inventories:
    """Slots whose inventory cannot be sent until it is repaired."""

    capacity = 1

    def __init__(self) -> None:
        self.asked = 0
        self.broken = True

    def inventory(self) -> Inventory:
        self.asked += 1
        return Inventory(1, (("m", 2**64 if self.broken else 1, 0),))


@pytest.mark.parametrize("interval", [math.nan, math.inf, -1.0, 1e300])
def test_it_outlives_what_it_cannot_send_and_what_it_cannot_wait(
    interval: float, capsys: pytest.CaptureFixture[str]
) -> None:
    router = Router(interval)
    slots: Any = Inventories()
    changed = threading.Event()
    with serving(router) as address, capture_logs() as logs:
        member = Member(address, Node("n", "127.0.0.1:1", "echo", "boot"), slots, changed)
        member.start()
        until(lambda: slots.asked >= 3)
        assert router.heartbeats == []
        slots.broken = False
        until(lambda: router.held() == [("m", 1)])
        for held in range(1, 4):
            until(lambda held=held: len(router.heartbeats) >= held)  # type: ignore[misc]
            changed.set()
        member.leave()
        assert len(router.leaves) == 1
    assert [entry["event"] for entry in logs] == ["heartbeat failed", "joined"]


def test_a_name_is_short_and_of_one_place() -> None:
    name = default_name("echo", "127.0.0.1:50051")
    assert re.fullmatch("echo-[0-9a-f]{6}", name)
    assert name == default_name("echo", "127.0.0.1:50051")
    assert name != default_name("echo", "127.0.0.1:50052")


@pytest.mark.parametrize(
    ("address", "advertise", "reached"),
    [
        ("127.0.0.1:5", None, "127.0.0.1:5"),
        ("[::1]:5", None, "[::1]:5"),
        ("0.0.0.0:5", "gpu-1", "gpu-1:5"),
        ("[::]:5", "fd00::1", "[fd00::1]:5"),
        ("[::]:5", "[fd00::1]", "[fd00::1]:5"),
    ],
)
def test_where_a_router_reaches_it(address: str, advertise: str | None, reached: str) -> None:
    assert advertised(address, advertise) == reached


def test_the_channel_to_the_router_is_soon_tried_again() -> None:
    """By default, gRPC waits up to two minutes before it reconnects."""
    options = dict(membership._OPTIONS)
    assert options["grpc.max_reconnect_backoff_ms"] <= 1000
    assert membership.LAST_RETRY <= 5
