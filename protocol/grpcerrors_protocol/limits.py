"""The limits of a server's connections."""

from __future__ import annotations

HANDSHAKE_SECONDS = 10
"""A client that has not begun to speak HTTP/2, or TLS, by then is disconnected."""

MAX_CONNECTIONS = 10_000
_ASSUMED = 1024  # open files, where the system does not say


def connection_limits() -> tuple[tuple[str, int], ...]:
    """Return the channel options of a server that limit its connections.

    Connections use up at most half of the files that this process may open, so that its database
    and its own connections always find one.
    """
    return (
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_allowed_incoming_connections", min(MAX_CONNECTIONS, _open_files() // 2)),
    )


def _open_files() -> int:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return _ASSUMED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2 * MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft
