"""Which backends there are, and where their classes live."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from grpcerrors_backends.model import Model


class Entry(NamedTuple):
    """Where a backend's class is, and the extra that installs what it needs ("": nothing more)."""

    module: str
    cls: str
    extra: str


CATALOGUE = {
    "chat": Entry("grpcerrors_backends.chat", "Chat", "chat"),
    "cloud_proxy": Entry("grpcerrors_backends.cloud_proxy", "CloudProxy", "cloud-proxy"),
    "detector": Entry("grpcerrors_backends.detector", "Detector", "detector"),
    "echo": Entry("grpcerrors_backends.echo", "Echo", ""),
    "embedder": Entry("grpcerrors_backends.embedder", "Embedder", "embedder"),
    "speaker": Entry("grpcerrors_backends.speaker", "Speaker", "speaker"),
    "transcriber": Entry("grpcerrors_backends.transcriber", "Transcriber", "transcriber"),
    "vad": Entry("grpcerrors_backends.vad", "Vad", "vad"),
}


class UnknownBackendError(Exception):
    """There is no such backend. The text lists those that there are."""


class MissingExtraError(Exception):
    """The backend's dependencies are not installed. The text says how to install them."""


def find(name: str) -> type[Model]:
    """Return the class of the backend *name*: a name of the catalogue or "module:Class".

    Raises UnknownBackendError and MissingExtraError.
    """
    entry = CATALOGUE.get(name)
    if entry is None and ":" in name:
        module, _, cls = name.partition(":")
        entry = Entry(module, cls, "")
    if entry is None:
        message = f'no backend {name!r}; there are {", ".join(CATALOGUE)}, or give "module:Class"'
        raise UnknownBackendError(message)
    try:
        found: type[Model] = getattr(importlib.import_module(entry.module), entry.cls)
    except ModuleNotFoundError as error:
        if not entry.extra:
            raise UnknownBackendError(
                f"cannot import {entry.module}: no module named {error.name!r}"
            ) from error
        message = (
            f"{name} needs {error.name}, which is not installed: "
            f"pip install 'grpcerrors-backends[{entry.extra}]'"
        )
        raise MissingExtraError(message) from error
    except AttributeError as error:
        raise UnknownBackendError(f"{entry.module} has no class {entry.cls!r}") from error
    return found
