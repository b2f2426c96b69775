"""The commands `load` and `unload`, which call a running gateway."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grpcerrors_router.cli.common import DEFAULT_ADDRESS, Gateway
from grpcerrors_router.validation import split_address

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
CONNECT_TIMEOUT = 5.0

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Use this model of models.toml.")]


def load(
    model: Model,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Wait for the model this long.")
    ] = 1800.0,
    gateway: Gateway = DEFAULT_ADDRESS,
) -> None:
    """Load a model now and show progress.

    When this command is stopped, the load continues.
    """
    import grpc

    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    request = fleet_pb2.LoadRequest(model=model)
    with _channel(gateway) as channel:
        show = _Progress(model)
        try:
            for progress in OperatorStub(channel).Load(request, timeout=timeout):
                show(progress)
        except grpc.RpcError as error:
            raise _failure(error, gateway) from None
        finally:
            show.end()


def unload(
    model: Model,
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE", help="Unload the model from this node.", show_default="every node"
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Unload the model even with calls in flight.")
    ] = False,
    gateway: Gateway = DEFAULT_ADDRESS,
) -> None:
    """Unload a model from its nodes."""
    import grpc

    from grpcerrors_protocol import fleet_pb2
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    request = fleet_pb2.UnloadRequest(model=model, node=node, force=force)
    with _channel(gateway) as channel:
        try:
            reply = OperatorStub(channel).Unload(request, timeout=60)
        except grpc.RpcError as error:
            raise _failure(error, gateway) from None
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


def _channel(gateway: str) -> Any:
    import grpc

    split_address(gateway, "--gateway", DEFAULT_ADDRESS)
    channel = grpc.insecure_channel(gateway)
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT)
    except grpc.FutureTimeoutError:
        channel.close()
        raise OSError(
            f"no gateway answers at {gateway}; start grpcerrors-router serve, or give --gateway"
        ) from None
    return channel


def _failure(error: Any, gateway: str) -> OSError:
    from grpc import StatusCode
    from grpc_status import rpc_status

    # A gateway's own UNIMPLEMENTED, for a node without Free, carries a google.rpc.Status.
    if error.code() is StatusCode.UNIMPLEMENTED and rpc_status.from_call(error) is None:
        return OSError(f"{gateway} is not a gateway of grpcerrors-router; give another --gateway")
    return OSError(f"{error.details()} ({error.code().name})")
