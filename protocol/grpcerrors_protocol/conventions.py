"""OpenTelemetry's semantic conventions for RPC, v1.45.0, as metrics and traces need them.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from __future__ import annotations

from typing import Final

import grpc

from grpcerrors_protocol import backend_pb2, inference_pb2

OTHER: Final = "_OTHER"
"""The `rpc.method` of an RPC that is not one of the protocols': a caller may invent names."""

METHODS: Final = {
    f"/{service.full_name}/{method.name}": f"{service.full_name}/{method.name}"
    for file in (backend_pb2, inference_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""The `rpc.method` of each RPC of the protocols, by its path."""

_SERVER_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def error_type(code: grpc.StatusCode, *, client: bool) -> str:
    """Return the `error.type` of a call that ended with a code; "" if that is no error.

    For a client, all codes but OK are errors. For a server, those are not that blame the caller.
    """
    if code is grpc.StatusCode.OK or not (client or code in _SERVER_ERRORS):
        return ""
    return str(code.name)
