"""The fleet of the demo: three nodes, their models, and gateways in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grpcerrors_router import NodeRegistry

if TYPE_CHECKING:
    from demo.processes import Process, Processes

MODEL = "en-us"
SPEECH = Path(__file__).parent.parent / "tests" / "assets" / "speech.wav"
NODES = {"ears-1": "transcriber", "ears-2": "transcriber", "watch-1": "vad"}
_MODELS_TOML = f"""\
[models.{MODEL}]
backend = "transcriber"

[models.silero]
backend = "vad"
"""


class Fleet:
    """Three nodes that send no heartbeats, like LocalAI's backends; `introduce` registers them.

    Logs, registries and models.toml are in `folder`.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.folder = folder
        self.nodes: dict[str, Process] = {}
        self._processes = processes
        (folder / "models.toml").write_text(_MODELS_TOML)

    def start_nodes(self) -> None:
        """Start a process for each node, with one model slot."""
        for name, backend in NODES.items():
            self.nodes[name] = self._processes.start(
                name,
                *("grpcerrors_backends", backend, "--listen", "127.0.0.1:0"),
                *("--files", str(SPEECH.parent), "--files", str(self.folder)),
            )

    async def introduce(self, registry: str) -> None:
        """Add the nodes to the registry with this URL."""
        async with NodeRegistry(registry) as opened:
            for name, backend in NODES.items():
                await opened.add_node(self.nodes[name].address, backend, name=name)

    def start_gateway(self, name: str, on_stale: str, registry: str) -> Process:
        """Start a gateway. Its second address serves the metrics."""
        options = {
            "--listen": "127.0.0.1:0",
            "--metrics": "127.0.0.1:0",
            "--registry": registry,
            "--models": str(self.folder / "models.toml"),
            "--on-stale": on_stale,
            "--name": name,
        }
        arguments = [word for option in options.items() for word in option]
        return self._processes.start(name, "grpcerrors_router", "serve", *arguments)
