"""deploy/Containerfile and compose.yaml: a real fleet in containers, with TLS and tokens.

The commands are those of deploy/README.md.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import pages
from tests.interop.support import deployment, podman

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not podman.usable(), reason="needs root, podman and podman-compose"),
]
PROJECT = f"grpcerrors-{os.getpid()}"
SERVICES = ("postgres", "gateway", "node-1", "node-2")  # each after what it depends on


class Ran(NamedTuple):
    code: int
    output: str


class Fleet:
    """The services of compose.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"localhost:{pages.free_port()}"
        self._environment = {
            **podman.environment(),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "IMAGE": podman.IMAGE,
            "POSTGRES_IMAGE": podman.POSTGRES,
            "GATEWAY_PORT": self.address.split(":")[1],
        }

    def compose(self, *words: str) -> None:
        ran = self.run("podman-compose", "-p", PROJECT, "-f", "deploy/compose.yaml", *words)
        assert ran.code == 0, ran.output

    def container(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        project = f"label=io.podman.compose.project={PROJECT}"
        return podman.run("podman", "ps", "-aq", f"--filter={label}", f"--filter={project}").strip()

    def is_healthy(self, service: str) -> bool:
        """Return what the service's own health check says."""
        return self.podman("healthcheck", "run", self.container(service)).code == 0

    def podman(self, *words: str) -> Ran:
        return self.run("podman", *words)

    def run(self, *command: str) -> Ran:
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(done.returncode, done.stdout)

    def ours(self, command: str, token: str | None = None) -> Ran:
        """Run a command of the page here, with another token or none."""
        words = shlex.split(command.replace("localhost:50050", self.address))
        if token is not None:
            at = words.index("--token-file")
            words[at : at + 2] = ["--token-file", f"deploy/secrets/{token}.token"] if token else []
        return self.run(*words)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    podman.build()
    _, _, secrets, up = deployment.CONTAINERS
    assert up == "podman-compose -f deploy/compose.yaml up -d"
    it = Fleet(deployment.copy(tmp_path_factory.mktemp("fleet"), secrets))
    try:
        # One by one: podman leaves it to systemd to run health checks, on which others depend.
        for service in SERVICES:
            it.compose("up", "-d", "--no-deps", service)
            wait_until_healthy(it, service)
        yield it
    finally:
        it.compose("down", "-v", "-t", "5")


CALL, STATUS = deployment.CLIENTS


def wait_until_healthy(fleet: Fleet, service: str) -> None:
    for _ in range(60):
        if fleet.is_healthy(service):
            return
    pytest.fail(f"{service}: {fleet.podman('logs', fleet.container(service)).output}")


def test_a_call_goes_through_the_gateway_to_a_node(fleet: Fleet) -> None:
    ran = fleet.ours(CALL)
    assert ran.code == 0, ran.output
    assert json.loads(ran.output)["message"] == "aGk="


def test_the_gateway_asks_for_a_token_and_for_tls(fleet: Fleet) -> None:
    assert "UNAUTHENTICATED" in fleet.ours(CALL, "").output
    assert "PERMISSION_DENIED" in fleet.ours(CALL, "node").output
    plain = fleet.run(
        *("grpcerrors", "call", fleet.address, "backend.Backend/Health", "--wait", "2")
    )
    assert plain.code == 2, plain.output


def test_an_operator_sees_both_nodes(fleet: Fleet) -> None:
    for _ in range(60):  # a node joins soon after it is healthy
        ran = fleet.ours(f"{STATUS} --json")
        assert ran.code == 0, ran.output
        if {node["name"] for node in json.loads(ran.output)["nodes"]} == {"node-1", "node-2"}:
            return
    pytest.fail(ran.output)


def test_the_programs_run_without_rights_and_without_a_shell(fleet: Fleet) -> None:
    for service in ("gateway", "node-1"):
        container = fleet.container(service)
        look = (
            "import os; print(os.getuid(), os.access('/opt', os.W_OK),"
            " open('/proc/1/cmdline').read().split(chr(0))[1])"
        )
        said = fleet.podman("exec", container, "python3", "-c", look).output.split()
        assert said[:2] == ["10001", "False"]
        assert said[2].startswith("/opt/grpcerrors/bin/grpcerrors-")


def test_a_node_refuses_whoever_is_not_the_gateway(fleet: Fleet) -> None:
    """It asks for a certificate of the fleet, and for the token of the gateway."""
    inside = ("exec", fleet.container("gateway"), "grpcerrors")
    rpc = ("call", "node-1:50050", "backend.Backend/Status", "--tls-ca", "/run/secrets/ca.pem")
    stranger = fleet.podman(*inside, *rpc, "--wait", "2")
    assert stranger.code == 2, stranger.output
    pair = ("--tls-cert", "/run/secrets/gateway.pem", "--tls-key", "/run/secrets/gateway.key")
    assert "UNAUTHENTICATED" in fleet.podman(*inside, *rpc, *pair).output
    token = ("--token-file", "/run/secrets/calls.token")
    allowed = fleet.podman(*inside, *rpc, *pair, *token)
    assert allowed.code == 0, allowed.output


def test_a_model_moves_when_a_node_dies(fleet: Fleet) -> None:
    fleet.podman("kill", fleet.container("node-1"))
    try:
        for _ in range(5):
            ran = fleet.ours(CALL)
            assert ran.code == 0, ran.output
    finally:
        fleet.podman("start", fleet.container("node-1"))
        wait_until_healthy(fleet, "node-1")


def test_the_gateway_restarts_with_its_registry(fleet: Fleet) -> None:
    fleet.podman("restart", "-t", "30", fleet.container("gateway"))
    wait_until_healthy(fleet, "gateway")
    ran = fleet.ours(CALL)
    assert ran.code == 0, ran.output
