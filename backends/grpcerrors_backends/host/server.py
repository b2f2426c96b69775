"""The host process: serves one backend over gRPC, on a sync or an aio server."""

from __future__ import annotations

import asyncio
import re
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

import grpcerrors.aio
from grpcerrors import KSERVE, LOCALAI
from grpcerrors_backends.files import Files, Secrets
from grpcerrors_backends.host.control import Control
from grpcerrors_backends.host.janitor import Janitor
from grpcerrors_backends.host.membership import Member, Node, advertised, default_name
from grpcerrors_backends.host.memory import MIB, give_back
from grpcerrors_backends.host.requests import Requests
from grpcerrors_backends.host.service import services
from grpcerrors_backends.host.slots import Slots
from grpcerrors_backends.host.token_check import AioTokenCheck, TokenCheck, check_of
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2
from grpcerrors_protocol.exposure import Protection
from grpcerrors_protocol.limits import connection_limits
from grpcerrors_protocol.logs import describe_process
from grpcerrors_protocol.pool import pool_of
from grpcerrors_protocol.tls import TlsFiles
from grpcerrors_protocol.token_file import TokenFile
from grpcerrors_protocol.wellformed import Wellformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from opentelemetry.sdk.trace import TracerProvider

    from grpcerrors_backends.model import Model

log = structlog.get_logger()
_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^:/\s]+):\d{1,5}")
THREADS = 128  # of a sync server; a stream occupies one until it ends
MAX_CALLS = 8192  # running or waiting; above, gRPC answers RESOURCE_EXHAUSTED
MESSAGE_LIMIT = 50 * MIB  # messages carry audio and images
_NEVER = 2**31 - 1
_TICK = 0.5  # seconds
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.so_reuseport", 0),  # fail if the port is in use, instead of sharing it
    # By default, gRPC answers CANCELLED at random when more than 1,000 calls arrive at once.
    ("grpc.server.max_pending_requests", _NEVER),
    ("grpc.server.max_pending_requests_hard_limit", _NEVER),
    ("grpc.server_max_unrequested_time_in_server", _NEVER),
    *connection_limits(),
)


@dataclass(frozen=True)
class Config:
    """Settings of a host.

    Attributes:
        listen: "host:port" to listen on; port 0 picks a free port.
        slots: number of models that can be loaded at the same time.
        idle_ttl: seconds without a call after which a model is unloaded; None for never.
        max_rss: resident size in MiB above which models are unloaded; None for no limit.
        router: "host:port" of the router to join; None for no router.
        node_name: name of this node in the router; None derives it from backend, machine and
            address.
        advertise: host at which the router reaches this node; None for the host of *listen*.
        grace: seconds that running calls have to end when the host stops.
        max_calls: limit of calls that run or wait; further calls get RESOURCE_EXHAUSTED.
        max_buffered: limit of the requests that are being served together, in MiB; further calls
            get RESOURCE_EXHAUSTED.
        files: folders in which requests and load options may name files.
        secrets: folder with the keys that load options may name; None for no keys.
        secret_env: environment variables with keys that load options may name.
        tls: certificate and authorities; without a certificate, the host serves plain text.
        traces: where the spans of calls go; None for no traces.
        insecure: whether other machines may reach it without TLS.
        token_file: file with the tokens of which callers must send one; None if they need none,
            unless the environment variable LOCALAI_GRPC_AUTH_TOKEN has one.
        router_token_file: file with the token for the router; None for none.
    """

    listen: str = "127.0.0.1:0"
    slots: int = 1
    idle_ttl: float | None = None
    max_rss: float | None = None
    router: str | None = None
    node_name: str | None = None
    advertise: str | None = None
    grace: float = 30.0
    max_calls: int = MAX_CALLS
    max_buffered: int = 512
    files: tuple[Path, ...] = ()
    secrets: Path | None = None
    secret_env: tuple[str, ...] = ()
    tls: TlsFiles = field(default_factory=TlsFiles)
    traces: TracerProvider | None = None
    insecure: bool = False
    token_file: Path | None = None
    router_token_file: Path | None = None


