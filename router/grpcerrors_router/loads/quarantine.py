"""Limits reloads: what a node keeps losing stays away from it for a while (invariant 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpcerrors_router.clock import Clock
    from grpcerrors_router.settings import Settings


class Quarantine:
    """Keeps a model away from a node where it is dropped again and again without ever working."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._drops: dict[tuple[str, str], int] = {}
        self._until: dict[tuple[str, str], float] = {}

    def dropped(self, node: str, model: str, *, has_served: bool) -> None:
        """Count a drop; `has_served` when the load had served a request before."""
        key = (node, model)
        drops = 1 if has_served else self._drops.get(key, 0) + 1
        self._drops[key] = drops
        over = drops - self._settings.storm_drops
        if over >= 0:
            pause = min(self._settings.storm_base * 2.0 ** min(over, 30), self._settings.storm_max)
            self._until[key] = self._clock.monotonic() + pause

    def worked(self, node: str, model: str) -> None:
        """A request succeeded there: start counting anew."""
        self._drops.pop((node, model), None)
        self._until.pop((node, model), None)

    def left(self, node: str, model: str) -> float:
        """Seconds until the node may be tried again with the model, 0 when it may be now."""
        until = self._until.get((node, model))
        return max(0.0, until - self._clock.monotonic()) if until is not None else 0.0
