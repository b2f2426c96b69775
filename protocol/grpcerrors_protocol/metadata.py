"""Metadata keys of the protocol, for what its messages have no field for.

A peer that does not know them ignores them.
"""

from __future__ import annotations

from typing import Final

MODEL_ID: Final = "x-model-id"
"""The name by which calls reach a model: on LoadModel, Free, Status and any inference call.
`ModelOptions.Model` and `ModelIdentity` are what the backend itself calls the model."""

GENERATION: Final = "x-generation"
"""A decimal number from 0 to 2^63-1. On LoadModel: the generation of this load; a host refuses a
lower one than it has seen for the model. On Free: unload only the load of this generation; when
another is held, nothing happens."""

BOOT_ID: Final = "x-boot-id"
"""Trailing metadata of LoadModel and Free: names this life of the host's process."""

INVENTORY_VERSION: Final = "x-inventory-version"
"""Trailing metadata of LoadModel and Free: the host's inventory counter after the change, a decimal
number that grows with every load and unload within one boot."""

HOP: Final = "grpcerrors-hop"
"""Names a router that has forwarded this request, once for each router on the way. A router that
finds itself among them refuses the request: a node's address leads back to it."""
