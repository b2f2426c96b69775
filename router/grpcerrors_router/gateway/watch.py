"""The watch on the calls of a gateway, for traces and metrics. Without either, it costs nothing."""

from __future__ import annotations

import asyncio
import functools
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from types import TracebackType

    from grpcerrors_router.router import SmartRouter

_OK, _CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED

_EARLY = 0.1
"""Seconds: a caller whose deadline passes cancels the call, a little before it passes here."""


class Watch:
    """Wraps the handlers of a gateway, if someone wants to know about its calls."""

    def __init__(self, router: SmartRouter) -> None:
        self._router = router
        self._on = router.tracing is not None or router.events.handles("served")

    def over(self, path: str, handler: Any, *, known: bool) -> Any:
        """Return the handler of an RPC, watched.

        Args:
            path: that of the RPC.
            handler: takes the request and the context.
            known: whether the gateway knows the RPC; else a caller may have invented its name.
        """
        if not self._on:
            return handler

        @functools.wraps(handler)
        async def watched(request: Any, context: Any) -> Any:
            with _Call(self._router, path, context, known=known):
                return await handler(request, context)

        return watched

    def note(self, model: str) -> None:
        """Note the model of the task's call."""
        if self._on and (call := _call.get()) is not None:
            call.model = model

    def note_error(self, error: grpc.aio.AioRpcError) -> None:
        """Note why the task's call fails."""
        if self._on and (call := _call.get()) is not None:
            call.error = error


class _Call:
    """A call that is being served."""

    __slots__ = ("_begun", "_context", "_path", "_router", "_trace", "error", "model")

    def __init__(self, router: SmartRouter, path: str, context: Any, *, known: bool) -> None:
        self._router = router
        self._path = path
        self._context = context
        self._begun = time.perf_counter()
        self._trace = (
            None
            if router.tracing is None
            else router.tracing.serve(path, context.invocation_metadata() or (), known=known)
        )
        self.model = ""
        self.error: grpc.aio.AioRpcError | None = None

    def __enter__(self) -> None:
        _call.set(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = _OK if error is None else self._code(error)
        model = self.model if self.model in self._router.models else ""
        trace_id = ""
        if self._trace is not None:
            trace_id = self._trace.trace_id
            self._trace.end(code, (self.error and self.error.details()) or "")
        seconds = time.perf_counter() - self._begun
        self._router.events.served(model, self._path, code, seconds, trace_id)

    def _code(self, error: BaseException) -> grpc.StatusCode:
        if self.error is not None:
            return self.error.code()
        if not isinstance(error, asyncio.CancelledError):
            return grpc.StatusCode.UNKNOWN  # gRPC's answer to an exception
        left = self._context.time_remaining()
        return _CANCELLED if left is None or left > _EARLY else grpc.StatusCode.DEADLINE_EXCEEDED


_call: ContextVar[_Call | None] = ContextVar("gateway call", default=None)
