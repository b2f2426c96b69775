"""Client calls of the demo to gateways and nodes."""

from __future__ import annotations

import array
import asyncio
import re
import sys
import wave
from typing import TYPE_CHECKING, NamedTuple

import grpc.aio

from demo.fleet import MODEL, SPEECH
from grpcerrors import explain
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from pathlib import Path

SPOKEN = "The children are playing in the garden behind the house."
_TIMEOUT = 300.0


class Outcome(NamedTuple):
    """The result of one call: the transcribed text, or the error."""

    text: str
    error: grpc.aio.AioRpcError | None


async def transcribe(
    address: str, model: str, *, speech: Path = SPEECH, times: int = 1
) -> list[Outcome]:
    """Send `times` concurrent requests to transcribe the speech to the server at `address`."""
    request = pb.TranscriptRequest(dst=str(speech), ModelIdentity=model)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = BackendStub(channel)

        async def once() -> Outcome:
            try:
                answer = await stub.AudioTranscription(request, timeout=_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                return Outcome("", error)
            return Outcome(answer.text, None)

        return await asyncio.gather(*(once() for _ in range(times)))


async def voice_at(address: str, model: str) -> list[tuple[float, float]]:
    """Return the start and end of each voice segment in the speech, in seconds."""
    with wave.open(str(SPEECH)) as recording:
        frames = array.array("h", recording.readframes(recording.getnframes()))
    samples = [frame / 2**15 for frame in frames]
    async with grpc.aio.insecure_channel(address) as channel:
        request = pb.VADRequest(audio=samples, ModelIdentity=model)
        answer = await BackendStub(channel).VAD(request, timeout=_TIMEOUT)
        return [(segment.start, segment.end) for segment in answer.segments]


async def unload(address: str) -> None:
    """Unload a node's model without telling the router."""
    async with grpc.aio.insecure_channel(address) as channel:
        await BackendStub(channel).Free(pb.HealthMessage(), timeout=_TIMEOUT)


async def health(address: str) -> str:
    """Return a node's answer to a health check."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await BackendStub(channel).Health(pb.HealthMessage(), timeout=_TIMEOUT)
        message: bytes = answer.message
        return message.decode()


def beginning(folder: Path, seconds: float) -> Path:
    """Write the first `seconds` of the speech to a file in `folder`; return its path."""
    path = folder.absolute() / "beginning.wav"
    with wave.open(str(SPEECH)) as recording, wave.open(str(path), "wb") as cut:
        cut.setparams(recording.getparams())
        cut.writeframes(recording.readframes(int(recording.getframerate() * seconds)))
    return path


def right_words(heard: str) -> float:
    """Return the fraction of the spoken words that the transcript contains."""
    spoken, known = _words(SPOKEN), set(_words(heard))
    return sum(word in known for word in spoken) / len(spoken)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def main(arguments: list[str]) -> int:
    """Run `transcribe HOST:PORT` or `unload HOST:PORT`; return the exit code."""
    match arguments:
        case ["transcribe", address]:
            [outcome] = asyncio.run(transcribe(address, MODEL))
            print(explain(outcome.error) if outcome.error else outcome.text)
            return int(outcome.error is not None)
        case ["unload", address]:
            asyncio.run(unload(address))
            print(f"unloaded the model of {address}")
            return 0
    print("usage: python -m demo.client transcribe|unload HOST:PORT", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
