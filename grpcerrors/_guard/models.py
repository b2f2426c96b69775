"""Which models are loaded, as far as the guard knows: a state machine without I/O.

It is notified before and after each change (a load or an unload), and when a call (inference)
enters and leaves. Every method may be called from any thread.
"""

from __future__ import annotations

import abc
import threading
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING

from grpcerrors._error import ContractError, model_loading, model_not_loaded

if TYPE_CHECKING:
    from collections.abc import Collection

# Bounds for when a caller asks again for a model that is being loaded, in seconds.
_SOONEST, _LATEST = 0.1, 5.0


class Call:
    """An inference RPC in progress.

    Attributes:
        identity: the model that it asked for; empty if it named none.
        model: the identity of the model that it entered with; None if that is unknown.
        stale: whether that model is known to be gone.
    """

    __slots__ = ("identity", "model", "stale")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.model = identity or None
        self.stale = False


class Change:
    """A load or unload in progress.

    Attributes:
        model: the identity of the model that is being loaded; None for an unload.
        scope: the identity of the only model that it can replace; None if it can replace all.
        drained: done when all calls in flight before that it can disturb have left.
        overlapped: whether another change that makes its outcome unknown took effect meanwhile.
        started: whether its handler has begun, so that the model may be gone already.
        since: when it began, in seconds of the monotonic clock.
    """

    __slots__ = ("_earlier", "drained", "model", "overlapped", "scope", "since", "started")

    def __init__(self, model: str | None, scope: str | None, calls: Collection[Call]) -> None:
        self.model = model
        self.scope = scope
        self.overlapped = False
        self.started = False
        self.since = monotonic()
        self.drained: Future[None] = Future()
        self._earlier = {call for call in calls if call.model is None or self.touches(call.model)}
        self._settle()

    def touches(self, model: str) -> bool:
        """Whether the change can replace that model."""
        return self.scope is None or self.scope == model

    def meets(self, other: Change) -> bool:
        """Whether both can replace the same model."""
        return other.scope is None or self.touches(other.scope)

    def repeats(self, other: Change) -> bool:
        """Whether both load the same model, so that it makes no difference which comes last."""
        return self.model is not None and self.model == other.model

    def left(self, call: Call) -> None:
        """Stop waiting for `call`."""
        self._earlier.discard(call)
        self._settle()

    def _settle(self) -> None:
        if not self._earlier and not self.drained.done():
            self.drained.set_result(None)


class Models(abc.ABC):
    """What all kinds of host share: calls in flight and changes in progress.

    Args:
        backend: the backend's name.
        several: whether the process can hold several models.
    """

    def __init__(self, backend: str, *, several: bool) -> None:
        self.backend = backend
        self._several = several
        # Reentrant: garbage collection may close an abandoned stream in a thread that holds this
        # lock, and the stream's call then leaves.
        self._lock = threading.RLock()
        self._calls: set[Call] = set()
        self._changes: set[Change] = set()
        self._took = 0.0  # how long the last load took, in seconds

    @abc.abstractmethod
    def refusal(self, identity: str) -> ContractError | None:
        """Return why a call for `identity` cannot be served now, or None."""

    @abc.abstractmethod
    def held(self, call: Call) -> str | None:
        """Return the identity of the model that the call entered with; None if it is gone.

        It is "" for a model without a name, and for one that the guard cannot tell.
        """

    @abc.abstractmethod
    def commit(self, change: Change, *, loaded: bool) -> None:
        """End a change that took effect: its model is loaded now, or what it could replace is gone.

        Args:
            change: the change.
            loaded: whether it was a load that succeeded.
        """

    @abc.abstractmethod
    def loaded(self, identity: str) -> None:
        """Record that the backend loaded a model by itself."""

    @abc.abstractmethod
    def unloaded(self, identity: str | None) -> None:
        """Record that the backend dropped a model by itself; None for every model."""

    def enter(self, identity: str) -> Call:
        """Let a call in, or raise the `ContractError` that refuses it."""
        call = Call(identity)
        # Added before it is judged, so that a change that begins in between waits for it.
        with self._lock:
            self._calls.add(call)
        if refusal := self.refusal(identity):
            self.leave(call)
            raise refusal
        return call

    def leave(self, call: Call) -> None:
        """Record that a call has ended."""
        with self._lock:
            self._calls.discard(call)
            for change in self._changes:
                change.left(call)

    def load(self, identity: str) -> Change:
        """Record that a load of a model is about to begin."""
        return self._begin(identity, identity if self._several else None)

    def unload(self, identity: str | None) -> Change:
        """Record that an unload of a model is about to begin; None for every model."""
        return self._begin(None, identity if self._several else None)

    def _begin(self, model: str | None, scope: str | None) -> Change:
        with self._lock:
            change = Change(model, scope, self._calls)
            self._changes.add(change)
            return change

    def start(self, change: Change) -> None:
        """Record that the handler of a change begins."""
        with self._lock:
            change.started = True

    def keep(self, change: Change) -> None:
        """End a change that changed nothing."""
        with self._lock:
            self._changes.discard(change)

    def _end(self, change: Change, *, loaded: bool) -> None:
        self._changes.discard(change)
        if loaded:
            self._took = monotonic() - change.since

    def _coming(self, identity: str) -> list[Change]:
        """Return the loads in progress after which a call for `identity` will be served."""
        with self._lock:
            return [change for change in self._changes if self._brings(change, identity)]

    def _absent(self, identity: str, loads: Collection[Change]) -> ContractError:
        """Return the refusal of a call whose model is not there, given the loads that bring it."""
        if not loads:
            return model_not_loaded(self.backend, model=identity)
        ran = monotonic() - min(load.since for load in loads)
        # It should take as long as the last load; once it has taken longer, as long again.
        left = self._took - ran if self._took > ran else ran
        retry_after = min(max(left, _SOONEST), _LATEST)
        return model_loading(self.backend, model=identity, retry_after=retry_after)

    def _brings(self, change: Change, identity: str) -> bool:
        """Whether a call for `identity` will be served if that change succeeds."""
        return change.model is not None and serves({change.model}, identity)


def serves(models: Collection[str], identity: str) -> bool:
    """Whether one of the models serves an identity: a model without a name serves all of them."""
    return identity in models or "" in models if identity else bool(models)
