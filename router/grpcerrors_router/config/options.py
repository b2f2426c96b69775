"""The check of a model's options against the protocol's ModelOptions message.

`json_format.ParseDict` checks the same types, but its messages repeat values, which may be secrets,
and suggest no alternatives, and it accepts "3" as a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from grpcerrors_protocol import backend_pb2
from grpcerrors_router.closest import closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.message import Message

    Mistake = tuple[tuple[str, ...], str]

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


def option_mistakes(options: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what keeps `options` from being a ModelOptions message: key path, and what to fix."""
    return _table(options, backend_pb2.ModelOptions, ())


def _table(table: Mapping[str, Any], make: type[Message], at: tuple[str, ...]) -> Iterator[Mistake]:
    kind = make.DESCRIPTOR
    for name, value in table.items():
        field, path = kind.fields_by_name.get(name), (*at, name)
        if field is None:
            yield path, f"{kind.name} has no such field; {closest(name, kind.fields_by_name)}"
        elif field.is_repeated and not isinstance(value, list):
            yield path, f"must be an array, not {_toml_name(value)}"
        else:
            values = value if field.is_repeated else [value]
            if found := [mistake for each in values for mistake in _value(each, field, path)]:
                yield from dict.fromkeys(found)
            else:
                try:
                    make(**{name: value})
                except (TypeError, ValueError):
                    yield path, "does not fit its type: out of range"


def _value(value: object, field: Any, path: tuple[str, ...]) -> Iterator[Mistake]:
    types, words = _KINDS[field.cpp_type]
    is_bool_for_number = isinstance(value, bool) and bool not in types
    if not isinstance(value, types) or is_bool_for_number:
        each = "each element " if field.is_repeated else ""
        yield path, f"{each}must be {words}, not {_toml_name(value)}"
    elif isinstance(value, dict):
        yield from _table(value, getattr(backend_pb2, field.message_type.name), path)


def _toml_name(value: object) -> str:
    return _TOML_NAMES.get(type(value), "a date or a time")
