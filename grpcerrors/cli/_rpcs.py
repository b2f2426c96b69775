"""What the command knows about LocalAI's backend protocol (August 2026)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from grpcerrors._guard.protocol import LOCALAI

__all__ = ["CONTROL_PLANE", "INFERENCE", "RESULTS", "SERVICE", "is_loaded", "refusal_inside"]

SERVICE = LOCALAI.service
CONTROL_PLANE = frozenset((*LOCALAI.control, *LOCALAI.load, *LOCALAI.unload))

# The RPCs that need a loaded model and change nothing.
INFERENCE = frozenset(LOCALAI.inference)

# Those among them that answer with a `Result`.
RESULTS = frozenset(
    {
        "Generate3D",
        "GenerateImage",
        "GenerateVideo",
        "SoundGeneration",
        "TTS",
        "UpscaleImage",
    }
)

# States of `StatusResponse` in which a model is loaded.
_BUSY, _READY = 1, 2


def is_loaded(status: bytes) -> bool:
    """Whether a serialized `StatusResponse` reports a loaded model."""
    return getattr(_decode("StatusResponse", status), "state", 0) in (_BUSY, _READY)


def refusal_inside(service: str, rpc: str, message: bytes) -> str | None:
    """Return the text of a `Result` whose `success` is false; None for any other response."""
    if service != SERVICE or rpc not in RESULTS:
        return None
    result = _decode("Result", message)
    return None if result is None or result.success else str(result.message)


def _decode(kind: str, message: bytes) -> Any:
    try:
        return _classes()[kind].FromString(message)
    except DecodeError:
        return None


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    """Make the classes of two messages, with only the fields that are read, in a separate pool.

    Generated code of the protocol would clash with what a process may have loaded already.
    """
    field = descriptor_pb2.FieldDescriptorProto
    fields = {
        "StatusResponse": {"state": field.TYPE_INT32},
        "Result": {"message": field.TYPE_STRING, "success": field.TYPE_BOOL},
    }
    file = descriptor_pb2.FileDescriptorProto(name="check.proto", package="check", syntax="proto3")
    for kind, of in fields.items():
        made = file.message_type.add(name=kind)
        for number, (name, form) in enumerate(of.items(), 1):
            made.field.add(name=name, number=number, type=form, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"check.{kind}"))
        for kind in fields
    }
