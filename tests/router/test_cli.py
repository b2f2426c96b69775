"""The commands, against a running router."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from rich.console import Console

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2 import PauseState
from grpcerrors_router import cli
from grpcerrors_router.cli import view
from grpcerrors_router.cli.models import _Progress
from tests.router.conftest import eventually
from tests.router.support.cli import Run, command
from tests.router.support.rawnode import Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


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


async def test_load_status_and_unload(served: Stack, run: Any) -> None:
    code, out, _ = await run("load", "m")
    assert code == 0
    assert out.startswith("loaded m on raw-1 (")
    assert served.node.loads == ["m"]

    code, out, _ = await run("status")
    assert code == 0
    assert f"routers: {served.router.name}; registry: sqlite" in out
    assert "1 problem. 1 node, 1 model loaded, 0 calls in flight" in out
    assert 'No node offers backend "nobody-has-this", so orphan' in " ".join(out.split())
    (line,) = [line for line in out.splitlines() if line.startswith("raw-1")]
    assert line.split() == ["raw-1", served.node.address, "raw", "up", "1/4"]
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
        while data["nodes"][0]["replicas"][0]["calls"] != 3:
            data = await status()
    (node,) = data["nodes"]
    (replica,) = node["replicas"]
    assert (node["name"], node["backend"], replica["model"]) == ("raw-1", "raw", "m")
    assert replica["calls"] == data["in_flight"] == node["calls"] == 3
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
    (heal,) = json.loads(out)["heals"]
    assert (heal["node"], heal["model"], heal["generation"]) == ("raw-1", "m", str(generation))
    assert heal["evidence"] == "details"
    assert not json.loads((await run("heals", "--json", "--node", "b"))[1])["heals"]
    out = (await run("heals", "--limit", "1"))[1]
    assert "details" in out
    assert "dropped" in out


async def test_nodes_are_added_drained_and_removed(served: Stack, run: Any) -> None:
    nodes = served.router.table.nodes
    add = ("add-node", "127.0.0.1:9", "--backend", "raw", "--slots", "2", "--name", "b")
    code, _, err = await run(*add, "--node-token-file", "b.token")
    assert (code, "serve --secrets DIR" in err) == (2, True)
    added = await run(*add)
    assert added[:2] == (0, "added b (raw, 2 slots)\n")
    assert added[2].startswith("Warning: nothing answers the router at 127.0.0.1:9 yet")
    assert "unreachable" in (await run("status"))[1]
    again = await run("add-node", served.node.address, "--backend", "raw", "--name", "raw-1")
    assert again == (0, "added raw-1 (raw, 1 slot)\n", "")
    assert (await run("drain", "b"))[:2] == (0, "draining b\n")
    info = nodes["b"].info
    assert (info.draining, info.slots, info.foreign) == (True, 2, True)
    assert (await run("drain", "b", "--off"))[:2] == (0, "b takes requests again\n")
    assert (await run("remove-node", "b"))[:2] == (0, "removed b\n")
    code, _, err = await run("drain", "raw-2")
    assert (code, err) == (2, 'Error: no node "raw-2"; did you mean "raw-1"? (NOT_FOUND)\n')


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
        (("heals", "--registry", "sqlite:///{text}"), "file is not a database"),
        (("drain", "n", "--registry", "sqlite:///{text}"), "No such option"),
        (("history", "mm"), 'unknown model "mm"; did you mean "m"? (NOT_FOUND)'),
        (("forgive", "--node", "b"), 'no node "b"'),
        (("reload",), "was not started by grpcerrors-router serve"),
        (("check", "absent.toml"), "absent.toml: cannot be read"),
        (("status", "--sort", "size"), "Invalid value for '--sort'"),
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


@pytest.mark.slow
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
    for arguments in (("status",), ("heals",)):
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


@pytest.mark.slow
async def test_a_file_that_is_no_database_is_no_registry(served: Stack, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.x]\nbackend = 'y'\n")
    (tmp_path / "text").write_text("This is no database. " * 100)
    arguments = ("--models", str(tmp_path / "models.toml"), "--registry")
    code, out, err = await command(served, "serve", *arguments, f"sqlite:///{tmp_path / 'text'}")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("cannot be used as a registry: file is not a database")
    assert "Traceback" not in err


async def test_a_missing_gateway_is_reported(run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("grpcerrors_router.cli.gateway.PATIENCE", 0.2)
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


PAUSE = PauseState(kind="back-off", node="raw-1", model="alias", until=2e9, why="no file")


async def test_models_history_and_forgive(served: Stack, run: Any, monkeypatch: Any) -> None:
    assert (await run("load", "m"))[0] == 0
    code, out, _ = await run("models")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["m"].split() == ["m", "raw", "1/1", "0"]
    assert 'no node offers backend "nobody-has-this"' in " ".join(out.split())
    data = json.loads((await run("models", "--json"))[1])
    assert next(each for each in data["models"] if each["model"] == "m")["present"] == 1
    code, out, _ = await run("history", "m")
    assert code == 0
    assert " loaded " in out
    assert "it was asked for, and no node held it" in " ".join(out.split())
    (entry,) = json.loads((await run("history", "m", "--json"))[1])["entries"]
    assert (entry["kind"], entry["node"]) == ("loaded", "raw-1")
    assert (await run("forgive"))[1] == "nothing to forgive\n"
    monkeypatch.setattr(served.router.state, "pauses", lambda: [PAUSE])
    code, out, _ = await run("forgive", "--model", "alias")
    assert (code, out.splitlines()[0]) == (0, "ended:")
    assert "no file" in out
    assert json.loads((await run("forgive", "--json"))[1])["ended"][0]["model"] == "alias"


async def test_status_reads_the_registry_while_no_router_runs(served: Stack, run: Any) -> None:
    await run("load", "m")
    registry = served.router.registry
    await registry.log_heal("raw-1", "m", 7, "code", "kept")
    nobody = ("--gateway", "127.0.0.1:1", "--registry", served.url)
    code, out, err = await run("status", *nobody)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("raw-1")]
    assert line.split()[-2:] == ["up", "1/4"], "foreign nodes are asked"
    data = json.loads((await run("status", "--json", *nobody))[1])
    assert (data["router"], data["nodes"][0]["replicas"][0]["model"]) == ("", "m")
    assert [each["name"] for each in data["routers"]] == [served.router.name]
    (heal,) = json.loads((await run("heals", "--json", *nobody))[1])["heals"]
    assert heal["action"] == "kept"


@pytest.mark.parametrize("terminal", [True, False])
async def test_watch_repeats_until_it_is_interrupted(
    served: Stack, run: Any, monkeypatch: Any, terminal: bool
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    screen = Console(force_terminal=terminal, width=80, height=40, file=io.StringIO())
    monkeypatch.setattr(view, "console", lambda: screen)
    monkeypatch.setattr(view, "time", SimpleNamespace(sleep=pause))
    code, _, err = await run("status", "--watch", "--interval", "0.5")
    assert (code, err, pauses) == (130, "", [0.5] * 3)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("routers: ") >= (1 if terminal else 3)
    assert ("\x1b[?1049h" in shown) == terminal, "it uses the alternate screen"
    assert ("\x1b[?1049l" in shown) == terminal, "and restores the other one"
