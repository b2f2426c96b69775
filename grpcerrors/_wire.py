"""The contract's bytes: `google.rpc.Status` with one `ErrorInfo`, in `grpc-status-details-bin`.

CONTRACT.md states the same for authors in any language.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import grpc

    from grpcerrors._condition import Condition

# Half of gRPC's default soft limit on metadata (8 KiB). Past that limit a peer may turn the error
# into RST_STREAM, and the signal is lost.
TRAILERS_LIMIT = 4096

# ErrorInfo metadata that marks a request whose handler had begun.
STARTED = "started"

_ERROR_INFO = "google.rpc.ErrorInfo"
_TYPE_URL = "type.googleapis.com/" + _ERROR_INFO

# What HPACK charges for a header beside its name and value (RFC 7541, section 4.1).
_HEADER_OVERHEAD = 32
_HEADERS = ("grpc-status", "00", "grpc-message", "grpc-status-details-bin")
_FIXED_SIZE = sum(map(len, _HEADERS)) + 3 * _HEADER_OVERHEAD

# What percent-encoding leaves alone (gRPC over HTTP/2).
_UNESCAPED = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))

_UTF_16 = "utf-16-le"  # without a byte order mark


class ErrorInfo(NamedTuple):
    """A decoded `google.rpc.ErrorInfo`."""

    domain: str
    reason: str
    metadata: Mapping[str, str]


class Encoded(NamedTuple):
    """A condition as it travels, and the ErrorInfo metadata in it."""

    status: grpc.Status
    metadata: Mapping[str, str]


def encode(condition: Condition, fields: Mapping[str, str], *, started: bool) -> Encoded:
    """Encode a condition; its longest values are cut until the trailers fit `TRAILERS_LIMIT`."""
    # No value longer than the limit can fit, so a huge one is carried no further than this.
    values = {name: _utf8(value[:TRAILERS_LIMIT]) for name, value in fields.items()}
    encoded = _encode(condition, values, started=started)
    if trailers_size(encoded.status) <= TRAILERS_LIMIT:
        return encoded
    fits, too_long = 0, TRAILERS_LIMIT
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        encoded = _encode(condition, _cut(values, middle), started=started)
        if trailers_size(encoded.status) <= TRAILERS_LIMIT:
            fits = middle
        else:
            too_long = middle
    return _encode(condition, _cut(values, fits), started=started)


def trailers_size(status: grpc.Status) -> int:
    """Bytes of the trailer block: percent-encoded message, base64 details, the headers' own."""
    message = status.details.encode()
    percent_encoded = len(message) + 2 * len(message.translate(None, _UNESCAPED))
    ((_, details),) = status.trailing_metadata
    return _FIXED_SIZE + percent_encoded + (len(details) + 2) // 3 * 4


def _encode(condition: Condition, values: Mapping[str, str], *, started: bool) -> Encoded:
    metadata = {name: value for name, value in values.items() if value}
    if started:
        metadata[STARTED] = "true"
    info = error_details_pb2.ErrorInfo(
        reason=condition.reason, domain=condition.domain, metadata=metadata
    )
    # Not Any.Pack(): it would serialize the map in an order that differs from process to process.
    packed = any_pb2.Any(type_url=_TYPE_URL, value=info.SerializeToString(deterministic=True))
    message = condition.message.format_map(values)
    rich = status_pb2.Status(code=condition.code.value[0], message=message, details=[packed])
    return Encoded(rpc_status.to_status(rich), metadata)


def _utf8(value: str) -> str:
    """Replace what UTF-8 cannot say: join surrogate pairs, put U+FFFD for lone surrogates."""
    return value.encode(_UTF_16, "surrogatepass").decode(_UTF_16, "replace")


def _cut(values: Mapping[str, str], limit: int) -> dict[str, str]:
    """Cut each value to at most `limit` bytes of UTF-8, on a character boundary."""
    return {name: value.encode()[:limit].decode(errors="ignore") for name, value in values.items()}


# The bytes are deterministic, so a burst of one failure is decoded once.
@lru_cache(maxsize=128)
def decode(trailer: bytes) -> tuple[ErrorInfo, ...]:
    """Read every ErrorInfo of a serialized `google.rpc.Status`; none where it cannot be decoded."""
    try:
        status = status_pb2.Status.FromString(trailer)
    except Exception:  # noqa: BLE001 - each protobuf implementation raises its own
        return ()
    return decode_details(status.details)


def decode_details(details: Iterable[Any]) -> tuple[ErrorInfo, ...]:
    """Read every ErrorInfo among details, leaving out what cannot be decoded.

    Each may be an `Any`; an ErrorInfo, as google-api-core has them; or, in its REST errors, JSON.
    """
    infos = []
    for detail in details:
        with contextlib.suppress(Exception):
            if info := _unpacked(detail):
                infos.append(error_info(info.domain, info.reason, info.metadata))
    return tuple(infos)


def _unpacked(detail: Any) -> error_details_pb2.ErrorInfo | None:
    if isinstance(detail, error_details_pb2.ErrorInfo):
        return detail
    if isinstance(detail, dict):
        if _names_error_info(detail["@type"]):
            fields = {name: detail.get(name) for name in ("domain", "reason", "metadata")}
            return error_details_pb2.ErrorInfo(**fields)
    elif _names_error_info(detail.type_url):
        return error_details_pb2.ErrorInfo.FromString(detail.value)
    return None


def _names_error_info(type_url: str) -> bool:
    """Some senders and proxies write another prefix, or none: only the type's name counts."""
    return type_url.rpartition("/")[2] == _ERROR_INFO


def error_info(domain: str, reason: str, metadata: Mapping[str, str]) -> ErrorInfo:
    """Make an ErrorInfo that nobody can change: `decode` hands the same one to many."""
    return ErrorInfo(domain, reason, MappingProxyType(dict(metadata)))
