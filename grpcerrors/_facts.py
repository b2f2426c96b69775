"""What an error says: code, text and ErrorInfos, of any object, without raising or blocking."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from grpcerrors import _accessors
from grpcerrors._patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from grpcerrors._wire import ErrorInfo

    # What one error says of itself (code, text, ErrorInfos), the errors that it wraps, and the
    # model that a guard says it held. A bare tuple, at a tenth of the cost of a named one: every
    # failed call of a router makes some.
    Facts: TypeAlias = tuple[
        StatusCode | None, str, tuple[ErrorInfo, ...], tuple[object, ...], str | None
    ]
    # None: it may block, so read it apart.
    Reader: TypeAlias = Callable[[Any], Facts | None]

_NODES_LIMIT = 10_000

_ACCESSORS = frozenset({"code", "details", "grpc_status_code", "trailing_metadata"})
_HOOKS = frozenset(
    {"__cause__", "__class__", "__dict__", "__getattr__", "__getattribute__", "__str__", "args"}
)

# Modules whose errors answer at once: by methods, as gRPC does, or by attributes. Those of all
# others may block, raise or lie.
_METHODS = frozenset(
    {"grpc._channel", "grpc._interceptor", "grpc.aio._call", "grpcerrors.testing._errors"}
)
_ATTRIBUTES = frozenset(
    {
        "connectrpc.errors",
        "google.api_core.exceptions",
        "grpc_status.rpc_status",
        "grpcerrors._error",
    }
)
# The last one: groups on Python 3.10.
_PROMPT = _METHODS | _ATTRIBUTES | {"abc", "builtins", "grpc", "exceptiongroup"}

_CODES_BY_NUMBER = {code.value[0]: code for code in StatusCode}

_cause_of = BaseException.__dict__["__cause__"].__get__
_args_of = BaseException.__dict__["args"].__get__

_NOTHING: Facts = (None, "", (), (), None)


def survey(err: object) -> list[Facts]:
    """Read `err` and all that it wraps (`__cause__`, groups), each once, outermost first.

    Not `__context__`: an error met while another was handled is not that other.
    """
    facts = _read(err, None)
    found = [facts]
    if not facts[3]:
        return found
    patience = Patience()
    seen = {id(err)}
    pending = [*reversed(facts[3])]
    while pending and len(seen) < _NODES_LIMIT:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            facts = _read(node, patience)
            found.append(facts)
            pending += reversed(facts[3])
    return found


def _read(node: object, patience: Patience | None) -> Facts:
    try:
        facts = _reader(type(node))(node)  # type: ignore[arg-type] # classes hash
        return _read_apart(node, patience or Patience()) if facts is None else facts
    except Exception:  # noqa: BLE001 - total: what cannot be read says nothing
        return _NOTHING


@lru_cache(maxsize=1024)
def _reader(cls: type[Any]) -> Reader:
    """Choose how to read the instances of a class: by where it has its accessors from."""
    bases = type.__getattribute__(cls, "__mro__")
    if any(_full_name(base) == "google.rpc.Status" for base in bases):
        return _read_proto
    for base in bases:
        if base.__module__ not in _PROMPT and (_ACCESSORS | _HOOKS) & base.__dict__.keys():
            return _unreadable
    modules = {base.__module__ for base in bases}
    if modules & _METHODS:
        streams = any(base.__name__ == "_Rendezvous" for base in bases)
        return _read_stream if streams else _read_call
    if modules & _ATTRIBUTES:
        return _read_attributes
    if BaseException not in bases:
        return _read_object
    # By name: on Python 3.10 it is another class.
    groups = any(base.__name__ == "BaseExceptionGroup" for base in bases)
    return _read_group if groups else _read_exception


def _full_name(cls: type) -> object:
    return getattr(cls.__dict__.get("DESCRIPTOR"), "full_name", None)


def _unreadable(_node: object) -> None:
    return None


def _read_object(node: object) -> Facts | None:
    """Read what is no exception: it has a status if one was put on it, as on a `grpc.Status`."""
    own = getattr(node, "__dict__", None)
    return None if isinstance(own, dict) and not _ACCESSORS.isdisjoint(own) else _NOTHING


def _read_call(call: Any) -> Facts:
    """Read an error that a call of gRPC ended with. A live aio call only has coroutines to give."""
    code = call.code()
    if not isinstance(code, StatusCode):
        return _read_shape(call)
    infos: tuple[ErrorInfo, ...] = ()
    held = None
    if metadata := call.trailing_metadata():
        infos, held = _accessors.trailers(metadata)
    cause = getattr(call, "__cause__", None)
    return code, call.details() or "", infos, () if cause is None else (cause,), held


def _read_stream(call: Any) -> Facts | None:
    """Read a stream call of a sync channel: its accessors wait until the stream has ended."""
    try:
        state = call._state  # noqa: SLF001 - the only way to look without waiting
        code, details, metadata = state.code, state.details, state.trailing_metadata
    except AttributeError:
        return None
    infos, held = _accessors.trailers(metadata)
    return code, _accessors.text(details), infos, _wrapped(call), held


def _read_proto(status: Any) -> Facts:
    """Read a `google.rpc.Status` message."""
    code = _CODES_BY_NUMBER.get(status.code)
    return code, status.message, _accessors.detail_infos(status.details), (), None


def _read_attributes(node: Any) -> Facts | None:
    own = node.__dict__
    if any(callable(own.get(name)) for name in _ACCESSORS):
        return None
    return _read_shape(node)


def _read_exception(err: BaseException) -> Facts | None:
    """Read an exception that has no status, but for what somebody may have hung on it."""
    if not _ACCESSORS.isdisjoint(err.__dict__):
        return None
    cause = err.__cause__
    return None, _args_text(err.args), (), () if cause is None else (cause,), None


def _read_group(group: Any) -> Facts | None:
    facts = _read_exception(group)
    if facts is None:
        return None
    code, text, infos, wrapped, held = facts
    return code, text, infos, (*wrapped, *group.exceptions), held


def _read_apart(node: object, patience: Patience) -> Facts:
    """Read a node that may block, raise or lie."""
    facts = patience.run(lambda: _read_shape(node))
    if facts is None and issubclass(type(node), BaseException):
        return None, _args_text(_args_of(node)), (), _wrapped(node), None
    return facts or _NOTHING


def _read_shape(node: object) -> Facts:
    """Read by shape: attributes or methods, named as in gRPC, google-api-core or Connect."""
    get = _accessors.get
    code = _accessors.status_code(get(node, "grpc_status_code"))
    code = code or _accessors.status_code(get(node, "code"))
    details = get(node, "details")
    text = _accessors.text(details) or _accessors.text(get(node, "message"))
    infos, held = _accessors.trailers(get(node, "trailing_metadata"))
    infos = infos or _accessors.detail_infos(details)
    wrapped = _wrapped(node)
    if issubclass(type(node), BaseException):
        if code is None and not text:
            text = _args_text(_args_of(node)) or _accessors.text(get(node, "__str__"))
        response = get(node, "response")
        if issubclass(type(response), BaseException):
            wrapped += (response,)
        wrapped += _accessors.members(get(node, "exceptions"))
    return code, text, infos, wrapped, held


def _args_text(args: tuple[object, ...]) -> str:
    """Return the text that an exception was raised with, without calling its `__str__`."""
    for arg in args:
        if isinstance(arg, str):
            return _accessors.text(arg)
    return ""


def _wrapped(node: object) -> tuple[object, ...]:
    cause = _cause_of(node) if issubclass(type(node), BaseException) else None
    return () if cause is None else (cause,)
