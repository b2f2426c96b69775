"""Errors as a client of each kind gets them, made without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc._channel import _InactiveRpcError, _MultiThreadedRendezvous, _RPCState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf import any_pb2

    from grpcerrors import ContractError

DETAILS_KEY = "grpc-status-details-bin"
Trailers = tuple[tuple[str, str | bytes], ...]


def trailers(*values: bytes) -> Trailers:
    """Return trailing metadata with each value under the key of rich statuses."""
    return tuple((DETAILS_KEY, value) for value in values)


def details_of(error: ContractError) -> bytes:
    """Return the `google.rpc.Status` that an error carries."""
    value = error.trailing_metadata[0][1]
    assert isinstance(value, bytes)
    return value


def status(code: StatusCode | None, text: str, *infos: tuple[str, str]) -> bytes:
    """Serialize a `google.rpc.Status` with an ErrorInfo for each (domain, reason)."""
    number = 0 if code is None else code.value[0]
    message = status_pb2.Status(code=number, message=text)
    for domain, reason in infos:
        message.details.add().Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))
    return message.SerializeToString()


def sync_error(code: StatusCode | None, text: str, metadata: Trailers = ()) -> grpc.RpcError:
    """Return what a unary call of a sync channel raises."""
    return _InactiveRpcError(_RPCState((), (), metadata, code, text))


def stream_error(code: StatusCode | None, text: str, metadata: Trailers = ()) -> Any:
    """Return what a stream call of a sync channel raises: the call itself. No code: still live."""
    state = _RPCState((), (), metadata, code, text)
    return _MultiThreadedRendezvous(state, mock.Mock(), None, None)


def aio_error(code: StatusCode | None, text: str, metadata: Trailers = ()) -> grpc.RpcError:
    """Return what any call of an aio channel raises."""
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=text
    )


def wrapped(err: BaseException, message: str = "the request failed") -> Exception:
    """Return an exception raised from `err`."""
    wrapper = RuntimeError(message)
    wrapper.__cause__ = err
    return wrapper


def packed(infos: Iterable[tuple[str, str]]) -> list[any_pb2.Any]:
    """Return details with an ErrorInfo for each (domain, reason)."""
    return list(status_pb2.Status.FromString(status(None, "", *infos)).details)
