"""Lookup of weights inside a data package, without importing it."""

from __future__ import annotations

from importlib import util
from pathlib import Path

from grpcerrors_backends.model import LoadError
from grpcerrors_backends.registry import how_to_install


def weights(package: str, pattern: str, *, extra: str) -> Path:
    """Return the file that *pattern* matches inside the installed *package* of an *extra*.

    Raises LoadError, saying how to install the extra, when the package or the file is missing.
    """
    # The code of a data package may need packages that are not installed, so it is not imported.
    spec = util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).rglob(pattern)):
            return path
    message = f"the weights {pattern} of {package} are not installed: {how_to_install(extra)}"
    raise LoadError(message)
