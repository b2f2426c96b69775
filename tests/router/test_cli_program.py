"""The command line as a program: its help, its completion, and what it imports."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from typer.main import get_command

from grpcerrors_protocol.backend_pb2 import PredictOptions
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2 import ListModelsRequest
from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
from grpcerrors_protocol.metadata import MODEL_ID
from grpcerrors_router.cli.app import app
from tests.router.conftest import eventually
from tests.router.support.cli import SCRIPT, command
from tests.router.support.processes import fleet
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    # The router runs in this process, so its log would mix with the output of the commands.
    with structlog.testing.capture_logs():
        async with stack(tmp_path) as made:
            yield made


HEAVY = ("alembic", "psycopg", "prometheus_client", "sqlalchemy", "structlog", "uvloop")


@pytest.mark.slow
async def test_the_script_and_the_module_are_the_same_command(served: Stack) -> None:
    for arguments in (("--version",), ("serve", "--help")):
        first, second = [
            await command(served, *arguments, module=module) for module in (True, False)
        ]
        assert first == second
    code, out, _ = await command(served, "--version")
    assert (code, out) == (0, f"grpcerrors-router {version('grpcerrors-router')}\n")


async def test_without_a_command_it_lists_them(served: Stack) -> None:
    code, _, err = await command(served)
    assert code == 2
    for name in ("serve", "status", "heals", "add-node", "drain", "load", "models", "check"):
        assert f"  {name} " in err


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_each_command_is_explained_in_full(name: str | None) -> None:
    commands: Any = get_command(app).commands  # type: ignore[attr-defined]
    listed = {each.get_short_help_str(): each for each in commands.values()}
    assert not any(short.endswith("...") for short in listed)
    for each in commands.values():
        assert f"grpcerrors-router {each.name}" in each.epilog
        assert all(option.help for option in each.params)


async def test_completion_knows_the_commands(served: Stack) -> None:
    words = {
        "_GRPCERRORS_ROUTER_COMPLETE": "complete_bash",
        "COMP_WORDS": "x sta",
        "COMP_CWORD": "1",
    }
    process = await asyncio.create_subprocess_exec(
        SCRIPT, stdout=subprocess.PIPE, env={**os.environ, **words}
    )
    out, _ = await process.communicate()
    assert out.decode().split() == ["status"]


@pytest.mark.slow
async def test_status_imports_only_what_it_needs(served: Stack) -> None:
    """Imports take most of the run time of `status`, and Ctrl-C may interrupt them."""
    program = (
        "import sys; from grpcerrors_router.cli import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, "status"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "ROUTER_GATEWAY": served.address},
    )
    assert "raw-1" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


async def interrupted(
    served: Stack, until: Callable[[str], bool], *arguments: str, **environment: str
) -> tuple[int, str]:
    """Interrupt a command once it has written such a line; return its end and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "ROUTER_GATEWAY": served.address, **environment},
    )
    assert process.stdout is not None
    said = ""
    while not until(line := (await process.stdout.readline()).decode()):
        said += line
        assert line, said
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said + line + rest.decode()


def ended_by(text: str) -> Callable[[str], bool]:
    return lambda line: line.endswith(text)


@pytest.mark.slow
async def test_ctrl_c_prints_no_traceback_at_any_moment(served: Stack) -> None:
    importing = {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONUNBUFFERED": "1"}
    modules = (" typer\n", " grpc\n", " pydantic\n", " rich.console\n")
    ends = [
        await interrupted(served, ended_by(module), "status", **importing) for module in modules
    ]
    ends.append(await interrupted(served, lambda line: "raw-1" in line, "status", "--watch"))
    served.node.load_gate = asyncio.Event()
    ends.append(await interrupted(served, lambda line: "loading m on raw-1" in line, "load", "m"))
    for code, said in ends:
        assert code in (-signal.SIGINT, 130)
        assert "Traceback" not in said
        assert "KeyboardInterrupt" not in said
    served.node.load_gate.set()
    await eventually(lambda: [*served.router.table.replicas("m")])


@pytest.mark.slow
async def test_a_running_router_reads_its_files_again(tmp_path: Path) -> None:
    """By SIGHUP and by command, in a process of its own; a file with mistakes changes nothing."""
    async with fleet(tmp_path, '[models]\nold.backend = "echo"\n') as world:
        gateway = await world.gateway()
        await world.node(gateway.address, "a", "127.0.0.1:0", "--slots", "3")
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub, operator = BackendStub(channel), OperatorStub(channel)

            async def listed() -> set[str]:
                reply = await operator.ListModels(ListModelsRequest())
                return {each.model for each in reply.models if each.listed}

            def ask(model: str) -> Any:
                return stub.Predict(
                    PredictOptions(Prompt="hi"), timeout=60, metadata=[(MODEL_ID, model)]
                )

            await ask("old")
            (tmp_path / "models.toml").write_text('[models]\nnew.backend = "echo"\n')
            gateway.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(60):
                while await listed() != {"new"}:
                    await asyncio.sleep(0.05)
            assert (await ask("new")).message == b"hi"
            with pytest.raises(grpc.aio.AioRpcError, match="unknown model"):
                await ask("old")
            (tmp_path / "models.toml").write_text("[models]\nnew.bakend = 1\n")
            command = (sys.executable, "-m", "grpcerrors_router", "reload")
            process = await asyncio.create_subprocess_exec(
                *(*command, "--gateway", gateway.address), stderr=subprocess.PIPE
            )
            _, err = await process.communicate()
            assert (process.returncode, b"did you mean" in err) == (1, True)
            assert (await ask("new")).message == b"hi"
