"""What the sync and the aio guard share: the options, and the session that each RPC opens."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

from grpcerrors._guard import methods
from grpcerrors._guard.hosts import Asked, Tracked
from grpcerrors._guard.methods import Role
from grpcerrors._guard.protocol import LOCALAI, Protocol, text_at
from grpcerrors._guard.session import Changing, Inference, Opening, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpcerrors._guard.models import Models

_logger = logging.getLogger(__name__)

# A server has a few dozen methods, but one that accepts any name must not fill the memory.
_CACHED = 1024


class Guard:
    """A server interceptor that answers for a backend whose model is not loaded.

    It watches the RPCs that load and unload models (`LoadModel` and `Free` in LocalAI's protocol),
    and answers every inference RPC before its handler runs while its model is not there: with
    `MODEL_LOADING` while a load of that model runs, with `MODEL_MISMATCH` if the process holds only
    one model at a time and the request names another, and else with `MODEL_NOT_LOADED`. If a
    handler fails and its model is gone by then, it replaces the failure with `MODEL_NOT_LOADED`,
    marked `started`; if the model is still there, it adds the trailer `grpcerrors-held`, which
    tells a router that the failure has another cause. A `ContractError` that a handler raises is
    sent as it is: its author promises by leaving out `started` that the handler has done nothing.
    Once part of the answer has been sent, the guard marks it `started`. Control-plane RPCs pass,
    and RPCs that the backend does not implement stay UNIMPLEMENTED.

    Put it last among the interceptors, behind authentication: in front of it, callers without a
    token learn whether a model is loaded.

    After a load that fails or is cancelled, its model counts as not loaded, and so does the one
    before if the process holds only one. The same holds after an unload that fails with any code
    but UNIMPLEMENTED, and after changes that overlap, except for loads of the same model that all
    succeed. A load or unload that ends with UNAUTHENTICATED or PERMISSION_DENIED changes nothing.

    Args:
        backend: the backend's name, as in `<backend>: model not loaded`.
        protocol: the service to guard: `LOCALAI`, `KSERVE` or a description of your own; None for
            `LOCALAI`. RPCs of other services pass untouched, with one warning per service if this
            is None.
        holds: for a host that evicts models by itself, or whose protocol does not show what is
            loaded: returns whether the host holds the model of that identity, and for "" whether it
            holds any. Called from any thread, it alone decides, and the answer is never a mismatch.
            If it raises, the model counts as not held.
        drain: how many seconds a load or unload waits for the calls in flight that it would disturb
            before it starts, infinity included; None for no wait. New calls are refused meanwhile.
        exempt: the names of RPCs that work without a model, such as `{"VAD"}`; they pass.

    Raises:
        ValueError: `drain` is negative.
        TypeError: `exempt` is a single string.
    """

    def __init__(
        self,
        backend: str,
        *,
        protocol: Protocol | None = None,
        holds: Callable[[str], bool] | None = None,
        drain: float | None = None,
        exempt: Collection[str] = (),
    ) -> None:
        if drain is not None and not drain >= 0:  # NaN too
            raise ValueError(f"drain must be None or seconds from 0 on, not {drain}")
        if isinstance(exempt, str):
            raise TypeError(f"exempt must be a set of names, such as {{{exempt!r}}}")
        self._protocol = protocol or LOCALAI
        several = self._protocol.several_models
        self._models: Models = (
            Asked(backend, several=several, holds=holds)
            if holds
            else Tracked(backend, several=several)
        )
        self._chosen = protocol is not None
        # Waiting for longer, or for ever, raises OverflowError.
        self._drain = None if drain is None else min(drain, threading.TIMEOUT_MAX)
        self._exempt = frozenset(exempt)
        self._unknown: set[str] = set()
        self._guarded: dict[str, tuple[Any, Any]] = {}

    def loaded(self, model: str = "") -> None:
        """Report that the backend has loaded a model by itself, such as at its start. Thread-safe.

        Args:
            model: its identity; "" for a model that serves every request. With `holds`, the guard
                asks the host in any case.
        """
        self._models.loaded(model)

    def unloaded(self, model: str | None = None) -> None:
        """Report that the backend has dropped a model by itself. Thread-safe.

        Call it before the model is dropped, so that no call runs in between without a model. During
        a load it refers to the earlier model. With `holds`, it makes the guard ask again.

        Args:
            model: its identity; None for every model. A process that holds one model at a time
                need not name it.
        """
        self._models.unloaded(model)

    def _guard(self, method: str, handler: Any) -> Any:
        """Return the guarded twin of a method's handler, which may be None."""
        if handler is None:  # not kept: a client can name any number of methods
            return None
        cached = self._guarded.get(method)
        if cached is not None and cached[0] is handler:
            return cached[1]
        guarded = self._build(method, handler)
        if len(self._guarded) < _CACHED:
            self._guarded[method] = (handler, guarded)
        return guarded

    def _build(self, method: str, handler: Any) -> Any:
        service, _, name = method.removeprefix("/").rpartition("/")
        if service != self._protocol.service:
            self._warn(service)
            return handler
        behavior = methods.behavior_of(handler)
        if methods.is_unimplemented(behavior):
            return handler
        role = methods.role_of(self._protocol, name, self._exempt)
        path = self._path(role, name, streamed=bool(handler.request_streaming))
        opening = Opening(
            functools.partial(self._begin, role, path),
            self._drain,
            peeks=bool(path and handler.request_streaming),
        )
        wrapped = self._wrap(behavior, opening, streams=bool(handler.response_streaming))
        return methods.with_behavior(handler, wrapped)

    def _path(self, role: Role, name: str, *, streamed: bool) -> str:
        """Return the request field that names the model of an RPC, "" if there is none."""
        protocol = self._protocol
        fields = {**protocol.load, **protocol.unload, **protocol.inference}
        if role is Role.CONTROL:
            return ""
        # Reading a stream that nobody described could wait for a client that waits for an answer.
        return fields.get(name, "" if streamed else protocol.field_of(name))

    def _warn(self, service: str) -> None:
        """Log once that a service is not guarded, unless the author chose the one to guard."""
        known = self._chosen or service.startswith("grpc.") or service in self._unknown
        if known or len(self._unknown) >= _CACHED:
            return
        self._unknown.add(service)
        _logger.warning(
            "%s: the guard does not know the service %s, so its RPCs pass unguarded. It guards %s;"
            " to guard another service, use ModelGuard(..., protocol=...)",
            self._models.backend,
            service,
            self._protocol.service,
        )

    def _wrap(
        self, behavior: Callable[..., Any], opening: Opening, *, streams: bool
    ) -> Callable[..., Any]:
        raise NotImplementedError

    def _begin(self, role: Role, path: str, request: Any) -> Session:
        protocol, models = self._protocol, self._models
        identity = text_at(request, path)
        if role is Role.INFERENCE:
            return Inference(protocol, models, identity)
        if role is Role.LOAD:
            return Changing(protocol, models, models.load(identity))
        if role is Role.UNLOAD:
            return Changing(protocol, models, models.unload(identity if path else None))
        return Session()
