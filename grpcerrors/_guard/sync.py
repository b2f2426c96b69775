"""The guard for `grpc.server`, and for sync handlers on any server."""

from __future__ import annotations

import functools
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors._error import ContractError
from grpcerrors._guard.abort import abort
from grpcerrors._guard.guard import Guard
from grpcerrors._guard.session import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grpcerrors._guard.abort import SyncContext
    from grpcerrors._guard.session import Session


class ModelGuard(Guard, grpc.ServerInterceptor):
    __doc__ = Guard.__doc__

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Guard the handler of one call (see `grpc.ServerInterceptor`)."""
        return self._guard(handler_call_details.method, continuation(handler_call_details))

    def _wrap(
        self, behavior: Callable[..., Any], begin: Callable[[Any], Session], *, streams: bool
    ) -> Callable[..., Any]:
        return wrap(behavior, begin, self._drain, streams=streams)


def wrap(
    behavior: Callable[..., Any],
    begin: Callable[[Any], Session],
    drain: float | None,
    *,
    streams: bool,
) -> Callable[..., Any]:
    """Return a sync behavior that runs `behavior` within the session that `begin` opens."""

    @functools.wraps(behavior)
    def unary(request: Any, context: Any) -> Any:
        with _Serving(begin, drain, request, context) as serving:
            serving.answer = behavior(request, context)
            return serving.answer

    @functools.wraps(behavior)
    def stream(request: Any, context: Any) -> Iterator[Any]:
        with _Serving(begin, drain, request, context):
            yield from behavior(request, context)

    return stream if streams else unary


class _Serving:
    """A session around a sync handler."""

    def __init__(
        self,
        begin: Callable[[Any], Session],
        drain: float | None,
        request: Any,
        context: SyncContext,
    ) -> None:
        self._begin = begin
        self._drain = drain
        self._request = request
        self._context = context
        self.answer: Any = None

    def __enter__(self) -> _Serving:  # noqa: PYI034 - Self is not in Python 3.10
        try:
            self._session = self._begin(self._request)
        except ContractError as refusal:
            abort(self._context, refusal)
        if self._drain is not None and self._session.drained is not None:
            futures.wait((self._session.drained,), self._drain)
        self._session.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ending = self._session.finish(Outcome.of(self._context, error, self.answer))
        if ending.instead is not None:
            abort(self._context, ending.instead)
        if ending.trailers is not None:
            self._context.set_trailing_metadata(ending.trailers)
