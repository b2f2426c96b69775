"""Which models are loaded, as far as the guard knows: a state machine without I/O.

It is notified before and after each change (a load or an unload), and when a call (inference)
enters and leaves. Every method may be called from any thread.
"""

from __future__ import annotations

import abc
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from grpcerrors._error import ContractError, model_mismatch, model_not_loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_logger = logging.getLogger(__name__)


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
        overlapped: whether another change of the same model took effect meanwhile.
        started: whether its handler has begun, so that the model may be gone already.
    """

    __slots__ = ("_earlier", "drained", "model", "overlapped", "scope", "started")

    def __init__(self, model: str | None, scope: str | None, calls: Collection[Call]) -> None:
        self.model = model
        self.scope = scope
        self.overlapped = False
        self.started = False
        self.drained: Future[None] = Future()
        self._earlier = {call for call in calls if call.model is None or self.touches(call.model)}
        self._settle()

    def touches(self, model: str) -> bool:
        """Whether the change can replace that model."""
        return self.scope is None or self.scope == model

    def disturbs(self, other: Change) -> bool:
        """Whether both can replace the same model."""
        return other.scope is None or self.touches(other.scope)

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


class Tracked(Models):
    """A process whose models are known from its loads and unloads."""

    def __init__(self, backend: str, *, several: bool) -> None:
        super().__init__(backend, several=several)
        self._loaded: set[str] = set()

    def enter(self, identity: str) -> Call:
        """As above; which model serves the call is known from then on."""
        with self._lock:
            call = super().enter(identity)
            there = self._without(self._changes)
            call.model = next(iter(there)) if len(there) == 1 else None
            call.model = next((name for name in (identity, "") if name in there), call.model)
            return call

    def refusal(self, identity: str) -> ContractError | None:
        """While a model is being changed, it cannot be served."""
        with self._lock:
            if _serve(self._without(self._changes), identity):
                return None
            if self._changes or self._several or not self._loaded:
                return model_not_loaded(self.backend, model=identity)
            (loaded,) = self._loaded
            return model_mismatch(self.backend, loaded=loaded, requested=identity)

    def held(self, call: Call) -> str | None:
        """A change that is still waiting for calls to end has not touched the model."""
        with self._lock:
            there = self._without(change for change in self._changes if change.started)
            if call.stale or not there:
                return None
            return "" if call.model is None else call.model if call.model in there else None

    def commit(self, change: Change, *, loaded: bool) -> None:
        """If changes overlapped, it is unknown which came last, so nothing counts as loaded."""
        with self._lock:
            self._changes.discard(change)
            for other in self._changes:
                other.overlapped |= change.disturbs(other)
            model = change.model if loaded and not change.overlapped else None
            self._replace(change, model)

    def loaded(self, identity: str) -> None:
        """It replaces the model before, unless the process can hold several."""
        with self._lock:
            self._replace(self.load(identity), identity)

    def unloaded(self, identity: str | None) -> None:
        """A change in progress is not affected: a load may begin by dropping the old model."""
        with self._lock:
            self._replace(self.unload(identity), None)

    def _replace(self, change: Change, model: str | None) -> None:
        self._changes.discard(change)
        self._loaded = self._without((change,))
        for call in tuple(self._calls):
            call.stale |= not self._loaded if call.model is None else change.touches(call.model)
        if model is not None:
            self._loaded.add(model)

    def _without(self, changes: Iterable[Change]) -> set[str]:
        """Return the models that no change can replace."""
        changes = tuple(changes)
        return {model for model in self._loaded if not any(each.touches(model) for each in changes)}


class Asked(Models):
    """A process whose models are known only to its host.

    Args:
        backend: the backend's name.
        several: whether the process can hold several models.
        holds: returns whether the host holds the model of that identity, or any model for "".
    """

    def __init__(self, backend: str, *, several: bool, holds: Callable[[str], bool]) -> None:
        super().__init__(backend, several=several)
        self._holds = holds

    def refusal(self, identity: str) -> ContractError | None:
        """If the predicate raises, the model counts as not held, which is the safe answer."""
        try:
            held = self._holds(identity)
        except Exception:
            _logger.exception("%s: holds(%r) failed", self.backend, identity)
            held = False
        return None if held else model_not_loaded(self.backend, model=identity)

    def held(self, call: Call) -> str | None:
        """The host is asked again."""
        return None if call.stale or self.refusal(call.identity) else call.identity

    def commit(self, change: Change, *, loaded: bool) -> None:  # noqa: ARG002 - the host knows
        """Mark the calls whose model is gone, so that a later reload does not hide it."""
        self.keep(change)
        self.unloaded(None)

    def loaded(self, identity: str) -> None:
        """The host knows."""

    def unloaded(self, identity: str | None) -> None:  # noqa: ARG002 - the host knows
        """As after a change, the predicate decides which models are gone."""
        with self._lock:
            calls = tuple(self._calls)
        gone = {each for each in {call.identity for call in calls} if self.refusal(each)}
        for call in calls:
            call.stale |= call.identity in gone


def _serve(models: Collection[str], identity: str) -> bool:
    """Whether one of the models serves an identity: a model without a name serves all of them."""
    return identity in models or "" in models if identity else bool(models)
