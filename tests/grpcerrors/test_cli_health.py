"""The command `grpcerrors health`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import ports
from tests.grpcerrors.support.command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

HEALTH = "grpc.health.v1.Health"

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("answer", "said", "code"),
    [
        (b"\x08\x01", "SERVING\n", 0),
        (b"\x08\x02", "NOT_SERVING\n", 1),
        (b"", "UNKNOWN\n", 1),
        (b"what", "UNKNOWN\n", 1),
    ],
)
def test_the_exit_code_is_the_health(answer: bytes, said: str, code: int, capsys: Capture) -> None:
    seen = []

    def check(request: bytes, context: Any) -> Iterator[bytes]:
        seen.append((request, dict(context.invocation_metadata())["key"]))
        yield answer

    with backend.serve({"Check": check}, service=HEALTH) as port:
        ran = run(capsys, "health", f"127.0.0.1:{port}", "--metadata", "key=value")
    assert (ran.out, ran.exit_code) == (said, code)
    assert seen == [(b"", "value")]


def test_a_server_without_the_service_is_not_healthy(capsys: Capture) -> None:
    with backend.serve({"Check": backend.answers}, service="some.Other") as port:
        ran = run(capsys, "health", f"127.0.0.1:{port}")
    assert (ran.out, ran.exit_code) == ("", 1)
    assert ran.err.startswith(f"{grpc.StatusCode.UNIMPLEMENTED.name}: ")


def test_a_server_that_is_not_there_is_another_matter(capsys: Capture) -> None:
    with ports.refusing() as port:
        ran = run(capsys, "health", f"127.0.0.1:{port}", "--wait", "0.2")
    assert ran.exit_code == 2
    assert "cannot reach" in ran.err
