from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from prometheus_client import generate_latest

from grpcerrors import model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_router.errors import UnknownModel
from grpcerrors_router.metrics import LABELS_LIMIT, Metrics, serve
from grpcerrors_router.metrics.gauges import FleetCollector
from tests.router.support.rawnode import Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAIR = {"model": "m", "node": "raw-1"}
STALE = model_not_loaded("raw")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(tmp_path, on_stale="return") as made:
        made.node.script = Script(replies=(pb.Reply(message=b"hi").SerializeToString(),))
        yield made


async def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    # In a thread of its own, like a scrape.
    name = name if name.startswith("rpc_") else f"router_{name}"
    return await asyncio.to_thread(metrics.registry.get_sample_value, name, labels)


def rpc(code: str, error: str = "", method: str = "backend.Backend/Predict") -> dict[str, str]:
    return {
        "rpc_system_name": "grpc",
        "rpc_method": method,
        "rpc_response_status_code": code,
        "error_type": error,
    }


async def attempts(metrics: Metrics, code: str) -> float | None:
    error = "" if code == "OK" else code
    return await value(
        metrics, "rpc_client_call_duration_seconds_count", **PAIR, **rpc(code, error)
    )


async def test_requests_loads_and_calls_in_flight(served: Stack) -> None:
    gate = asyncio.Event()

    async def wait(_requests: Any, context: Any) -> None:
        await gate.wait()
        await context.write(b"")

    served.node.behave = wait
    stub = BackendStub(served.through)
    calls = [stub.Predict(pb.PredictOptions(ModelIdentity="m")) for _ in range(3)]
    while len(served.node.seen) < 3:
        await asyncio.sleep(0.01)
    metrics = served.metrics
    assert await value(metrics, "in_flight", **PAIR) == 3
    assert (
        await value(metrics, "generation", **PAIR)
        == served.router.table.nodes["raw-1"].replicas["m"].generation
    )
    assert await value(metrics, "node_reachable", node="raw-1") == 1
    gate.set()
    await asyncio.gather(*calls)
    assert await value(metrics, "in_flight", **PAIR) == 0
    assert await attempts(metrics, "OK") == 3
    count = "rpc_server_call_duration_seconds_count"
    assert await value(metrics, count, model="m", **rpc("OK")) == 3
    assert await value(metrics, "loads_total", **PAIR, result="loaded") == 1
    assert await value(metrics, "load_duration_seconds_count", **PAIR) == 1
    assert await value(metrics, "loads_in_flight", **PAIR) == 0


async def test_heals_retries_and_false_positives(tmp_path: Path) -> None:
    async with stack(tmp_path, on_stale="retry") as served:

        async def forgetful(requests: Any, context: Any) -> None:
            async for _ in requests:
                pass
            if len(served.node.loads) == 1:
                await context.abort(STALE.code, STALE.details, tuple(STALE.trailing_metadata))
            await context.write(b"")

        served.node.behave = forgetful
        stub = BackendStub(served.through)
        await stub.Predict(pb.PredictOptions(ModelIdentity="m"))
        metrics = served.metrics
        assert await value(metrics, "heals_total", **PAIR, evidence="details") == 1
        assert await value(metrics, "retries_total", **PAIR) == 1
        assert await attempts(metrics, "FAILED_PRECONDITION") == 1
        assert await attempts(metrics, "OK") == 1

        served.node.behave = None
        served.node.script = Script((), (), grpc.StatusCode.FAILED_PRECONDITION, "not today")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Predict(pb.PredictOptions(ModelIdentity="m"))
        assert await value(metrics, "false_positives_total", **PAIR) == 1
        assert await value(metrics, "heals_total", **PAIR, evidence="code") is None


async def test_a_load_that_fails_is_counted_as_such(served: Stack) -> None:
    served.node.load_error = "no"
    with pytest.raises(grpc.aio.AioRpcError):
        await BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m"))
    assert (await value(served.metrics, "loads_total", **PAIR, result="failed") or 0) >= 1
    assert await value(served.metrics, "refused_total", model="m", reason="LOAD_FAILED") == 1


async def test_a_callers_words_never_become_labels(served: Stack) -> None:
    stub = BackendStub(served.through)
    for index in range(20):
        for key in ((), (("x-model-id", f"made-up-{index}"),)):
            identity = "" if key else f"odd-{index}"
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Predict(pb.PredictOptions(ModelIdentity=identity), metadata=key)
    text = await asyncio.to_thread(generate_latest, served.metrics.registry)
    assert b"made-up" not in text
    assert b"odd-" not in text
    assert await value(served.metrics, "refused_total", model="", reason="UNKNOWN_MODEL") == 40


async def test_every_other_event_is_counted() -> None:
    metrics = Metrics()
    metrics.late_error("m", "raw-1", 3)
    metrics.evicted("m", "raw-1", 3, "for a test")
    metrics.restarted("m", "raw-1", 3)
    metrics.load_started("m", "raw-1", 4)
    assert await value(metrics, "loads_total", **PAIR, result="failed") == 0
    metrics.load_started("m", "raw-1", 5)
    metrics.load_finished("m", "raw-1", 5, 1.0, "in use", postponed=True)
    metrics.registry_down("away")
    assert await value(metrics, "late_errors_total", **PAIR) == 1
    assert await value(metrics, "restarts_total", **PAIR) == 1
    assert await value(metrics, "evictions_total", **PAIR) == 1
    assert await value(metrics, "loads_in_flight", **PAIR) == 1
    assert await value(metrics, "loads_total", **PAIR, result="postponed") == 1
    assert await value(metrics, "loads_total", **PAIR, result="failed") == 0
    assert await value(metrics, "registry_up") == 0
    metrics.registry_up(7)
    assert await value(metrics, "registry_up") == 1
    assert await value(metrics, "registry_applied_total") == 7


