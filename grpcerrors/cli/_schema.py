"""What an RPC takes and returns, by server reflection or from .proto files."""

from __future__ import annotations

import difflib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from grpcerrors.cli import _reflection
from grpcerrors.cli._connection import CommandError, Server, connect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import Message

# How a warning of a compiler begins.
_WARNING = re.compile(r"W[0-9]{4} |\[libprotobuf WARNING|WARNING: |.*: warning: ")
_COMPILING = 60  # seconds, which only a compiler that hangs needs


class Rpc(NamedTuple):
    """One RPC.

    Attributes:
        path: /SERVICE/METHOD.
        request: the class of its requests.
        response: the class of its responses.
        streams_requests: whether it takes any number of requests.
        pool: the descriptors of all messages, which Any fields need.
    """

    path: str
    request: type[Message]
    response: type[Message]
    streams_requests: bool
    pool: DescriptorPool


async def reflected(server: Server, service: str, method: str) -> Rpc:
    """Return an RPC as the server's reflection describes it.

    Raises:
        CommandError: the server cannot be reached, refuses the caller, or has no reflection or no
            such RPC.
    """
    async with connect(server) as channel:
        try:
            offer = await _reflection.ask(channel, server, service)
        except _reflection.RefusedError as error:
            raise CommandError(f"{server.address} does not describe its RPCs: {error}") from error
    if offer is None:
        raise CommandError(
            f"{server.address} does not describe its RPCs by server reflection: name the .proto"
            " file of the service with --proto"
        )
    return _find(server.address, offer.files.values(), offer.services, service, method)


def compiled(files: Sequence[Path], folders: Sequence[Path], service: str, method: str) -> Rpc:
    """Return an RPC as .proto files describe it.

    Args:
        files: the files.
        folders: where to look for them and for what they import; empty for their own folders.
        service: the full name of the service.
        method: the name of the RPC.

    Raises:
        CommandError: there is no compiler, it reports errors, or there is no such RPC.
    """
    described = _compile(files, folders or [file.parent for file in files])
    services = [
        f"{file.package}.{declared.name}".removeprefix(".")
        for file in described
        for declared in file.service
    ]
    return _find(" and ".join(map(str, files)), described, services, service, method)


def _compile(files: Sequence[Path], folders: Sequence[Path]) -> Sequence[FileDescriptorProto]:
    if importlib.util.find_spec("grpc_tools"):
        compiler = [sys.executable, "-m", "grpc_tools.protoc"]
    elif found := shutil.which("protoc"):
        compiler = [found]
    else:
        raise CommandError(
            "reading a .proto file needs a compiler: pip install grpcio-tools, or install protoc"
        )
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "set.binpb"
        options = [f"--proto_path={folder}" for folder in folders]
        options += [f"--descriptor_set_out={made}", "--include_imports"]
        ran = subprocess.run(  # noqa: S603 - no shell, and the user's own files
            [*compiler, *options, *map(str, files)],
            capture_output=True,
            text=True,
            timeout=_COMPILING,
            check=False,
        )
        if ran.returncode:
            raise CommandError(_first_error(ran.stderr))
        return FileDescriptorSet.FromString(made.read_bytes()).file


def _first_error(said: str) -> str:
    errors = [line for line in said.splitlines() if line and not _WARNING.match(line)]
    more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
    return f"{errors[0] if errors else said}{more}"


def _find(
    source: str,
    files: Iterable[FileDescriptorProto],
    services: Collection[str],
    service: str,
    method: str,
) -> Rpc:
    pool = DescriptorPool()
    try:
        _fill(pool, {file.name: file for file in files})
        described: Any = pool.FindServiceByName(service)
    except KeyError:
        raise CommandError(unknown(f"{source} offers no", service, sorted(services))) from None
    except TypeError as error:
        raise CommandError(f"{source} describes {service} wrongly: {error}") from None
    names = sorted(one.name for one in described.methods)
    if not method:
        raise CommandError(f"name an RPC of {service}: {', '.join(names)}")
    if method not in names:
        raise CommandError(unknown(f"{service} has no RPC", method, names))
    found = described.methods_by_name[method]
    return Rpc(
        f"/{service}/{method}",
        GetMessageClass(found.input_type),
        GetMessageClass(found.output_type),
        found.client_streaming,
        pool,
    )


def _fill(pool: DescriptorPool, files: dict[str, FileDescriptorProto]) -> None:
    """Add files to a pool, each after what it imports. Raises TypeError if they do not fit."""
    while files:
        ready = [name for name, file in files.items() if not files.keys() & set(file.dependency)]
        if not ready:
            raise TypeError("its files import each other")
        for name in ready:
            pool.AddSerializedFile(files.pop(name).SerializeToString())


def unknown(said: str, word: str, known: Sequence[str]) -> str:
    """Return an error for a word that is not known, with the most similar known ones, else all."""
    close = difflib.get_close_matches(word, known, n=2)
    if close:
        return f"{said} {word}: did you mean {' or '.join(close)}?"
    return f"{said} {word}; there are {', '.join(known) or 'none'}"
