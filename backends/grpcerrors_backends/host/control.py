"""The control plane of a host: LoadModel, Free, Status and Health, on sync and on aio servers.

The methods block; an aio server runs those that may wait in a thread. They refuse a call by raising
a ContractError.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from grpcerrors import Condition, ContractError
from grpcerrors_backends.host.holding import SlotsBusyError, SupersededError
from grpcerrors_backends.host.memory import resident
from grpcerrors_backends.host.refusals import INVALID_METADATA, SLOTS_BUSY, SUPERSEDED_LOAD
from grpcerrors_backends.model import BadInput, LoadError
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.metadata import BOOT_ID, GENERATION, INVENTORY_VERSION, MODEL_ID

if TYPE_CHECKING:
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_backends.model import Model

log = structlog.get_logger()
Metadata = Iterable[tuple[str, str | bytes]]

WAITING_LOADS: Final = 64
"""Limit of LoadModel calls that run or wait at the same time."""

_LARGEST = 2**63 - 1  # a generation is a signed 64-bit integer in every database


class Call(NamedTuple):
    """The metadata of a control-plane call, and its *timeout* in seconds (infinity for none)."""

    metadata: tuple[tuple[str, str | bytes], ...] = ()
    timeout: float = math.inf


class Answer(NamedTuple):
    """A response and its trailing metadata."""

    response: Any
    trailers: tuple[tuple[str, str], ...] = ()


def value(metadata: Metadata, key: str) -> str:
    """Return the last text value of *key* in *metadata*, "" if there is none."""
    found = ""
    for name, text in metadata:
        if name == key and isinstance(text, str):
            found = text
    return found


class Control:
    """The control plane of the backend *name* over *slots*, with one method for each RPC.

    The metadata key `x-model-id` of LoadModel is the name by which calls reach the model.
    `ModelOptions.Model` is what the backend loads and what requests carry as `ModelIdentity`.
    Without the key, the name is `Model`.
    """

    def __init__(self, name: str, slots: Slots[Model, pb.ModelOptions]) -> None:
        self.name = name
        self.boot_id = uuid.uuid4().hex
        self._slots = slots
        self._loads = threading.Semaphore(WAITING_LOADS)

    def Health(self, _request: pb.HealthMessage, _call: Call) -> Answer:
        """Answer that the process is alive, with or without a model."""
        return Answer(pb.Reply(message=b"OK"))

    def LoadModel(self, request: pb.ModelOptions, call: Call) -> Answer:
        """Load a model. If the load fails, return a Result whose message says what to do.

        Raises ContractError with INVALID_METADATA, SUPERSEDED_LOAD or SLOTS_BUSY.
        """
        generation = self._generation(call)
        identity = value(call.metadata, MODEL_ID) or request.Model
        if not self._loads.acquire(blocking=False):
            problem = f"{WAITING_LOADS} loads are already running or waiting; try again later"
            raise self._refusal(SLOTS_BUSY, problem)
        try:
            version = self._slots.load(
                identity,
                request,
                generation,
                alias=request.Model,
                timeout=call.timeout,
            )
        except SupersededError as error:
            problem = (
                f"load {error.generation} of {identity!r} arrived after load {error.newest}, "
                "which replaces it"
            )
            raise self._refusal(SUPERSEDED_LOAD, problem) from None
        except SlotsBusyError as error:
            problem = f"cannot load {identity!r} now: {error}; try again later, or increase --slots"
            raise self._refusal(SLOTS_BUSY, problem) from None
        except (BadInput, LoadError) as error:
            log.warning("load failed", model=identity, generation=generation, error=str(error))
            return self._failed(str(error))
        except Exception as error:
            log.exception("load failed", model=identity, generation=generation)
            message = (
                f"{self.name} could not load {identity!r}: {type(error).__name__}: {error}; "
                "see its log for the traceback"
            )
            return self._failed(message)
        finally:
            self._loads.release()
        return self._result(f"{identity!r} is loaded", version)

    def Free(self, _request: pb.HealthMessage, call: Call) -> Answer:
        """Unload the model that the metadata names, or all models if it names none.

        Raises ContractError with INVALID_METADATA.
        """
        identity = value(call.metadata, MODEL_ID)
        generation = self._generation(call)
        version, unloaded = self._slots.free(identity, generation)
        if unloaded:
            message = f"unloaded {', '.join(map(repr, unloaded))}"
        else:
            which = repr(identity) if identity else "anything"
            message = f"does not hold {which}" + f" as generation {generation}" * bool(generation)
        return self._result(message, version)

    def Status(self, _request: pb.HealthMessage, call: Call) -> Answer:
        """Return the state of the model that the metadata names, or of the process.

        A model is BUSY while it serves calls; the process is BUSY while any of its models is.
        """
        identity = value(call.metadata, MODEL_ID)
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

    def _generation(self, call: Call) -> int:
        text = value(call.metadata, GENERATION)
        if not text:
            return 0
        if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LARGEST:  # noqa: PLR2004 - digits
            return int(text)
        shown = text if len(text) < 40 else f"{text[:30]}..."  # noqa: PLR2004 - characters
        problem = f"{GENERATION} is {shown!r}; it must be a decimal number from 0 to {_LARGEST}"
        raise self._refusal(INVALID_METADATA, problem)

    def _refusal(self, condition: Condition, problem: str) -> ContractError:
        return ContractError(condition, backend=self.name, problem=problem)

    def _failed(self, message: str) -> Answer:
        answer = self._result(message, self._slots.inventory().version)
        answer.response.success = False
        return answer

    def _result(self, message: str, version: int) -> Answer:
        trailers = ((BOOT_ID, self.boot_id), (INVENTORY_VERSION, str(version)))
        return Answer(pb.Result(message=message, success=True), trailers)
