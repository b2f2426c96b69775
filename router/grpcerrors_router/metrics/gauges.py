"""The metrics that are read from a router at each scrape."""

from __future__ import annotations

import concurrent.futures
import contextlib
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Container, Iterable, Iterator

    from grpcerrors_router.router import SmartRouter

_PAIR = ("model", "node")
_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "in_flight": ("Calls in flight from this router.", _PAIR),
    "generation": ("Generation of each live replica.", _PAIR),
    "load_age_seconds": ("How long each load has been running.", _PAIR),
    "quarantine_seconds": ("Until a node may load a model again that it kept losing.", _PAIR),
    "waiting_requests": ("Requests that wait for a model.", ("model",)),
    "waiting_age_seconds": ("How long the oldest of them has been waiting.", ("model",)),
    "node_reachable": ("1 if the node may be picked.", ("node",)),
    "node_refuses": ("1 if nothing listens at the node's address.", ("node",)),
    "node_busy": ("1 if the node is reachable but does not answer.", ("node",)),
    "registry_lag_seconds": ("Since when the registry has not been read.", ()),
    "registry_waiting_changes": ("Changes that wait for the registry.", ()),
}


class FleetCollector(Collector):
    """Reads the state of a router on its own event loop.

    Args:
        router: the router.
        loop: its event loop.
        forget: called at each scrape with the names of the nodes that there are.
    """

    def __init__(
        self,
        router: SmartRouter,
        loop: asyncio.AbstractEventLoop,
        forget: Callable[[Container[str]], None],
    ) -> None:
        self._router = router
        self._loop = loop
        self._forget = forget

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the families without samples."""
        return _families().values()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the router; return nothing when it is stopping."""
        result: concurrent.futures.Future[list[GaugeMetricFamily]] = concurrent.futures.Future()

        def read() -> None:
            try:
                result.set_result(self._read())
            except Exception as error:  # noqa: BLE001 - the scrape gets it
                result.set_exception(error)

        with contextlib.suppress(RuntimeError, concurrent.futures.TimeoutError):
            # The loop is closed, or does not answer, when the router is stopping.
            self._loop.call_soon_threadsafe(read)
            yield from result.result(timeout=5)

    def _read(self) -> list[GaugeMetricFamily]:
        router, found = self._router, _families()
        table, now = router.table, router.state.monotonic()
        self._forget(table.nodes)
        for node in table.nodes.values():
            labels = [node.name]
            found["node_reachable"].add_metric(labels, float(node.reachable))
            found["node_refuses"].add_metric(labels, float(not node.reachable and node.refuses))
            found["node_busy"].add_metric(labels, float(node.reachable and node.busy))
            for entry in node.replicas.values():
                labels = [entry.model, node.name]
                found["in_flight"].add_metric(labels, entry.in_flight)
                found["generation"].add_metric(labels, entry.generation)
            for job in node.loads.values():
                if job.running(now) and job.owner == router.name and job.victim != job.model:
                    labels = [job.model, node.name]
                    found["load_age_seconds"].add_metric(labels, now - job.started_at)
        for model, (count, since) in router.state.waiting().items():
            found["waiting_requests"].add_metric([model], count)
            found["waiting_age_seconds"].add_metric([model], now - since)
        for name, model, until, _ in router.state.quarantined():
            found["quarantine_seconds"].add_metric([model, name], until - now)
        found["registry_lag_seconds"].add_metric([], now - router.watcher.read_at)
        found["registry_waiting_changes"].add_metric([], len(router.outbox))
        return list(found.values())


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        name: GaugeMetricFamily(f"router_{name}", text, labels=labels)
        for name, (text, labels) in _TEXTS.items()
    }
