"""A router for model backends that heals itself on the typed "model not loaded" error."""

from __future__ import annotations

from router.clock import Clock, SystemClock
from router.entities import Heartbeat, Held, ModelSpec
from router.errors import (
    InUse,
    LoadFailed,
    LoadTimeout,
    NoCapacity,
    RegistryUnavailable,
    RouteError,
    UnknownModel,
)
from router.events import Events
from router.healing.tracking import InFlightTrackingClient
from router.registry.node_registry import NodeRegistry
from router.routing.table import RoutingTable
from router.settings import Settings
from router.smart import SmartRouter

__all__ = [
    "Clock",
    "Events",
    "Heartbeat",
    "Held",
    "InFlightTrackingClient",
    "InUse",
    "LoadFailed",
    "LoadTimeout",
    "ModelSpec",
    "NoCapacity",
    "NodeRegistry",
    "RegistryUnavailable",
    "RouteError",
    "RoutingTable",
    "Settings",
    "SmartRouter",
    "SystemClock",
    "UnknownModel",
]