async def test_the_number_of_time_series_is_bounded() -> None:
    metrics = Metrics()
    for index in range(LABELS_LIMIT + 50):
        metrics.retry("m", f"node-{index}")
    assert await value(metrics, "retries_total", model="other", node="other") == 50
    metrics.retry("m", "node-0")
    assert await value(metrics, "retries_total", model="m", node="node-0") == 2


async def test_the_series_of_nodes_that_are_gone_are_dropped_after_a_last_scrape(
    served: Stack,
) -> None:
    """Otherwise new names of nodes would use up the limit, and all count as "other"."""
    metrics = served.metrics
    for index in range(LABELS_LIMIT):
        metrics.retry("m", f"pod-{index}")
    metrics.retry("m", "raw-1")

    async def scrape() -> bytes:
        return await asyncio.to_thread(generate_latest, metrics.registry)

    for _ in range(2):
        assert b'node="pod-7"' in await scrape()
    assert b"pod-" not in await scrape()
    metrics.retry("m", "raw-1")
    assert await value(metrics, "retries_total", **PAIR) == 1
    await scrape()
    assert await value(metrics, "retries_total", **PAIR) == 1  # a node that is there stays


async def test_metrics_are_served_over_http_until_stopped(served: Stack) -> None:
    await BackendStub(served.through).Predict(pb.PredictOptions(ModelIdentity="m"))
    address, stop = serve(served.metrics, "127.0.0.1", 0)

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics") as page:
            text: bytes = page.read()
            return text.decode()

    text = await asyncio.to_thread(scrape)
    assert 'rpc_client_call_duration_seconds_count{error_type="",model="m",node="raw-1"' in text
    assert 'router_in_flight{model="m",node="raw-1"} 0.0' in text
    with pytest.raises(OSError, match="in use"):
        serve(served.metrics, "127.0.0.1", int(address.rpartition(":")[2]))
    await asyncio.to_thread(stop)
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape)


async def test_a_scrape_after_the_router_has_stopped_reports_the_counters() -> None:
    metrics = Metrics()
    loop = asyncio.new_event_loop()
    collector = FleetCollector(None, loop, set)  # type: ignore[arg-type]
    loop.close()
    assert list(collector.collect()) == []
    metrics.refused("", UnknownModel("x", []))
    assert await value(metrics, "refused_total", model="", reason="UNKNOWN_MODEL") == 1


async def test_the_page_lists_each_metric_with_its_type_and_labels(served: Stack) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    listed = {
        row[0].strip("`"): (row[1], set(re.findall(r"`(\w+)`", row[2])))
        for row in rows
        if len(row) == 4 and row[0].startswith("`")
    }
    registry = served.metrics.registry
    collectors: list[Any] = [*registry._collector_to_names]
    found = {}
    for metric in collectors:
        if isinstance(metric, FleetCollector):
            for family in metric.describe():
                found[family.name] = (family.type, set(family._labelnames))
        else:
            (family,) = metric.describe()
            suffix = "_total" if family.type == "counter" else ""
            found[family.name + suffix] = (family.type, set(metric._labelnames))
    assert listed == found


async def test_a_method_or_a_code_that_a_caller_chooses_adds_few_series() -> None:
    metrics = Metrics()
    ok = grpc.StatusCode.OK
    for index in range(100):
        metrics.served("m", f"/made.Up/{index}", ok, 1.0, "")
        metrics.request("m", "raw-1", f"/made.Up/{index}", ok, 1.0, "")
    labels = rpc("OK", method="_OTHER")
    server, client = (f"rpc_{side}_call_duration_seconds_count" for side in ("server", "client"))
    assert await value(metrics, server, model="m", **labels) == 100
    assert await value(metrics, client, **PAIR, **labels) == 100


async def test_the_histograms_of_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpcerrors_router.metrics.counters.SERIES_LIMIT", 3)
    metrics = Metrics()
    predict = "/backend.Backend/Predict"
    codes = list(grpc.StatusCode)[:5]
    for code in codes:
        metrics.served("m", predict, code, 1.0, "")
        metrics.request("m", "raw-1", predict, code, 1.0, "")
    text = (await asyncio.to_thread(generate_latest, metrics.registry)).decode()
    for side in ("server", "client"):
        counts = re.findall(
            rf"^rpc_{side}_call_duration_seconds_count{{(.*)}} 1.0", text, re.MULTILINE
        )
        assert len(counts) == 5
        assert sum('model="other"' in each for each in counts) == 2


def test_every_metric_that_a_page_names_is_listed() -> None:
    docs = Path(__file__).parents[2] / "docs"
    listed = re.findall(
        r"^\| `(\w+)` \|", (docs / "reference/metrics.md").read_text(), re.MULTILINE
    )
    for page in docs.rglob("*.md"):
        named = set(re.findall(r"`(router_[a-z_]+|rpc_[a-z_]+_seconds)", page.read_text()))
        assert named <= set(listed), page
