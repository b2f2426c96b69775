"""`load`, `unload`: by hand, through a running gateway."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import grpc
import typer
from rich.console import Console

from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub
from grpcerrors_router.cli.common import DEFAULT_ADDRESS, Gateway, split_address

CONNECT_TIMEOUT = 5.0

Model = Annotated[str, typer.Argument(metavar="MODEL", help="As models.toml names it.")]


def load(
    model: Model,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for it.")
    ] = 1800.0,
    gateway: Gateway = DEFAULT_ADDRESS,
) -> None:
    """Load a model now; show how it goes. The load goes on when this command is stopped."""
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
    node: Annotated[str, typer.Option(help="Where; everywhere unless given.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also with calls in flight.")] = False,
    gateway: Gateway = DEFAULT_ADDRESS,
) -> None:
    """Unload a model."""
    request = fleet_pb2.UnloadRequest(model=model, node=node, force=force)
    with _channel(gateway) as channel:
        try:
            reply = OperatorStub(channel).Unload(request, timeout=60)
        except grpc.RpcError as error:
            raise _failure(error, gateway) from None
    where = ", ".join(reply.nodes)
    typer.echo(f"unloaded {model} from {where}" if where else f"{model} was not loaded")


class _Progress:
    """A spinner on a terminal; elsewhere a line when something changes, and one every 10 s."""

    EVERY = 10.0

    def __init__(self, model: str) -> None:
        self._model = model
        self._status: Any = None
        if sys.stderr.isatty():
            self._status = Console(stderr=True, highlight=False).status(f"loading {model}")
            self._status.start()
        self._said: tuple[str, int] | None = None

    def __call__(self, progress: fleet_pb2.LoadProgress) -> None:
        where = f" on {progress.node}" if progress.node else ""
        took = f"{progress.seconds:.1f} s"
        if progress.loaded:
            self.end()
            typer.echo(f"loaded {self._model}{where} ({took})")
        elif self._status is not None:
            self._status.update(f"loading {self._model}{where} ({took})")
        elif where:
            saying = (progress.node, int(progress.seconds / self.EVERY))
            if saying != self._said:
                typer.echo(f"loading {self._model}{where} ({took})", err=True)
            self._said = saying

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _channel(gateway: str) -> Any:
    split_address(gateway, "--gateway")
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
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return OSError(f"{gateway} is not a gateway of grpcerrors-router; give another --gateway")
    return OSError(f"{error.details()} ({error.code().name})")
