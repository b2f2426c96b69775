"""The pages about the router are complete, and their programs run."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from grpcerrors_router.config.models_toml import parse_models
from grpcerrors_router.errors import REASONS, RouteError
from grpcerrors_router.metrics import Metrics
from tests.router.support.processes import fleet

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
async def test_the_router_runs_in_a_program(tmp_path: Path) -> None:
    """It runs in a process of its own; only the address differs."""
    (program,) = blocks("how-to/embed.md", "python")
    (models,) = blocks("how-to/embed.md", "toml")
    async with fleet(tmp_path, models) as world:
        alone = await world.start("grpcerrors_backends", "echo", "--listen", "127.0.0.1:0")
        assert "127.0.0.1:50051" in program
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program.replace("127.0.0.1:50051", alone.address)),
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert out.splitlines()[-1] == b"hi"


def test_its_models_files_are_valid() -> None:
    found = [parse_models(block) for block in blocks("reference/models-toml.md", "toml")]
    assert [set(models) for models in found] == [{"tiny.en", "vad"}]


def test_every_metric_is_listed() -> None:
    text = (DOCS / "reference/metrics.md").read_text()
    listed = set(re.findall(r"`(router_\w+)`", text))
    there = {family.name for family in Metrics().registry.collect()}
    there |= {"router_in_flight", "router_generation"}
    there |= {"router_node_reachable", "router_node_busy"}
    assert {name.removesuffix("_total") for name in listed} == there


def test_every_reason_is_listed() -> None:
    table = (DOCS / "reference/errors.md").read_text().partition("| code | reason |")[2]
    listed = re.findall(r"^\| [A-Z_, ]+ \| ([A-Z_]+)(?:, \*elsewhere\*)? \|", table, re.MULTILINE)
    assert sorted([*listed, RouteError.reason]) == sorted(REASONS)
