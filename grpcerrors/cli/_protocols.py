"""The protocols whose backends can be checked: which RPCs to call, and how to read the answers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from grpcerrors._guard.protocol import KSERVE, LOCALAI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpcerrors import Protocol

# States of `StatusResponse` in which a model is loaded.
_BUSY, _READY = 1, 2


class Known(NamedTuple):
    """A protocol, and what the command does with it.

    Attributes:
        name: what --protocol calls it.
        protocol: its RPCs.
        called: those that need a model and change nothing.
        asked: those that must answer without a model, and change nothing either.
        loaded: the RPC among them that says whether a model is loaded.
        named: the RPCs whose first field is the model's name; without them it goes into a header.
        guard: the Python that makes a backend conform.
    """

    name: str
    protocol: Protocol
    called: frozenset[str]
    asked: tuple[str, ...]
    loaded: str
    named: Mapping[str, str]
    guard: str

    @property
    def rpcs(self) -> frozenset[str]:
        """The names of all its RPCs."""
        of = self.protocol
        return frozenset((*of.load, *of.unload, *of.inference, *of.control))

    def request(self, rpc: str, model: str) -> bytes:
        """Return the message to send: empty bytes are a valid message of any type."""
        return _class("Named")(name=model).SerializeToString() if rpc in self.named else b""


PROTOCOLS = {
    known.name: known
    for known in (
        Known(
            "localai",
            LOCALAI,
            called=frozenset(LOCALAI.inference),
            asked=("Health", "Status"),
            loaded="Status",
            named={},
            guard="ModelGuard(NAME)",
        ),
        Known(
            "kserve",
            KSERVE,
            # ModelMetadata and ModelConfig may be answered without loading the model.
            called=frozenset({"ModelInfer", "ModelStreamInfer"}),
            asked=("ServerLive", "ServerReady", "ModelReady"),
            loaded="ModelReady",
            named={
                "ModelInfer": "model_name",
                "ModelStreamInfer": "model_name",
                "ModelReady": "name",
            },
            guard="ModelGuard(NAME, protocol=KSERVE)",
        ),
    )
}


def is_loaded(rpc: str, answer: bytes) -> bool:
    """Whether the answer of an RPC that asks for it reports a loaded model."""
    if rpc == "ModelReady":
        return bool(getattr(_decoded("ModelReadyResponse", answer), "ready", False))
    return getattr(_decoded("StatusResponse", answer), "state", 0) in (_BUSY, _READY)


# The RPCs that answer with a `Result`.
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


def error_inside(known: Known | None, rpc: str, answer: bytes) -> str | None:
    """Return the text of an error inside a response; None for any other response."""
    if known is PROTOCOLS["localai"] and rpc in RESULTS:
        result = _decoded("Result", answer)
        return None if result is None or result.success else str(result.message)
    if known is PROTOCOLS["kserve"] and rpc == "ModelStreamInfer":
        text = getattr(_decoded("ModelStreamInferResponse", answer), "error_message", "")
        return str(text) or None
    return None


def _decoded(kind: str, message: bytes) -> Any:
    try:
        return _class(kind).FromString(message)
    except DecodeError:
        return None


def _class(kind: str) -> Any:
    return _classes()[kind]


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    """Make the classes of some messages, with only the fields that are used, in a separate pool.

    Generated code of the protocols would clash with what a process may have loaded already.
    """
    field = descriptor_pb2.FieldDescriptorProto
    fields = {
        "StatusResponse": {"state": field.TYPE_INT32},
        "Result": {"message": field.TYPE_STRING, "success": field.TYPE_BOOL},
        "ModelReadyResponse": {"ready": field.TYPE_BOOL},
        "ModelStreamInferResponse": {"error_message": field.TYPE_STRING},
        "Named": {"name": field.TYPE_STRING},  # ModelInferRequest and ModelReadyRequest
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
