"""Reaching a server, or saying why it cannot be reached."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import model_not_loaded
from grpcerrors.cli import _connection
from tests.grpcerrors.support import backend_server as backend
from tests.grpcerrors.support import ports
from tests.grpcerrors.support.command import check, run

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPED = backend.fails(model_not_loaded("x"))

Capture = pytest.CaptureFixture[str]


def test_metadata_opens_a_backend_that_asks_for_a_token(capsys: Capture) -> None:
    seen = []

    def guarded(request: bytes, context: Any) -> Iterator[bytes]:
        seen.append(given := dict(context.invocation_metadata()))
        if given.get("authorization") != "Bearer t=1":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token")
        yield from TYPED(request, context)

    with backend.serve({"Predict": guarded}) as port:
        refused = run(capsys, "check", f"127.0.0.1:{port}", "--method", "Predict")
        token = ("--metadata", "Authorization=Bearer t=1", "--metadata", "trace-bin=AP8")
        checked = check(capsys, port, "--method", "Predict", *token)
    assert refused.exit_code == 1
    assert "--metadata 'authorization=Bearer TOKEN'" in refused.out
    assert (checked.exit_code, checked.verdicts) == (0, {"Predict": "typed"})
    assert seen[-1]["trace-bin"] == b"\x00\xff"


def test_a_port_that_never_speaks_is_given_up(capsys: Capture) -> None:
    with ports.silent() as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--wait", "0.5")
    assert ran.exit_code == 2
    assert "did not speak gRPC within 0.5 s" in ran.err


async def test_a_failure_that_is_over_has_no_cause() -> None:
    """The server came up between the failure and the call that asks for its cause."""
    with backend.serve({"Predict": TYPED}) as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await _connection._cause(channel, 30) == ""
        health = {"Check": backend.answers}
    with backend.serve(health, service="grpc.health.v1.Health") as port:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await _connection._cause(channel, 30) == ""


def test_no_server_is_told(capsys: Capture) -> None:
    with ports.refusing() as port:
        ran = run(capsys, "check", f"127.0.0.1:{port}", "--wait", "0.5")
    assert ran.exit_code == 2
    assert ran.err.startswith(f"Error: cannot reach 127.0.0.1:{port}: ")
    assert "start the backend first" in ran.err
    assert ran.out == ""


def test_no_server_is_told_to_machines_too(capsys: Capture) -> None:
    with ports.refusing() as port:
        checked = check(capsys, port, "--wait", "0.5")
    assert checked.exit_code == 2
    assert set(checked.report) == {"version", "address", "error"}
    assert checked.report["address"] == f"127.0.0.1:{port}"
    assert "cannot reach" in checked.report["error"]


def test_a_server_that_is_still_starting_is_waited_for(capsys: Capture) -> None:
    with ports.refusing() as port:
        pass
    refused = threading.Event()

    def start() -> None:
        # The first attempts to connect have failed by then.
        refused.wait(1)
        with backend.serve({"Predict": TYPED}, port=port):
            done.wait(60)

    done = threading.Event()
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(start)
        try:
            checked = check(capsys, port, "--method", "Predict", "--wait", "60")
        finally:
            done.set()
    assert checked.exit_code == 0


def test_a_tls_failure_of_another_kind_gets_the_common_hint() -> None:
    server = _connection.Server("127.0.0.1:1", tls=_connection.Trust())
    assert "start the backend first" in _connection._hint(server, "no route to host")
