"""The guard for `grpc.server`, and for sync handlers on any server."""

from __future__ import annotations

import functools
import itertools
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
    from grpcerrors._guard.session import Opening, Session


class ModelGuard(Guard, grpc.ServerInterceptor):
    __doc__ = Guard.__doc__

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Guard the handler of one call (see `grpc.ServerInterceptor`)."""
        return self._guard(handler_call_details.method, continuation(handler_call_details))

    def _wrap(
        self, behavior: Callable[..., Any], opening: Opening, *, streams: bool
    ) -> Callable[..., Any]:
        return wrap(behavior, opening, streams=streams)


def wrap(behavior: Callable[..., Any], opening: Opening, *, streams: bool) -> Callable[..., Any]:
    """Return a sync behavior that runs `behavior` within a session."""

    @functools.wraps(behavior)
    def unary(request: Any, context: Any) -> Any:
        with _Serving(opening, request, context) as serving:
            serving.answer = behavior(serving.request, context)
            return serving.answer

    @functools.wraps(behavior)
    def stream(request: Any, context: Any) -> Iterator[Any]:
        with _Serving(opening, request, context) as serving:
            yield from _Messages(behavior(serving.request, context), serving.session)

    return stream if streams else unary


class _Messages:
    """The messages of a handler. The session learns of the first before it is sent."""

    def __init__(self, messages: Iterator[Any], session: Session) -> None:
        self._messages = iter(messages)
        self._session = session

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = next(self._messages)
        self._session.answering = True
        return message

    def close(self) -> None:
        """Close the handler, if it is a generator, before its session ends."""
        getattr(self._messages, "close", bool)()


class _Serving:
    """A session around a sync handler."""

    session: Session

    def __init__(self, opening: Opening, request: Any, context: SyncContext) -> None:
        self._opening = opening
        self.request = request
        self._context = context
        self.answer: Any = None

    def __enter__(self) -> _Serving:  # noqa: PYI034 - Self is not in Python 3.10
        begin, drain, _ = self._opening
        try:
            self.session = begin(self._peek())
        except ContractError as refusal:
            abort(self._context, refusal)
        if drain is not None and self.session.drained is not None:
            futures.wait((self.session.drained,), drain)
        self.session.start()
        return self

    def _peek(self) -> Any:
        """Return the request, or the first of a stream, which the handler gets all the same."""
        if not self._opening.peeks:
            return self.request
        requests = iter(self.request)
        first = list(itertools.islice(requests, 1))
        self.request = itertools.chain(first, requests)
        return first[0] if first else None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ending = self.session.finish(Outcome.of(self._context, error, self.answer))
        if ending.instead is not None:
            abort(self._context, ending.instead)
        if ending.trailers is not None:
            self._context.set_trailing_metadata(ending.trailers)
