"""The guard for `grpc.aio.server`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from grpcerrors._error import ContractError
from grpcerrors._guard import sync
from grpcerrors._guard.abort import abort
from grpcerrors._guard.context import run, trailers_of
from grpcerrors._guard.guard import Guard
from grpcerrors._guard.session import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from grpcerrors._guard.session import Opening, Session


class ModelGuard(Guard, grpc.aio.ServerInterceptor):
    __doc__ = Guard.__doc__

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Guard the handler of one call (see `grpc.aio.ServerInterceptor`)."""
        handler = await continuation(handler_call_details)
        return self._guard(handler_call_details.method, handler)

    def _wrap(
        self, behavior: Callable[..., Any], opening: Opening, *, streams: bool
    ) -> Callable[..., Any]:
        # gRPC distinguishes kinds of handlers by these tests, so the guarded one keeps its kind.
        if inspect.iscoroutinefunction(behavior):
            return _wrap_coroutine(behavior, opening)
        if inspect.isasyncgenfunction(behavior):
            return _wrap_generator(behavior, opening)
        guarded = sync.wrap(behavior, opening, streams=streams)
        return _wrap_sync(guarded, asyncio.get_running_loop(), streams=streams)


def _wrap_coroutine(behavior: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    """Wrap a unary handler, or a streaming one that uses `context.write`."""

    @functools.wraps(behavior)
    async def coroutine(request: Any, context: Any) -> Any:
        async with _Serving(opening, request, context) as serving:
            serving.answer = await behavior(serving.request, serving.context)
            return serving.answer

    return coroutine


def _wrap_generator(behavior: Callable[..., Any], opening: Opening) -> Callable[..., Any]:
    @functools.wraps(behavior)
    async def generator(request: Any, context: Any) -> AsyncIterator[Any]:
        async with (
            _Serving(opening, request, context) as serving,
            contextlib.aclosing(behavior(serving.request, serving.context)) as messages,
        ):
            async for message in messages:
                serving.session.answering = True
                yield message

    return generator


def _wrap_sync(
    guarded: Callable[..., Any], loop: asyncio.AbstractEventLoop, *, streams: bool
) -> Callable[..., Any]:
    """Wrap a sync handler, which gRPC or another interceptor runs in a thread pool.

    gRPC gives it a context whose `abort` is sync; another interceptor passes on the aio context.
    """

    @functools.wraps(guarded)
    def unary(request: Any, context: Any) -> Any:
        answer = None
        with _ThreadContext(context) as held:
            answer = guarded(request, held)
        if held.aborted:
            sent = None
            # Older grpcio returns here, newer raises; either way the call has ended.
            with contextlib.suppress(grpc.aio.AbortError):
                sent = context.abort(*held.aborted)
            if inspect.isawaitable(sent):
                return run(sent, loop)
        return answer

    @functools.wraps(guarded)
    def stream(request: Any, context: Any) -> Iterator[Any]:
        with _ThreadContext(context) as held:
            yield from guarded(request, held)
        if held.aborted:
            # An abort would overtake messages that are still being sent, and gRPC's thread would
            # then wait forever.
            code, details = held.aborted
            context.set_code(code)
            context.set_details(details)

    return stream if streams else unary


class _Serving:
    """A session around an aio handler."""

    context: _AioContext
    session: Session

    def __init__(self, opening: Opening, request: Any, context: Any) -> None:
        self._opening = opening
        self.request = request
        self._context = context
        self.answer: Any = None

    async def __aenter__(self) -> _Serving:  # noqa: PYI034 - Self is not in Python 3.10
        begin, drain, peeks = self._opening
        message = self.request
        if peeks:
            requests = aiter(self.request)
            message = await anext(requests, None)
            self.request = _Requests(message, requests)
        try:
            self.session = begin(message)
        except ContractError as refusal:
            await abort(self._context, refusal)
        self.context = _AioContext(self._context, self.session, self.request)
        if drain is not None and self.session.drained is not None:
            drained = asyncio.wrap_future(self.session.drained)
            try:
                await asyncio.wait((drained,), timeout=drain)
            except asyncio.CancelledError as error:
                self.session.finish(Outcome(None, None, None, error))
                raise
        self.session.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        context = self._context
        ending = self.session.finish(Outcome.of(context, error, self.answer))
        if self.context.aborted:
            return
        if ending.instead is not None:
            await abort(context, ending.instead)
        if ending.trailers is not None:
            context.set_trailing_metadata(ending.trailers)


class _Requests:
    """A request stream whose first message has been read already, None if it has none."""

    def __init__(self, first: Any, rest: AsyncIterator[Any]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        first = self.first()
        return await anext(self._rest) if first is None else first

    def first(self) -> Any:
        """Return the first message if it has not been handed out yet."""
        first, self._first = self._first, None
        return first


class _AioContext:
    """An aio handler's context. It judges an abort first, because gRPC sends it at once."""

    def __init__(self, context: Any, session: Session, request: Any) -> None:
        self._context = context
        self._session = session
        self._request = request
        self._loop = asyncio.get_running_loop()
        self.aborted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        first = self._request.first() if isinstance(self._request, _Requests) else None
        return await self._context.read() if first is None else first

    async def write(self, message: Any) -> None:
        self._session.answering = True
        await self._context.write(message)

    def abort(self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()) -> Any:
        # In a sync handler that another interceptor runs in a thread pool, nothing awaits it.
        return run(self._abort(code, details, trailing_metadata), self._loop)

    def abort_with_status(self, status: grpc.Status) -> Any:
        return self.abort(status.code, status.details, status.trailing_metadata)

    async def _abort(self, code: Any, details: str, trailers: tuple[Any, ...]) -> None:
        given = trailers or self._context.trailing_metadata()
        ending = self._session.abort(Outcome(code, details, given))
        self.aborted = True
        if ending.instead is not None:
            await abort(self._context, ending.instead)
        await self._context.abort(code, details, ending.trailers or trailers)


class _ThreadContext:
    """The context of a sync handler on an aio server, with the methods of a sync server's.

    An abort raises, and takes effect when the handler has ended, so that the guard can overrule it.
    Code and trailers can be read.

    Attributes:
        aborted: code and details of the last abort.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None
        self._details = ""
        self._trailers = trailers_of(context)
        self.aborted: tuple[Any, str] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        self._context.set_code(code)
        self._code = code

    def set_details(self, details: str) -> None:
        self._context.set_details(details)
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._context.set_trailing_metadata(trailing_metadata)
        self._trailers = tuple(trailing_metadata)

    def code(self) -> Any:
        return self.aborted[0] if self.aborted else self._code

    def details(self) -> str:
        return self.aborted[1] if self.aborted else self._details

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._trailers

    def abort(
        self, code: Any, details: str = "", trailing_metadata: tuple[Any, ...] = ()
    ) -> NoReturn:
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self.aborted = code, details
        raise grpc.aio.AbortError("Locally aborted.")

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata)

    def __enter__(self) -> _ThreadContext:  # noqa: PYI034 - as above
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return self.aborted is not None
