"""The router's own errors, as gRPC errors that a caller of a stub catches as usual.

Each carries `google.rpc.Status` with an ErrorInfo of the contract's domain, so that no detector
mistakes a router's FAILED_PRECONDITION for a backend's "model not loaded". `REASONS` lists every
reason that a router sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import grpc

from grpcerrors._condition import DOMAIN
from grpcerrors._wire import ErrorInfo, encode
from grpcerrors_router.closest import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NODE_TEXT_LIMIT = 1024
"""Characters of a node's message that an error of the router quotes."""


class RouteError(grpc.aio.AioRpcError):
    """Base of the router's own errors.

    The trailers have at most 4,096 bytes, as CONTRACT.md demands; a longer text is cut.

    Attributes:
        reason: `google.rpc.ErrorInfo.reason`, in the domain `grpcerrors`.
        elsewhere: whether another router may serve a request that this one refuses so.
        retry_after: seconds of the `google.rpc.RetryInfo`; None when there is none.
        about: what it concerns, by "model", "node" and "name": the metadata of the ErrorInfo.
        unsent: the trailers for a request that was not executed anywhere. If another router may
            serve it, they contain `grpcerrors-unexecuted`, so that a proxy can send it there.
    """

    reason: ClassVar[str] = "ROUTE_FAILED"
    elsewhere: ClassVar[bool] = False
    retry_after: float | None
    about: Mapping[str, str]
    unsent: tuple[tuple[str, str | bytes], ...]

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        info = ErrorInfo(DOMAIN, self.reason, metadata or {}, retry_after)
        text, trailers, _ = encode(code, lambda cut: cut(details), info, unexecuted=self.elsewhere)
        sent = grpc.aio.Metadata(trailers[0])
        super().__init__(code, grpc.aio.Metadata(), sent, details=text)
        self.retry_after = retry_after
        self.about = metadata or {}
        self.unsent = trailers

    def __reduce__(self) -> tuple[Callable[..., RouteError], tuple[object, ...], dict[str, object]]:
        # The subclasses take different arguments; `copy.copy` and pickle need one way for all.
        return _blank, (type(self),), dict(vars(self))


def _blank(kind: type[RouteError]) -> RouteError:
    return kind.__new__(kind)


class Unauthenticated(RouteError):
    """UNAUTHENTICATED: the call has no valid token. Send one, as the text says."""

    reason = "UNAUTHENTICATED"

    def __init__(self, why: str) -> None:
        super().__init__(grpc.StatusCode.UNAUTHENTICATED, f"this router asks for a token: {why}")


class PermissionDenied(RouteError):
    """PERMISSION_DENIED: the token does not allow the call. Use another, or change tokens.toml.

    The error for a model is the same whether the model exists or not.
    """

    reason = "PERMISSION_DENIED"

    def __init__(self, token: str, what: str, change: str, *, model: str = "") -> None:
        super().__init__(
            grpc.StatusCode.PERMISSION_DENIED,
            f'the token "{token}" may not {what}; {change} in the file of serve --tokens, or use '
            "another token",
            metadata={"model": model} if model else None,
        )


class NoModelKey(RouteError):
    """INVALID_ARGUMENT: the request names no model, or two. Set `x-model-id` once."""

    reason = "NO_MODEL_KEY"

    def __init__(self, text: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, text)


class InvalidRequest(RouteError):
    """INVALID_ARGUMENT: the request of an RPC that the gateway answers cannot be read. Fix it."""

    reason = "INVALID_REQUEST"

    def __init__(self, rpc: str, kind: str) -> None:
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT, f"the request of {rpc} is not a {kind}; send one"
        )


class NotRouted(RouteError):
    """UNIMPLEMENTED: LoadModel and Free are not forwarded; the router loads and unloads itself."""

    reason = "NOT_ROUTED"

    def __init__(self, method: str) -> None:
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED,
            f"the router loads and unloads models by itself, so it does not forward {method}; "
            "by hand: grpcerrors-router load|unload MODEL",
        )


class ProxyLoop(RouteError):
    """FAILED_PRECONDITION: this router has already forwarded the request.

    The address of a node leads back to this router. Retrying does not help; remove that node.
    """

    reason = "PROXY_LOOP"

    def __init__(self, router: str, model: str) -> None:
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'router "{router}" has already forwarded this request: a node that should hold model '
            f'"{model}" is itself a router; find it with grpcerrors-router status and remove it '
            "with grpcerrors-router remove-node",
            metadata={"model": model, "router": router},
        )


class Overloaded(RouteError):
    """RESOURCE_EXHAUSTED with RetryInfo: this router has reached a limit. Retry later."""

    reason = "OVERLOADED"
    elsewhere = True

    def __init__(self, limit: str, *, model: str = "", retry_after: float = 1.0) -> None:
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the router is at its limit: {limit}; retry later",
            retry_after=retry_after,
            metadata={"model": model} if model else None,
        )


class InvalidNode(RouteError):
    """INVALID_ARGUMENT: the node cannot be registered. Fix what the text names."""

    reason = "INVALID_NODE"

    def __init__(self, text: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, text)


class UnknownModel(RouteError):
    """NOT_FOUND: neither models.toml nor any node knows `model`. Fix the name."""

    reason = "UNKNOWN_MODEL"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        self.model = model
        text = f'unknown model "{model}"; {closest(model, known)}'
        super().__init__(grpc.StatusCode.NOT_FOUND, text, metadata={"model": model})


