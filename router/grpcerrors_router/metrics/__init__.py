"""The router's Prometheus metrics. `docs/reference/metrics.md` lists them."""

from grpcerrors_router.metrics.counters import LABELS_LIMIT, Metrics
from grpcerrors_router.metrics.server import serve

__all__ = ["LABELS_LIMIT", "Metrics", "serve"]
