"""Who may do what at the gateway, by token: every role, service and shape of call."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from grpcerrors import classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import fleet_pb2
from grpcerrors_protocol import inference_pb2 as v2
from grpcerrors_protocol.backend_pb2_grpc import BackendStub
from grpcerrors_protocol.fleet_pb2_grpc import FleetStub, OperatorStub
from grpcerrors_protocol.inference_pb2_grpc import GRPCInferenceServiceStub
from grpcerrors_protocol.seldom import Seldom
from grpcerrors_router.config.reload import Reloader
from grpcerrors_router.errors import Unauthenticated
from grpcerrors_router.gateway.authorization import RefusalLog, role_for
from grpcerrors_router.gateway.catalogue import Catalogue
from grpcerrors_router.gateway.proxy import SERVICES
from grpcerrors_router.security import access as access_module
from grpcerrors_router.security.access import Access
from grpcerrors_router.security.editing import add, revoke
from grpcerrors_router.security.tokens import Role, Token, Tokens, digest_of, new_token
from tests.router.conftest import eventually
from tests.router.support.rawnode import Script, Stack, stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

Headers = list[tuple[str, str]]
YESTERDAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@dataclass
class Locked:
    """A gateway that asks for tokens."""

    stack: Stack
    access: Access
    path: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *roles: Role, **limits: Any) -> Headers:
        """Add a token, and return the headers that show it."""
        self.secrets[name] = new_token()
        add(self.path, name, digest_of(self.secrets[name]), roles=roles, **limits)
        self.access.reload()
        return self.headers(name)

    def headers(self, name: str) -> Headers:
        return [("authorization", f"Bearer {self.secrets[name]}")]

    @property
    def channel(self) -> Any:
        return self.stack.through


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Locked]:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    access = Access(path)
    async with stack(tmp_path, access=access) as made:
        made.node.script = Script(replies=(b"",))
        yield Locked(made, access, path)


async def outcome(call: Any) -> str:
    """Return the reason of the router's refusal, or "ok" for anything else."""
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return reason(error)
    return "ok"


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return the reason of an error of the router, after a check of its form."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert info.domain == "grpcerrors"
    assert error.code().name == info.reason
    assert classify(error).condition is None
    return info.reason


async def scrape(locked: Locked) -> str:
    """Return the metrics page."""
    page = await asyncio.to_thread(generate_latest, locked.stack.metrics.registry)
    return page.decode()


# Every role and every RPC


