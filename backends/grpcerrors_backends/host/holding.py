"""The data of model slots: held models, running loads, and the reasons to refuse a load."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar


class Closable(Protocol):
    """Something that slots can hold: `close` frees its memory."""

    def close(self) -> None:
        """Free the memory."""


ModelT = TypeVar("ModelT", bound=Closable)
OptionsT = TypeVar("OptionsT")


class NotHeldError(LookupError):
    """The requested model is not held. The argument is its identity."""


class LoadingError(NotHeldError):
    """The requested model is being loaded."""


class SlotsBusyError(Exception):
    """No slot became free in time. The text lists what the slots are used for."""


class SupersededError(Exception):
    """A load has a lower generation than an earlier load of the same model."""

    def __init__(self, identity: str, generation: int, newest: int) -> None:
        super().__init__(identity, generation, newest)
        self.identity, self.generation, self.newest = identity, generation, newest


@dataclass(eq=False)
class Held(Generic[ModelT, OptionsT]):
    """A loaded model in its slot. `alias` is a second name of it, "" if it has none."""

    identity: str
    alias: str
    options: OptionsT
    generation: int
    model: ModelT
    last_used: float
    in_flight: int = 0
    leaving: bool = False
    undrained: bool = False  # its calls have outlasted a drain


@dataclass(eq=False)
class Load(Generic[OptionsT]):
    """A running load. The result of `outcome` is the inventory version after it."""

    alias: str
    options: OptionsT
    generation: int
    deadline: float
    outcome: Future[int] = field(default_factory=Future)


class Inventory(NamedTuple):
    """The held models at one version, each as (identity, generation, calls in flight)."""

    version: int
    models: tuple[tuple[str, int, int], ...]
