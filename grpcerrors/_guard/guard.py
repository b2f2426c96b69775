"""What the sync and the aio guard share: the options, and the session that each RPC opens."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from grpcerrors._guard import methods
from grpcerrors._guard.methods import SERVICE, Role
from grpcerrors._guard.models import ManyModels, OneModel
from grpcerrors._guard.session import Changing, Inference, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpcerrors._guard.models import Models

_logger = logging.getLogger(__name__)

# A server has a few dozen methods, but one that accepts any name must not fill the memory.
_CACHED = 1024


class Guard:
    """A server interceptor that answers for a backend whose model is not loaded.

    It watches `LoadModel` and `Free`, and answers every inference RPC with `MODEL_NOT_LOADED`
    before its handler runs while no model is loaded, or with `MODEL_MISMATCH` when the request's
    `ModelIdentity` names another model. If a handler fails and its model is gone by then, it
    replaces the failure with `MODEL_NOT_LOADED`, marked `started`; if the model is still there, it
    adds the trailer `grpcerrors-held`, which tells a router that the failure has another cause. A
    `ContractError` that a handler raises is sent as it is. Control-plane RPCs of LocalAI's backend
    protocol pass, and RPCs that the backend does not implement stay UNIMPLEMENTED.

    Put it last among the interceptors, behind authentication: in front of it, callers without a
    token learn whether a model is loaded.

    After a load that fails, is cancelled or overlaps with another, nothing counts as loaded. The
    same holds after a Free that fails with any code but UNIMPLEMENTED. A LoadModel or Free that
    ends with UNAUTHENTICATED or PERMISSION_DENIED changes nothing.

    Args:
        backend: the backend's name, as in `<backend>: model not loaded`.
        holds: for a host with several models, or one that evicts models by itself: returns whether
            the host holds the model of that identity, and for "" whether it holds any. Called from
            any thread, it alone decides, and the answer is never a mismatch. If it raises, the
            model counts as not held.
        drain: how many seconds `Free` and `LoadModel` wait for the calls in flight before they
            start; None for no wait. New calls are refused meanwhile.
        service: the full name of the service to guard; None for LocalAI's `backend.Backend`. Its
            RPCs must have the names of LocalAI's; if it has no `LoadModel`, pass `holds` too. RPCs
            of other services pass untouched, with one warning per service if this is None.
        exempt: the names of RPCs that work without a model, such as `{"VAD"}`; they pass.

    Raises:
        ValueError: `drain` is negative.
        TypeError: `exempt` is a single string.
    """

    def __init__(
        self,
        backend: str,
        *,
        holds: Callable[[str], bool] | None = None,
        drain: float | None = None,
        service: str | None = None,
        exempt: Collection[str] = (),
    ) -> None:
        if drain is not None and drain < 0:
            raise ValueError(f"drain must be None or seconds from 0 on, not {drain}")
        if isinstance(exempt, str):
            raise TypeError(f"exempt must be a set of names, such as {{{exempt!r}}}")
        self._models: Models = ManyModels(backend, holds) if holds else OneModel(backend)
        self._drain = drain
        self._service = service or SERVICE
        self._chosen = service is not None
        self._exempt = frozenset(exempt)
        self._unknown: set[str] = set()
        self._guarded: dict[str, tuple[Any, Any]] = {}

    def unloaded(self) -> None:
        """Report that the backend has dropped its model by itself. Thread-safe.

        Call it before the model is dropped, so that no call runs in between without a model. During
        a LoadModel it refers to the earlier model. With `holds`, it makes the guard ask again.
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
        if handler is None:
            return None
        service, _, name = method.removeprefix("/").rpartition("/")
        if service != self._service:
            self._warn(service)
            return handler
        role = methods.role_of(name, self._exempt)
        behavior = methods.behavior_of(handler)
        if methods.is_unimplemented(behavior):
            return handler
        begin = functools.partial(self._begin, role, bool(handler.request_streaming))
        wrapped = self._wrap(behavior, begin, streams=bool(handler.response_streaming))
        return methods.with_behavior(handler, wrapped)

    def _warn(self, service: str) -> None:
        """Log once that a service is not guarded, unless the author chose the service to guard."""
        expected = self._chosen or service.startswith("grpc.")
        if expected or service in self._unknown or len(self._unknown) >= _CACHED:
            return
        self._unknown.add(service)
        _logger.warning(
            "%s: the guard does not know the service %s, so its RPCs pass unguarded."
            " To guard it instead of %s, use ModelGuard(..., service=%r)",
            self._models.backend,
            service,
            SERVICE,
            service,
        )

    def _wrap(
        self, behavior: Callable[..., Any], begin: Callable[[Any], Session], *, streams: bool
    ) -> Callable[..., Any]:
        raise NotImplementedError

    def _begin(self, role: Role, streamed: bool, request: Any) -> Session:  # noqa: FBT001 - bound
        if role is Role.INFERENCE:
            # The model that a request stream asks for is known only once the handler reads it.
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
