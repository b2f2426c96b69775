"""The models that a process holds: a fixed number of slots, leased to calls, emptied when needed.

One object serves both surfaces: leases never block, so an event loop may take them, and what can
block (loading, emptying a slot) needs a thread.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic

import structlog

from grpcerrors_backends.host.holding import (
    Held,
    Inventory,
    Load,
    ModelT,
    NotHeldError,
    OptionsT,
    SlotsBusyError,
    SupersededError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger()


DRAIN = 2.0
"""Seconds that a model in use is withdrawn for a load that needs its slot."""

WAIT = 60.0
"""Seconds that a load waits for a slot when its caller set no shorter deadline."""

_REMEMBERED = 4096  # generations, one per model


class Slots(Generic[ModelT, OptionsT]):
    """At most *capacity* models at a time, by identity.

    Args:
        load: makes a model of its options; may block.
        capacity: how many models to hold.
        reclaim: called after each close, to return memory to the system.
        on_change: called after each change of the inventory, from any thread, with the lock held:
            it must return at once.
        clock: seconds that never go back.
        drain: seconds that a model in use is withdrawn for a load that needs its slot.
        wait: seconds that a load waits for a slot when its own deadline is not sooner.

    A model is withdrawn first (new leases are refused, it leaves the inventory), closed when its
    last lease has ended, and only then is its slot free: a call never loses its model, and there
    are never more than *capacity* models in memory.

    A load takes an idle model's slot if there is one. Otherwise it withdraws the least recently
    used model for *drain* seconds. If calls outlast that, the model serves again, and loads wait
    until one is idle: a load that may never come does not take the last model away.

    Raises:
        ValueError: the capacity is below 1.
    """

    def __init__(
        self,
        load: Callable[[OptionsT], ModelT],
        capacity: int = 1,
        *,
        reclaim: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        drain: float = DRAIN,
        wait: float = WAIT,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a host needs at least one slot, not {capacity}")
        self.capacity = capacity
        self._make = load
        self._reclaim = reclaim
        self._on_change = on_change
        self._clock = clock
        self._drain = drain
        self._wait = wait
        self._change = threading.Condition()
        self._held: dict[str, Held[ModelT, OptionsT]] = {}  # the least recently used first
        self._draining: set[Held[ModelT, OptionsT]] = set()
        self._loading: dict[str, Load[OptionsT]] = {}
        self._occupied = 0  # slots that hold, load or close a model
        self._version = 0
        self._latest = ""  # the identity loaded last
        self._newest: dict[str, int] = {}  # the highest generation of each identity

    # ---- looking ----

    def holds(self, alias: str = "") -> bool:
        """Return whether a model of that alias is held; "": whether any model is."""
        with self._change:
            return self._find("", alias) is not None

    def inventory(self) -> Inventory:
        """Return what is held right now."""
        with self._change:
            models = [(h.identity, h.generation, h.in_flight) for h in self._held.values()]
            return Inventory(self._version, tuple(models))

    # ---- serving ----

    @contextmanager
    def lease(self, identity: str = "", alias: str = "") -> Iterator[Held[ModelT, OptionsT]]:
        """Keep the model *identity* loaded for the length of a call.

        Without an identity: the model of that alias used last. Without either: the one loaded last.

        Raises NotHeldError at once when it is not held.
        """
        with self._change:
            held = self._find(identity, alias)
            if held is None:
                raise NotHeldError(identity or alias)
            held.in_flight += 1
            self._touch(held)
        try:
            yield held
        finally:
            with self._change:
                held.in_flight -= 1
                held.last_used = self._clock()
                if not held.in_flight:
                    held.undrained = False
                    self._change.notify_all()

    def _find(self, identity: str, alias: str) -> Held[ModelT, OptionsT] | None:
        if identity:
            return self._held.get(identity)
        named = (held for held in reversed(self._held.values()) if alias in ("", held.alias))
        found = next(named, None)
        return found if alias else self._held.get(self._latest, found)

    def _touch(self, held: Held[ModelT, OptionsT]) -> None:
        held.last_used = self._clock()
        self._held[held.identity] = self._held.pop(held.identity)

    # ---- loading ----

    def load(
        self,
        identity: str,
        options: OptionsT,
        generation: int = 0,
        *,
        alias: str = "",
        timeout: float = math.inf,
    ) -> int:
        """Hold *identity* with *options*; return the inventory version from which on it is held.

        Returns at once when it is held with equal options; with other options it is loaded again.
        Concurrent loads of one identity with equal options are one load.

        Args:
            identity: the name by which calls lease it.
            options: what the loader makes the model of.
            generation: grows with each load that a router orders; 0 for a load without one.
            alias: a second name of the model; *identity* when empty.
            timeout: seconds to wait for a slot, or for the same load ordered by another caller.

        Raises:
            SupersededError: a load of *identity* with a higher generation was ordered before.
            SlotsBusyError: no slot became free in time, or the same load, ordered by another
                caller, took longer than *timeout*.
            Exception: whatever the loader raises.
        """
        deadline = self._clock() + timeout
        while True:
            with self._change:
                self._fence(identity, generation)
                load = self._loading.get(identity)
                if load is None:
                    held = self._held.get(identity)
                    if held is not None and held.options == options:
                        return self._confirm(held, generation)
                    mine = Load(alias or identity, options, generation, deadline)
                    self._loading[identity] = mine
                    break
                if load.options == options:
                    load.generation = max(load.generation, generation)
                    load.deadline = max(load.deadline, deadline)
            patience = None if math.isinf(deadline) else max(0.0, deadline - self._clock())
            if not wait([load.outcome], patience).done:
                raise SlotsBusyError(f"{identity!r} is still being loaded for another caller")
            if load.options == options:
                return load.outcome.result()
        try:
            version = self._load(identity, mine)
        except BaseException as error:
            with self._change:
                del self._loading[identity]
            mine.outcome.set_exception(error)
            raise
        mine.outcome.set_result(version)
        return version

    def _fence(self, identity: str, generation: int) -> None:
        """Refuse a load that a newer one has overtaken on its way here."""
        if not generation:
            return
        newest = self._newest.pop(identity, 0)
        self._newest[identity] = max(newest, generation)
        if len(self._newest) > _REMEMBERED:
            del self._newest[next(iter(self._newest))]
        if generation < newest:
            raise SupersededError(identity, generation, newest)

    def _confirm(self, held: Held[ModelT, OptionsT], generation: int) -> int:
        self._touch(held)
        if generation > held.generation:
            held.generation = generation
            self._changed()
        return self._version

    def _load(self, identity: str, load: Load[OptionsT]) -> int:
        held = self._take_slot(identity, load)
        if held is not None:
            with self._change:
                del self._loading[identity]
                return self._confirm(held, load.generation)
        try:
            model = self._make(load.options)
        except BaseException:
            self._reclaim()
            self._leave_slot()
            raise
        with self._change:
            self._held[identity] = Held(
                identity, load.alias, load.options, load.generation, model, self._clock()
            )
            self._latest = identity
            del self._loading[identity]
            self._changed()
            return self._version

    def _take_slot(self, identity: str, load: Load[OptionsT]) -> Held[ModelT, OptionsT] | None:
        """Occupy a free slot, emptying one if need be: that of *identity* itself, if it is held.

        Returns the model, and takes no slot, if *identity* is held as *load* wants it by then.
        Raises SlotsBusyError when the load's deadline, or the longest wait, comes first.
        """
        latest = self._clock() + self._wait
        while True:
            with self._change:
                held = self._held.get(identity) or self._drained_for_another(identity)
                if held is not None and held.options == load.options:
                    if held.leaving:
                        self._reinstate(held)
                    return held
                if held is None and self._occupied < self.capacity:
                    self._occupied += 1
                    return None
                victim = held or self._least_recently_used()
                left = min(latest, load.deadline) - self._clock()
                if left <= 0:
                    raise SlotsBusyError(self._in_use())
                if victim is None or victim.undrained or victim.leaving:
                    self._change.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                if not self._emptied(victim, min(left, self._drain)):
                    continue
            self._close(victim, "slot")

    def _drained_for_another(self, identity: str) -> Held[ModelT, OptionsT] | None:
        return next((held for held in self._draining if held.identity == identity), None)

    def _emptied(self, victim: Held[ModelT, OptionsT], seconds: float) -> bool:
        """Withdraw *victim* and return True, for the caller to close it, if its calls end in time.

        Otherwise it serves again.
        """
        self._withdraw(victim)
        self._draining.add(victim)
        self._change.wait_for(lambda: not victim.in_flight or victim not in self._draining, seconds)
        if victim not in self._draining:  # freed by another thread, or wanted again
            return False
        if victim.in_flight:
            self._reinstate(victim)
            return False
        self._draining.remove(victim)
        return True

    def _reinstate(self, held: Held[ModelT, OptionsT]) -> None:
        self._draining.remove(held)
        held.leaving = False
        held.undrained = held.in_flight > 0
        self._held[held.identity] = held
        self._changed()

    def _in_use(self) -> str:
        models = [f"{held.identity!r} serves {held.in_flight}" for held in self._held.values()]
        rest = self._occupied - len(models)
        if rest:
            models.append(f"{rest} being loaded or unloaded")
        return f"every slot is in use ({', '.join(models)})"

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
                for held in (*self._held.values(), *self._draining)
                if identity in ("", held.identity) and generation in (0, held.generation)
            ]
            for victim in victims:
                if victim.leaving:
                    self._draining.remove(victim)
                    self._change.notify_all()
                else:
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
