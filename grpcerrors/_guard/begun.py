"""Errors after part of the answer has been sent, when nothing proves non-execution any more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from grpcerrors import _wire

if TYPE_CHECKING:
    from collections.abc import Iterable


def begun(trailers: Iterable[tuple[str, Any]] | None) -> tuple[tuple[str, Any], ...] | None:
    """Return trailers without the proof that nothing was executed; None if they do not have it.

    The details say `started` instead, which takes less room than the plain trailer.
    """
    given = tuple(trailers or ())
    if not any(key == _wire.UNEXECUTED_KEY for key, _ in given):
        return None
    return tuple(
        (key, _started(value) if key == _wire.DETAILS_KEY else value)
        for key, value in given
        if key != _wire.UNEXECUTED_KEY
    )


def _started(details: bytes) -> bytes:
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - slow to import

    with contextlib.suppress(Exception):  # what cannot be read says nothing
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                info.metadata[_wire.STARTED] = "true"
                detail.value = info.SerializeToString(deterministic=True)
        return status.SerializeToString(deterministic=True)
    return details
