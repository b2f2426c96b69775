"""How background tasks are stopped, and which of their exceptions are raised."""

from __future__ import annotations

import asyncio

import pytest

from grpcerrors_router.tasks import stop


class TimeLimit(BaseException):
    """Like the exception of a test's time limit, which any code may be interrupted by."""


async def test_failures_of_stopped_tasks_do_not_matter() -> None:
    async def fail() -> None:
        raise RuntimeError

    tasks = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(1000))]
    await asyncio.sleep(0)
    await stop(tasks)
    assert all(task.done() for task in tasks)


async def test_what_is_no_exception_comes_through() -> None:
    async def hang() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise TimeLimit

    tasks = [asyncio.create_task(hang()), asyncio.create_task(asyncio.sleep(1000))]
    await asyncio.sleep(0)
    with pytest.raises(TimeLimit):
        await stop(tasks)
    assert all(task.done() for task in tasks)
