"""Separate program that reads one clause per line and writes its phonemes as one line.

espeak-ng is free software under the GPL, version 3 or later. Only this program loads it. The
speaker runs this program as a process, talks to it through pipes and links to no part of espeak-ng.
The shared library comes from the system (Debian: libespeak-ng1), else from the package
espeakng-loader.

Usage: python espeak.py VOICE
Exit status 3: espeak-ng is not installed; 4: it does not have this voice.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

_RETRIEVAL = 1  # audio is not played
_UTF8, _IPA = 1, 2
MISSING, NO_VOICE = 3, 4


def _library() -> tuple[ctypes.CDLL, str | None]:
    name = ctypes.util.find_library("espeak-ng")
    if name:
        return ctypes.CDLL(name), None
    import espeakng_loader

    return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path()


def _phonemes(library: ctypes.CDLL, clause: str) -> str:
    rest = ctypes.c_char_p(clause.encode())
    parts = []
    while rest.value:
        parts.append(library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
    return " ".join(parts)


def main(voice: str) -> int:
    """Write a line of phonemes for each line of standard input; return the exit status."""
    try:
        library, data = _library()
    except (ImportError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return MISSING
    library.espeak_Initialize(_RETRIEVAL, 0, data.encode() if data else None, 0)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        return NO_VOICE
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    for line in sys.stdin:
        sys.stdout.write(_phonemes(library, line.strip()) + "\n")
    return 0


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1]))
