"""Busy nodes, stopped nodes, and nodes that come back as a new process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import backend_pb2_grpc
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec
from tests.router.conftest import QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import REQUEST_ID, Node
from tests.router.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors_router import SmartRouter

# No test here waits for one of these to expire.
PATIENT = replace(QUICK, probe_timeout=1000.0, connect_timeout=1000.0, status_timeout=1000.0)
EAGER = replace(QUICK, silent_after=0.1, probe_patience=0.05, connect_timeout=0.3)


def predict(router: SmartRouter, timeout: float | None = None, request: str = "") -> Any:
    return BackendStub(router.channel("m")).Predict(
        pb.PredictOptions(), timeout=timeout, metadata=((REQUEST_ID, request),)
    )


async def end(call: Any) -> Any:
    """Return the reply or the error."""
    return (await asyncio.gather(call, return_exceptions=True))[0]


class OneWorker(backend_pb2_grpc.BackendServicer):
    """LocalAI's default: one thread serves inference, Health and Status."""

    def __init__(self) -> None:
        self.started, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.loads = 0

    def Health(self, request: Any, context: Any) -> Any:
        return pb.Reply(message=b"OK")

    def Status(self, request: Any, context: Any) -> Any:
        return pb.StatusResponse(state=pb.StatusResponse.READY)

    def LoadModel(self, request: Any, context: Any) -> Any:
        self.loads += 1
        return pb.Result(success=True)

    def Predict(self, request: Any, context: Any) -> Any:
        self.started.release()
        self.go_on.acquire()
        if request.Prompt == "poison":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Score was not enabled")
        return pb.Reply(message=b"ok")


@pytest.fixture
def one_worker() -> Iterator[tuple[OneWorker, str]]:
    servicer = OneWorker()
    server = grpc.server(ThreadPoolExecutor(1))
    backend_pb2_grpc.add_BackendServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    for _ in range(100):
        servicer.go_on.release()
    server.stop(0).wait()


async def test_a_call_queues_on_a_node_whose_only_worker_is_busy(
    sqlite_url: str, one_worker: tuple[OneWorker, str]
) -> None:
    servicer, address = one_worker
    settings = replace(
        EAGER, fresh_for=0.05, busy_for=0.05, probe_timeout=0.12, connect_timeout=1000.0
    )
    async with fleet(sqlite_url, settings=settings) as (router,):
        await router.registry.add_node(address, "fake", name="f")
        first = asyncio.ensure_future(predict(router))
        await asyncio.to_thread(servicer.started.acquire)
        node = router.table.nodes["f"]
        await eventually(lambda: node.busy)
        for _ in range(20):
            assert await router.probe_health("f"), "busy is not gone, whenever one asks"
            node.fresh_until = 0.0
        second = asyncio.ensure_future(predict(router))
        await eventually(lambda: router.table.in_flight() == 2)
        assert node.reachable
        servicer.go_on.release()
        servicer.go_on.release()
        assert (await first).message == (await second).message == b"ok"
        await eventually(lambda: not node.busy)
        assert servicer.loads == 1


async def test_a_busy_worker_that_cannot_answer_status_keeps_its_replica(
    sqlite_url: str, one_worker: tuple[OneWorker, str]
) -> None:
    servicer, address = one_worker
    events = Recorder()
    quick = replace(QUICK, status_timeout=0.1)
    async with fleet(sqlite_url, settings=quick, events=events) as (router,):
        await router.registry.add_node(address, "fake", name="f")
        stub = BackendStub(router.channel("m"))
        poison = asyncio.ensure_future(stub.Predict(pb.PredictOptions(Prompt="poison")))
        await asyncio.to_thread(servicer.started.acquire)
        queued = asyncio.ensure_future(stub.Predict(pb.PredictOptions()))
        await eventually(lambda: router.table.in_flight() == 2)
        servicer.go_on.release()
        assert (await end(poison)).code() is grpc.StatusCode.FAILED_PRECONDITION
        servicer.go_on.release()
        assert (await end(queued)).message == b"ok"
        assert events.count("unconfirmed") == 1
        assert events.count("heal") == 0
        assert servicer.loads == 1


