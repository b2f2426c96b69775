"""A router for model backends that heals itself on the typed "model not loaded" error."""

from __future__ import annotations

from grpcerrors_router.calls.channel import InFlightTrackingClient
from grpcerrors_router.clock import Clock, SystemClock
from grpcerrors_router.entities import Heartbeat, Held, ModelSpec
from grpcerrors_router.errors import (
    InUse,
    LoadFailed,
    LoadTimeout,
    NoCapacity,
    RegistryUnavailable,
    RouteError,
    UnknownModel,
)
from grpcerrors_router.events import Events
from grpcerrors_router.registry.registry import NodeRegistry
from grpcerrors_router.router import SmartRouter
from grpcerrors_router.settings import Settings
from grpcerrors_router.view.table import RoutingTable

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
