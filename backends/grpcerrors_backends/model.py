"""The interface between a backend and its host: a class whose instances are loaded models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

if TYPE_CHECKING:
    from grpcerrors_protocol import backend_pb2 as pb


class LoadError(Exception):
    """A model cannot be loaded. The text is sent to the caller: say what to do about it."""


class BadInput(Exception):
    """A request cannot be served as it is: INVALID_ARGUMENT. Say what was expected."""


class NotFound(Exception):
    """A request names a thing (a voice, a file) that does not exist: NOT_FOUND."""


class TooLarge(Exception):
    """A request is over a limit of the backend: RESOURCE_EXHAUSTED. Say what the limit is."""


class Model:
    """One loaded model of one backend.

    A subclass defines one method per RPC that it implements, named as the RPC in
    ``protocol/backend.proto`` and shaped like a method of a grpc servicer: plain methods and
    generators when ``surface`` is "sync" (each call runs in a thread of its own), async ones when
    it is "aio". RPCs that it does not define answer UNIMPLEMENTED.

    The host calls a method only while the model is loaded, and never closes it meanwhile. A method
    may raise BadInput, NotFound and TooLarge; anything else it raises reaches the client as
    INTERNAL with a short text, and the host's log with its traceback.
    """

    name: ClassVar[str]
    """The backend's name on the wire and on the command line."""

    surface: ClassVar[Literal["sync", "aio"]] = "sync"

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Return the model that *options* describe. May block; runs in a thread.

        Raises LoadError when it cannot be loaded.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free the memory. Called once, after the last call has ended. May block."""
