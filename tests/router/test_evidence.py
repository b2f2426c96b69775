"""Evidence and reaction: which errors drop a replica."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify
from grpcerrors.aio import ModelGuard
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import (
    BackendServicer,
    BackendStub,
    add_BackendServicer_to_server,
)
from grpcerrors_router.calls import causes
from grpcerrors_router.calls.causes import Belief, Causes, cause_of
from grpcerrors_router.entities import Node as NodeInfo
from grpcerrors_router.entities import Replica
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.view.entries import NodeEntry, ReplicaEntry
from tests.router.conftest import QUICK, Recorder, eventually, fleet
from tests.router.support.clock import HandClock
from tests.router.support.nodes import REQUEST_ID, Node

if TYPE_CHECKING:
    from grpcerrors_router import SmartRouter

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
WORDS = (grpc.StatusCode.INTERNAL, "fake: model not loaded")
BARE = (PRECONDITION, "no antispoof model")
MISMATCH = (
    grpc.StatusCode.NOT_FOUND,
    'fake: model identity mismatch: loaded "other", requested "m"',
)
FALSE_ALARMS = pytest.mark.parametrize("alarm", [WORDS, BARE, MISMATCH], ids=lambda a: a[1][:12])


async def predict(router: SmartRouter, request: str = "") -> Any:
    """Return the reply or the error."""
    call: Any = BackendStub(router.channel("m")).Predict(
        pb.PredictOptions(), metadata=((REQUEST_ID, request),)
    )
    return (await asyncio.gather(call, return_exceptions=True))[0]


@FALSE_ALARMS
async def test_a_guard_that_holds_the_model_outranks_words_and_code(
    sqlite_url: str, alarm: tuple[grpc.StatusCode, str]
) -> None:
    node, events = Node(), Recorder()
    async with fleet(sqlite_url, node, events=events) as (router,):
        await router.load("m")
        node.fail, node.vouches = alarm, True
        for _ in range(10):
            assert (await predict(router, "r")).details() == alarm[1]
        assert events.count("heal") == node.statuses == 0
        assert len(node.loads) == 1
        assert node.seen["r"] == 10, "nothing is sent again"
        assert router.table.pick("m") is not None


async def test_the_plain_trailer_alone_is_typed_evidence(sqlite_url: str) -> None:
    """A proxy on the way to the node strips the details."""
    node, events = Node(), Recorder()
    node.says = "trailer"
    async with fleet(sqlite_url, node, events=events) as (router,):
        await router.load("m")
        node.evict("m")
        assert isinstance(await predict(router, "r"), pb.Reply)
        assert node.seen["r"] == 2
        assert node.statuses == 0, "it needs no confirmation"
        assert [heal.evidence for heal in await router.registry.heals()] == ["trailer"]


@FALSE_ALARMS
@pytest.mark.parametrize("by", ["held", "details"])
async def test_a_backend_that_speaks_the_contract_means_nothing_by_words(
    sqlite_url: str, alarm: tuple[grpc.StatusCode, str], by: str
) -> None:
    node, events = Node(), Recorder()
    async with fleet(sqlite_url, node, events=events) as (router,):
        await router.load("m")
        if by == "held":
            node.fail, node.vouches = (grpc.StatusCode.INTERNAL, "out of memory"), True
        else:
            node.evict("m")
        await predict(router)
        heals = events.count("heal")
        node.fail, node.vouches = alarm, False
        node.status_unimplemented = True
        for _ in range(5):
            await predict(router)
        assert events.count("heal") == heals == (by == "details")
        assert node.statuses == 0
        assert events.count("false_positive") == 5


@pytest.mark.parametrize(
    ("state", "dropped"),
    [
        (pb.StatusResponse.READY, False),
        (pb.StatusResponse.BUSY, False),
        (pb.StatusResponse.UNINITIALIZED, True),
        (pb.StatusResponse.ERROR, True),
    ],
)
@FALSE_ALARMS
async def test_words_and_codes_are_confirmed_with_status(
    sqlite_url: str,
    alarm: tuple[grpc.StatusCode, str],
    state: pb.StatusResponse.State,
    dropped: bool,
) -> None:
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, events=events, on_stale="return") as (router,):
        await router.load("m")
        node.fail = alarm
        node.status_state = state
        error = await predict(router)
        assert error.details() == alarm[1]
        assert node.statuses == 1
        assert (router.table.pick("m") is None) is dropped
        assert events.count("heal") == dropped
        assert events.count("false_positive") == (not dropped)
        heals = await router.registry.heals()
        assert [heal.action for heal in heals] == ["dropped"] * dropped, "the log records heals"


async def test_a_bare_code_is_never_sent_again(sqlite_url: str) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")
        node.says = "code"
        node.evict("m")
        error = await predict(router, "r")
        assert error.code() is PRECONDITION
        assert node.seen["r"] == 1
        assert router.table.pick("m") is None


@FALSE_ALARMS
async def test_no_answer_is_no_evidence(
    sqlite_url: str, alarm: tuple[grpc.StatusCode, str]
) -> None:
    """Invariant 14: busy is not gone."""
    node, events = Node(), Recorder()
    quick = replace(QUICK, status_timeout=0.05)
    async with fleet(sqlite_url, node, events=events, settings=quick) as (router,):
        await router.load("m")
        node.fail, node.status_delay = alarm, 30
        for _ in range(2):
            await predict(router)
        assert events.count("unconfirmed") == 2, "it is asked again next time"
        assert events.count("heal") == 0
        assert router.table.pick("m") is not None


@FALSE_ALARMS
async def test_a_poisoned_request_asks_once(
    sqlite_url: str, alarm: tuple[grpc.StatusCode, str]
) -> None:
    node, events = Node(), Recorder()
    calm = replace(QUICK, status_fresh=1000.0)
    async with fleet(sqlite_url, node, settings=calm, events=events) as (router,):
        await router.load("m")
        node.fail = alarm
        await asyncio.gather(*(predict(router) for _ in range(100)))
        for _ in range(100):
            await predict(router)
        assert router.table.pick("m") is not None
        assert node.statuses == 1
        assert len(node.loads) == 1
        assert events.count("false_positive") >= 101
        assert await router.registry.heals() == []


@FALSE_ALARMS
async def test_a_false_alarm_of_a_node_without_status_costs_one_reload(
    sqlite_url: str, alarm: tuple[grpc.StatusCode, str]
) -> None:
    """One method always fails with the words "not loaded"; another succeeds in between."""
    node, events = Node("a"), Recorder()
    node.status_unimplemented = True
    async with fleet(sqlite_url, node, events=events) as (router,):
        await router.load("m")
        node.fails["Embedding"] = alarm
        stub = BackendStub(router.channel("m"))
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Embedding(pb.PredictOptions())
            assert isinstance(await predict(router), pb.Reply)
        assert len(node.loads) == 2
        assert events.count("heal") == 1
        actions = [heal.action for heal in await router.registry.heals()]
        assert actions == ["kept", "dropped"], "newest first, and each once"


@pytest.mark.parametrize("says", ["text", "code"])
async def test_an_unmigrated_backend_without_status_still_heals(sqlite_url: str, says: str) -> None:
    node = Node()
    node.says, node.status_unimplemented = says, True
    calm = replace(QUICK, cause_pause=0.0)
    async with fleet(sqlite_url, node, settings=calm) as (router,):
        for loads in range(1, 6):
            assert isinstance(await predict(router), pb.Reply)
            assert len(node.loads) == loads, "each eviction cost one load"
            node.evict("m")
            if says == "code":
                assert (await predict(router)).code() is PRECONDITION


async def test_a_foreign_node_of_another_model_is_believed_once(sqlite_url: str) -> None:
    """Its Status reports READY, but not for which model."""
    node = Node("f")
    node.status_state = pb.StatusResponse.READY
    async with node, fleet(sqlite_url, on_stale="return") as (router,):
        await router.registry.add_node(node.address, "fake", name="f")
        assert isinstance(await predict(router), pb.Reply)
        node.fail = MISMATCH
        await predict(router)
        node.fail = None
        assert isinstance(await predict(router), pb.Reply)
        assert len(node.loads) == 2


class Speaker(BackendServicer):
    """A backend that quotes its callers, as real backends do."""

    async def LoadModel(self, request: Any, context: Any) -> Any:
        return pb.Result(success=True)

    async def TTS(self, request: Any, context: Any) -> Any:
        text = f"voice {request.voice} not found: {request.voice}"
        await context.abort(grpc.StatusCode.NOT_FOUND, text)


@pytest.mark.parametrize("guarded", [True, False])
async def test_what_a_caller_writes_takes_no_model_down(sqlite_url: str, guarded: bool) -> None:
    """Through the gateway, to a backend with a guard, and to one with neither guard nor Status."""
    node = grpc.aio.server(interceptors=[ModelGuard("speaker")] if guarded else [])
    add_BackendServicer_to_server(Speaker(), node)
    address = f"127.0.0.1:{node.add_insecure_port('127.0.0.1:0')}"
    await node.start()
    events = Recorder()
    async with fleet(sqlite_url, events=events) as (router,):
        await router.registry.add_node(address, "fake", name="f")
        gateway = GatewayServer(router, "127.0.0.1:0")
        async with grpc.aio.insecure_channel(await gateway.start()) as channel:
            for voice in ("model not loaded", "model identity mismatch", "no model loaded") * 3:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await BackendStub(channel).TTS(
                        pb.TTSRequest(voice=voice), metadata=(("x-model-id", "m"),)
                    )
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await gateway.stop(0)
        assert events.count("heal") == 0
        assert events.count("load_started") == 1
    await node.stop(0)


async def test_three_causes_that_were_each_healed_are_no_quarantine(sqlite_url: str) -> None:
    """An error of the handler proves that the model is there, as a success does."""
    node = Node()
    async with fleet(sqlite_url, node, on_stale="return") as (router,):
        for loads, says in enumerate(("details", "mismatch", "text", "code", "details"), 1):
            node.fail = (grpc.StatusCode.INVALID_ARGUMENT, "width must be at least 256")
            assert (await predict(router)).code() is grpc.StatusCode.INVALID_ARGUMENT
            assert len(node.loads) == loads
            node.fail, node.says = None, says
            node.evict("m")
            router._dispatcher.reconciler.causes._replicas.clear()
            await predict(router)
            assert router.table.pick("m") is None


async def test_a_drop_that_a_heartbeat_has_made_first_is_counted_once(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, events = Node("a"), Recorder()
    async with fleet(sqlite_url, node, events=events, on_stale="return") as (router,):
        await router.load("m")
        node.evict("m")
        go_on, remove = asyncio.Event(), router.registry.remove_node_model

        async def slow(*args: Any, **named: Any) -> bool:
            await go_on.wait()
            return await remove(*args, **named)

        monkeypatch.setattr(router.registry, "remove_node_model", slow)
        request = asyncio.ensure_future(predict(router))
        await eventually(lambda: router.table.pick("m") is None)
        await router.heartbeat(node.heartbeat())
        go_on.set()
        await request
        assert events.count("heal") == len(await router.registry.heals()) == 1


async def test_reconcile_never_raises(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    async with fleet(sqlite_url, node) as (router,):
        await router.load("m")

        def broken(*_: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(router.table, "drop", broken)
        node.evict("m")
        assert classify(await predict(router)).condition is not None


# Causes


def replica(generation: int, *, boot: str = "b", model: str = "m") -> ReplicaEntry:
    node = NodeEntry(NodeInfo("a", "127.0.0.1:1", "fake", boot_id=boot), 1, 0.0)
    return ReplicaEntry(node, Replica("a", model, generation, generation, boot), 0.0)


CAUSE = cause_of("/s/Embedding", PRECONDITION, "no")


def test_a_cause_that_comes_right_back_is_doubted_for_a_growing_pause() -> None:
    clock = HandClock()
    known = Causes(replace(QUICK, cause_pause=10.0, cause_pause_max=60.0), clock)
    assert known.believe(replica(1), CAUSE) is Belief.BELIEVED
    for pause, generation in ((10, 2), (20, 3), (40, 4), (60, 5), (60, 6)):
        assert known.believe(replica(generation), CAUSE) is Belief.DOUBTED
        clock.advance(pause - 0.5)
        assert known.is_doubted(replica(generation), CAUSE)
        assert known.believe(replica(generation), CAUSE) is Belief.IGNORED
        clock.advance(1)
        assert not known.is_doubted(replica(generation), CAUSE)
        assert known.believe(replica(generation), CAUSE) is Belief.BELIEVED, "tried again"


def test_a_success_cures_when_the_cause_stays_away_for_a_while() -> None:
    clock = HandClock()
    known = Causes(replace(QUICK, cause_pause=10.0), clock)
    assert known.believe(replica(1), CAUSE) is Belief.BELIEVED
    known.served(replica(2), "/s/Predict")
    known.served(replica(2), "/s/Embedding")
    clock.advance(11)
    assert known.believe(replica(2), CAUSE) is Belief.BELIEVED
    known.served(replica(3), "/s/Predict")
    clock.advance(11)
    assert known.believe(replica(3), CAUSE) is Belief.DOUBTED, "another method cures nothing"


def test_wordings_that_differ_in_what_they_quote_are_one_cause() -> None:
    one, other = (cause_of("/s/M", PRECONDITION, f'No "{x}" at {len(x)}') for x in ("a", "bcd"))
    assert one == other
    assert len(cause_of("/s/M", PRECONDITION, "x" * 10_000)[2]) <= 200


def test_a_caller_who_chooses_the_words_runs_out_of_causes() -> None:
    clock = HandClock()
    known = Causes(QUICK, clock)
    made_up = [cause_of("/s/M", PRECONDITION, f"not loaded {'x' * n}") for n in range(100)]
    beliefs = [known.believe(replica(n + 1), cause) for n, cause in enumerate(made_up)]
    assert beliefs.count(Belief.BELIEVED) == causes.CAUSES_LIMIT
    clock.advance(3 * QUICK.cause_pause_max)
    assert known.believe(replica(200), made_up[-1]) is Belief.BELIEVED, "causes are forgotten"


def test_the_memory_is_bounded_and_a_restart_clears_it() -> None:
    known = Causes(QUICK, HandClock())
    known.note_typed(replica(1))
    assert known.is_typed(replica(2))
    assert not known.is_typed(replica(2, boot="other"))
    known.note_restart(replica(1))
    assert not known.is_typed(replica(1))
    for number in range(2 * causes.REPLICAS_LIMIT):
        known.note_typed(replica(1, model=f"m{number}"))
    assert len(known) == causes.REPLICAS_LIMIT
