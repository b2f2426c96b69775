"""Slots keep their invariants under any order of loads, calls, evictions and frees."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from grpcerrors_backends.host.holding import (
    Held,
    NotHeldError,
    SlotsBusyError,
    SupersededError,
)
from grpcerrors_backends.host.slots import Slots

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CAPACITY = 2
TIMEOUT = 10
identities = st.sampled_from("abc")
options = st.sampled_from(["x", "y"])


class World:
    """Observations of the models. A violation in any thread fails the test."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loading: Counter[str] = Counter()
        self.alive = 0
        self.wrong: list[str] = []

    def expect(self, truth: bool, complaint: str) -> None:
        if not truth:
            self.wrong.append(complaint)


class Probe:
    """A model that records how it is used."""

    def __init__(self, world: World, identity: str, option: str) -> None:
        self.world = world
        self.identity = identity
        self.option = option
        self.calls = 0
        self.closed = False
        with world.lock:
            world.loading[identity] += 1
            world.alive += 1
            world.expect(world.loading[identity] == 1, "two loads of one identity at a time")
            world.expect(world.alive <= CAPACITY, "more models than slots")
        with world.lock:
            world.loading[identity] -= 1

    def close(self) -> None:
        with self.world.lock:
            self.world.expect(not self.calls, "closed under a call")
            self.world.expect(not self.closed, "closed twice")
            self.closed = True
            self.world.alive -= 1


class SlotsMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = 0.0
        self.slots: Slots[Probe, tuple[str, str]] = Slots(
            lambda wanted: Probe(self.world, *wanted),
            CAPACITY,
            clock=lambda: self.now,
            drain=0.005,
        )
        self.open: list[tuple[AbstractContextManager[Any], Held[Probe, tuple[str, str]]]] = []
        self.jobs: list[threading.Thread] = []
        self.version = 0

    def job(self, target: Any, *arguments: Any) -> None:
        """Run an operation in a thread, and give it a moment in case it waits for a call to end."""
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        thread.join(0.002 if self.open else TIMEOUT)
        self.jobs.append(thread)

    @rule(identity=identities, option=options, generation=st.integers(0, 3))
    def load(self, identity: str, option: str, generation: int) -> None:
        self.job(self.load_or_be_refused, identity, (identity, option), generation)

    def load_or_be_refused(self, *arguments: Any) -> None:
        with contextlib.suppress(SlotsBusyError, SupersededError):
            self.slots.load(*arguments)

    @rule(identity=st.one_of(st.just(""), identities), generation=st.integers(0, 3))
    def free(self, identity: str, generation: int) -> None:
        self.job(self.slots.free, identity, generation)

    @rule()
    def evict_one(self) -> None:
        self.job(self.slots.evict_one)

    @rule(seconds=st.integers(0, 3))
    def evict_idle(self, seconds: float) -> None:
        self.slots.evict_idle(seconds)

    @rule()
    def time_passes(self) -> None:
        self.now += 1

    @rule(target=leases, identity=st.one_of(st.just(""), identities))
    def call(self, identity: str) -> Any:
        lease = self.slots.lease(identity)
        try:
            held = lease.__enter__()
        except NotHeldError:
            return None
        with self.world.lock:
            held.model.calls += 1
            self.world.expect(not held.model.closed, "leased a closed model")
            self.world.expect(
                identity in ("", held.model.identity), "leased another model than asked for"
            )
        self.open.append((lease, held))
        return self.open[-1]

    @precondition(lambda self: self.open)
    @rule(entry=consumes(leases))
    def end_call(self, entry: Any) -> None:
        if entry is not None:
            self.end(entry)

    def end(self, entry: Any) -> None:
        lease, held = entry
        self.open.remove(entry)
        with self.world.lock:
            self.world.expect(not held.model.closed, "closed under a call")
            held.model.calls -= 1
        lease.__exit__(None, None, None)

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.world.wrong == []

    @invariant()
    def inventory_is_sound(self) -> None:
        inventory = self.slots.inventory()
        assert inventory.version >= self.version, "the version went back"
        self.version = inventory.version
        assert len(inventory.models) <= CAPACITY
        for identity, _, in_flight in inventory.models:
            serving = [held for _, held in self.open if held.identity == identity]
            assert in_flight <= len(serving)

    def teardown(self) -> None:
        for entry in list(self.open):
            self.end(entry)
        for thread in self.jobs:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a load or a free waits for ever"
        self.slots.free()
        assert self.world.wrong == []
        assert self.world.alive == 0, "a model was never closed"


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(stateful_step_count=30)
