"""Conversion of text to phonemes by espeak-ng, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import wrap
from typing import Final

from grpcerrors_backends.speaker import espeak

_PROGRAM: Final = Path(espeak.__file__)
_TIMEOUT: Final = 30.0  # s; a long text takes well under 1 s
_LONGEST: Final = 400  # characters per inference; memory grows with it
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSE: Final = re.compile(r"([^,;:.!?]+)([,;:.!?]*)")


class PhonemesError(Exception):
    """espeak-ng is missing or failed. The text says what to do."""


def sentences(text: str) -> list[str]:
    """Return the sentences of *text* that contain letters or digits; long ones are split."""
    pieces = (piece for part in _SENTENCE.split(text) for piece in wrap(part, _LONGEST))
    return [piece for piece in pieces if re.search(r"\w", piece)]


def phonemes(sentence: str, voice: str) -> str:
    """Return the IPA phonemes of one *sentence*, with its punctuation, which marks pauses.

    Raises PhonemesError.
    """
    # Each clause must be one line, so white space becomes single spaces.
    clauses = [(" ".join(body.split()), mark[:1]) for body, mark in _CLAUSE.findall(sentence)]
    clauses = [(body, mark) for body, mark in clauses if body]
    spoken = _run("\n".join(body for body, _ in clauses), voice).splitlines()
    marks = (mark for _, mark in clauses)
    return " ".join(said + mark for said, mark in zip(spoken, marks, strict=False))


def _run(text: str, voice: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own program; the text goes in by pipe
            [sys.executable, str(_PROGRAM), voice],
            input=text,
            capture_output=True,
            encoding="utf-8",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"cannot run espeak-ng: {error}"
        raise PhonemesError(message) from error
    if done.returncode == espeak.MISSING:
        message = "espeak-ng is missing: apt-get install espeak-ng, or pip install espeakng-loader"
        raise PhonemesError(message)
    if done.returncode == espeak.NO_VOICE:
        message = f"espeak-ng has no voice {voice!r}"
        raise PhonemesError(message)
    if done.returncode != 0:
        message = f"espeak-ng failed with status {done.returncode}: {done.stderr[-200:].strip()}"
        raise PhonemesError(message)
    return done.stdout
