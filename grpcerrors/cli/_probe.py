"""The conformance check: call each inference RPC of a backend without a model, and judge."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from grpc.aio import AioRpcError

from grpcerrors._builtin import (
    LIVE_TRANSCRIPTION_UNSUPPORTED,
    MODEL_NOT_LOADED,
    STREAM_TRANSCRIPTION_UNSUPPORTED,
)
from grpcerrors._detect import Evidence, classify
from grpcerrors.cli import _reflection
from grpcerrors.cli._rpcs import INFERENCE, needs_model

if TYPE_CHECKING:
    from collections.abc import Sequence

# At once: few enough for a server that limits its calls, enough for one that hangs in each.
_AT_ONCE = 4
# Past this many messages a stream has answered, whatever comes later.
_MESSAGES = 100


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
    Evidence.TEXT: Finding.TEXT_ONLY,
    Evidence.CODE: Finding.CODE_ONLY,
}
_UNSUPPORTED = (LIVE_TRANSCRIPTION_UNSUPPORTED, STREAM_TRANSCRIPTION_UNSUPPORTED)


class Answer(NamedTuple):
    """How one RPC answered.

    Attributes:
        rpc: its name.
        finding: what the answer is worth.
        code: the status code; None when it was still streaming.
        message: the status message, or what else there is to say.
        messages: how many messages came before the status.
        condition: the reason of the condition that the error means, if any.
        evidence: the rung that decided, if any.
    """

    rpc: str
    finding: Finding
    code: grpc.StatusCode | None
    message: str
    messages: int
    condition: str | None = None
    evidence: str | None = None


class Report(NamedTuple):
    """The answers of all RPCs, and where the list of RPCs came from."""

    source: str
    answers: list[Answer]

    @property
    def implemented(self) -> list[Answer]:
        """The answers of the RPCs that the backend implements."""
        return [one for one in self.answers if one.finding is not Finding.NOT_IMPLEMENTED]

    @property
    def conforming(self) -> bool:
        """Whether there is an implemented RPC, and each one is typed."""
        found = self.implemented
        return bool(found) and all(one.finding is Finding.TYPED for one in found)


class Target(NamedTuple):
    """What to check, and how.

    Attributes:
        address: HOST:PORT.
        service: its full name.
        methods: the RPCs to call; none to find them.
        metadata: headers to send with each call.
        authority: certificates in PEM form to trust over TLS; None for plain text.
        timeout: seconds for connecting, and for each call.
    """

    address: str
    service: str
    methods: Sequence[str] = ()
    metadata: Sequence[tuple[str, str | bytes]] = ()
    authority: bytes | None = None
    timeout: float = 5.0


class CannotCheckError(Exception):
    """There is nothing to check: no server, or not that service. The text says what to do."""


async def check(target: Target) -> Report:
    """Call each inference RPC of the target with an empty message.

    Raises:
        CannotCheckError: the server cannot be reached, or does not offer the service.
    """
    async with _channel(target) as channel:
        await _connect(channel, target)
        source, rpcs = await _find_rpcs(channel, target)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def probe(rpc: str) -> Answer:
            async with slots:
                return await _probe(channel, target, rpc)

        return Report(source, await asyncio.gather(*map(probe, rpcs)))


def _channel(target: Target) -> Any:
    # With a scheme of its own, so that a host is never taken for one ("unix:50051").
    address = f"dns:///{target.address}"
    if target.authority is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(target.authority))


async def _connect(channel: Any, target: Target) -> None:
    try:
        await asyncio.wait_for(_settled(channel), target.timeout)
    except asyncio.TimeoutError:
        raise CannotCheckError(
            f"{target.address} does not speak gRPC within {target.timeout:g} s: is it the port of"
            " the backend, and does the backend's own log say that it serves?"
        ) from None
    if channel.get_state() is not grpc.ChannelConnectivity.READY:
        # A call that fails at once tells why.
        raise CannotCheckError(_unreachable(target, await _probe(channel, target, "Health")))


async def _settled(channel: Any) -> None:
    """Wait until the channel has connected, or has failed once on every address."""
    state = channel.get_state(try_to_connect=True)
    while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def _unreachable(target: Target, answer: Answer) -> str:
    if target.authority is None:
        hint = "start the backend first; if it serves TLS, name its CA with --tls-ca"
    else:
        hint = "if it serves plain text, leave --tls-ca out; else its certificate must be for this"
        hint += " host and signed by that CA"
    return f"cannot reach {target.address}: {answer.message} ({hint})"


async def _find_rpcs(channel: Any, target: Target) -> tuple[str, list[str]]:
    if target.methods:
        return "command line", list(dict.fromkeys(target.methods))
    offer = await _reflection.ask(channel, target.service, target.metadata, target.timeout)
    if offer is None:
        return "built-in list", sorted(INFERENCE)
    if offer.methods is None:
        raise CannotCheckError(
            f"{target.address} does not offer {target.service}, by its reflection it offers"
            f" {', '.join(offer.services)}: choose with --service, or name RPCs with --method"
        )
    return "server reflection", sorted(filter(needs_model, offer.methods))


async def _probe(channel: Any, target: Target, rpc: str) -> Answer:
    """Call one RPC with an empty message: empty bytes are a valid proto3 message of any type.

    One request and a stream of responses serves all four shapes, which are the same on the wire.
    Not a stream both ways: an aio client that is still writing when the answer comes reports
    INTERNAL instead of the answer.
    """
    call = channel.unary_stream(f"/{target.service}/{rpc}")(
        b"", timeout=target.timeout, metadata=tuple(target.metadata)
    )
    messages = 0
    try:
        async for _ in call:
            messages += 1
            if messages == _MESSAGES:
                call.cancel()
                text = f"still streaming after {messages} messages"
                return Answer(rpc, Finding.INVISIBLE, None, text, messages)
    except AioRpcError as error:
        return _judge(rpc, error, messages)
    return Answer(rpc, Finding.INVISIBLE, grpc.StatusCode.OK, "", messages)


def _judge(rpc: str, error: AioRpcError, messages: int) -> Answer:
    code, message, verdict = error.code(), error.details() or "", classify(error)
    condition, evidence = verdict.condition, verdict.evidence
    if condition == MODEL_NOT_LOADED:
        finding = _BY_EVIDENCE[evidence]
        if finding is Finding.TYPED and code is not MODEL_NOT_LOADED.code:
            finding = Finding.WRONG
    elif code is grpc.StatusCode.UNIMPLEMENTED or condition in _UNSUPPORTED:
        finding = Finding.NOT_IMPLEMENTED
    elif evidence is not None:
        finding = Finding.WRONG
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not messages:
        finding = Finding.TIMED_OUT
    else:
        finding = Finding.INVISIBLE
    reason = condition.reason if condition else None
    return Answer(rpc, finding, code, message, messages, reason, evidence and evidence.value)
