"""What an error says: its code, text and details, and the errors that it wraps.

Any object can be read; nothing here raises, waits or blocks. Methods are called only on gRPC's own
errors and on subclasses of `grpc.RpcError`; of everything else, only attributes are read.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from grpc import RpcError, StatusCode

from grpcerrors import _wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from grpcerrors._wire import ErrorInfo

    # What an error says of itself (code, text, ErrorInfos), the errors that it wraps, and the model
    # that a guard reports as held. A plain tuple costs a tenth of a named one.
    Facts: TypeAlias = tuple[
        StatusCode | None, str, tuple[ErrorInfo, ...], tuple[object, ...], str | None
    ]

# How much is read: errors of one chain or group, and characters of all their texts together. gRPC
# itself carries no more text: its hard limit on metadata is 16 KiB.
_NODES_LIMIT = 10_000
_TEXT_LIMIT = 16_384

# An exception with one of these says more than its arguments and its cause do.
_ACCESSORS = {"code", "details", "exceptions", "grpc_status_code", "message", "trailing_metadata"}
_HOOKS = {"__cause__", "__dict__", "__getattribute__", "__str__", "args", "response"}

_CODES_BY_NUMBER = {code.value[0]: code for code in StatusCode}
_CODES_BY_NAME = {code.name: code for code in StatusCode} | {"CANCELED": StatusCode.CANCELLED}

# Not the attributes, which a class may redefine.
_args_of = BaseException.__dict__["args"].__get__
_cause_of = BaseException.__dict__["__cause__"].__get__


def survey(err: object) -> list[Facts]:
    """Read `err` and all that it wraps (`__cause__`, groups), each once, outermost first.

    `__context__` is not followed: an error raised while another was handled does not stand for it.
    """
    found = [_read(err)]
    _, text, _, wrapped, _ = found[0]
    if not wrapped:
        return found
    room = _TEXT_LIMIT - len(text)
    seen = {id(err)}
    pending = [*reversed(wrapped)]
    while pending and len(seen) < _NODES_LIMIT:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            code, text, infos, wrapped, held = _read(node)
            found.append((code, text[:room], infos, wrapped, held))
            room = max(room - len(text), 0)
            pending += reversed(wrapped)
    return found


def _read(node: object) -> Facts:
    try:
        return _reader(type(node))(node)  # type: ignore[arg-type] # classes hash
    except Exception:  # noqa: BLE001 - what cannot be read says nothing
        return None, "", (), (), None


@lru_cache(maxsize=1024)
def _reader(cls: type[Any]) -> Callable[[Any], Facts]:
    """Choose how to read the instances of a class."""
    bases = type.__getattribute__(cls, "__mro__")
    for base in bases:
        if getattr(base.__dict__.get("DESCRIPTOR"), "full_name", None) == "google.rpc.Status":
            return _read_proto
        if (base.__module__, base.__name__) == ("grpc._channel", "_Rendezvous"):
            return _read_stream
        if base is RpcError or base.__module__ == "grpc._interceptor":
            return _read_call
    plain = (object, BaseException, Exception)
    names = {name for base in bases if base not in plain for name in base.__dict__}
    known = BaseException in bases and names.isdisjoint(_ACCESSORS | _HOOKS)
    return _read_exception if known else _read_shape


def _read_call(call: Any) -> Facts:
    """Read an error with which a gRPC call ended."""
    try:
        code = call.code()
        if type(code) is StatusCode:
            text = call.details()
            if type(text) is not str or len(text) > _TEXT_LIMIT:
                text = _text(_closed(text))
            metadata = call.trailing_metadata()
            infos, held = _trailers(metadata) if metadata else ((), None)
            cause = call.__cause__
            return code, text, infos, () if cause is None else (cause,), held
        _closed(code)
    except Exception:  # noqa: BLE001, S110 - the slower way below reads what can be read
        pass
    return _read_shape(call, calls=True)


def _read_stream(call: Any) -> Facts:
    """Read a stream call of a sync channel, whose methods wait until the stream has ended."""
    state, cause = call._state, _cause_of(call)  # noqa: SLF001 - no other way does not wait
    infos, held = _trailers(state.trailing_metadata)
    wrapped = () if cause is None else (cause,)
    return _status_code(state.code), _text(state.details), infos, wrapped, held


def _read_proto(status: Any) -> Facts:
    """Read a `google.rpc.Status` message."""
    code = _CODES_BY_NUMBER.get(status.code)
    return code, _text(status.message), _wire.decode_details(status.details), (), None


def _read_exception(err: BaseException) -> Facts:
    """Read an exception without a status, unless someone has set one on the instance."""
    if not _ACCESSORS.isdisjoint(err.__dict__):
        return _read_shape(err)
    cause = err.__cause__
    return None, _args_text(err.args), (), () if cause is None else (cause,), None


def _read_shape(node: object, *, calls: bool = False) -> Facts:
    """Read an object by the attribute names of gRPC, google-api-core, Connect or grpclib."""
    get = partial(_get, node, calls=calls)
    codes = map(_status_code, map(get, ("grpc_status_code", "code", "status")))
    code = next(filter(None, codes), None)
    details, wrapped = get("details"), []
    text = _text(details) or _text(get("message"))
    infos, held = _trailers(get("trailing_metadata"))
    if issubclass(type(node), BaseException):
        if code is None and not text:
            text = _args_text(_args_of(node)) or _text(_get(node, "__str__", calls=True))
        members = get("exceptions")
        wrapped = [_cause_of(node), get("response"), *(members if type(members) is tuple else ())]
        wrapped = [each for each in wrapped if issubclass(type(each), BaseException)]
    if given := _wire.decode_details(details):
        infos = _wire.Infos((*given, *infos))
    return code, text, infos, tuple(wrapped), held


def _get(node: object, name: str, *, calls: bool = False) -> Any:
    """Return an attribute, or what it returns if `calls` is true; None on any failure."""
    try:
        value = getattr(node, name)
        return _closed(value()) if calls and callable(value) else value
    except Exception:  # noqa: BLE001 - foreign code
        return None


def _closed(value: Any) -> Any:
    """Return a value; close a coroutine instead, without awaiting it."""
    return value.close() if issubclass(type(value), Coroutine) else value


def _status_code(value: object) -> StatusCode | None:
    """Return a code of gRPC, or that of another library's enum with the same names."""
    return _CODES_BY_NAME.get(_text(_get(value, "name")))


