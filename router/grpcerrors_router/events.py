"""What happens in the router, to be counted. Subclass and override what you need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc


class Events:
    """Every method is called on the event loop, must return at once, and does nothing here."""

    def request(self, model: str, node: str, code: grpc.StatusCode, seconds: float) -> None:
        """An attempt at a node ended."""

    def retry(self, model: str, node: str) -> None:
        """A request is sent again after `node` turned out not to hold the model."""

    def heal(self, model: str, node: str, generation: int, evidence: str) -> None:
        """A row was dropped on evidence that it was stale."""

    def restarted(self, model: str, node: str, generation: int) -> None:
        """A node came back as a new process, which does not hold what the old one held."""

    def false_positive(self, model: str, node: str) -> None:
        """An error's words or code said "not loaded", and the replica was kept: they are wrong."""

    def unconfirmed(self, model: str, node: str) -> None:
        """An error's words or code said "not loaded"; the node, asked, did not answer in time."""

    def late_error(self, model: str, node: str, generation: int) -> None:
        """Evidence arrived about a generation that is already gone; nothing was dropped."""

    def load_started(self, model: str, node: str, generation: int) -> None:
        """A LoadModel is about to be sent."""

    def load_finished(
        self, model: str, node: str, generation: int, seconds: float, error: str
    ) -> None:
        """A load ended; `error` is empty when the model is loaded."""

    def evicted(self, model: str, node: str, generation: int) -> None:
        """An idle replica was unloaded to make room, or because an operator asked."""

    def registry_down(self, error: str) -> None:
        """The database cannot be reached; routing continues from memory."""

    def registry_up(self, applied: int) -> None:
        """The database is back; `applied` changes that had waited were written."""
