"""The router's events, for metrics, the state of the fleet, and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from grpcerrors_router.errors import RouteError


class Events:
    """Callbacks that do nothing. Subclass and override those you need.

    The router calls them on its event loop. They must return at once, and must not raise. `model`
    and `node` are names, `generation` is the registry's number of the load.
    """

    def served(
        self, model: str, method: str, code: grpc.StatusCode, seconds: float, trace_id: str
    ) -> None:
        """Handle the end of a call that a gateway has forwarded, or refused to.

        `model` is "" if it is not in models.toml; `method` is the path of the RPC, which a caller
        may have invented; `trace_id` is "" unless the call is traced.
        """

    def request(
        self,
        model: str,
        node: str,
        method: str,
        code: grpc.StatusCode,
        seconds: float,
        trace_id: str,
    ) -> None:
        """Handle the end of an attempt at a node, which took `seconds`. See `served`."""

    def retry(self, model: str, node: str) -> None:
        """Handle a retry: the replica on `node` was stale, or `node` was loading the model."""

    def heal(self, model: str, node: str, generation: int, evidence: str, request_id: str) -> None:
        """Handle a heal: a replica was dropped on `evidence` that it was stale.

        docs/troubleshooting.md lists the values of `evidence`. `request_id` names the request that
        met the replica, "" if none did.
        """

    def recovered(
        self,
        model: str,
        node: str,
        generation: int,
        seconds: float,
        new_node: str,
        new_generation: int,
    ) -> None:
        """Handle the answer to a request that had met a stale replica.

        The first replica that was stale is that of `node` and `generation`. The answer of the
        replica of `new_node` and `new_generation` came `seconds` after its error.
        """

    def refused(self, model: str, error: RouteError) -> None:
        """Handle a call that reached no node. `model` is "" if models.toml does not list it."""

    def heartbeat_refused(self, node: str, error: RouteError) -> None:
        """Handle a heartbeat that was refused. `node` is "" if no node has its name."""

    def exhausted(self, model: str, node: str, text: str) -> None:
        """Handle RESOURCE_EXHAUSTED from a node, with the `text` of the error."""

    def restarted(self, model: str, node: str, generation: int) -> None:
        """Handle the loss of a replica whose node came back as a new process."""

    def false_positive(self, model: str, node: str) -> None:
        """Handle an error that said "not loaded" in words or by code, and was not believed."""

    def unconfirmed(self, model: str, node: str) -> None:
        """Handle an error that said so, when the node did not answer `Status` in time."""

    def late_error(self, model: str, node: str, generation: int) -> None:
        """Handle evidence against a replica that was already gone; nothing was dropped."""

    def load_started(self, model: str, node: str, generation: int) -> None:
        """Handle the start of a load job. `load_finished` follows."""

    def load_finished(
        self,
        model: str,
        node: str,
        generation: int,
        seconds: float,
        error: str,
        *,
        postponed: bool = False,
    ) -> None:
        """Handle the end of a load job after `seconds`; `error` is "" when the model is loaded.

        With `postponed`, the node is not to blame for the error, and the model is placed again.
        """

    def evicted(self, model: str, node: str, generation: int, why: str) -> None:
        """Handle an unload by this router.

        `why` completes the sentence "it was unloaded", as in "to make room for x".
        """

    def registry_down(self, error: str) -> None:
        """Handle the loss of the registry; the router continues from memory."""

    def registry_up(self, applied: int) -> None:
        """Handle the registry's return, after `applied` queued changes were written."""


class Broadcast(Events):
    """Passes each event to several receivers, in order.

    An event that a single receiver handles costs what it costs without the others.
    """

    def handles(self, event: str) -> bool:
        """Return whether a receiver handles the event of that name."""
        return event in vars(self)

    def __init__(self, *receivers: Events) -> None:
        for name, nothing in vars(Events).items():
            if name.startswith("_"):
                continue
            found = [getattr(receiver, name) for receiver in receivers]
            handlers = [each for each in found if getattr(each, "__func__", each) is not nothing]
            if handlers:
                setattr(self, name, handlers[0] if len(handlers) == 1 else _all(handlers))


def _all(handlers: list[Callable[..., None]]) -> Callable[..., None]:
    def handle(*arguments: Any, **named: Any) -> None:
        for handler in handlers:
            handler(*arguments, **named)

    return handle
