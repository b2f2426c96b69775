"""The models that a router serves, which can be replaced while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpcerrors_router.entities import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Changes:
    """The names of the models that were added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Models(dict[str, ModelSpec]):
    """The models by name. Only `replace` changes them.

    Attributes:
        retired: models that were removed, and that nodes may still hold. They are refused.
        identities: the identity of each model, by its name.
        named: the names of the models, by their identity.
    """

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        super().__init__()
        self.retired: set[str] = set()
        self.identities: dict[str, str] = {}
        self.named: dict[str, list[str]] = {}
        self.replace(models)

    def replace(self, models: Mapping[str, ModelSpec]) -> Changes:
        """Take over other models, and return what changed."""
        both = self.keys() & models.keys()
        changes = Changes(
            tuple(sorted(models.keys() - self.keys())),
            tuple(sorted(name for name in both if self[name] != models[name])),
            tuple(sorted(self.keys() - models.keys())),
        )
        self.clear()
        self.update(models)
        self.retired = (self.retired | {*changes.removed}) - models.keys()
        self.identities = {name: spec.identity for name, spec in models.items()}
        self.named = {}
        for name, identity in self.identities.items():
            self.named.setdefault(identity, []).append(name)
        return changes
