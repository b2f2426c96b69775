"""What real proxies do with typed errors, by server: the tables of docs/proxies.md."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import grpcerrors
import grpcerrors.aio
from grpcerrors import Evidence, classify, is_model_not_loaded
from tests.interop.support import errors, frames, ledgers, vectors
from tests.interop.support.proxies import PROXIES, proxying, tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from tests.interop.support import peers

pytestmark = pytest.mark.interop

BY_SERVER, BY_ERROR = tables()
# Each shape, and whether the client has more to send when the error comes.
CALLS = [(shape, False) for shape in errors.SHAPES] + [("ClientStream", True), ("Bidi", True)]
STARTED = "build/not loaded, handler had begun"
REFUSAL = "refuse/not loaded"  # which is what a guard of that name answers
GUARD = vectors.BUILD["not loaded"]["fields"]["backend"]
# What the second table says of an error, and the row that is it.
ERRORS = {
    "a refusal": REFUSAL,
    "`MODEL_LOADING`": "refuse/loading",
    "a refusal after a message of the answer": "build/mismatch",
    "an error with `started`": STARTED,
    "details without `grpcerrors-unexecuted`": "detect/details",
    "details of another domain": "detect/held, foreign details",
    '"model not loaded" in words': "detect/Go, status.Errorf",
    "a bare FAILED_PRECONDITION": "detect/Go, bare FAILED_PRECONDITION",
}
PEERS = {"grpc-go": "go", "grpc-js": "node", "grpc-java": "java", "grpc++": "cpp"}
ANSWERING = ["grpcio, sync", "grpcio, aio", *PEERS]  # with any row
TRIES = 40  # of which a proxy sends every second one to the server that refuses


@pytest.fixture(scope="module")
def ledger() -> ledgers.Ledger:
    return ledgers.Ledger()


@pytest.fixture(scope="module")
def good(ledger: ledgers.Ledger) -> Iterator[str]:
    with errors.serving(ledger.behaviours) as address:
        yield address


def serving(
    server: str, ledger: ledgers.Ledger, building: dict[str, Future[peers.Peer]]
) -> AbstractContextManager[str]:
    protocol = grpcerrors.Protocol("interop.Errors")
    match server:
        case "grpcio, sync":
            return errors.serving()
        case "grpcio, aio":
            return errors.serving_aio()
        case "`ModelGuard`, sync":
            guard: Any = grpcerrors.ModelGuard(GUARD, protocol=protocol)
            return errors.serving(ledger.behaviours, [guard])
        case "`ModelGuard`, aio":
            guard = grpcerrors.aio.ModelGuard(GUARD, protocol=protocol)
            return errors.serving_aio(ledger.aio_behaviours, [guard])
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


def outcome(
    channel: grpc.Channel, ledger: ledgers.Ledger, shape: str, row: str, *, waits: bool
) -> str:
    """Say what became of a call that met the server that fails."""
    for _ in range(TRIES):
        result = ledgers.call(channel, ledger, shape, row, waits=waits)
        if result.error is None and result.runs[0].attempt == 1:
            continue  # it met the other server first
        return "sent again" if result.error is None else what(result, row)
    msg = "the proxy has sent none of the calls to the server that fails, or each of them again"
    raise AssertionError(msg)


def what(result: ledgers.Result, row: str) -> str:
    """Say how an error has arrived. No call may end with one after it was executed."""
    assert not result.runs
    kind, _, name = row.partition("/")
    detects = kind == "detect"
    given = (vectors.DETECT if detects else vectors.BUILD)[name]
    trailers = result.error.trailing_metadata() or ()
    details = [value.hex() for key, value in trailers if key == errors.DETAILS]
    plain = [[key, value] for key, value in trailers if key.startswith("grpcerrors-")]
    assert details == ((given["details_hex"] or []) if detects else [given["details_hex"]])
    assert plain == given["trailers"]
    if result.error.code() is grpc.StatusCode.CANCELLED:
        return "CANCELLED, trailers intact"
    assert result.error.code() is vectors.CODES[given["code"]]
    assert result.error.details() == given["message"]
    return "intact"


@pytest.mark.parametrize(("shape", "waits"), CALLS)
def test_a_refusal(
    channel: grpc.Channel,
    ledger: ledgers.Ledger,
    server: str,
    proxy: str,
    shape: str,
    waits: bool,
) -> None:
    found = outcome(channel, ledger, shape, REFUSAL, waits=waits)
    expected = BY_SERVER[server][COLUMNS[proxy]]
    if proxy == "haproxy" and shape in {"ClientStream", "Bidi"}:
        expected = BY_SERVER[server][RESETS]
        if not waits:  # what it does depends on whether it has seen the client's end
            assert found in {expected, "intact"}
            return
    assert found == expected


COLUMNS = {"envoy": "Envoy", "nginx": "nginx", "haproxy": "HAProxy"}
RESETS = "HAProxy, the client still sends"


def test_the_first_frame_of_a_refusal(server: str, address: str) -> None:
    seen = {frames.is_trailers_only(address, shape, REFUSAL) for shape in errors.SHAPES}
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
        if row.startswith("build/") and shape in {"Unary", "ClientStream"} and row != STARTED:
            continue  # no message comes before the error
        assert outcome(channel, ledger, shape, row, waits=waits) == expected


@pytest.fixture(scope="module")
def target(proxy: str, address: str) -> Iterator[str]:
    with proxying(proxy, address) as target:
        yield target


@pytest.mark.parametrize("server", ANSWERING, indirect=True)
@pytest.mark.parametrize("kind", ["build", "refuse"])
def test_every_error_passes_a_proxy(target: str, proxy: str, kind: str) -> None:
    def check(shape: str, name: str) -> None:
        row = f"{kind}/{name}"
        answer = errors.call(channel, shape, row)
        found = what(ledgers.Result(answer.error, answer.received, []), row)
        if found == "intact":
            assert answer.received == errors.received(row, shape)
        else:
            assert (proxy, shape) in {("haproxy", "ClientStream"), ("haproxy", "Bidi")}
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
                found = what(ledgers.Result(answer.error, answer.received, []), row)
                streams = shape in {"ClientStream", "Bidi"}
                assert found == "intact" or (streams and proxy == "haproxy")
                assert classify(answer.error).evidence is Evidence.DETAILS


def test_a_proxy_without_its_upstream_is_not_a_missing_model(proxy: str) -> None:
    with errors.serving() as gone:
        pass
    with proxying(proxy, gone) as target, grpc.insecure_channel(target) as channel:
        error = errors.call(channel, "Unary", "build/mismatch").error
    assert not is_model_not_loaded(error)
