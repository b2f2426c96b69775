"""The contract's bytes: encode an error into its trailers, and decode them again.

CONTRACT.md states the format for authors in any language. Internal, but stable: the router builds
its own errors with `encode_status`, and a guard vouches for its model with `held_trailer`.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grpcerrors._condition import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import grpc

    from grpcerrors._condition import Condition

T = TypeVar("T")

DETAILS_KEY = "grpc-status-details-bin"  # a serialized google.rpc.Status
HELD_KEY = "grpcerrors-held"  # the model that a guard still held when the handler failed
HELD_UNNAMED = "1"  # its value where the model has no identity
STARTED = "started"  # ErrorInfo metadata that marks a request whose handler had begun

# Half of gRPC's default soft limit on metadata (8 KiB). Past that limit a peer may turn the error
# into RST_STREAM, and the signal is lost.
TRAILERS_LIMIT = 4096

_HEADER_OVERHEAD = 32  # what HPACK charges for a header (RFC 7541, section 4.1)
_FIXED_SIZE = len("grpc-status" + "00" + "grpc-message") + 2 * _HEADER_OVERHEAD
# What percent-encoding leaves alone (gRPC over HTTP/2).
_UNESCAPED = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))
_HELD_LIMIT = 255
_LONGEST_DELAY = 315_576_000_000  # seconds, of a google.protobuf.Duration
_ERROR_INFO = "google.rpc.ErrorInfo"
_UTF_16 = "utf-16-le"  # without a byte order mark


class ErrorInfo(NamedTuple):
    """A decoded `google.rpc.ErrorInfo`."""

    domain: str
    reason: str
    metadata: Mapping[str, str]


@cache
def _protobuf() -> tuple[Any, Any, Any]:
    """Import protobuf with the first error: it takes half as long as importing grpc itself."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415
    from grpc_status import rpc_status  # noqa: PLC0415

    return error_details_pb2, status_pb2.Status, rpc_status.to_status


def encode(
    condition: Condition, fields: Mapping[str, str], *, started: bool
) -> tuple[grpc.Status, Mapping[str, str]]:
    """Encode the error of a condition; return it and the ErrorInfo metadata that is in it."""

    def build(longest: int) -> tuple[grpc.Status, Mapping[str, str]]:
        values = {name: _cut(value, longest) for name, value in fields.items()}
        message = condition.message.format_map(values)
        metadata = {name: value for name, value in values.items() if value}
        metadata |= {STARTED: "true"} if started else {}
        info = _info(condition.reason, condition.domain, metadata)
        return _status(condition.code, message, info), metadata

    return _fit(build, TRAILERS_LIMIT)


def encode_status(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    domain: str = DOMAIN,
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
) -> grpc.Status:
    """Encode an error that is no condition of the contract, such as one of the router's own.

    Args:
        code: the status code, not OK.
        message: the status message, any string.
        reason: `google.rpc.ErrorInfo.reason`.
        domain: `google.rpc.ErrorInfo.domain`.
        metadata: `google.rpc.ErrorInfo.metadata`; empty values are left out.
        retry_after: seconds of a `google.rpc.RetryInfo`; None for no RetryInfo.

    Returns:
        What `context.abort_with_status` takes: `code`, `details` (the message) and
        `trailing_metadata`, a tuple of one pair named `DETAILS_KEY`. The bytes are deterministic.
        The message and the longest values are cut until the trailers fit into `TRAILERS_LIMIT`.
    """

    def build(longest: int) -> tuple[grpc.Status, None]:
        values = {name: _cut(value, longest) for name, value in (metadata or {}).items()}
        details = [_info(reason, domain, {name: value for name, value in values.items() if value})]
        if retry_after is not None:
            retry = _protobuf()[0].RetryInfo()
            retry.retry_delay.FromNanoseconds(int(min(max(0, retry_after), _LONGEST_DELAY) * 1e9))
            details.append(retry)
        return _status(code, _cut(message, longest), *details), None

    return _fit(build, TRAILERS_LIMIT)[0]


def _fit(build: Callable[[int], tuple[grpc.Status, T]], limit: int) -> tuple[grpc.Status, T]:
    """Build an error of at most `limit` bytes, its values cut to as many bytes each as fit."""
    built = build(TRAILERS_LIMIT)
    if trailers_size(built[0]) <= limit:
        return built
    too_long = bisect_right(
        range(TRAILERS_LIMIT), limit, key=lambda longest: trailers_size(build(longest)[0])
    )
    return build(max(too_long - 1, 0))


