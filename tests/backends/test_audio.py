"""Reading of WAV files, valid and broken, and resampling."""

from __future__ import annotations

import struct
import tracemalloc
import wave
from pathlib import Path

import pytest

from grpcerrors_backends.model import BadInput, NotFound, TooLarge

pytest.importorskip("soundfile", reason="pip install 'grpcerrors-backends[transcriber]'")

import numpy as np
import soundfile

from grpcerrors_backends import _audio as audio
from grpcerrors_backends.files import Files
from grpcerrors_backends.transcriber.recording import MAX_SECONDS, recording


def tone(rate: int) -> audio.Samples:
    """Return a second of a sine of 440 Hz."""
    wave_form: audio.Samples = np.sin(np.arange(rate) * 2 * np.pi * 440 / rate).astype(np.float32)
    return wave_form / np.float32(2)


SECOND = tone(16_000)


def encoded(samples: audio.Samples, width: int) -> bytes:
    if width == 1:
        return (samples * 127 + 128).astype(np.uint8).tobytes()
    whole = (samples.astype(np.float64) * ((1 << (8 * width - 1)) - 1)).astype("<i4")
    return b"".join(int(value).to_bytes(width, "little", signed=True) for value in whole)


def read(path: object) -> audio.Samples:
    return np.concatenate(list(recording(str(path), Files([Path("/")]))))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_reads_every_width(tmp_path: Path, width: int, channels: int) -> None:
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, 16_000, 0, "NONE", ""))
        file.writeframes(encoded(np.repeat(SECOND, channels), width))
    np.testing.assert_allclose(read(path), SECOND, atol=0.02)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_resamples_to_speech_rate(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "tone.wav"
    path.write_bytes(audio.to_wav(tone(rate), rate))
    samples = read(path)
    assert samples.size == 16_000
    inner = slice(160, -160)  # a filter needs some samples before and after
    np.testing.assert_allclose(samples[inner], SECOND[inner], atol=0.02)


def test_nothing_of_the_end_rings_into_the_start(tmp_path: Path) -> None:
    path = tmp_path / "late.wav"
    samples = np.zeros(48_000, np.float32)
    samples[-480:] = tone(48_000)[:480]
    path.write_bytes(audio.to_wav(samples, 48_000))
    assert np.abs(read(path)[:8_000]).max() < 1e-4


def test_cuts_what_the_new_rate_cannot_carry(tmp_path: Path) -> None:
    path = tmp_path / "high.wav"
    high = np.sin(np.arange(48_000) * 2 * np.pi * 10_000 / 48_000).astype(np.float32)
    path.write_bytes(audio.to_wav(high, 48_000))
    assert np.abs(read(path)[160:-160]).max() < 0.01


def test_reads_what_was_streamed(tmp_path: Path) -> None:
    path = tmp_path / "streamed.wav"
    path.write_bytes(audio.wav_header(16_000) + audio.to_pcm16(SECOND))
    np.testing.assert_allclose(read(path), SECOND, atol=0.001)


def test_reads_samples_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "float.wav"
    soundfile.write(path, np.array([0.5, np.nan, np.inf, -1e30], np.float32), 16_000, "FLOAT")
    assert read(path).tolist() == [0.5, 0, 1, -1]


def test_comes_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "wide.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((8, 2, 192_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8 * 192_000))
    tracemalloc.start()
    pieces = [piece.size for piece in recording(str(path), Files([tmp_path]))]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(pieces) == 16_000
    assert len(pieces) > 5
    assert peak < 4 << 20, (
        "a file of 3 MB, which has 6 MB as floats, must not be in memory as a whole"
    )


def whole() -> bytes:
    pcm = audio.to_pcm16(SECOND)
    return audio.wav_header(16_000, len(pcm)) + pcm


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "RIFF"),
        (b"hello, this is not audio", "RIFF"),
        (whole()[:30], "RIFF"),
        (whole()[:20_000], "truncated"),
        (b"RIFF" + struct.pack("<I", 4) + b"WAVE", "RIFF"),
        (
            whole().replace(struct.pack("<I", 16_000), struct.pack("<I", 2), 1),
            "sample rate is 2 Hz",
        ),
        (whole()[:20] + b"\x55\x00" + whole()[22:], "RIFF"),
        (whole()[:22] + b"\x00\x00" + whole()[24:], "RIFF"),
        (whole()[:34] + b"\x80\x00" + whole()[36:], "RIFF"),
    ],
    ids=["empty", "text", "header", "half", "chunkless", "rate", "mp3", "channelless", "wide"],
)
def test_says_what_is_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read(path)


def test_names_what_is_missing(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.wav", tmp_path):
        with pytest.raises(NotFound, match="no file"):
            read(missing)
    with pytest.raises(BadInput, match="dst is empty"):
        read("")


def test_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(audio.to_wav(np.zeros(MAX_SECONDS * 4_000 + 1, np.float32), 4_000))
    with pytest.raises(TooLarge, match="3600 s"):
        read(path)
