"""What real proxies do with typed errors, by server: the tables of docs/how-to/proxies.md."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from grpcerrors import Evidence, classify, is_model_not_loaded
from tests.interop.support import errors, frames, ledgers, vectors
from tests.interop.support.proxies import BY_ERROR, BY_SERVER, PROXIES, does, proxying

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from tests.interop.support import peers

pytestmark = pytest.mark.interop

# Each shape, and whether the client has more to send when the error comes.
CALLS = [(shape, False) for shape in errors.SHAPES] + [("ClientStream", True), ("Bidi", True)]
AFTER = "build/mismatch"  # where the answer is a stream
# What the second table says of an error, and the row that is it.
ERRORS = {
    "a refusal": ledgers.REFUSAL,
    "`MODEL_LOADING`": "refuse/loading",
    "a refusal after a message of the answer": AFTER,
    "an error with `started`": ledgers.STARTED,
    "details without `grpcerrors-unexecuted`": "detect/details",
    "details of another domain": "detect/held, foreign details",
    '"model not loaded" in words': "detect/Go, status.Errorf",
    "a bare FAILED_PRECONDITION": "detect/Go, bare FAILED_PRECONDITION",
}
PEERS = {"grpc-go": "go", "grpc-js": "node", "grpc-java": "java", "grpc++": "cpp"}
ANSWERING = ["grpcio, sync", "grpcio, aio", *PEERS]  # with any row


def serving(
    server: str, ledger: ledgers.Ledger, building: dict[str, Future[peers.Peer]]
) -> AbstractContextManager[str]:
    python = {
        "grpcio, sync": errors.serving,
        "grpcio, aio": errors.serving_aio,
        "`ModelGuard`, sync": ledger.serving_guarded,
        "`ModelGuard`, aio": ledger.serving_guarded_aio,
    }
    if server in python:
        return python[server]()
    return building[PEERS[server]].result().serving()


@pytest.fixture(scope="module", params=BY_SERVER)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def address(
    server: str, ledger: ledgers.Ledger, building: dict[str, Future[peers.Peer]]
) -> Iterator[str]:
    with serving(server, ledger, building) as address:
        yield address


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def channel(proxy: str, address: str, good: str) -> Iterator[grpc.Channel]:
    """A channel to a proxy in front of a server that fails and one that does not."""
    with proxying(proxy, address, good) as target, grpc.insecure_channel(target) as channel:
        yield channel


@pytest.mark.parametrize(("shape", "waits"), CALLS)
def test_a_refusal(
    channel: grpc.Channel,
    ledger: ledgers.Ledger,
    server: str,
    proxy: str,
    shape: str,
    waits: bool,
) -> None:
    found = ledgers.outcome(channel, ledger, shape, ledgers.REFUSAL, waits=waits)
    expected = BY_SERVER[server][COLUMNS[proxy]]
    if proxy == "haproxy" and shape in {"ClientStream", "Bidi"}:
        expected = BY_SERVER[server][RESETS]
        if not waits:  # what it does depends on whether it has seen the client's end
            assert found in {expected, "intact"}
            return
    assert found == expected
    again = "yes" if found == "sent again" else "no"
    assert does(proxy, "sends a refused request to another replica") == again


COLUMNS = {"envoy": "Envoy", "nginx": "nginx", "haproxy": "HAProxy"}
RESETS = "HAProxy, the client still sends"


def test_the_first_frame_of_a_refusal(server: str, address: str) -> None:
    seen = {frames.is_trailers_only(address, shape, ledgers.REFUSAL) for shape in errors.SHAPES}
    assert seen == {BY_SERVER[server]["trailers-only"] == "yes"}


@pytest.mark.parametrize("server", ANSWERING, indirect=True)
@pytest.mark.parametrize("proxy", ["envoy"], indirect=True)
@pytest.mark.parametrize("error", ERRORS)
def test_envoy_sends_again_what_was_not_executed_and_only_that(
    channel: grpc.Channel, ledger: ledgers.Ledger, error: str
) -> None:
    expected = BY_ERROR[error]["Envoy"]
    for shape, waits in CALLS:
        row = ERRORS[error]
        if (
            row.startswith("build/")
            and shape in {"Unary", "ClientStream"}
            and row != ledgers.STARTED
        ):
            continue  # no message comes before the error
        assert ledgers.outcome(channel, ledger, shape, row, waits=waits) == expected


@pytest.fixture(scope="module")
def target(proxy: str, address: str) -> Iterator[str]:
    with proxying(proxy, address) as target:
        yield target


@pytest.mark.parametrize("server", ANSWERING, indirect=True)
@pytest.mark.parametrize("kind", ["build", "refuse"])
def test_every_error_passes_a_proxy(target: str, proxy: str, kind: str) -> None:
    assert does(proxy, "passes details and plain trailers unchanged") == "yes"

    def check(shape: str, name: str) -> None:
        row = f"{kind}/{name}"
        answer = errors.call(channel, shape, row)
        found = ledgers.what(ledgers.Result(answer.error, answer.received, []), row)
        if found == "intact":
            assert answer.received == errors.received(row, shape)
        else:
            assert shape in {"ClientStream", "Bidi"}
            assert "see" in does(proxy, "passes code and message unchanged")
        verdict = classify(answer.error)
        assert verdict.condition is vectors.CONDITIONS[vectors.BUILD[name]["condition"]]
        assert verdict.evidence is Evidence.DETAILS

    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(16) as pool:
        checks = [
            pool.submit(check, shape, name) for shape in errors.SHAPES for name in vectors.BUILD
        ]
        for each in checks:
            each.result()


@pytest.mark.parametrize("server", ANSWERING[:1], indirect=True)
async def test_every_error_passes_a_proxy_to_an_aio_client(target: str, proxy: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        for shape in errors.SHAPES:
            for name in vectors.BUILD:
                row = f"build/{name}"
                answer = await errors.call_aio(channel, shape, row)
                found = ledgers.what(ledgers.Result(answer.error, answer.received, []), row)
                streams = shape in {"ClientStream", "Bidi"}
                assert found == "intact" or (streams and proxy == "haproxy")
                assert classify(answer.error).evidence is Evidence.DETAILS


def test_a_proxy_without_its_upstream_is_not_a_missing_model(proxy: str) -> None:
    with errors.serving() as gone:
        pass
    with proxying(proxy, gone) as target, grpc.insecure_channel(target) as channel:
        error = errors.call(channel, "Unary", "build/mismatch").error
    assert not is_model_not_loaded(error)
