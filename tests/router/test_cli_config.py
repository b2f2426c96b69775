"""The commands `check` and `reload`."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from grpcerrors_protocol.backend_pb2 import PredictOptions
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import cli
from grpcerrors_router.config.reload import Reloader
from grpcerrors_router.gateway.server import GatewayServer
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.router.support.cli import Run


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    # The router runs in this process, so its log would mix with the output of the commands.
    with structlog.testing.capture_logs():
        async with stack(tmp_path) as made:
            yield made


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture
def run(capsys: Any) -> Callable[..., Awaitable[Run]]:
    async def run(*arguments: str) -> Run:
        code = await asyncio.to_thread(cli.main, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


async def test_reload_says_what_has_changed(
    served: Stack, run: Any, tmp_path: Path, monkeypatch: Any, closing: AsyncExitStack
) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models]\nm.backend = "raw"\nnew.backend = "raw"\n')
    server = GatewayServer(served.router, "127.0.0.1:0", Reloader(served.router, path).reload)
    monkeypatch.setenv("ROUTER_GATEWAY", await server.start())
    closing.push_async_callback(server.stop, 0)
    await served.router.load("alias")
    code, out, _ = await run("reload")
    assert (code, out) == (
        0,
        "read models.toml: added new; removed alias, orphan, twin-a, twin-b\n",
    )
    with pytest.raises(grpc.aio.AioRpcError, match='unknown model "alias"') as caught:
        await BackendStub(served.through).Predict(
            PredictOptions(), metadata=[("x-model-id", "alias")]
        )
    assert 'did you mean "alias"' not in str(caught.value.details()), "a node still holds it"
    assert (await run("reload"))[1] == "read models.toml: no model has changed\n"
    path.write_text("[models]\nm.bakend = 1\nnew.backend = 2\n")
    code, out, err = await run("reload")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "nothing was changed:"
    assert len(err.splitlines()) == 3
    assert set(served.router.models) == {"m", "new"}
    code, out, _ = await run("reload", "--json")
    assert (code, len(json.loads(out)["mistakes"])) == (1, 2)


async def test_check_lists_all_mistakes_with_their_lines(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text("[models.x]\nbakend = 'y'\n\n[models.y]\nbackend = 3\n")
    code, out, err = await run("check", str(path))
    assert code == 1
    assert (
        out
        == f"""\
{path}:2: models.x.bakend: unknown key; did you mean "backend"?
  |
2 | bakend = 'y'
  |
{path}:5: models.y.backend: must be a string
  |
5 | backend = 3
  |
"""
    )
    assert err == f"2 mistakes in {path}\n"
    path.write_text("[models]\nx = {backend = 'y', options.Model = 'z'}\nz.backend = 'y'\n")
    code, out, err = await run("check", str(path))
    assert (code, out) == (0, f"{path}: 2 models, no mistakes\n")
    assert err == (
        'Warning: x, z are all loaded as "z", so requests must name one of them by x-model-id\n'
    )
