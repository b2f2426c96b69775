"""Metadata keys of the protocol, for values that its messages have no field for.

A peer that does not know a key ignores it.
"""

from __future__ import annotations

from typing import Final

MODEL_ID: Final = "x-model-id"
"""The name by which calls reach a model, on LoadModel, Free, Status and inference calls.
`ModelOptions.Model` and `ModelIdentity` carry the backend's own name of the model."""

GENERATION: Final = "x-generation"
"""A decimal number from 0 to 2^63-1. On LoadModel, the generation of this load: a host refuses a
generation lower than one that it has seen for the model. On Free, the only generation to unload: if
the host holds another one, nothing happens."""

BOOT_ID: Final = "x-boot-id"
"""Trailing metadata of LoadModel and Free: identifies one run of the host's process."""

INVENTORY_VERSION: Final = "x-inventory-version"
"""Trailing metadata of LoadModel and Free: the inventory version after the change, a decimal number
that increases with every load and unload within one run of the process."""

REQUEST_ID: Final = "x-request-id"
"""A caller's name of its request. Logs, traces and the heal log show it; without one, the router
makes one up when it has something to log."""

HOP: Final = "grpcerrors-hop"
"""Identifies a router that has forwarded this request; each router on the way adds one value. A
router that finds its own value refuses the request, because a node's address leads back to it."""
