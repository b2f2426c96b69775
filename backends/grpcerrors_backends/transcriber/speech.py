"""Recognized words, and their form on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_backends.model import BadInput
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Word:
    """One word, with its start and end in seconds from the start of the audio."""

    text: str
    start: float
    end: float

    def message(self) -> pb.TranscriptWord:
        """Return the word as a message, with times in nanoseconds."""
        return pb.TranscriptWord(start=_nanos(self.start), end=_nanos(self.end), text=self.text)


@dataclass(frozen=True)
class Heard:
    """The words that an engine has recognized since its last result.

    `words` are final: an engine never takes them back, so together they are the transcript.
    `ended` says that the speaker has paused, which ends the utterance.
    """

    words: Sequence[Word]
    ended: bool = False


def check_language(language: str) -> None:
    """Raise BadInput unless *language* is English or empty."""
    if language.lower() not in ("", "en", "en-us"):
        message = f"language {language!r} is not supported: this model knows English only (en)"
        raise BadInput(message)


def delta(words: Iterable[Word], *, first: bool) -> str:
    """Return *words* as text to append to a transcript, which is empty if *first*."""
    text = " ".join(word.text for word in words)
    return text if first or not text else f" {text}"


def segment(
    number: int, words: Sequence[Word], *, word_times: bool = False
) -> pb.TranscriptSegment:
    """Return one utterance as a message, with times in nanoseconds."""
    return pb.TranscriptSegment(
        id=number,
        start=_nanos(words[0].start),
        end=_nanos(words[-1].end),
        text=" ".join(word.text for word in words),
        words=[word.message() for word in words] if word_times else (),
    )


def _nanos(seconds: float) -> int:
    return round(seconds * 1e9)
