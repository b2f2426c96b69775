"""The contract's bytes: encode an error into its trailers, and decode them again.

There is one encoder with one bound, `fit`. `encode` builds the error of a condition with it, and
`encode_status` any other error of this project, such as the router's own. CONTRACT.md states the
format for authors in any language. Internal, but stable: the other distributions import it.
"""

from __future__ import annotations

import contextlib
from functools import cache, lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grpcerrors._condition import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import grpc

    from grpcerrors._condition import Condition

T = TypeVar("T")

# The trailer that holds a serialized `google.rpc.Status`.
DETAILS_KEY = "grpc-status-details-bin"

# The trailer by which a guard vouches that it still held the model when the handler failed.
HELD_KEY = "grpcerrors-held"

# Its value where the model has no identity.
HELD_UNNAMED = "1"

# Half of gRPC's default soft limit on metadata (8 KiB). Past that limit a peer may turn the error
# into RST_STREAM, and the signal is lost.
TRAILERS_LIMIT = 4096

# ErrorInfo metadata that marks a request whose handler had begun.
STARTED = "started"

_ERROR_INFO = "google.rpc.ErrorInfo"
_TYPE_PREFIX = "type.googleapis.com/"

# What HPACK charges for a header in addition to its name and value (RFC 7541, section 4.1).
_HEADER_OVERHEAD = 32
_FIXED_SIZE = len("grpc-status" + "00" + "grpc-message") + 2 * _HEADER_OVERHEAD

# What percent-encoding leaves alone (gRPC over HTTP/2).
_UNESCAPED = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))

# Bytes of a held model's name after percent-encoding, and what that leaves alone. Spaces are
# encoded, since a header's value neither begins nor ends with one.
_HELD_LIMIT = 255
_HELD_UNESCAPED = _UNESCAPED[1:]

# The longest `google.protobuf.Duration`, in seconds.
_LONGEST_DELAY = 315_576_000_000

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


@cache
def _protobuf() -> SimpleNamespace:
    """Import protobuf with the first error: it takes half as long as importing grpc itself."""
    from google.protobuf import any_pb2, duration_pb2  # noqa: PLC0415
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415
    from grpc_status import rpc_status  # noqa: PLC0415

    return SimpleNamespace(
        Any=any_pb2.Any,
        Duration=duration_pb2.Duration,
        ErrorInfo=error_details_pb2.ErrorInfo,
        RetryInfo=error_details_pb2.RetryInfo,
        Status=status_pb2.Status,
        to_status=rpc_status.to_status,
    )


def encode(
    condition: Condition,
    fields: Mapping[str, str],
    *,
    started: bool,
    limit: int = TRAILERS_LIMIT,
) -> Encoded:
    """Encode the error of a condition; its longest values are cut until the trailers fit.

    Args:
        condition: what is wrong.
        fields: the values for its message and for the ErrorInfo's metadata; empty ones are left
            out of the metadata.
        started: whether the handler had begun to work on the request.
        limit: bytes of the trailer block, counted as in `trailers_size`.
    """
    values = _utf8_values(fields)

    def build(longest: int) -> Encoded:
        cut = {name: _cut(value, longest) for name, value in values.items()}
        metadata = {name: value for name, value in cut.items() if value}
        if started:
            metadata[STARTED] = "true"
        message = condition.message.format_map(cut)
        info = _info(condition.reason, condition.domain, metadata)
        return Encoded(_status(condition.code, message, info), metadata)

    return fit(build, lambda encoded: trailers_size(encoded.status), limit)


def encode_status(
    code: grpc.StatusCode,
    message: str,
    *,
    reason: str,
    domain: str = DOMAIN,
    metadata: Mapping[str, str] | None = None,
    retry_after: float | None = None,
    limit: int = TRAILERS_LIMIT,
) -> grpc.Status:
    """Encode an error that is no condition of the contract, such as one of the router's own.

    The message and the metadata's longest values are cut, to the same number of bytes, until the
    trailers fit; a message that was cut ends in "…". The bytes are deterministic.

    Args:
        code: the status code, not OK.
        message: the status message, any string.
        reason: `google.rpc.ErrorInfo.reason`.
        domain: `google.rpc.ErrorInfo.domain`.
        metadata: `google.rpc.ErrorInfo.metadata`; empty values are left out.
        retry_after: seconds of a `google.rpc.RetryInfo`; None for no RetryInfo.
        limit: bytes of the trailer block, counted as in `trailers_size`.

    Returns:
        What `context.abort_with_status` takes: `code`, `details` (the message) and
        `trailing_metadata`, a tuple with one pair, named `DETAILS_KEY`.
    """
    text = _utf8(message[:TRAILERS_LIMIT])
    values = _utf8_values(metadata or {})
    retry = [] if retry_after is None else [_retry_info(retry_after)]

    def build(longest: int) -> grpc.Status:
        cut = {name: _cut(value, longest) for name, value in values.items()}
        info = _info(reason, domain, {name: value for name, value in cut.items() if value})
        shown = _cut(text, longest)
        return _status(code, shown if shown == text else f"{shown}…", info, *retry)

    return fit(build, trailers_size, limit)


