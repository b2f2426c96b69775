"""A backend for tests of the host, in a sync and an aio version, with every kind of failure."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

import grpc

from grpcerrors import model_not_loaded
from grpcerrors_backends.model import BadInput, Model, NotFound, TooLarge
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FAILURES = {
    "bad": BadInput("send a number"),
    "missing": NotFound("no voice named x"),
    "large": TooLarge("at most 10 seconds"),
    "crash": ZeroDivisionError("secret of the house"),
    "gone": model_not_loaded("sample", model="m"),
}


class _Sample(Model):
    name = "sample"

    def __init__(self, prefix: str, answer_seconds: float, ballast_mib: int) -> None:
        self.prefix = prefix
        self.answer_seconds = answer_seconds
        self.ballast = bytearray(b"x") * (ballast_mib << 20)
        self.closed = False

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        settings = Settings(options)
        time.sleep(settings.number("load_seconds", 0))
        if settings.text("fail_load"):
            raise OSError("no such file")
        return cls(
            settings.text("prefix"),
            settings.number("answer_seconds", 0),
            int(settings.number("ballast_mib", 0)),
        )

    def close(self) -> None:
        self.closed = True

    def _answer(self, request: pb.PredictOptions) -> pb.Reply:
        assert not self.closed, "a call after close"
        if request.Prompt in FAILURES:
            raise FAILURES[request.Prompt]
        return pb.Reply(message=(self.prefix + request.Prompt).encode())


class Sync(_Sample):
    """The sync version."""

    def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        time.sleep(self.answer_seconds)
        if request.Prompt == "abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        return self._answer(request)

    def PredictStream(self, request: pb.PredictOptions, context: Any) -> Iterator[pb.Reply]:
        if request.Prompt == "abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        while True:
            yield self._answer(request)
            time.sleep(self.answer_seconds)
            if request.Prompt != "endless":
                return

    def Embedding(self, request: pb.PredictOptions, context: Any) -> pb.EmbeddingResult:
        return pb.EmbeddingResult(embeddings=[len(self._answer(request).message)])

    def AudioTranscriptionLive(
        self, request_iterator: Iterator[pb.TranscriptLiveRequest], context: Any
    ) -> Iterator[pb.TranscriptLiveResponse]:
        for _ in request_iterator:
            assert not self.closed, "a call after close"
            yield pb.TranscriptLiveResponse(delta=self.prefix)


class Aio(_Sample):
    """The aio version."""

    surface = "aio"

    async def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        await asyncio.sleep(self.answer_seconds)
        if request.Prompt == "abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        return self._answer(request)

    async def PredictStream(
        self, request: pb.PredictOptions, context: Any
    ) -> AsyncIterator[pb.Reply]:
        if request.Prompt == "abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        while True:
            yield self._answer(request)
            await asyncio.sleep(self.answer_seconds)
            if request.Prompt != "endless":
                return

    async def Embedding(self, request: pb.PredictOptions, context: Any) -> pb.EmbeddingResult:
        return pb.EmbeddingResult(embeddings=[len(self._answer(request).message)])

    async def AudioTranscriptionLive(
        self, request_iterator: AsyncIterator[pb.TranscriptLiveRequest], context: Any
    ) -> AsyncIterator[pb.TranscriptLiveResponse]:
        async for _ in request_iterator:
            assert not self.closed, "a call after close"
            yield pb.TranscriptLiveResponse(delta=self.prefix)
