"""Typed errors through real proxies: the details arrive unchanged, up to the maximum length."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from grpcerrors import Evidence, classify, is_model_not_loaded
from tests.interop.support import errors, vectors
from tests.interop.support.proxies import PROXIES, Proxy, haproxy, proxying

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with errors.serving() as address:
        yield address


@pytest.fixture(scope="module", params=PROXIES, ids=lambda proxy: proxy.__name__)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    chosen: Proxy = request.param
    return chosen


@contextmanager
def before(proxy: Proxy, upstream: str) -> Iterator[str]:
    # pytest's folder is too long: the path of a Unix socket has at most 107 bytes.
    with (
        tempfile.TemporaryDirectory() as folder,
        proxying(proxy, upstream, Path(folder)) as target,
    ):
        yield target


@pytest.fixture(scope="module")
def target(proxy: Proxy, upstream: str) -> Iterator[str]:
    with before(proxy, upstream) as target:
        yield target


@pytest.fixture(scope="module")
def channel(target: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target) as channel:
        yield channel


def check(answer: errors.Answer, proxy: Proxy, name: str, shape: str) -> None:
    row = vectors.BUILD[name]
    assert [value.hex() for value in answer.details] == [row["details_hex"]]
    verdict = classify(answer.error)
    assert verdict.condition is vectors.CONDITIONS[row["condition"]]
    assert verdict.evidence is Evidence.DETAILS
    # HAProxy resets a call if the server ends it before the client has sent everything. grpcio then
    # takes code and text from the reset, so only the details in the trailers are right.
    reset = answer.error.code() is grpc.StatusCode.CANCELLED
    if not (reset and proxy is haproxy and shape in {"ClientStream", "Bidi"}):
        assert answer.error.code() is vectors.CODES[row["code"]]
        assert answer.error.details() == row["message"]
        assert answer.received == (1 if shape in {"ServerStream", "Bidi"} else 0)


@pytest.mark.parametrize("shape", errors.SHAPES)
@pytest.mark.parametrize("name", vectors.BUILD)
def test_an_error_passes_a_proxy(
    channel: grpc.Channel, proxy: Proxy, name: str, shape: str
) -> None:
    check(errors.call(channel, shape, f"build/{name}"), proxy, name, shape)


@pytest.mark.parametrize("shape", errors.SHAPES)
async def test_an_error_passes_a_proxy_to_an_aio_client(
    target: str, proxy: Proxy, shape: str
) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        for name in vectors.BUILD:
            answer = await errors.call_aio(channel, shape, f"build/{name}")
            check(answer, proxy, name, shape)


def test_a_proxy_without_its_upstream_is_not_a_missing_model(proxy: Proxy) -> None:
    with errors.serving() as gone:
        pass
    with before(proxy, gone) as target, grpc.insecure_channel(target) as channel:
        error = errors.call(channel, "Unary", "build/mismatch").error
    assert not is_model_not_loaded(error)
