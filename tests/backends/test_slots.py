"""Slots: holding, leasing and unloading models."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from grpcerrors_backends.host.holding import NotHeldError, SlotsBusyError, SupersededError
from grpcerrors_backends.host.slots import Slots

TIMEOUT = 10


class Thing:
    def __init__(self, options: str) -> None:
        self.options = options
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(capacity: int = 1, **options: object) -> Slots[Thing, str]:
    return Slots(Thing, capacity, **options)  # type: ignore[arg-type]


def held(slots: Slots[Thing, str]) -> set[str]:
    return {identity for identity, _, _ in slots.inventory().models}


def test_nothing_is_held_at_first() -> None:
    slots = make()
    assert not slots.resolve("")
    assert slots.inventory() == (0, ())
    with pytest.raises(NotHeldError), slots.lease("a"):
        pass
    with pytest.raises(NotHeldError), slots.lease():
        pass


def test_no_slots_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        make(0)


def test_load_holds_and_counts() -> None:
    slots = make()
    assert slots.load("a", "x", generation=7) == 1
    assert slots.resolve("a")
    assert slots.resolve("")
    assert not slots.resolve("b")
    with slots.lease("a") as a:
        assert a.model.options == "x"
        assert slots.inventory() == (1, (("a", 7, 1),))
    assert slots.inventory() == (1, (("a", 7, 0),))


def test_equal_options_are_not_loaded_again() -> None:
    slots = make()
    slots.load("a", "x", generation=7)
    with slots.lease("a") as before:
        assert slots.load("a", "x") == 1
        assert slots.load("a", "x", generation=7) == 1
        assert slots.load("a", "x", generation=9) == 2, "a later generation changes the inventory"
        with slots.lease("a") as after:
            assert after is before
    assert slots.inventory().models == (("a", 9, 0),)


def test_other_options_load_anew() -> None:
    slots = make(2)
    slots.load("a", "x")
    with slots.lease("a") as a:
        before = a.model
    assert slots.load("a", "y") == 3
    assert before.closed.is_set()
    with slots.lease("a") as a:
        assert a.model.options == "y"


def test_the_least_recently_used_goes() -> None:
    slots = make(2)
    slots.load("a", "")
    slots.load("b", "")
    with slots.lease("a"):
        pass
    slots.load("c", "")
    assert held(slots) == {"a", "c"}


def test_an_idle_one_goes_before_a_busy_one() -> None:
    slots = make(2)
    slots.load("a", "")
    slots.load("b", "")
    with ExitStack() as calls:
        calls.enter_context(slots.lease("a"))
        with slots.lease("b"):
            pass
        slots.load("c", "")
        assert held(slots) == {"a", "c"}


def test_an_eviction_waits_for_the_call() -> None:
    slots = make()
    slots.load("a", "")
    with ThreadPoolExecutor() as pool:
        with slots.lease("a") as a:
            thing = a.model
            load = pool.submit(slots.load, "b", "")
            while slots.resolve("a"):
                pass
            with pytest.raises(NotHeldError), slots.lease("a"):
                pass
            assert not thing.closed.is_set()
            assert not load.done()
        load.result(TIMEOUT)
    assert thing.closed.is_set()
    assert held(slots) == {"b"}


def test_a_call_without_a_name_gets_the_model_loaded_last() -> None:
    slots = make(3)
    for identity in "abc":
        slots.load(identity, identity)
    with slots.lease("a"), slots.lease() as latest:
        assert latest.identity == "c"
    slots.free("c")
    with slots.lease() as latest:
        assert latest.identity == "a", "the most recently used of the remaining models"


def test_loads_of_one_model_at_the_same_time_are_one() -> None:
    begun, go = threading.Event(), threading.Event()
    loads: list[str] = []

    def load(options: str) -> Thing:
        loads.append(options)
        begun.set()
        go.wait(TIMEOUT)
        return Thing(options)

    slots: Slots[Thing, str] = Slots(load)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(slots.load, "a", "x", 1)
        begun.wait(TIMEOUT)
        others = [pool.submit(slots.load, "a", "x", 2) for _ in range(4)]
        joined_by(slots, others)
        go.set()
        assert {load.result(TIMEOUT) for load in (first, *others)} <= {1, 2}
    assert loads == ["x"]
    assert slots.inventory().models == (("a", 2, 0),)


def joined_by(slots: Slots[Thing, str], loads: list[Future[int]]) -> None:
    """Wait until all *loads* are running; none may have ended."""
    for load in loads:
        while not load.running():
            pass
    assert not any(load.done() for load in loads)


def test_a_load_with_other_options_waits_for_the_one_under_way() -> None:
    begun, go = threading.Event(), threading.Event()

    def load(options: str) -> Thing:
        if options == "x":
            begun.set()
            go.wait(TIMEOUT)
        return Thing(options)

    slots: Slots[Thing, str] = Slots(load)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(slots.load, "a", "x")
        begun.wait(TIMEOUT)
        second = pool.submit(slots.load, "a", "y")
        joined_by(slots, [second])
        go.set()
        assert (first.result(TIMEOUT), second.result(TIMEOUT)) == (1, 3)
    with slots.lease("a") as a:
        assert a.model.options == "y"


def test_a_failed_load_leaves_its_slot_and_tells_all_who_wait() -> None:
    def load(options: str) -> Thing:
        if options == "broken":
            raise OSError(options)
        return Thing(options)

    slots: Slots[Thing, str] = Slots(load)
    slots.load("a", "x")
    with pytest.raises(OSError, match="broken"):
        slots.load("a", "broken")
    assert not slots.resolve(""), "the old model was unloaded first"
    for _ in range(3):
        with pytest.raises(OSError, match="broken"):
            slots.load("b", "broken")
    slots.load("b", "x")
    assert held(slots) == {"b"}


def test_who_waits_for_a_load_that_fails_shares_its_failure() -> None:
    begun, go = threading.Event(), threading.Event()
    loads: list[str] = []

    def load(options: str) -> Thing:
        loads.append(options)
        begun.set()
        go.wait(TIMEOUT)
        raise OSError(options)

    slots: Slots[Thing, str] = Slots(load)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(slots.load, "a", "x")
        begun.wait(TIMEOUT)
        second = pool.submit(slots.load, "a", "x")
        joined_by(slots, [second])
        go.set()
        assert isinstance(first.exception(TIMEOUT), OSError)
        assert second.exception(TIMEOUT) is first.exception(TIMEOUT)
    assert loads == ["x"]


def test_free_unloads_everything_or_one() -> None:
    slots = make(3)
    for identity in "abc":
        slots.load(identity, identity)
    assert slots.free("b") == (4, ["b"])
    assert slots.free("b") == (4, [])
    assert slots.free() == (6, ["a", "c"])
    assert not slots.resolve("")


def test_free_of_another_generation_does_nothing() -> None:
    slots = make()
    slots.load("a", "x", generation=5)
    assert slots.free("a", 4) == (1, [])
    assert slots.resolve("a")
    assert slots.free("a", 5) == (2, ["a"])


def test_idle_models_go() -> None:
    clock = Clock()
    slots = make(3, clock=clock)
    for identity in "abc":
        slots.load(identity, identity)
    clock.now = 5
    with slots.lease("a"):
        clock.now = 10
        with slots.lease("b"):
            pass
        assert slots.evict_idle(10) == ["c"]
        assert held(slots) == {"a", "b"}
    assert slots.evict_idle(10) == []
    clock.now = 20
    assert sorted(slots.evict_idle(10)) == ["a", "b"]


def test_memory_goes_one_by_one() -> None:
    slots = make(2)
    slots.load("a", "")
    slots.load("b", "")
    assert [slots.evict_one() for _ in range(3)] == ["a", "b", None]


def test_memory_is_reclaimed_after_close_and_before_the_slot_is_given_on() -> None:
    order: list[str] = []

    class Noted(Thing):
        def __init__(self, options: str) -> None:
            super().__init__(options)
            order.append(f"load {options}")

        def close(self) -> None:
            order.append(f"close {self.options}")

    slots: Slots[Noted, str] = Slots(Noted, reclaim=lambda: order.append("reclaim"))
    slots.load("a", "a")
    slots.load("b", "b")
    assert order == ["load a", "close a", "reclaim", "load b"]


def test_a_model_that_fails_to_close_is_gone_all_the_same() -> None:
    class Sticky(Thing):
        def close(self) -> None:
            raise OSError

    slots: Slots[Thing, str] = Slots(Sticky)
    slots.load("a", "")
    assert slots.free() == (2, ["a"])
    slots.load("b", "")
    assert held(slots) == {"b"}


def test_every_change_is_told() -> None:
    told: list[int] = []
    slots = make(on_change=lambda: told.append(1))
    slots.load("a", "x")
    slots.load("b", "x")
    slots.free()
    assert len(told) == slots.inventory().version == 4


def test_a_listener_that_fails_fails_the_load_and_nothing_else() -> None:
    failing = iter([True])

    def listen() -> None:
        if next(failing, False):
            raise ZeroDivisionError

    slots = make(on_change=listen)
    with pytest.raises(ZeroDivisionError):
        slots.load("a", "x")
    slots.load("b", "x")
    assert slots.resolve("b")


def test_nothing_keeps_a_closed_model_alive() -> None:
    slots = make()
    slots.load("a", "x")
    with slots.lease("a") as a:
        ghost = weakref.ref(a.model)
    slots.free()
    gc.collect()
    assert ghost() is None


def test_a_load_that_a_newer_one_has_overtaken_is_refused() -> None:
    slots = make()
    slots.load("a", "x", generation=7)
    for options in ("x", "y"):
        with pytest.raises(SupersededError):
            slots.load("a", options, generation=6)
    assert slots.inventory() == (1, (("a", 7, 0),))
    slots.free("a")
    with pytest.raises(SupersededError):
        slots.load("a", "x", generation=6)
    assert not slots.resolve("")
    slots.load("b", "x", generation=6)
    slots.load("a", "x", generation=7)
    slots.load("a", "y")


def test_a_load_is_overtaken_while_it_waits_for_another() -> None:
    begun, go = threading.Event(), threading.Event()

    def load(options: str) -> Thing:
        begun.set()
        assert go.wait(TIMEOUT)
        return Thing(options)

    slots: Slots[Thing, str] = Slots(load)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(slots.load, "a", "x", 3)
        assert begun.wait(TIMEOUT)
        late = pool.submit(slots.load, "a", "y", 5)
        joined_by(slots, [late])
        newer = pool.submit(slots.load, "a", "x", 7)
        while slots._newest["a"] != 7:
            pass
        go.set()
        assert first.result(TIMEOUT) == newer.result(TIMEOUT) == 1
        assert isinstance(late.exception(TIMEOUT), SupersededError)
    assert slots.inventory().models == (("a", 7, 0),)


def test_a_model_whose_calls_do_not_end_keeps_its_slot() -> None:
    slots = make(drain=0.01, wait=0.1)
    slots.load("a", "x")
    with slots.lease("a") as before:
        for timeout in (0, 0.05, 600):
            with pytest.raises(SlotsBusyError, match="every slot is in use \\('a': 1 calls\\)"):
                slots.load("b", "x", timeout=timeout)
            with slots.lease("a") as a:
                assert a is before
    slots.load("b", "x", timeout=0.05)
    assert held(slots) == {"b"}


def test_many_loads_withdraw_a_model_in_use_once() -> None:
    changes: list[int] = []
    slots = make(drain=0.01, wait=0.2, on_change=lambda: changes.append(1))
    slots.load("a", "x")
    with slots.lease("a"), ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(slots.load, f"other-{number}", "x") for number in range(8)]
        assert all(isinstance(load.exception(TIMEOUT), SlotsBusyError) for load in loads)
        assert slots.resolve("a")
    assert len(changes) == 3, "loaded, withdrawn, back"


def test_a_load_takes_the_slot_as_soon_as_the_calls_have_ended() -> None:
    slots = make(drain=0.01)
    slots.load("a", "x")
    with ThreadPoolExecutor() as pool:
        with slots.lease("a"):
            load = pool.submit(slots.load, "b", "x")
            while slots.inventory().version < 3:
                pass
        load.result(TIMEOUT)
    assert held(slots) == {"b"}


def test_a_free_during_a_drain_is_final() -> None:
    slots = make(drain=TIMEOUT)
    slots.load("a", "x")
    with ThreadPoolExecutor() as pool:
        with slots.lease("a"):
            load = pool.submit(slots.load, "b", "x")
            while slots.resolve("a"):
                pass
            free = pool.submit(slots.free, "a")
            while slots._draining:
                pass
            assert not free.done()
        assert free.result(TIMEOUT)[1] == ["a"]
        load.result(TIMEOUT)
    assert held(slots) == {"b"}


def test_a_load_of_a_model_that_is_being_drained_brings_it_back() -> None:
    slots = make(drain=TIMEOUT, wait=0.2)
    slots.load("a", "x")
    with ThreadPoolExecutor() as pool, slots.lease("a") as before:
        load = pool.submit(slots.load, "b", "x")
        while slots.resolve("a"):
            pass
        slots.load("a", "x", 5)
        with slots.lease("a") as after:
            assert after is before
        assert isinstance(load.exception(TIMEOUT), SlotsBusyError)
    assert slots.inventory().models == (("a", 5, 0),)


def test_who_waits_for_the_load_of_another_waits_no_longer_than_it_may() -> None:
    begun, go = threading.Event(), threading.Event()

    def load(options: str) -> Thing:
        begun.set()
        assert go.wait(TIMEOUT)
        return Thing(options)

    slots: Slots[Thing, str] = Slots(load)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(slots.load, "a", "x")
        assert begun.wait(TIMEOUT)
        for options in ("x", "y"):
            with pytest.raises(SlotsBusyError, match="still being loaded"):
                slots.load("a", options, timeout=0.01)
        with pytest.raises(SlotsBusyError, match="1 loading or unloading"):
            slots.load("b", "x", timeout=0.01)
        go.set()
        first.result(TIMEOUT)


def test_a_model_has_a_key_and_an_alias() -> None:
    slots = make(2)
    slots.load("small", "x", alias="x.gguf")
    slots.load("b", "y")
    assert (slots.resolve("x.gguf"), slots.resolve("small")) == ("small", "small")
    assert slots.expects(alias="x.gguf")
    assert not slots.expects(alias="small")
    for names in (("small", ""), ("", "x.gguf"), ("small", "other")):
        with slots.lease(*names) as small:
            assert small.identity == "small"
    with pytest.raises(NotHeldError), slots.lease("x.gguf"):
        pass


def test_only_the_latest_generations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpcerrors_backends.host.slots._REMEMBERED", 2)
    slots = make(3)
    for identity in "abc":
        slots.load(identity, "x", 9)
    slots.load("a", "x", 1)
    with pytest.raises(SupersededError):
        slots.load("c", "x", 1)
