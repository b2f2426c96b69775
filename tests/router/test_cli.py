"""The command line, against a running router."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from rich.console import Console
from typer.main import get_command

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router import cli
from grpcerrors_router.cli import tables
from grpcerrors_router.cli.app import app
from grpcerrors_router.cli.models import _Progress
from grpcerrors_router.entities import (
    Heal,
    Load,
    Node,
    NodeView,
    Replica,
    RouterRow,
    Snapshot,
)
from tests.router.conftest import eventually
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Run = tuple[int, str, str]
SCRIPT = str(Path(sys.executable).with_name("grpcerrors-router"))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    # The router runs in this process, so its log would mix with the output of the commands.
    with structlog.testing.capture_logs():
        async with stack(tmp_path) as made:
            yield made


@pytest.fixture
def run(served: Stack, capsys: Any, monkeypatch: Any) -> Callable[..., Awaitable[Run]]:
    monkeypatch.setenv("ROUTER_REGISTRY", served.url)
    monkeypatch.setenv("ROUTER_GATEWAY", served.address)
    monkeypatch.setenv("COLUMNS", "100")

    async def run(*arguments: str) -> Run:
        code = await asyncio.to_thread(cli.main, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


async def command(served: Stack, *arguments: str, module: bool = True) -> Run:
    """Run a command as a user does."""
    program = (sys.executable, "-m", "grpcerrors_router") if module else (SCRIPT,)
    plain = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    process = await asyncio.create_subprocess_exec(
        *(*program, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**plain, "ROUTER_REGISTRY": served.url, "ROUTER_GATEWAY": served.address},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_load_status_and_unload(served: Stack, run: Any) -> None:
    code, out, _ = await run("load", "m")
    assert code == 0
    assert out.startswith("loaded m on raw-1 (")
    assert served.node.loads == ["m"]

    code, out, _ = await run("status")
    assert code == 0
    assert f"routers: {served.router.name}" in out
    (line,) = [line for line in out.splitlines() if line.startswith("raw-1")]
    assert " up (asked) " in line
    generation = next(iter(served.router.table.replicas("m"))).generation
    (line,) = [line for line in out.splitlines() if line.startswith("m  ")]
    assert f"  raw-1  {generation}  " in line
    assert all(len(line) <= 100 for line in out.splitlines())

    code, out, _ = await run("unload", "m")
    assert (code, out) == (0, "unloaded m from raw-1\n")
    assert not list(served.router.table.replicas("m"))
    code, out, _ = await run("unload", "m")
    assert (code, out) == (0, "m was not loaded\n")


async def test_a_long_load_shows_its_progress(served: Stack, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("grpcerrors_router.gateway.operator.PROGRESS_INTERVAL", 0.05)
    monkeypatch.setattr(_Progress, "EVERY", 0.1)
    shown = set()
    show = _Progress.__call__

    def spy(self: _Progress, progress: Any) -> None:
        show(self, progress)
        if progress.node:
            shown.add(int(progress.seconds / self.EVERY))

    monkeypatch.setattr(_Progress, "__call__", spy)
    served.node.load_gate = asyncio.Event()
    work = asyncio.ensure_future(run("load", "m"))
    await eventually(lambda: len(shown) > 2)
    served.node.load_gate.set()
    code, out, err = await work
    assert code == 0
    assert "loaded m on raw-1" in out
    assert err.count("loading m on raw-1 (") >= 2


async def test_status_as_json_counts_what_is_in_flight(served: Stack, run: Any) -> None:
    gate = asyncio.Event()

    async def wait(_requests: Any, context: Any) -> None:
        await gate.wait()
        await context.write(b"")

    served.node.behave = wait
    stub = BackendStub(served.through)
    calls = [stub.Predict(pb.PredictOptions(ModelIdentity="m")) for _ in range(3)]
    await eventually(lambda: len(served.node.seen) == 3)

    async def status() -> Any:
        code, out, _ = await run("status", "--json")
        assert code == 0
        return json.loads(out)

    async with asyncio.timeout(60):
        data = await status()
        while data["nodes"][0]["replicas"][0]["in_flight"] != 3:
            data = await status()
    (node,) = data["nodes"]
    (replica,) = node["replicas"]
    assert (node["name"], node["backend"], replica["model"]) == ("raw-1", "raw", "m")
    assert replica["in_flight"] == 3
    assert data["routers"][0]["name"] == served.router.name
    gate.set()
    await asyncio.gather(*calls)


async def test_heals_shows_the_log(served: Stack, run: Any) -> None:
    assert (await run("heals"))[1].splitlines()[-1].strip() == "nothing yet"
    registry = served.router.registry
    generation = await registry.set_node_model("raw-1", "m")
    await registry.remove_node_model("raw-1", "m", generation=generation, evidence="details")
    code, out, _ = await run("heals", "--json")
    assert code == 0
    (heal,) = json.loads(out)
    assert (heal["node"], heal["model"], heal["generation"]) == ("raw-1", "m", generation)
    assert heal["evidence"] == "details"
    out = (await run("heals", "--limit", "1"))[1]
    assert "details" in out
    assert "dropped" in out


async def test_nodes_are_added_drained_and_removed(served: Stack, run: Any) -> None:
    added = await run("add-node", "127.0.0.1:9", "--backend", "raw", "--slots", "2", "--name", "b")
    assert added[:2] == (0, "added b (raw, 2 slots)\n")
    assert added[2].startswith("Warning: nothing answers at 127.0.0.1:9 yet")
    assert "unreachable" in (await run("status"))[1]
    again = await run("add-node", served.node.address, "--backend", "raw", "--name", "raw-1")
    assert again == (0, "added raw-1 (raw, 1 slot)\n", "")
    assert (await run("drain", "b"))[:2] == (0, "draining b\n")
    views = {view.name: view for view in (await served.router.registry.snapshot()).nodes}
    node = views["b"].node
    assert node is not None
    assert (node.draining, node.slots, node.foreign) == (True, 2, True)
    assert (await run("drain", "b", "--off"))[:2] == (0, "b takes requests again\n")
    assert (await run("remove-node", "b"))[:2] == (0, "removed b\n")
    code, _, err = await run("drain", "raw-2")
    assert (code, err) == (2, 'Error: no node "raw-2"; did you mean "raw-1"?\n')


async def test_a_drained_node_gets_no_request(served: Stack, run: Any) -> None:
    await run("drain", "raw-1")
    await eventually(lambda: served.router.table.nodes["raw-1"].info.draining)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not served.node.loads


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load", "mm"), 'unknown model "mm"; did you mean "m"? (NOT_FOUND)'),
        (("load", "orphan"), "(UNAVAILABLE)"),
        (("unload", "mm"), 'unknown model "mm"'),
        (("load",), "Missing argument 'MODEL'; see grpcerrors-router load --help"),
        (("statsu",), "'statsu'. Did you mean 'status'? See grpcerrors-router --help"),
        (("load", "m", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("load", "m", "--gateway", "nowhere"), "--gateway must be HOST:PORT"),
        (("add-node", "here", "--backend", "raw"), "the address must be HOST:PORT"),
        (("add-node", "a:1", "--backend", "raw", "--slots", "0"), "Invalid value for '--slots'"),
        (("status", "--registry", "nonsense"), "--registry is not a URL"),
        (("status", "--registry", "mysql://me:hunter2@h/x"), "--registry mysql://me:***@h/x: use"),
        (("serve", "--models", "{good}", "--registry", "mysql://me:hunter2@h/x"), "use sqlite:///"),
        (("status", "--registry", "sqlite:///{text}"), "file is not a database"),
        (("drain", "n", "--registry", "sqlite:///{text}"), "file is not a database"),
        (("add-node", "{taken}", "--backend", "raw"), "is a router"),
        (("add-node", "0.0.0.0:1", "--backend", "raw"), "is a wildcard"),
        (("status", "--registry", "sqlite:///absent.db"), "no registry at absent.db; start"),
        (
            ("status", "--registry", "postgresql://me:hunter2@127.0.0.1:1/x"),
            "the registry cannot be reached",
        ),
        (("serve", "--models", "absent.toml"), "absent.toml: cannot be read"),
        (("serve", "--models", "{bad}"), 'models.x.bakend: unknown key; did you mean "backend"?'),
        (("serve", "--models", "{bad}", "--on-stale", "maybe"), "'retry', 'return', 'off'"),
        (("serve", "--models", "{bad}", "--listen", "x"), "--listen must be HOST:PORT"),
        (("serve", "--models", "{bad}", "--metrics", ":1"), "--metrics must be HOST:PORT"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_code_2(
    served: Stack, run: Any, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    places = {name: tmp_path / f"{name}.toml" for name in ("bad", "good", "text")}
    places["bad"].write_text("[models.x]\nbakend = 'y'\n")
    places["good"].write_text("[models.x]\nbackend = 'y'\n")
    places["text"].write_text("This is no database. " * 100)
    known = {**places, "taken": served.address}
    code, out, err = await run(*(word.format(**known) for word in arguments))
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert words.format(**known) in err
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.parametrize("option", ["--listen", "--metrics"])
async def test_a_port_that_is_taken_is_named_with_its_option(
    served: Stack, tmp_path: Path, option: str
) -> None:
    """It runs in a process of its own, since gRPC's core writes to stderr directly."""
    models = tmp_path / "models.toml"
    models.write_text("[models.x]\nbackend = 'y'\n")
    at = ["--listen", "127.0.0.1:0"] if option == "--metrics" else []
    code, out, err = await command(
        served, "serve", "--models", str(models), *at, option, served.address
    )
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"Error: {option} {served.address}: the port is taken")
    assert "add_port" not in err


