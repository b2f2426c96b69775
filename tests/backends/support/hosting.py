"""Real hosts as processes, and calls to them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol.backend_pb2_grpc import BackendStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60  # seconds that only a hang reaches
LIMIT = 100 << 20
READY, BUSY, UNINITIALIZED = (
    pb.StatusResponse.READY,
    pb.StatusResponse.BUSY,
    pb.StatusResponse.UNINITIALIZED,
)


@dataclass
class HostProcess:
    """A host: its process, address, stub and log."""

    process: subprocess.Popen[str]
    address: str
    channel: Any
    stub: Any
    stderr: Path

    def load(self, model: str = "m", *options: str, metadata: Any = ()) -> Any:
        """Load *model*, or fail the test. Return the trailing metadata of the call."""
        request = pb.ModelOptions(Model=model, Options=options)
        result, call = self.stub.LoadModel.with_call(request, metadata=metadata, timeout=PATIENCE)
        assert result.success, result.message
        return dict(call.trailing_metadata())

    def free(self, model: str = "", generation: str = "") -> Any:
        """Unload; return the result."""
        keys = {"x-model-id": model, "x-generation": generation}
        metadata = [(key, value) for key, value in keys.items() if value]
        return self.stub.Free(pb.HealthMessage(), metadata=metadata, timeout=PATIENCE)

    def status(self, model: str = "") -> Any:
        """Return the Status of *model*, or of the process."""
        metadata = [("x-model-id", model)] if model else None
        return self.stub.Status(pb.HealthMessage(), metadata=metadata, timeout=PATIENCE)

    def log(self) -> str:
        """Return all that the host has written to stderr."""
        return self.stderr.read_text()

    def terminate(self) -> int:
        """Stop it gracefully; return its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def host(name: str, *arguments: object) -> Iterator[HostProcess]:
    """Run ``grpcerrors-backend NAME ...`` on a free port during the block."""
    command = [sys.executable, "-m", "grpcerrors_backends", name, "--listen", "127.0.0.1:0"]
    command += [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as scratch:
        stderr = Path(scratch, "stderr")
        with stderr.open("ab") as sink:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=sink, text=True, cwd=ROOT
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert " ready on " in line, stderr.read_text()
            address = line.split()[-1]
            options = [
                ("grpc.max_send_message_length", LIMIT),
                ("grpc.max_receive_message_length", LIMIT),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            with grpc.insecure_channel(address, options=options) as channel:
                yield HostProcess(process, address, channel, BackendStub(channel), stderr)
        finally:
            end(process)
            process.stdout.close()


def end(process: subprocess.Popen[str]) -> None:
    """Stop a host without its grace period, so that coverage can save its data; or kill it."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    process.kill()
    process.wait()


def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* is true, or fail the test."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
