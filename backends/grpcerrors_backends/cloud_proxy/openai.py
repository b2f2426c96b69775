"""Conversion between PredictOptions and the chat completions of an OpenAI-compatible API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grpcerrors_backends.model import BadInput
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


class ProtocolError(Exception):
    """The upstream's response is not a chat completion."""


def request_body(request: pb.PredictOptions, model: str, *, stream: bool) -> bytes:
    """Return the JSON of *request* for *model*. Fields at zero are left to the upstream.

    Raises BadInput for a request without a prompt or with tools that are not JSON.
    """
    messages = [_message(message) for message in request.Messages]
    if not messages and request.Prompt:
        messages = [{"role": "user", "content": request.Prompt}]
    if not messages:
        text = "no prompt: set Messages or Prompt"
        raise BadInput(text)
    told = {
        "model": model,
        "max_tokens": request.Tokens,
        "temperature": request.Temperature,
        "top_p": request.TopP,
        "seed": request.Seed,
        "frequency_penalty": request.FrequencyPenalty,
        "presence_penalty": request.PresencePenalty,
        "stop": list(request.StopPrompts),
        "tools": _json("Tools", request.Tools),
        "tool_choice": _tool_choice(request.ToolChoice),
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
    }
    wanted = {key: value for key, value in told.items() if value}
    return json.dumps({**wanted, "messages": messages}).encode()


def _message(message: pb.Message) -> dict[str, Any]:
    fields = {
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "tool_calls": _json("Messages.tool_calls", message.tool_calls),
    }
    told = {key: value for key, value in fields.items() if value}
    return {"role": message.role or "user", "content": message.content, **told}


def _json(field: str, text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        message = f"{field} must be JSON: {error}"
        raise BadInput(message) from error


def _tool_choice(text: str) -> Any:
    return _json("ToolChoice", text) if text[:1] in "{[" else text


def reply(answer: bytes) -> pb.Reply:
    """Return the reply in a whole completion. Raises ProtocolError."""
    return _reply(answer, "message")


async def replies(lines: AsyncIterator[str]) -> AsyncGenerator[pb.Reply, None]:
    """Yield the replies in a streamed completion (server-sent events). Raises ProtocolError."""
    async for line in lines:
        field, _, data = line.partition(":")
        if field != "data":
            continue
        if data.strip() == "[DONE]":
            return
        piece = _reply(data.encode(), "delta")
        if piece != pb.Reply():
            yield piece


def _reply(data: bytes, part: str) -> pb.Reply:
    try:
        answer = json.loads(data)
        if "error" in answer:
            text = "the upstream ended its answer with an error"
            raise ProtocolError(text)
        choices, usage = answer.get("choices") or [], answer.get("usage") or {}
        said = choices[0].get(part) or {} if choices else {}
        delta = pb.ChatDelta(
            content=said.get("content") or "",
            reasoning_content=said.get("reasoning_content") or "",
            tool_calls=[
                _tool_call(call, index) for index, call in enumerate(said.get("tool_calls") or [])
            ],
        )
        return pb.Reply(
            message=delta.content.encode(),
            tokens=usage.get("completion_tokens", 0),
            prompt_tokens=usage.get("prompt_tokens", 0),
            chat_deltas=[delta] if delta != pb.ChatDelta() else (),
        )
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        text = f"the upstream's response is not a chat completion ({error})"
        raise ProtocolError(text[:200]) from error


def _tool_call(call: dict[str, Any], index: int) -> pb.ToolCallDelta:
    function = call.get("function") or {}
    return pb.ToolCallDelta(
        index=call.get("index", index),
        id=call.get("id") or "",
        name=function.get("name") or "",
        arguments=function.get("arguments") or "",
    )
