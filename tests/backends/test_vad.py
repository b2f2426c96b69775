"""The vad backend: real speech, silence and noise."""

from __future__ import annotations

import random
import wave
from array import array
from typing import TYPE_CHECKING

import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess
from .support.models import ASSETS, INVALID, LARGE, load, load_refused, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
RATE = 16_000
SILENCE = [0.0] * RATE


def speech() -> list[float]:
    with wave.open(str(ASSETS / "speech.wav")) as file:
        return [sample / 32768 for sample in array("h", file.readframes(file.getnframes()))]


@pytest.fixture(scope="module")
def vad() -> Iterator[HostProcess]:
    with loaded("vad") as process:
        yield process


def segments(process: HostProcess, samples: list[float]) -> list[tuple[float, float]]:
    found = process.stub.VAD(pb.VADRequest(audio=samples), timeout=PATIENCE).segments
    return [(segment.start, segment.end) for segment in found]


def test_finds_each_stretch_of_speech(vad: HostProcess) -> None:
    spoken = len(speech()) / RATE
    found = segments(vad, SILENCE + speech() + SILENCE + speech())
    assert len(found) == 2
    for (start, end), begin in zip(found, (1.0, 2.0 + spoken), strict=True):
        assert begin - 0.1 < start < begin + 0.3
        assert begin + spoken - 0.5 < end < begin + spoken + 0.1


def test_hears_nothing_in_silence_and_noise(vad: HostProcess) -> None:
    noise = random.Random(1)
    assert segments(vad, []) == []
    assert segments(vad, SILENCE) == []
    assert segments(vad, [noise.gauss(0, 0.05) for _ in range(3 * RATE)]) == []


def test_one_request_does_not_colour_the_next(vad: HostProcess) -> None:
    alone = segments(vad, speech())
    segments(vad, SILENCE + speech()[: RATE // 2])
    assert segments(vad, speech()) == alone


def test_refuses_what_is_not_audio(vad: HostProcess) -> None:
    for samples in ([float("nan")] * 512, [float("inf")], [3000.0, -3000.0] * 512):
        refused(vad, INVALID, "in [-1, 1] at 16000 Hz", segments, vad, samples)
    refused(vad, LARGE, "the limit is 600 s", segments, vad, [0.0] * (601 * RATE))
    load_refused(vad, "threshold:2 is not a number from 0 to 1", "threshold:2")


def test_takes_its_options() -> None:
    with loaded("vad", "min_silence:5") as process:
        assert len(segments(process, speech() + SILENCE + speech())) == 1
        load(process, "min_speech:60")
        assert segments(process, speech()) == []