async def test_a_busy_node_is_picked_last(sqlite_url: str) -> None:
    a, b = Node("a"), Node("b")
    async with fleet(sqlite_url, a, b) as (router,):
        for node in (a, b):
            node.held["m"] = 1
            node.inventory += 1
            await router.heartbeat(node.heartbeat())
        slow = router.table.nodes["a"]
        router.table.set_state(slow, reachable=True, busy=True)
        for _ in range(5):
            await predict(router, request="r")
        assert (a.executed["r"], b.executed["r"]) == (0, 5)
        router._prober.heard(slow)
        for _ in range(4):
            await predict(router, request="s")
        assert a.executed["s"] == b.executed["s"] == 2


async def test_a_stopped_node_is_left_and_comes_back_with_its_rows(sqlite_url: str) -> None:
    """Invariant 14, and 17: another node takes over while the first one is stopped."""
    a, b = Node("a"), Node("b")
    async with a, b, Relay(a.address) as relay, fleet(sqlite_url, settings=EAGER) as (router,):
        beat = replace(a.heartbeat(), address=relay.address)
        await router.heartbeat(beat)
        await predict(router)
        relay.freeze()
        stuck = asyncio.ensure_future(predict(router, request="r"))
        node = router.table.nodes["a"]
        await eventually(lambda: not node.reachable)
        await router.heartbeat(b.heartbeat())
        assert isinstance(await predict(router), pb.Reply)
        assert "m" in b.held
        assert "m" in node.replicas, "invariant 14: silence deletes nothing"
        relay.thaw()
        await stuck
        await eventually(lambda: node.reachable and not node.busy)
        assert a.seen["r"] == 1, "invariant 7: what may have been executed is not sent again"


