"""The public names as a type checker sees them. Not run: `make check` checks it, twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from typing_extensions import assert_type

import grpcerrors
import grpcerrors.aio
from grpcerrors import Condition, ContractError, Evidence, Verdict

if TYPE_CHECKING:
    from grpcerrors._guard.abort import AioContext, SyncContext

CONDITION = Condition(
    reason="TOKENIZER_GONE",
    domain="example.com",
    code=grpc.StatusCode.INTERNAL,
    message="{backend}: tokenizer gone",
    dialects=(grpcerrors.Dialect("x", frozenset({None}), "gone", ("gone",), "example.com"),),
)


def builds() -> None:
    assert_type(grpcerrors.model_not_loaded("x"), ContractError)
    assert_type(grpcerrors.model_not_loaded("x", model="m", started=True), ContractError)
    assert_type(grpcerrors.model_mismatch("x", loaded="a", requested="b"), ContractError)
    assert_type(grpcerrors.model_loading("x", model="m", retry_after=1.5), ContractError)
    assert_type(grpcerrors.live_transcription_unsupported("x", "y"), ContractError)
    assert_type(grpcerrors.stream_transcription_unsupported("x", "y"), ContractError)
    error = ContractError(CONDITION, backend="x", node=None)
    assert_type(error.condition, Condition)
    assert_type(error.details, str)
    assert_type(error.trailing_metadata, tuple[tuple[str, str | bytes], ...])
    assert_type(error.fields, Mapping[str, str])
    assert_type(error.started, bool)
    assert_type(error.retry_after, float | None)


def detects(err: object) -> None:
    assert_type(grpcerrors.is_model_not_loaded(err), bool)
    assert_type(grpcerrors.is_model_mismatch(None), bool)
    assert_type(grpcerrors.is_model_loading(err), bool)
    assert_type(grpcerrors.is_live_transcription_unsupported(7), bool)
    assert_type(grpcerrors.is_stream_transcription_unsupported(err), bool)
    assert_type(grpcerrors.held_model(err), str | None)
    assert_type(grpcerrors.__version__, str)
    assert_type(grpcerrors.matches(err, CONDITION), bool)
    assert_type(grpcerrors.explain(err), str)
    verdict = grpcerrors.classify(err, grpcerrors.Catalogue(*grpcerrors.CATALOGUE, CONDITION))
    assert_type(verdict, Verdict)
    assert_type(verdict.condition, Condition | None)
    assert_type(verdict.evidence, Evidence | None)
    assert_type(verdict.backend, str)
    assert_type(verdict.model, str)
    assert_type(verdict.fields, Mapping[str, str])
    assert_type(verdict.started, bool)
    assert_type(verdict.unexecuted, bool)
    assert_type(verdict.typed, bool)
    assert_type(verdict.retry_after, float | None)


def sends_sync(context: SyncContext) -> NoReturn:
    grpcerrors.abort(context, grpcerrors.model_not_loaded("x"))


async def sends_aio(context: AioContext) -> None:
    sending = grpcerrors.abort(context, grpcerrors.model_not_loaded("x"))
    await assert_type(sending, Coroutine[Any, Any, NoReturn])


def describes() -> None:
    speech = grpcerrors.Protocol(
        "acme.Speech",
        load={"Open": "voice.name"},
        inference={"Say": "voice.name"},
        control={"Ping"},
        several_models=True,
    )
    assert_type(dataclasses.replace(speech, service="acme.Song"), grpcerrors.Protocol)
    assert_type(grpcerrors.LOCALAI.load, Mapping[str, str])


def guards() -> None:
    sync = grpcerrors.ModelGuard("x", holds=lambda identity: identity == "m", drain=1.5)
    aio = grpcerrors.aio.ModelGuard("x", protocol=grpcerrors.KSERVE, exempt={"ModelMetadata"})
    sync.unloaded()
    aio.loaded("m")
    aio.unloaded("m")
    grpc.server(ThreadPoolExecutor(1), interceptors=[sync])
    grpc.aio.server(interceptors=[aio])
