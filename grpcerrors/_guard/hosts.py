"""The two ways to know which models a process holds: from its loads and unloads, or by asking."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from grpcerrors._error import model_mismatch
from grpcerrors._guard.models import Models, serves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from grpcerrors._error import ContractError
    from grpcerrors._guard.models import Call, Change

_logger = logging.getLogger(__name__)


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
            if serves(self._without(self._changes), identity):
                return None
            if self._changes or self._several or not self._loaded:
                return self._absent(identity, self._coming(identity))
            (loaded,) = self._loaded
            return model_mismatch(self.backend, loaded=loaded, requested=identity)

    def held(self, call: Call) -> str | None:
        """A change that is still waiting for calls to end has not touched the model."""
        with self._lock:
            there = self._without(change for change in self._changes if change.started)
            if call.stale or not there:
                return None
            return "" if call.model is None else call.model if call.model in there else None

    def _brings(self, change: Change, identity: str) -> bool:
        """If changes overlap, what they bring does not count."""
        alone = all(change.repeats(other) for other in self._changes if change.meets(other))
        return super()._brings(change, identity) and alone and not change.overlapped

    def commit(self, change: Change, *, loaded: bool) -> None:
        """If changes overlapped, it is unknown which came last, so nothing counts as loaded.

        Loads of the same model that all succeed are no such changes.
        """
        with self._lock:
            self._end(change, loaded=loaded)
            for other in self._changes:
                other.overlapped |= change.meets(other) and not (loaded and change.repeats(other))
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
        """Return the models that no change can replace, for reading only."""
        changes = tuple(changes)
        if not changes:
            return self._loaded  # no copy: a process may hold many
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
        loads = self._coming(identity)  # before asking: a load may end in between
        try:
            held = self._holds(identity)
        except Exception:
            _logger.exception("%s: holds(%r) failed", self.backend, identity)
            held = False
        return None if held else self._absent(identity, loads)

    def held(self, call: Call) -> str | None:
        """The host is asked again."""
        return None if call.stale or self.refusal(call.identity) else call.identity

    def commit(self, change: Change, *, loaded: bool) -> None:
        """Mark the calls whose model is gone, so that a later reload does not hide it."""
        with self._lock:
            self._end(change, loaded=loaded)
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
