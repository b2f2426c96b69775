"""Conversion of PredictOptions to the JSON of llama.cpp's server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grpcerrors_backends.model import BadInput, TooLarge

if TYPE_CHECKING:
    from grpcerrors_protocol import backend_pb2 as pb

_DEFAULT_TOKENS: Final = 256
_ROLES: Final = ("system", "user", "assistant", "tool")


def body(request: pb.PredictOptions, *, most: int) -> tuple[dict[str, Any], bool]:
    """Return the JSON of *request*, and whether it uses the chat template.

    Raises BadInput for a request without a prompt or with something other than text, TooLarge for
    more than *most* tokens.
    """
    if request.Images or request.Videos or request.Audios:
        message = "this model reads text only: leave Images, Videos and Audios empty"
        raise BadInput(message)
    if request.Tokens < 0 or request.Tokens > most:
        message = f"Tokens is {request.Tokens}: expected 0 to {most}; 0 means {_DEFAULT_TOKENS}"
        raise (BadInput if request.Tokens < 0 else TooLarge)(message)
    template = bool(request.UseTokenizerTemplate and request.Messages)
    if not template and not request.Prompt:
        message = "no prompt: set Prompt, or Messages with UseTokenizerTemplate"
        raise BadInput(message)
    tokens = request.Tokens or min(_DEFAULT_TOKENS, most)
    asked = {**_sampling(request), "stream": True, "stream_options": {"include_usage": True}}
    if template:
        return {**asked, "messages": _messages(request), "max_tokens": tokens}, True
    return {**asked, "prompt": request.Prompt, "n_predict": tokens}, False


def _messages(request: pb.PredictOptions) -> list[dict[str, str]]:
    for message in request.Messages:
        if message.role not in _ROLES:
            text = f"Messages: role {message.role!r} is not one of {', '.join(_ROLES)}"
            raise BadInput(text)
    return [{"role": message.role, "content": message.content} for message in request.Messages]


def _sampling(request: pb.PredictOptions) -> dict[str, Any]:
    told = {
        "seed": request.Seed,
        "top_k": request.TopK,
        "top_p": request.TopP,
        "min_p": request.MinP,
        "typical_p": request.TypicalP,
        "repeat_penalty": request.Penalty,
        "repeat_last_n": request.Repeat,
        "frequency_penalty": request.FrequencyPenalty,
        "presence_penalty": request.PresencePenalty,
        "mirostat": request.Mirostat,
        "mirostat_tau": request.MirostatTAU,
        "mirostat_eta": request.MirostatETA,
        "n_keep": request.NKeep,
        "ignore_eos": request.IgnoreEOS,
        "grammar": request.Grammar,
        "stop": list(request.StopPrompts),
    }
    return {key: value for key, value in told.items() if value} | {
        "temperature": request.Temperature
    }
