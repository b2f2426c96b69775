"""Metadata keys that travel beside the messages of the protocol.

A peer that does not know them ignores them; one that does can tell models, loads and processes
apart where the messages have no field for it.
"""

from __future__ import annotations

from typing import Final

MODEL_ID: Final = "x-model-id"
"""Names the model that a call is about: any inference call, and LoadModel, Free or Status on a
host that holds several."""

GENERATION: Final = "x-generation"
"""A decimal number. On LoadModel: the generation of this load. On Free: unload only the load of
this generation; when another is held, nothing happens."""

BOOT_ID: Final = "x-boot-id"
"""Trailing metadata of LoadModel and Free: names this life of the host's process."""

INVENTORY_VERSION: Final = "x-inventory-version"
"""Trailing metadata of LoadModel and Free: the host's inventory counter after the change, a decimal
number that grows with every load and unload within one boot."""

HOP: Final = "grpcerrors-hop"
"""Names a router that has forwarded this request, once for each router on the way. A router that
finds itself among them refuses the request: a node's address leads back to it."""
