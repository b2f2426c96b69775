"""What proxies send again and what not: under load, at their limits, and if a server is gone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from grpcerrors import classify, is_model_not_loaded
from tests.interop.support import errors, frames, ledgers
from tests.interop.support.ledgers import REFUSAL, STARTED, Ledger
from tests.interop.support.proxies import PROXIES, does, proxying

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.interop

ANY_LENGTH = [("grpc.max_receive_message_length", -1)]
# What the page warns of.
UNSAFE = {
    "envoy": {"retriable-headers,connect-failure": "reset"},
    "nginx": {"grpc_next_upstream error;": "grpc_next_upstream error http_503 non_idempotent;"},
    "haproxy": {"retry-on conn-failure": "retry-on all-retryable-errors"},
}


@pytest.fixture(scope="module")
def guarded(ledger: Ledger) -> Iterator[str]:
    with ledger.serving_guarded() as address:
        yield address


@pytest.fixture(scope="module")
def guarded_aio(ledger: Ledger) -> Iterator[str]:
    with ledger.serving_guarded_aio() as address:
        yield address


@pytest.fixture(scope="module")
def failing() -> Iterator[str]:
    with errors.serving() as address:
        yield address


@pytest.fixture(scope="module")
def failing_aio() -> Iterator[str]:
    with errors.serving_aio() as address:
        yield address


@pytest.mark.parametrize("shape", ["Unary", "ServerStream"])
@pytest.mark.parametrize("guard", ["guarded", "guarded_aio"])
def test_envoy_heals_every_refusal_by_a_guard(
    request: pytest.FixtureRequest, ledger: Ledger, good: str, guard: str, shape: str
) -> None:
    calls = 400
    with (
        proxying("envoy", request.getfixturevalue(guard), good) as target,
        grpc.insecure_channel(target) as channel,
        ThreadPoolExecutor(16) as pool,
    ):
        results = list(
            pool.map(lambda _: ledgers.call(channel, ledger, shape, REFUSAL), range(calls))
        )
    assert [result.error for result in results] == [None] * calls
    healed = [result for result in results if result.runs[0].attempt > 1]
    assert len(healed) > calls / 10


@pytest.mark.parametrize("shape", ["Unary", "ServerStream"])
@pytest.mark.parametrize("server", ["failing", "failing_aio"])
def test_envoy_sends_no_started_request_again_among_refusals(
    request: pytest.FixtureRequest, ledger: Ledger, good: str, server: str, shape: str
) -> None:
    rows = [REFUSAL, STARTED] * 200
    with (
        proxying("envoy", request.getfixturevalue(server), good) as target,
        grpc.insecure_channel(target) as channel,
        ThreadPoolExecutor(16) as pool,
    ):
        results = list(pool.map(lambda row: ledgers.call(channel, ledger, shape, row), rows))
    refused, started = results[::2], results[1::2]
    assert [result.error for result in refused] == [None] * len(refused)
    assert max(result.runs[0].attempt for result in refused) > 1
    failed = [result for result in started if result.error]
    assert len(failed) > len(started) / 10
    assert {ledgers.what(result, STARTED) for result in failed} == {"intact"}
    assert {result.runs[0].attempt for result in started if not result.error} == {1}


def test_envoy_keeps_requests_up_to_its_limit(guarded: str, good: str, ledger: Ledger) -> None:
    with (
        proxying("envoy", guarded, good) as target,
        grpc.insecure_channel(target, ANY_LENGTH) as channel,
    ):
        for length, again in ((3_000_000, True), (5_000_000, False)):
            results = [ledgers.call(channel, ledger, "Unary", "x" * length) for _ in range(6)]
            assert any(result.error for result in results) != again
            assert any(run.attempt > 1 for result in results for run in result.runs) == again
            assert all(is_model_not_loaded(result.error) for result in results if result.error)


def test_envoy_gives_up_if_every_replica_loads(failing: str, failing_aio: str) -> None:
    with (
        proxying("envoy", failing, failing_aio) as target,
        grpc.insecure_channel(target) as channel,
    ):
        error = errors.call(channel, "Unary", "refuse/loading").error
    assert dict(error.trailing_metadata())[ledgers.ATTEMPT] == "4"  # one, and num_retries
    verdict = classify(error)
    assert verdict.condition
    assert verdict.condition.reason == "MODEL_LOADING"
    assert verdict.retry_after == 1.0


@pytest.mark.parametrize(
    "limit",
    ["max_retries: 1", "retry_budget: {budget_percent: {value: 10}, min_retry_concurrency: 1}"],
)
def test_a_healed_call_counts_as_a_retry_until_its_answer_begins(
    guarded: str, good: str, ledger: Ledger, limit: str
) -> None:
    ended = threading.Event()

    def messages() -> Iterator[StringValue]:
        yield StringValue(value="stream")
        assert ended.wait(errors.SECONDS)

    with (
        proxying("envoy", guarded, good, {"max_retries: 1000": limit}) as target,
        grpc.insecure_channel(target) as channel,
    ):
        method: Any = errors.method(channel, "ClientStream")
        calls = []
        try:
            attempt = 1
            while attempt == 1:  # it met the other server first
                name = ledger.new_call()
                metadata = ((ledgers.CALL, name),)
                calls.append(method.future(messages(), metadata=metadata, timeout=errors.SECONDS))
                assert ledger.begun(name).wait(errors.SECONDS)
                attempt = ledger.runs[name][0].attempt
            assert ledgers.outcome(channel, ledger, "Unary", REFUSAL) == "intact"
        finally:
            ended.set()
        for each in calls:
            each.result()
        assert ledgers.outcome(channel, ledger, "Unary", REFUSAL) == "sent again"


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_request_is_not_sent_again_if_the_server_crashes(proxy: str) -> None:
    assert executions(proxy, {}) == 1
    assert does(proxy, "sends a request again that may have been executed") == "no"


@pytest.mark.parametrize("proxy", UNSAFE)
def test_other_retry_conditions_execute_requests_twice(proxy: str) -> None:
    executed = executions(proxy, UNSAFE[proxy])
    if proxy == "nginx":  # it never keeps a gRPC request that it has begun to send
        assert executed == 1
    else:
        assert executed > 1


def executions(proxy: str, changes: Mapping[str, str]) -> int:
    """Call two servers that crash; return how often the request has been executed."""
    with (
        frames.serving_crashes() as (first, firsts),
        frames.serving_crashes() as (second, seconds),
        proxying(proxy, first, second, changes) as target,
        grpc.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel,
    ):
        error = errors.call(channel, "Unary", "any").error
    assert not is_model_not_loaded(error)
    return len(firsts) + len(seconds)


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_no_retry_condition_of_others_heals_a_refusal(
    proxy: str, guarded: str, good: str, ledger: Ledger
) -> None:
    with (
        proxying(proxy, guarded, good, UNSAFE[proxy]) as target,
        grpc.insecure_channel(target) as channel,
    ):
        for shape in ("Unary", "ServerStream"):
            assert ledgers.outcome(channel, ledger, shape, REFUSAL) == "intact"


def test_envoy_sends_unproven_errors_again_if_asked_to(
    failing: str, good: str, ledger: Ledger
) -> None:
    change = {"retriable-headers,connect-failure": "retriable-headers,unavailable"}
    for unsafe, then in (({}, "intact"), (change, "sent again")):
        with (
            proxying("envoy", failing, good, unsafe) as target,
            grpc.insecure_channel(target) as channel,
        ):
            assert ledgers.outcome(channel, ledger, "Unary", "detect/UNAVAILABLE") == then


def test_no_client_can_make_envoy_send_more_again(failing: str, good: str, ledger: Ledger) -> None:
    asks = (
        ("x-envoy-retry-grpc-on", "unavailable"),
        ("x-envoy-retry-on", "reset,5xx"),
        ("x-envoy-max-retries", "9"),
        ("x-forwarded-for", "10.0.0.1"),
    )
    with proxying("envoy", failing, good) as target, grpc.insecure_channel(target) as channel:
        for row in (STARTED, "detect/UNAVAILABLE"):
            found = ledgers.outcome(channel, ledger, "Unary", row, metadata=asks)
            assert found == "intact"


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_replica_that_is_gone_fails_no_request(proxy: str, good: str, ledger: Ledger) -> None:
    with errors.serving() as gone:
        pass
    with proxying(proxy, gone, good) as target, grpc.insecure_channel(target) as channel:
        for _ in range(6):
            assert ledgers.call(channel, ledger, "Unary", "any").error is None
    what = "sends a request to another replica if the connection is refused"
    assert does(proxy, what) == "yes"


@pytest.mark.parametrize("proxy", PROXIES)
def test_long_requests_pass(proxy: str, good: str, ledger: Ledger) -> None:
    with proxying(proxy, good) as target, grpc.insecure_channel(target, ANY_LENGTH) as channel:
        for shape, waits in (("Unary", False), ("Bidi", True)):
            result = ledgers.call(channel, ledger, shape, "x" * 5_000_000, waits=waits)
            assert result.error is None


def test_nginx_rejects_long_requests_by_default(good: str, ledger: Ledger) -> None:
    change = {"  client_max_body_size 0;\n": ""}
    with (
        proxying("nginx", good, changes=change) as target,
        grpc.insecure_channel(target, ANY_LENGTH) as channel,
    ):
        assert ledgers.call(channel, ledger, "Unary", "x" * 1_000_000).error is None
        error = ledgers.call(channel, ledger, "Unary", "x" * 1_100_000).error
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert ledgers.call(channel, ledger, "Bidi", "x" * 500_000, waits=True).error