def trailers_size(status: grpc.Status) -> int:
    """Count the bytes of a status's trailers as HPACK does; the message is percent-encoded."""
    message = status.details.encode()
    percent_encoded = len(message) + 2 * len(message.translate(None, _UNESCAPED))
    return _FIXED_SIZE + percent_encoded + sum(map(trailer_size, status.trailing_metadata))


def trailer_size(trailer: tuple[str, str | bytes]) -> int:
    """Count the bytes of one trailer as HPACK does; a binary value is in base64."""
    name, value = trailer
    size = (len(value) + 2) // 3 * 4 if name.endswith("-bin") else len(value)
    return len(name) + _HEADER_OVERHEAD + size


def held_trailer(model: str) -> tuple[str, str]:
    """Return the trailer that says: the model was still held when the handler failed.

    `model` is its identity, any string, "" where it has none. It travels percent-encoded, cut to
    what fits into 255 bytes.
    """
    from urllib.parse import quote  # noqa: PLC0415 - as protobuf

    # Spaces are encoded too: a header's value neither begins nor ends with one.
    value = quote(_cut(model, _HELD_LIMIT), safe=_UNESCAPED[1:])
    if len(value) > _HELD_LIMIT:
        value = quote(_cut(model, _HELD_LIMIT // len("%00")), safe=_UNESCAPED[1:])
    return HELD_KEY, value or HELD_UNNAMED


def decode_held(value: str) -> str:
    """Read the value of a `grpcerrors-held` trailer."""
    from urllib.parse import unquote  # noqa: PLC0415 - as protobuf

    return unquote(value)


def _info(reason: str, domain: str, metadata: Mapping[str, str]) -> Any:
    return _protobuf()[0].ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def _status(code: grpc.StatusCode, message: str, *details: Any) -> grpc.Status:
    _, status, to_status = _protobuf()
    rich = status(code=code.value[0], message=message)
    for detail in details:
        # Not Any.Pack(): it would serialize a map in an order that differs between processes.
        value = detail.SerializeToString(deterministic=True)
        rich.details.add(type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=value)
    return to_status(rich)


def _cut(value: str, limit: int) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, on a character boundary.

    What UTF-8 cannot say is replaced: surrogate pairs by their character, lone ones by U+FFFD.
    """
    text = value[:limit].encode(_UTF_16, "surrogatepass").decode(_UTF_16, "replace")
    return text.encode()[:limit].decode(errors="ignore")


# The bytes are deterministic, so a burst of one failure is decoded once.
@lru_cache(maxsize=128)
def decode(trailer: bytes) -> tuple[ErrorInfo, ...]:
    """Read every ErrorInfo of a serialized `google.rpc.Status`; none where it cannot be decoded."""
    try:
        return decode_details(_protobuf()[1].FromString(trailer).details)
    except Exception:  # noqa: BLE001 - each protobuf implementation raises its own
        return ()


def decode_details(details: Iterable[Any]) -> tuple[ErrorInfo, ...]:
    """Read every ErrorInfo among details, leaving out what cannot be decoded.

    Each may be an `Any`; an ErrorInfo, as google-api-core has them; or, in its REST errors, JSON.
    The metadata cannot be changed: `decode` returns the same one to many.
    """
    infos = []
    for detail in details:
        with contextlib.suppress(Exception):
            if info := _unpacked(detail):
                metadata = MappingProxyType(dict(info.metadata))
                infos.append(ErrorInfo(info.domain, info.reason, metadata))
    return tuple(infos)


def _unpacked(detail: Any) -> Any:
    error_info = _protobuf()[0].ErrorInfo
    if isinstance(detail, error_info):
        return detail
    # Some senders and proxies write another prefix, or none: only the type's name counts.
    type_url = detail["@type"] if isinstance(detail, dict) else detail.type_url
    if type_url.rpartition("/")[2] != _ERROR_INFO:
        return None
    if isinstance(detail, dict):
        return error_info(**{name: detail.get(name) for name in ErrorInfo._fields})
    return error_info.FromString(detail.value)
