"""The commands `load` and `unload`, which call a running gateway."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpcerrors_router.cli import complete
from grpcerrors_router.cli.common import interruptible
from grpcerrors_router.cli.gateway import Gateway, open_gateway, uses_gateway

if TYPE_CHECKING:
    from grpcerrors_protocol import fleet_pb2

LOAD_EXAMPLES = """Example:

\b
  grpcerrors-router load tiny.en --timeout 600
"""
UNLOAD_EXAMPLES = """Examples:

\b
  grpcerrors-router unload tiny.en
  grpcerrors-router unload tiny.en --node gpu-1 --force
"""

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", autocompletion=complete.models, help="Use this model of models.toml."
    ),
]


@uses_gateway
def load(
    model: Model,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Wait for the model this long.")
    ] = 1800.0,
    *,
    gateway: Gateway,
) -> None:
    """Load a model now and show progress.

    When this command is stopped, the load continues.
    """
    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    request = fleet_pb2.LoadRequest(model=model)
    with open_gateway(gateway) as channel:
        show = _Progress(model)
        with interruptible():
            try:
                for progress in OperatorStub(channel).Load(request, timeout=timeout):
                    show(progress)
            finally:
                show.end()


@uses_gateway
def unload(
    model: Model,
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE",
            autocompletion=complete.nodes,
            help="Unload the model from this node.",
            show_default="every node",
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Unload the model even with calls in flight.")
    ] = False,
    *,
    gateway: Gateway,
) -> None:
    """Unload a model from its nodes."""
    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    request = fleet_pb2.UnloadRequest(model=model, node=node, force=force)
    with open_gateway(gateway) as channel:
        reply = OperatorStub(channel).Unload(request, timeout=60)
    where = ", ".join(reply.nodes)
    typer.echo(f"unloaded {model} from {where}" if where else f"{model} was not loaded")


class _Progress:
    """A spinner on a terminal; elsewhere one line for each change, and one every 10 s."""

    EVERY = 10.0

    def __init__(self, model: str) -> None:
        self._model = model
        self._status: Any = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status(f"loading {model}")
            self._status.start()
        self._shown: tuple[str, int] | None = None

    def __call__(self, progress: fleet_pb2.LoadProgress) -> None:
        where = f" on {progress.node}" if progress.node else ""
        took = f"{progress.seconds:.1f} s"
        if progress.loaded:
            self.end()
            typer.echo(f"loaded {self._model}{where} ({took})")
        elif self._status is not None:
            self._status.update(f"loading {self._model}{where} ({took})")
        elif where:
            showing = (progress.node, int(progress.seconds / self.EVERY))
            if showing != self._shown:
                typer.echo(f"loading {self._model}{where} ({took})", err=True)
            self._shown = showing

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
