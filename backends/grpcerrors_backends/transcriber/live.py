"""The message protocol of AudioTranscriptionLive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpcerrors_backends.model import BadInput
from grpcerrors_backends.transcriber.recording import SPEECH_RATE
from grpcerrors_backends.transcriber.speech import Heard, Word, check_language, delta, segment
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from grpcerrors_backends.transcriber.sphinx import Sphinx

_MAX_MESSAGE = 60 * SPEECH_RATE


def converse(
    engine: Sphinx, requests: Iterator[pb.TranscriptLiveRequest], context: grpc.ServicerContext
) -> Iterator[pb.TranscriptLiveResponse]:
    """Transcribe one stream of live audio.

    The first request carries the config, and the answer is `ready`. Each later answer has a delta
    of final words with their times, or `eou` after a pause, or both. Another config starts over: it
    drops the transcript so far and gets another `ready`. After the caller has closed its side come
    the remaining words as a delta, and then the final result, whose text is all deltas joined. A
    caller that sends nothing gets an empty stream.

    Raises BadInput for audio before the config, an unsupported language, or a sample rate other
    than 16 kHz (0 means 16 kHz), as LocalAI does.
    """
    first = next(requests, None)
    if first is None:
        return
    if first.WhichOneof("payload") != "config":
        message = "the first request must carry the config; send audio after the ready answer"
        raise BadInput(message)
    _check(first.config)
    with engine.listen(context.is_active) as listener:
        if listener is None:
            return
        transcript = _Transcript()
        yield pb.TranscriptLiveResponse(ready=True)
        for request in requests:
            if request.WhichOneof("payload") == "config":
                _check(request.config)
                listener.abandon()
                transcript = _Transcript()
                yield pb.TranscriptLiveResponse(ready=True)
            else:
                yield from map(transcript.add, listener.feed(_samples(request.audio)))
        yield from map(transcript.add, listener.finish())
        yield pb.TranscriptLiveResponse(final_result=transcript.result())


class _Transcript:
    """The words sent so far."""

    def __init__(self) -> None:
        self._text = ""
        self._utterances: list[list[Word]] = [[]]

    def add(self, heard: Heard) -> pb.TranscriptLiveResponse:
        piece = delta(heard.words, first=not self._text)
        self._text += piece
        self._utterances[-1] += heard.words
        if heard.ended and self._utterances[-1]:
            self._utterances.append([])
        words = [word.message() for word in heard.words]
        return pb.TranscriptLiveResponse(delta=piece, eou=heard.ended, words=words)

    def result(self) -> pb.TranscriptResult:
        spoken = [words for words in self._utterances if words]
        segments = [segment(number, words) for number, words in enumerate(spoken)]
        return pb.TranscriptResult(segments=segments, text=self._text, language="en")


def _check(config: pb.TranscriptLiveConfig) -> None:
    if config.sample_rate not in (0, SPEECH_RATE):
        message = (
            f"sample_rate is {config.sample_rate}: live audio must be sampled at {SPEECH_RATE} Hz"
        )
        raise BadInput(message)
    check_language(config.language)


def _samples(audio: pb.TranscriptLiveAudio) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    samples = np.array(audio.pcm, np.float32)
    if samples.size > _MAX_MESSAGE or not np.isfinite(samples).all():
        message = "audio must be finite samples in [-1, 1], at most one minute per message"
        raise BadInput(message)
    return samples
