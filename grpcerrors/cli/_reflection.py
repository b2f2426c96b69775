"""Asking a server what it offers, by server reflection (v1, else v1alpha)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc.aio import AioRpcError
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

if TYPE_CHECKING:
    from grpcerrors.cli._connection import Server

# More files than any service needs; a server that names ever new ones must not hold the command.
_FILES = 1_000
# Both versions have the same messages (grpc/proto: reflection/v1/reflection.proto).
_VERSIONS = ("v1", "v1alpha")
_REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class RefusedError(Exception):
    """The server does not let this caller ask. The message is its answer."""


class Offer(NamedTuple):
    """What a server offers.

    Attributes:
        services: the full names of its services.
        files: descriptions of those that were asked for, and of what they import.
    """

    services: list[str]
    files: dict[str, FileDescriptorProto]

    def methods(self, service: str) -> list[str] | None:
        """Return the RPCs of a service; None if it is not described."""
        described = {
            f"{file.package}.{declared.name}".removeprefix("."): declared
            for file in self.files.values()
            for declared in file.service
        }
        found = described.get(service)
        return [method.name for method in found.method] if found else None


async def ask(channel: Any, server: Server, *services: str) -> Offer | None:
    """Return what a server offers, with descriptions of some services.

    Args:
        channel: an aio channel to the server.
        server: the headers to send, and how long to wait for each answer.
        services: the full names of the services to describe; one that is not offered is left out.

    Returns:
        None if the server's reflection does not work.

    Raises:
        RefusedError: the server asks for a token, or for another one.
    """
    for version in _VERSIONS:
        try:
            return await _Reflection(channel, server, version).offer(services)
        except AioRpcError as error:
            if error.code() in _REFUSALS:
                raise RefusedError(f"{error.code().name}: {error.details()}") from error
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                return None
        except DecodeError:
            return None
    return None


class _Reflection:
    """One version of the reflection service. Its methods raise AioRpcError and DecodeError."""

    def __init__(self, channel: Any, server: Server, version: str) -> None:
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        self._rpc = channel.unary_stream(path, ServerReflectionRequest.SerializeToString)
        self._options = {"timeout": server.timeout, "metadata": server.metadata}

    async def offer(self, services: tuple[str, ...]) -> Offer | None:
        files: dict[str, FileDescriptorProto] = {}
        asked: set[str] = set()
        wanted = [ServerReflectionRequest(file_containing_symbol=service) for service in services]
        while wanted:
            answer = await self._answer(wanted.pop())
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(raw)
                files[file.name] = file
            # Some servers send imported files only when asked for each.
            imported = {name for file in files.values() for name in file.dependency}
            missing = imported - files.keys() - asked
            asked |= missing
            if len(asked) > _FILES:
                return None
            wanted += (ServerReflectionRequest(file_by_filename=name) for name in missing)
        listed = await self._answer(ServerReflectionRequest(list_services=""))
        names = [offered.name for offered in listed.list_services_response.service]
        return Offer(names, files) if files or names else None

    async def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        # Read as bytes: gRPC would log an exception of a deserializer and turn it into a status.
        raw = await self._rpc(request, **self._options).read()
        return ServerReflectionResponse.FromString(raw or b"")
