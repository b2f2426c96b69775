"""Which model is a request for? Metadata says it, or else the request's `ModelIdentity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError, Message

from protocol import backend_pb2
from protocol.metadata import MODEL_ID
from router.errors import RouteError

if TYPE_CHECKING:

    from router.entities import ModelSpec

Metadata = Sequence[tuple[str, str | bytes]]


class NoModelKey(RouteError):
    """INVALID_ARGUMENT: the request does not say which model it is for, or says two things."""

    reason = "NO_MODEL_KEY"

    def __init__(self, text: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, text)


def identity_field(kind: type[Message]) -> str:
    """Return the field of a request type that names its model, "" when it has none.

    `ModelMetadata` sends a ModelOptions, and `ModelIdentity` equals `ModelOptions.Model`.
    """
    if kind is backend_pb2.ModelOptions:
        return "Model"
    return "ModelIdentity" if "ModelIdentity" in kind.DESCRIPTOR.fields_by_name else ""


class ModelKeys:
    """Finds the routing key of requests, for the models of one catalogue."""

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        self._names = set(models)
        self._by_identity: dict[str, list[str]] = {}
        for name, spec in models.items():
            identity = str(spec.options.get("Model") or name)
            self._by_identity.setdefault(identity, []).append(name)

    def from_metadata(self, metadata: Metadata) -> str:
        """Return the value of `x-model-id`, "" when there is none. Raises NoModelKey for two."""
        found = [value for key, value in metadata if key == MODEL_ID]
        if not found:
            return ""
        if len(found) > 1 and len(set(found)) > 1:
            raise NoModelKey(f"{MODEL_ID} names {len(found)} models; send it once")
        return str(found[0])

    def from_request(self, method: str, kind: type[Message] | None, request: bytes) -> str:
        """Return the model that the serialized `request` names by itself.

        `kind` is its message type, None when it is not known or not to be looked into. Raises
        NoModelKey when the request names no model, or several models answer to the identity.
        """
        field = "" if kind is None else identity_field(kind)
        if kind is None or not field:
            raise NoModelKey(f"which model is {method} for? set the metadata key {MODEL_ID}")
        try:
            identity: str = getattr(kind.FromString(request), field)
        except DecodeError as error:
            name = kind.DESCRIPTOR.full_name
            text = f"the request of {method} is not a {name}; send one, or set {MODEL_ID}"
            raise NoModelKey(text) from error
        if not identity:
            text = f"which model is {method} for? set {field} or the metadata key {MODEL_ID}"
            raise NoModelKey(text)
        return self._named(identity)

    def _named(self, identity: str) -> str:
        names = self._by_identity.get(identity, [])
        if len(names) == 1:
            return names[0]
        if names:
            known = " and ".join(f'"{name}"' for name in names)
            raise NoModelKey(f'{known} are both loaded as "{identity}"; set {MODEL_ID} to one')
        if identity in self._names:
            # Its backend would refuse: it was loaded under another identity.
            text = f'"{identity}" is loaded as another Model; send that, or set {MODEL_ID} alone'
            raise NoModelKey(text)
        return identity
