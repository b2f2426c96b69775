"""The file models.toml: the models, the backend type of each, and its options.

[models."tiny.en"]
backend = "transcriber"
replicas = 2
load_timeout = 900

[models."tiny.en".options]        # fields of the protocol's ModelOptions
Threads = 2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grpcerrors_router.closest import closest
from grpcerrors_router.config.options import option_mistakes
from grpcerrors_router.config.toml_file import FileError, dotted, parse, read
from grpcerrors_router.entities import ModelSpec
from grpcerrors_router.validation import NAME_LIMIT, Invalid, check_model_name, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from grpcerrors_router.config.options import Mistake


class ModelsError(FileError):
    """A models file cannot be used; see FileError."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    backend: str
    replicas: int = Field(default=1, ge=1)
    load_timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    options: dict[str, Any] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    models: dict[str, _Entry]


_WORDS = {
    "dict_type": "must be a table",
    "finite_number": "must be a number of seconds",
    "float_type": "must be a number of seconds",
    "greater_than": "must be more than 0",
    "greater_than_equal": "must be at least 1",
    "int_type": "must be a whole number",
    "model_type": "must be a table",
    "string_type": "must be a string",
}
_KNOWN = {1: _File.model_fields, 3: _Entry.model_fields}
_NO_MODELS = 'no models; add a table [models.NAME] with backend = "TYPE"'


def read_models(path: Path) -> dict[str, ModelSpec]:
    """Return the models in the file at `path`, by name.

    Raises:
        ModelsError: the file cannot be read, or it has mistakes.
    """
    return parse_models(read(path, ModelsError), str(path))


def parse_models(text: str, source: str = "models.toml") -> dict[str, ModelSpec]:
    """Return the models in a TOML text, by name.

    Args:
        text: the contents of the file.
        source: the name of the file in errors.

    Raises:
        ModelsError: lists all mistakes. It repeats no value, since a value may be a secret.
    """
    document = parse(text, source, ModelsError)
    mistakes = [f"{dotted(path)}: {what}" if path else what for path, what in mistakes_in(document)]
    if mistakes:
        raise ModelsError(source, mistakes)
    return {
        name: ModelSpec(name, entry.backend, entry.options, entry.replicas, entry.load_timeout)
        for name, entry in _File.model_validate(document).models.items()
    }


def shared_identities(models: Mapping[str, ModelSpec]) -> dict[str, list[str]]:
    """Return the names of models that share a `Model`, by that `Model`.

    A request that names only such a `ModelIdentity` is ambiguous.
    """
    names: dict[str, list[str]] = {}
    for name, spec in models.items():
        names.setdefault(spec.identity, []).append(name)
    return {identity: same for identity, same in names.items() if len(same) > 1}


def mistakes_in(document: dict[str, Any]) -> Iterator[Mistake]:
    """Yield every mistake in a parsed models.toml: the path of its key, and what to fix."""
    yield from _structure(document)
    models = document.get("models")
    if models == {}:
        yield ("models",), _NO_MODELS
    elif isinstance(models, dict):
        for name, entry in models.items():
            yield from _contents(name, entry if isinstance(entry, dict) else {})


def _structure(document: dict[str, Any]) -> Iterator[Mistake]:
    try:
        _File.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        misspelt = {each["loc"][:-1] for each in found if each["type"] == "extra_forbidden"}
        for each in found:
            # A misspelt key also counts as the missing one; the misspelling says more.
            if each["type"] != "missing" or each["loc"][:-1] not in misspelt:
                yield tuple(map(str, each["loc"])), _words(each)


def _contents(name: str, entry: dict[str, Any]) -> Iterator[Mistake]:
    at = ("models", name)
    try:
        check_model_name(name)
    except Invalid as error:
        yield at, str(error)
    backend, options = entry.get("backend"), entry.get("options")
    if isinstance(backend, str) and not is_name(backend):
        yield (*at, "backend"), f"must be 1 to {NAME_LIMIT} printable characters"
    if isinstance(options, dict):
        for path, what in option_mistakes(options):
            yield (*at, "options", *path), what


def _words(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"unknown key; {closest(path[-1], _KNOWN[len(path)])}"
    if error["type"] == "missing":
        return _NO_MODELS if len(path) == 1 else 'missing; add backend = "TYPE"'
    return _WORDS.get(error["type"], error["msg"])