def every_call(channel: Any) -> Iterator[tuple[str, Callable[[Headers], Any]]]:
    """Yield each RPC that the gateway serves: its path, and how to start a call of it."""
    for service in (
        *SERVICES,
        fleet_pb2.DESCRIPTOR.services_by_name["Fleet"],
        fleet_pb2.DESCRIPTOR.services_by_name["Operator"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    ):
        for method in service.methods:
            if method.name == "Watch":  # of the health service: it does not end
                continue
            path = f"/{service.full_name}/{method.name}"
            shape = "_".join(
                "stream" if streams else "unary"
                for streams in (method.client_streaming, method.server_streaming)
            )
            message = GetMessageClass(method.input_type)()
            yield path, _start(channel, path, shape, message.SerializeToString())
    for path in ("/other.Service/Anything", "/fleet.v1.FleetX/Heartbeat", "/backend.Backend/New"):
        for shape in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            yield path, _start(channel, path, shape, b"")
    request = reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        yield path, _start(channel, path, "stream_stream", request)


def _start(channel: Any, path: str, shape: str, request: bytes) -> Callable[[Headers], Any]:
    def start(headers: Headers) -> Any:
        body = iter([request]) if shape.startswith("stream") else request
        metadata = [("x-model-id", "m"), *headers]
        return getattr(channel, shape)(path)(body, metadata=metadata, timeout=60)

    return start


def expected(path: str, role: Role | None) -> str:
    if path.startswith("/grpc.health.v1."):
        return "ok"
    if role is None:
        return "UNAUTHENTICATED"
    if path.startswith("/grpc.reflection."):
        return "ok"
    needed = {"/fleet.v1.Fleet/": Role.NODE, "/fleet.v1.Operator/": Role.OPERATOR}
    wanted = next((needed[each] for each in needed if path.startswith(each)), Role.CALLER)
    return "ok" if role is wanted else "PERMISSION_DENIED"


async def test_each_role_may_call_its_own_services_and_no_others(locked: Locked) -> None:
    calls = list(every_call(locked.channel))
    assert len(calls) > 80
    for role in (None, *Role):
        headers = locked.add(role, role) if role is not None else []
        found: dict[str, str] = {}
        for some in range(0, len(calls), 16):
            batch = calls[some : some + 16]
            results = await asyncio.gather(*(outcome(start(headers)) for _, start in batch))
            found.update(zip([path for path, _ in batch], results, strict=True))
        assert found == {path: expected(path, role) for path, _ in calls}


def test_what_nobody_knows_is_a_call_for_a_model() -> None:
    for method in ("", "/", "x", "//fleet.v1.Fleet/Heartbeat", "/fleet.v1.Fleet", "/a/b/c"):
        assert role_for(method) in (Role.CALLER, Role.NODE)
    assert role_for("/fleet.v1.Operator/New") is Role.OPERATOR


async def test_a_token_may_have_several_roles(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, Role.OPERATOR)
    await BackendStub(locked.channel).Predict(
        pb.PredictOptions(), metadata=[("x-model-id", "m"), *headers]
    )
    await OperatorStub(locked.channel).Unload(fleet_pb2.UnloadRequest(model="m"), metadata=headers)


# What is no valid token

BAD = {
    "none": [],
    "wrong": ["Bearer grt_wrong"],
    "empty": ["Bearer "],
    "only the scheme": ["Bearer"],
    "no scheme": ["{token}"],
    "another scheme": ["Basic {token}"],
    "twice": ["Bearer {token}", "Bearer {token}"],
    "twice, one wrong": ["Bearer {token}", "Bearer grt_wrong"],
    "half": ["Bearer {half}"],
    "more": ["Bearer {token}x"],
    "two tokens": ["Bearer {token} {token}"],
    "upper case": ["Bearer {upper}"],
    "60 KiB": ["Bearer " + "x" * 60_000],
    "the hash": ["Bearer {hash}"],
}


async def test_a_bad_token_is_refused_and_shown_nowhere(locked: Locked) -> None:
    locked.add("x", *Role)
    token = locked.secrets["x"]
    forms = {
        "token": token,
        "half": token[: len(token) // 2],
        "upper": token.upper(),
        "hash": digest_of(token).hex(),
    }
    seen = []
    with structlog.testing.capture_logs() as logs:
        for name, sent in BAD.items():
            headers = [("authorization", each.format(**forms)) for each in sent]
            for call in (
                BackendStub(locked.channel).Predict(pb.PredictOptions(), metadata=headers),
                OperatorStub(locked.channel).GetFleet(
                    fleet_pb2.GetFleetRequest(), metadata=headers
                ),
                locked.channel.stream_unary("/a.B/C")(iter([b""]), metadata=headers),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert reason(caught.value) == "UNAUTHENTICATED", name
                seen += [repr(caught.value), str(caught.value.trailing_metadata())]
    assert not locked.stack.node.seen
    assert logs[0]["event"] == "refused a call"
    assert logs[0]["peer"].startswith("ipv4:127.0.0.1:")
    metrics = await scrape(locked)
    counted = f'router_refused_total{{model="",reason="UNAUTHENTICATED"}} {3.0 * len(BAD)}'
    assert counted in metrics
    everything = f"{seen}{logs}{metrics}"
    for secret in (token[10:20], token.upper()[10:20], "grt_wrong", digest_of(token).hex()):
        assert secret not in everything


async def test_the_scheme_has_no_case_and_spaces_do_not_count(locked: Locked) -> None:
    locked.add("x", Role.CALLER)
    for header in ("Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", "Bearer {} "):
        sent = header.format(locked.secrets["x"])
        await BackendStub(locked.channel).Predict(
            pb.PredictOptions(), metadata=[("x-model-id", "m"), ("authorization", sent)]
        )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "cookie", "x-other", "authorization-bin"]),
            st.one_of(
                st.text(max_size=40),
                st.binary(max_size=40),
                st.sampled_from(["Bearer right", "bearer right ", "Bearer wrong", "right"]),
            ),
        ),
        max_size=5,
    )
)
def test_only_one_right_header_identifies(metadata: list[tuple[str, str | bytes]]) -> None:
    sent = [value for key, value in metadata if key == "authorization"]
    right = sent in (["Bearer right"], ["bearer right "])
    access = Access.__new__(Access)
    access._found = {}
    access._tokens = Tokens([Token("x", frozenset(Role), digest_of("right"))])
    try:
        token = access.identify(metadata)
    except Unauthenticated:
        assert not right
    else:
        assert right
        assert token.name == "x"


