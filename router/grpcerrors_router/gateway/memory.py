"""Returns memory to the system after a burst of large messages."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.gateway.admission import Admission

INTERVAL = 30.0
"""Seconds between two looks."""

LARGE = 128 * 1024 * 1024
"""Bytes of messages in use after which it is worth a pause of some milliseconds."""


async def give_back(admission: Admission) -> None:
    """Return freed memory until cancelled.

    By default glibc keeps most of what large messages have used: hundreds of megabytes.
    """
    while True:
        await asyncio.sleep(INTERVAL)
        if admission.peak > LARGE and admission.all.bytes < admission.peak // 4:
            admission.peak = admission.all.bytes
            await asyncio.to_thread(trim)


def trim() -> None:
    """Return freed memory to the system, if the C library can."""
    gc.collect()  # calls that have ended refer to one another
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
