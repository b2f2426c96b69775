"""`grpcerrors check` finds nothing to complain about, in any backend, however its model went."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from backends.catalogue import CATALOGUE, MissingExtraError, find
from backends.service import implemented
from protocol import backend_pb2 as pb

from .hosting import PATIENCE, UNINITIALIZED, HostProcess, host, until
from .models import load

FIELDS: dict[str, dict[str, Any]] = {
    "cloud_proxy": {"Proxy": pb.ProxyOptions(upstream_url="http://127.0.0.1:9")},
}


def check(process: HostProcess, name: str, *arguments: str) -> None:
    """Run the command against *process*: exit 0, and every implemented RPC is typed."""
    run = "from grpcerrors.cli import main; main()"
    command = [sys.executable, "-c", run, "check", process.address, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rpcs"]
    typed = {row["rpc"] for row in rows if row["verdict"] == "typed"}
    assert typed == {rpc.name for rpc in implemented(find(name))}


@pytest.fixture(params=CATALOGUE)
def name(request: pytest.FixtureRequest) -> str:
    backend = str(request.param)
    try:
        find(backend)
    except MissingExtraError as error:
        pytest.skip(str(error))
    return backend


@pytest.mark.slow
def test_every_rpc_is_typed_however_the_model_went(name: str) -> None:
    fields = FIELDS.get(name, {})
    with host(name) as process:
        check(process, name)

        load(process, **fields)
        process.free()
        check(process, name)

        load(process, **fields)
        other = pb.ModelOptions(Model="other", **fields)
        assert process.stub.LoadModel(other, timeout=PATIENCE).success
        check(process, name, "--metadata", "x-model-id=m")

        broken = pb.ModelOptions(Model="m", Options=["no_such_option:1"], **fields)
        assert not process.stub.LoadModel(broken, timeout=PATIENCE).success
        check(process, name)
    with host(name, "--idle-ttl", 0.2) as process:
        load(process, **fields)
        until(lambda: process.status().state == UNINITIALIZED)
        check(process, name)
