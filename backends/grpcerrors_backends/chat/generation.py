"""A running generation: llama.cpp delivers tokens by callback, the caller iterates over them."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from grpcerrors_backends.model import BadInput, TooLarge
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Generation:
    """Runs a request in a thread and yields its replies. Leaving the context stops it.

    llama.cpp checks after every token whether to stop, so `cancel` takes effect within one token.
    """

    def __init__(self, run: Callable[..., object], asked: dict[str, Any]) -> None:
        self._run = run
        self._asked = asked
        self._cancelled = threading.Event()
        self._chunks: SimpleQueue[dict[str, Any] | BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="generation", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        # The model must not be closed while llama.cpp still runs in it.
        self._thread.join()

    def cancel(self) -> None:
        """Stop after the current token. Can be called from any thread at any time."""
        self._cancelled.set()

    def _work(self) -> None:
        try:
            self._run(self._asked, self._on_chunk)
        except BaseException as error:  # noqa: BLE001 - raised again by the iterator
            self._chunks.put(error)
        else:
            self._chunks.put(None)

    def _on_chunk(self, chunk: dict[str, Any]) -> bool:
        self._chunks.put(chunk)
        return self._cancelled.is_set()

    def __iter__(self) -> Iterator[pb.Reply]:
        tokens = 0
        while (chunk := self._chunks.get()) is not None:
            if isinstance(chunk, ValueError):
                message = f"llama.cpp refused this request: {chunk}"
                raise BadInput(message) from chunk
            if isinstance(chunk, BaseException):
                raise chunk
            if "error" in chunk:
                raise _refusal(chunk["error"])
            text = _text(chunk)
            if text:
                tokens += 1
                yield pb.Reply(message=text.encode(), tokens=tokens)
            if "timings" in chunk:
                yield _summary(chunk)


def _text(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices") or [{}]
    choice = choices[0]
    return choice.get("text") or choice.get("delta", {}).get("content") or ""


def _summary(chunk: dict[str, Any]) -> pb.Reply:
    timings, usage = chunk["timings"], chunk.get("usage") or {}
    return pb.Reply(
        tokens=usage.get("completion_tokens", timings["predicted_n"]),
        prompt_tokens=usage.get("prompt_tokens", timings["prompt_n"]),
        timing_prompt_processing=timings["prompt_ms"],
        timing_token_generation=timings["predicted_ms"],
    )


def _refusal(error: dict[str, Any]) -> Exception:
    if error.get("type") == "exceed_context_size_error":
        message = (
            f"the prompt has {error['n_prompt_tokens']} tokens; the context holds {error['n_ctx']}"
        )
        return TooLarge(message)
    message = f"llama.cpp refused this request: {error.get('message')}"
    return BadInput(message) if error.get("code") == 400 else RuntimeError(message)  # noqa: PLR2004 - HTTP
