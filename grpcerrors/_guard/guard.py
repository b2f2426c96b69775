"""The guard without a surface: its options, and which session an RPC opens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from grpcerrors._guard import methods
from grpcerrors._guard.methods import Role
from grpcerrors._guard.models import ManyModels, OneModel
from grpcerrors._guard.session import Changing, Inference, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpcerrors._guard.models import Models

# A server has some dozens of methods. One that answers to any name must not fill the memory.
_CACHED = 1024


class Guard:
    """A server interceptor that answers for a backend whose model is not loaded.

    It watches `LoadModel` and `Free`, and answers every inference RPC with `MODEL_NOT_LOADED`
    before its handler runs while no model is loaded, or with `MODEL_MISMATCH` when the request's
    `ModelIdentity` names another model. Where a handler fails and its model has gone meanwhile, it
    replaces the accident with `MODEL_NOT_LOADED`, marked `started`. A `ContractError` that a
    handler raises is sent as it is. Control-plane RPCs of LocalAI's backend protocol pass, and RPCs
    that the backend does not implement stay UNIMPLEMENTED.

    Put it last among the interceptors: behind authentication, so that a caller who may not call
    learns nothing about the model, and a rejected LoadModel changes nothing.

    A load that overlaps with another, is cancelled or fails leaves nothing loaded; so does a Free
    that fails in another way than by UNIMPLEMENTED.

    Args:
        backend: the backend's name, as in `<backend>: model not loaded`.
        holds: for a host with several models, or one that evicts by itself: whether it holds the
            model of that identity, and for "" whether it holds any. It then decides alone, from any
            thread, and the answer is never a mismatch. Where it raises, the model is not held.
        drain: seconds for which `Free` and `LoadModel` wait for the calls in flight before they go
            on; None: they do not wait.
        service: the full name of the one service to guard, such as `backend.Backend`; None: every
            service except gRPC's own (`grpc.health.v1.Health` and the like).

    Raises:
        ValueError: `drain` is negative.
    """

    def __init__(
        self,
        backend: str,
        *,
        holds: Callable[[str], bool] | None = None,
        drain: float | None = None,
        service: str | None = None,
    ) -> None:
        if drain is not None and drain < 0:
            raise ValueError(f"drain must be None or seconds from 0 on, not {drain}")
        self._models: Models = ManyModels(backend, holds) if holds else OneModel(backend)
        self._drain = drain
        self._service = service
        self._guarded: dict[str, tuple[Any, Any]] = {}

    def unloaded(self) -> None:
        """Say that the backend has dropped its model by itself. Thread-safe.

        Call it before the model goes, so that no call in between meets neither. During a LoadModel
        it speaks of the model before. With `holds` it says: ask again.
        """
        self._models.unloaded()

    def _guard(self, method: str, handler: Any) -> Any:
        """Return the guarded twin of a method's handler, which may be None."""
        cached = self._guarded.get(method)
        if cached is not None and cached[0] is handler:
            return cached[1]
        guarded = self._build(method, handler)
        if len(self._guarded) < _CACHED:
            self._guarded[method] = (handler, guarded)
        return guarded

    def _build(self, method: str, handler: Any) -> Any:
        role = methods.role_of(method, self._service)
        if handler is None or role is None:
            return handler
        behavior = methods.behavior_of(handler)
        if methods.is_unimplemented(behavior):
            return handler
        begin = functools.partial(self._begin, role, bool(handler.request_streaming))
        wrapped = self._wrap(behavior, begin, streams=bool(handler.response_streaming))
        return methods.with_behavior(handler, wrapped)

    def _wrap(
        self, behavior: Callable[..., Any], begin: Callable[[Any], Session], *, streams: bool
    ) -> Callable[..., Any]:
        raise NotImplementedError

    def _begin(self, role: Role, streamed: bool, request: Any) -> Session:  # noqa: FBT001 - bound
        if role is Role.INFERENCE:
            # What a stream of requests is for shows only after the handler has begun to read it.
            identity = "" if streamed else _text(request, "ModelIdentity")
            return Inference(self._models, identity)
        if role is Role.LOAD:
            return Changing(self._models, _text(request, "Model"))
        if role is Role.FREE:
            return Changing(self._models, None)
        return Session()


def _text(message: Any, field: str) -> str:
    value = getattr(message, field, "")
    return value if isinstance(value, str) else ""
