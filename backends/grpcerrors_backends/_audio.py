"""Audio in and out of files: WAV to mono samples and back, from any sample rate to any other."""

from __future__ import annotations

import os
import struct
import wave
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from grpcerrors_backends.model import BadInput, NotFound, TooLarge

if TYPE_CHECKING:
    from pathlib import Path

Samples = NDArray[np.float32]
"""Mono samples in [-1, 1]."""

SPEECH_RATE: Final = 16_000
"""What every speech model here listens to, in Hz."""

MAX_SECONDS: Final = 3600
_RATES: Final = range(4_000, 192_001)
_WIDTHS: Final = range(1, 5)  # bytes of a sample
_EXPECTED: Final = "expected a RIFF/WAVE file of PCM samples with 8, 16, 24 or 32 bits"
_UNKNOWN_SIZE: Final = 0xFFFFFFFF - 44


def read_speech(path: str) -> Samples:
    """Return the WAV file at *path* as mono samples at SPEECH_RATE.

    Channels are averaged and other sample rates are resampled.

    Raises NotFound when there is no such file, BadInput when it is not a whole WAV file, TooLarge
    when it lasts longer than MAX_SECONDS.
    """
    samples, rate = read_wav(path)
    return resample(samples, rate, SPEECH_RATE)


def read_wav(path: str) -> tuple[Samples, int]:
    """Return the WAV file at *path* as mono samples, and its sample rate in Hz.

    Raises as read_speech does.
    """
    if not path:
        message = "dst is empty: it has to be the path of a WAV file that this backend can read"
        raise BadInput(message)
    # Not a pipe, which would block. Unlike pathlib's, this isfile raises nothing, for no path.
    if not os.path.isfile(path):  # noqa: PTH113
        message = f"no audio file at {path!r}"
        raise NotFound(message)
    try:
        with wave.open(path, "rb") as file:
            form = file.getparams()
            if form.framerate not in _RATES:
                message = f"sample rate {form.framerate} Hz: expected {_RATES[0]} to {_RATES[-1]}"
                raise BadInput(message)
            if form.sampwidth not in _WIDTHS:
                message = f"samples of {8 * form.sampwidth} bits: {_EXPECTED}"
                raise BadInput(message)
            raw = file.readframes(MAX_SECONDS * form.framerate + 1)
    except OSError as error:
        message = f"cannot read the audio file {path!r}: {error.strerror}"
        raise BadInput(message) from error
    except (wave.Error, EOFError, RuntimeError, struct.error, ValueError) as error:
        message = (
            f"{path!r} is not audio that can be read ({error or 'it ends early'}): {_EXPECTED}"
        )
        raise BadInput(message) from error
    frames = len(raw) // (form.sampwidth * form.nchannels)
    if frames > MAX_SECONDS * form.framerate:
        message = f"{path!r} lasts longer than {MAX_SECONDS} s, the limit of one request"
        raise TooLarge(message)
    # A header written before the length was known says so with the largest size there is.
    streamed = form.nframes * form.sampwidth * form.nchannels >= _UNKNOWN_SIZE - form.sampwidth
    if frames < form.nframes and not streamed:
        message = f"{path!r} is cut off: its header promises {form.nframes} frames, it has {frames}"
        raise BadInput(message)
    interleaved = _to_float(raw[: frames * form.sampwidth * form.nchannels], form.sampwidth)
    mono: Samples = interleaved.reshape(-1, form.nchannels).mean(axis=1, dtype=np.float32)
    return mono, form.framerate


def _to_float(raw: bytes, width: int) -> Samples:
    if width == 1:  # the one unsigned width of the format
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if width == 3:  # noqa: PLR2004 - bytes of a sample; numpy has no such integer: widen it
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = wide.tobytes(), 4
    scale = float(1 << (8 * width - 1))
    samples: Samples = np.frombuffer(raw, f"<i{width}").astype(np.float32) / np.float32(scale)
    return samples


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Return *samples* at the rate *wanted*, band-limited: the spectrum is cut or padded."""
    if rate == wanted or not samples.size:
        return samples
    count = max(1, round(samples.size * wanted / rate))
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    scaled = np.fft.irfft(spectrum, count) * (count / samples.size)
    return scaled.astype(np.float32)


def to_pcm16(samples: Samples) -> bytes:
    """Return *samples* as little-endian 16-bit PCM; what exceeds [-1, 1] is clipped."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def wav_header(rate: int, size: int = _UNKNOWN_SIZE) -> bytes:
    """Return the 44 bytes before *size* bytes of mono 16-bit PCM at *rate* Hz.

    Without *size* the header is one for a stream whose length is not known yet.
    """
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + form + struct.pack("<4sI", b"data", size)
    )


def write_wav(path: Path, samples: Samples, rate: int) -> None:
    """Write *samples* as a mono 16-bit WAV file. Raises OSError."""
    pcm = to_pcm16(samples)
    path.write_bytes(wav_header(rate, len(pcm)) + pcm)