async def test_a_node_that_goes_silent_between_requests_is_noticed_by_a_missed_deadline(
    sqlite_url: str,
) -> None:
    a = Node("a")
    settings = replace(EAGER, watch_interval=1000.0, silent_after=0.0)
    async with a, Relay(a.address) as relay, fleet(sqlite_url, settings=settings) as (router,):
        await router.heartbeat(replace(a.heartbeat(), address=relay.address))
        await predict(router)
        relay.freeze()
        assert (await end(predict(router, 0.1))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not await router.probe_health("a")
        assert not router.table.nodes["a"].reachable


async def test_the_callers_deadline_bounds_the_probe(sqlite_url: str) -> None:
    a = Node("a")
    async with a, Relay(a.address) as relay, fleet(sqlite_url, settings=PATIENT) as (router,):
        await router.heartbeat(replace(a.heartbeat(), address=relay.address))
        await predict(router)
        relay.freeze()
        router.table.nodes["a"].fresh_until = 0.0
        error = await end(predict(router, 0.2))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.reason == "LOAD_TIMEOUT"
        assert 'node "a" did not answer' in error.details()
        assert "load continues" not in error.details(), "none is under way"


@pytest.mark.parametrize("on_stale", ["retry", "return"])
async def test_the_callers_deadline_bounds_the_registrys_write(
    sqlite_url: str, on_stale: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node, on_stale=on_stale) as (router,):
        await predict(router)
        node.evict("m")
        written, drop = asyncio.Event(), router.registry.remove_node_model

        async def slow(*args: Any, **named: Any) -> bool:
            await written.wait()
            return await drop(*args, **named)

        monkeypatch.setattr(router.registry, "remove_node_model", slow)
        error = await end(predict(router, 0.2))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, "what the node answered"
        assert router.table.pick("m") is None
        written.set()
        await eventually(lambda: not router._dispatcher.reconciler._drops)
        assert not (await router.registry.snapshot()).nodes[0].replicas, "the drop is written"


@pytest.mark.parametrize("status", [True, False])
async def test_a_foreign_node_that_restarted_is_asked_before_it_is_used(
    sqlite_url: str, status: bool
) -> None:
    """It answers OK without a model, so nothing but the connection shows the restart."""
    node, events = Node("f"), Recorder()
    node.serves_anyway, node.status_unimplemented = True, not status
    async with node, fleet(sqlite_url, events=events) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await predict(router)
        for restart in range(1, 3):
            await node.stop()
            node.held.clear()
            await node.start()
            reply = await end(predict(router))
            # The call itself may be the first to notice the lost connection.
            if not isinstance(reply, pb.Reply):
                await predict(router)
            loads = 1 + (restart if status else 1)
            assert len(node.loads) == loads, "without Status, twice in a row is believed once"
        heals = [args[3] for name, args in events.seen if name == "heal"]
        assert heals == ["reconnect"] * (len(node.loads) - 1)


async def test_a_foreign_node_that_only_lost_its_connection_keeps_its_replica(
    sqlite_url: str,
) -> None:
    node = Node("f")
    async with node, Relay(node.address) as relay, fleet(sqlite_url) as (router,):
        await router.registry.add_node(relay.address, "fake", name="f")
        await predict(router)
        await relay.lose()
        await end(predict(router))
        await predict(router)
        assert node.statuses >= 1
        assert len(node.loads) == 1


async def test_a_node_that_moves_during_a_probe_is_not_judged_by_its_old_address(
    sqlite_url: str,
) -> None:
    settings = replace(PATIENT, probe_patience=1000.0)
    async with (
        Node("f") as node,
        Relay(node.address) as relay,
        fleet(sqlite_url, settings=settings) as (router,),
    ):
        relay.freeze()
        await router.registry.add_node(relay.address, "fake", name="f")
        probe = asyncio.create_task(router.probe_health("f"))
        await eventually(lambda: router._prober._questions)
        await router.registry.add_node(node.address, "fake", name="f")
        # The channel to the old address is closed, which ends the question.
        assert await probe
        assert router.table.nodes["f"].reachable


async def test_channels_are_closed_when_no_node_has_their_address(sqlite_url: str) -> None:
    async with fleet(sqlite_url) as (router,):
        for number in range(5):
            async with Node(f"pod-{number}") as node:
                await router.heartbeat(node.heartbeat())
                router.table.nodes[node.name].fresh_until = 0.0
                assert await router.probe_health(node.name)
                assert len(router._channels) > 0
                await router.leave(node.name, node.boot_id)
        await eventually(lambda: len(router._channels) == 0)


async def test_a_call_in_flight_keeps_the_channel_of_a_node_that_has_left(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await predict(router)
        node.work = 0.5
        call = asyncio.ensure_future(predict(router))
        await eventually(lambda: node.running["m"] == 1)
        await router.leave(node.name, node.boot_id)
        assert isinstance(await call, pb.Reply)
        await eventually(lambda: len(router._channels) == 0)


async def test_watching_survives_a_failure(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        failures, addresses = 0, router.table.addresses

        def broken() -> set[str]:
            nonlocal failures
            failures += 1
            if failures < 3:
                raise RuntimeError
            return addresses()

        monkeypatch.setattr(router.table, "addresses", broken)
        entry = router.table.nodes["a"]
        entry.fresh_until = 0.0
        router.table.set_state(entry, reachable=False, busy=False)
        await eventually(lambda: entry.reachable)
        assert failures >= 3


async def test_no_call_is_sent_to_a_node_whose_connection_was_lost(sqlite_url: str) -> None:
    """Of many calls at once, half would be lost before the first of them could report it."""
    nodes = [Node("a"), Node("b")]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, *nodes, models=models) as (router,):
        await router.load("m")
        await eventually(lambda: router.table.live_count("m") == 2)
        await asyncio.gather(*(predict(router) for _ in range(20)))
        assert all(sum(node.executed.values()) for node in nodes)
        await nodes[0].stop()
        await eventually(lambda: router._channels.losses(router.table.nodes[nodes[0].name].info))
        await asyncio.gather(*(predict(router) for _ in range(50)))
        assert not router.table.nodes["a"].reachable
        assert sum(1 for _ in router.table.replicas("m")) == 2, "invariant 14"