class ListenError(Exception):
    """The host cannot listen on its address. The text says what to change."""


def _confined(model: type[Model], config: Config) -> type[Model]:
    """Return *model* with the files and secrets of *config*. Raises NoFolderError."""
    allowed = {
        "files": Files(config.files),
        "secrets": Secrets(config.secrets, config.secret_env),
    }
    # A subclass, since another host in this process may serve the same class.
    confined: type[Model] = types.new_class(
        model.__name__, (model,), exec_body=lambda body: body.update(allowed)
    )
    return confined


class _Health(health.HealthServicer):
    """The health service, in a thread of its own: it answers while all other threads are busy."""

    def Check(self, request: Any, context: Any) -> Any:
        return super().Check(request, context)

    vars(Check)["experimental_thread_pool"] = ThreadPoolExecutor(1, "health")


class Host:
    """Serves the backend *model* as *config* says.

    `run` serves until `stop` is called, from any thread or signal handler.
    """

    def __init__(self, model: type[Model], config: Config) -> None:
        if config.router:
            advertised(config.listen, config.advertise)
        self._check = check_of(model.name, config.token_file)
        file = config.router_token_file
        self._router_token = None if file is None else TokenFile(file, "--router-token-file")
        protection = Protection(
            tokens=self._check is not None,
            tls=config.tls.cert is not None,
            clients=config.tls.client_ca is not None,
            insecure=config.insecure,
            by="--token-file",
        )
        protection.check("--listen", config.listen, log.warning)
        self._tls = config.tls.server(log.warning)
        joins_over_tls = config.tls.ca is not None or config.tls.cert is not None
        self._router_tls = config.tls.client(log.warning) if joins_over_tls else None
        model = _confined(model, config)
        self._config = config
        self._model = model
        self._inventory_changed = threading.Event()
        self.slots: Slots[Model, pb.ModelOptions] = Slots(
            model.load,
            config.slots,
            reclaim=give_back,
            on_change=self._inventory_changed.set,
        )
        self._control = Control(model.name, self.slots)
        self._services = services(
            model, self.slots, self._control, Requests(model.name, config.max_buffered * MIB)
        )
        self._janitor = Janitor(self.slots, idle_ttl=config.idle_ttl, max_rss=config.max_rss)
        self._member: Member | None = None
        self._stop: SimpleQueue[None] = SimpleQueue()  # unlike Event, safe in a signal handler

    def run(self, ready: Callable[[str], None]) -> None:
        """Serve, and call *ready* with the bound address. Returns when the host has stopped.

        Raises ListenError if the address is invalid or in use.
        """
        if self._model.surface == "aio":
            asyncio.run(self._run_aio(ready))
        else:
            self._run_sync(ready)
        self.slots.evict_idle(0, "stop")

    def stop(self) -> None:
        """Refuse new calls, wait up to the grace period for running ones, and end `run`.

        A second call ends the grace period.
        """
        self._stop.put(None)

    def _told_to_stop(self) -> bool:
        # Wait in short steps: a signal that arrives just before a wait does not interrupt it, and
        # its handler runs only after the wait.
        try:
            self._stop.get(timeout=_TICK)
        except Empty:
            return False
        return True

    def _run_sync(self, ready: Callable[[str], None]) -> None:
        pool = ThreadPoolExecutor(THREADS, "call")
        server = grpc.server(
            pool,
            interceptors=self._interceptors("Spans", TokenCheck, grpcerrors.ModelGuard),
            options=OPTIONS,
            maximum_concurrent_rpcs=self._config.max_calls,
        )
        probe = _Health()
        address = self._equip(server, probe)
        probe.set("", health_pb2.HealthCheckResponse.SERVING)
        for service in self._services:
            probe.set(service, health_pb2.HealthCheckResponse.SERVING)
        server.start()
        self._open(address, ready)
        while not self._told_to_stop():
            pass
        probe.enter_graceful_shutdown()
        self._close()
        stopped = server.stop(self._config.grace)
        while not stopped.wait(_TICK):
            if self._told_to_stop():
                server.stop(None)

    async def _run_aio(self, ready: Callable[[str], None]) -> None:
        server = grpc.aio.server(
            interceptors=self._interceptors("AioSpans", AioTokenCheck, grpcerrors.aio.ModelGuard),
            options=OPTIONS,
            maximum_concurrent_rpcs=self._config.max_calls,
        )
        probe = health.aio.HealthServicer()
        address = self._equip(server, probe)
        await probe.set("", health_pb2.HealthCheckResponse.SERVING)
        for service in self._services:
            await probe.set(service, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._open(address, ready)
        while not await asyncio.to_thread(self._told_to_stop):
            pass
        await probe.enter_graceful_shutdown()
        await asyncio.to_thread(self._close)
        stopped = asyncio.create_task(server.stop(self._config.grace))
        while not (await asyncio.wait([stopped], timeout=_TICK))[0]:
            if await asyncio.to_thread(self._told_to_stop):
                await server.stop(None)

    def _interceptors(
        self, spans: str, check: Callable[..., Any], guard: Callable[..., Any]
    ) -> list[Any]:
        """Return what makes spans, the check of tokens, if asked for, and a guard of each protocol.

        So a caller without a token is not told which models are loaded. The guards let calls for a
        model that is being loaded in, since each guard sees only the loads of its own protocol. The
        handler refuses them.
        """
        name, slots = self._model.name, self.slots
        before = [] if self._check is None else [check(self._check)]
        if self._config.traces is not None:
            from grpcerrors_backends.host import tracing

            before.insert(0, getattr(tracing, spans)(self._config.traces))
        return [
            *before,
            guard(name, protocol=LOCALAI, holds=lambda alias: slots.expects(alias=alias)),
            guard(
                name,
                protocol=KSERVE,
                holds=lambda model: slots.expects(model) or slots.expects(alias=model),
            ),
        ]

    def _equip(self, server: Any, probe: Any) -> str:
        """Add the services to *server*, bind it, and return the address."""
        server.add_generic_rpc_handlers(tuple(self._services.values()))
        wellformed = Wellformed(server)
        health_pb2_grpc.add_HealthServicer_to_server(probe, wellformed)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        files = (pb, inference_pb2, health_pb2, reflection_pb2)
        pool = pool_of(*(file.DESCRIPTOR for file in files))
        is_aio = self._model.surface == "aio"
        servicer = (reflection.aio if is_aio else reflection).ReflectionServicer(names, pool=pool)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, wellformed)
        listen = self._config.listen
        if not listen.startswith("unix:") and not _ADDRESS.fullmatch(listen):
            raise ListenError(f"--listen {listen!r} is not of the form HOST:PORT")
        try:
            if self._tls is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, self._tls.credentials())
        except RuntimeError as error:
            raise ListenError(
                f"--listen {listen}: the port is taken, or the host is not one of this machine's; "
                "choose another, or port 0 for any free port"
            ) from error
        return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    def _open(self, address: str, ready: Callable[[str], None]) -> None:
        self._janitor.start()
        if self._config.router:
            reached = advertised(address, self._config.advertise)
            name = self._config.node_name or default_name(self._model.name, reached)
            node = Node(
                name, reached, self._model.name, self._control.boot_id, tls=self._tls is not None
            )
            describe_process(node=name)
            self._member = Member(
                self._config.router, node, self.slots, self._inventory_changed,
                self._router_tls, self._router_token,
            )  # fmt: skip
            self._member.start()
        ready(address)

    def _close(self) -> None:
        log.info("stopping", grace=self._config.grace)
        self._janitor.stop()
        if self._member:
            self._member.leave()
