"""The HTTP server of the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import start_http_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors_protocol.tls import ServerTls
    from grpcerrors_router.metrics.counters import Metrics


def serve(
    metrics: Metrics, host: str, port: int, tls: ServerTls | None = None
) -> tuple[str, Callable[[], None]]:
    """Serve `metrics` over HTTP in a thread, in Prometheus' format or in OpenMetrics.

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
