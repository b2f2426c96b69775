"""models.toml: which models there are, which backend holds each, and how it is loaded.

[models."tiny.en"]
backend = "transcriber"
replicas = 2

[models."tiny.en".options]        # fields of the protocol's ModelOptions
Threads = 2
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grpcerrors_router.config.options import OptionError, check_options, closest
from grpcerrors_router.config.toml_lines import line_of
from grpcerrors_router.entities import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails


class ModelsError(ValueError):
    """A models file that cannot be used. The text is one line: file, line, what to do."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    backend: str = Field(min_length=1)
    replicas: int = Field(default=1, ge=1)
    options: dict[str, Any] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    models: dict[str, _Entry]


_WORDS = {
    "dict_type": "must be a table",
    "greater_than_equal": "must be at least 1",
    "int_type": "must be a whole number",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "string_type": "must be a string",
}
_KNOWN = {0: _File.model_fields, 2: _Entry.model_fields}


def read_models(path: Path) -> dict[str, ModelSpec]:
    """Return the models that the file at `path` describes, by name. Raises ModelsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelsError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    return parse_models(text, str(path))


def parse_models(text: str, source: str = "models.toml") -> dict[str, ModelSpec]:
    """Return the models that the TOML `text` describes. `source` is what messages call it.

    Raises ModelsError for the first mistake. No message repeats a value: it may be a secret.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", where)
        line = found[1] if found else text.count("\n") + 1  # "end of document"
        raise ModelsError(f"{source}:{line}: not valid TOML: {what}") from error

    def refuse(path: tuple[object, ...], message: str) -> ModelsError:
        return ModelsError(f"{source}:{line_of(text, path)}: {message}")

    try:
        entries = _File.model_validate(document).models
    except ValidationError as error:
        mistakes = error.errors(include_input=False, include_url=False, include_context=False)
        # A misspelt key also counts as the missing one; its own line says more.
        first = min(mistakes, key=lambda each: each["type"] != "extra_forbidden")
        raise refuse(first["loc"], _words(first)) from None
    for name, entry in entries.items():
        if not name or not (name.isascii() and name.isprintable()) or name.strip() != name:
            message = f"model name {name!r} cannot travel as x-model-id; use printable ASCII"
            raise refuse(("models", name), message)
        try:
            check_options(entry.options)
        except OptionError as error:
            path = ("models", name, "options", *error.path)
            raise refuse(path, f'model "{name}": {error}') from None
    return {
        name: ModelSpec(name, entry.backend, entry.options, entry.replicas)
        for name, entry in entries.items()
    }


def _words(error: ErrorDetails) -> str:
    *parents, key = [str(part) for part in error["loc"]]
    where = f'model "{parents[1]}": ' if len(parents) > 1 else ""
    if error["type"] == "extra_forbidden":
        return f'{where}unknown key "{key}"; {closest(key, _KNOWN[len(parents)])}'
    if error["type"] == "missing" and not parents:
        return 'no models; add a table [models.NAME] with backend = "TYPE"'
    if error["type"] == "missing":
        return f'{where}{key} is missing; add {key} = "TYPE" (the backend type that can hold it)'
    what = f'model "{key}"' if len(parents) == 1 else f"{where}{key}"
    return f"{what} {_WORDS.get(error['type'], error['msg'])}"
