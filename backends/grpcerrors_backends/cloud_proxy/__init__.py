"""Proxy to any OpenAI-compatible HTTP API, on httpx (BSD). The upstream provides the model.

RPCs: Predict and PredictStream are translated to chat completions. Forward relays raw HTTP and
streams in both directions. When the caller cancels, the proxy closes the connection to the
upstream, which stops the generation there.

Load options, in ModelOptions.Proxy:
- `upstream_url`: either a full endpoint, such as https://api.example.com/v1/chat/completions, which
  gets all requests, or a host alone, where Forward uses the path of each request and Predict uses
  /v1/chat/completions.
- `api_key_env` or `api_key_file`: environment variable or file with the key, among those that the
  host was given with --secret-env and --secrets. The proxy sends it as a bearer token instead of
  the caller's, and never shows it in logs or errors.
- `upstream_model`: model name to send; by default the name that the model was loaded under.
- `request_timeout_seconds` (120): how long the upstream may send nothing.
- `provider` (`openai`, the only one), `mode` (`passthrough` or `translate`; both allow all RPCs).

Under Predict, HTTP errors of the upstream become status codes: 400 and 422 INVALID_ARGUMENT, 401
and 403 PERMISSION_DENIED, 404 NOT_FOUND, 413 and 429 RESOURCE_EXHAUSTED, 408, 504 and a timeout
DEADLINE_EXCEEDED, other 5xx and a failed connection UNAVAILABLE. Under Forward, an HTTP error is
relayed like any other response.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

import grpc

from grpcerrors_backends.cloud_proxy import openai, passthrough
from grpcerrors_backends.cloud_proxy.upstream import Upstream, UpstreamError
from grpcerrors_backends.model import BadInput, LoadError, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

_CHAT: Final = "/v1/chat/completions"
_HEADERS: Final = [("Content-Type", "application/json"), ("Accept", "*/*")]
_MODES: Final = ("", "passthrough", "translate")


class CloudProxy(Model):
    """One upstream. Any number of calls run concurrently."""

    name = "cloud_proxy"
    surface = "aio"

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Read the address and the key, without calling the upstream. Raises LoadError.

        The package docstring lists the options.
        """
        Settings(options).done()
        proxy = options.Proxy
        if proxy.provider not in ("", "openai") or proxy.mode not in _MODES:
            message = "Proxy: provider must be openai, and mode passthrough or translate"
            raise LoadError(message)
        return cls(Upstream(proxy, cls.secrets), proxy.upstream_model or options.Model)

    def close(self) -> None:
        """Close the connections to the upstream."""
        self._upstream.close()

    async def Predict(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.Reply:
        """Return the upstream's whole answer. Raises BadInput for an invalid request."""
        asked = openai.request_body(request, self._model, stream=False)
        async with self._translated(asked, context) as response:
            return openai.reply(await response.aread())

    async def PredictStream(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Reply]:
        """Yield the upstream's answer as it arrives, with token counts last. Raises BadInput."""
        asked = openai.request_body(request, self._model, stream=True)
        async with (
            self._translated(asked, context) as response,
            aclosing(openai.replies(response.aiter_lines())) as replies,
        ):
            async for reply in replies:
                yield reply

    async def Forward(
        self, requests: AsyncIterator[pb.ForwardRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ForwardReply]:
        """Relay one HTTP request to the upstream and its response to the caller, as they arrive.

        The first request carries path, method and headers, and every request may carry a chunk of
        the body. The first reply carries status and headers, the others carry chunks of the body.
        Raises BadInput for an invalid path, method, header or body.
        """
        first = await anext(aiter(requests), None)
        if first is None:
            message = "the stream was empty: the first request must carry path and method"
            raise BadInput(message)
        method = passthrough.method(first)
        url = passthrough.target(self._upstream.url, first.path)
        headers = passthrough.headers(first, has_key=self._upstream.has_key)
        body = passthrough.body(method, first, requests)
        async with (
            _told_to(context),
            self._upstream.send(method, url, headers, body) as response,
        ):
            yield pb.ForwardReply(
                status=response.status_code, headers=passthrough.reply_headers(response)
            )
            async for piece in response.aiter_raw():
                yield pb.ForwardReply(body_chunk=piece)

    @asynccontextmanager
    async def _translated(
        self, asked: bytes, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[httpx.Response]:
        """Yield the successful response to a chat completion, or abort the call."""
        url = self._upstream.url
        if url.path in ("", "/"):
            url = url.copy_with(path=_CHAT)
        async with (
            _told_to(context),
            self._upstream.send("POST", url, _HEADERS, asked) as response,
        ):
            await self._upstream.check(response)
            yield response


@asynccontextmanager
async def _told_to(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Abort the call with a status code when the upstream fails."""
    try:
        yield
    except UpstreamError as error:
        await context.abort(error.code, f"{CloudProxy.name}: {error}")
    except openai.ProtocolError as error:
        await context.abort(grpc.StatusCode.INTERNAL, f"{CloudProxy.name}: {error}")
