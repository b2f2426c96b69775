"""The metrics that count what has happened, from the router's events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from grpcerrors_protocol.conventions import METHODS, error_type
from grpcerrors_protocol.conventions import OTHER as OTHER_METHOD
from grpcerrors_router.events import Events
from grpcerrors_router.metrics.gauges import FleetCollector

if TYPE_CHECKING:
    from collections.abc import Container

    import grpc

    from grpcerrors_router.errors import RouteError
    from grpcerrors_router.router import SmartRouter

LABELS_LIMIT = 2000
"""Pairs of model and node that get their own series; the rest is counted as "other"."""

SERIES_LIMIT = 4 * LABELS_LIMIT
"""Sets of labels of a histogram of calls; the rest is counted as "other"."""

OTHER = "other"

BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
)
"""Seconds: a call of a small model takes milliseconds, a long answer or a load many minutes."""

_PAIR = ("model", "node")
_RPC = ("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type")


class Metrics(Events):
    """Counts the events of one router.

    Labels come from models.toml and from nodes, never from a request, so a caller who invents model
    names or methods adds no series. Generations are unbounded, so they are no labels. The series of
    a node that is gone are dropped after two scrapes without it.

    Args:
        registry: where the metrics are registered; a new registry by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self._pairs: set[tuple[str, str]] = set()
        self._cells: dict[tuple[Any, ...], Any] = {}
        self._gone: set[str] = set()
        self._served_cells: dict[tuple[str, str, grpc.StatusCode], Any] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"router_{name}", text, labels, registry=registry)

        self._served = Histogram(
            "rpc_server_call_duration_seconds",
            "How long the gateway's calls took; model is empty if it is not in models.toml.",
            (*_RPC, "model"), buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._attempts = Histogram(
            "rpc_client_call_duration_seconds", "How long attempts at nodes took.",
            (*_PAIR, *_RPC), buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._refused = counter(
            "refused", "Calls that reached no node; model is empty if it is not in models.toml.",
            "model", "reason",
        )  # fmt: skip
        self._heartbeats = counter(
            "heartbeats_refused", "Heartbeats that were refused; node is empty if it is unknown.",
            "node", "reason",
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
            "router_load_duration_seconds", "How long loads took.", _PAIR,
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._runner = Gauge("router_loads_in_flight", "Loads under way.", _PAIR, registry=registry)
        self._evictions = counter("evictions", "Replicas that this router unloaded.", *_PAIR)
        self._restarts = counter("restarts", "Replicas lost when their node restarted.", *_PAIR)
        self._up = Gauge(
            "router_registry_up", "1 while the registry can be read and written.", registry=registry
        )
        self._up.set(1)
        self._applied = counter("registry_applied", "Changes written after an outage.")

    def follow(self, router: SmartRouter) -> None:
        """Report the state of `router` at each scrape. Call this on the router's event loop."""
        loop = asyncio.get_running_loop()
        self.registry.register(FleetCollector(router, loop, self._forget))

    def served(
        self, model: str, method: str, code: grpc.StatusCode, seconds: float, trace_id: str
    ) -> None:
        """Observe the duration of a call of the gateway."""
        name = METHODS.get(method, OTHER_METHOD)
        cell = self._served_cells.get((model, name, code))
        if cell is None:
            if len(self._served_cells) >= SERIES_LIMIT:
                model, name = OTHER, OTHER_METHOD
            cell = self._served.labels(*_rpc(name, code, client=False), model)
            self._served_cells[model, name, code] = cell
        cell.observe(seconds, {"trace_id": trace_id} if trace_id else None)

    def refused(self, model: str, error: RouteError) -> None:
        """Count a call that reached no node. `model` must be "" if it is not in models.toml."""
        self._refused.labels(model, error.reason).inc()

    def heartbeat_refused(self, node: str, error: RouteError) -> None:
        """Count a heartbeat that was refused. `node` must be "" if the router does not know it."""
        self._heartbeats.labels(node, error.reason).inc()

    def request(
        self,
        model: str,
        node: str,
        method: str,
        code: grpc.StatusCode,
        seconds: float,
        trace_id: str,
    ) -> None:
        """Observe the duration of an attempt at a node."""
        name = METHODS.get(method, OTHER_METHOD)
        cell = self._cells.get((self._attempts, model, node, name, code))
        if cell is None:
            if len(self._cells) >= SERIES_LIMIT:
                model, node, name = OTHER, OTHER, OTHER_METHOD
            cell = self._cell(self._attempts, model, node, name, code)
        cell.observe(seconds, {"trace_id": trace_id} if trace_id else None)

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
        self._cell(self._loads, model, node, "failed")  # from 0, so that the first failure shows

    def load_finished(
        self,
        model: str,
        node: str,
        generation: int,  # noqa: ARG002
        seconds: float,
        error: str,
        *,
        postponed: bool = False,
    ) -> None:
        """Count a load that ended and observe its duration."""
        result = "loaded" if not error else "postponed" if postponed else "failed"
        self._cell(self._runner, model, node).dec()
        self._cell(self._loads, model, node, result).inc()
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

    def _cell(self, metric: Any, model: str, node: str, *more: Any) -> Any:
        """Return `metric.labels(...)`, cached: that call takes a lock."""
        key = (metric, model, node, *more)
        cell = self._cells.get(key)
        if cell is None:
            labels = _rpc(*more, client=True) if metric is self._attempts else more
            if (model, node) not in self._pairs:
                if len(self._pairs) >= LABELS_LIMIT:
                    return metric.labels(OTHER, OTHER, *labels)
                self._pairs.add((model, node))
            cell = self._cells[key] = metric.labels(model, node, *labels)
        return cell

    def _forget(self, nodes: Container[str]) -> None:
        """Drop the series of nodes that are not in `nodes` now and were not at the last call."""
        gone = {node for _, node in self._pairs if node not in nodes}
        for key in [key for key in self._cells if key[2] in gone & self._gone]:
            metric, model, node, *more = key
            labels = _rpc(*more, client=True) if metric is self._attempts else more
            metric.remove(model, node, *labels)
            del self._cells[key]
        self._pairs = {pair for pair in self._pairs if pair[1] not in gone & self._gone}
        self._gone = gone - self._gone


def _rpc(method: str, code: grpc.StatusCode, *, client: bool) -> tuple[str, ...]:
    """Return the values of `_RPC`."""
    return "grpc", method, code.name, error_type(code, client=client)