async def test_an_expired_token_is_refused_and_says_so(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, expires=YESTERDAY)
    with pytest.raises(grpc.aio.AioRpcError, match="it has expired") as caught:
        await BackendStub(locked.channel).Predict(pb.PredictOptions(), metadata=headers)
    assert reason(caught.value) == "UNAUTHENTICATED"


async def test_headers_are_remembered_up_to_a_limit(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked.add("x", Role.CALLER)
    monkeypatch.setattr(access_module, "KEPT_HEADERS", 3)
    for spaces in range(10):
        sent = f"Bearer {' ' * spaces}{locked.secrets['x']}"
        assert locked.access.identify([("authorization", sent)]).name == "x"
        assert len(locked.access._found) <= 3


def test_refusals_are_logged_at_a_limited_rate() -> None:
    now = 0.0
    log = RefusalLog(Seldom(clock=lambda: now))
    with structlog.testing.capture_logs() as logs:
        for moment in (0.0, 0.1, 0.9, 1.0, 5.0):
            now = moment
            log.refused(Unauthenticated("why"), "/a/b", "peer")
    assert [line["others"] for line in logs] == ["", 2, ""]


# Models


async def predict(locked: Locked, headers: Headers, **request: Any) -> str:
    """Return the whole refusal of a call: code, text and details; "ok" if there is none."""
    try:
        await BackendStub(locked.channel).Predict(
            pb.PredictOptions(**request), metadata=headers, timeout=60
        )
    except grpc.aio.AioRpcError as error:
        return f"{error.code()} {error.details()} {tuple(error.trailing_metadata())}"
    return "ok"


async def test_a_caller_reaches_its_models_only(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, models=["m", "twin-a"])
    for key, identity, may in [
        ("m", "", True),
        ("", "m", True),
        ("alias", "", False),
        ("", "weights.gguf", False),  # that of alias
        ("", "alias", False),
        ("alias", "weights.gguf", False),
        ("twin-a", "", True),
        ("", "twin", True),  # twin-b, which the caller may not see, is loaded as that, too
        ("twin-b", "", False),
        ("twin-b", "twin", False),
    ]:
        named = [("x-model-id", key)] if key else []
        found = await predict(locked, [*named, *headers], ModelIdentity=identity)
        assert found == "ok" if may else "PERMISSION_DENIED" in found, (key, identity)


async def test_the_patterns_hold_for_every_shape_and_method(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, models=["m*"])
    for path in (
        "/backend.Backend/New",
        "/other.Service/Any",
        "/backend.Backend/AudioToAudioStream",
    ):
        for shape in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            for model, result in [("m", "ok"), ("alias", "PERMISSION_DENIED")]:
                body = iter([b""]) if shape.startswith("stream") else b""
                call = getattr(locked.channel, shape)(path)(
                    body, metadata=[("x-model-id", model), *headers]
                )
                assert await outcome(call) == result


QUESTIONS: list[tuple[str, Any]] = [
    ("/backend.Backend/Predict", pb.PredictOptions()),
    ("/backend.Backend/Status", pb.HealthMessage()),
    ("/backend.Backend/New", pb.HealthMessage()),
    ("/inference.GRPCInferenceService/ModelReady", v2.ModelReadyRequest()),
    ("/inference.GRPCInferenceService/ModelInfer", v2.ModelInferRequest()),
]


async def test_a_model_that_a_caller_may_not_call_might_as_well_not_exist(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, models=["m"])
    await locked.stack.router.load("alias")
    for path, question in QUESTIONS:
        for identity in ("", "weights.gguf", "twin", "zzz"):
            if "ModelIdentity" in question.DESCRIPTOR.fields_by_name:
                question.ModelIdentity = identity
            answers = set()
            for model in ("alias", "twin-a", "orphan", "absent"):
                call = locked.channel.unary_unary(path)(
                    question.SerializeToString(), metadata=[("x-model-id", model), *headers]
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert reason(caught.value) == "PERMISSION_DENIED"
                assert set(dict(caught.value.trailing_metadata())) == {"grpc-status-details-bin"}
                answers.add((caught.value.details() or "").replace(model, "*"))
            assert len(answers) == 1


async def test_hints_name_only_models_that_the_caller_may_call(locked: Locked) -> None:
    headers = locked.add("x", Role.CALLER, models=["al*", "m"])
    everything = locked.add("y", Role.CALLER)
    found = await predict(locked, [("x-model-id", "aliax"), *headers])
    assert 'did you mean "alias"?' in found
    found = await predict(locked, [("x-model-id", "alzzzzzzzzz"), *headers])
    assert "known: alias, m" in found
    assert "twin" not in found
    found = await predict(locked, [("x-model-id", "zzzzzzzzzzz"), *everything])
    assert "twin-b" in found
    status = BackendStub(locked.channel).Status
    with pytest.raises(grpc.aio.AioRpcError, match="known: alias, m"):
        await status(pb.HealthMessage(), metadata=[("x-model-id", "alzzzzzzzzz"), *headers])


async def test_answers_of_the_gateway_show_only_models_that_the_caller_may_call(
    locked: Locked,
) -> None:
    kserve = GRPCInferenceServiceStub(locked.channel)
    some = locked.add("some", Role.CALLER, models=["m", "twin-*"])
    none = locked.add("none", Role.CALLER, models=["other"])
    unserved = locked.add("unserved", Role.CALLER, models=["orphan"])
    every = locked.add("every", Role.CALLER)

    async def models(headers: Headers) -> list[str]:
        request = v2.RepositoryIndexRequest()
        index = await kserve.RepositoryIndex(request, metadata=headers)
        return [model.name for model in index.models]

    assert await models(some) == ["m", "twin-a", "twin-b"]
    assert await models(none) == []
    assert len(await models(every)) == 5

    async def ready(headers: Headers) -> bool:
        answer = await kserve.ServerReady(v2.ServerReadyRequest(), metadata=headers)
        return bool(answer.ready)

    assert await ready(some)
    assert await ready(every)
    assert not await ready(none)
    assert not await ready(unserved), "no node offers the backend of its only model"


async def test_an_unknown_model_is_the_same_when_its_token_is_revoked_meanwhile(
    locked: Locked,
) -> None:
    headers = locked.add("x", Role.CALLER, models=["no-such"])
    catalogue = Catalogue(locked.stack.router, locked.access)
    revoke(locked.path, "x")
    locked.access.reload()
    error = catalogue.unknown("no-such", headers)
    assert "known: none" in (error.details() or "")


# Changes of the file


async def test_the_file_is_followed_and_a_broken_one_changes_nothing(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "CHECK_INTERVAL", 0.01)
    headers = locked.add("x", Role.CALLER)
    good = locked.path.read_text()
    watching = asyncio.create_task(locked.access.watch())
    call = BackendStub(locked.channel).Health
    with structlog.testing.capture_logs() as logs:
        locked.path.write_text(good.replace("caller", "nobody"))
        await eventually(lambda: any(line["log_level"] == "error" for line in logs))
        await call(pb.HealthMessage(), metadata=headers)
        locked.path.unlink()
        await eventually(lambda: sum(line["log_level"] == "error" for line in logs) == 2)
        await call(pb.HealthMessage(), metadata=headers)
    errors = [line for line in logs if line["log_level"] == "error"]
    assert "tokens.x.role: unknown role" in errors[0]["mistakes"][0]
    assert "cannot be read" in errors[1]["mistakes"][0]
    locked.path.write_text("")
    await eventually(lambda: not len(locked.access._tokens))
    assert await outcome(call(pb.HealthMessage(), metadata=headers)) == "UNAUTHENTICATED"
    watching.cancel()


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    with structlog.testing.capture_logs() as logs:
        access = Access(path)
        path.chmod(0o604)
        access.reload()
    warnings = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warnings == [
        "the tokens file is empty: every call is refused",
        "the tokens file is empty: every call is refused",
        "others may read or change the tokens file; chmod o-rwx it",
    ]


async def test_a_stream_outlives_its_token_but_the_next_call_is_refused(locked: Locked) -> None:
    headers = [("x-model-id", "m"), *locked.add("x", Role.CALLER)]
    more = asyncio.Event()

    async def behave(_requests: Any, context: Any) -> None:
        await context.write(b"1")
        await more.wait()
        await context.write(b"2")

    locked.stack.node.behave = behave
    start = locked.channel.unary_stream("/backend.Backend/PredictStream")
    call = start(b"", metadata=headers)
    assert await call.read() == b"1"
    revoke(locked.path, "x")
    locked.access.reload()
    assert await outcome(start(b"", metadata=headers)) == "UNAUTHENTICATED"
    more.set()
    assert await call.read() == b"2"
    assert await call.read() is grpc.aio.EOF


# Nodes


def beat(node: str, address: str, boot: str, version: int = 1) -> fleet_pb2.HeartbeatRequest:
    return fleet_pb2.HeartbeatRequest(
        node=node, address=address, backend="raw", slots=1, boot_id=boot, inventory_version=version
    )


async def heartbeat(locked: Locked, headers: Headers, *args: Any) -> str:
    try:
        await FleetStub(locked.channel).Heartbeat(beat(*args), metadata=headers)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}"
    return "ok"


async def leave(locked: Locked, headers: Headers, node: str, boot: str) -> str:
    request = fleet_pb2.LeaveRequest(node=node, boot_id=boot)
    return await outcome(FleetStub(locked.channel).Leave(request, metadata=headers))


async def test_a_node_has_only_names_that_fit_its_token(locked: Locked) -> None:
    gpu = locked.add("gpu", Role.NODE, nodes=["gpu-*"])
    at = locked.stack.node.address
    assert await heartbeat(locked, gpu, "gpu-1", at, "b1") == "ok"
    found = await heartbeat(locked, gpu, "cpu-1", at, "b1")
    assert found.startswith("PERMISSION_DENIED")
    assert "may not register node 'cpu-1'; add the name to its nodes" in found
    assert set(locked.stack.router.table.nodes) == {"raw-1", "gpu-1"}
    assert await leave(locked, gpu, "raw-1", "") == "PERMISSION_DENIED"
    assert await leave(locked, gpu, "gpu-1", "b1") == "ok"
    assert set(locked.stack.router.table.nodes) == {"raw-1"}


async def test_another_token_cannot_take_the_name_of_a_live_node(locked: Locked) -> None:
    owner, thief = locked.add("owner", Role.NODE), locked.add("thief", Role.NODE)
    other = await locked.stack.add_node()
    try:
        at = locked.stack.node.address
        nodes = locked.stack.router.table.nodes
        assert await heartbeat(locked, owner, "gpu-1", at, "b1") == "ok"
        # At another address, and at the same one as if it had restarted there.
        for address in (other.address, at):
            found = await heartbeat(locked, thief, "gpu-1", address, "b2")
            assert found.startswith("ALREADY_EXISTS")
        assert await leave(locked, thief, "gpu-1", "b1") == "ok"
        info = nodes["gpu-1"].info
        assert (info.address, info.boot_id, info.registered_by) == (at, "b1", "owner")
        # Its own restart is no theft, nor is a new token of the same process.
        assert await heartbeat(locked, owner, "gpu-1", at, "b3") == "ok"
        assert await heartbeat(locked, thief, "gpu-1", at, "b3") == "ok"
        assert nodes["gpu-1"].info.registered_by == "thief"
        assert await leave(locked, thief, "gpu-1", "b3") == "ok"
        assert "gpu-1" not in nodes
    finally:
        await other.server.stop(0)


async def test_the_name_of_a_node_that_was_added_by_hand_is_not_free_while_it_is_alive(
    locked: Locked,
) -> None:
    thief = locked.add("thief", Role.NODE)
    other = await locked.stack.add_node()
    try:
        # It sends no heartbeats, and nobody has called it for long.
        entry = locked.stack.router.table.nodes["raw-1"]
        entry.fresh_until = 0.0
        found = await heartbeat(locked, thief, "raw-1", other.address, "b1")
        assert found.startswith("ALREADY_EXISTS")
        assert entry.info.address == locked.stack.node.address
    finally:
        await other.server.stop(0)


async def test_health_is_open(locked: Locked) -> None:
    stub = health_pb2_grpc.HealthStub(locked.channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_tokens_are_reloaded_with_the_models_or_not_at_all(
    locked: Locked, tmp_path: Path
) -> None:
    headers = locked.add("x", Role.CALLER, models=["new"])
    models = tmp_path / "models.toml"
    models.write_text("[models.new]\nbackend = 'raw'\n")
    reloader = Reloader(locked.stack.router, models, locked.access.read)
    good = locked.path.read_text()
    locked.path.write_text(good.replace("caller", "nobody"))
    done = await reloader.reload()
    assert [mistake.rpartition(": ")[2] for mistake in done.mistakes]
    assert "new" not in locked.stack.router.models
    locked.path.write_text(good)
    done = await reloader.reload()
    assert (done.mistakes, done.tokens) == ((), True)
    # What the caller sees follows the models.
    index = GRPCInferenceServiceStub(locked.channel).RepositoryIndex
    found = await index(v2.RepositoryIndexRequest(), metadata=headers)
    assert [model.name for model in found.models] == ["new"]
    assert await predict(locked, headers, ModelIdentity="new") == "ok"
