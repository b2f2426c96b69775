"""What operators change in a running fleet, through the Operator service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
from grpcerrors_router import ModelSpec, SmartRouter
from grpcerrors_router.config.reload import Reloader
from grpcerrors_router.errors import RouteError, UnknownModel
from tests.router.conftest import QUICK, eventually, fleet
from tests.router.support.nodes import Node
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def predict(router: SmartRouter, model: str = "m") -> None:
    await BackendStub(router.channel(model)).Predict(pb.PredictOptions())


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    with structlog.testing.capture_logs():
        async with stack(tmp_path) as made:
            yield made


async def test_the_service_answers_what_the_router_knows(served: Stack) -> None:
    operator = OperatorStub(served.through)
    await BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m"))
    state = await operator.GetFleet(fleet_pb2.GetFleetRequest())
    assert [node.name for node in state.nodes] == ["raw-1"]
    listed = (await operator.ListModels(fleet_pb2.ListModelsRequest())).models
    assert [(each.model, each.present) for each in listed if each.present] == [("m", 1)]
    past = await operator.GetHistory(fleet_pb2.GetHistoryRequest(model="m"))
    assert [each.kind for each in past.entries] == ["loaded"]
    assert past.state.present == 1
    await served.router.registry.log_heal("raw-1", "m", 7, "code", "kept")
    heals = (await operator.ListHeals(fleet_pb2.ListHealsRequest(limit=1))).heals
    assert [(each.generation, each.action) for each in heals] == [(7, "kept")]


async def test_nodes_are_added_drained_and_removed(served: Stack) -> None:
    operator, nodes = OperatorStub(served.through), served.router.table.nodes
    added = await operator.AddNode(
        fleet_pb2.AddNodeRequest(address="127.0.0.1:9", backend="raw", slots=2, name="b")
    )
    assert (added.name, added.answers) == ("b", False)
    assert added.why
    info = nodes["b"].info
    assert (info.slots, info.foreign, info.tls, info.token) == (2, True, False, "")
    again = await operator.AddNode(
        fleet_pb2.AddNodeRequest(address=served.node.address, backend="raw")
    )
    assert (again.name, again.answers, again.why) == (served.node.address, True, "")
    assert (await operator.Drain(fleet_pb2.DrainRequest(node="b"))).calls == 0
    assert nodes["b"].info.draining
    await operator.Drain(fleet_pb2.DrainRequest(node="b", off=True))
    assert not nodes["b"].info.draining
    await operator.RemoveNode(fleet_pb2.RemoveNodeRequest(node="b"))
    assert "b" not in nodes


async def test_a_router_is_no_node(served: Stack) -> None:
    operator = OperatorStub(served.through)
    with pytest.raises(grpc.aio.AioRpcError, match="is a router") as caught:
        await operator.AddNode(
            fleet_pb2.AddNodeRequest(address=served.address, backend="raw", name="me")
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "me" not in served.router.table.nodes


@pytest.mark.parametrize(
    ("rpc", "request_", "code", "words"),
    [
        ("Drain", fleet_pb2.DrainRequest(node="raw-2"), "NOT_FOUND", 'did you mean "raw-1"?'),
        ("RemoveNode", fleet_pb2.RemoveNodeRequest(), "NOT_FOUND", 'no node ""'),
        ("Forgive", fleet_pb2.ForgiveRequest(node="x"), "NOT_FOUND", 'no node "x"'),
        ("Forgive", fleet_pb2.ForgiveRequest(model="mm"), "NOT_FOUND", 'unknown model "mm"'),
        ("GetHistory", fleet_pb2.GetHistoryRequest(model="x"), "NOT_FOUND", 'unknown model "x"'),
        ("AddNode", fleet_pb2.AddNodeRequest(address="here"), "INVALID_ARGUMENT", "HOST:PORT"),
        ("Reload", fleet_pb2.ReloadRequest(), "FAILED_PRECONDITION", "replace_models"),
    ],
)
async def test_a_mistake_is_a_typed_error(
    served: Stack, rpc: str, request_: Any, code: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(OperatorStub(served.through), rpc)(request_)
    assert caught.value.code().name == code
    assert words in str(caught.value.details())


async def test_forgiving_ends_quarantines_and_back_offs(sqlite_url: str) -> None:
    node = Node("a")
    calm = replace(QUICK, load_backoff=3600.0, storm_drops=1, storm_base=3600.0)
    async with fleet(sqlite_url, node, settings=calm) as (router,):
        node.load_error = "no file"
        with pytest.raises(RouteError, match="no file"):
            await predict(router)
        node.load_error = ""
        with pytest.raises(RouteError, match="no file"):
            await predict(router)
        ended = await router.operations.forgive("m")
        assert {each.kind for each in ended} == {"back-off", "retry"}
        await predict(router)
        node.evict("m")
        with pytest.raises((RouteError, grpc.aio.AioRpcError)):
            await predict(router)
        (quarantine,) = [p for p in router.state.pauses() if p.kind == "quarantine"]
        assert (quarantine.node, quarantine.model) == ("a", "m")
        assert not await router.operations.forgive("n")
        assert "quarantine" in {each.kind for each in await router.operations.forgive(node="a")}
        await predict(router)
        assert not router.state.pauses()


async def test_forgiving_makes_a_doubted_error_evidence_again(sqlite_url: str) -> None:
    node = Node("a")
    node.status_unimplemented = True
    async with fleet(sqlite_url, node) as (router,):
        node.fail = (grpc.StatusCode.FAILED_PRECONDITION, "")
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await predict(router)
        (doubt,) = [p for p in router.state.pauses() if p.kind == "doubt"]
        assert "FAILED_PRECONDITION" in doubt.why
        assert [*router.table.replicas("m")]
        assert await router.operations.forgive("m", "a")
        assert not router.state.pauses()
        with pytest.raises(grpc.aio.AioRpcError):
            await predict(router)
        assert not [*router.table.replicas("m")], "it was believed"


async def test_new_models_take_effect_under_traffic(tmp_path: Path, sqlite_url: str) -> None:
    """Changed options are replaced, a removed model is refused and unloaded, others are served."""
    node, path = Node("a", slots=4), tmp_path / "models.toml"
    listed = '[models]\nm.backend = "fake"\n{more}\n'
    quick = replace(QUICK, replace_interval=0.02)
    models = {name: ModelSpec(name, "fake") for name in ("m", "n", "old")}
    async with fleet(sqlite_url, node, models=models, settings=quick) as (router,):
        for name in models:
            await predict(router, name)
        stop = asyncio.Event()

        async def traffic(name: str) -> int:
            count = 0
            while not stop.is_set():
                await predict(router, name)
                count += 1
            return count

        busy = [asyncio.ensure_future(traffic(name)) for name in ("m", "n")]
        reloader = Reloader(router, path)
        path.write_text(listed.format(more='n = {backend = "fake", options.Threads = 2}'))
        done = await reloader.reload()
        assert (done.mistakes, done.models.added) == ((), ())
        assert (done.models.changed, done.models.removed) == (("n",), ("old",))
        with pytest.raises(UnknownModel):
            await predict(router, "old")
        await eventually(lambda: "old" not in node.held)
        await eventually(lambda: not router.models.retired)
        digest = router.models["n"].digest
        await eventually(
            lambda: any(each.row.options == digest for each in router.table.replicas("n"))
        )
        stop.set()
        assert min(await asyncio.gather(*busy)) > 0
        entries = (await router.state.history("old", 5)).entries
        assert entries[0].why == "since models.toml no longer lists it"
        path.write_text(listed.format(more='old.backend = "fake"'))
        assert (await reloader.reload()).models.added == ("old",)
        await predict(router, "old")


async def test_a_broken_file_changes_nothing(tmp_path: Path, sqlite_url: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text("[models.x]\nbakend = 1\n[models.y]\nbackend = 2\n")
    async with fleet(sqlite_url, Node("a")) as (router,):
        done = await Reloader(router, path).reload()
        assert len(done.mistakes) == 2
        assert all(mistake.startswith(f"{path}: models.") for mistake in done.mistakes)
        assert set(router.models) == {"m", "n"}
        await predict(router)


async def test_models_and_tokens_are_reloaded_together_or_not_at_all(
    tmp_path: Path, sqlite_url: str
) -> None:
    path, applied = tmp_path / "models.toml", []
    async with fleet(sqlite_url, Node("a")) as (router,):
        reloader = Reloader(router, path, lambda: lambda: applied.append(1))
        path.write_text("[models]\n")
        assert (await reloader.reload()).mistakes
        assert not applied
        path.write_text('[models]\nz.backend = "fake"\n')
        done = await reloader.reload()
        assert (done.tokens, done.models.added, applied) == (True, ("z",), [1])
