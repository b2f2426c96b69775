"""Conversion of audio samples to PCM and WAV."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Mono samples in [-1, 1], one-dimensional."""

_UNKNOWN_SIZE: Final = 0xFFFFFFFF - 44


def to_pcm16(samples: Samples) -> bytes:
    """Return *samples* as little-endian 16-bit PCM; values outside [-1, 1] are clipped."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(rate: int, size: int = _UNKNOWN_SIZE) -> bytes:
    """Return the 44-byte WAV header for *size* bytes of mono 16-bit PCM at *rate* Hz.

    Without *size*, the header is for a stream of unknown length.
    """
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + form + struct.pack("<4sI", b"data", size)
    )


def to_wav(samples: Samples, rate: int) -> bytes:
    """Return *samples* as a mono 16-bit WAV file."""
    pcm = to_pcm16(samples)
    return wav_header(rate, len(pcm)) + pcm
