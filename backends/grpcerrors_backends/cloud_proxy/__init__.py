"""Relays to any OpenAI-compatible HTTP API, with httpx (BSD). The model is the upstream's.

RPCs: Predict and PredictStream (translated to chat completions), Forward (raw HTTP, streamed both
ways). A caller that goes away closes the upstream's connection, which stops it there.
Load options are ModelOptions.Proxy:
- `upstream_url`: a whole endpoint, such as https://api.example.com/v1/chat/completions, which all
  requests go to; or a host alone, where Forward goes to the path of each request and Predict to
  /v1/chat/completions;
- `api_key_env` or `api_key_file`: where the key is; it is sent as a bearer token in place of the
  caller's, and neither logged nor told;
- `upstream_model` (default: the name that the model was loaded under), `request_timeout_seconds`
  (120; how long the upstream may be silent), `provider` (`openai`, the only one), `mode`
  (`passthrough`, `translate`; all RPCs work in either).

Errors of the upstream under Predict: HTTP 400 and 422 become INVALID_ARGUMENT, 401 and 403
PERMISSION_DENIED, 404 NOT_FOUND, 413 and 429 RESOURCE_EXHAUSTED, 408 and 504 and silence
DEADLINE_EXCEEDED, other 5xx and no connection UNAVAILABLE. Under Forward an HTTP error is an answer
like any other.
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
    """One upstream; any number of calls side by side."""

    name = "cloud_proxy"
    surface = "aio"

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream = upstream
        self._model = model

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Read address and key; does not call the upstream. See the package for the options."""
        Settings(options).done()
        proxy = options.Proxy
        if proxy.provider not in ("", "openai") or proxy.mode not in _MODES:
            message = "Proxy: provider has to be openai, mode passthrough or translate"
            raise LoadError(message)
        return cls(Upstream(proxy), proxy.upstream_model or options.Model)

    def close(self) -> None:
        """Close the connections to the upstream."""
        self._upstream.close()

    async def Predict(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> pb.Reply:
        """Return the upstream's whole answer."""
        asked = openai.request_body(request, self._model, stream=False)
        async with self._translated(asked, context) as response:
            return openai.reply(await response.aread())

    async def PredictStream(
        self, request: pb.PredictOptions, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Reply]:
        """Yield the upstream's answer as it arrives; token counts come last."""
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
        """Send one HTTP request on as it comes in, and its answer back as it comes in.

        The first request has path, method and headers, and each may have a piece of the body; the
        first reply has status and headers, the others have pieces of the body.
        """
        first = await anext(aiter(requests), None)
        if first is None:
            message = "the stream ended before the first request, which names path and method"
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
        """Yield the upstream's response to a chat completion, if it is a success."""
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
    """Translate what fails on the way to the upstream, and there, for the client."""
    try:
        yield
    except UpstreamError as error:
        await context.abort(error.code, f"{CloudProxy.name}: {error}")
    except openai.ProtocolError as error:
        await context.abort(grpc.StatusCode.INTERNAL, f"{CloudProxy.name}: {error}")
