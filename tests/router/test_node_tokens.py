"""The tokens that the router sends to nodes, and what it does when a node refuses them."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2, token_file
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
from grpcerrors_protocol.token_file import TokenFile
from grpcerrors_router import ModelSpec, NodeRegistry, SmartRouter
from grpcerrors_router.entities import Node
from grpcerrors_router.gateway.server import GatewayServer
from grpcerrors_router.nodes.client import NodeClient
from grpcerrors_router.security import node_tokens as module
from grpcerrors_router.security.node_tokens import NodeTokens, node_tokens
from grpcerrors_router.validation import Invalid
from tests.router.conftest import HANG, QUICK, eventually
from tests.router.support.localai_node import LocalAINode
from tests.router.support.rawnode import LOCAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MODELS = {"m": ModelSpec("m", "localai"), "n": ModelSpec("n", "localai")}


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(module, "CHECK_INTERVAL", 0.0)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["sync", "aio"])
def aio(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Fleet:
    """A router with the token of the fleet in `token` and others in `secrets`."""

    def __init__(self, folder: Path) -> None:
        self.token = folder / "fleet.token"
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        write(self.token, "fleet-secret")

    @asynccontextmanager
    async def running(self, *nodes: LocalAINode, **names: str) -> AsyncIterator[SmartRouter]:
        tokens = node_tokens(self.token, self.secrets)
        url = f"sqlite:///{self.token.with_name('router.db')}"
        client = NodeClient.over_grpc(tokens=tokens)
        router = SmartRouter(NodeRegistry(url, timeout=HANG), MODELS, settings=QUICK, nodes=client)
        async with router:
            for number, node in enumerate(nodes):
                name = f"n{number}"
                await router.registry.add_node(
                    node.address, "localai", name=name, token=names.get(name, "")
                )
            yield router


def write(path: Path, text: str) -> None:
    path.write_text(f"{text}\n")
    path.chmod(0o600)


@pytest.fixture
def folder(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


async def predict(router: SmartRouter, **options: Any) -> bytes:
    reply = await BackendStub(router.channel("m")).Predict(
        pb.PredictOptions(), timeout=HANG, **options
    )
    return bytes(reply.message)


async def refused(router: SmartRouter, **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await predict(router, **options)
    return caught.value


async def test_every_call_of_the_router_has_the_token(folder: Fleet, aio: bool) -> None:
    async with LocalAINode("fleet-secret", aio=aio) as node, folder.running(node) as router:
        router.table.nodes["n0"].fresh_until = 0.0
        assert await router.probe_health("n0")
        callers = [("authorization", "Bearer of-the-caller"), ("x-other", "1")]
        assert await predict(router, metadata=callers) == b"hi"
        assert await router.unload("m") == ["n0"]
        assert node.loads == ["m"]
        assert node.frees == 1
        assert node.sent
        assert all(sent == ["Bearer fleet-secret"] for sent in node.sent)


async def test_a_node_that_refuses_the_token_is_shown_and_used_once_it_does_not(
    folder: Fleet, aio: bool
) -> None:
    write(folder.token, "old-secret")
    async with LocalAINode("fleet-secret", aio=aio) as node, folder.running(node) as router:
        with structlog.testing.capture_logs() as logs:
            error = await refused(router)
        assert "refuse" in (error.details() or "")
        assert node.loads == []
        line = next(line for line in logs if line["event"] == "a node refuses the router")
        assert line["node"] == "n0"
        assert "correct the one in serve --node-token-file" in line["why"]
        state = await router.state.fleet()
        (shown,) = state.nodes
        assert (shown.state, shown.why) == ("refusing", line["why"])
        problem = next(each for each in state.problems if each.kind == "node-refuses")
        assert problem.what.startswith("Node n0 (127.0.0.1:")
        assert "secret" not in f"{logs}{state}{error!r}"
        write(folder.token, "fleet-secret")
        await eventually(lambda: router.table.nodes["n0"].open)
        await router.operations.forgive()
        assert await predict(router) == b"hi"
        assert (await router.state.fleet()).nodes[0].state == "up"


async def test_a_node_that_begins_to_refuse_loses_no_replica(folder: Fleet, aio: bool) -> None:
    async with LocalAINode("fleet-secret", aio=aio) as node, folder.running(node) as router:
        await predict(router)
        generation = router.table.nodes["n0"].replicas["m"].generation
        node.token = "another"
        error = await refused(router)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error.details() == "invalid token", "it is passed on as it is"
        entry = router.table.nodes["n0"]
        await eventually(lambda: not entry.open)
        # Nothing else can hold the model, and nothing is evicted, healed or loaded.
        error = await refused(router)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the router's token (n0)" in (error.details() or "")
        state = await router.state.fleet()
        assert [each.state for each in state.nodes[0].replicas] == ["refusing"]
        assert "the router's token (n0)" in state.models[0].why
        assert entry.replicas["m"].generation == generation
        assert await router.registry.heals() == []
        assert (node.loads, node.frees) == (["m"], 0)
        node.token = "fleet-secret"
        await eventually(lambda: entry.open)
        assert await predict(router) == b"hi"
        assert node.loads == ["m"]


async def test_another_node_serves_meanwhile(folder: Fleet, aio: bool) -> None:
    async with (
        LocalAINode("fleet-secret", aio=aio) as one,
        LocalAINode("fleet-secret", aio=aio) as other,
        folder.running(one, other) as router,
    ):
        await predict(router)
        first, second = (one, other) if one.loads else (other, one)
        first.token = "another"
        await refused(router)
        name = "n0" if first is one else "n1"
        await eventually(lambda: not router.table.nodes[name].open)
        assert await predict(router) == b"hi"
        assert second.loads == ["m"]
        assert await router.registry.heals() == []


async def test_words_of_a_node_that_refuses_the_question_prove_nothing(
    folder: Fleet, aio: bool
) -> None:
    async with LocalAINode("fleet-secret", aio=aio) as node, folder.running(node) as router:
        await predict(router)
        node.loaded = False  # it says so in words, which Status could confirm
        accepts, asked = node.accepts, []

        def only_predict(call: Any) -> bool:
            asked.append(call.method.rpartition("/")[2])
            return accepts(call) and asked[-1] == "Predict"

        node.accepts = only_predict  # type: ignore[method-assign]
        error = await refused(router)
        assert error.details() == "no model loaded"
        assert asked[:2] == ["Predict", "Status"]
        assert list(router.table.nodes["n0"].replicas) == ["m"]
        assert await router.registry.heals() == []


async def test_a_node_with_a_token_of_its_own_gets_no_other(folder: Fleet) -> None:
    write(folder.secrets / "n0.token", "own-secret")
    async with (
        LocalAINode("own-secret", aio=True) as own,
        LocalAINode("fleet-secret", aio=True) as other,
        folder.running(own, other, n0="n0.token") as router,
    ):
        for name in ("n0", "n1"):
            router.table.nodes[name].fresh_until = 0.0
            assert await router.probe_health(name)
        assert {value for sent in own.sent for value in sent} == {"Bearer own-secret"}
        assert {value for sent in other.sent for value in sent} == {"Bearer fleet-secret"}
        # Without its file, it gets none: that of the fleet is not for it.
        (folder.secrets / "n0.token").unlink()
        tokens = node_tokens(folder.token, folder.secrets)
        assert tokens is not None
        node = Node("n0", own.address, "localai", token="n0.token")
        with structlog.testing.capture_logs() as logs:
            assert tokens.header(node) is None
            assert tokens.header(node) is None
        assert [line["event"] for line in logs] == ["no token for a node"]
        assert tokens.refusal(node).startswith("it asks for a token, and the router has none")
        write(folder.secrets / "n0.token", "own-secret")
        assert tokens.header(node) == ("authorization", "Bearer own-secret")
        assert "file that it was added with" in tokens.refusal(node)


def test_files_are_confined_to_the_folder(folder: Fleet, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(outside, "secret-outside")
    secrets = folder.secrets
    (secrets / "out").symlink_to(outside)
    (secrets / "loop").symlink_to(secrets / "loop")
    (secrets / "dir").mkdir()
    os.mkfifo(secrets / "fifo")
    write(secrets / "empty", "")
    write(secrets / "big", "x" * 100_000)
    write(secrets / "words", "secret words")
    write(secrets / "..data", "secret")
    write(secrets / "good", "secret")
    (secrets / "alias").symlink_to("good")
    tokens = NodeTokens(None, secrets)
    for name in ("good", "alias"):
        assert tokens.check(name).tokens == ("secret",)
    bad = [
        "", ".", "..", "../outside", str(outside), "dir/../../outside", "out", "loop", "dir",
        "fifo",
        "empty", "big", "words", "none", ".hidden", "..data", "a\\b", "a\0b", "good ", "x" * 5000,
    ]  # fmt: skip
    for name in bad:
        with pytest.raises(Invalid) as caught:
            tokens.check(name)
        assert "secret-outside" not in str(caught.value)
        assert "secret words" not in str(caught.value)
        assert len(str(caught.value)) < 500
    with pytest.raises(Invalid, match="started without it"):
        NodeTokens().check("good")


async def test_an_operator_adds_a_node_with_its_token(folder: Fleet) -> None:
    write(folder.secrets / "n0.token", "own-secret")
    write(folder.secrets / "wrong", "wrong-secret")
    async with LocalAINode("own-secret", aio=True) as node, folder.running() as router:
        server = GatewayServer(router, "127.0.0.1:0")
        address = await server.start()
        async with grpc.aio.insecure_channel(address, options=LOCAL) as channel:
            add = OperatorStub(channel).AddNode

            def request(file: str) -> fleet_pb2.AddNodeRequest:
                return fleet_pb2.AddNodeRequest(
                    address=node.address, backend="localai", name="n0", token_file=file
                )

            with pytest.raises(grpc.aio.AioRpcError, match="has no file 'none'") as caught:
                await add(request("none"))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert not router.table.nodes
            reply = await add(request("wrong"))
            assert not reply.answers
            assert "refuses the router's token" in reply.why
            reply = await add(request("n0.token"))
            assert (reply.answers, reply.why) == (True, "")
        await server.stop(0)
        (row,) = (await router.registry.snapshot()).nodes
        assert row.node is not None
        assert row.node.token == "n0.token"
        assert "own-secret" not in str(row)
    database = folder.token.with_name("router.db").read_bytes()
    assert b"-secret" not in database


def test_options_that_cannot_be_used_are_named(folder: Fleet, tmp_path: Path) -> None:
    assert node_tokens(None, None) is None
    with pytest.raises(ValueError, match=r"--secrets .* is no folder"):
        node_tokens(None, tmp_path / "none")
    with pytest.raises(ValueError, match=r"--node-token-file .* cannot be read"):
        node_tokens(tmp_path / "none", None)
    assert TokenFile(folder.token).tokens == ("fleet-secret",)
