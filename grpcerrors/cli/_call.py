"""The command `grpcerrors call`: one call of any RPC."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import Future
from pathlib import Path  # noqa: TC003 - typer evaluates the annotations
from typing import TYPE_CHECKING, Annotated, Any

import grpc
import typer
from google.protobuf.message import DecodeError

from grpcerrors import explain
from grpcerrors.cli import _data, _inputs, _options, _schema
from grpcerrors.cli._connection import MODEL_ID, CommandError, Server, connect, open_channel
from grpcerrors.cli._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from grpcerrors.cli._schema import Rpc

OK, FAILED = 0, 1

EXAMPLES = """Exit codes: 0 when the server answers OK, 1 when it answers with an error, 2 when
nothing could be called.

Examples:

\b
  grpcerrors call 127.0.0.1:50051 backend.Backend/Health
  grpcerrors call 127.0.0.1:50050 backend.Backend/Predict --model hello
  grpcerrors call 127.0.0.1:50050 backend.Backend/TTS --data @request.json
"""


@_options.connects
def call(
    *,
    server: Server,
    rpc: Annotated[
        _inputs.RpcName,
        typer.Argument(
            parser=_inputs.rpc,
            metavar="SERVICE/METHOD",
            help="Call this RPC, as in backend.Backend/Predict.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="Send this message; @FILE reads it from a file, - from standard input. An RPC"
            " that streams requests takes one on each line.",
        ),
    ] = "{}",
    model: Annotated[
        str | None,
        typer.Option(
            parser=_inputs.model,
            metavar="ID",
            help=f"Send the header {MODEL_ID}, which tells a router the model.",
        ),
    ] = None,
    proto: Annotated[
        list[Path],
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="Read the service from this .proto file instead of server reflection; repeat it"
            " for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    import_path: Annotated[
        list[Path],
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="Look here for .proto files and their imports (default: their own folders);"
            " repeat it for several.",
        ),
    ] = [],  # noqa: B006 - typer reads it
    timeout: Annotated[
        float,
        typer.Option(
            parser=_inputs.seconds, metavar="SECONDS", help="Wait this long for the answer."
        ),
    ] = 60.0,
) -> int:
    """Call one RPC and print its answer.

    Each message of the answer is one line of JSON on standard output. If the call fails, standard
    error gets what the error means to a router, then its code, message and trailers.
    """
    server = server._replace(timeout=timeout)
    if model:
        server = server.with_header(MODEL_ID, model)
    if proto:
        found = _schema.compiled(proto, import_path, *rpc)
        asyncio.run(_reach(server))
    else:
        found = asyncio.run(_schema.reflected(server, *rpc))
    try:
        for answer in _call(server, found, data):
            typer.echo(_data.as_json(answer, found))
    except grpc.RpcError as error:
        for line in _told(error, server):
            typer.echo(printable(line), err=True)
        return FAILED
    return OK


async def _reach(server: Server) -> None:
    async with connect(server):
        pass


def _call(server: Server, rpc: Rpc, data: str) -> Iterator[Message]:
    """Yield the answers of a call.

    Not with an aio channel: one that is still writing when the error comes reports INTERNAL.

    Raises:
        grpc.RpcError: the server answers with an error.
        CommandError: the requests or the answers cannot be read.
    """
    options = {"timeout": server.timeout, "metadata": server.metadata}
    requests = _data.requests(data, rpc)
    with open_channel(grpc, server) as channel:
        if rpc.streams_requests:
            sent = _Sent(requests)
            answers = channel.stream_stream(rpc.path)(iter(sent), **options)
            sent.call.set_result(answers)
        else:
            # A stream of answers of which there is one looks like an answer on the wire.
            (request,) = requests
            sent = None
            answers = channel.unary_stream(rpc.path)(request.SerializeToString(), **options)
        try:
            yield from (_decoded(answer, rpc) for answer in answers)
        except grpc.RpcError:
            if sent and sent.error:
                raise sent.error from None
            raise


class _Sent:
    """A stream of requests, which gRPC reads in a thread of its own.

    Attributes:
        call: the call that they belong to; to be set.
        error: why they could not be read to the end.
    """

    def __init__(self, requests: Iterator[Message]) -> None:
        self.call: Future[Any] = Future()
        self.error: CommandError | None = None
        self._requests = requests

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from (request.SerializeToString() for request in self._requests)
        except CommandError as error:
            self.error = error
            self.call.result().cancel()


def _decoded(answer: bytes, rpc: Rpc) -> Message:
    try:
        return rpc.response.FromString(answer)
    except DecodeError:
        name = rpc.response.DESCRIPTOR.full_name
        raise CommandError(
            f"the answer of {rpc.path} is not a {name}: is this the .proto file of this server?"
        ) from None


def _told(error: Any, server: Server) -> Iterator[str]:
    """Yield what the error means, and what it consists of."""
    yield from explain(error).splitlines()
    code: grpc.StatusCode = error.code()
    yield f"  code: {code.name} ({code.value[0]})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        yield f"  after {server.timeout:g} s; --timeout waits longer"
    yield f"  message: {error.details()}"
    for key, value in error.trailing_metadata() or ():
        shown = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        yield f"  trailer {key}: {shown}"
