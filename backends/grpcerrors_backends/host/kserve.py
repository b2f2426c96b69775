"""The Open Inference Protocol (KServe v2) over the same slots as the backend protocol.

A model is reached by the name under which it was loaded, or by its `ModelOptions.Model`.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from grpcerrors import ContractError, model_mismatch
from grpcerrors_backends.host.contents import asked, read, write
from grpcerrors_backends.host.control import Answer, Call, value
from grpcerrors_backends.host.inference import Inference
from grpcerrors_backends.host.refusals import INVALID_REQUEST, LOAD_FAILED
from grpcerrors_backends.model import BadInput
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.metadata import MODEL_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grpcerrors_backends.host.control import Control
    from grpcerrors_backends.host.slots import Slots
    from grpcerrors_backends.model import Model
    from grpcerrors_backends.tensors import TensorSpec

SERVICE: Final = v2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_VERSION = "1"  # of every model


class KServeControl:
    """The RPCs that need no model, with one method for each. They raise ContractError."""

    def __init__(
        self, model: type[Model], slots: Slots[Model, pb.ModelOptions], control: Control
    ) -> None:
        self._model = model
        self._slots = slots
        self._control = control

    def ServerLive(self, _request: v2.ServerLiveRequest, _call: Call) -> Answer:
        """Answer that the process is alive, with or without a model."""
        return Answer(v2.ServerLiveResponse(live=True))

    def ServerReady(self, _request: v2.ServerReadyRequest, _call: Call) -> Answer:
        """Return whether any model is loaded."""
        return Answer(v2.ServerReadyResponse(ready=self._slots.resolve("") is not None))

    def ServerMetadata(self, _request: v2.ServerMetadataRequest, _call: Call) -> Answer:
        """Return the name of the backend, and the extensions."""
        response = v2.ServerMetadataResponse(
            name=self._model.name,
            version=version("grpcerrors-backends"),
            extensions=["model_repository"],
        )
        return Answer(response)

    def ModelReady(self, request: v2.ModelReadyRequest, _call: Call) -> Answer:
        """Return whether the model is loaded."""
        ready = self._slots.resolve(request.name) is not None
        return Answer(v2.ModelReadyResponse(ready=ready))

    def ModelMetadata(self, request: v2.ModelMetadataRequest, _call: Call) -> Answer:
        """Describe the inputs and outputs. The guard lets only calls for a loaded model in."""
        response = v2.ModelMetadataResponse(
            name=request.name,
            versions=[_VERSION],
            platform=f"grpcerrors_{self._model.name}",
            inputs=[_described(spec) for spec in self._model.inputs],
            outputs=[_described(spec) for spec in self._model.outputs],
        )
        return Answer(response)

    def RepositoryIndex(self, _request: v2.RepositoryIndexRequest, _call: Call) -> Answer:
        """List the loaded models; others are not known before they are loaded."""
        names = [name for name, _generation, _calls in self._slots.inventory().models]
        index = v2.RepositoryIndexResponse.ModelIndex
        models = [index(name=name, version=_VERSION, state="READY") for name in names]
        return Answer(v2.RepositoryIndexResponse(models=models))

    def RepositoryModelLoad(self, request: v2.RepositoryModelLoadRequest, call: Call) -> Answer:
        """Load a model as LoadModel does; the parameters are its load options."""
        name = self._name(request)
        options = [f"{key}:{_text(request.parameters[key])}" for key in sorted(request.parameters)]
        answer = self._control.LoadModel(pb.ModelOptions(Model=name, Options=options), call)
        if not answer.response.success:
            problem = answer.response.message
            raise ContractError(LOAD_FAILED, backend=self._model.name, problem=problem)
        response = v2.RepositoryModelLoadResponse(model_name=name, isLoaded=True)
        return Answer(response, answer.trailers)

    def RepositoryModelUnload(self, request: v2.RepositoryModelUnloadRequest, call: Call) -> Answer:
        """Unload a model as Free does."""
        name = self._name(request)
        if not value(call.metadata, MODEL_ID):
            identity = self._slots.resolve(name) or name
            call = call._replace(metadata=(*call.metadata, (MODEL_ID, identity)))
        answer = self._control.Free(pb.HealthMessage(), call)
        response = v2.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)
        return Answer(response, answer.trailers)

    def _name(
        self, request: v2.RepositoryModelLoadRequest | v2.RepositoryModelUnloadRequest
    ) -> str:
        # KServe's own client sends the name in the field that is Triton's repository_name.
        name = request.model_name or request.repository_name
        if not name:
            problem = "model_name is empty; send the name of the model"
            raise ContractError(INVALID_REQUEST, backend=self._model.name, problem=problem)
        return name


class KServeInference(Inference):
    """Runs ModelInfer on the models in the slots."""

    @contextmanager
    def _model(self, rpc: str, request: Any, context: Any) -> Iterator[Callable[..., Any]]:
        requested = request.model_name
        named = value(context.invocation_metadata() or (), MODEL_ID)
        if not named and self._slots.expects(requested):
            named = requested
        with self._lease(named, requested) as held:
            if requested not in ("", held.identity, held.alias):
                raise model_mismatch(self._name, loaded=held.alias, requested=requested)
            infer = _aio_infer if held.model.surface == "aio" else _infer
            yield partial(infer, held.model)


def _infer(model: Model, request: v2.ModelInferRequest, context: Any) -> Any:
    asked_for, inputs = _opened(model, request)
    return _answered(request, asked_for, model.infer(inputs, context))


async def _aio_infer(model: Model, request: v2.ModelInferRequest, context: Any) -> Any:
    asked_for, inputs = _opened(model, request)
    outputs: Any = model.infer(inputs, context)
    return _answered(request, asked_for, await outputs)


def _opened(model: Model, request: v2.ModelInferRequest) -> tuple[list[TensorSpec], Any]:
    if request.model_version not in ("", _VERSION):
        raise BadInput(
            f"no version {request.model_version!r}; leave model_version empty, or send {_VERSION!r}"
        )
    return asked(request, model.outputs), read(request, model.inputs)


def _answered(
    request: v2.ModelInferRequest, asked_for: list[TensorSpec], outputs: Any
) -> v2.ModelInferResponse:
    """Return the response; it has the same form, raw or typed, as the request."""
    response = v2.ModelInferResponse(
        model_name=request.model_name, model_version=_VERSION, id=request.id
    )
    write(outputs, asked_for, response, raw=bool(request.raw_input_contents))
    return response


def _described(spec: TensorSpec) -> v2.ModelMetadataResponse.TensorMetadata:
    return v2.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def _text(parameter: v2.ModelRepositoryParameter) -> str:
    choice = parameter.WhichOneof("parameter_choice")
    found = getattr(parameter, choice) if choice else ""
    if isinstance(found, bytes):
        return found.decode(errors="replace")
    return str(found).lower() if isinstance(found, bool) else str(found)
