"""What the log of a host says about a call that failed."""

from __future__ import annotations

import json

import grpc
import pytest

from grpcerrors_protocol import backend_pb2 as pb
from tests.backends.support.hosting import host

pytestmark = pytest.mark.slow


def test_a_call_that_failed_is_logged_with_model_generation_and_request() -> None:
    with host("echo") as process:
        about = (("x-model-id", "m"), ("x-request-id", "r-1"))
        process.load("m", "fail_every:1", metadata=(("x-model-id", "m"), ("x-generation", "7")))
        with pytest.raises(grpc.RpcError):
            process.stub.Predict(pb.PredictOptions(Prompt="hi"), metadata=about)
        process.terminate()
        lines = [json.loads(line) for line in process.log().splitlines()]
    (line,) = [line for line in lines if line["event"] == "call failed"]
    assert line["request_id"] == "r-1"
    assert line["model"] == "m"
    assert line["generation"] == 7
    assert "call 1 fails because of fail_every" in line["exception"]
