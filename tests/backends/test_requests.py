"""The limit of the bytes of all requests that a host is serving."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from grpcerrors import ContractError
from grpcerrors_backends.host.requests import Requests
from grpcerrors_protocol import backend_pb2 as pb


def sized(size: int) -> pb.PredictOptions:
    request = pb.PredictOptions(Prompt="x" * (size - 2))
    assert request.ByteSize() == size
    return request


def test_requests_count_until_they_are_answered() -> None:
    requests = Requests("echo", 200)
    with ExitStack() as first:
        first.enter_context(requests.holding(sized(120)))
        first.enter_context(requests.holding(sized(80)))
        assert requests.bytes == 200
        with pytest.raises(ContractError) as caught, requests.holding(sized(10)):
            pass
        assert caught.value.retry_after == 1.0
        assert "200 bytes" in str(caught.value)
    assert requests.bytes == 0
    with requests.holding(sized(120)):
        pass


def test_one_request_always_fits_and_a_stream_counts_nothing() -> None:
    requests = Requests("echo", 50)
    with requests.holding(sized(120)):
        assert requests.bytes == 120
    with requests.holding(iter(())):
        assert requests.bytes == 0
