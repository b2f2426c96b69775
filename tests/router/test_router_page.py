"""docs/router.md tells the truth: its program runs, its tables name what there is."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import NodeRegistry, SmartRouter
from grpcerrors_router.cli.app import app
from grpcerrors_router.config.models_toml import parse_models, read_models
from grpcerrors_router.metrics import Metrics
from tests.router.support.rawnode import RawNode, Script

if TYPE_CHECKING:
    import pytest

TEXT = Path(__file__).parents[2].joinpath("docs/router.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


async def test_the_program_routes_in_five_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = blocks("python")
    assert len(program.splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text('[models.hello]\nbackend = "echo"\n')
    node = RawNode()
    await node.start()
    node.script = Script(replies=(pb.Reply(message=b"hi").SerializeToString(),))
    scope: dict[str, Any] = {
        "BackendStub": BackendStub,
        "NodeRegistry": NodeRegistry,
        "Path": Path,
        "PredictOptions": pb.PredictOptions,
        "SmartRouter": SmartRouter,
        "address": node.address,
        "read_models": read_models,
    }
    body = textwrap.indent(program, "    ")
    exec(f"async def program():\n{body}    return reply\n", scope)
    reply = await scope["program"]()
    assert reply.message == b"hi"
    assert node.loads == ["hello"]
    await node.server.stop(0)


def test_its_catalogues_are_good() -> None:
    found = [parse_models(block) for block in blocks("toml")]
    assert [set(models) for models in found] == [{"tiny.en"}, {"tiny.en", "vad"}]


def test_it_lists_the_metrics_that_there_are() -> None:
    listed = set(re.findall(r"`(router_\w+)`", TEXT))
    there = {family.name for family in Metrics().registry.collect()}
    there |= {"router_in_flight", "router_generation"}
    there |= {"router_node_reachable", "router_node_busy"}
    assert {name.removesuffix("_total") for name in listed} == there


def test_it_lists_the_commands_and_options_that_there_are() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^grpcerrors-router (\S+)", TEXT, re.MULTILINE)) == set(commands)
    options = {name for parameter in commands["serve"].params for name in parameter.opts}
    table = TEXT.partition("| option of `serve`")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE)) == options
