"""Limits reloads: what a node keeps losing stays away from it for a while (invariant 11)."""

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
    """Keeps a model away from a node where it is dropped again and again without ever working."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._cases: dict[tuple[str, str], _Case] = {}

    def dropped(self, node: str, model: str, *, has_served: bool) -> None:
        """Count a drop; `has_served` when the load had served a request before."""
        now = self._clock.monotonic()
        self._prune(now)
        case = self._cases.setdefault((node, model), _Case())
        case.drops = 1 if has_served else case.drops + 1
        case.last = now
        over = case.drops - self._settings.storm_drops
        if over >= 0:
            pause = min(self._settings.storm_base * 2.0 ** min(over, 30), self._settings.storm_max)
            case.until = now + pause

    def worked(self, node: str, model: str) -> None:
        """A request succeeded there: forget the drops."""
        self._cases.pop((node, model), None)

    def left(self, node: str, model: str) -> float:
        """Seconds until the node may be tried again with the model, 0 when it may be now."""
        case = self._cases.get((node, model))
        return max(0.0, case.until - self._clock.monotonic()) if case is not None else 0.0

    def _prune(self, now: float) -> None:
        """Forget cases whose longest possible pause is over twice."""
        old = now - 2 * self._settings.storm_max
        for key in [key for key, case in self._cases.items() if case.last < old]:
            del self._cases[key]
