"""The clients of Triton and KServe talk to our host, with their own generated code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends.support.hosting import ROOT, HostProcess, host

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop

PROGRAMS = Path(__file__).parent / "support"
# Their pins conflict with ours, so each gets an environment of its own.
CLIENTS = {"with_triton.py": "tritonclient[grpc]==2.73.0", "with_kserve.py": "kserve==0.21.0"}
NEEDS = ("grpcio-status", "googleapis-common-protos")


@pytest.fixture(scope="module")
def echo() -> Iterator[HostProcess]:
    with host("echo") as process:
        yield process


def run(program: str, address: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "uv", "run", "--quiet", "--no-project", "--isolated"]
    command += ["--python", sys.executable]
    for package in (CLIENTS[program], *NEEDS):
        command += ["--with", package]
    rooms = os.pathsep.join(map(str, (ROOT, ROOT / "protocol")))
    done = subprocess.run(
        [*command, "python", str(PROGRAMS / program), address],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "PYTHONPATH": rooms},
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.timeout(700)
@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_loads_calls_unloads_and_gets_the_typed_error(
    echo: HostProcess, program: str
) -> None:
    said = run(program, echo.address)
    code = "StatusCode.FAILED_PRECONDITION"
    missing = [code, "echo: model not loaded", "MODEL_NOT_LOADED", "details"]
    assert said["live"]
    assert said["missing"] == said["gone"] == missing
    assert said["ready"]
    assert said.get("index", ["m"]) == ["m"]
    assert said["inputs"] == ["text"]
    assert said["answer"] == ["a", "ö"]
    code, text, *verdict = said["bad"]
    assert (code, verdict) == ("StatusCode.INVALID_ARGUMENT", [None, None])
    assert "got the input text: FP32 [1]; send text: BYTES [-1]" in text
