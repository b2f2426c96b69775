"""The commands `add-node`, `remove-node`, `drain` and `forgive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from grpcerrors_router.cli import complete
from grpcerrors_router.cli.common import AsJson, console, print_json
from grpcerrors_router.cli.gateway import Gateway, open_gateway, uses_gateway

if TYPE_CHECKING:
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

ADD_NODE_EXAMPLES = """Examples:

\b
  grpcerrors-router add-node 10.0.0.7:50051 --backend llama-cpp --name gpu-1
  grpcerrors-router add-node 10.0.0.7:50051 --backend llama-cpp --node-tls \\
      --node-token-file gpu-1.token
"""
REMOVE_NODE_EXAMPLES = """Example:

\b
  grpcerrors-router remove-node gpu-1
"""
DRAIN_EXAMPLES = """Examples:

\b
  grpcerrors-router drain gpu-1
  grpcerrors-router drain gpu-1 --off
"""
FORGIVE_EXAMPLES = """Examples:

\b
  grpcerrors-router forgive --model tiny.en
  grpcerrors-router forgive --node gpu-1
"""
TIMEOUT = 30.0

Node = Annotated[
    str,
    typer.Argument(
        metavar="NODE", autocompletion=complete.nodes, help="Use this node, as status names it."
    ),
]


@uses_gateway
def add_node(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Add the backend at this address.")
    ],
    backend: Annotated[
        str, typer.Option(metavar="TYPE", help="Load models of this backend type on the node.")
    ],
    slots: Annotated[
        int, typer.Option(min=1, metavar="N", help="Load up to this many models at a time.")
    ] = 1,
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Give the node this name.", show_default="the address"),
    ] = "",
    node_tls: Annotated[
        bool, typer.Option("--node-tls", help="Connect to the node over TLS.")
    ] = False,
    node_token_file: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Send the node the token in this file of the router's directory --secrets.",
            show_default="the router's --node-token-file",
        ),
    ] = "",
    *,
    gateway: Gateway,
) -> None:
    """Add a backend that does not register.

    The backends of LocalAI, for example, do not. The router probes such a node itself. A node that
    was added before is changed.
    """
    from grpcerrors_protocol.fleet_pb2 import AddNodeRequest

    request = AddNodeRequest(
        address=address,
        backend=backend,
        slots=slots,
        name=name,
        tls=node_tls,
        token_file=node_token_file,
    )
    with open_gateway(gateway) as channel:
        reply = _operator(channel).AddNode(request, timeout=TIMEOUT)
    typer.echo(f"added {reply.name} ({backend}, {slots} slot{'s' * (slots > 1)})")
    if not reply.answers:
        why = f" ({reply.why})" if reply.why else ""
        typer.echo(
            f"Warning: nothing answers the router at {address} yet{why}; it will use the node once "
            "it does",
            err=True,
        )


@uses_gateway
def remove_node(node: Node, *, gateway: Gateway) -> None:
    """Remove a node and its replicas.

    A node that still sends heartbeats registers again.
    """
    from grpcerrors_protocol.fleet_pb2 import RemoveNodeRequest

    with open_gateway(gateway) as channel:
        _operator(channel).RemoveNode(RemoveNodeRequest(node=node), timeout=TIMEOUT)
    typer.echo(f"removed {node}")


@uses_gateway
def drain(
    node: Node,
    off: Annotated[bool, typer.Option("--off", help="Send requests to the node again.")] = False,
    *,
    gateway: Gateway,
) -> None:
    """Stop sending requests to a node.

    Calls in flight run to their end. No model is loaded on the node meanwhile.
    """
    from grpcerrors_protocol.fleet_pb2 import DrainRequest

    with open_gateway(gateway) as channel:
        reply = _operator(channel).Drain(DrainRequest(node=node, off=off), timeout=TIMEOUT)
    if off:
        typer.echo(f"{node} takes requests again")
    else:
        left = f"; {reply.calls} calls in flight" if reply.calls else ""
        typer.echo(f"draining {node}{left}")


@uses_gateway
def forgive(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete.models,
            help="Forgive this model.",
            show_default="every model",
        ),
    ] = "",
    node: Annotated[
        str,
        typer.Option(
            metavar="NODE",
            autocompletion=complete.nodes,
            help="Forgive this node.",
            show_default="every node",
        ),
    ] = "",
    as_json: AsJson = False,
    *,
    gateway: Gateway,
) -> None:
    """End quarantines, back-offs and pauses.

    Use it once you have fixed their cause: the router tries again at once.
    """
    from grpcerrors_protocol.fleet_pb2 import FleetState, ForgiveRequest
    from grpcerrors_router.cli.tables import pause_table

    with open_gateway(gateway) as channel:
        request = ForgiveRequest(model=model, node=node)
        reply = _operator(channel).Forgive(request, timeout=TIMEOUT)
        if as_json:
            print_json(reply)
        elif reply.ended:
            typer.echo("ended:")
            console().print(pause_table(FleetState(now=reply.now, pauses=reply.ended)))
        else:
            typer.echo("nothing to forgive")


def _operator(channel: object) -> OperatorStub:
    from grpcerrors_protocol.fleet_pb2_grpc import OperatorStub

    return OperatorStub(channel)
