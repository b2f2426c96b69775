"""Slots: holding, leasing and unloading models."""

from __future__ import annotations

import gc
import weakref
from contextlib import ExitStack

import pytest

from grpcerrors_backends.host.holding import NotHeldError
from grpcerrors_backends.host.slots import Slots
from tests.backends.support.slots import Clock, Thing, held, make


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


def test_a_call_without_a_name_gets_the_model_loaded_last() -> None:
    slots = make(3)
    for identity in "abc":
        slots.load(identity, identity)
    with slots.lease("a"), slots.lease() as latest:
        assert latest.identity == "c"
    slots.free("c")
    with slots.lease() as latest:
        assert latest.identity == "a", "the most recently used of the remaining models"


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