class UnknownNode(RouteError):
    """NOT_FOUND: the fleet has no such node. Fix the name."""

    reason = "UNKNOWN_NODE"

    def __init__(self, node: str, known: Iterable[str]) -> None:
        names = list(known)
        hint = closest(node, names) if names else "there are no nodes"
        super().__init__(
            grpc.StatusCode.NOT_FOUND, f'no node "{node}"; {hint}', metadata={"node": node}
        )


class NotReloadable(RouteError):
    """FAILED_PRECONDITION: the router runs in a program, and has no files to read again."""

    reason = "NOT_RELOADABLE"

    def __init__(self) -> None:
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            "this router was not started by grpcerrors-router serve, so it has no files to read "
            "again; call router.operations.replace_models in its program",
        )


class NoCapacity(RouteError):
    """UNAVAILABLE with RetryInfo: no node can take the model now. Add a node, or retry later."""

    reason = "NO_CAPACITY"
    elsewhere = True

    def __init__(self, model: str, why: str, retry_after: float) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE,
            f'no node can take model "{model}": {why}',
            retry_after=retry_after,
            metadata={"model": model},
        )


class LoadFailed(RouteError):
    """The model could not be loaded. Fix what the text, which quotes the node, names.

    FAILED_PRECONDITION when the node refused, UNAVAILABLE when it did not answer. RetryInfo says
    when the router tries the node again.
    """

    reason = "LOAD_FAILED"

    def __init__(
        self, model: str, node: str, message: str, *, answered: bool, retry_after: float
    ) -> None:
        code = grpc.StatusCode.FAILED_PRECONDITION if answered else grpc.StatusCode.UNAVAILABLE
        if len(message) > NODE_TEXT_LIMIT:
            message = f"{message[:NODE_TEXT_LIMIT]}…"
        super().__init__(
            code,
            f'loading model "{model}" failed on node "{node}": {message}',
            retry_after=retry_after,
            metadata={"model": model, "node": node},
        )


class LoadTimeout(RouteError):
    """DEADLINE_EXCEEDED: the deadline passed before a replica was ready. Retry later."""

    reason = "LOAD_TIMEOUT"

    def __init__(self, model: str, why: str = "the load continues, retry later") -> None:
        super().__init__(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f'model "{model}" was not ready within the deadline: {why}',
            metadata={"model": model},
        )


class NodeLost(RouteError):
    """UNAVAILABLE: the router closed the connection to the node during the call.

    It is unknown whether the request was executed, so the caller decides whether to retry.
    """

    reason = "NODE_LOST"

    def __init__(self) -> None:
        text = "the router closed the connection to the node that was serving this call"
        super().__init__(grpc.StatusCode.UNAVAILABLE, text)


class InUse(RouteError):
    """FAILED_PRECONDITION: a replica was not unloaded, usually because calls are in flight.

    Retry later, or force it.
    """

    reason = "IN_USE"

    def __init__(self, model: str, node: str, why: str = "") -> None:
        self.why = why or "it has calls in flight; retry later, or force it"
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'model "{model}" stays on node "{node}": {self.why}',
            metadata={"model": model, "node": node},
        )


class InternalFailure(RouteError):
    """INTERNAL: a bug in the router. Report it; the router's log has the traceback."""

    reason = "INTERNAL"

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "internal error; the router's log says why")


class RegistryUnavailable(RouteError):
    """UNAVAILABLE with RetryInfo: the registry's database cannot be reached. Retry later."""

    reason = "REGISTRY_UNAVAILABLE"
    elsewhere = True

    def __init__(self, why: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE, f"the registry cannot be reached: {why}", retry_after=1.0
        )


class RegistryOutdated(RouteError):
    """FAILED_PRECONDITION: the registry has the schema of another version of the router.

    Start `grpcerrors-router serve` of the newer version once: it upgrades the schema.
    """

    reason = "REGISTRY_OUTDATED"

    def __init__(self, found: str | None, wanted: str | None) -> None:
        if found is None:
            text = "it has no tables yet"
        elif wanted is not None and found < wanted:
            text = f"its schema {found} is older than {wanted}, which this version reads"
        else:
            text = f"its schema {found} is newer than {wanted}, which this version reads"
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"cannot use this registry: {text}; start grpcerrors-router serve of the newer "
            "version once",
        )


class NameTaken(RouteError):
    """ALREADY_EXISTS: another live process has this name in the registry. Choose another name.

    `kind` is "node" or "router"; `known` and `refused` describe the two processes.
    """

    reason = "NAME_TAKEN"

    def __init__(self, kind: str, name: str, known: str, refused: str) -> None:
        super().__init__(
            grpc.StatusCode.ALREADY_EXISTS,
            f'the {kind} name "{name}" belongs to {known}, which is alive, so {refused} cannot '
            f"take it; give each {kind} a name of its own",
            metadata={"name": name},
        )


class RouterStopping(RouteError):
    """UNAVAILABLE with RetryInfo: this router is stopping. Retry at another one."""

    reason = "ROUTER_STOPPING"
    elsewhere = True

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, "the router is stopping", retry_after=1.0)


class UnloadUnsupported(RouteError):
    """UNIMPLEMENTED: the backend has no Free, so the node keeps the model.

    Restart the backend, or load another model in its place.
    """

    reason = "UNLOAD_UNSUPPORTED"

    def __init__(self, model: str, node: str) -> None:
        self.why = (
            "its backend has no Free; restart the backend, or load another model in its place"
        )
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED,
            f'model "{model}" stays on node "{node}": {self.why}',
            metadata={"model": model, "node": node},
        )


REASONS = frozenset(kind.reason for kind in (RouteError, *RouteError.__subclasses__()))
"""Every reason that a router sends in the domain of the contract."""
