"""Which model is loaded, as far as the guard knows: a state machine without I/O.

It is notified before and after each change (LoadModel, Free), and when a call (inference) enters
and leaves. Every method may be called from any thread.
"""

from __future__ import annotations

import abc
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from grpcerrors._error import ContractError, model_mismatch, model_not_loaded

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)


class Call:
    """An inference RPC in progress.

    Attributes:
        identity: the model that it asked for; empty if it named none.
        stale: whether the model that it entered with is known to be gone.
    """

    __slots__ = ("identity", "stale")

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.stale = False


class Change:
    """A LoadModel or Free in progress.

    Attributes:
        drained: done when all calls that were in flight before have left.
        overlapped: whether another change took effect meanwhile.
        started: whether its handler has begun, so that the model may be gone already.
    """

    __slots__ = ("_earlier", "drained", "overlapped", "started")

    def __init__(self, earlier: set[Call]) -> None:
        self.overlapped = False
        self.started = False
        self.drained: Future[None] = Future()
        self._earlier = earlier
        self._settle()

    def left(self, call: Call) -> None:
        """Stop waiting for `call`."""
        self._earlier.discard(call)
        self._settle()

    def _settle(self) -> None:
        if not self._earlier and not self.drained.done():
            self.drained.set_result(None)


class Models(abc.ABC):
    """What both kinds of host share: calls in flight and changes in progress."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        # Reentrant: garbage collection may close an abandoned stream in a thread that holds this
        # lock, and the stream's call then leaves.
        self._lock = threading.RLock()
        self._calls: set[Call] = set()
        self._changes: set[Change] = set()

    @abc.abstractmethod
    def refusal(self, identity: str) -> ContractError | None:
        """Return why a call for `identity` cannot be served now, or None."""

    @abc.abstractmethod
    def commit(self, change: Change, identity: str | None) -> None:
        """End a change that took effect: `identity` is loaded now, or nothing if it is None."""

    @abc.abstractmethod
    def unloaded(self) -> None:
        """Record that the backend dropped a model by itself."""

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

    @abc.abstractmethod
    def held(self, call: Call) -> str | None:
        """Return the identity of the model that the call entered with; None if it is gone.

        It is "" for a model without a name, and for one that only the host knows.
        """

    def leave(self, call: Call) -> None:
        """Record that a call has ended."""
        with self._lock:
            self._calls.discard(call)
            for change in self._changes:
                change.left(call)

    def begin(self) -> Change:
        """Record that a change is about to begin."""
        with self._lock:
            change = Change(set(self._calls))
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


class OneModel(Models):
    """A process that holds at most one model, known from its LoadModel and Free calls."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._loaded: str | None = None

    def refusal(self, identity: str) -> ContractError | None:
        """While a change is in progress, nothing can be served."""
        with self._lock:
            loaded = None if self._changes else self._loaded
        if loaded is None:
            return model_not_loaded(self.backend, model=identity)
        if identity and loaded and identity != loaded:
            return model_mismatch(self.backend, loaded=loaded, requested=identity)
        return None

    def held(self, call: Call) -> str | None:
        """A change that is still waiting for calls to end has not touched the model."""
        with self._lock:
            gone = call.stale or any(change.started for change in self._changes)
            return None if gone else self._loaded

    def commit(self, change: Change, identity: str | None) -> None:
        """If changes overlapped, it is unknown which came last, so nothing counts as loaded."""
        with self._lock:
            self._changes.discard(change)
            for other in self._changes:
                other.overlapped = True
            self._replace(None if change.overlapped else identity)

    def unloaded(self) -> None:
        """A change in progress is not affected: a load may begin by dropping the old model."""
        with self._lock:
            self._replace(None)

    def _replace(self, identity: str | None) -> None:
        self._loaded = identity
        for call in tuple(self._calls):
            call.stale = True


class ManyModels(Models):
    """A process whose models are known only to its host.

    Args:
        backend: the backend's name.
        holds: returns whether the host holds the model of that identity, or any model for "".
    """

    def __init__(self, backend: str, holds: Callable[[str], bool]) -> None:
        super().__init__(backend)
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

    def commit(self, change: Change, identity: str | None) -> None:  # noqa: ARG002 - the host knows
        """Mark the calls whose model is gone, so that a later reload does not hide it."""
        self.keep(change)
        self.unloaded()

    def unloaded(self) -> None:
        """As after a change, the predicate decides which models are gone."""
        with self._lock:
            calls = tuple(self._calls)
        gone = {each for each in {call.identity for call in calls} if self.refusal(each)}
        for call in calls:
            call.stale |= call.identity in gone
