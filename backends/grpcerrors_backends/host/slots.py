"""Model slots: the models that a process holds, leased to calls and unloaded to make room.

The same object serves sync and aio servers. A lease never blocks, so an event loop can take one;
loading and unloading block and need a thread.
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
    LoadingError,
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
"""Seconds for which a load withdraws a model that is in use, to get its slot."""

WAIT = 60.0
"""Seconds that a load waits for a slot, unless its deadline is sooner."""

_REMEMBERED = 4096  # generations, one per model


class Slots(Generic[ModelT, OptionsT]):
    """Up to *capacity* loaded models, by identity.

    Args:
        load: builds a model from its options; may block.
        capacity: how many models to hold.
        reclaim: called after each close, to return memory to the system.
        on_change: called after each change of the inventory, from any thread and with the lock
            held, so it must return at once.
        clock: monotonic time in seconds.
        drain: seconds for which a load withdraws a model that is in use, to get its slot.
        wait: seconds that a load waits for a slot, unless its deadline is sooner.

    To unload a model, the slots first withdraw it: it leaves the inventory and gets no new leases.
    They close it when its last lease has ended, and only then is its slot free. So a call never
    loses its model, and memory never holds more than *capacity* models.

    A load takes the slot of an idle model if there is one. Otherwise it withdraws the least
    recently used model for *drain* seconds. If calls last longer than that, the model serves again
    and the load waits until a model is idle: a working model is not lost to a load that may fail.

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
        self._held: dict[str, Held[ModelT, OptionsT]] = {}  # least recently used first
        self._draining: set[Held[ModelT, OptionsT]] = set()
        self._loading: dict[str, Load[OptionsT]] = {}
        self._occupied = 0  # slots in which a model is held, loading or closing
        self._version = 0
        self._latest = ""  # the identity loaded last
        self._newest: dict[str, int] = {}  # highest generation ordered, by identity

    # ---- inventory ----

    def inventory(self) -> Inventory:
        """Return the models that are held now."""
        with self._change:
            models = [(h.identity, h.generation, h.in_flight) for h in self._held.values()]
            return Inventory(self._version, tuple(models))

    def resolve(self, name: str) -> str | None:
        """Return the identity of the held model that has *name* as its identity or alias.

        For "", the model loaded last. None if there is no such model.
        """
        with self._change:
            held = self._held.get(name) or self._find("", name)
            return held.identity if held else None

    def expects(self, identity: str = "", alias: str = "") -> bool:
        """Return whether `lease` would find a model, or one that is being loaded."""
        with self._change:
            return self._find(identity, alias) is not None or self._is_loading(identity, alias)

    def _is_loading(self, identity: str, alias: str) -> bool:
        if identity:
            return identity in self._loading
        return any(alias in ("", load.alias) for load in self._loading.values())

    # ---- serving ----

    @contextmanager
    def lease(self, identity: str = "", alias: str = "") -> Iterator[Held[ModelT, OptionsT]]:
        """Keep the model *identity* loaded during a call.

        Without an identity, lease the most recently used model with that alias; without either, the
        model loaded last. Raises NotHeldError at once if the model is not held: LoadingError if it
        is being loaded.
        """
        with self._change:
            held = self._find(identity, alias)
            if held is None:
                error = LoadingError if self._is_loading(identity, alias) else NotHeldError
                raise error(identity or alias)
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
        """Load *identity* with *options*. Return the first inventory version that includes it.

        Returns at once if the model is held with equal options; with other options it is loaded
        again. Concurrent loads of an identity with equal options share one load.

        Args:
            identity: the name by which calls lease the model.
            options: the argument of the loader.
            generation: number of this load, which a router increases each time; 0 for none.
            alias: a second name of the model; *identity* if empty.
            timeout: seconds to wait for a slot, or for the same load of another caller.

        Raises:
            SupersededError: a load of *identity* with a higher generation came earlier.
            SlotsBusyError: no slot became free in time, or the same load of another caller took
                longer than *timeout*.
            Exception: the exception of the loader, if it fails.
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
                self._loading.pop(identity, None)
            mine.outcome.set_exception(error)
            raise
        mine.outcome.set_result(version)
        return version

    def _fence(self, identity: str, generation: int) -> None:
        """Refuse a load that arrives after a newer one."""
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
        """Occupy a slot, after unloading a model if necessary: *identity* itself if it is held.

        Returns the model, and occupies no slot, if *identity* is held with equal options by then.
        Raises SlotsBusyError if the load's deadline or the longest wait passes first.
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
        """Withdraw *victim*; return whether its calls ended in time, so that it can be closed.

        Otherwise it serves again.
        """
        self._withdraw(victim)
        self._draining.add(victim)
        self._change.wait_for(lambda: not victim.in_flight or victim not in self._draining, seconds)
        if victim not in self._draining:  # unloaded by another thread, or requested again
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
        models = [f"{held.identity!r}: {held.in_flight} calls" for held in self._held.values()]
        rest = self._occupied - len(models)
        if rest:
            models.append(f"{rest} loading or unloading")
        return f"every slot is in use ({', '.join(models)})"

    def _leave_slot(self) -> None:
        with self._change:
            self._occupied -= 1
            self._change.notify_all()

    # ---- unloading ----

    def free(self, identity: str = "", generation: int = 0) -> tuple[int, list[str]]:
        """Unload *identity* ("" for all models), or only its load number *generation* if not 0.

        Returns the inventory version after the change and the identities that were unloaded. Blocks
        until their calls have ended. Does not affect a load that is still running.
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

    def evict_idle(self, seconds: float, why: str = "idle") -> list[str]:
        """Unload the models that no call has used for *seconds*; return their identities."""
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
            self._close(victim, why)
        return [victim.identity for victim in victims]

    def evict_one(self) -> str | None:
        """Unload the least recently used model, preferably an idle one. Return its identity."""
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
            del victim.model  # the last reference: only now can the memory be freed
            self._reclaim()
            self._leave_slot()
        log.info("unloaded", model=victim.identity, why=why)

    def _changed(self) -> None:
        self._version += 1
        self._change.notify_all()
        self._on_change()
