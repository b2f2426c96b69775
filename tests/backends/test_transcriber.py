"""The transcriber backend: recordings, streamed results, live speech."""

from __future__ import annotations

import queue
import wave
from array import array
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import is_live_transcription_unsupported, is_model_not_loaded
from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess
from .support.models import ASSETS, INVALID, MISSING, load_refused, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
SPEECH = ASSETS / "speech.wav"
WORDS = "the children are playing in the garden behind the house"
RATE = 16_000


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    files = ("--files", SPEECH.parent, "--files", tmp_path_factory.getbasetemp())
    with loaded("transcriber", arguments=files) as process:
        yield process


@pytest.fixture(scope="module")
def whisper() -> Iterator[HostProcess]:
    with loaded("transcriber", "engine:whisper", arguments=("--files", SPEECH.parent)) as process:
        yield process


def transcribe(process: HostProcess, dst: object = SPEECH, **fields: Any) -> Any:
    request = pb.TranscriptRequest(dst=str(dst), **fields)
    return process.stub.AudioTranscription(request, timeout=PATIENCE)


def stream(process: HostProcess, dst: object = SPEECH, **fields: Any) -> list[Any]:
    request = pb.TranscriptRequest(dst=str(dst), **fields)
    return list(process.stub.AudioTranscriptionStream(request, timeout=PATIENCE))


def speech() -> array[float]:
    with wave.open(str(SPEECH)) as file:
        pcm = array("h", file.readframes(file.getnframes()))
    return array("f", (sample / 32768 for sample in pcm))


def config(**fields: Any) -> pb.TranscriptLiveRequest:
    return pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(**fields))


def audio(samples: Iterable[float]) -> pb.TranscriptLiveRequest:
    return pb.TranscriptLiveRequest(audio=pb.TranscriptLiveAudio(pcm=samples))


