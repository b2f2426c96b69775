"""The control plane of a host, the same for both surfaces: LoadModel, Free, Status, Health.

Each function blocks like a plain call and takes the metadata as pairs; the surfaces wrap them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from grpcerrors_backends.host.memory import resident
from grpcerrors_backends.model import BadInput, LoadError
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID

if TYPE_CHECKING:
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_backends.model import Model

log = structlog.get_logger()
Metadata = Iterable[tuple[str, str | bytes]]


class Answer(NamedTuple):
    """A response and the trailing metadata that goes with it."""

    response: Any
    trailers: tuple[tuple[str, str], ...] = ()


def value(metadata: Metadata, key: str) -> str:
    """Return the last value of *key* in *metadata*, or ""."""
    found = ""
    for name, text in metadata:
        if name == key and isinstance(text, str):
            found = text
    return found


class Control:
    """The control plane over *slots* of the backend *name*. Its methods are named as the RPCs."""

    def __init__(self, name: str, slots: Slots[Model, pb.ModelOptions]) -> None:
        self.name = name
        self.boot_id = uuid.uuid4().hex
        self._slots = slots

    def Health(self, _request: pb.HealthMessage, _metadata: Metadata) -> Answer:
        """Answer that the process lives; this says nothing about models."""
        return Answer(pb.Reply(message=b"OK"))

    def LoadModel(self, request: pb.ModelOptions, metadata: Metadata) -> Answer:
        """Load a model. A load that fails is a Result too, one that says what to do."""
        identity = request.Model or value(metadata, MODEL_ID)
        try:
            _must_be_named(identity, metadata)
            version = self._slots.load(identity, request, _generation(metadata))
        except (BadInput, LoadError) as error:
            log.warning("load failed", model=identity, error=str(error))
            return self._failed(str(error))
        except Exception as error:
            log.exception("load failed", model=identity)
            message = (
                f"{self.name} could not load {identity!r}: {type(error).__name__}: {error}; "
                "its log has the traceback"
            )
            return self._failed(message)
        return self._result(f"{identity!r} is loaded", version)

    def Free(self, _request: pb.HealthMessage, metadata: Metadata) -> Answer:
        """Unload the model that the metadata name, or everything."""
        identity = value(metadata, MODEL_ID)
        try:
            generation = _generation(metadata)
        except BadInput as error:
            return self._failed(str(error))
        version, unloaded = self._slots.free(identity, generation)
        if unloaded:
            message = f"unloaded {', '.join(map(repr, unloaded))}"
        else:
            which = repr(identity) if identity else "anything"
            message = f"does not hold {which}" + f" as generation {generation}" * bool(generation)
        return self._result(message, version)

    def Status(self, _request: pb.HealthMessage, metadata: Metadata) -> Answer:
        """Tell how the model that the metadata name is, or the process: BUSY when any model is."""
        identity = value(metadata, MODEL_ID)
        calls = [
            in_flight
            for model, _generation, in_flight in self._slots.inventory().models
            if identity in ("", model)
        ]
        state = pb.StatusResponse.READY
        if not calls:
            state = pb.StatusResponse.UNINITIALIZED
        elif any(calls):
            state = pb.StatusResponse.BUSY
        size = resident()
        memory = pb.MemoryUsageData(total=size, breakdown={"resident": size})
        return Answer(pb.StatusResponse(state=state, memory=memory))

    def _failed(self, message: str) -> Answer:
        answer = self._result(message, self._slots.inventory().version)
        answer.response.success = False
        return answer

    def _result(self, message: str, version: int) -> Answer:
        trailers = ((BOOT_ID, self.boot_id), (INVENTORY_VERSION, str(version)))
        return Answer(pb.Result(message=message, success=True), trailers)


def _must_be_named(identity: str, metadata: Metadata) -> None:
    named = value(metadata, MODEL_ID)
    if named not in ("", identity):
        raise BadInput(f"{MODEL_ID} is {named!r}, Model is {identity!r}: make them equal")


def _generation(metadata: Metadata) -> int:
    text = value(metadata, GENERATION)
    if text and not (text.isascii() and text.isdecimal()):
        raise BadInput(f"{GENERATION} is {text!r}; it has to be a decimal number")
    return int(text or 0)
