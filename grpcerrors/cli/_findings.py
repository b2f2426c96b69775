"""What a check finds: a verdict on the answer of each RPC."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from grpcerrors.cli._connection import Server
    from grpcerrors.cli._protocols import Known


class Finding(str, Enum):
    """What an RPC's answer is worth to a router that holds a stale row."""

    TYPED = "typed"
    TEXT_ONLY = "text only"
    CODE_ONLY = "code only"
    INVISIBLE = "invisible"
    WRONG = "wrong"
    NOT_IMPLEMENTED = "not implemented"
    TIMED_OUT = "timed out"


class Answer(NamedTuple):
    """The answer of one RPC.

    Attributes:
        rpc: its name.
        finding: what the answer is worth.
        code: the status code; None if it was still streaming.
        message: the status message, or a remark in its place.
        messages: how many messages came before the status.
        condition: the reason of the condition that the error means, if any.
        evidence: the rung that decided, if any.
        resendable: whether a proxy that knows only the plain trailer can send the call again; None
            if the answer is not typed.
        why: why the answer is wrong or cannot be sent again, if the finding alone does not say so.
        again: a shell command that calls the RPC in the same way.
        seconds: how long it took.
    """

    rpc: str
    finding: Finding
    code: grpc.StatusCode | None
    message: str
    messages: int
    condition: str | None = None
    evidence: str | None = None
    resendable: bool | None = None
    why: str = ""
    again: str = ""
    seconds: float = 0.0


class Target(NamedTuple):
    """What to check.

    Attributes:
        server: the server.
        service: the full name of the service; "" for that of the protocol.
        known: the protocol; None to choose it by what the server offers.
        methods: the RPCs to call; empty to find them.
        every: whether to call every RPC that reflection lists, except control-plane ones.
        model: the name of a model that is not loaded; "" for one that surely is not.
    """

    server: Server
    service: str = ""
    known: Known | None = None
    methods: Sequence[str] = ()
    every: bool = False
    model: str = ""


class Report(NamedTuple):
    """The answers of the RPCs of one service.

    Attributes:
        service: its full name.
        known: its protocol; None if it has none that the command knows.
        source: where the list of RPCs came from.
        answers: one for each RPC that was called, and for those that wrongly refuse.
        uncalled: RPCs that were not called, because it is unknown whether they need a model.
        model: the model that the requests name; "" if they name none.
        loaded: whether the backend says that this model is loaded.
    """

    service: str
    known: Known | None
    source: str
    answers: list[Answer]
    uncalled: list[str]
    model: str
    loaded: bool

    @property
    def implemented(self) -> list[Answer]:
        """The answers of the RPCs that the backend implements."""
        return [one for one in self.answers if one.finding is not Finding.NOT_IMPLEMENTED]

    def rows(self, *, all_rows: bool) -> list[Answer]:
        """Return what to show: the answers of implemented RPCs, or of all."""
        return self.answers if all_rows else self.implemented

    @property
    def findings(self) -> list[Answer]:
        """The answers of the implemented RPCs that are not typed."""
        return [one for one in self.implemented if one.finding is not Finding.TYPED]


def conforms(reports: Sequence[Report]) -> bool:
    """Whether there is an implemented RPC, and each one is typed."""
    implemented = any(report.implemented for report in reports)
    return implemented and not any(report.findings for report in reports)
