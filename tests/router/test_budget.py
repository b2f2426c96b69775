"""The retry budget: it limits retries, and those that exceed it wait (invariant 12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from grpcerrors_router.calls.budget import RetryBudget
from grpcerrors_router.settings import Settings
from tests.router.conftest import eventually
from tests.router.support.clock import HandClock

HASTY = replace(Settings(), retry_wait=0.0)


async def taken(budget: RetryBudget, tries: int) -> int:
    return sum([await budget.take(object(), None) for _ in range(tries)])


async def test_ten_a_second_are_always_allowed() -> None:
    clock = HandClock()
    budget = RetryBudget(HASTY, clock)
    assert await taken(budget, 1000) == 100, "of a window of ten seconds"
    clock.advance(10.5)
    assert await taken(budget, 1000) == 100


async def test_a_fifth_of_the_requests_is_allowed_when_that_is_more() -> None:
    clock = HandClock()
    budget = RetryBudget(HASTY, clock)
    for _ in range(100):
        clock.advance(0.1)
        for _ in range(10):
            budget.request()
    assert await taken(budget, 1000) == 200
    clock.advance(5)
    assert await taken(budget, 1000) == 0, "the window has not passed"
    clock.advance(100)
    assert await taken(budget, 1000) == 100


async def test_a_retry_waits_for_its_turn_first_come_first_served() -> None:
    clock = HandClock()
    budget = RetryBudget(replace(Settings(), retry_wait=1000.0), clock)
    assert await taken(budget, 100) == 100
    order: list[int] = []

    async def take(number: int) -> None:
        assert await budget.take(object(), None)
        order.append(number)

    tasks = [asyncio.create_task(take(number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert order == []
    clock.advance(10.5)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_a_retry_waits_no_longer_than_its_caller_and_only_so_many_wait() -> None:
    clock = HandClock()
    budget = RetryBudget(replace(Settings(), retry_queue=2, retry_wait=1000.0), clock)
    assert await taken(budget, 100) == 100
    assert not await budget.take("a", 0.01)
    waiting = [asyncio.create_task(budget.take(name, None)) for name in "ab"]
    await eventually(lambda: budget._waiting == 2)
    assert not await budget.take("c", None), "the queue is full"
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    clock.advance(10.5)
    assert await budget.take("d", None)
    await budget.close()


async def test_all_who_met_the_same_stale_replica_take_one_turn() -> None:
    budget = RetryBudget(HASTY, HandClock())
    assert await taken(budget, 99) == 99
    assert all(await asyncio.gather(*(budget.take("replica", None) for _ in range(1000))))
    assert not await budget.take("another", None)
    assert await budget.take("replica", None)


async def test_a_turn_that_waits_is_not_forgotten() -> None:
    """However many replicas are stale at once, closing the budget ends all that wait."""
    budget = RetryBudget(replace(Settings(), retry_wait=1000.0), HandClock())
    assert await taken(budget, 100) == 100
    waiting = [asyncio.create_task(budget.take(number, None)) for number in range(300)]
    await eventually(lambda: budget._waiting == 300)
    await budget.close()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
