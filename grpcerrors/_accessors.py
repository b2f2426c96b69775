"""Reading one attribute or accessor of an error, whatever shape it has."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import islice
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from grpcerrors._lazy import wire

if TYPE_CHECKING:
    from grpcerrors._wire import ErrorInfo

DETAILS_KEY = "grpc-status-details-bin"

# More than a transport carries: gRPC's hard limit on metadata is 16 KiB.
_TEXT_LIMIT = 16_384
_ITEMS_LIMIT = 1_000

_CODES_BY_NAME = {code.name: code for code in StatusCode} | {"CANCELED": StatusCode.CANCELLED}


def get(node: object, name: str) -> Any:
    """Read an attribute, or call it where it is a method; None where that fails.

    A coroutine is closed, not awaited: only an aio call that is still running answers with one.
    """
    try:
        value = getattr(node, name)
        if callable(value):
            value = value()
        if isinstance(value, Coroutine):
            value.close()
            return None
    except Exception:  # noqa: BLE001 - the accessors are anybody's
        return None
    return value


def status_code(value: object) -> StatusCode | None:
    """Read a code of gRPC, or of another library's enumeration with the same names."""
    if isinstance(value, StatusCode):
        return value
    name = getattr(value, "name", None)
    return _CODES_BY_NAME.get(name) if isinstance(name, str) else None


def text(value: object) -> str:
    """Read a message, cut to what matters of it."""
    if isinstance(value, str):
        # Not value[:n]: a subclass of str may do anything there.
        return str.__getitem__(value, slice(_TEXT_LIMIT))
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(_TEXT_LIMIT)).decode(errors="replace")
    return ""


def members(exceptions: object) -> tuple[object, ...]:
    """Read the members of a group."""
    return exceptions if isinstance(exceptions, tuple) else ()


def trailer_infos(metadata: Any) -> tuple[ErrorInfo, ...]:
    """Read the ErrorInfos of a metadata's details trailer.

    Several different values contradict each other, so they count as none (as in grpc-go's
    internal/status); equal ones are a proxy's doubling.
    """
    try:
        trailer = _only_trailer(metadata)
    except Exception:  # noqa: BLE001 - anybody's metadata: what cannot be read says nothing
        return ()
    infos: tuple[ErrorInfo, ...] = wire().decode(trailer) if isinstance(trailer, bytes) else ()
    return infos


def _only_trailer(metadata: Any) -> object:
    pairs = metadata.items() if isinstance(metadata, dict) else metadata
    trailer = None
    for key, value in islice(pairs, _ITEMS_LIMIT):
        if key == DETAILS_KEY:
            if trailer is not None and value != trailer:
                return None
            trailer = value
    return trailer


def detail_infos(details: Any) -> tuple[ErrorInfo, ...]:
    """Read the ErrorInfos among details that a library has already taken out of the trailer."""
    if isinstance(details, (str, bytes)):
        return ()
    try:
        infos: tuple[ErrorInfo, ...] = wire().decode_details(islice(details, _ITEMS_LIMIT))
    except Exception:  # noqa: BLE001 - as above
        return ()
    return infos
