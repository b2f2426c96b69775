"""Cold models: placement, single flight, waiting and failures."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from grpcerrors import is_model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import (
    InUse,
    LoadFailed,
    LoadTimeout,
    ModelSpec,
    NoCapacity,
    NodeRegistry,
    SmartRouter,
    UnknownModel,
)
from tests.router.conftest import HANG, QUICK, Recorder, eventually, fleet
from tests.router.support.nodes import Node

MODELS = {name: ModelSpec(name, "fake") for name in "mnopq"}


def stub(router: SmartRouter, model: str = "m") -> Any:
    return BackendStub(router.channel(model))


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    """Return the text of the router's error."""
    trailers = dict(tuple(error.trailing_metadata()))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    kinds = (error_details_pb2.RetryInfo, error_details_pb2.ErrorInfo)
    found = []
    for packed in status.details:
        for kind in kinds:
            message = kind()
            if packed.Unpack(message):
                found.append(message)
    return found


async def test_a_cold_model_is_loaded_once_for_all_who_wait(sqlite_url: str) -> None:
    """Invariant 3."""
    nodes = [Node(), Node(), Node()]
    for node in nodes:
        node.load_delay = 0.2
    async with fleet(sqlite_url, *nodes) as (router,):
        calls = [stub(router).Predict(pb.PredictOptions(), timeout=30) for _ in range(50)]
        await asyncio.gather(*calls)
        assert sum(len(node.loads) for node in nodes) == 1


async def test_free_slots_first_then_the_least_recently_used(sqlite_url: str) -> None:
    a, b = Node("a", slots=2), Node("b", slots=1)
    async with fleet(sqlite_url, a, b, models=MODELS) as (router,):
        for model in "mno":
            await stub(router, model).Predict(pb.PredictOptions())
        assert not a.frees
        assert not b.frees
        await stub(router, "m").Predict(pb.PredictOptions())
        await stub(router, "p").Predict(pb.PredictOptions())
        assert a.frees + b.frees == ["n"], "m was used after n"
        assert {*a.held, *b.held} == {"m", "o", "p"}


async def test_a_replica_in_use_is_never_evicted(sqlite_url: str) -> None:
    """Invariant 10."""
    node = Node()
    async with fleet(sqlite_url, node, models=MODELS) as (router,):
        await router.load("m")
        node.gate = asyncio.Event()
        busy = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions()))
        await eventually(lambda: node.running["m"])
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(router, "n").Predict(pb.PredictOptions(), timeout=0.5)
        assert not node.frees
        node.gate.set()
        await busy
        await stub(router, "n").Predict(pb.PredictOptions())
        assert node.frees == ["m"]
        assert node.freed_in_use == 0


async def test_no_capacity_says_when_to_retry(sqlite_url: str) -> None:
    async with fleet(sqlite_url, models=MODELS) as (router,):
        with pytest.raises(NoCapacity) as caught:
            await stub(router).Predict(pb.PredictOptions())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert any(isinstance(d, error_details_pb2.RetryInfo) for d in details(caught.value))


async def test_an_unknown_model_names_the_closest(sqlite_url: str) -> None:
    models = {"tiny.en": ModelSpec("tiny.en", "fake")}
    async with fleet(sqlite_url, Node(), models=models) as (router,):
        with pytest.raises(UnknownModel) as caught:
            await stub(router, "tiny-en").Predict(pb.PredictOptions())
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert 'did you mean "tiny.en"?' in caught.value.details()
        assert not is_model_not_loaded(caught.value)


async def test_no_node_of_that_backend(sqlite_url: str) -> None:
    models = {"m": ModelSpec("m", "absent")}
    async with fleet(sqlite_url, Node(), models=models) as (router,):
        with pytest.raises(NoCapacity, match='no node offers backend "absent"'):
            await stub(router).Predict(pb.PredictOptions())


async def test_a_request_waits_for_the_registry_to_be_read(sqlite_url: str) -> None:
    settings = replace(QUICK, poll_interval=1.0)
    async with Node() as node, fleet(sqlite_url, settings=settings) as (router,):
        async with NodeRegistry(sqlite_url, timeout=HANG) as elsewhere:
            await elsewhere.add_node(node.address, "fake")
        await stub(router).Predict(pb.PredictOptions())
        assert len(node.loads) == 1


async def test_a_failed_load_tries_another_node(sqlite_url: str) -> None:
    a, b = Node("a"), Node("b")
    a.load_error = "no such file"
    async with fleet(sqlite_url, a, b) as (router,):
        await stub(router).Predict(pb.PredictOptions())
        assert len(a.loads) == len(b.loads) == 1


async def test_what_a_node_answers_outranks_a_failed_connection(sqlite_url: str) -> None:
    node = Node("b")
    node.load_error = "out of memory"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with fleet(sqlite_url, node) as (router,):
            await router.registry.add_node(f"127.0.0.1:{nobody.getsockname()[1]}", "fake", name="a")
            with pytest.raises(LoadFailed, match='node "b": out of memory') as caught:
                await stub(router).Predict(pb.PredictOptions())
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_failed_load_says_why_and_backs_off(sqlite_url: str) -> None:
    node = Node("a")
    node.load_error = "no such file: tiny.bin"
    calm = replace(QUICK, load_backoff=60.0)
    async with fleet(sqlite_url, node, settings=calm) as (router,):
        for _ in range(5):
            with pytest.raises(LoadFailed) as caught:
                await stub(router).Predict(pb.PredictOptions())
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert 'node "a": no such file: tiny.bin' in caught.value.details()
            assert not is_model_not_loaded(caught.value), "a detector must not take it for one"
        assert len(node.loads) == 1


