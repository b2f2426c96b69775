"""The contract's bytes: encode an error into its trailers, and decode them again.

CONTRACT.md states the format for authors in any language. Internal, but stable: the router builds
its own errors with `encode_status`.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from functools import cache, lru_cache
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from grpcerrors._condition import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    import grpc

    from grpcerrors._condition import Condition

    # A status as it is sent, and the ErrorInfo metadata in it.
    Encoded: TypeAlias = tuple[grpc.Status, Mapping[str, str]]

DETAILS_KEY = "grpc-status-details-bin"  # a serialized google.rpc.Status
HELD_KEY = "grpcerrors-held"  # the model that a guard still held when the handler failed
STARTED = "started"  # ErrorInfo metadata that marks a request whose handler had begun

# Half of gRPC's default soft limit on metadata (8 KiB). Past that limit a peer may turn the error
# into RST_STREAM, and the signal is lost.
TRAILERS_LIMIT = 4096

ITEMS_LIMIT = 1_000  # details, or pairs of metadata, that are read
_HEADER_OVERHEAD = 32  # what HPACK charges for a header (RFC 7541, section 4.1)
_FIXED_SIZE = len("grpc-status" + "00" + "grpc-message") + 2 * _HEADER_OVERHEAD
# What percent-encoding leaves alone (gRPC over HTTP/2).
UNESCAPED = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))
_LONGEST_DELAY = 315_576_000_000  # seconds, of a google.protobuf.Duration
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


def encode(condition: Condition, fields: Mapping[str, str], *, started: bool) -> Encoded:
    """Encode the error of a condition; return it with the ErrorInfo metadata that it contains."""

    def build(longest: int) -> Encoded:
        values = {name: cut(value, longest) for name, value in fields.items()}
        message = condition.message.format_map(values)
        values |= {STARTED: "true"} if started else {}
        info = ErrorInfo(condition.domain, condition.reason, values)
        return _built(condition.code, message, info)

    return _fit(build)


def encode_status(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    domain: str = DOMAIN,
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
) -> grpc.Status:
    """Encode an error that is not a condition of the contract, such as one of the router's own.

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

    def build(longest: int) -> Encoded:
        values = {name: cut(value, longest) for name, value in (metadata or {}).items()}
        return _built(code, cut(message, longest), ErrorInfo(domain, reason, values), retry_after)

    return _fit(build)[0]


def _built(
    code: grpc.StatusCode, message: str, info: ErrorInfo, retry_after: float | None = None
) -> Encoded:
    protobuf, status, to_status = _protobuf()
    metadata = {name: value for name, value in info.metadata.items() if value}
    details = [protobuf.ErrorInfo(**info._replace(metadata=metadata)._asdict())]
    if retry_after is not None:
        details.append(protobuf.RetryInfo())
        delay = min(max(0, retry_after), _LONGEST_DELAY)
        details[1].retry_delay.FromNanoseconds(int(delay * 1e9))
    rich = status(code=code.value[0], message=message)
    for detail in details:
        # Not Any.Pack(), which serializes a map in an order that differs between processes.
        value = detail.SerializeToString(deterministic=True)
        rich.details.add(type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=value)
    return to_status(rich), metadata


def _fit(build: Callable[[int], Encoded]) -> Encoded:
    """Build an error within the limit, cutting its values to as many bytes as fit."""
    built = build(TRAILERS_LIMIT)
    if trailers_size(built[0]) <= TRAILERS_LIMIT:
        return built
    lengths = range(TRAILERS_LIMIT)
    too_long = bisect_right(lengths, TRAILERS_LIMIT, key=lambda n: trailers_size(build(n)[0]))
    return build(max(too_long - 1, 0))


def trailers_size(status: grpc.Status) -> int:
    """Count the bytes of a status's trailers as HPACK does; the message is percent-encoded."""
    message = status.details.encode()
    percent_encoded = len(message) + 2 * len(message.translate(None, UNESCAPED))
    return _FIXED_SIZE + percent_encoded + sum(map(trailer_size, status.trailing_metadata))


def trailer_size(trailer: tuple[str, str | bytes]) -> int:
    """Count the bytes of one trailer as HPACK does; a binary value is in base64."""
    name, value = trailer
    size = (len(value) + 2) // 3 * 4 if name.endswith("-bin") else len(value)
    return len(name) + _HEADER_OVERHEAD + size


def cut(value: str, limit: int) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, on a character boundary.

    What UTF-8 cannot encode is replaced: surrogate pairs by their character, lone ones by U+FFFD.
    """
    text = value[:limit].encode(_UTF_16, "surrogatepass").decode(_UTF_16, "replace")
    return text.encode()[:limit].decode(errors="ignore")


# The bytes are deterministic, so a burst of one failure is decoded once.
@lru_cache(maxsize=128)
def decode(trailer: bytes) -> tuple[ErrorInfo, ...]:
    """Return every ErrorInfo of a serialized `google.rpc.Status`; none if it cannot be decoded."""
    with contextlib.suppress(Exception):  # each protobuf implementation raises its own
        return decode_details(_protobuf()[1].FromString(trailer).details)
    return ()


def decode_details(details: Any) -> tuple[ErrorInfo, ...]:
    """Return every ErrorInfo among details, leaving out what cannot be decoded.

    Each detail is as a client library gives it. The metadata is read-only, because `decode` returns
    the same object many times.
    """
    infos: list[ErrorInfo] = []
    if details is None or isinstance(details, (str, bytes)):
        return ()
    with contextlib.suppress(Exception):
        for detail in islice(details, ITEMS_LIMIT):
            with contextlib.suppress(Exception):
                if info := _unpacked(detail):
                    metadata = MappingProxyType(dict(info.metadata))
                    infos.append(ErrorInfo(info.domain, info.reason, metadata))
    return tuple(infos)


def _unpacked(detail: Any) -> Any:
    """Return a detail as a protobuf ErrorInfo, None if it is of another type."""
    error_info = _protobuf()[0].ErrorInfo
    match detail:
        case error_info():  # google-api-core, grpclib
            return detail
        case {"@type": type_url}:  # REST errors of google-api-core
            info = error_info(**{name: detail.get(name) for name in ErrorInfo._fields})
        case object(type_url=type_url, value=data) | object(type_name=type_url, message_bytes=data):
            info = error_info.FromString(data)  # Connect
        case _:  # grpclib drops it if nobody has imported its type: it may be one of ours
            type_url, info = detail._name, error_info(domain=DOMAIN)  # noqa: SLF001
    # Some senders and proxies write another prefix, or none: only the type's name counts.
    return info if type_url.rpartition("/")[2] == "google.rpc.ErrorInfo" else None
