"""Reading the configuration again while the router runs: by SIGHUP, or by an operator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from grpcerrors_router.config.models import Changes
from grpcerrors_router.config.models_toml import read_models, shared_identities
from grpcerrors_router.config.toml_file import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from grpcerrors_router.entities import ModelSpec
    from grpcerrors_router.router import SmartRouter

_log = structlog.get_logger("router")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did.

    Attributes:
        mistakes: what is wrong with the files; if there are any, nothing has changed.
        models: what changed.
        tokens: whether the tokens were read, too.
    """

    mistakes: tuple[str, ...] = ()
    models: Changes = field(default_factory=Changes)
    tokens: bool = False


class Reloader:
    """Reads models.toml and the tokens again.

    Args:
        router: gets the models.
        models: the file models.toml.
        read_tokens: reads the tokens and returns a function that puts them into effect; it raises
            FileError for a file with mistakes. None without tokens.
    """

    def __init__(
        self,
        router: SmartRouter,
        models: Path,
        read_tokens: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        self._router = router
        self._path = models
        self._read_tokens = read_tokens
        self._lock = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Read the files, and put them into effect if none of them has a mistake."""
        async with self._lock:
            return await self._reload()

    async def _reload(self) -> Reloaded:
        mistakes: list[str] = []
        models: Mapping[str, ModelSpec] = {}
        apply: Callable[[], None] | None = None
        try:
            models = await asyncio.to_thread(read_models, self._path)
        except FileError as error:
            mistakes += [f"{error.source}: {mistake}" for mistake in error.mistakes]
        if self._read_tokens is not None:
            try:
                apply = await asyncio.to_thread(self._read_tokens)
            except FileError as error:
                mistakes += [f"{error.source}: {mistake}" for mistake in error.mistakes]
        if mistakes:
            _log.error("the configuration was not reloaded: it has mistakes", mistakes=mistakes)
            return Reloaded(tuple(mistakes))
        if apply is not None:
            apply()
        changes = self._router.operations.replace_models(models)
        _log.info(
            "reloaded the configuration",
            added=changes.added,
            changed=changes.changed,
            removed=changes.removed,
        )
        warn_of_shared_identities(models)
        return Reloaded((), changes, apply is not None)


def warn_of_shared_identities(models: Mapping[str, ModelSpec]) -> None:
    """Log which models a request must name by x-model-id."""
    for identity, names in shared_identities(models).items():
        _log.warning(
            "models share one Model: requests must name one of them by x-model-id",
            Model=identity,
            models=names,
        )
