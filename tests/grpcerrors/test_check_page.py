"""docs/check.md shows what the command does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import grpc
import pytest

from grpcerrors.cli._probe import Finding
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
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--json")
    (shown,) = map(json.loads, blocks("json"))
    assert json.loads(ran.out) == shown | {"address": f"127.0.0.1:{port}"}


def test_every_option_is_on_the_page(capsys: Capture) -> None:
    listed = run(capsys, "check", "--help").out
    options = set(re.findall(r"^  (--[a-z-]+)", listed, re.MULTILINE)) - {"--help"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)", PAGE.read_text(), re.MULTILINE))


def test_every_verdict_is_on_the_page() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert {finding.value for finding in Finding} <= set(rows)
