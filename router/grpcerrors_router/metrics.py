"""The router's Prometheus metrics."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from grpcerrors_router.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    import grpc

    from grpcerrors_protocol.tls import ServerTls
    from grpcerrors_router.errors import RouteError
    from grpcerrors_router.view.table import RoutingTable

LABELS_LIMIT = 2000
"""Pairs of model and node that get their own series; the rest is counted as "other"."""

OTHER = "other"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LOAD_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_PAIR = ("model", "node")


class Metrics(Events):
    """Counts the events of one router.

    Labels come from models.toml and from nodes, never from a request, so a caller who invents model
    names adds no series. Generations are unbounded, so they are no labels. The series of a node
    that is gone are dropped after two scrapes without it.

    Args:
        registry: where the metrics are registered; a new registry by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._pairs: set[tuple[str, str]] = set()
        self._cells: dict[tuple[Any, ...], Any] = {}
        self._gone: set[str] = set()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"router_{name}", text, labels, registry=registry)

        self._requests = counter("requests", "Attempts at a node that ended.", *_PAIR, "code")
        self._seconds = Histogram(
            "router_request_seconds", "How long attempts took.", _PAIR,
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._refused = counter(
            "refused", "Calls that reached no node; model is empty if it is not in models.toml.",
            "model", "reason",
        )  # fmt: skip
        self._retries = counter("retries", "Requests that were sent again.", *_PAIR)
        self._heals = counter(
            "heals", "Replicas dropped on evidence that they were stale.", *_PAIR, "evidence"
        )
        self._false = counter(
            "false_positives",
            "Errors that said not loaded by words or code, and were wrong.",
            *_PAIR,
        )
        self._unconfirmed = counter(
            "unconfirmed",
            "Errors that said not loaded, which the node did not confirm in time.",
            *_PAIR,
        )
        self._late = counter("late_errors", "Errors about a replica that was already gone.", *_PAIR)
        self._loads = counter("loads", "Loads that ended, by result.", *_PAIR, "result")
        self._load_seconds = Histogram(
            "router_load_seconds", "How long loads took.", _PAIR,
            buckets=_LOAD_SECONDS, registry=registry,
        )  # fmt: skip
        self._runner = Gauge("router_loads_in_flight", "Loads under way.", _PAIR, registry=registry)
        self._evictions = counter("evictions", "Replicas that this router unloaded.", *_PAIR)
        self._restarts = counter("restarts", "Replicas lost when their node restarted.", *_PAIR)
        self._up = Gauge(
            "router_registry_up", "1 while the registry can be read and written.", registry=registry
        )
        self._up.set(1)
        self._applied = counter("registry_applied", "Changes written after an outage.")

    def follow(self, table: RoutingTable) -> None:
        """Report the replicas and nodes of `table`, and their calls in flight, at each scrape.

        Call this on the event loop that owns the table.
        """
        collector = _TableCollector(table, asyncio.get_running_loop(), self._forget)
        self.registry.register(collector)

    def refused(self, model: str, error: RouteError) -> None:
        """Count a call that reached no node. `model` must be "" if it is not in models.toml."""
        self._refused.labels(model, error.reason).inc()

    def request(self, model: str, node: str, code: grpc.StatusCode, seconds: float) -> None:
        """Count an attempt and observe its duration."""
        self._cell(self._requests, model, node, code.name).inc()
        self._cell(self._seconds, model, node).observe(seconds)

    def retry(self, model: str, node: str) -> None:
        """Count a retry."""
        self._cell(self._retries, model, node).inc()

    def heal(
        self,
        model: str,
        node: str,
        generation: int,  # noqa: ARG002
        evidence: str,
        request_id: str,  # noqa: ARG002
    ) -> None:
        """Count a heal by its evidence."""
        self._cell(self._heals, model, node, evidence).inc()

    def false_positive(self, model: str, node: str) -> None:
        """Count an error that was not believed."""
        self._cell(self._false, model, node).inc()

    def unconfirmed(self, model: str, node: str) -> None:
        """Count a `Status` that the node did not answer."""
        self._cell(self._unconfirmed, model, node).inc()

    def late_error(self, model: str, node: str, generation: int) -> None:  # noqa: ARG002
        """Count an error about a replica that was already gone."""
        self._cell(self._late, model, node).inc()

    def load_started(self, model: str, node: str, generation: int) -> None:  # noqa: ARG002
        """Count a load as in flight."""
        self._cell(self._runner, model, node).inc()

    def load_finished(
        self,
        model: str,
        node: str,
        generation: int,  # noqa: ARG002
        seconds: float,
        error: str,
    ) -> None:
        """Count a load that ended and observe its duration."""
        self._cell(self._runner, model, node).dec()
        self._cell(self._loads, model, node, "failed" if error else "loaded").inc()
        self._cell(self._load_seconds, model, node).observe(seconds)

    def restarted(self, model: str, node: str, generation: int) -> None:  # noqa: ARG002
        """Count a replica lost in a restart."""
        self._cell(self._restarts, model, node).inc()

    def evicted(self, model: str, node: str, generation: int, why: str) -> None:  # noqa: ARG002
        """Count an unload."""
        self._cell(self._evictions, model, node).inc()

    def registry_down(self, error: str) -> None:  # noqa: ARG002
        """Report that the registry is down."""
        self._up.set(0)

    def registry_up(self, applied: int) -> None:
        """Report that the registry is up, and count the changes that waited."""
        self._up.set(1)
        self._applied.inc(applied)

    def _cell(self, metric: Any, model: str, node: str, *more: str) -> Any:
        """Return `metric.labels(...)`, cached: that call takes a lock."""
        key = (metric, model, node, *more)
        cell = self._cells.get(key)
        if cell is None:
            if (model, node) not in self._pairs:
                if len(self._pairs) >= LABELS_LIMIT:
                    return metric.labels(OTHER, OTHER, *more)
                self._pairs.add((model, node))
            cell = self._cells[key] = metric.labels(model, node, *more)
        return cell

    def _forget(self, nodes: Container[str]) -> None:
        """Drop the series of nodes that are not in `nodes` now and were not at the last call."""
        gone = {node for _, node in self._pairs if node not in nodes}
        for key in [key for key in self._cells if key[2] in gone & self._gone]:
            metric, *labels = key
            metric.remove(*labels)
            del self._cells[key]
        self._pairs = {pair for pair in self._pairs if pair[1] not in gone & self._gone}
        self._gone = gone - self._gone


class _TableCollector(Collector):
    """Reads a routing table on its own event loop."""

    def __init__(
        self,
        table: RoutingTable,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[Container[str]], None],
    ) -> None:
        self._table = table
        self._loop = loop
        self._forget = forget

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return _families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        result: concurrent.futures.Future[list[GaugeMetricFamily]] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(lambda: result.set_result(self._read()))
            yield from result.result(timeout=5)
        except (RuntimeError, concurrent.futures.TimeoutError):
            return  # the router is stopping

    def _read(self) -> list[GaugeMetricFamily]:
        self._forget(self._table.nodes)
        in_flight, generation, reachable, busy = families = _families()
        for node in self._table.nodes.values():
            reachable.add_metric([node.name], float(node.reachable))
            busy.add_metric([node.name], float(node.reachable and node.busy))
            for entry in node.replicas.values():
                labels = [entry.model, node.name]
                in_flight.add_metric(labels, entry.in_flight)
                generation.add_metric(labels, entry.generation)
        return families


def _families() -> list[GaugeMetricFamily]:
    return [
        GaugeMetricFamily("router_in_flight", "Calls in flight from this router.", labels=_PAIR),
        GaugeMetricFamily("router_generation", "Generation of each live replica.", labels=_PAIR),
        GaugeMetricFamily(
            "router_node_reachable", "1 if the node may be picked.", labels=("node",)
        ),
        GaugeMetricFamily(
            "router_node_busy", "1 if the node is reachable but does not answer.", labels=("node",)
        ),
    ]


def serve(
    metrics: Metrics, host: str, port: int, tls: ServerTls | None = None
) -> tuple[str, Callable[[], None]]:
    """Serve `metrics` over HTTP in a thread.

    Args:
        metrics: the metrics.
        host: the address to bind.
        port: 0 for any free port.
        tls: the TLS to serve; None for plain text.

    Returns:
        The bound "host:port", and a function that stops the server and waits for its end.

    Raises:
        OSError: the address cannot be bound.
    """
    server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    if tls is not None:
        # A thread of its own makes each handshake, when it reads: one that hangs blocks nobody.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # no tracebacks
        server.socket = tls.context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return f"{host}:{server.server_port}", stop
