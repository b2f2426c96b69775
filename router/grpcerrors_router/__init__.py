"""A router for model backends that heals itself on the typed "model not loaded" error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpcerrors_router.calls.channel import InFlightTrackingClient
    from grpcerrors_router.clock import Clock, SystemClock
    from grpcerrors_router.config.models_toml import ModelsError, parse_models, read_models
    from grpcerrors_router.entities import Heartbeat, Held, ModelSpec
    from grpcerrors_router.errors import (
        InUse,
        LoadFailed,
        LoadTimeout,
        NoCapacity,
        Overloaded,
        RegistryUnavailable,
        RouteError,
        UnknownModel,
    )
    from grpcerrors_router.events import Events
    from grpcerrors_router.nodes.client import NodeClient
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
    "ModelsError",
    "NoCapacity",
    "NodeClient",
    "NodeRegistry",
    "Overloaded",
    "RegistryUnavailable",
    "RouteError",
    "RoutingTable",
    "Settings",
    "SmartRouter",
    "SystemClock",
    "UnknownModel",
    "parse_models",
    "read_models",
]

_NAMES = {
    "calls.channel": ("InFlightTrackingClient",),
    "clock": ("Clock", "SystemClock"),
    "config.models_toml": ("ModelsError", "parse_models", "read_models"),
    "entities": ("Heartbeat", "Held", "ModelSpec"),
    "errors": (
        "InUse",
        "LoadFailed",
        "LoadTimeout",
        "NoCapacity",
        "Overloaded",
        "RegistryUnavailable",
        "RouteError",
        "UnknownModel",
    ),
    "events": ("Events",),
    "nodes.client": ("NodeClient",),
    "registry.registry": ("NodeRegistry",),
    "router": ("SmartRouter",),
    "settings": ("Settings",),
    "view.table": ("RoutingTable",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name on first use: a command such as `status` needs few of them."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
