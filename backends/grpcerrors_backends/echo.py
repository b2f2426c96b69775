"""Backend that returns its input: a template for new backends and a node for router tests.

It needs no model. RPCs: Predict, PredictStream (word by word), Embedding (equal texts get equal
vectors, which mean nothing), AudioTranscriptionLive (counts samples).

Load options, each as "key:value":
- `load_seconds` (0): duration of a load.
- `answer_seconds` (0): delay before each message of an answer.
- `fail_load`: fail the load with this text.
- `fail_every` (0: never): fail every n-th call.
- `prefix`: text to put in front of every answer.
- `ballast_mib` (0): memory to occupy, in MiB; 1024 at most.
- `ledger`: file to which each call is appended as a line of JSON before it is answered. It must be
  in a folder of --files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from typing import TYPE_CHECKING, Final, Self

from grpcerrors_backends.model import BadInput, LoadError, Model, NotFound
from grpcerrors_backends.settings import Settings
from grpcerrors_backends.tensors import Tensor, TensorSpec
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import grpc

_LONGEST: Final = 86_400  # seconds
_MOST_MIB: Final = 1024


class Echo(Model):
    """Returns its prefix and the prompt, so that a test can tell loaded models apart."""

    name = "echo"
    surface = "aio"
    inputs = (TensorSpec("text", "BYTES", (-1,)),)
    outputs = (TensorSpec("text", "BYTES", (-1,)),)

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
        """Build the model; the module docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        load_seconds = settings.number("load_seconds", 0, low=0, high=_LONGEST)
        answer_seconds = settings.number("answer_seconds", 0, low=0, high=_LONGEST)
        failure = settings.text("fail_load")
        fail_every = int(settings.number("fail_every", 0, low=0, high=1e9))
        prefix = settings.text("prefix")
        ballast_mib = int(settings.number("ballast_mib", 0, low=0, high=_MOST_MIB))
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
            ledger=cls._open(ledger) if ledger else None,
        )

    @classmethod
    def _open(cls, ledger: str) -> int:
        try:
            return cls.files.append(ledger)
        except NotFound as error:
            raise LoadError(f"ledger: {error}") from None

    def close(self) -> None:
        """Free the ballast and close the ledger."""
        self._ballast.clear()
        if self._ledger is not None:
            os.close(self._ledger)

    async def Predict(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.Reply:
        """Return the prefix and the prompt."""
        await self._execute("Predict", request.CorrelationId or request.Prompt)
        said = self._prefix + request.Prompt
        return pb.Reply(message=said.encode(), tokens=len(said.split()))

    async def PredictStream(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Reply]:
        """Yield the same text word by word; the words keep their spaces."""
        await self._execute("PredictStream", request.CorrelationId or request.Prompt)
        for word in re.findall(r"\S+\s*|^\s+", self._prefix + request.Prompt):
            yield pb.Reply(message=word.encode(), tokens=1)
            await self._work()

    async def Embedding(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.EmbeddingResult:
        """Return eight numbers in [0, 1] that depend on the prefix and the prompt only."""
        await self._execute("Embedding", request.CorrelationId or request.Prompt)
        digest = hashlib.sha256((self._prefix + request.Prompt).encode()).digest()
        vector = [byte / 255 for byte in digest[:8]]
        layout = pb.EMBEDDING_LAYOUT_FINAL
        return pb.EmbeddingResult(embeddings=vector, dim=len(vector), layout=layout)

    async def infer(
        self, inputs: Mapping[str, Tensor], context: grpc.aio.ServicerContext
    ) -> Mapping[str, Tensor]:
        """Return the prefix and the text, for each text."""
        texts = inputs["text"]
        await self._execute("ModelInfer", b" ".join(texts.data).decode(errors="replace"))
        said = [self._prefix.encode() + text for text in texts.data]
        return {"text": Tensor(texts.shape, said)}

    async def AudioTranscriptionLive(
        self,
        request_iterator: AsyncIterator[pb.TranscriptLiveRequest],
        context: grpc.aio.ServicerContext,
    ) -> AsyncIterator[pb.TranscriptLiveResponse]:
        """Acknowledge the config, then report the samples of each message and, last, their total.

        Raises BadInput unless the first message, and only that one, carries a config.
        """
        total = 0
        ready = False
        async for request in request_iterator:
            if request.HasField("config") == ready:
                raise BadInput("the first message must carry the config, and every later one audio")
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
            raise BadInput("the stream was empty: send a config, then audio")
        result = pb.TranscriptResult(text=f"{self._prefix}{total} samples")
        yield pb.TranscriptLiveResponse(final_result=result)

    async def _execute(self, rpc: str, request: str) -> None:
        """Record the call in the ledger, wait, and fail every n-th call, as configured."""
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
            raise RuntimeError(f"call {self._calls} fails because of fail_every")

    async def _work(self) -> None:
        if self._answer_seconds:
            await asyncio.sleep(self._answer_seconds)