async def test_only_serve_changes_the_schema(run: Any, tmp_path: Path) -> None:
    """A newer command must not upgrade the registry under running routers."""
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table router_version (version_num varchar(32))")
        database.execute("insert into router_version values ('0001')")
        database.commit()
    before = path.read_bytes()
    for arguments in (("status",), ("heals",), ("drain", "n"), ("remove-node", "n")):
        code, out, err = await run(*arguments, "--registry", f"sqlite:///{path}")
        assert (code, out) == (2, "")
        assert "its schema 0001 is older than" in err
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("update router_version set version_num = '9999'")
        database.commit()
    assert (
        "its schema 9999 is newer than"
        in (await run("status", "--registry", f"sqlite:///{path}"))[2]
    )
    assert len(before) == len(path.read_bytes())


async def test_a_file_that_is_no_database_is_no_registry(served: Stack, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.x]\nbackend = 'y'\n")
    (tmp_path / "text").write_text("This is no database. " * 100)
    arguments = ("--models", str(tmp_path / "models.toml"), "--registry")
    code, out, err = await command(served, "serve", *arguments, f"sqlite:///{tmp_path / 'text'}")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("cannot be used as a registry: file is not a database")
    assert "Traceback" not in err


async def test_a_missing_gateway_is_reported(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("grpcerrors_router.cli.models.CONNECT_TIMEOUT", 0.2)
    code, _, err = await run("load", "m", "--gateway", "127.0.0.1:1")
    assert code == 2
    assert err.startswith("Error: no gateway answers at 127.0.0.1:1; start grpcerrors-router serve")


async def test_a_server_that_is_no_gateway_is_reported(served: Stack, run: Any) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    code, _, err = await run("unload", "m", "--gateway", f"127.0.0.1:{port}")
    assert (code, err.count("\n")) == (2, 1)
    assert "is not a gateway of grpcerrors-router" in err
    await server.stop(0)


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
    for name in ("serve", "status", "heals", "add-node", "drain", "load", "unload"):
        assert f"  {name} " in err


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_each_command_is_explained_in_full(name: str | None) -> None:
    commands: Any = get_command(app).commands  # type: ignore[attr-defined]
    listed = {command.get_short_help_str(): command for command in commands.values()}
    assert not any(short.endswith("...") for short in listed)
    for command in commands.values():
        assert f"grpcerrors-router {command.name}" in command.epilog
        assert all(each.help for each in command.params)


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


HEAVY = ("alembic", "psycopg", "prometheus_client", "structlog", "uvloop")


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
        env={**os.environ, "ROUTER_REGISTRY": served.url},
    )
    assert "raw-1" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


