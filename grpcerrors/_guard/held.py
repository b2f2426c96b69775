"""The trailer by which a guard vouches that it held the model when a handler failed."""

from __future__ import annotations

from grpcerrors import _wire

_LIMIT = 255  # bytes of the value
_UNNAMED = "1"  # the value for a model without an identity


def held_trailer(model: str) -> tuple[str, str]:
    """Return the trailer for a model's identity, which may be any string, "" if it has none.

    The identity travels percent-encoded: as many whole characters as fit into 255 bytes.
    """
    from urllib.parse import quote  # noqa: PLC0415 - rarely needed, and slow to import

    # Spaces are encoded too: a header's value neither begins nor ends with one.
    safe = _wire.UNESCAPED.replace(b" ", b"")
    text = _wire.cut(model, _LIMIT)
    while len(value := quote(text, safe=safe)) > _LIMIT:
        text = text[:-1]
    return _wire.HELD_KEY, value or _UNNAMED
