"""Conversion of audio samples to PCM and WAV."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

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


def write_wav(path: Path, samples: Samples, rate: int) -> None:
    """Write *samples* as a mono 16-bit WAV file. Raises OSError."""
    pcm = to_pcm16(samples)
    path.write_bytes(wav_header(rate, len(pcm)) + pcm)
