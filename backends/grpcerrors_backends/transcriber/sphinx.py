"""The streaming engine: PocketSphinx with its en-us model."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pocketsphinx import Decoder, Endpointer

from grpcerrors_backends._audio import Samples, to_pcm16
from grpcerrors_backends.transcriber.recording import SPEECH_RATE
from grpcerrors_backends.transcriber.speech import Heard, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_FRAMES_A_SECOND: Final = 100
# A pause of half a second ends an utterance: the best value in trials with synthetic speech.
_PAUSE_WINDOW, _PAUSE_RATIO = 0.5, 0.8
# A word is final once so many partial results in a row agree on it and so many words follow it.
_AGREEING, _FOLLOWING = 8, 2


class Sphinx:
    """A pool of decoders, created on demand. Each decodes one audio at a time."""

    def __init__(self, decoders: int) -> None:
        self._idle: queue.LifoQueue[Decoder | None] = queue.LifoQueue()
        for _ in range(decoders - 1):
            self._idle.put(None)
        self._idle.put(_decoder())

    def close(self) -> None:
        """Free the decoders."""
        while not self._idle.empty():
            self._idle.get()

    @contextmanager
    def listen(self, alive: Callable[[], bool]) -> Iterator[Listener | None]:
        """Yield a listener as soon as a decoder is idle, or None once *alive* returns False."""
        while True:
            try:
                decoder = self._idle.get(timeout=0.2)
                break
            except queue.Empty:
                if not alive():
                    yield None
                    return
        try:
            decoder = decoder or _decoder()
            listener = Listener(decoder)
            yield listener
            listener.abandon()
        except BaseException:
            # An interrupted decoder may be in any state, so the next caller gets a new one.
            decoder = None
            raise
        finally:
            self._idle.put(decoder)

    def hear(self, pieces: Iterable[Samples], alive: Callable[[], bool]) -> Iterator[Heard]:
        """Yield the words in *pieces* (mono, SPEECH_RATE) until *alive* returns False."""
        with self.listen(alive) as listener:
            if listener is None:
                return
            step = SPEECH_RATE // 10
            for piece in pieces:
                for start in range(0, len(piece), step):
                    if not alive():
                        return
                    yield from listener.feed(piece[start : start + step])
            yield from listener.finish()


class Listener:
    """Recognizes one audio as it arrives: finds utterances, decodes them, returns final words."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._begin()

    def _begin(self) -> None:
        # A decoder adapts to the speaker, but one caller must not affect the text of the next.
        self._decoder.set_cmn(self._decoder.config["cmninit"])
        self._endpointer = Endpointer(
            window=_PAUSE_WINDOW, ratio=_PAUSE_RATIO, vad_mode=0, sample_rate=SPEECH_RATE
        )
        self._pending = b""
        self._partials: list[list[Word]] = []
        self._sent: list[Word] = []

    def feed(self, samples: Samples) -> Iterator[Heard]:
        """Add *samples* and yield the words that have become final."""
        pcm = self._pending + to_pcm16(samples)
        size = self._endpointer.frame_bytes
        whole = (len(pcm) - 1) // size * size  # end_stream needs at least one sample
        self._pending = pcm[whole:]
        for start in range(0, whole, size):
            frame = pcm[start : start + size]
            speaking = self._endpointer.in_speech
            yield from self._decode(self._endpointer.process(frame), started=not speaking)

    def finish(self) -> Iterator[Heard]:
        """End the audio and yield the remaining words. The listener can then take another audio."""
        speaking = self._endpointer.in_speech
        speech = self._endpointer.end_stream(self._pending) if self._pending else None
        if speech is not None or speaking:
            yield from self._decode(speech or b"", started=not speaking, last=True)
        self._begin()

    def abandon(self) -> None:
        """Discard the audio so far. The listener can then take another audio."""
        if self._endpointer.in_speech:
            self._decoder.end_utt()
        self._begin()

    def _decode(
        self, speech: bytes | None, *, started: bool, last: bool = False
    ) -> Iterator[Heard]:
        if speech is None:
            return
        if started:
            self._decoder.start_utt()
            self._partials, self._sent = [], []
        if speech:
            self._decoder.process_raw(speech, no_search=False, full_utt=False)
        if self._endpointer.in_speech and not last:
            words = self._certain()
            if words:
                self._sent += words
                yield Heard(words)
            return
        self._decoder.end_utt()
        end = self._sent[-1].end if self._sent else 0.0
        # The last pass may change earlier words, but those already sent cannot change.
        words = [word for word in self._words() if word.start + word.end > 2 * end]
        yield Heard(words, ended=not last)

    def _certain(self) -> list[Word]:
        """Return the unsent words on which the last partial results agree."""
        self._partials = [*self._partials[1 - _AGREEING :], self._words()]
        if len(self._partials) < _AGREEING:
            return []
        newest = self._partials[-1]
        certain: list[Word] = []
        for index in range(len(self._sent), len(newest) - _FOLLOWING):
            texts = {"".join(w.text for w in p[index : index + 1]) for p in self._partials}
            if len(texts) > 1:
                break
            certain.append(newest[index])
        return certain

    def _words(self) -> list[Word]:
        offset = self._endpointer.speech_start
        return [
            Word(
                part.word.split("(")[0],
                offset + part.start_frame / _FRAMES_A_SECOND,
                offset + (part.end_frame + 1) / _FRAMES_A_SECOND,
            )
            for part in self._decoder.seg() or ()
            if part.word[0] not in "<[+("
        ]


def _decoder() -> Decoder:
    return Decoder(samprate=SPEECH_RATE, loglevel="FATAL")
