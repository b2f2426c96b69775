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
    from collections.abc import Sequence

# Both versions have the same messages (grpc/proto: reflection/v1/reflection.proto).
_VERSIONS = ("v1", "v1alpha")


class Offer(NamedTuple):
    """The services of a server, and the RPCs of the requested one (None if it is not offered)."""

    methods: list[str] | None
    services: list[str]


async def ask(
    channel: Any, service: str, metadata: Sequence[tuple[str, str | bytes]], timeout: float
) -> Offer | None:
    """Return what the server offers; None if its reflection does not work.

    Args:
        channel: an aio channel.
        service: the full name of the service.
        metadata: headers to send with each call.
        timeout: seconds for each version.
    """
    for version in _VERSIONS:
        try:
            return await _ask(channel, version, service, metadata, timeout)
        except AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                return None
        except DecodeError:
            return None
    return None


async def _ask(
    channel: Any,
    version: str,
    service: str,
    metadata: Sequence[tuple[str, str | bytes]],
    timeout: float,
) -> Offer | None:
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    rpc = channel.unary_stream(path, ServerReflectionRequest.SerializeToString)

    async def answer(request: ServerReflectionRequest) -> ServerReflectionResponse:
        # Read as bytes: gRPC would log an exception of a deserializer and turn it into a status.
        raw = await rpc(request, timeout=timeout, metadata=tuple(metadata)).read()
        return ServerReflectionResponse.FromString(raw or b"")

    described = await answer(ServerReflectionRequest(file_containing_symbol=service))
    listed = await answer(ServerReflectionRequest(list_services=""))
    files = [
        FileDescriptorProto.FromString(raw)
        for raw in described.file_descriptor_response.file_descriptor_proto
    ]
    services = [offered.name for offered in listed.list_services_response.service]
    return Offer(_methods(files, service), services) if files or services else None


def _methods(files: list[FileDescriptorProto], service: str) -> list[str] | None:
    offered = {
        f"{file.package}.{declared.name}".removeprefix("."): declared
        for file in files
        for declared in file.service
    }
    found = offered.get(service)
    return [method.name for method in found.method] if found else None
