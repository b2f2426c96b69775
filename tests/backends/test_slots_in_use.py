"""Models in use: evictions, loads and frees wait until the calls have ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from grpcerrors_backends.host.holding import NotHeldError, SlotsBusyError
from tests.backends.support.slots import TIMEOUT, held, make


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
