"""Weights that come inside a data package: found without importing it, whose code may want more."""

from __future__ import annotations

from importlib import util
from pathlib import Path

from grpcerrors_backends.model import LoadError


def weights(package: str, pattern: str, *, install: str) -> Path:
    """Return the file that *pattern* matches inside the installed *package*.

    Raises LoadError, saying to run *install*, when the package or the file is missing.
    """
    spec = util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).rglob(pattern)):
            return path
    message = f"the weights {pattern} of {package} are not installed: {install}"
    raise LoadError(message)