NOW = time.time()


def draw(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_tables_show_the_states_of_nodes() -> None:
    def view(node: Node, *replicas: Replica) -> NodeView:
        jobs = tuple(
            Load(node.name, "o", 9, "r", "running", NOW, NOW + 9, "n", victim_generation=8)
            for replica in replicas
            if replica.model == "n"
        )
        return NodeView(1, node.name, node, replicas, jobs, NOW)

    snapshot = Snapshot(
        9,
        (
            view(
                Node("a", "h:1", "x", 2, last_seen=NOW),
                Replica("a", "m", 7, 7, in_flight=3, last_used=NOW - 5),
                Replica("a", "n", 8, 8),
            ),
            view(Node("b", "h:2", "x", last_seen=NOW - 75)),
            view(Node("c", "h:3", "x", draining=True, last_seen=NOW)),
            view(Node("h:4", "h:4", "x", foreign=True)),
            view(Node("x@h:5", "h:5", "x", foreign=True)),
            NodeView(2, "gone", None),
        ),
    )
    lines = draw(tables.node_table(snapshot, NOW, {"h:4": True, "h:5": False})).splitlines()
    assert len(lines) == 6
    assert lines[1].split() == ["a", "h:1", "x", "up", "2/2"]
    assert "silent 1 min 15 s" in lines[2]
    assert "draining" in lines[3]
    assert lines[4].split() == ["h:4", "h:4", "x", "up", "(asked)", "0/1"]
    assert "unreachable" in lines[5]
    replicas = draw(tables.replica_table(snapshot, NOW)).splitlines()
    assert replicas[1].split() == ["m", "a", "7", "3", "5", "s", "ago"]
    assert replicas[2].split() == ["n", "(evicting)", "a", "8", "0", "-"]
    assert "\x1b" not in "".join(lines + replicas)


def test_tables_break_nothing_that_one_may_copy_at_80_columns() -> None:
    generation, name = 1_795_557_468_112, "transcriber-23616c"
    node = Node(name, "192.168.100.127:39559", "transcriber", foreign=True)
    view = NodeView(1, name, node, (Replica(name, "en-us", generation, 1, last_used=NOW),), (), NOW)
    snapshot = Snapshot(9, (view,))
    nodes = draw(tables.node_table(snapshot, NOW, {}), 80).splitlines()
    replicas = draw(tables.replica_table(snapshot, NOW), 80).splitlines()
    heal = Heal(NOW - 82, name, "en-us", generation, "heartbeat", "dropped", "router-1df8e845")
    heals = draw(tables.heal_table([heal], NOW), 80).splitlines()
    assert max(map(len, nodes + replicas + heals)) <= 80
    assert nodes[1].split() == [name, node.address, "transcriber", "unreachable", "1/1"]
    assert {name, str(generation)} <= set(replicas[1].split())
    assert {str(generation), "heartbeat", "dropped"} <= set(heals[1].split())


def test_tables_show_loads_heals_and_routers() -> None:
    node = Node("a", "h:1", "x")
    running = Load("a", "m", 3, "r1", "running", NOW - 65, NOW + 10)
    failed = Load("a", "n", 4, "r1", "failed", NOW - 65, 0, retry_at=NOW + 30, message="no file")
    left = Load("a", "o", 5, "r0", "running", NOW - 65, NOW - 1)
    past = Load("a", "p", 6, "r1", "failed", NOW - 65, 0, retry_at=NOW - 1, message="out of memory")
    jobs = (running, failed, left, past)
    text = draw(tables.load_table(Snapshot(1, (NodeView(1, "a", node, (), jobs),)), NOW))
    assert "loading" in text
    assert "1 min 5 s" in text
    assert "failed, next try in 30 s" in text
    assert "no file" in text
    assert "abandoned" in text
    assert "out of memory" not in text, "its back-off has ended"
    heal = Heal(NOW - 90_000, "a", "m", 3, "code", "dropped", "r1")
    assert "(1 d 1 h ago)" in draw(tables.heal_table([heal], NOW))
    assert "routers: r1, r2" in draw(
        tables.router_line([RouterRow("r1", 1, NOW), RouterRow("r2", 1, NOW)], 1)
    )
    assert "no router is running" in draw(tables.router_line([], 1))
