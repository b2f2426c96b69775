"""How much memory the process has, and how to return it to the system."""

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
    """Have glibc return large blocks as soon as they are freed. Call once, before any load.

    By default it raises its thresholds when large blocks come and go, up to 32 MiB; from then on
    it keeps models that were loaded in other threads than the main one, and malloc_trim does not
    reach them. Setting a threshold, if only to its default, stops that.
    """
    with contextlib.suppress(AttributeError):  # another C library
        _libc.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        _libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)


def give_back() -> None:
    """Return freed memory to the system: collect cycles, then give up what malloc keeps."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # another C library
        _libc.malloc_trim(0)
