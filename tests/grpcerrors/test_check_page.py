"""docs/check.md and docs/call.md show what the commands do."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import grpc
import pytest

from grpcerrors.cli._findings import Finding
from grpcerrors.cli._probe import NO_MODEL
from grpcerrors.cli._protocols import PROTOCOLS
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support.command import run

PAGE = Path(__file__).parents[2] / "docs" / "check.md"

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


@pytest.mark.parametrize("command", ["check", "call"])
def test_every_option_is_on_the_page(capsys: Capture, command: str) -> None:
    listed = run(capsys, command, "--help").out
    options = set(re.findall(r"^  (--[a-z-]+)", listed, re.MULTILINE)) - {"--help"}
    page = PAGE.with_name(f"{command}.md").read_text()
    assert options == set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE))


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
