"""The janitor unloads only models that are idle or do not fit into memory."""

from __future__ import annotations

from typing import Any

from grpcerrors_backends.host.janitor import Janitor
from grpcerrors_backends.host.memory import MIB
from grpcerrors_backends.host.slots import Slots

from .support.hosting import until


class Weight:
    """A model of some MiB on a simulated machine."""

    resident = 100

    def __init__(self, weight: int) -> None:
        self.weight = weight
        Weight.resident += weight

    def close(self) -> None:
        Weight.resident -= self.weight


def loaded(*weights: int, **options: Any) -> tuple[Slots[Weight, int], Janitor]:
    Weight.resident = 100
    slots: Slots[Weight, int] = Slots(Weight, 4)
    for number, weight in enumerate(weights):
        slots.load(str(number), weight)
    return slots, Janitor(slots, resident=lambda: Weight.resident * MIB, **options)


def held(slots: Slots[Weight, int]) -> str:
    return "".join(model for model, _, _ in slots.inventory().models)


def test_it_evicts_until_what_is_left_fits() -> None:
    slots, janitor = loaded(10, 20, 30, max_rss=140)
    janitor.sweep()
    assert held(slots) == "2"
    janitor.sweep()
    assert held(slots) == "2"


def test_it_gives_up_when_nothing_is_left_to_evict() -> None:
    slots, janitor = loaded(10, max_rss=50)
    janitor.sweep()
    assert held(slots) == ""


def test_what_is_used_does_not_idle() -> None:
    slots, janitor = loaded(1, 1, idle_ttl=0)
    with slots.lease("1"):
        janitor.sweep()
        assert held(slots) == "1"
    janitor.sweep()
    assert held(slots) == ""


def test_without_limits_it_does_nothing() -> None:
    slots, janitor = loaded(1000)
    janitor.sweep()
    assert held(slots) == "0"


def test_it_works_from_its_own_thread_and_survives_an_error() -> None:
    slots, _ = loaded(10, 10)
    answers = iter([None, 1000, 1000, 0])

    def resident() -> int:
        answer = next(answers, 0)
        if answer is None:
            raise OSError("no measure")
        return answer * MIB

    janitor = Janitor(slots, idle_ttl=3600, max_rss=500, resident=resident)
    janitor.start()
    until(lambda: held(slots) == "")
    janitor.stop()
