"""docs/router.md is true: its programs run, and its tables are complete."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from grpcerrors_router.cli.app import app
from grpcerrors_router.config.models_toml import parse_models
from grpcerrors_router.errors import REASONS, RouteError
from grpcerrors_router.metrics import Metrics
from tests.router.support.processes import fleet

TEXT = Path(__file__).parents[2].joinpath("docs/router.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
async def test_its_programs_run_unchanged(tmp_path: Path) -> None:
    """They run in processes of their own; only the addresses differ."""
    client, program = blocks("python")
    async with fleet(tmp_path, blocks("toml")[0]) as world:
        gateway = await world.gateway()
        await world.node(gateway.address, "left")
        alone = await world.start("grpcerrors_backends", "echo", "--listen", "127.0.0.1:0")
        for text, address, real in (
            (client, "127.0.0.1:50050", gateway.address),
            (program, "127.0.0.1:50051", alone.address),
        ):
            assert address in text
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", text.replace(address, real)),
                stdout=asyncio.subprocess.PIPE,
                cwd=tmp_path,
            )
            out, _ = await process.communicate()
            assert process.returncode == 0
            assert out.splitlines()[-1] == b"hi"


def test_its_models_files_are_valid() -> None:
    found = [parse_models(block) for block in blocks("toml")]
    assert [set(models) for models in found] == [{"hello"}, {"tiny.en", "vad"}]


def test_it_lists_every_metric() -> None:
    listed = set(re.findall(r"`(router_\w+)`", TEXT))
    there = {family.name for family in Metrics().registry.collect()}
    there |= {"router_in_flight", "router_generation"}
    there |= {"router_node_reachable", "router_node_busy"}
    assert {name.removesuffix("_total") for name in listed} == there


def test_it_lists_every_reason() -> None:
    table = TEXT.partition("| code | reason |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| [A-Z_, ]+ \| ([A-Z_]+)(?:, \*elsewhere\*)? \|", table, re.MULTILINE)
    assert sorted([*listed, RouteError.reason]) == sorted(REASONS)


def test_it_lists_every_command_and_option() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"^grpcerrors-router (\S+)", TEXT, re.MULTILINE)) == set(commands)
    options = {name for parameter in commands["serve"].params for name in parameter.opts}
    table = TEXT.partition("| option of `serve`")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE)) == options