def fit(build: Callable[[int], T], size: Callable[[T], int], limit: int) -> T:
    """Build something of at most `limit` bytes from values that are cut as little as possible.

    Args:
        build: makes it from values of at most the given number of bytes each.
        size: counts its bytes.
        limit: the most that it may have.

    Returns:
        What `build` makes with the largest number of bytes that fits, or with 0.
    """
    whole = build(TRAILERS_LIMIT)
    if size(whole) <= limit:
        return whole
    fits, too_long = 0, TRAILERS_LIMIT
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if size(build(middle)) <= limit:
            fits = middle
        else:
            too_long = middle
    return build(fits)


def trailers_size(status: grpc.Status) -> int:
    """Count the bytes of the trailer block of a status, as HPACK does.

    The message counts percent-encoded, binary trailers in base64, and each header with its name
    and an overhead of 32 bytes.
    """
    message = status.details.encode()
    percent_encoded = len(message) + 2 * len(message.translate(None, _UNESCAPED))
    return _FIXED_SIZE + percent_encoded + sum(map(trailer_size, status.trailing_metadata))


def trailer_size(trailer: tuple[str, str | bytes]) -> int:
    """Count the bytes of one trailer, as HPACK does."""
    name, value = trailer
    size = (len(value) + 2) // 3 * 4 if name.endswith("-bin") else len(value)
    return len(name) + _HEADER_OVERHEAD + size


def held_trailer(model: str) -> tuple[str, str]:
    """Return the trailer that says: the model was still held when the handler failed.

    Args:
        model: the model's identity, any string; "" where it has none. It travels percent-encoded
            in at most 255 bytes; what is longer is cut.
    """
    from urllib.parse import quote  # noqa: PLC0415 - as `_protobuf`

    encoded = ""
    for character in _utf8(model[:_HELD_LIMIT]):
        escaped = quote(character, safe=_HELD_UNESCAPED)
        if len(encoded) + len(escaped) > _HELD_LIMIT:
            break
        encoded += escaped
    return HELD_KEY, encoded or HELD_UNNAMED


def decode_held(value: str) -> str:
    """Read the value of a `grpcerrors-held` trailer."""
    from urllib.parse import unquote  # noqa: PLC0415 - as `_protobuf`

    return unquote(value)


def _info(reason: str, domain: str, metadata: Mapping[str, str]) -> Any:
    return _packed(_protobuf().ErrorInfo(reason=reason, domain=domain, metadata=metadata))


def _retry_info(seconds: float) -> Any:
    protobuf = _protobuf()
    delay = protobuf.Duration()
    delay.FromNanoseconds(int(min(max(0.0, seconds), _LONGEST_DELAY) * 1e9))
    return _packed(protobuf.RetryInfo(retry_delay=delay))


def _packed(message: Any) -> Any:
    # Not Any.Pack(): it would serialize a map in an order that differs from process to process.
    return _protobuf().Any(
        type_url=_TYPE_PREFIX + message.DESCRIPTOR.full_name,
        value=message.SerializeToString(deterministic=True),
    )


def _status(code: grpc.StatusCode, message: str, *details: Any) -> grpc.Status:
    protobuf = _protobuf()
    rich = protobuf.Status(code=code.value[0], message=message, details=details)
    return protobuf.to_status(rich)


def _utf8_values(values: Mapping[str, str]) -> dict[str, str]:
    # No value longer than the limit can fit, so a huge one is carried no further than this.
    return {name: _utf8(value[:TRAILERS_LIMIT]) for name, value in values.items()}


def _utf8(value: str) -> str:
    """Replace what UTF-8 cannot say: join surrogate pairs, put U+FFFD for lone surrogates."""
    return value.encode(_UTF_16, "surrogatepass").decode(_UTF_16, "replace")


def _cut(value: str, limit: int) -> str:
    """Cut a value to at most `limit` bytes of UTF-8, on a character boundary."""
    return value.encode()[:limit].decode(errors="ignore")


# The bytes are deterministic, so a burst of one failure is decoded once.
@lru_cache(maxsize=128)
def decode(trailer: bytes) -> tuple[ErrorInfo, ...]:
    """Read every ErrorInfo of a serialized `google.rpc.Status`; none where it cannot be decoded."""
    try:
        status = _protobuf().Status.FromString(trailer)
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


def _unpacked(detail: Any) -> Any:
    error_info_class = _protobuf().ErrorInfo
    if isinstance(detail, error_info_class):
        return detail
    if isinstance(detail, dict):
        if _names_error_info(detail["@type"]):
            fields = {name: detail.get(name) for name in ("domain", "reason", "metadata")}
            return error_info_class(**fields)
    elif _names_error_info(detail.type_url):
        return error_info_class.FromString(detail.value)
    return None


def _names_error_info(type_url: str) -> bool:
    """Some senders and proxies write another prefix, or none: only the type's name counts."""
    return type_url.rpartition("/")[2] == _ERROR_INFO


def error_info(domain: str, reason: str, metadata: Mapping[str, str]) -> ErrorInfo:
    """Make an ErrorInfo that nobody can change: `decode` hands the same one to many."""
    return ErrorInfo(domain, reason, MappingProxyType(dict(metadata)))
