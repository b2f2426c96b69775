"""The quarantine, which stops a node from loading a model that it keeps losing (invariant 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings


@dataclass(slots=True)
class _Case:
    drops: int = 0
    last: float = 0.0
    until: float = 0.0


class Quarantine:
    """Keeps a model off a node on which it is dropped again and again without serving.

    After `storm_drops` drops in a row the node gets no loads of the model for `storm_base` seconds;
    each further drop doubles that, up to `storm_max`.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._cases: dict[tuple[str, str], _Case] = {}

    def dropped(self, node: str, model: str, *, has_served: bool) -> None:
        """Count a drop. If the replica `has_served` a request, the count starts again."""
        now = self._clock.monotonic()
        self._prune(now)
        case = self._cases.setdefault((node, model), _Case())
        case.drops = 1 if has_served else case.drops + 1
        case.last = now
        over = case.drops - self._settings.storm_drops
        if over >= 0:
            pause = min(self._settings.storm_base * 2.0 ** min(over, 30), self._settings.storm_max)
            case.until = now + pause

    def cases(self) -> list[tuple[str, str, float, int]]:
        """Return the nodes and models that are kept apart, until when, and after how many drops."""
        now = self._clock.monotonic()
        return [
            (node, model, case.until, case.drops)
            for (node, model), case in self._cases.items()
            if case.until > now
        ]

    def forgive(self, node: str, model: str) -> None:
        """Forget the drops of a model on a node, so that the node may load it again."""
        self._cases.pop((node, model), None)

    def left(self, node: str, model: str) -> float:
        """Return the seconds until the node may load the model again; 0 if it may now."""
        case = self._cases.get((node, model))
        return max(0.0, case.until - self._clock.monotonic()) if case is not None else 0.0

    def _prune(self, now: float) -> None:
        """Forget cases that are older than twice the longest pause."""
        old = now - 2 * self._settings.storm_max
        for key in [key for key, case in self._cases.items() if case.last < old]:
            del self._cases[key]
