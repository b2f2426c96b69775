"""The interface that a backend implements: a class whose instances are loaded models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from grpcerrors_backends.errors import BadInput, LoadError, NotFound, TooLarge
from grpcerrors_backends.files import Files, Secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from grpcerrors_backends.tensors import Tensor, TensorSpec
    from grpcerrors_protocol import backend_pb2 as pb

__all__ = ["BadInput", "LoadError", "Model", "NotFound", "TooLarge"]


class Model:
    """One loaded model of one backend.

    A subclass defines one method for each RPC that it implements, with the name that the RPC has in
    ``backend.proto`` and the signature of a gRPC servicer's method. With ``surface = "sync"`` these
    are plain methods and generators, and each call runs in a thread of its own; with "aio" they are
    async. All other RPCs answer UNIMPLEMENTED.

    The host calls these methods only while the model is loaded, and does not close the model while
    one of them is running. A method may raise BadInput, NotFound or TooLarge. For any other
    exception the client gets INTERNAL with a short text, and the host logs the traceback.
    """

    name: ClassVar[str]
    """Name of the backend, as routers and error messages show it."""

    surface: ClassVar[Literal["sync", "aio"]] = "sync"

    inputs: ClassVar[tuple[TensorSpec, ...]] = ()
    """The input tensors of `infer`. With them, the host also serves the model over the Open
    Inference Protocol (KServe v2), on the same port."""

    outputs: ClassVar[tuple[TensorSpec, ...]] = ()
    """The output tensors of `infer`."""

    files: ClassVar[Files] = Files()
    """The files that requests and load options may name. Use them for every path that a caller
    chooses. The host sets this (`--files`)."""

    secrets: ClassVar[Secrets] = Secrets()
    """The keys that load options may name. The host sets this (`--secrets`, `--secret-env`)."""

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Return the model that *options* describe. Runs in a thread, so it may block.

        Raises LoadError when the model cannot be loaded.
        """
        raise NotImplementedError

    def infer(
        self, inputs: Mapping[str, Tensor], context: Any
    ) -> Mapping[str, Tensor] | Awaitable[Mapping[str, Tensor]]:
        """Answer ModelInfer: return the output tensors by name. Async if the surface is "aio".

        The host has checked the names, datatypes and shapes of *inputs*. The method may raise what
        an RPC may.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free the memory. The host calls this once, after the last call has ended. May block."""
