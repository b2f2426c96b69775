"""The contract's bytes, as CONTRACT.md states them: encode an error, and decode it again.

Internal, but stable: the router builds its own errors with `encode`.
"""

from __future__ import annotations

import contextlib
from functools import cache, lru_cache, partial
from itertools import islice, starmap
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from grpcerrors._condition import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    import grpc

    Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]
    Encoded: TypeAlias = tuple[str, Trailers, Mapping[str, str]]

DETAILS_KEY = "grpc-status-details-bin"  # a serialized google.rpc.Status
UNEXECUTED_KEY = "grpcerrors-unexecuted"  # the reason, if nothing was executed: for proxies
HELD_KEY = "grpcerrors-held"  # the model that a guard still held when the handler failed
STARTED = "started"  # ErrorInfo metadata that marks a request whose handler had begun

# Half of gRPC's default soft limit on metadata (8 KiB). Past that limit a peer may turn the error
# into RST_STREAM, and the signal is lost.
TRAILERS_LIMIT = 4096

ITEMS_LIMIT = 1_000  # details, or pairs of metadata, that are read
# What percent-encoding leaves alone (gRPC over HTTP/2).
UNESCAPED = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))
_LONGEST_DELAY = 315_576_000_000  # seconds, of a google.protobuf.Duration


class ErrorInfo(NamedTuple):
    """A `google.rpc.ErrorInfo` and the delay of the RetryInfo sent with it, or a plain trailer."""

    domain: str
    reason: str
    metadata: Mapping[str, str]
    retry_after: float | None = None
    plain: bool = False


class Infos(tuple[ErrorInfo, ...]):
    """All that an error types. Its hash is its identity, so that verdicts about it are cached."""

    __slots__ = ()
    __hash__ = object.__hash__


@cache
def _protobuf() -> tuple[Any, Any, Any, dict[str, Any]]:
    """Import protobuf with the first error: it takes half as long as importing grpc itself."""
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415

    kinds = error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo
    return *kinds, status_pb2.Status, {kind.DESCRIPTOR.full_name: kind for kind in kinds}


def encode(
    code: grpc.StatusCode,
    compose: Callable[[Callable[[str], str]], str],
    info: ErrorInfo,
    *,
    unexecuted: bool = False,
) -> Encoded:
    """Encode an error, each value cut to the same number of bytes, so that all of it fits.

    Returns the message, the trailers, and the ErrorInfo's metadata in them. `compose` returns the
    message, with each value in it cut by the function that it is given. Empty metadata is left out,
    and the delay is bounded. Upon the plain trailer, which is sent if `unexecuted` is true, a proxy
    may send the call again. The bytes are deterministic.
    """

    def build(longest: int) -> Encoded:
        cut_here = partial(cut, limit=longest)
        given = info.metadata.items()
        sent = {name: value if name == STARTED else cut_here(value) for name, value in given}
        sent = {name: value for name, value in sent.items() if value}
        message = compose(cut_here)
        details = [error_info(domain=info.domain, reason=info.reason, metadata=sent)]
        if info.retry_after is not None:
            details.append(retry_info())
            delay = min(max(0, info.retry_after), _LONGEST_DELAY)
            details[1].retry_delay.FromNanoseconds(int(delay * 1e9))
        rich = status(code=code.value[0], message=message)
        for detail in details:
            # Not Any.Pack(), which serializes a map in an order that differs between processes.
            value = detail.SerializeToString(deterministic=True)
            name = detail.DESCRIPTOR.full_name
            rich.details.add(type_url=f"type.googleapis.com/{name}", value=value)
        trailers: Trailers = ((DETAILS_KEY, rich.SerializeToString(deterministic=True)),)
        return message, trailers + (plain,) * unexecuted, sent

    error_info, retry_info, status, _ = _protobuf()
    plain = plain_trailer(info.domain, info.reason)
    built = build(TRAILERS_LIMIT)
    if trailers_size(*built[:2]) <= TRAILERS_LIMIT:
        return built
    from bisect import bisect_right  # noqa: PLC0415 - rarely needed

    lengths = range(TRAILERS_LIMIT)
    too_long = bisect_right(lengths, TRAILERS_LIMIT, key=lambda n: trailers_size(*build(n)[:2]))
    return build(max(too_long - 1, 0))


