"""The conformance check: call each RPC of a backend that needs a model, and judge the answers."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc.aio import AioRpcError

from grpcerrors import (
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
    Evidence,
    classify,
)
from grpcerrors.cli import _reflection, _rpcs
from grpcerrors.cli._connection import CommandError, Server, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpcerrors import Verdict

# Concurrent calls: few enough for a server that limits them, enough for one that hangs in each.
_AT_ONCE = 4
# A stream with this many messages has answered, whatever follows.
_MESSAGES = 100


class Target(NamedTuple):
    """What to check.

    Attributes:
        server: the server.
        service: its full name.
        methods: the RPCs to call; empty to find them.
        every: whether to call every RPC of the service except LocalAI's control plane.
    """

    server: Server
    service: str
    methods: Sequence[str] = ()
    every: bool = False


_ROUTER = "fleet.v1.Fleet"
_OF_A_ROUTER = ("grpcerrors", "NO_MODEL_KEY")


class Finding(str, Enum):
    """What an RPC's answer is worth to a router that holds a stale row."""

    TYPED = "typed"
    TEXT_ONLY = "text only"
    CODE_ONLY = "code only"
    INVISIBLE = "invisible"
    WRONG = "wrong"
    NOT_IMPLEMENTED = "not implemented"
    TIMED_OUT = "timed out"


_BY_EVIDENCE: dict[Evidence | None, Finding] = {
    Evidence.DETAILS: Finding.TYPED,
    Evidence.TRAILER: Finding.TYPED,
    Evidence.TEXT: Finding.TEXT_ONLY,
    Evidence.CODE: Finding.CODE_ONLY,
}
_UNSUPPORTED = (LIVE_TRANSCRIPTION_UNSUPPORTED, STREAM_TRANSCRIPTION_UNSUPPORTED)


class Answer(NamedTuple):
    """The answer of one RPC.

    Attributes:
        rpc: its name.
        finding: what the answer is worth.
        code: the status code; None if it was still streaming.
        message: the status message, or a remark in its place.
        messages: how many messages came before the status.
        condition: the reason of the condition that the error means, if any.
        evidence: the rung that decided, if any.
        why: why the answer is wrong, if the finding alone does not say so.
    """

    rpc: str
    finding: Finding
    code: grpc.StatusCode | None
    message: str
    messages: int
    condition: str | None = None
    evidence: str | None = None
    why: str = ""


class Report(NamedTuple):
    """The answers of all RPCs.

    Attributes:
        source: where the list of RPCs came from.
        answers: one for each RPC that was called.
        uncalled: RPCs that were not called, because it is unknown whether they need a model.
        loaded: whether the backend's Status reports a loaded model.
    """

    source: str
    answers: list[Answer]
    uncalled: list[str]
    loaded: bool

    @property
    def implemented(self) -> list[Answer]:
        """The answers of the RPCs that the backend implements."""
        return [one for one in self.answers if one.finding is not Finding.NOT_IMPLEMENTED]

    @property
    def conforming(self) -> bool:
        """Whether there is an implemented RPC, and each one is typed."""
        found = self.implemented
        return bool(found) and all(one.finding is Finding.TYPED for one in found)


class _Plan(NamedTuple):
    """Which RPCs to call, from which list, and which to leave alone."""

    source: str
    rpcs: list[str]
    uncalled: list[str]


async def check(target: Target) -> Report:
    """Call the RPCs of the target that need a model, each with an empty message.

    RPCs that could change something are called only when the target names them.

    Raises:
        CommandError: the server cannot be reached or is a router, it does not offer the
            service, it is unknown which of its RPCs need a model, or a model is loaded.
    """
    async with connect(target.server) as channel:
        plan = await _plan(channel, target)
        loaded = await _is_loaded(channel, target)
        if loaded and not target.methods:
            raise CommandError(
                f"a model is loaded at {target.server.address}, according to its Status: restart"
                " the backend or Free the model, and check again"
            )
        slots = asyncio.Semaphore(_AT_ONCE)

        async def probe(rpc: str) -> Answer:
            async with slots:
                return await _probe(channel, target, rpc)

        answers = await asyncio.gather(*map(probe, plan.rpcs))
    return Report(plan.source, answers, plan.uncalled, loaded)


