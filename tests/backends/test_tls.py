"""Hosts over TLS, their way to a router over TLS, and addresses that need it."""

from __future__ import annotations

import contextlib
import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from structlog.testing import capture_logs

from grpcerrors_backends.host.membership import Member, Node
from grpcerrors_backends.host.server import Config, Host
from grpcerrors_backends.host.slots import Slots
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.exposure import ExposedError
from grpcerrors_protocol.fleet_pb2_grpc import FleetServicer, add_FleetServicer_to_server
from grpcerrors_protocol.tls import ClientTls, ServerTls, TlsError, TlsFiles
from tests.certificates import Authority

from .support.hosting import PATIENCE, until
from .support.samples import Aio, Sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CA, OTHER = Authority.create(), Authority.create("other")


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """The files of a node that asks its callers for certificates."""
    cert, key = CA.issue("127.0.0.1").write(tmp_path, "node")
    ca = CA.write(tmp_path / "ca.pem")
    return TlsFiles(cert, key, ca, ca)


@contextlib.contextmanager
def hosting(model: Any, **settings: Any) -> Iterator[str]:
    """Run a host in this process; yield its address."""
    host = Host(model, Config(grace=0, **settings))
    ready = Future[str]()
    thread = threading.Thread(target=functools.partial(host.run, ready.set_result))
    thread.start()
    try:
        yield ready.result(PATIENCE)
    finally:
        host.stop()
        thread.join(PATIENCE)


def health(address: str, tls: ClientTls | None) -> grpc.StatusCode:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.secure_channel(address, tls.credentials(), options)
        if tls
        else grpc.insecure_channel(address, options)
    )
    with channel:
        call = BackendStub(channel).Health.future(pb.HealthMessage(), timeout=PATIENCE)
        code: grpc.StatusCode = call.code()
        return code


@pytest.mark.parametrize("model", [Sync, Aio])
def test_a_host_serves_callers_with_a_certificate(
    model: Any, files: TlsFiles, tmp_path: Path
) -> None:
    ok, refused = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
    caller = ClientTls(files.ca, *CA.issue().write(tmp_path, "caller"))
    with hosting(model, tls=files) as address:
        assert health(address, caller) is ok
        assert health(address, ClientTls(files.ca)) is refused
        assert health(address, None) is refused
        stranger = ClientTls(files.ca, *OTHER.issue().write(tmp_path, "stranger"))
        assert health(address, stranger) is refused
        CA.issue("127.0.0.1").write(tmp_path, "node")
        assert health(address, caller) is ok
        CA.issue("elsewhere.example").write(tmp_path, "node")
        assert health(address, caller) is refused, "the new certificate is shown"


class Router(FleetServicer):
    def __init__(self) -> None:
        self.beats: list[Any] = []

    def Heartbeat(self, request: Any, context: Any) -> Any:
        self.beats.append(request)
        return fleet_pb2.HeartbeatReply(interval_seconds=0.2)

    def Leave(self, request: Any, context: Any) -> Any:
        return fleet_pb2.LeaveReply()


@contextlib.contextmanager
def routing(router: Router, tls: ServerTls | None, port: int = 0) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    add_FleetServicer_to_server(router, server)
    address = f"127.0.0.1:{port}"
    bound: int = (
        server.add_secure_port(address, tls.credentials())
        if tls
        else server.add_insecure_port(address)
    )
    server.start()
    yield bound
    server.stop(None).wait()


def test_a_node_joins_over_tls_and_follows_its_files(files: TlsFiles, tmp_path: Path) -> None:
    router = Router()
    tls = ServerTls(*CA.issue("127.0.0.1").write(tmp_path, "router"), CA.write(tmp_path / "c.pem"))
    with routing(router, tls) as port, hosting(Sync, tls=files, router=f"127.0.0.1:{port}"):
        until(lambda: len(router.beats) > 0)
        assert router.beats[0].tls
        # The router changes its authority: the node does not know it, until its file says so.
        OTHER.issue("127.0.0.1").write(tmp_path, "router")
        OTHER.write(tmp_path / "c.pem")
        OTHER.issue().write(tmp_path, "node")
        OTHER.write(tmp_path / "ca.pem")
        before = len(router.beats)
        until(lambda: len(router.beats) > before + 1)
    assert len(router.beats) > 2


@pytest.mark.parametrize(
    ("served", "used", "why"),
    [
        (True, False, "if it serves TLS, give --tls-ca"),
        (False, True, "the server does not serve TLS"),
    ],
)
def test_a_router_that_speaks_otherwise_is_told(
    files: TlsFiles, tmp_path: Path, served: bool, used: bool, why: str
) -> None:
    tls = ServerTls(*CA.issue("127.0.0.1").write(tmp_path, "router")) if served else None
    with routing(Router(), tls) as port, capture_logs() as logs:
        member = Member(
            f"127.0.0.1:{port}",
            Node("n", "127.0.0.1:1", "echo", "boot"),
            Slots(Sync.load, 1),
            threading.Event(),
            ClientTls(files.ca) if used else None,
        )
        member.start()
        until(lambda: any(why in log.get("why", "") for log in logs))
        member.leave()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:1"])
def test_only_this_machine_reaches_a_host_without_protection(address: str, files: TlsFiles) -> None:
    with pytest.raises(ExposedError) as caught:
        Host(Sync, Config(listen=address))
    said = str(caught.value)
    assert said.startswith(f"--listen {address}: other machines can reach this address")
    assert "--token-file" in said
    with capture_logs() as logs:
        Host(Sync, Config(listen=address, insecure=True))
        Host(Sync, Config(listen=address, tls=files))
    (warning,) = logs
    assert "is not protected" in warning["event"]


def test_files_that_cannot_be_used_are_told_before_the_start(files: TlsFiles) -> None:
    with pytest.raises(TlsError, match="--tls-cert needs --tls-key"):
        Host(Sync, Config(tls=TlsFiles(files.cert)))
    assert files.ca is not None
    with pytest.raises(TlsError, match=r"--tls-ca .*no\.pem: No such file"):
        Host(Sync, Config(tls=TlsFiles(ca=files.ca.with_name("no.pem"))))