async def test_options_that_do_not_fit_are_the_load_s_own_failure(sqlite_url: str) -> None:
    models = {"m": ModelSpec("m", "fake", {"Contextsize": 1})}
    async with fleet(sqlite_url, Node(), models=models) as (router,):
        with pytest.raises(LoadFailed, match="Contextsize"):
            await stub(router).Predict(pb.PredictOptions())


async def test_a_node_that_dies_is_not_picked_and_its_rows_stay(sqlite_url: str) -> None:
    """Invariant 14: silence never deletes; the node comes back when it answers."""
    a, b = Node("a"), Node("b")
    async with fleet(sqlite_url, a, b) as (router,):
        await router.load("m")
        (first,) = router.table.replicas("m")
        home, other = (a, b) if first.node.name == "a" else (b, a)
        await home.stop()
        router.table.nodes[home.name].fresh_until = 0.0
        assert not await router.probe_health(home.name)
        kept = {entry.node.name for entry in router.table.replicas("m")}
        assert home.name in kept, "invariant 14: silence deletes nothing"
        await stub(router).Predict(pb.PredictOptions(), timeout=30)
        assert "m" in other.held
        assert len(list(router.table.replicas("m"))) == 2
        assert await router.registry.heals() == []
        await home.start()
        await eventually(lambda: router.table.live_count("m") == 2)


async def test_a_load_outlives_the_caller_who_started_it(sqlite_url: str) -> None:
    node = Node()
    node.load_delay = 2.0
    async with fleet(sqlite_url, node) as (router,):
        with pytest.raises(LoadTimeout) as caught:
            await stub(router).Predict(pb.PredictOptions(), timeout=1.0)
        assert node.loading, "the load outlives its caller"
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: router.table.live_count("m") == 1)
        assert len(node.loads) == 1


async def test_each_waiting_caller_has_a_deadline_of_its_own(sqlite_url: str) -> None:
    node = Node()
    node.load_delay = 0.7
    async with fleet(sqlite_url, node) as (router,):
        hasty = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions(), timeout=0.1))
        patient = asyncio.ensure_future(stub(router).Predict(pb.PredictOptions(), timeout=60))
        done, _ = await asyncio.wait({hasty, patient}, return_when="FIRST_COMPLETED")
        assert done == {hasty}
        await patient
        assert isinstance(hasty.exception(), LoadTimeout)


async def test_as_many_replicas_as_wanted_come_up(sqlite_url: str) -> None:
    nodes = [Node(), Node(), Node()]
    models = {"m": ModelSpec("m", "fake", replicas=2)}
    async with fleet(sqlite_url, *nodes, models=models) as (router,):
        await stub(router).Predict(pb.PredictOptions())
        await eventually(lambda: router.table.live_count("m") == 2)
        assert sum(len(node.loads) for node in nodes) == 2


async def test_load_sends_options_and_generation_and_free_names_it(sqlite_url: str) -> None:
    node, events = Node("a", slots=1), Recorder()
    async with fleet(sqlite_url, node, models=MODELS, events=events) as (router,):
        await router.load("m")
        entry = router.table.pick("m")
        assert entry is not None
        assert node.loads == [("m", entry.generation)]
        assert entry.row.boot_id == node.boot_id
        assert entry.node.info.inventory == node.inventory
        assert await router.unload("m") == ["a"]
        assert node.held == {}
        assert router.table.pick("m") is None
        assert await router.unload("m") == []


async def test_unload_spares_what_is_in_use_unless_forced(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,), router.route("m"):
        with pytest.raises(InUse):
            await router.unload("m")
        assert router.table.live_count("m") == 1
        assert await router.unload("m", force=True) == [node.name]


async def test_a_foreign_backend_with_one_slot_is_replaced_by_loading(sqlite_url: str) -> None:
    node = Node("f")
    node.free_unimplemented = True
    async with node, fleet(sqlite_url, models=MODELS) as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        await stub(router, "m").Predict(pb.PredictOptions())
        await stub(router, "n").Predict(pb.PredictOptions())
        assert node.frees == []
        assert set(node.held) == {"n"}
        assert router.table.pick("m") is None


async def test_a_draining_node_gets_nothing_new(sqlite_url: str) -> None:
    a, b = Node("a"), Node("b")
    async with fleet(sqlite_url, a, b) as (router,):
        await router.load("m")
        (entry,) = router.table.replicas("m")
        await router.registry.set_draining(entry.node.name, draining=True)
        await stub(router).Predict(pb.PredictOptions())
        home, other = (a, b) if entry.node.name == "a" else (b, a)
        assert "m" in other.held
        assert "m" in home.held


async def test_probes_are_cached_and_coalesced(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        entry = router.table.nodes["a"]
        entry.fresh_until = 0.0
        answers = await asyncio.gather(*(router.probe_health("a") for _ in range(50)))
        assert all(answers)
        assert node.healths == 1
        assert await router.probe_health("a")
        assert node.healths == 1
        assert not await router.probe_health("nobody")


@pytest.mark.slow
async def test_callers_who_wait_do_not_poll(sqlite_url: str, monkeypatch: Any) -> None:
    """A thousand callers that poll every few milliseconds would starve the load they wait for."""
    node = Node()
    node.load_delay = 1.0
    async with fleet(sqlite_url, node) as (router,):
        looks: Counter[float | None] = Counter()
        changed = router.table.changed

        async def counting(model: str, timeout: float | None = None) -> None:
            looks[timeout] += 1
            await changed(model, timeout)

        monkeypatch.setattr(router.table, "changed", counting)
        calls = [stub(router).Predict(pb.PredictOptions(), timeout=60) for _ in range(200)]
        await asyncio.gather(*calls)
        assert looks.total() <= 5 * 200
