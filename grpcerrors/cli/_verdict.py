"""What an error is worth to a router, and to a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from grpcerrors import (
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_LOADING,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
    Evidence,
    Verdict,
    classify,
)
from grpcerrors._wire import UNEXECUTED_KEY
from grpcerrors.cli._findings import Answer, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpc.aio import AioRpcError

    from grpcerrors import Condition

_BY_EVIDENCE = {
    Evidence.DETAILS: Finding.TYPED,
    Evidence.TRAILER: Finding.TYPED,
    Evidence.TEXT: Finding.TEXT_ONLY,
    Evidence.CODE: Finding.CODE_ONLY,
}
# What a backend without a model may say: while a load is under way, that it is.
_EXPECTED = (MODEL_NOT_LOADED, MODEL_LOADING)
_UNSUPPORTED = (LIVE_TRANSCRIPTION_UNSUPPORTED, STREAM_TRANSCRIPTION_UNSUPPORTED)


def judge(rpc: str, error: AioRpcError, messages: int, *, headers_first: bool) -> Answer:
    """Judge the error of an RPC that needs a model, while none is loaded.

    Args:
        rpc: its name.
        error: the error.
        messages: how many messages came before it.
        headers_first: whether headers came before it in a frame of their own.
    """
    code, verdict = error.code(), classify(error)
    condition, evidence = verdict.condition, verdict.evidence
    resendable, why = None, ""
    if condition in _EXPECTED and condition and evidence:
        finding = _BY_EVIDENCE[evidence]
        if finding is Finding.TYPED:
            if why := _wrong(error, verdict, condition):
                finding = Finding.WRONG
            else:
                obstacles = list(_obstacles(error, verdict, messages, headers_first=headers_first))
                resendable = not obstacles
                why = "; ".join([*obstacles, *_omissions(verdict)])
    elif code is grpc.StatusCode.UNIMPLEMENTED or condition in _UNSUPPORTED:
        finding = Finding.NOT_IMPLEMENTED
        if evidence is Evidence.CODE:  # a bare UNIMPLEMENTED says no more than that
            verdict = Verdict()
    elif evidence is not None:
        finding = Finding.WRONG
        why = _said_instead(verdict)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not messages:
        finding = Finding.TIMED_OUT
    else:
        finding = Finding.INVISIBLE
    answer = _answer(rpc, finding, error, verdict)
    return answer._replace(messages=messages, resendable=resendable, why=why)


def refusal(rpc: str, error: AioRpcError) -> Answer | None:
    """Judge the error of an RPC that needs no model; None unless it says that one is missing."""
    verdict = classify(error)
    if verdict.condition not in _EXPECTED:
        return None
    why = "it must answer without a model, or nobody can load one or ask whether one is loaded"
    return _answer(rpc, Finding.WRONG, error, verdict)._replace(why=why)


def _answer(rpc: str, finding: Finding, error: AioRpcError, verdict: Verdict) -> Answer:
    reason = verdict.condition.reason if verdict.condition else None
    evidence = verdict.evidence and verdict.evidence.value
    return Answer(rpc, finding, error.code(), error.details() or "", 0, reason, evidence)


def _plain(error: AioRpcError) -> list[str]:
    return [str(value) for key, value in error.trailing_metadata() if key == UNEXECUTED_KEY]


def _wrong(error: AioRpcError, verdict: Verdict, condition: Condition) -> str:
    """Return what contradicts the condition; "" for nothing."""
    plain = _plain(error)
    if error.code() is not condition.code:
        return f"the right details under {error.code().name} instead of {condition.code.name}"
    if plain and verdict.started:
        return (
            f"it says that the handler had begun, and has the trailer {UNEXECUTED_KEY}, so a proxy"
            " may run the request twice"
        )
    if others := set(plain) - {condition.reason}:
        said = " and ".join(sorted(others))
        return f"its details say {condition.reason}, its trailer {UNEXECUTED_KEY} says {said}"
    return ""


def _obstacles(
    error: AioRpcError, verdict: Verdict, messages: int, *, headers_first: bool
) -> Iterator[str]:
    """Yield why a proxy that reads no details cannot send the call again."""
    if verdict.started:
        yield "it says that the handler had begun, so it cannot be sent again"
    elif not _plain(error):
        yield f"it lacks the trailer {UNEXECUTED_KEY}, so proxies cannot send the call again"
    if messages or headers_first:
        before = f"{messages} messages" if messages else "headers"
        yield f"{before} went out before the error, so proxies cannot send the call again"


def _omissions(verdict: Verdict) -> Iterator[str]:
    """Yield what a typed error leaves out."""
    if verdict.evidence is Evidence.TRAILER:
        yield "it has no details"
    elif verdict.condition == MODEL_LOADING and verdict.retry_after is None:
        yield "it has no RetryInfo, so a router has to guess when to try again"


def _said_instead(verdict: Verdict) -> str:
    if verdict.condition is None:
        reason = verdict.info.reason if verdict.info else ""
        return f"its details say {reason}, which is not a condition of the contract"
    how = "its details say" if verdict.typed else "its words mean"
    return f"{how} {verdict.condition.reason} instead of {MODEL_NOT_LOADED.reason}"
