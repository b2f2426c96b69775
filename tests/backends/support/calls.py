"""One call for each RPC shape of the samples and of echo, and the expected answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import MODEL_NOT_LOADED, Evidence, classify
from grpcerrors_protocol import backend_pb2 as pb

from .hosting import PATIENCE, HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable


def _live(stub: Any, **options: Any) -> Any:
    config = pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(sample_rate=16_000))
    return list(stub.AudioTranscriptionLive(iter([config]), **options))


CALLS: dict[str, Callable[..., Any]] = {
    "Predict": lambda stub, **o: stub.Predict(pb.PredictOptions(Prompt="hi"), **o),
    "PredictStream": lambda stub, **o: list(
        stub.PredictStream(pb.PredictOptions(Prompt="hi"), **o)
    ),
    "Embedding": lambda stub, **o: stub.Embedding(pb.PredictOptions(Prompt="hi"), **o),
    "AudioTranscriptionLive": _live,
}


def fails_typed(call: Callable[[], Any], model: str | None = None) -> None:
    """Expect *call* to get MODEL_NOT_LOADED with typed details."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    verdict = classify(caught.value)
    assert verdict.condition is MODEL_NOT_LOADED, caught.value
    assert verdict.evidence is Evidence.DETAILS
    assert not verdict.started
    if model is not None:
        assert verdict.model == model


def every_call_is_typed(process: HostProcess, model: str = "") -> None:
    """Expect the typed error from every RPC, with and without a model name."""
    metadata = [("x-model-id", model)] if model else None
    for call in CALLS.values():
        fails_typed(partial(call, process.stub, metadata=metadata, timeout=PATIENCE))


def every_call_works(process: HostProcess, model: str = "") -> None:
    """Expect an answer from every RPC."""
    metadata = [("x-model-id", model)] if model else None
    for call in CALLS.values():
        assert call(process.stub, metadata=metadata, timeout=PATIENCE)