def tenths(samples: array[float]) -> Iterator[pb.TranscriptLiveRequest]:
    for start in range(0, len(samples), RATE // 10):
        yield audio(samples[start : start + RATE // 10])


def live(process: HostProcess, *requests: pb.TranscriptLiveRequest) -> list[Any]:
    return list(process.stub.AudioTranscriptionLive(iter(requests), timeout=PATIENCE))


def words(text: str) -> list[str]:
    return text.lower().replace(".", "").replace(",", "").split()


def test_speech_in_words_out(transcriber: HostProcess) -> None:
    result = transcribe(transcriber, timestamp_granularities=["word"])
    assert result.text == WORDS
    assert result.duration == pytest.approx(2.7, abs=0.1)
    (segment,) = result.segments
    assert segment.text == WORDS
    assert [word.text for word in segment.words] == words(WORDS)
    # Nanoseconds, in order, within the recording.
    times = [time for word in segment.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert segment.start == times[0] > 0
    assert 2e9 < times[-1] == segment.end < 2.8e9


def test_other_sample_rates_are_resampled(transcriber: HostProcess, tmp_path: Path) -> None:
    dst = tmp_path / "telephone.wav"
    with wave.open(str(SPEECH)) as file, wave.open(str(dst), "wb") as doubled:
        pcm = array("h", file.readframes(file.getnframes()))
        doubled.setparams((2, 2, 48_000, 0, "NONE", ""))
        # Repeat each sample three times on two channels: crude, but the words are the same.
        doubled.writeframes(array("h", (s for sample in pcm for s in [sample] * 6)).tobytes())
    heard = words(transcribe(transcriber, dst).text)
    assert len(set(words(WORDS)) & set(heard)) >= 6


def test_the_stream_puts_together_the_text(transcriber: HostProcess) -> None:
    *deltas, last = stream(transcriber)
    assert len(deltas) > 3
    assert "".join(answer.delta for answer in deltas) == last.final_result.text == WORDS


def test_two_utterances_are_two_segments(transcriber: HostProcess, tmp_path: Path) -> None:
    dst = tmp_path / "twice.wav"
    with wave.open(str(SPEECH)) as file, wave.open(str(dst), "wb") as twice:
        twice.setparams(file.getparams())
        pcm = file.readframes(file.getnframes())
        twice.writeframes(pcm + bytes(2 * RATE) + pcm + bytes(2 * RATE))
    result = transcribe(transcriber, dst)
    first, second = result.segments
    assert (first.id, second.id) == (0, 1)
    assert first.end < 3e9 < second.start
    assert result.eou
    assert result.text == f"{first.text} {second.text}"


def test_silence_has_no_words(transcriber: HostProcess, tmp_path: Path) -> None:
    dst = tmp_path / "silence.wav"
    with wave.open(str(dst), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(4 * RATE))
    result = transcribe(transcriber, dst)
    assert (result.text, len(result.segments), result.duration) == ("", 0, 2.0)


def test_live_speech_is_answered_while_it_flows(transcriber: HostProcess) -> None:
    pending: queue.SimpleQueue[pb.TranscriptLiveRequest | None] = queue.SimpleQueue()
    answers = transcriber.stub.AudioTranscriptionLive(iter(pending.get, None), timeout=PATIENCE)
    pending.put(config(language="en", sample_rate=RATE))
    assert next(answers).ready
    chunks = list(tenths(speech()))
    for chunk in chunks[:20]:
        pending.put(chunk)
    # The caller has not sent the rest yet, so this delta must come from the first part.
    told = [next(answers)]
    assert WORDS.startswith(told[0].delta.strip())
    for chunk in [*chunks[20:], audio([0.0] * RATE)]:
        pending.put(chunk)
    while not told[-1].eou:
        told.append(next(answers))
    # The speaker has paused, but the stream is still open.
    pending.put(None)
    told += list(answers)
    final = told.pop().final_result
    assert "".join(answer.delta for answer in told) == final.text
    assert len(set(words(final.text)) & set(words(WORDS))) >= 6
    spoken = [word for answer in told for word in answer.words]
    assert [word.text for word in spoken] == words(final.text)
    assert [word.start for word in spoken] == sorted(word.start for word in spoken)
    assert 0 < spoken[0].start < spoken[-1].end < 3e9


def test_a_config_starts_live_speech_over(transcriber: HostProcess) -> None:
    alone = live(transcriber, config(), *tenths(speech()))
    again = live(transcriber, config(), *list(tenths(speech()))[:15], config(), *tenths(speech()))
    assert [answer.ready for answer in again].count(True) == 2
    assert again[-1].final_result.text == alone[-1].final_result.text
    assert again[-1].final_result.segments[0].start == alone[-1].final_result.segments[0].start


def test_a_live_caller_may_say_nothing(transcriber: HostProcess) -> None:
    assert live(transcriber) == []
    ready, last = live(transcriber, config())
    assert ready.ready
    assert last.final_result.text == ""


def test_an_abandoned_call_leaves_its_decoder_in_order(transcriber: HostProcess) -> None:
    alone = live(transcriber, config(), *tenths(speech()))[-1]
    for _ in range(3):
        pending: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = transcriber.stub.AudioTranscriptionLive(iter(pending.get, None), timeout=PATIENCE)
        for request in [config(), *list(tenths(speech()))[:15]]:
            pending.put(request)
        while not next(call).delta:
            pass
        call.cancel()
        pending.put(None)
    assert live(transcriber, config(), *tenths(speech()))[-1] == alone


def test_more_callers_than_decoders_take_turns() -> None:
    with loaded("transcriber", "parallel:1", arguments=("--files", SPEECH.parent)) as process:
        request = pb.TranscriptRequest(dst=str(SPEECH))
        calls = [process.stub.AudioTranscription.future(request) for _ in range(4)]
        assert {call.result(PATIENCE).text for call in calls} == {WORDS}


def test_refuses_what_is_no_recording(transcriber: HostProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(SPEECH.read_bytes()[:5_000])
    text = tmp_path / "text.wav"
    text.write_text("this is not audio")
    for call in (transcribe, stream):
        refused(transcriber, INVALID, "truncated", call, transcriber, broken)
        refused(transcriber, INVALID, "RIFF/WAVE", call, transcriber, text)
        refused(transcriber, MISSING, "no file", call, transcriber, "/no/such.wav")
        refused(transcriber, INVALID, "dst is empty", call, transcriber, "")
        refused(transcriber, INVALID, "English only", call, transcriber, language="de")
    refused(transcriber, INVALID, "translate", transcribe, transcriber, translate=True)
    load_refused(transcriber, "engine:vosk is not one of sphinx, whisper", "engine:vosk")


def test_refuses_what_is_no_live_speech(transcriber: HostProcess) -> None:
    one = audio([0.0] * 1600)
    rate = config(sample_rate=44_100)
    nan = audio([float("nan")])
    refused(transcriber, INVALID, "first request", live, transcriber, one)
    refused(transcriber, INVALID, "16000 Hz", live, transcriber, rate)
    refused(transcriber, INVALID, "16000 Hz", live, transcriber, config(), one, rate)
    refused(transcriber, INVALID, "finite", live, transcriber, config(), nan)
    refused(transcriber, INVALID, "English", live, transcriber, config(language="fr"))


def test_whisper_hears_every_word(whisper: HostProcess) -> None:
    result = transcribe(whisper, timestamp_granularities=["word"])
    assert words(result.text) == words(WORDS)
    assert len(result.segments[0].words) == len(words(WORDS))
    *deltas, last = stream(whisper)
    assert "".join(answer.delta for answer in deltas) == last.final_result.text == result.text


def test_whisper_says_that_it_does_not_listen_live(whisper: HostProcess) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        live(whisper, config(), audio([0.0] * 1600))
    assert is_live_transcription_unsupported(caught.value)
    assert not is_model_not_loaded(caught.value)
    assert "engine:sphinx" in str(caught.value)
