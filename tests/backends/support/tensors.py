"""A backend with tensors, in a sync and an aio version."""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from grpcerrors_backends.model import BadInput, LoadError, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_backends.tensors import Tensor, TensorSpec
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Sample(Model):
    name = "tensors"
    inputs = (TensorSpec("text", "BYTES", (-1,)), TensorSpec("scale", "FP32", (2,)))
    outputs = (TensorSpec("said", "BYTES", (-1,)), TensorSpec("size", "FP32", (-1, 2)))

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix.encode()

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        settings = Settings(options)
        suffix, failure = settings.text("suffix"), settings.text("fail")
        assert settings.choice("flag", "true", ["true"])
        settings.number("number", 3, low=3, high=3)
        settings.choice("file", "x", ["x"])
        gate = settings.text("gate")
        settings.done()
        if gate:  # the load lasts until someone removes the file
            Path(gate).touch()
            while Path(gate).exists():
                time.sleep(0.01)
        if failure:
            raise LoadError(failure)
        return cls(suffix)

    def _answer(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        texts = inputs["text"].data
        if b"bad" in texts:
            raise BadInput("say something else")
        sizes = array("f", [len(text) * each for text in texts for each in inputs["scale"].data])
        if b"short" in texts:
            sizes.pop()
        return {
            "said": Tensor(inputs["text"].shape, [text.upper() + self.suffix for text in texts]),
            "size": Tensor((len(texts), 2), sizes),
        }


class Sync(_Sample):
    """The sync version."""

    def infer(self, inputs: Mapping[str, Tensor], context: Any) -> Mapping[str, Tensor]:
        return self._answer(inputs)

    def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        return pb.Reply(message=request.Prompt.encode() + self.suffix)


class Aio(_Sample):
    """The aio version."""

    surface = "aio"

    async def infer(self, inputs: Mapping[str, Tensor], context: Any) -> Mapping[str, Tensor]:
        return self._answer(inputs)

    async def Predict(self, request: pb.PredictOptions, context: Any) -> pb.Reply:
        return pb.Reply(message=request.Prompt.encode() + self.suffix)
