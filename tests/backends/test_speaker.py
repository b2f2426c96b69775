"""The speaker backend: WAV files and streams of speech."""

from __future__ import annotations

import wave
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess
from .support.models import INVALID, LARGE, MISSING, find_or_skip, load_refused, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
TEXT = "The weather is nice. We will walk to the river, and then go home."


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    files = ("--files", tmp_path_factory.getbasetemp())
    with loaded("speaker", "noise:0", arguments=files) as process:
        yield process


def speak(process: HostProcess, dst: object, text: str = TEXT, **fields: Any) -> Any:
    request = pb.TTSRequest(text=text, dst=str(dst), **fields)
    return process.stub.TTS(request, timeout=PATIENCE)


def stream(process: HostProcess, text: str = TEXT, **fields: Any) -> list[bytes]:
    request = pb.TTSRequest(text=text, **fields)
    return [reply.audio for reply in process.stub.TTSStream(request, timeout=PATIENCE)]


def frames(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22_050)
        pcm: bytes = file.readframes(file.getnframes())
    return pcm


def test_writes_a_wav_file(speaker: HostProcess, tmp_path: Path) -> None:
    assert speak(speaker, tmp_path / "said.wav", voice="joe").success
    assert 3 < len(frames(tmp_path / "said.wav")) / 2 / 22_050 < 7


def test_streams_a_header_then_a_sentence_at_a_time(speaker: HostProcess, tmp_path: Path) -> None:
    header, *sentences = stream(speaker)
    assert (header[:4], header[8:12], len(header)) == (b"RIFF", b"WAVE", 44)
    assert len(sentences) == 2
    speak(speaker, tmp_path / "said.wav")
    assert b"".join(sentences) == frames(tmp_path / "said.wav")
    (tmp_path / "streamed.wav").write_bytes(b"".join([header, *sentences]))
    with wave.open(str(tmp_path / "streamed.wav")) as file:
        assert file.getframerate() == 22_050


def test_pace_and_punctuation_are_heard(speaker: HostProcess) -> None:
    def length(text: str) -> int:
        return sum(map(len, stream(speaker, text)))

    assert length("Milk bread and apples") < length("Milk, bread, and, apples")
    texts = ("One.", "One two three.", "One two three four five six seven.")
    assert all(length(short) < length(long) for short, long in pairwise(texts))
    with loaded("speaker", "noise:0", "pace:2") as fast:
        assert sum(map(len, stream(fast))) < 0.75 * length(TEXT)


def test_splits_a_long_sentence(speaker: HostProcess) -> None:
    _, *pieces = stream(speaker, "and so on " * 50)
    assert len(pieces) == 2


def test_refuses_what_it_cannot_say(speaker: HostProcess, tmp_path: Path) -> None:
    dst = tmp_path / "said.wav"
    for text in ("", " \n ", "?!"):
        refused(speaker, INVALID, "no letters or digits", speak, speaker, dst, text)
        refused(speaker, INVALID, "no letters or digits", stream, speaker, text)
    unknown = "available: en_US-joe-medium"
    refused(speaker, MISSING, unknown, speak, speaker, dst, voice="Siri")
    refused(speaker, MISSING, unknown, stream, speaker, voice="Siri")
    refused(speaker, INVALID, "English only", speak, speaker, dst, language="de")
    refused(speaker, LARGE, "the limit is 5000", speak, speaker, dst, "x" * 5001)
    refused(speaker, INVALID, "dst must be the path", speak, speaker, "")
    refused(speaker, MISSING, "no file", speak, speaker, tmp_path / "no" / "x.wav")
    refused(speaker, MISSING, "no file", speak, speaker, tmp_path)
    refused(speaker, MISSING, "no file", speak, speaker, "/tmp/elsewhere.wav")
    load_refused(speaker, "pace:9 is not a number from 0.25 to 4", "pace:9")
    assert not dst.exists()


def test_phonemes_keep_clauses_apart() -> None:
    find_or_skip("speaker")
    from grpcerrors_backends.speaker.phonemes import PhonemesError, phonemes  # noqa: PLC0415 - an extra

    said = phonemes("Milk,\r\nbread\x0b and\u2028apples: yes!", "en-us")
    assert [mark for mark in said if mark in ",.:!"] == [",", ":", "!"]
    assert "ɹ" in said.split(",")[1]
    with pytest.raises(PhonemesError, match="no voice 'xx-none'"):
        phonemes("hello", "xx-none")
