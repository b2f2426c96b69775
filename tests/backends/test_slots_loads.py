"""Loads at the same time: they join, wait for one another, or are overtaken by a newer one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from grpcerrors_backends.host.holding import SlotsBusyError, SupersededError
from grpcerrors_backends.host.slots import Slots
from tests.backends.support.slots import TIMEOUT, Thing, held, joined_by, make


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


def test_only_the_latest_generations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpcerrors_backends.host.slots._REMEMBERED", 2)
    slots = make(3)
    for identity in "abc":
        slots.load(identity, "x", 9)
    slots.load("a", "x", 1)
    with pytest.raises(SupersededError):
        slots.load("c", "x", 1)
