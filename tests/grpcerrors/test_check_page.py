"""docs/reference/check.md shows what the command does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import grpc
import pytest

from grpcerrors.cli._findings import Finding
from grpcerrors.cli._probe import NO_MODEL
from grpcerrors.cli._protocols import PROTOCOLS
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import ports
from tests.grpcerrors.support.command import run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "check.md"

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs do not travel with the wheel")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_error_is_explained_as_shown(capsys: Capture) -> None:
    (command,) = (block for block in blocks("sh") if block.startswith("grpcerrors explain"))
    (output,) = blocks("text")
    assert run(capsys, *shlex.split(command)[1:]) == (0, output, "")


def test_the_report_has_the_keys_that_are_shown(capsys: Capture) -> None:
    rpcs = {"Predict": backend.aborts(grpc.StatusCode.FAILED_PRECONDITION, "x: model not loaded")}
    reflection = backend.describes("v1", backend.SERVICE, ["Predict", "Telepathy"])
    with backend.serve(rpcs, reflection) as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--format", "json")
    (shown,) = map(json.loads, blocks("json"))
    assert json.loads(ran.out.replace(f"127.0.0.1:{port}", "127.0.0.1:50051")) == shown


def test_what_is_called_is_on_the_page() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    for known in PROTOCOLS.values():
        (row,) = (row for row in rows if row.startswith(f"| `{known.name}` |"))
        named = set(re.findall(r"`([A-Z]\w+)`", row))
        assert {*known.asked} <= named
        assert named - {*known.asked} <= known.called
        assert f"`{known.protocol.service}`" in row
    assert f"`{NO_MODEL}`" in PAGE.read_text()


def test_every_verdict_is_on_the_page() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert {finding.value for finding in Finding} <= set(rows)


BACKEND = """#!{python}
import sys
from concurrent import futures
import grpc
from grpcerrors import ModelGuard
from grpcerrors_protocol import backend_pb2 as pb, backend_pb2_grpc as rpc

class Backend(rpc.BackendServicer):
    def Predict(self, request, context):
        return pb.Reply()

server = grpc.server(futures.ThreadPoolExecutor(2), interceptors={guards})
rpc.add_BackendServicer_to_server(Backend(), server)
server.add_insecure_port(sys.argv[-1])
server.start()
server.wait_for_termination()
"""


def jobs() -> dict[str, str]:
    """Return the shell commands of the two recipes, without those that install."""
    (job,) = (block for block in blocks("sh") if "junit" in block)
    (workflow,) = blocks("yaml")
    steps = re.findall(r"^ +- run: (.*)$", workflow, re.MULTILINE)
    return {
        "plain": job,
        "github": "\n".join(step for step in steps if not step.startswith("pip install")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("guards", ['[ModelGuard("x")]', "[]"], ids=["guarded", "bare"])
@pytest.mark.parametrize("job", ["plain", "github"])
def test_the_recipes_for_ci_work_as_written(tmp_path: Path, job: str, guards: str) -> None:
    program = tmp_path / "backend"
    program.write_text(BACKEND.format(python=sys.executable, guards=guards))
    program.chmod(0o755)
    with ports.refusing() as free:
        port = str(free)
    summary = tmp_path / "summary.md"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-e", "-c", f"trap 'kill $(jobs -p)' EXIT\n{jobs()[job]}".replace("50051", port)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == int(guards == "[]"), ran.stderr
    if job == "plain":
        (suite,) = ET.fromstring((tmp_path / "check.xml").read_text())
        assert suite.get("failures") == str(int(guards == "[]"))
    else:
        verdict = "not conforming" if guards == "[]" else "conforming"
        assert summary.read_text().startswith(f"### `grpcerrors check`: {verdict}\n")