def _text(value: Any) -> str:
    """Return a message, cut to the limit."""
    # Not value[:n], which a subclass may redefine.
    if issubclass(type(value), str):
        return str.__getitem__(value, slice(_TEXT_LIMIT))
    if issubclass(type(value), bytes):
        return bytes.__getitem__(value, slice(_TEXT_LIMIT)).decode(errors="replace")
    return ""


def _args_text(args: tuple[object, ...]) -> str:
    """Return the text that an exception was raised with, without calling its `__str__`."""
    for arg in args:
        if issubclass(type(arg), str):
            return _text(arg)
    return ""


def _trailers(metadata: Any) -> tuple[tuple[ErrorInfo, ...], str | None]:
    """Return the ErrorInfos in metadata, and the model that a guard reports as held, or None.

    Different values of one trailer contradict each other, so none of them counts (as in grpc-go's
    internal/status); a proxy may have doubled equal ones.
    """
    details = plain = held = None
    try:
        pairs = metadata.items() if isinstance(metadata, dict) else metadata
        for key, value in islice(pairs, _wire.ITEMS_LIMIT):
            if key == _wire.DETAILS_KEY:
                details = value if details is None or details == value else False
            elif key == _wire.UNEXECUTED_KEY:
                plain = value if plain is None or plain == value else False
            elif key == _wire.HELD_KEY:
                from urllib.parse import unquote  # noqa: PLC0415 - rarely needed

                held = held or unquote(_text(value)) or None
    except Exception:  # noqa: BLE001 - what cannot be read says nothing
        _closed(metadata)
        return (), None
    return _wire.decode(details if type(details) is bytes else b"", _text(plain)), held
