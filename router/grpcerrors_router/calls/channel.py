"""The tracking channel, which counts every call and heals the registry on its errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import grpc

from grpcerrors_protocol.metadata import MODEL_ID
from grpcerrors_router.calls.call import (
    TrackedStreamStreamCall,
    TrackedStreamUnaryCall,
    TrackedUnaryStreamCall,
    TrackedUnaryUnaryCall,
)
from grpcerrors_router.calls.replay import Quota, ReplayBuffer, WriteQueue
from grpcerrors_router.calls.retry import OnStale, RetryingCall, Shape

if TYPE_CHECKING:
    from grpcerrors_router.calls.dispatch import Attempt, Dispatcher

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


class InFlightTrackingClient(grpc.aio.Channel):
    """A `grpc.aio.Channel` that picks the best replica of a model for each call.

    It works with any generated stub, all four RPC shapes and every method. Each call is counted in
    and out exactly once. If an error proves that the replica is stale, the registry is corrected
    before the caller sees the error, which is unchanged. With `on_stale="retry"`, a request that
    was provably not executed is sent to another replica instead, within its deadline.

    `SmartRouter.channel` and `SmartRouter.route` create it. Calls raise RouteError, which is a
    `grpc.aio.AioRpcError`, when there is no replica to send to.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        model: str,
        on_stale: OnStale,
        reserved: Attempt | None = None,
    ) -> None:
        self.model = model
        self._dispatcher = dispatcher
        self._on_stale = on_stale
        self._reserved = reserved
        self._metadata = ((MODEL_ID, model),)

    def release_reservation(self) -> None:
        """Count out the reserved replica if no call used it."""
        if self._reserved is not None:
            self._reserved.release(None)
            self._reserved = None

    def open(
        self,
        shape: Shape,
        method: tuple[Any, ...],
        body: Any,
        timeout: float | None,
        metadata: Metadata | None,
        options: dict[str, Any],
        *,
        background: bool = True,
    ) -> RetryingCall:
        """Start a call of a stub's method."""
        own = self._metadata
        sent = own if metadata is None else _with_model(metadata, own)
        tracing = self._dispatcher.tracing
        trace = None if tracing is None else tracing.call(method[0])
        options["metadata"] = sent if trace is None else trace.metadata(sent)
        reserved, self._reserved = self._reserved, None
        return RetryingCall(
            self._dispatcher,
            self.model,
            self._on_stale,
            shape=shape,
            method=method,
            body=body,
            timeout=timeout,
            options=options,
            reserved=reserved,
            trace=trace,
            background=background,
        )

    def buffer(self, source: Any, quota: Quota | None = None) -> ReplayBuffer:
        """Return a request stream that can be replayed within the settings and the quota."""
        settings = self._dispatcher.settings
        buffer = ReplayBuffer(
            source,
            max_bytes=settings.replay_bytes,
            max_messages=settings.replay_messages,
            quota=quota or Quota(),
        )
        if self._on_stale != "retry":
            buffer.commit()
        return buffer

    async def unary(
        self, method: str, request: bytes, timeout: float | None, metadata: Metadata
    ) -> tuple[bytes, Any]:
        """Make a unary call with a serialized request; return the serialized reply and its call.

        It is cheaper than `unary_unary`, since it needs no task and no call object.

        Args:
            method: the path of the RPC.
            request: the serialized request.
            timeout: seconds for all attempts together; None for no deadline.
            metadata: of the call.

        Raises:
            grpc.aio.AioRpcError: see `RetryingCall.answer`.
        """
        retrying = self.open(
            "unary_unary", _method(method), request, timeout, metadata, {}, background=False
        )
        return await retrying.answer(), retrying.call

    def stream(
        self,
        method: str,
        requests: AsyncIterator[bytes],
        timeout: float | None,
        metadata: Metadata,
        quota: Quota,
    ) -> TrackedStreamStreamCall:
        """Start a streaming call with serialized requests, kept for a retry within the quota."""
        body = self.buffer(requests, quota)
        retrying = self.open("stream_stream", _method(method), body, timeout, metadata, {})
        return TrackedStreamStreamCall(retrying, None)

    # grpc.aio.Channel

    def unary_unary(self, *method: Any, **named: Any) -> Callable[..., TrackedUnaryUnaryCall]:
        """Return a tracked unary-unary method."""
        key = _method(*method, **named)

        def call(
            request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any
        ) -> TrackedUnaryUnaryCall:
            return TrackedUnaryUnaryCall(
                self.open("unary_unary", key, request, timeout, metadata, options)
            )

        return call

    def unary_stream(self, *method: Any, **named: Any) -> Callable[..., TrackedUnaryStreamCall]:
        """Return a tracked unary-stream method."""
        key = _method(*method, **named)

        def call(
            request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any
        ) -> TrackedUnaryStreamCall:
            return TrackedUnaryStreamCall(
                self.open("unary_stream", key, request, timeout, metadata, options)
            )

        return call

    def stream_unary(self, *method: Any, **named: Any) -> Callable[..., TrackedStreamUnaryCall]:
        """Return a tracked stream-unary method."""
        key = _method(*method, **named)

        def call(
            request_iterator: Any = None,
            timeout: float | None = None,
            metadata: Any = None,
            **options: Any,
        ) -> TrackedStreamUnaryCall:
            queue = WriteQueue() if request_iterator is None else None
            body = self.buffer(queue.messages if queue is not None else request_iterator)
            retrying = self.open("stream_unary", key, body, timeout, metadata, options)
            return TrackedStreamUnaryCall(retrying, queue)

        return call

    def stream_stream(self, *method: Any, **named: Any) -> Callable[..., TrackedStreamStreamCall]:
        """Return a tracked stream-stream method."""
        key = _method(*method, **named)

        def call(
            request_iterator: Any = None,
            timeout: float | None = None,
            metadata: Any = None,
            **options: Any,
        ) -> TrackedStreamStreamCall:
            queue = WriteQueue() if request_iterator is None else None
            body = self.buffer(queue.messages if queue is not None else request_iterator)
            retrying = self.open("stream_stream", key, body, timeout, metadata, options)
            return TrackedStreamStreamCall(retrying, queue)

        return call

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: the connections to the nodes belong to the router."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002, FBT001, FBT002
        """Return READY when a replica can be picked, else IDLE."""
        warm = self._dispatcher.table.pick(self.model) is not None
        return grpc.ChannelConnectivity.READY if warm else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until `get_state` returns another state."""
        while self.get_state() is last_observed_state:
            await self._dispatcher.table.changed(self.model, timeout=1.0)

    async def channel_ready(self) -> None:
        """Wait until a replica can be picked; load the model if needed. Raises RouteError."""
        await self._dispatcher.acquire(self.model, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _method(
    method: str,
    request_serializer: Callable[[Any], bytes] | None = None,
    response_deserializer: Callable[[bytes], Any] | None = None,
    _registered_method: bool | None = None,  # noqa: FBT001
) -> tuple[Any, ...]:
    return method, request_serializer, response_deserializer


def _with_model(metadata: Metadata, named: tuple[tuple[str, str]]) -> Metadata:
    pairs = tuple(metadata)
    if any(key == MODEL_ID for key, _ in pairs):
        return pairs
    return (*pairs, *named)
