"""The calls that the gateway answers itself, without a node."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, NoReturn

from google.protobuf.message import DecodeError

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_router.errors import InvalidRequest, NotRouted

if TYPE_CHECKING:
    from grpcerrors_router.gateway.catalogue import Catalogue
    from grpcerrors_router.gateway.model_key import Metadata
    from grpcerrors_router.router import SmartRouter

_KSERVE = "/inference.GRPCInferenceService/"


class Answers:
    """Answers RPCs from the routing table, one method for each, named as its RPC.

    They load nothing, and reveal only models that the caller may call. Each takes the metadata and
    the serialized request, and returns the response.

    Raises:
        RouteError: NoModelKey, InvalidRequest, UnknownModel, NotRouted, Unauthenticated or
            PermissionDenied.
    """

    def __init__(self, router: SmartRouter, catalogue: Catalogue) -> None:
        self._router = router
        self._catalogue = catalogue

    # LocalAI's backend protocol

    def Health(self, _metadata: Metadata, _request: bytes) -> pb.Reply:  # noqa: N802 - as its RPC
        """Return the gateway's own health."""
        return pb.Reply(message=b"OK")

    def Status(self, metadata: Metadata, request: bytes) -> pb.StatusResponse:  # noqa: N802
        """Return what the routing table knows about a model."""
        model = self._catalogue.key("/backend.Backend/Status", None, metadata, request)
        return pb.StatusResponse(state=self._state(model, metadata))

    def LoadModel(self, _metadata: Metadata, _request: bytes) -> NoReturn:  # noqa: N802
        """Refuse: it would change a node without the registry."""
        raise NotRouted("LoadModel")

    def Free(self, _metadata: Metadata, _request: bytes) -> NoReturn:  # noqa: N802
        """Refuse, for the same reason."""
        raise NotRouted("Free")

    # The Open Inference Protocol

    def ServerLive(self, _metadata: Metadata, _request: bytes) -> v2.ServerLiveResponse:  # noqa: N802
        """Return that the gateway is alive."""
        return v2.ServerLiveResponse(live=True)

    def ServerReady(self, metadata: Metadata, _request: bytes) -> v2.ServerReadyResponse:  # noqa: N802
        """Return whether any node can be reached that can hold one of the caller's models."""
        models = self._router.models
        visible = self._catalogue.visible(models, metadata)
        backends = {models[model].backend for model in visible}
        ready = any(
            node.reachable
            and not node.denial
            and (len(visible) == len(models) or node.info.backend in backends)
            for node in self._router.table.nodes.values()
        )
        return v2.ServerReadyResponse(ready=ready)

    def ServerMetadata(self, _metadata: Metadata, _request: bytes) -> v2.ServerMetadataResponse:  # noqa: N802
        """Return the name of the program."""
        name = "grpcerrors-router"
        return v2.ServerMetadataResponse(name=name, version=version(name))

    def ModelReady(self, metadata: Metadata, request: bytes) -> v2.ModelReadyResponse:  # noqa: N802
        """Return whether a replica can serve the model now."""
        method = f"{_KSERVE}ModelReady"
        model = self._catalogue.key(method, v2.ModelReadyRequest, metadata, request)
        return v2.ModelReadyResponse(ready=self._state(model, metadata) == pb.StatusResponse.READY)

    def RepositoryIndex(self, metadata: Metadata, request: bytes) -> v2.RepositoryIndexResponse:  # noqa: N802
        """List the models of models.toml that the caller may call."""
        try:
            asked = v2.RepositoryIndexRequest.FromString(request)
        except DecodeError:
            name = v2.RepositoryIndexRequest.DESCRIPTOR.full_name
            raise InvalidRequest("RepositoryIndex", name) from None
        states = {
            pb.StatusResponse.READY: "READY",
            pb.StatusResponse.BUSY: "LOADING",
            pb.StatusResponse.UNINITIALIZED: "UNAVAILABLE",
        }
        index = v2.RepositoryIndexResponse()
        for model in self._catalogue.visible(self._router.models, metadata):
            index.models.add(name=model, state=states[self._state(model, metadata)])
        if asked.ready:
            return v2.RepositoryIndexResponse(
                models=[model for model in index.models if model.state == "READY"]
            )
        return index

    def RepositoryModelLoad(self, _metadata: Metadata, _request: bytes) -> NoReturn:  # noqa: N802
        """Refuse, as LoadModel."""
        raise NotRouted("RepositoryModelLoad")

    def RepositoryModelUnload(self, _metadata: Metadata, _request: bytes) -> NoReturn:  # noqa: N802
        """Refuse, as Free."""
        raise NotRouted("RepositoryModelUnload")

    def _state(self, model: str, metadata: Metadata) -> pb.StatusResponse.State:
        """Return READY, BUSY while the model is being loaded, or UNINITIALIZED."""
        table = self._router.table
        if model in self._router.models.retired:
            raise self._catalogue.unknown(model, metadata)
        if any(replica.live for replica in table.replicas(model)):
            return pb.StatusResponse.READY
        if table.loads(model):
            return pb.StatusResponse.BUSY
        if model not in self._router.models:
            raise self._catalogue.unknown(model, metadata)
        return pb.StatusResponse.UNINITIALIZED
