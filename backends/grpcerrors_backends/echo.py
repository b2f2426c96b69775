"""Return what is sent: the backend to copy when you write one, and a node for router tests.

No model, no licence, no size. RPCs: Predict, PredictStream (word by word), Embedding (equal texts
have equal vectors, nothing more), AudioTranscriptionLive (counts the samples).
Load options, each "key:value": `load_seconds`, `answer_seconds` (how long a load takes, and each
message of an answer), `fail_load` (fail the load with this text), `fail_every` (fail every n-th
call), `prefix` (put before every answer), `ballast_mib` (memory to occupy), `ledger` (a
file: one JSON line per call, written before the call is answered).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from typing import TYPE_CHECKING, Self

from grpcerrors_backends.model import BadInput, LoadError, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc


class Echo(Model):
    """Answers with its prefix and the prompt, so that loaded models can be told apart."""

    name = "echo"
    surface = "aio"

    def __init__(
        self,
        identity: str,
        *,
        prefix: str = "",
        answer_seconds: float = 0,
        fail_every: int = 0,
        ballast_mib: int = 0,
        ledger: int | None = None,
    ) -> None:
        self._identity = identity
        self._prefix = prefix
        self._answer_seconds = answer_seconds
        self._fail_every = fail_every
        self._calls = 0
        # os.urandom touches every page; zeros would not take real memory.
        self._ballast = [os.urandom(1 << 20) for _ in range(ballast_mib)]
        self._ledger = ledger

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Build the model; see the module for the options."""
        settings = Settings(options)
        load_seconds = settings.number("load_seconds", 0, low=0)
        answer_seconds = settings.number("answer_seconds", 0, low=0)
        failure = settings.text("fail_load")
        fail_every = int(settings.number("fail_every", 0, low=0))
        prefix = settings.text("prefix")
        ballast_mib = int(settings.number("ballast_mib", 0, low=0))
        ledger = settings.text("ledger")
        settings.done()
        time.sleep(load_seconds)
        if failure:
            raise LoadError(failure)
        return cls(
            options.Model,
            prefix=prefix,
            answer_seconds=answer_seconds,
            fail_every=fail_every,
            ballast_mib=ballast_mib,
            ledger=_open(ledger) if ledger else None,
        )

    def close(self) -> None:
        """Drop the ballast, close the ledger."""
        self._ballast.clear()
        if self._ledger is not None:
            os.close(self._ledger)

    async def Predict(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.Reply:
        """Return the prompt."""
        await self._execute("Predict", request.CorrelationId or request.Prompt)
        said = self._prefix + request.Prompt
        return pb.Reply(message=said.encode(), tokens=len(said.split()))

    async def PredictStream(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Reply]:
        """Return the prompt word by word; the words joined are the prompt, spaces and all."""
        await self._execute("PredictStream", request.CorrelationId or request.Prompt)
        for word in re.findall(r"\S+\s*|^\s+", self._prefix + request.Prompt):
            yield pb.Reply(message=word.encode(), tokens=1)
            await self._work()

    async def Embedding(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.EmbeddingResult:
        """Return a vector of eight numbers made of the prompt and nothing else."""
        await self._execute("Embedding", request.CorrelationId or request.Prompt)
        digest = hashlib.sha256((self._prefix + request.Prompt).encode()).digest()
        vector = [byte / 255 for byte in digest[:8]]
        layout = pb.EMBEDDING_LAYOUT_FINAL
        return pb.EmbeddingResult(embeddings=vector, dim=len(vector), layout=layout)

    async def AudioTranscriptionLive(
        self,
        request_iterator: AsyncIterator[pb.TranscriptLiveRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[pb.TranscriptLiveResponse]:
        """Acknowledge the config, count the samples of each message, and of all at the end."""
        total = 0
        ready = False
        async for request in request_iterator:
            if request.HasField("config") == ready:
                raise BadInput("the first message carries the config, and each later one audio")
            if not ready:
                params = request.config.params
                await self._execute("AudioTranscriptionLive", params["request_id"])
                ready = True
                yield pb.TranscriptLiveResponse(ready=True)
                continue
            total += len(request.audio.pcm)
            await self._work()
            yield pb.TranscriptLiveResponse(delta=f"{self._prefix}{len(request.audio.pcm)} ")
        if not ready:
            raise BadInput("the stream ended before it began: send a config, then audio")
        result = pb.TranscriptResult(text=f"{self._prefix}{total} samples")
        yield pb.TranscriptLiveResponse(final_result=result)

    async def _execute(self, rpc: str, request: str) -> None:
        """Record one call in the ledger, wait as long as configured, and fail if it is its turn."""
        self._calls += 1
        if self._ledger is not None:
            entry = {
                "model": self._identity,
                "rpc": rpc,
                "request": request,
                "pid": os.getpid(),
                "time": time.time(),
            }
            os.write(self._ledger, json.dumps(entry).encode() + b"\n")
        await self._work()
        if self._fail_every and self._calls % self._fail_every == 0:
            raise RuntimeError(f"call {self._calls} fails, as fail_every asks")

    async def _work(self) -> None:
        if self._answer_seconds:
            await asyncio.sleep(self._answer_seconds)


def _open(ledger: str) -> int:
    try:
        return os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        raise LoadError(f"cannot write the ledger {ledger!r}: {error.strerror}") from error
