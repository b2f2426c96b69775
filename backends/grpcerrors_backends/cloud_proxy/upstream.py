"""HTTP client of the upstream: its address, its key, and the meaning of its errors."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import grpc
import httpx

from grpcerrors_backends.model import LoadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpcerrors_backends.files import Secrets
    from grpcerrors_protocol import backend_pb2 as pb

_SILENCE: Final = 120  # s that an upstream may send nothing, by default
_CONNECT: Final = 10.0  # s
_QUOTED: Final = 300  # characters of an upstream's error text
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.PERMISSION_DENIED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_ADVICE: Final = {
    401: "check the key that the load options name",
    403: "check the key that the load options name",
    404: "check upstream_url and upstream_model",
    429: "the rate limit is reached; try again later",
}
# Codes under which an upstream's error text is passed on. Under other codes, a text such as "model
# not loaded" would be read as a statement about this backend.
_QUOTABLE: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


class UpstreamError(Exception):
    """The upstream failed. The client gets `code` and the text, which never contain the key."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Upstream:
    """Sends requests to one HTTP origin. Does not follow redirects, which would leak the key.

    Raises LoadError for invalid options.
    """

    def __init__(self, options: pb.ProxyOptions, secrets: Secrets) -> None:
        self.url = _url(options.upstream_url)
        self._key = _key(options, secrets)
        silence = options.request_timeout_seconds or _SILENCE
        if silence < 0:
            message = f"request_timeout_seconds is {silence}: expected seconds above 0"
            raise LoadError(message)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(silence, connect=min(silence, _CONNECT), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            follow_redirects=False,
        )
        self._silence = silence
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that may be shown."""
        return f"{self.url.scheme}://{self.url.netloc.decode('ascii')}"

    @property
    def has_key(self) -> bool:
        """Whether the proxy sends a key of its own."""
        return bool(self._key)

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: httpx.URL,
        headers: list[tuple[str, str]],
        content: bytes | AsyncIterator[bytes] | None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request with the key, and yield the response before its body is read.

        Leaving the context, even by cancellation, closes the connection if the body was not read
        to its end. Raises UpstreamError if the connection fails, also while the body is read.
        """
        self._loop = asyncio.get_running_loop()
        if self._key:
            headers = [*headers, ("Authorization", f"Bearer {self._key}")]
        # Unlike client.build_request, this adds no headers.
        encoded = httpx.Headers(headers, encoding="latin-1")
        request = httpx.Request(method, url, headers=encoded, content=content)
        try:
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout):
            text = f"cannot connect to the upstream {self.origin}"
            raise UpstreamError(grpc.StatusCode.UNAVAILABLE, text) from None
        except httpx.TimeoutException:
            text = f"the upstream {self.origin} sent nothing for {self._silence} s"
            raise UpstreamError(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
        except httpx.HTTPError as error:
            # The text of a protocol error may quote a header with the key, so show only the type.
            text = f"the connection to the upstream {self.origin} failed: {type(error).__name__}"
            raise UpstreamError(grpc.StatusCode.UNAVAILABLE, text) from None

    async def check(self, response: httpx.Response) -> None:
        """Raise UpstreamError unless the response is successful."""
        status = response.status_code
        if response.is_success:
            return
        default = grpc.StatusCode.UNAVAILABLE if status >= 500 else grpc.StatusCode.INTERNAL  # noqa: PLR2004 - HTTP
        code = _CODES.get(status, default)
        text = f"the upstream {self.origin} answered HTTP {status}"
        advice = "check upstream_url: redirects are not followed" if response.is_redirect else ""
        advice = _ADVICE.get(status, advice)
        if advice:
            text += f": {advice}"
        elif code in _QUOTABLE:
            text += f": {_words(await response.aread())}"
        raise UpstreamError(code, text.replace(self._key, "***") if self._key else text)

    def close(self) -> None:
        """Close the idle connections. Do not call this in the event loop that used them."""
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(_CONNECT)


def _words(body: bytes) -> str:
    """Return the message in an OpenAI-compatible error body, or the start of another body."""
    try:
        return str(httpx.Response(200, content=body).json()["error"]["message"])[:_QUOTED]
    except (ValueError, KeyError, TypeError):
        return body[:_QUOTED].decode("utf-8", "replace")


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
        wrong = url.scheme not in ("http", "https") or not url.host or bool(url.userinfo)
    except httpx.InvalidURL:
        wrong = True
    if wrong or url.query or url.fragment:
        message = (
            "Proxy.upstream_url must be http:// or https:// with a host, without user name, "
            "query or fragment, such as https://api.example.com/v1/chat/completions"
        )
        raise LoadError(message)
    return url


def _key(options: pb.ProxyOptions, secrets: Secrets) -> str:
    """Return the key that the options name, "" if they name none. Raises LoadError."""
    if options.api_key_env and options.api_key_file:
        message = "give api_key_env or api_key_file, not both"
        raise LoadError(message)
    if options.api_key_env:
        option, key = "api_key_env", secrets.variable("api_key_env", options.api_key_env)
    elif options.api_key_file:
        option, key = "api_key_file", secrets.file("api_key_file", options.api_key_file)
    else:
        return ""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        message = f"{option} names no key: expected one word of printable ASCII"
        raise LoadError(message)
    return key