def plain_trailer(domain: str, reason: str) -> tuple[str, str]:
    """Return the trailer that says without protobuf that nothing was executed, and why."""
    return UNEXECUTED_KEY, reason if domain == DOMAIN else f"{domain}/{reason}"


def trailers_size(message: str, trailers: Trailers) -> int:
    """Count the bytes of an error as HPACK does: percent-encoded text, binary values in base64."""
    text = message.encode()
    size = len(text) + 2 * len(text.translate(None, UNESCAPED))
    for name, value in (("grpc-status", "00"), ("grpc-message", ""), *trailers):
        size += len(name) + 32  # RFC 7541, section 4.1
        size += (len(value) + 2) // 3 * 4 if name.endswith("-bin") else len(value)
    return size


def cut(value: str, limit: int) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, on a character boundary.

    What UTF-8 cannot encode is replaced: surrogate pairs by their character, lone ones by U+FFFD.
    """
    text = value[:limit].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.encode()[:limit].decode(errors="ignore")


# The bytes are deterministic, so a burst of one failure is decoded once.
@lru_cache(maxsize=128)
def decode(trailer: bytes, plain: str = "") -> Infos:
    """Return the readable ErrorInfos of a `google.rpc.Status`, then what a plain trailer says."""
    infos = Infos()
    with contextlib.suppress(Exception):  # each protobuf implementation raises its own
        infos = decode_details(_protobuf()[2].FromString(trailer).details if trailer else ())
    domain, _, reason = plain.strip().rpartition("/")
    said = ErrorInfo(domain or DOMAIN, reason, MappingProxyType({}), plain=True)
    return Infos((*infos, said)) if reason else infos


def decode_details(details: Any) -> Infos:
    """Return all ErrorInfos that can be decoded of details, as a client library gives them.

    Their metadata is read-only, because `decode` returns the same object many times.
    """
    infos: list[Any] = []
    retry_after = None
    if details is None or isinstance(details, (str, bytes)):
        return Infos()
    with contextlib.suppress(Exception):
        for detail in islice(details, ITEMS_LIMIT):
            try:
                message = _unpacked(detail)
            except Exception:  # noqa: BLE001, S112 - what cannot be read says nothing
                continue
            if message.DESCRIPTOR.name == "ErrorInfo":
                infos.append(message)
            elif retry_after is None:
                delay = message.retry_delay
                valid = 0 <= delay.seconds <= _LONGEST_DELAY and 0 <= delay.nanos < 10**9
                retry_after = delay.seconds + delay.nanos / 1e9 if valid else None
    read = [(m.domain, m.reason, MappingProxyType(dict(m.metadata)), retry_after) for m in infos]
    return Infos(starmap(ErrorInfo, read))


def _unpacked(detail: Any) -> Any:
    """Return a detail as a protobuf ErrorInfo or RetryInfo; raise for any other."""
    error_info, retry_info, _, kinds = _protobuf()
    match detail:
        case error_info() | retry_info():  # google-api-core, grpclib
            return detail
        case {"@type": type_url}:  # REST errors of google-api-core
            data = detail
        case object(type_url=type_url, value=data) | object(type_name=type_url, message_bytes=data):
            pass  # Connect
        case _:  # grpclib drops it if nobody has imported its type: it may be one of ours
            type_url, data = detail._name, None  # noqa: SLF001
    # Some senders and proxies write another prefix, or none: only the type's name counts.
    kind = kinds[type_url.rpartition("/")[2]]
    if isinstance(data, dict):
        from google.protobuf.json_format import ParseDict  # noqa: PLC0415 - rarely needed

        return ParseDict(data, kind(), ignore_unknown_fields=True)
    return kind(domain=DOMAIN) if data is None else kind.FromString(data)
