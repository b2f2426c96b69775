"""Which backends there are, and where their classes live."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backends.model import Model


class Entry(NamedTuple):
    """Where a backend's class is, and the extra that installs what it needs ("": nothing more)."""

    module: str
    cls: str
    extra: str


CATALOGUE = {
    "chat": Entry("backends.chat", "Chat", "chat"),
    "cloud_proxy": Entry("backends.cloud_proxy", "CloudProxy", "cloud-proxy"),
    "detector": Entry("backends.detector", "Detector", "detector"),
    "echo": Entry("backends.echo", "Echo", ""),
    "embedder": Entry("backends.embedder", "Embedder", "embedder"),
    "speaker": Entry("backends.speaker", "Speaker", "speaker"),
    "transcriber": Entry("backends.transcriber", "Transcriber", "transcriber"),
    "vad": Entry("backends.vad", "Vad", "vad"),
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
