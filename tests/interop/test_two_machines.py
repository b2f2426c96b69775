"""docs/how-to/two-machines.md, followed on two machines: two network namespaces with a cable."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.pages import ROOT, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="tests/interop/setup.sh installs ip"),
]

PAGE = (ROOT / "docs/how-to/two-machines.md").read_text()
PATIENCE = 60
ROUTER, NODE = "10.0.0.1", "10.0.0.2"
MOST_COMMANDS = 10
CALL = (
    "grpcerrors call 10.0.0.1:50050 backend.Backend/Predict --model hello"
    """ --data '{"Prompt": "hi"}' --timeout 60"""
)


class Machine:
    """A network namespace, a folder and a shell in both."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._log = folder.with_suffix(".log")
        folder.mkdir()
        with self._log.open("wb") as log:
            self._shell = subprocess.Popen(
                ["ip", "netns", "exec", name, "bash"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | {"COLUMNS": "100", "TERM": "dumb", "PYTHONUNBUFFERED": "1"},
                text=True,
            )
        self._marks = 0

    def said(self) -> str:
        return self._log.read_text()

    def run(self, command: str) -> tuple[int, str]:
        """Run a command in the shell; return its exit code and what was printed meanwhile."""
        assert self._shell.stdin is not None
        self._marks += 1
        before = len(self.said())
        self._shell.stdin.write(f"{command}\necho @@{self._marks} $?\n")
        self._shell.stdin.flush()
        mark = self.wait(rf"@@{self._marks} (\d+)")
        return int(mark[1]), self.said()[before : mark.start()]

    def wait(self, pattern: str) -> re.Match[str]:
        """Wait until something was printed."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.said())) is None:
            assert time.monotonic() < deadline, f"no {pattern} in:\n{self.said()}"
            assert self._shell.poll() is None, self.said()
            time.sleep(0.05)
        return found

    def stop(self) -> None:
        """End all that runs in the namespace: this test has started it."""
        listed = ip("netns", "pids", self.name).split()
        for number in map(int, listed):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._shell.communicate()


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    """The router's machine and the node's."""
    folder = tmp_path_factory.mktemp("machines")
    names = [f"grpcerrors-{os.getpid()}-{role}" for role in ("router", "node")]
    with contextlib.ExitStack() as cleanup:
        for name in names:
            ip("netns", "add", name)
            cleanup.callback(ip, "netns", "del", name)
        first, second = names
        ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "eth0", "netns", second)
        made = []
        for name, address in zip(names, (ROUTER, NODE), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
            machine = Machine(name, folder / name)
            cleanup.callback(machine.stop)
            made.append(machine)
        yield made[0], made[1]


def blocks(heading: str) -> list[list[str]]:
    """Return the commands of each block of a section; a file is one that writes it."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = []
    for fence in fences(section):
        if fence.name:
            found.append([f"cat > {fence.name} <<'END'\n{fence.text}\nEND"])
        else:
            found.append(re.sub(r"\\\n\s*", "", fence.text).strip().splitlines())
    return found


ON_ROUTER, ON_NODE = blocks("On the router's machine"), blocks("On the node's machine")


def test_it_takes_few_commands() -> None:
    commands = [each for block in (*ON_ROUTER, *ON_NODE) for each in block]
    assert len(commands) <= MOST_COMMANDS


@pytest.fixture(scope="module")
def followed(machines: tuple[Machine, Machine]) -> tuple[Machine, Machine, dict[str, str]]:
    """Follow the page; return the machines, and what each command printed."""
    router, node = machines
    printed: dict[str, str] = {}
    ready = {
        "grpcerrors-router serve": (router, r"router ready on 10\.0\.0\.1:50050"),
        "grpcerrors-backend": (node, r"(?s)echo ready on 10\.0\.0\.2:50051.*joined"),
    }
    for machine, section in ((router, ON_ROUTER), (node, ON_NODE)):
        for command in (each for block in section for each in block):
            # Both machines have one file system.
            real = re.sub(rf"^scp (.*) {NODE}:$", rf"cp \1 {node.folder}", command)
            code, printed[command.removesuffix(" &")] = machine.run(real)
            assert code == 0, machine.said()
            for start, (where, pattern) in ready.items():
                if command.startswith(start):
                    where.wait(pattern)
    return router, node, printed


Followed = tuple[Machine, Machine, dict[str, str]]


def test_the_page_works_as_written(followed: Followed) -> None:
    router, node, printed = followed
    (status,) = [said for command, said in printed.items() if "status" in command]
    assert re.search(r"gpu-1 +10\.0\.0\.2:50051 +echo +up", status)
    (answer,) = [said for command, said in printed.items() if "grpcerrors call" in command]
    assert '"message": "aGk="' in answer
    assert not (node.folder / "ca.key").exists()
    for machine in (router, node):
        assert "Traceback" not in machine.said()
        assert "warning" not in machine.said()


TLS = " --tls-ca ca.pem --tls-cert me.pem --tls-key me.key"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (CALL, "if it serves TLS"),
        (CALL + " --token-file me.token --tls-ca ca.pem", "if it asks its clients for a cert"),
        (CALL + TLS, "UNAUTHENTICATED"),
        (CALL + TLS + " --token-file node.token", "PERMISSION_DENIED"),
        (CALL.replace("10.0.0.1:50050", "10.0.0.2:50051"), "if it serves TLS"),
        ("ROUTER_TOKEN_FILE=node.token grpcerrors-router drain gpu-1", "PERMISSION_DENIED"),
        ("grpcerrors health 10.0.0.1:50050 --tls", "signed by a CA in --tls-ca"),
    ],
)
def test_whoever_shows_less_is_refused(followed: Followed, command: str, said: str) -> None:
    code, printed = followed[1].run(command)
    assert code != 0
    assert said in printed


