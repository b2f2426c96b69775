"""What slots hold, what is being loaded into them, and why a load is refused."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar


class Closable(Protocol):
    """What can be held: it frees its memory on close."""

    def close(self) -> None:
        """Free the memory."""


ModelT = TypeVar("ModelT", bound=Closable)
OptionsT = TypeVar("OptionsT")


class NotHeldError(LookupError):
    """The model asked for is not held; the argument is its identity."""


class SlotsBusyError(Exception):
    """No slot became free in time. The text says what is in use."""


class SupersededError(Exception):
    """A load carries a lower generation than an earlier load of the same model."""

    def __init__(self, identity: str, generation: int, newest: int) -> None:
        super().__init__(identity, generation, newest)
        self.identity, self.generation, self.newest = identity, generation, newest


@dataclass(eq=False)
class Held(Generic[ModelT, OptionsT]):
    """A loaded model in its slot. `alias` is a second name for it, "" when it has none."""

    identity: str
    alias: str
    options: OptionsT
    generation: int
    model: ModelT
    last_used: float
    in_flight: int = 0
    leaving: bool = False
    undrained: bool = False  # calls in flight have outlasted a drain


@dataclass(eq=False)
class Load(Generic[OptionsT]):
    """A load under way; `outcome` becomes its inventory version."""

    alias: str
    options: OptionsT
    generation: int
    deadline: float
    outcome: Future[int] = field(default_factory=Future)


class Inventory(NamedTuple):
    """What is held: (identity, generation, calls in flight) each, as of a version."""

    version: int
    models: tuple[tuple[str, int, int], ...]
