"""The models that a process holds: a fixed number of slots, leased to calls, emptied when needed.

One object serves both surfaces: leases never block, so an event loop may take them, and what can
block (loading, emptying a slot) belongs in a thread.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger()


class Closable(Protocol):
    """Whatever can be held: it gives its memory back on close."""

    def close(self) -> None:
        """Give the memory back."""


ModelT = TypeVar("ModelT", bound=Closable)
OptionsT = TypeVar("OptionsT")


class NotHeldError(LookupError):
    """The model asked for is not held; the argument is its identity."""


@dataclass(eq=False)
class Held(Generic[ModelT, OptionsT]):
    """A loaded model in its slot."""

    identity: str
    options: OptionsT
    generation: int
    model: ModelT
    last_used: float
    in_flight: int = 0
    leaving: bool = False


@dataclass(eq=False)
class _Load(Generic[OptionsT]):
    """A load under way, and where its inventory version will be told."""

    options: OptionsT
    generation: int
    outcome: Future[int] = field(default_factory=Future)


class Inventory(NamedTuple):
    """What is held: (identity, generation, calls in flight) each, as of a version."""

    version: int
    models: tuple[tuple[str, int, int], ...]


class Slots(Generic[ModelT, OptionsT]):
    """At most *capacity* models at a time, by identity.

    *load* makes a model of its options, blocking; *reclaim* is called after each close, to give
    memory back; *on_change* after each change of the inventory, from any thread, under the lock:
    it must return at once.

    A model is withdrawn first (new leases are refused, it leaves the inventory), closed when its
    last lease has ended, and only then is its slot free: a call never loses its model, and there
    are never more than *capacity* models in memory.
    """

    def __init__(
        self,
        load: Callable[[OptionsT], ModelT],
        capacity: int = 1,
        *,
        reclaim: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a host needs at least one slot, not {capacity}")
        self.capacity = capacity
        self._make = load
        self._reclaim = reclaim
        self._on_change = on_change
        self._clock = clock
        self._change = threading.Condition()
        self._held: dict[str, Held[ModelT, OptionsT]] = {}  # the least recently used first
        self._loading: dict[str, _Load[OptionsT]] = {}
        self._occupied = 0  # slots that hold, load or close a model
        self._version = 0
        self._latest = ""  # the identity loaded last

    # ---- looking ----

    def holds(self, identity: str = "") -> bool:
        """Tell whether *identity* is held; "": whether anything is."""
        with self._change:
            return identity in self._held if identity else bool(self._held)

    def inventory(self) -> Inventory:
        """Return what is held right now."""
        with self._change:
            models = [(h.identity, h.generation, h.in_flight) for h in self._held.values()]
            return Inventory(self._version, tuple(models))

    # ---- serving ----

    @contextmanager
    def lease(self, identity: str = "") -> Iterator[Held[ModelT, OptionsT]]:
        """Keep *identity* loaded for the length of a call; "": the model loaded last.

        Raises NotHeldError at once when it is not held.
        """
        with self._change:
            held = self._find(identity)
            if held is None:
                raise NotHeldError(identity)
            held.in_flight += 1
            self._touch(held)
        try:
            yield held
        finally:
            with self._change:
                held.in_flight -= 1
                held.last_used = self._clock()
                if held.leaving and not held.in_flight:
                    self._change.notify_all()

    def _find(self, identity: str) -> Held[ModelT, OptionsT] | None:
        if identity or not self._held:
            return self._held.get(identity)
        return self._held.get(self._latest) or next(reversed(self._held.values()))

    def _touch(self, held: Held[ModelT, OptionsT]) -> None:
        held.last_used = self._clock()
        self._held[held.identity] = self._held.pop(held.identity)

    # ---- loading ----

    def load(self, identity: str, options: OptionsT, generation: int = 0) -> int:
        """Hold *identity* with *options*; return the inventory version from which on it is held.

        At once when it is held with equal options already; with others it is loaded anew. Loads of
        one identity at the same time are one load. When no slot is free, the least recently used
        model goes, an idle one where there is one. Blocks; raises what the loader raises.
        """
        while True:
            with self._change:
                load = self._loading.get(identity)
                if load is None:
                    held = self._held.get(identity)
                    if held is not None and held.options == options:
                        return self._confirm(held, generation)
                    mine = self._loading[identity] = _Load(options, generation)
                    break
                if load.options == options:
                    load.generation = max(load.generation, generation)
            if load.options == options:
                return load.outcome.result()
            wait([load.outcome])
        try:
            version = self._load(identity, mine)
        except BaseException as error:
            with self._change:
                del self._loading[identity]
            mine.outcome.set_exception(error)
            raise
        mine.outcome.set_result(version)
        return version

    def _confirm(self, held: Held[ModelT, OptionsT], generation: int) -> int:
        self._touch(held)
        if generation > held.generation:
            held.generation = generation
            self._changed()
        return self._version

    def _load(self, identity: str, load: _Load[OptionsT]) -> int:
        self._take_slot(identity)
        try:
            model = self._make(load.options)
        except BaseException:
            self._reclaim()
            self._leave_slot()
            raise
        with self._change:
            self._held[identity] = Held(
                identity, load.options, load.generation, model, self._clock()
            )
            self._latest = identity
            del self._loading[identity]
            self._changed()
            return self._version

    def _take_slot(self, identity: str) -> None:
        """Occupy a free slot, emptying one if need be: that of *identity* itself, if it is held."""
        while True:
            with self._change:
                victim = self._held.get(identity)
                if victim is None and self._occupied < self.capacity:
                    self._occupied += 1
                    return
                victim = victim or self._least_recently_used()
                if victim is None:  # every slot is being filled or emptied by others
                    self._change.wait()
                    continue
                self._withdraw(victim)
            self._close(victim, "slot")

    def _leave_slot(self) -> None:
        with self._change:
            self._occupied -= 1
            self._change.notify_all()

    # ---- unloading ----

    def free(self, identity: str = "", generation: int = 0) -> tuple[int, list[str]]:
        """Unload *identity* ("": everything); with a *generation*, only what was loaded as that.

        Return the inventory version after it and the identities that were unloaded. Blocks until
        the calls that they serve have ended. A load still under way counts as later than this.
        """
        with self._change:
            victims = [
                held
                for held in self._held.values()
                if identity in ("", held.identity) and generation in (0, held.generation)
            ]
            for victim in victims:
                self._withdraw(victim)
            version = self._version
        for victim in victims:
            self._close(victim, "free")
        return version, [victim.identity for victim in victims]

    def evict_idle(self, seconds: float) -> list[str]:
        """Unload what no call has used for *seconds*; return the identities."""
        with self._change:
            latest = self._clock() - seconds
            victims = [
                held
                for held in self._held.values()
                if not held.in_flight and held.last_used <= latest
            ]
            for victim in victims:
                self._withdraw(victim)
        for victim in victims:
            self._close(victim, "idle")
        return [victim.identity for victim in victims]

    def evict_one(self) -> str | None:
        """Unload the least recently used model, an idle one where there is one; return which."""
        with self._change:
            victim = self._least_recently_used()
            if victim is None:
                return None
            self._withdraw(victim)
        self._close(victim, "memory")
        return victim.identity

    def _least_recently_used(self) -> Held[ModelT, OptionsT] | None:
        idle = (held for held in self._held.values() if not held.in_flight)
        return next(idle, None) or next(iter(self._held.values()), None)

    def _withdraw(self, victim: Held[ModelT, OptionsT]) -> None:
        victim.leaving = True
        del self._held[victim.identity]
        self._changed()

    def _close(self, victim: Held[ModelT, OptionsT], why: str) -> None:
        with self._change:
            self._change.wait_for(lambda: not victim.in_flight)
        try:
            victim.model.close()
        except Exception:
            log.exception("close failed", model=victim.identity)
        finally:
            del victim.model  # the last reference, or the memory would stay
            self._reclaim()
            self._leave_slot()
        log.info("unloaded", model=victim.identity, why=why)

    def _changed(self) -> None:
        self._version += 1
        self._change.notify_all()
        self._on_change()
