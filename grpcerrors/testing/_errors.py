"""An error as a client receives it, without a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterable


class FakeRpcError(grpc.RpcError):
    """What a call over a sync channel raises; for aio, `grpc.aio.AioRpcError` can be built as is.

    Args:
        code: the status code.
        details: the status message; None for an error without one.
        trailing_metadata: the trailers.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str | None = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        super().__init__(code, details)
        self._code = code
        self._details = details
        self._trailing_metadata = tuple(trailing_metadata)

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return self._code

    def details(self) -> str | None:
        """Return the status message."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the trailers."""
        return self._trailing_metadata

    def __repr__(self) -> str:
        return f"FakeRpcError({self._code}, {self._details!r}, {self._trailing_metadata!r})"
