"""deploy/systemd: the units, on a machine of their own with a real systemd."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.interop.support import deployment, podman

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not podman.usable(), reason="needs root, podman and podman-compose"),
]
MACHINE = f"grpcerrors-machine-{os.getpid()}"
UNITS = ("grpcerrors-router", "grpcerrors-backend@echo")
ETC = "/etc/grpcerrors"


def on_machine(command: str, *, check: bool = True) -> str:
    return podman.run("podman", "exec", MACHINE, "sh", "-ec", command, check=check)


def call(model: str = "hello") -> str:
    program = "/opt/grpcerrors/bin/grpcerrors call localhost:50050 backend.Backend/Predict"
    options = f"--model {model} --tls-ca {ETC}/ca.pem --token-file {ETC}/caller.token"
    return on_machine(f'{program} {options} --data \'{{"Prompt": "hi"}}\'', check=False)


def wait_for_an_answer() -> None:
    for _ in range(30):  # a node joins soon after it is ready
        if "message" in call():
            return
    pytest.fail(call() + "".join(map(journal, UNITS)))


def journal(unit: str) -> str:
    return on_machine(
        f"journalctl --no-pager -n 50 -u {unit}; systemctl status {unit}", check=False
    )


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the units with the commands of deploy/README.md."""
    podman.build()
    podman.build_machine()
    (secrets,) = deployment.SECRETS
    folder = deployment.copy(tmp_path_factory.mktemp("machine"), secrets)
    command = ("podman", "run", "-d", "--name", MACHINE, "--systemd=always", "--privileged")
    podman.run(*command, f"--volume={folder}:/clone:ro", "--workdir=/clone", podman.MACHINE)
    try:
        on_machine("until systemctl is-system-running | grep -Eq 'run|degr'; do sleep 0.2; done")
        environment, *installed, user, etc, units, reload = deployment.INSTALL
        assert (environment, len(installed)) == ("python3 -m venv /opt/grpcerrors", 2)
        copied = f"cp deploy/secrets/* deploy/models.toml {ETC}; rm {ETC}/ca.key"
        readable = f"chgrp grpcerrors {ETC}/*; chmod 640 {ETC}/*"
        on_machine(f"{user}; {etc}; {units}; {reload}; {copied}; {readable}")
        yield
    finally:
        podman.run("podman", "rm", "-f", "-t", "5", MACHINE)


@pytest.fixture(scope="module")
def _started(machine: None) -> None:
    for unit in UNITS:
        said = on_machine(f"systemctl enable --now {unit} || exit 1", check=False)
        assert on_machine(f"systemctl is-active {unit}", check=False) == "active\n", said + journal(
            unit
        )


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_no_mistake(unit: str) -> None:
    assert on_machine(f"systemd-analyze verify --man=no {unit}.service 2>&1") == ""


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_has_few_rights(unit: str) -> None:
    said = on_machine(f"systemd-analyze security --no-pager {unit}.service")
    level = re.search(r"Overall exposure level for .*: (\S+)", said)
    assert level is not None
    assert float(level[1]) < 2, said


@pytest.mark.usefixtures("_started")
def test_the_fleet_serves() -> None:
    wait_for_an_answer()


@pytest.mark.usefixtures("_started")
def test_a_reload_reads_the_models_again() -> None:
    one_more = r'printf "[models.other]\nbackend = \"echo\"\n" >>'
    on_machine(f"{one_more} {ETC}/models.toml; {deployment.UNITS[2]}")
    assert on_machine("systemctl is-active grpcerrors-router") == "active\n"
    for _ in range(30):
        if "message" in (said := call(model="other")):
            return
    pytest.fail(said + journal("grpcerrors-router"))


@pytest.mark.usefixtures("_started")
@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_program_is_started_again(unit: str) -> None:
    restarts = f"systemctl show -P NRestarts {unit}"
    before = int(on_machine(restarts))
    on_machine(f"systemctl kill -s KILL {unit}")
    on_machine(f"until [ $({restarts}) -gt {before} ]; do sleep 0.2; done")
    on_machine(f"until systemctl is-active {unit}; do sleep 0.2; done")
    wait_for_an_answer()
