"""A real Connect server, and clients of it, with connectrpc or connect-python.

Both have the same import name, so an environment has one of them. Where they differ, each function
here asks which one it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from google.rpc import status_pb2

from tests.grpcerrors.support.serving import TIMEOUT, UNARY, Answer, Raw

if TYPE_CHECKING:
    from collections.abc import Iterator

connectrpc: Any = importlib.import_module("connectrpc.errors")
_client: Any = importlib.import_module("connectrpc.client")
_code: Any = importlib.import_module("connectrpc.code")
_method: Any = importlib.import_module("connectrpc.method")
_protocol: Any = importlib.import_module("connectrpc.protocol")
_server: Any = importlib.import_module("connectrpc.server")

NEW = hasattr(connectrpc, "ErrorDetail")
NAME = "connectrpc" if NEW else "connect-python"
PROTOCOLS = {each.name.lower().replace("_", "-"): each for each in _protocol.ProtocolType}

# connectrpc has another codec for messages that serialize themselves as Google's do.
_CODECS: dict[str, Any] = {}
_CODEC: dict[str, Any] = {}
if NEW:
    _CODECS["codecs"] = importlib.import_module("connectrpc.compat").google_protobuf_codecs()
    _CODEC["codec"] = _CODECS["codecs"][0]


def _info() -> Any:
    service, name = UNARY.strip("/").split("/")
    more = {"stream_type": _method.StreamType.UNARY} if NEW else {}
    return _method.MethodInfo(
        name=name,
        service_name=service,
        input=Raw,
        output=Raw,
        idempotency_level=_method.IdempotencyLevel.UNKNOWN,
        **more,
    )


def error(answer: Answer) -> Any:
    """Return the error of this Connect library that says the same as an answer."""
    details = []
    for _, value in answer.trailing_metadata:
        if isinstance(value, bytes):
            details += [_any(each) for each in status_pb2.Status.FromString(value).details]
    code = {"CANCELLED": "CANCELED"}.get(answer.code.name, answer.code.name)
    return connectrpc.ConnectError(_code.Code[code], answer.details, details)


def _any(detail: Any) -> Any:
    if not NEW:
        return detail
    wkt: Any = importlib.import_module("protobuf.wkt")
    return wkt.Any(type_url=detail.type_url, value=detail.value)


async def _fail(request: Any, ctx: Any) -> Any:
    answer = Answer.load(request.data)
    trailers = ctx.response_trailers if NEW else ctx.response_trailers()
    for key, value in answer.trailing_metadata:
        if isinstance(value, str):
            trailers[key] = value
    raise error(answer)


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Serve all three protocols, over HTTP/1.1 and HTTP/2; yields the target."""
    hypercorn: Any = importlib.import_module("hypercorn.config")
    run: Any = importlib.import_module("hypercorn.asyncio")

    class Application(_server.ConnectASGIApplication):
        path = "/test.Failing"

    endpoint = _server.Endpoint.unary(method=_info(), function=_fail)
    app = Application(service=object(), endpoints=lambda _: {UNARY: endpoint}, **_CODECS)
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = logging.getLogger(__name__)
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    [bound] = config.create_sockets().insecure_sockets
    port = bound.getsockname()[1]
    config.bind = [f"fd://{bound.detach()}"]
    serving = run.serve(app, config, shutdown_trigger=stopping.wait)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()


def failure(target: str, protocol: str, answer: Answer, *, keep_trailers: bool) -> Exception:
    """Return what a call of a sync client raises, with the trailers if they are kept."""
    pyqwest: Any = importlib.import_module("pyqwest")
    http = pyqwest.SyncClient(pyqwest.SyncHTTPTransport(http_version=pyqwest.HTTPVersion.HTTP2))
    client = _client.ConnectClientSync(
        f"http://{target}", protocol=PROTOCOLS[protocol], http_client=http, **_CODEC
    )
    with client, _client.ResponseMetadata() as received:
        try:
            client.execute_unary(
                request=Raw(answer.dump()),
                method=_info(),
                timeout_ms=int(TIMEOUT * 1000),
            )
        except connectrpc.ConnectError as err:
            if keep_trailers:
                trailers = received.trailers if NEW else received.trailers()
                err.trailing_metadata = tuple(trailers.allitems())
            failure: Exception = err
            return failure
    raise AssertionError
