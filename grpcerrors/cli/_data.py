"""Requests from JSON, and answers to JSON."""

from __future__ import annotations

import errno
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from google.protobuf import json_format

from grpcerrors.cli._connection import CommandError
from grpcerrors.cli._schema import unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from grpcerrors.cli._schema import Rpc

# What protobuf says of a field that a message does not have.
_UNKNOWN = re.compile(r'Message type "(?P<type>[^"]+)" has no field named "(?P<field>[^"]*)"')


def requests(data: str, rpc: Rpc) -> Iterator[Message]:
    """Yield the requests of a call: one, or one for each line if the RPC streams requests.

    Lines are read when they are needed, so a program can write them while the call runs.

    Args:
        data: JSON, `@FILE` for that of a file, or `-` for standard input.
        rpc: the RPC that they are for.

    Raises:
        CommandError: the data is not JSON of that message, or cannot be read.
    """
    if not rpc.streams_requests:
        text = b"".join(_lines(data))
        yield _parse(text, rpc, "")
        return
    for number, line in enumerate(_lines(data), 1):
        if line.strip():
            yield _parse(line, rpc, f", line {number}")


def _lines(data: str) -> Iterator[bytes]:
    if data != "-" and not data.startswith("@"):
        # Arguments that are not UTF-8 come as surrogates.
        yield from data.encode(errors="surrogateescape").splitlines(keepends=True)
        return
    name = "standard input" if data == "-" else data[1:]
    try:
        with _standard_input() if data == "-" else Path(name).open("rb") as source:
            yield from source
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror}") from error


def _standard_input() -> BinaryIO:
    """Open a reader of its own: a thread that still waits in it at the end holds no lock."""
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise OSError(errno.EBADF, "it is closed")
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _parse(text: bytes, rpc: Rpc, where: str) -> Message:
    kind = rpc.request.DESCRIPTOR.full_name
    try:
        return json_format.Parse(text.decode(), rpc.request(), descriptor_pool=rpc.pool)
    except UnicodeDecodeError:
        said = "it is not UTF-8"
    except (json_format.ParseError, RecursionError) as error:
        said = _readable(str(error), rpc)
    raise CommandError(f"the data{where} is not JSON of a {kind}: {said}")


def _readable(said: str, rpc: Rpc) -> str:
    """Return protobuf's words on one line; for an unknown field, with those that are known."""
    if match := _UNKNOWN.search(said):
        fields = [field.name for field in rpc.pool.FindMessageTypeByName(match["type"]).fields]
        return unknown(f"{match['type']} has no field", match["field"], fields)
    return " ".join(said.split()).rstrip(".")


def as_json(message: Message, rpc: Rpc) -> str:
    """Return a message as JSON on one line, with the field names of the .proto file.

    Raises:
        CommandError: it contains what JSON cannot show, such as an Any of an unknown type.
    """
    try:
        fields: Any = json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=rpc.pool
        )
    except (json_format.Error, TypeError, ValueError, OverflowError, RecursionError) as error:
        name = message.DESCRIPTOR.full_name
        said = " ".join(str(error).split()).rstrip(".")
        raise CommandError(
            f"{rpc.path} answers with a {name} that JSON cannot show: {said}"
        ) from None
    text = json.dumps(fields, ensure_ascii=False)
    # A server's text may not steer the terminal.
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
