"""Reading of WAV files as mono audio at 16 kHz, piece by piece, in bounded memory."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np
import soundfile
import soxr

from grpcerrors_backends.model import BadInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpcerrors_backends._audio import Samples
    from grpcerrors_backends.files import Files

SPEECH_RATE: Final = 16_000
"""Sample rate of the speech engines, in Hz."""

MAX_SECONDS: Final = 3600
"""Longest recording in one request, in seconds."""

_RATES: Final = range(4_000, 192_001)
_BLOCK: Final = 1 << 18  # samples to decode at a time, over all channels
_EXPECTED: Final = "expected a RIFF/WAVE file of PCM samples"
_UNKNOWN_SIZE: Final = 0xFFFFFFFF - 64  # or more: the writer did not know the length


def recording(path: str, files: Files) -> Iterator[Samples]:
    """Yield the WAV file at *path* as mono samples in [-1, 1] at SPEECH_RATE.

    Channels are averaged. A piece has some seconds of audio, at 64 kB per second.

    Raises:
        NotFound: *files* have no such file.
        BadInput: it is not a complete WAV file of 4 to 192 kHz.
        TooLarge: it is longer than MAX_SECONDS.
    """
    if not path:
        raise BadInput("dst is empty: it must be the path of a WAV file on the backend's machine")
    try:
        with files.open(path) as file:
            _check_whole(path, file)
            with soundfile.SoundFile(file) as sound:
                yield from _decode(path, sound)
    except OSError as error:
        raise BadInput(f"cannot read the audio file {path!r}: {error.strerror}") from error
    except soundfile.SoundFileError as error:
        raise BadInput(f"cannot decode {path!r} ({error}): {_EXPECTED}") from error


def _check_whole(path: str, file: BinaryIO) -> None:
    """Raise BadInput if *file* is not a RIFF/WAVE file, or is shorter than its header says."""
    size = os.fstat(file.fileno()).st_size
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        raise BadInput(f"{path!r} has no RIFF/WAVE header: {_EXPECTED}")
    while len(header := file.read(8)) == 8:  # noqa: PLR2004 - bytes of a chunk's header
        name, length = struct.unpack("<4sI", header)
        if name == b"data":
            left = size - file.tell()
            if left < length < _UNKNOWN_SIZE:
                raise BadInput(
                    f"{path!r} is truncated: its header says {length} bytes, but it has {left}"
                )
            file.seek(0)
            return
        file.seek(length + length % 2, os.SEEK_CUR)
    raise BadInput(f"{path!r} has no samples: {_EXPECTED}")


def _decode(path: str, sound: soundfile.SoundFile) -> Iterator[Samples]:
    rate = sound.samplerate
    if sound.format not in ("WAV", "WAVEX"):
        raise BadInput(f"{path!r} is a {sound.format} file: {_EXPECTED}")
    if rate not in _RATES:
        raise BadInput(f"the sample rate is {rate} Hz: expected {_RATES[0]} to {_RATES[-1]}")
    if sound.frames > MAX_SECONDS * rate:
        raise TooLarge(f"{path!r} is longer than {MAX_SECONDS} s, the limit of one request")
    resampler = soxr.ResampleStream(rate, SPEECH_RATE, 1, dtype="float32")
    frames = max(1, _BLOCK // sound.channels)
    while len(block := sound.read(frames, dtype="float32", always_2d=True)):
        # A file with floating-point samples may contain NaN and infinity.
        mono = np.nan_to_num(block.mean(axis=1, dtype=np.float32)).clip(-1, 1)
        yield resampler.resample_chunk(mono)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
