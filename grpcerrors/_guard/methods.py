"""What the guard knows about an RPC: its role, its shape, and whether it is implemented."""

from __future__ import annotations

import enum
import functools
import types
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpcerrors._guard.protocol import Protocol

# By (request streams, response streams): the attribute with a handler's behavior, and its factory.
_SHAPES: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


_WRAPPERS = 32  # one around the other, at most
_EMPTY = types.CellType()
_FUNCTIONS = (functools.partial, types.FunctionType, types.MethodType)


class Role(enum.Enum):
    """What an RPC does with a model."""

    LOAD = enum.auto()
    UNLOAD = enum.auto()
    CONTROL = enum.auto()
    INFERENCE = enum.auto()


def role_of(protocol: Protocol, name: str, exempt: Collection[str] = ()) -> Role:
    """Return the role of an RPC of a protocol's service.

    Args:
        protocol: the protocol.
        name: the RPC's name without the service.
        exempt: the names of further RPCs that work whether or not a model is loaded.
    """
    if name in protocol.load:
        return Role.LOAD
    if name in protocol.unload:
        return Role.UNLOAD
    return Role.CONTROL if name in protocol.control or name in exempt else Role.INFERENCE


def behavior_of(handler: Any) -> Callable[..., Any]:
    """Return the function that a method handler runs."""
    name, _ = _SHAPES[bool(handler.request_streaming), bool(handler.response_streaming)]
    behavior: Callable[..., Any] = getattr(handler, name)
    return behavior


def with_behavior(handler: Any, behavior: Callable[..., Any]) -> Any:
    """Return a handler like `handler` that runs `behavior`."""
    _, make = _SHAPES[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(behavior, handler.request_deserializer, handler.response_serializer)


def is_unimplemented(behavior: Callable[..., Any]) -> bool:
    """Whether this is a method of the generated base class, which answers UNIMPLEMENTED.

    A server registers every RPC of the service, so registration alone proves nothing. Wrappers are
    seen through: `functools.wraps` and `partial`, and those that only close over what they wrap, as
    other interceptors do.
    """
    inner: Any = behavior
    for _ in range(_WRAPPERS):
        module = getattr(inner, "__module__", None) or ""
        of, _, _ = getattr(inner, "__qualname__", "").rpartition(".")
        if module.endswith("_pb2_grpc") and of.endswith("Servicer"):
            return True
        inner = _wrapped(inner)
    return False


def _wrapped(behavior: Any) -> Any:
    """Return what a wrapper wraps; None if it is none, or wraps more than one function."""
    if isinstance(behavior, functools.partial):
        return behavior.func
    if hasattr(behavior, "__wrapped__"):
        return behavior.__wrapped__
    cells = getattr(behavior, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells if cell != _EMPTY]
    functions = [each for each in held if isinstance(each, _FUNCTIONS)]
    return functions[0] if len(functions) == 1 else None
