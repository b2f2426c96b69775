"""Do options fit the protocol's ModelOptions message? Their values are never repeated."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from grpcerrors_protocol import backend_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

_KINDS: dict[int, tuple[tuple[type, ...], str]] = {
    FieldDescriptor.CPPTYPE_INT32: ((int,), "a whole number"),
    FieldDescriptor.CPPTYPE_INT64: ((int,), "a whole number"),
    FieldDescriptor.CPPTYPE_UINT32: ((int,), "a whole number"),
    FieldDescriptor.CPPTYPE_UINT64: ((int,), "a whole number"),
    FieldDescriptor.CPPTYPE_FLOAT: ((int, float), "a number"),
    FieldDescriptor.CPPTYPE_DOUBLE: ((int, float), "a number"),
    FieldDescriptor.CPPTYPE_BOOL: ((bool,), "true or false"),
    FieldDescriptor.CPPTYPE_STRING: ((str,), "a string"),
    FieldDescriptor.CPPTYPE_MESSAGE: ((dict,), "a table"),
}
_TOML_NAMES = {str: "a string", bool: "a boolean", int: "a whole number", float: "a float",
               list: "an array", dict: "a table"}  # fmt: skip


class OptionError(ValueError):
    """`path` is where below the options the mistake is; the text says what to do."""

    def __init__(self, path: tuple[str, ...], text: str) -> None:
        super().__init__(text)
        self.path = path


def check_options(options: Mapping[str, Any]) -> None:
    """Raise OptionError when `options` is not what a ModelOptions message can be made of."""
    _check(options, backend_pb2.ModelOptions, ())


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to `name`, or all of them when none is."""
    names = sorted(known)
    lowered = {word.lower(): word for word in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f'did you mean "{lowered[near[0]]}"?' if near else f"known: {', '.join(names)}"


def _check(table: Mapping[str, Any], make: type[Message], at: tuple[str, ...]) -> None:
    kind = make.DESCRIPTOR
    for name, value in table.items():
        field, path = kind.fields_by_name.get(name), (*at, name)
        if field is None:
            hint = closest(name, kind.fields_by_name)
            raise OptionError(path, f'{kind.name} has no field "{name}"; {hint}')
        if not field.is_repeated:
            values = [value]
        elif isinstance(value, list):
            values = value
        else:
            raise OptionError(path, f"{name} must be an array, not {_toml_name(value)}")
        for each in values:
            _check_value(each, field, path)
        try:
            make(**{name: value})
        except (TypeError, ValueError) as error:
            raise OptionError(path, f"{name} does not fit its type: out of range") from error


def _check_value(value: object, field: Any, path: tuple[str, ...]) -> None:
    types, words = _KINDS[field.cpp_type]
    is_bool_for_number = isinstance(value, bool) and bool not in types
    if not isinstance(value, types) or is_bool_for_number:
        what = f"each of {field.name}" if field.is_repeated else field.name
        raise OptionError(path, f"{what} must be {words}, not {_toml_name(value)}")
    if isinstance(value, dict):
        assert field.message_type is not None  # noqa: S101 - for the type checker
        _check(value, getattr(backend_pb2, field.message_type.name), path)


def _toml_name(value: object) -> str:
    return _TOML_NAMES.get(type(value), "a date or a time")
