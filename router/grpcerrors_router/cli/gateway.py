"""How commands reach a running gateway: the options that they share, and the connection.

A command has one parameter for all these options, and opens the gateway with it:

    @uses_gateway
    def unload(model: Model, *, gateway: Gateway) -> None:
        with open_gateway(gateway) as channel:
            OperatorStub(channel).Unload(UnloadRequest(model=model), timeout=60)

`open_gateway` turns errors of calls into errors of the command.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from dataclasses import dataclass, fields
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, get_type_hints

import typer

from grpcerrors_router.cli.common import DEFAULT_ADDRESS
from grpcerrors_router.validation import split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds to wait for a gateway that does not listen yet, unless a command says otherwise."""

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),  # the state of a large fleet
)


@dataclass(frozen=True)
class Gateway:
    """The address of a gateway, and how to connect. The fields are options of the commands."""

    gateway: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", envvar="ROUTER_GATEWAY", help="Use the gateway at this address."
        ),
    ] = DEFAULT_ADDRESS
    tls: Annotated[
        bool,
        typer.Option(
            "--tls", help="Connect over TLS, and trust the authorities that the system trusts."
        ),
    ] = False
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ROUTER_TLS_CA",
            help="Connect over TLS, and trust the authorities in this PEM file.",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ROUTER_TLS_CERT",
            help="Present the certificate in this PEM file to the gateway.",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ROUTER_TLS_KEY",
            help="Use the private key in this PEM file for the certificate.",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="ROUTER_TOKEN_FILE",
            help="Send the token in this file to the gateway.",
        ),
    ] = None

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.tls or self.tls_ca is not None or self.tls_cert is not None


def uses_gateway(command: Callable[P, T]) -> Callable[P, T]:
    """Give a command the fields of Gateway as options, in place of its parameter `gateway`."""
    hints = get_type_hints(Gateway, include_extras=True)
    own = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(Gateway)
    ]
    others = [each for name, each in own.parameters.items() if name != "gateway"]

    @functools.wraps(command)
    def run(*args: Any, **given: Any) -> T:
        gateway = Gateway(**{option.name: given.pop(option.name) for option in options})
        return command(*args, **given, gateway=gateway)  # type: ignore[arg-type]

    signature = own.replace(parameters=(*others, *options))
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return run


@contextlib.contextmanager
def open_gateway(gateway: Gateway, patience: float = PATIENCE) -> Iterator[grpc.Channel]:
    """Connect to a gateway, and turn the errors of calls into errors of the command.

    Args:
        gateway: the gateway.
        patience: seconds to wait for it, if it does not listen yet.

    Raises:
        ValueError: an option cannot be used.
        OSError: there is no gateway, it refuses the connection, or a call fails.
    """
    import grpc

    split_address(gateway.gateway, "--gateway", DEFAULT_ADDRESS)
    token = _token(gateway.token_file)
    with _channel(gateway) as channel:
        _connect(channel, gateway, patience)
        try:
            yield grpc.intercept_channel(channel, _interceptor(token)) if token else channel
        except grpc.RpcError as error:
            raise _failure(error, gateway) from None


def _channel(gateway: Gateway) -> grpc.Channel:
    import grpc

    if not gateway.secure and gateway.tls_key is None:
        return grpc.insecure_channel(gateway.gateway, options=_OPTIONS)
    from grpcerrors_protocol.tls import ClientTls

    def warn(text: str) -> None:
        typer.echo(f"Warning: {text}", err=True)

    tls = ClientTls(gateway.tls_ca, gateway.tls_cert, gateway.tls_key, warn=warn)
    return grpc.secure_channel(gateway.gateway, tls.credentials(), options=_OPTIONS)


def _connect(channel: grpc.Channel, gateway: Gateway, patience: float) -> None:
    """Wait until there is a connection, as long as nothing listens at the address yet."""
    import grpc

    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    until = time.monotonic() + patience
    while True:
        answer = check.future(b"", timeout=max(0.1, until - time.monotonic()))
        code, said = answer.code(), answer.details() or ""
        if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return
        from grpcerrors_protocol.tls import hint

        if why := hint(said, tls=gateway.secure):
            raise OSError(f"cannot connect to {gateway.gateway}: {why}")
        if time.monotonic() >= until:
            raise OSError(
                f"no gateway answers at {gateway.gateway}; start grpcerrors-router serve, "
                "or give --gateway"
            )
        time.sleep(0.1)


def _token(path: Path | None) -> str:
    """Return the first token in a file; "" without a file."""
    if path is None:
        return ""
    from grpcerrors_protocol.token_file import TokenFile

    return TokenFile(path).tokens[0]


def _interceptor(token: str) -> Any:
    """Return an interceptor that sends a token with each call."""
    import grpc

    class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
        def intercept_unary_unary(self, call: Any, details: Any, request: Any) -> Any:
            return call(self._with_token(details), request)

        def intercept_unary_stream(self, call: Any, details: Any, request: Any) -> Any:
            return call(self._with_token(details), request)

        def _with_token(self, details: Any) -> Any:
            metadata = (*(details.metadata or ()), ("authorization", f"Bearer {token}"))
            return details._replace(metadata=metadata)

    return Bearer()


def _failure(error: Any, gateway: Gateway) -> OSError:
    from grpc import StatusCode
    from grpc_status import rpc_status

    # A gateway's own UNIMPLEMENTED, for a node without Free, carries a google.rpc.Status.
    if error.code() is StatusCode.UNIMPLEMENTED and rpc_status.from_call(error) is None:
        text = f"{gateway.gateway} is not a gateway of grpcerrors-router; give another --gateway"
        return OSError(text)
    return OSError(f"{error.details()} ({error.code().name})")
