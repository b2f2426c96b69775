"""The conformance check: call each RPC of a backend that needs a model."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import grpc
from grpc.aio import AioRpcError

from grpcerrors import classify
from grpcerrors.cli._connection import MODEL_ID, CommandError, connect
from grpcerrors.cli._findings import Answer, Finding, Report, Target
from grpcerrors.cli._frames import is_trailers_only
from grpcerrors.cli._plan import REFLECTION, Plan, plan, router
from grpcerrors.cli._protocols import error_inside, is_loaded
from grpcerrors.cli._verdict import judge, refusal

# Concurrent calls: few enough for a server that limits them, enough for one that hangs in each.
_AT_ONCE = 4
# A stream with this many messages has answered, whatever follows.
_MESSAGES = 100
# A model that no backend has loaded.
NO_MODEL = "grpcerrors-check-no-such-model"

_OF_A_ROUTER = ("grpcerrors", "NO_MODEL_KEY")


async def check(target: Target) -> list[Report]:
    """Call the RPCs of the target that need a model, and return a report for each service.

    RPCs that could change anything are called only when the target names them.

    Raises:
        CommandError: the server cannot be reached or is a router, it does not offer the service,
            it is unknown which of its RPCs need a model, or the model is loaded.
    """
    async with connect(target.server) as channel:
        return [
            await _Probe(channel, target, planned).report()
            for planned in await plan(channel, target)
        ]


class _Probe:
    """Calls the RPCs of one service."""

    def __init__(self, channel: Any, target: Target, planned: Plan) -> None:
        self._channel = channel
        self._target = target
        self._plan = planned
        self._known = planned.known
        named = self._known is not None and bool(self._known.named)
        self._model = target.model or (NO_MODEL if named else "")
        self._server = target.server
        if self._model and not named:
            self._server = self._server.with_header(MODEL_ID, self._model)
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def report(self) -> Report:
        plan = self._plan
        refusals, loaded = await self._ask_control_plane()
        if loaded and not self._target.methods:
            model = f"the model {self._model}" if self._model else "a model"
            raise CommandError(
                f"{model} is loaded at {self._target.server.address}, as {loaded} says: restart the"
                " backend or unload the model, and check again; or name another with --model"
            )
        answers = await asyncio.gather(*map(self._call_in_turn, plan.rpcs))
        return Report(
            plan.service,
            self._known,
            plan.source,
            [*answers, *(each for each in refusals if each.rpc not in plan.rpcs)],
            plan.uncalled,
            self._model,
            bool(loaded),
        )

    async def _ask_control_plane(self) -> tuple[list[Answer], str]:
        """Return which control-plane RPCs refuse, and which one says that the model is loaded.

        An RPC that fails for another reason, or that is not implemented, says nothing.
        """
        known, refusals, loaded = self._known, [], ""
        if known is None:
            return [], ""
        for rpc in known.asked:
            try:
                answer = await self._channel.unary_unary(self._path(rpc))(
                    self._request(rpc), **self._options
                )
            except AioRpcError as error:
                info = classify(error).info
                if info and (info.domain, info.reason) == _OF_A_ROUTER:
                    raise CommandError(router(self._target)) from None
                if found := refusal(rpc, error):
                    refusals.append(found._replace(again=self._again(rpc)))
            else:
                if rpc == known.loaded and is_loaded(rpc, answer):
                    loaded = rpc
        return refusals, loaded

    async def _call_in_turn(self, rpc: str) -> Answer:
        async with self._slots:
            start = time.monotonic()
            answer = await self._call(rpc)
        return answer._replace(again=self._again(rpc), seconds=time.monotonic() - start)

    async def _call(self, rpc: str) -> Answer:
        """Call one RPC with a message that names no more than the model.

        One request and a stream of responses fits all four shapes, which look alike on the wire. A
        stream of requests does not: an aio client that is still writing when the answer comes
        reports INTERNAL instead of the answer.
        """
        call = self._channel.unary_stream(self._path(rpc))(self._request(rpc), **self._options)
        messages, said = 0, None
        try:
            async for message in call:
                messages += 1
                said = error_inside(self._known, rpc, message)
                if messages == _MESSAGES:
                    call.cancel()
                    text = f"still streaming after {messages} messages"
                    return Answer(rpc, Finding.INVISIBLE, None, text, messages)
        except AioRpcError as error:
            if self._must_answer(rpc) and (refused := refusal(rpc, error)):
                return refused
            verdict = classify(error)
            # It matters only if the call may be sent again otherwise.
            asks = verdict.typed and verdict.unexecuted and not messages
            only = await self._is_trailers_only(rpc) if asks else None
            return judge(rpc, error, messages, headers_first=only is False)
        why = "" if said is None else "it answers OK with an error inside, where no router looks"
        return Answer(rpc, Finding.INVISIBLE, grpc.StatusCode.OK, said or "", messages, why=why)

    def _must_answer(self, rpc: str) -> bool:
        protocol = self._known and self._known.protocol
        return protocol is not None and rpc in {*protocol.control, *protocol.load}

    async def _is_trailers_only(self, rpc: str) -> bool | None:
        return await is_trailers_only(self._server, self._path(rpc), self._request(rpc))

    def _path(self, rpc: str) -> str:
        return f"/{self._plan.service}/{rpc}"

    def _request(self, rpc: str) -> bytes:
        return self._known.request(rpc, self._model) if self._known else b""

    @property
    def _options(self) -> dict[str, Any]:
        return {"timeout": self._server.timeout, "metadata": self._server.metadata}

    def _again(self, rpc: str) -> str:
        """Return a shell command that calls an RPC as the check does."""
        known, plan = self._known, self._plan
        field = known.named.get(rpc) if known else None
        if plan.source == REFLECTION:
            data = ("--data", json.dumps({field: self._model})) if field else ()
            return self._server.command("call", f"{plan.service}/{rpc}", *data)
        words = ["--method", rpc]
        if known:
            words += ["--protocol", known.name]
        if known is None or known.protocol.service != plan.service:
            words += ["--service", plan.service]
        if field and self._target.model:
            words += ["--model", self._target.model]
        return self._server.command("check", *words)