async def _plan(channel: Any, target: Target) -> _Plan:
    if target.methods:
        return _Plan("command line", list(dict.fromkeys(target.methods)), [])
    offer = await _reflection.ask(channel, target.server, target.service)
    if offer and _ROUTER in offer.services:
        raise CommandError(_router(target))
    methods = offer and offer.methods(target.service)
    if offer and methods is None:
        raise CommandError(
            f"{target.server.address} does not offer {target.service}; its reflection lists"
            f" {', '.join(offer.services)}: choose one with --service, or name RPCs with --method"
        )
    known = target.service == _rpcs.SERVICE
    if methods is None:
        if known:
            return _Plan("built-in list", sorted(_rpcs.INFERENCE), [])
        raise CommandError(
            f"the RPCs of {target.service} are unknown, because {target.server.address} has no"
            " server reflection: name those that need a model with --method"
        )
    offered = sorted(set(methods) - _rpcs.CONTROL_PLANE)
    if target.every:
        return _Plan("server reflection", offered, [])
    if not known:
        raise CommandError(
            f"it is unknown which RPCs of {target.service} need a model, and some may change"
            f" something: name those that need one with --method, or call all with --all. It"
            f" offers {', '.join(sorted(methods)) or 'none'}"
        )
    uncalled = [name for name in offered if name not in _rpcs.INFERENCE]
    return _Plan("server reflection", sorted(set(offered) - set(uncalled)), uncalled)


def _router(target: Target) -> str:
    return (
        f"{target.server.address} is a router, which loads models by itself: check the nodes behind"
        " it, which grpcerrors-router status lists"
    )


async def _is_loaded(channel: Any, target: Target) -> bool:
    """Ask the backend's Status; if it does not answer, assume that no model is loaded."""
    if target.service != _rpcs.SERVICE:
        return False
    status = channel.unary_unary(f"/{_rpcs.SERVICE}/Status")
    try:
        answer = await status(
            b"", timeout=target.server.timeout, metadata=tuple(target.server.metadata)
        )
    except AioRpcError as error:
        info = classify(error).info
        if info and (info.domain, info.reason) == _OF_A_ROUTER:
            raise CommandError(_router(target)) from None
        return False
    return _rpcs.is_loaded(answer)


async def _probe(channel: Any, target: Target, rpc: str) -> Answer:
    """Call one RPC with an empty message: empty bytes are a valid proto3 message of any type.

    One request and a stream of responses fits all four shapes, which look alike on the wire. A
    stream of requests does not: an aio client that is still writing when the answer comes reports
    INTERNAL instead of the answer.
    """
    call = channel.unary_stream(f"/{target.service}/{rpc}")(
        b"", timeout=target.server.timeout, metadata=tuple(target.server.metadata)
    )
    messages, said = 0, None
    try:
        async for message in call:
            messages += 1
            said = _rpcs.refusal_inside(target.service, rpc, message)
            if messages == _MESSAGES:
                call.cancel()
                text = f"still streaming after {messages} messages"
                return Answer(rpc, Finding.INVISIBLE, None, text, messages)
    except AioRpcError as error:
        return _judge(rpc, error, messages)
    why = "" if said is None else "it answers OK with success=false inside, where no router looks"
    return Answer(rpc, Finding.INVISIBLE, grpc.StatusCode.OK, said or "", messages, why=why)


def _judge(rpc: str, error: AioRpcError, messages: int) -> Answer:
    code, message, verdict = error.code(), error.details() or "", classify(error)
    condition, evidence = verdict.condition, verdict.evidence
    why = ""
    if condition == MODEL_NOT_LOADED:
        finding = _BY_EVIDENCE[evidence]
        if finding is Finding.TYPED and code is not MODEL_NOT_LOADED.code:
            finding = Finding.WRONG
            why = f"the right details under {code.name} instead of {MODEL_NOT_LOADED.code.name}"
    elif code is grpc.StatusCode.UNIMPLEMENTED or condition in _UNSUPPORTED:
        finding = Finding.NOT_IMPLEMENTED
    elif evidence is not None:
        finding = Finding.WRONG
        why = _said_instead(verdict)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not messages:
        finding = Finding.TIMED_OUT
    else:
        finding = Finding.INVISIBLE
    reason = condition.reason if condition else None
    return Answer(rpc, finding, code, message, messages, reason, evidence and evidence.value, why)


def _said_instead(verdict: Verdict) -> str:
    if verdict.condition is None:
        reason = verdict.info.reason if verdict.info else ""
        return f"its details say {reason}, which is not a condition of the contract"
    how = "its details say" if verdict.typed else "its words mean"
    return f"{how} {verdict.condition.reason} instead of {MODEL_NOT_LOADED.reason}"
