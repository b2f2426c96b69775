"""Reading one attribute or accessor of an error, whatever shape it has."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import islice
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from grpcerrors import _wire
from grpcerrors._wire import DETAILS_KEY, HELD_KEY

if TYPE_CHECKING:
    from grpcerrors._wire import ErrorInfo

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


def trailers(metadata: Any) -> tuple[tuple[ErrorInfo, ...], str | None]:
    """Read a metadata's ErrorInfos, and the model that a guard says it held, None for none.

    Several different values of the details trailer contradict each other, so they count as none
    (as in grpc-go's internal/status); equal ones are a proxy's doubling.
    """
    details = held = None
    contradicted = False
    try:
        pairs = metadata.items() if isinstance(metadata, dict) else metadata
        for key, value in islice(pairs, _ITEMS_LIMIT):
            if key == DETAILS_KEY:
                contradicted |= details is not None and value != details
                details = value
            elif key == HELD_KEY:
                held = held or _wire.decode_held(text(value)) or None
    except Exception:  # noqa: BLE001 - anybody's metadata: what cannot be read says nothing
        return (), None
    if contradicted or not isinstance(details, bytes):
        return (), held
    return _wire.decode(details), held


def detail_infos(details: Any) -> tuple[ErrorInfo, ...]:
    """Read the ErrorInfos among details that a library has already taken out of the trailer."""
    if isinstance(details, (str, bytes)):
        return ()
    try:
        return _wire.decode_details(islice(details, _ITEMS_LIMIT))
    except Exception:  # noqa: BLE001 - as above
        return ()
