"""Memory of this process: its size, and how to return freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc

import psutil

MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_DEFAULT_THRESHOLD = 128 << 10
_process = psutil.Process()
_libc = ctypes.CDLL(None)


def resident() -> int:
    """Return the resident size of this process in bytes."""
    return int(_process.memory_info().rss)


def stay_lean() -> None:
    """Make glibc return large blocks as soon as they are freed. Call once, before the first load.

    By default, glibc raises its thresholds, up to 32 MiB, as large blocks are freed. It then keeps
    the memory of models that were loaded outside the main thread, and malloc_trim cannot release
    it. Setting a threshold, even to its default, turns this off.
    """
    with contextlib.suppress(AttributeError):  # another C library
        _libc.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        _libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)


def give_back() -> None:
    """Return freed memory to the system: collect cycles, then trim the heap."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        _libc.malloc_trim(0)
