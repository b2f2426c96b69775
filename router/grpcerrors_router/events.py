"""The router's events, for metrics and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class Events:
    """Callbacks that do nothing. Subclass and override those you need.

    The router calls them on its event loop. They must return at once, and must not raise. `model`
    and `node` are names, `generation` is the registry's number of the load.
    """

    def request(self, model: str, node: str, code: grpc.StatusCode, seconds: float) -> None:
        """Handle the end of an attempt at a node, which took `seconds`."""

    def retry(self, model: str, node: str) -> None:
        """Handle a retry: the replica on `node` was stale, or `node` was loading the model."""

    def heal(self, model: str, node: str, generation: int, evidence: str, request_id: str) -> None:
        """Handle a heal: a replica was dropped on `evidence` that it was stale.

        docs/troubleshooting.md lists the values of `evidence`. `request_id` names the request that
        met the replica, "" if none did.
        """

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
        self, model: str, node: str, generation: int, seconds: float, error: str
    ) -> None:
        """Handle the end of a load job after `seconds`; `error` is "" when the model is loaded."""

    def evicted(self, model: str, node: str, generation: int) -> None:
        """Handle an unload by this router.

        The replica made room for another model, had outdated options, was one too many, or was
        unloaded by an operator.
        """

    def registry_down(self, error: str) -> None:
        """Handle the loss of the registry; the router continues from memory."""

    def registry_up(self, applied: int) -> None:
        """Handle the registry's return, after `applied` queued changes were written."""
