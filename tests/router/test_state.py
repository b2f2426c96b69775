"""The state of the fleet, as people see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import ModelSpec
from grpcerrors_router.errors import NameTaken, RegistryUnavailable, RouteError, UnknownModel
from tests.router.conftest import QUICK, eventually, fleet
from tests.router.support.nodes import REQUEST_ID, Node
from tests.router.support.rawnode import stack

if TYPE_CHECKING:
    from pathlib import Path

    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_router import SmartRouter


async def predict(router: SmartRouter, model: str = "m", **options: Any) -> None:
    await BackendStub(router.channel(model)).Predict(pb.PredictOptions(), **options)


async def model(router: SmartRouter, name: str = "m") -> fleet_pb2.ModelState:
    (found,) = [each for each in (await router.state.models()).models if each.model == name]
    return found


async def test_it_says_what_is_where_and_what_proves_it(sqlite_url: str) -> None:
    node = Node("a", slots=2)
    async with fleet(sqlite_url, node) as (router,):
        await predict(router)
        await router.watcher.catch_up()
        state = await router.state.fleet()
        (shown,) = state.nodes
        assert (shown.name, shown.address, shown.backend) == ("a", node.address, "fake")
        assert (shown.state, shown.slots, shown.foreign, shown.why) == ("up", 2, False, "")
        assert state.now - 60 < shown.last_heard <= state.now
        (replica,) = shown.replicas
        (entry,) = router.table.replicas("m")
        assert (replica.model, replica.state) == ("m", "ready")
        assert (replica.generation, replica.calls) == (entry.generation, 0)
        assert replica.proof == "answer"
        assert replica.loaded_at <= min(replica.proved_at, replica.last_used)
        assert max(replica.proved_at, replica.last_used) <= state.now
        await router.heartbeat(node.heartbeat())
        (replica,) = (await router.state.fleet()).nodes[0].replicas
        assert replica.proof == "heartbeat"
        assert [(each.model, each.wanted, each.present, each.why) for each in state.models] == [
            ("m", 1, 1, ""),
            ("n", 1, 0, "the next request loads it"),
        ]
        assert [each.name for each in state.routers] == [state.router] == [router.name]
        assert (state.registry.kind, state.registry.up) == ("sqlite", True)
        assert state.registry.revision == router.watcher.seen
        assert state.registry.since <= state.registry.read_at <= state.now
        assert not [*state.loads, *state.pauses, *state.refusals, *state.heals]


async def test_calls_in_flight_are_counted(sqlite_url: str) -> None:
    node = Node("a")
    node.gate = asyncio.Event()
    async with fleet(sqlite_url, node) as (router,):
        call = asyncio.ensure_future(predict(router))
        await eventually(lambda: node.running["m"] or router.table.in_flight())
        state = await router.state.fleet()
        assert (state.in_flight, state.nodes[0].calls, state.nodes[0].replicas[0].calls) == (
            1,
            1,
            1,
        )
        assert next(each.calls for each in state.models if each.model == "m") == 1
        node.gate.set()
        await call


async def test_a_heal_shows_how_long_it_took_and_where_it_ended(sqlite_url: str) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        await predict(router)
        (stale,) = router.table.replicas("m")
        node.evict("m")
        await predict(router, metadata=((REQUEST_ID, "r-7"),))
        (new,) = router.table.replicas("m")
        (heal,) = (await router.state.fleet()).heals
        assert (heal.node, heal.model, heal.generation) == ("a", "m", stale.generation)
        assert (heal.evidence, heal.action, heal.router) == ("details", "dropped", router.name)
        assert (heal.request_id, heal.new_node) == ("r-7", "a")
        assert heal.new_generation == new.generation
        assert heal.seconds > 0
        assert list((await router.state.heals(5)).heals) == [heal]
        assert not (await router.state.heals(5, node="b")).heals
        assert not (await router.state.heals(5, model="n")).heals


async def test_a_load_shows_who_waits(sqlite_url: str) -> None:
    node = Node("a")
    node.load_gate = asyncio.Event()
    async with fleet(sqlite_url, node) as (router,):
        calls = [asyncio.ensure_future(predict(router)) for _ in range(3)]
        await eventually(lambda: node.loading)
        state = await router.state.fleet()
        (load,) = state.loads
        assert (load.model, load.node, load.owner) == ("m", "a", router.name)
        assert (load.waiting, load.hedge, load.usual_seconds) == (3, False, 0)
        assert 0 < load.waiting_since <= load.since <= state.now
        shown = await model(router)
        assert (shown.loading, shown.waiting, shown.why) == (1, 3, "a is loading it")
        node.load_gate.set()
        await asyncio.gather(*calls)
        assert not (await router.state.fleet()).loads


async def test_a_request_that_waits_for_a_slot_shows_why(sqlite_url: str) -> None:
    node = Node("a")
    node.gate = asyncio.Event()
    async with fleet(sqlite_url, node) as (router,):
        calls = [asyncio.ensure_future(predict(router))]
        await eventually(router.table.in_flight)
        calls.append(asyncio.ensure_future(predict(router, "n")))
        async with asyncio.timeout(60):
            while not (loads := (await router.state.fleet()).loads):
                await asyncio.sleep(0.01)
        assert [(each.model, each.node, each.why) for each in loads] == [
            ("n", "", "it waits for a slot")
        ]
        assert (await model(router, "n")).why == "it waits for a slot"
        node.gate.set()
        await asyncio.gather(*calls)
        last = (await router.state.history("m", 5)).entries[0]
        assert (last.kind, last.why) == ("evicted", "to make room for n")
        assert (await model(router)).why == (
            "it was unloaded from a to make room for n; "
            "the next request loads it in place of another model: every slot is in use"
        )


async def test_the_history_says_why_a_model_moved(sqlite_url: str) -> None:
    first, second = Node("a"), Node("b")
    async with fleet(sqlite_url, first, second) as (router,):
        await predict(router)
        (entry,) = router.table.replicas("m")
        (home, other) = (first, second) if entry.node.name == "a" else (second, first)
        await home.stop()
        router.table.set_state(router.table.nodes[home.name], reachable=False, busy=True)
        await predict(router)
        entries = (await router.state.history("m", 10)).entries
        assert [(each.kind, each.node) for each in entries] == [
            ("moved", other.name),
            ("loaded", home.name),
        ]
        assert entries[0].why == (
            f"it was on {home.name} before: {home.name}, which holds it, is unreachable"
        )
        assert entries[1].why == "it was asked for, and no node held it"
        assert [each.kind for each in (await router.state.history("m", 1)).entries] == ["moved"]
        state = await router.state.fleet()
        shown = {node.name: node for node in state.nodes}[home.name]
        assert shown.state == "unreachable"
        assert shown.why.startswith(f"it accepts no connection at {home.address}")
        assert [replica.state for replica in shown.replicas] == ["unreachable"]


async def test_the_history_of_an_unknown_model_is_an_error(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node("a")) as (router,):
        with pytest.raises(UnknownModel, match="did you mean"):
            await router.state.history("mm", 5)


async def test_a_failed_load_is_a_pause_with_its_reason(sqlite_url: str) -> None:
    node = Node("a")
    node.load_error = "no file \x1b[2J"
    slow = replace(QUICK, load_backoff=60.0)
    async with fleet(sqlite_url, node, settings=slow) as (router,):
        with pytest.raises(RouteError):
            await predict(router)
        state = await router.state.fleet()
        pauses = {each.kind: each for each in state.pauses}
        assert pauses["back-off"].node == "a"
        assert "no file" in pauses["back-off"].why
        assert state.now < pauses["back-off"].until < state.now + 61
        assert (await model(router)).why.startswith("a: it failed to load the model: no file")
        (failed,) = (await router.state.history("m", 5)).entries
        assert (failed.kind, failed.why) == ("failed", "no file  [2J")


async def test_a_missing_replica_says_why(sqlite_url: str) -> None:
    models = {
        "lost": ModelSpec("lost", "elsewhere"),
        "twice": ModelSpec("twice", "fake", replicas=2),
    }
    async with fleet(sqlite_url, Node("a"), models=models) as (router,):
        await predict(router, "twice")
        assert 'no node offers backend "elsewhere"' in (await model(router, "lost")).why
        shown = await model(router, "twice")
        assert (shown.wanted, shown.present) == (2, 1)
        assert shown.why == "1 of the 2 nodes that it needs are there"
        await router.registry.set_draining("a", True)
        await router.watcher.catch_up()
        assert (await model(router, "twice")).why == (
            'the only node of backend "fake" is silent or draining'
        )
        (node,) = (await router.state.fleet()).nodes
        assert (node.state, node.draining, node.replicas[0].state) == (
            "draining",
            True,
            "draining",
        )


async def test_without_the_registry_it_says_what_the_router_knows(
    sqlite_url: str, monkeypatch: Any
) -> None:
    node = Node("a")
    async with fleet(sqlite_url, node) as (router,):
        await predict(router)
        node.evict("m")
        await predict(router)

        async def fail(*_: Any, **__: Any) -> Any:
            raise RegistryUnavailable("gone")

        for name in ("vitals", "heals"):
            monkeypatch.setattr(router.registry, name, fail)
        router.outbox.note_down(RegistryUnavailable("the disk is full"), "write")
        state = await router.state.fleet()
        assert (state.registry.up, state.registry.error) == (
            False,
            "the registry cannot be reached: the disk is full",
        )
        assert [heal.evidence for heal in state.heals] == ["details"]
        assert [replica.model for replica in state.nodes[0].replicas] == ["m"]
        kinds = [each.kind for each in (await router.state.history("m", 9)).entries]
        assert kinds == ["loaded", "healed", "loaded"]


async def test_refusals_are_counted_by_reason(tmp_path: Path) -> None:
    async with stack(tmp_path) as served:
        stub = BackendStub(served.through)
        for name in ("nobody", "nobody", "orphan"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Predict(pb.PredictOptions(ModelIdentity=name))
        refusals = (await served.router.state.fleet()).refusals
        assert [(each.reason, each.model, each.count) for each in refusals] == [
            ("NO_CAPACITY", "orphan", 1),
            ("UNKNOWN_MODEL", "", 2),
        ]
        assert "nobody-has-this" in refusals[0].text
        assert 'unknown model "nobody"' in refusals[1].text


async def test_the_node_that_refuses_calls_is_named_and_so_is_a_name_that_is_taken(
    sqlite_url: str,
) -> None:
    node = Node("a")
    node.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "2 calls run already")
    async with fleet(sqlite_url, node) as (router,):
        with pytest.raises(grpc.aio.AioRpcError):
            await predict(router)
        router.events.refused("", NameTaken("node", "b", "h:1", "h:2"))
        state = await router.state.fleet()
        assert [(each.reason, each.model, each.node, each.text) for each in state.refusals] == [
            ("NAME_TAKEN", "", "b", state.refusals[0].text),
            ("RESOURCE_EXHAUSTED", "m", "a", "2 calls run already"),
        ]
        assert {(each.kind, each.node) for each in state.problems} == {
            ("name-taken", "b"),
            ("overload", "a"),
        }


async def test_a_picture_has_the_replicas_when_they_are_asked_for(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node("a")) as (router,):
        await predict(router)
        picture = await router.state.picture()
        (node,) = picture.fleet.nodes
        assert not node.replicas
        assert [each.model for each in picture.replicas(node)] == ["m"]
        assert (picture.held("a"), picture.holders("m")) == (1, {"a"})
        await router.registry.set_draining("a", draining=True)
        await router.watcher.catch_up()
        (node,) = (await router.state.picture()).fleet.nodes
        assert [each.state for each in node.replicas] == ["draining"]
        del router.table.nodes["a"]
        assert (picture.held("a"), picture.replicas(node)) == (0, [])


async def test_a_foreign_node_is_asked_before_it_is_shown(sqlite_url: str) -> None:
    node = Node("a")
    async with node, fleet(sqlite_url) as (router,):
        await router.registry.add_node(node.address, "fake", name="there")
        await router.registry.add_node("127.0.0.1:9", "fake", name="gone")
        states = {each.name: each for each in (await router.state.fleet()).nodes}
        assert (states["there"].state, states["there"].foreign) == ("up", True)
        assert states["gone"].state == "unreachable"
        assert "127.0.0.1:9" in states["gone"].why


async def test_replicas_of_another_router_are_in_the_history(sqlite_url: str) -> None:
    async with fleet(sqlite_url, Node("a"), routers=2) as (one, two):
        await predict(one)
        await two.watcher.catch_up()
        (entry,) = (await two.state.history("m", 5)).entries
        assert (entry.kind, entry.node) == ("loaded", "a")
        assert entry.why.startswith("by another router")
        assert len((await two.state.fleet()).routers) == 2
