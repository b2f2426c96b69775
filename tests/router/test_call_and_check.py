"""`grpcerrors call` and `grpcerrors check` on a router."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from grpcerrors_protocol import backend_pb2 as pb
from tests.router.support.rawnode import stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.router.support.cli import Run


async def grpcerrors(*arguments: str) -> Run:
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "grpcerrors", *arguments, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.slow
async def test_a_router_is_called_and_not_checked(tmp_path: Path) -> None:
    async with stack(tmp_path) as served:
        served.node.script.replies = (pb.Reply(message=b"hi").SerializeToString(),)
        predict = ("call", served.address, "backend.Backend/Predict", "--data", '{"Prompt": "hi"}')
        (answered, unnamed, unknown, checked) = await asyncio.gather(
            grpcerrors(*predict, "--model", "m"),
            grpcerrors(*predict),
            grpcerrors(*predict, "--model", "nobody"),
            grpcerrors("check", served.address),
        )
        (seen,) = served.node.seen
    assert answered == (0, '{"message": "aGk="}\n', "")
    assert seen.requests == [pb.PredictOptions(Prompt="hi").SerializeToString()]
    for (code, out, err), reason in ((unnamed, "NO_MODEL_KEY"), (unknown, "UNKNOWN_MODEL")):
        assert (code, out) == (1, "")
        assert f"grpcerrors/{reason}" in err
        assert "  trailer grpc-status-details-bin: " in err
    code, out, err = checked
    assert (code, out) == (2, "")
    assert f"{served.address} is a router" in err
