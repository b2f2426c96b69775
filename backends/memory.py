"""How much memory the process has, and how to give it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc

import psutil

MIB = 1 << 20
_process = psutil.Process()


def resident() -> int:
    """Return the resident size of this process in bytes."""
    return int(_process.memory_info().rss)


def give_back() -> None:
    """Return freed memory to the system.

    Freeing alone does not: cycles wait for the collector, and glibc keeps what it has got until
    malloc_trim. Other C libraries have no such call, and need none.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
