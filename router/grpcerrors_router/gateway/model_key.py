"""The routing key of a request: its `x-model-id`, or else the model that the request names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError, Message

from grpcerrors_protocol import backend_pb2, inference_pb2
from grpcerrors_protocol.metadata import MODEL_ID
from grpcerrors_router.errors import NoModelKey

if TYPE_CHECKING:
    from grpcerrors_router.config.models import Models

Metadata = Sequence[tuple[str, str | bytes]]


_NAME_FIELDS: Mapping[type[Message], str] = {
    inference_pb2.ModelInferRequest: "model_name",
    inference_pb2.ModelMetadataRequest: "name",
    inference_pb2.ModelReadyRequest: "name",
}
"""By request type of the Open Inference Protocol: the field that names the model. Its value is a
model's name or its identity; in LocalAI's protocol it is only the identity."""


def identity_field(kind: type[Message]) -> str:
    """Return the field of a request type that names its model; "" when it has none.

    The request of LocalAI's `ModelMetadata` is a ModelOptions, whose `Model` is the
    `ModelIdentity`.
    """
    if kind is backend_pb2.ModelOptions:
        return "Model"
    found = "ModelIdentity" if "ModelIdentity" in kind.DESCRIPTOR.fields_by_name else ""
    return _NAME_FIELDS.get(kind, found)


class ModelKeys:
    """Finds the routing keys of requests for the models of models.toml."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def of(self, method: str, kind: type[Message] | None, metadata: Metadata, data: bytes) -> str:
        """Return the model that a call is for.

        Args:
            method: the path of the RPC, for errors.
            kind: the type of the request; None when `data` must not be parsed.
            metadata: the call's metadata.
            data: the serialized request.

        Raises:
            NoModelKey: neither metadata nor request name a model, or they name different ones. A
                node would answer that with a mismatch, and the caller's mistake would cost a
                replica.
        """
        named = self.from_metadata(metadata)
        field = "" if kind is None else identity_field(kind)
        if kind is None or not field:
            if not named:
                raise NoModelKey(f"which model is {method} for? set the metadata key {MODEL_ID}")
            return named
        try:
            identity: str = getattr(kind.FromString(data), field)
        except DecodeError as error:
            if named:
                return named
            name = kind.DESCRIPTOR.full_name
            text = f"the request of {method} is not a {name}; send one, or set {MODEL_ID}"
            raise NoModelKey(text) from error
        by_name = kind in _NAME_FIELDS
        if named and identity not in {
            "",
            self._models.identities.get(named, named),
            named * by_name,
        }:
            raise NoModelKey(
                f'{MODEL_ID} is "{named}", but {field} is "{identity}"; send one model'
            )
        if not named and not identity:
            text = f"which model is {method} for? set {field} or the metadata key {MODEL_ID}"
            raise NoModelKey(text)
        if by_name and identity in self._models:
            return named or identity
        return named or self._named(identity)

    def from_metadata(self, metadata: Metadata) -> str:
        """Return the value of `x-model-id`; "" when there is none. Raises NoModelKey for two."""
        found = [value for key, value in metadata if key == MODEL_ID]
        if not found:
            return ""
        if len(found) > 1 and len(set(found)) > 1:
            raise NoModelKey(f"{MODEL_ID} names {len(found)} models; send it once")
        return str(found[0])

    def _named(self, identity: str) -> str:
        names = self._models.named.get(identity, [])
        if len(names) == 1:
            return names[0]
        if names:
            known = " and ".join(f'"{name}"' for name in names)
            raise NoModelKey(f'{known} are both loaded as "{identity}"; set {MODEL_ID} to one')
        if identity in self._models:  # the backend knows the model by another name
            text = f'"{identity}" is loaded as another Model; send that, or set {MODEL_ID} alone'
            raise NoModelKey(text)
        return identity
