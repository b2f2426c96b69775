"""Contexts that record what a handler does with them, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from grpcerrors.testing._errors import FakeRpcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Its type stubs differ from what grpc does.
_aio: Any = grpc.aio


class Aborted(Exception):
    """Raised by a fake context's `abort`; gRPC's contexts raise Exception or an error of theirs."""


class _Recorded:
    """What both contexts share: everything that does not wait."""

    def __init__(
        self,
        *,
        invocation_metadata: Iterable[tuple[str, str | bytes]] = (),
        time_remaining: float | None = None,
        peer: str = "ipv4:127.0.0.1:50051",
    ) -> None:
        """Begin a call.

        Args:
            invocation_metadata: what the client sent.
            time_remaining: seconds until the deadline; None for no deadline.
            peer: the address of the client.
        """
        self.initial_metadata: tuple[tuple[str, str | bytes], ...] = ()
        self._invocation_metadata = tuple(invocation_metadata)
        self._time_remaining = time_remaining
        self._peer = peer
        self._code: Any = None
        self._details = ""
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()
        self._aborted = False

    @property
    def error(self) -> FakeRpcError | None:
        """What the client would see after what the handler has done so far; None for no error."""
        if self._code in (None, grpc.StatusCode.OK):
            return None
        return FakeRpcError(self._code, self._details, self._trailers)

    def invocation_metadata(self) -> Any:
        return self._invocation_metadata

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> Any:
        return {}

    def time_remaining(self) -> Any:
        return self._time_remaining

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailers = tuple(trailing_metadata)

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailers

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing, since nothing is sent."""

    def disable_next_message_compression(self) -> None:
        """Do nothing, since nothing is sent."""

    def _abort(
        self,
        code: grpc.StatusCode,
        details: str,
        trailers: Iterable[tuple[str, str | bytes]],
    ) -> NoReturn:
        if self._aborted:
            raise RuntimeError(
                "abort was called twice: the handler caught what it raised the first time"
            )
        if code is grpc.StatusCode.OK:
            raise ValueError("a call cannot be aborted with OK: return instead")
        self._aborted = True
        self._code, self._details, self._trailers = code, details, tuple(trailers)
        raise Aborted(code, details)


class FakeContext(_Recorded, grpc.ServicerContext):
    """A sync handler's context."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self._abort(code, details, self._trailers)

    def abort_with_status(self, status: Any) -> NoReturn:
        # As on a real server, these trailers replace earlier ones.
        self._abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self.initial_metadata = tuple(initial_metadata)

    def is_active(self) -> bool:
        return not self._aborted

    def cancel(self) -> Any:
        self.set_code(grpc.StatusCode.CANCELLED)

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 - it never ends
        return self.is_active()


class FakeAioContext(_Recorded, _aio.ServicerContext):
    """An aio handler's context.

    Attributes:
        written: the messages that the handler wrote.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.written: list[Any] = []

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        self._abort(code, details, tuple(trailing_metadata) or self._trailers)

    async def abort_with_status(self, status: Any) -> NoReturn:
        self._abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(
        self, initial_metadata: Iterable[tuple[str, str | bytes]]
    ) -> None:
        self.initial_metadata = tuple(initial_metadata)

    async def read(self) -> Any:
        return _aio.EOF

    async def write(self, message: Any) -> None:
        self.written.append(message)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Do nothing, since the call of a fake never ends."""

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._aborted
