"""Shells complete the names of models and nodes, as the gateway knows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from grpcerrors_router import cli
from tests.router.support.rawnode import stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Keep the log of the router, which runs in this process, out of the output."""
    with structlog.testing.capture_logs():
        yield


def complete(capsys: Any, monkeypatch: Any, typed: str) -> list[str]:
    """Return what a shell is told when a person presses Tab behind *typed*."""
    words = typed.split(" ")
    monkeypatch.setenv("_GRPCERRORS_ROUTER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["grpcerrors-router", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        cli.main([])
    return str(capsys.readouterr().out).split()


@pytest.mark.parametrize("command", ["load", "unload", "history", "heals --model"])
async def test_models_are_completed(
    tmp_path: Path, capsys: Any, monkeypatch: Any, command: str
) -> None:
    async with stack(tmp_path) as served:
        monkeypatch.setenv("ROUTER_GATEWAY", served.address)
        found = await asyncio.to_thread(complete, capsys, monkeypatch, f"{command} or")
        assert found == ["orphan"]
        found = await asyncio.to_thread(complete, capsys, monkeypatch, f"{command} ")
        assert {"m", "orphan"} <= set(found)


async def test_nodes_are_completed(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    async with stack(tmp_path) as served:
        await served.router.registry.add_node("127.0.0.1:9", "raw", name="spare")
        monkeypatch.setenv("ROUTER_GATEWAY", served.address)
        for typed in ("drain sp", "remove-node sp", "unload m --node sp", "forgive --node sp"):
            assert await asyncio.to_thread(complete, capsys, monkeypatch, typed) == ["spare"]


async def test_the_gateway_on_the_line_is_asked(
    tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    async with stack(tmp_path) as served:
        typed = f"load --gateway {served.address} or"
        assert await asyncio.to_thread(complete, capsys, monkeypatch, typed) == ["orphan"]


def test_nothing_is_completed_without_a_gateway(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("ROUTER_GATEWAY", "127.0.0.1:1")
    monkeypatch.setattr("grpcerrors_router.cli.complete.PATIENCE", 0.01)
    assert complete(capsys, monkeypatch, "load ") == []