def test_a_node_under_another_name_is_refused(followed: Followed) -> None:
    _, node, _ = followed
    (start,) = [each for block in ON_NODE for each in block if "grpcerrors-backend" in each]
    other = start.replace("gpu-1 --listen 10.0.0.2:50051", "cpu-1 --listen 10.0.0.2:50052")
    node.run(other)
    node.wait("refused this node.*cpu-1|cpu-1.*refused this node")
    _, status = node.run("grpcerrors-router status")
    assert not re.search(r"(?m)^cpu-1", status)


def test_a_node_without_tls_is_refused(followed: Followed) -> None:
    _, node, _ = followed
    node.run(
        "grpcerrors-backend echo --node-name gpu-2 --listen 127.0.0.1:50053"
        " --router 10.0.0.1:50050 --router-token-file node.token --tls-ca ca.pem &"
    )
    node.wait("if it asks for a certificate of its clients")


def test_nothing_unprotected_is_reachable_from_the_other_machine(followed: Followed) -> None:
    router, node, _ = followed
    code, said = router.run("grpcerrors-router serve --models models.toml --listen 10.0.0.1:50060")
    assert code == 2
    assert "--insecure allows it" in said
    code, said = node.run("grpcerrors-backend echo --listen 0.0.0.0:50061")
    assert code == 2
    assert "--insecure allows it" in said


def test_renewed_certificates_need_no_restart(followed: Followed) -> None:
    """All but the authority's: as the page says, with a copy to the node's machine."""
    router, node, printed = followed
    (call,) = [command for command in printed if "grpcerrors call" in command]
    for command in (
        "grpcerrors-router certs router=10.0.0.1 gpu-1=10.0.0.2 me",
        f"cp certs/gpu-1.* certs/me.* {node.folder}",
    ):
        assert router.run(command)[0] == 0
    serial = "openssl x509 -noout -serial -in certs/router.pem"
    shown = "openssl s_client -connect 10.0.0.1:50050 -alpn h2 </dev/null 2>/dev/null"
    # Logs may come in between.
    (expected,) = re.findall(r"serial=\w+", router.run(serial)[1])
    assert expected in node.run(f"{shown} | openssl x509 -noout -serial")[1]
    code, said = node.run(call)
    assert (code, '"message": "aGk="' in said) == (0, True), said
