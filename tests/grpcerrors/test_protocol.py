"""Services as data: what is built in, and what a description may say."""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import KSERVE, LOCALAI, ModelGuard, Protocol
from grpcerrors._guard.protocol import text_at
from grpcerrors_protocol import backend_pb2, inference_pb2, inference_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILT_IN = {
    "LOCALAI": (LOCALAI, backend_pb2.DESCRIPTOR.services_by_name["Backend"]),
    "KSERVE": (KSERVE, inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_ones_describe_the_real_services(name: str) -> None:
    protocol, service = BUILT_IN[name]
    assert service.full_name == protocol.service
    fields = {**protocol.load, **protocol.unload, **protocol.inference}
    for method in service.methods:
        has = method.input_type.fields_by_name
        assert method.name in protocol.control or method.name in fields
        if field := fields.get(method.name):
            assert has[field].type == has[field].TYPE_STRING


def test_every_inference_rpc_of_localai_that_can_name_its_model_does() -> None:
    _, service = BUILT_IN["LOCALAI"]
    able = {
        each.name for each in service.methods if "ModelIdentity" in each.input_type.fields_by_name
    }
    assert {name for name, field in LOCALAI.inference.items() if field} == able
    assert (len(LOCALAI.inference), len(LOCALAI.control)) == (34, 16)


def test_responses_say_by_these_fields_that_they_failed() -> None:
    assert set(LOCALAI.success) <= set(backend_pb2.Result.DESCRIPTOR.fields_by_name)
    answers = (
        inference_pb2.RepositoryModelLoadResponse,
        inference_pb2.RepositoryModelUnloadResponse,
    )
    fields = {name for answer in answers for name in answer.DESCRIPTOR.fields_by_name}
    assert set(KSERVE.success) <= fields


LOADED = inference_pb2.RepositoryModelLoadResponse


@pytest.mark.parametrize(
    ("response", "loaded"),
    [
        (LOADED(isLoaded=True), True),
        (LOADED(), True),  # as Triton's, which has no such field
        (LOADED(isLoaded=False), False),
    ],
    ids=["true", "unset", "false"],
)
def test_a_field_that_is_not_set_is_no_failure(response: object, *, loaded: bool) -> None:
    class Servicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
        def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
            return response

        def ModelInfer(self, request: Any, context: Any) -> Any:
            return inference_pb2.ModelInferResponse()

    guard = ModelGuard("b", protocol=KSERVE)
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[guard])
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            load = inference_pb2.RepositoryModelLoadRequest(model_name="m")
            infer = inference_pb2.ModelInferRequest(model_name="m")
            stub.RepositoryModelLoad(load, timeout=60)
            refused = nullcontext() if loaded else pytest.raises(grpc.RpcError, match="not loaded")
            with refused:
                stub.ModelInfer(infer, timeout=60)
    finally:
        server.stop(None).wait()


def test_other_languages_can_read_them() -> None:
    data = json.loads(pkgutil.get_data("grpcerrors", "protocols.json") or b"")
    assert set(data) == set(BUILT_IN)
    for name, (protocol, _) in BUILT_IN.items():
        source = data[name].pop("source")
        assert ".proto" in source
        assert Protocol(**data[name]) == protocol
        assert set(data[name]) == {field.name for field in dataclasses.fields(Protocol)}


ACME = Protocol(
    "acme.Speech",
    load={"Open": "voice.name"},
    unload={"CloseAll": ""},
    inference={"Say": "voice.name", "Hum": ""},
    control={"Ping"},
)


def test_a_description_cannot_be_changed_later() -> None:
    rpcs = {"Say": "voice"}
    protocol = Protocol("acme.Speech", inference=rpcs)
    rpcs["Sing"] = ""
    assert dict(protocol.inference) == {"Say": "voice"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.service = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        protocol.inference["Sing"] = ""  # type: ignore[index]
    assert {protocol, dataclasses.replace(protocol)} == {protocol}


@pytest.mark.parametrize(
    ("protocol", "rpc", "field"),
    [
        (LOCALAI, "Predict", "ModelIdentity"),
        (LOCALAI, "Detokenize", ""),
        (LOCALAI, "NotYetInvented", "ModelIdentity"),
        (KSERVE, "ModelInfer", "model_name"),
        (KSERVE, "ModelMetadata", "name"),
        (KSERVE, "NotYetInvented", ""),
        (ACME, "Hum", ""),
        (ACME, "NotYetInvented", "voice.name"),
    ],
)
def test_an_rpc_in_no_list_names_its_model_as_all_others_do(
    protocol: Protocol, rpc: str, field: str
) -> None:
    assert protocol.field_of(rpc) == field


class Message:
    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


@pytest.mark.parametrize(
    ("message", "path", "text"),
    [
        (Message(name="m"), "name", "m"),
        (Message(voice=Message(name="m")), "voice.name", "m"),
        (Message(voice="m"), "voice.name", ""),
        (Message(name=3), "name", ""),
        (Message(), "name", ""),
        (Message(name="m"), "", ""),
        ("text", "", ""),
        (b"bytes", "name", ""),
    ],
)
def test_a_path_leads_to_a_text_or_to_none(message: Any, path: str, text: str) -> None:
    assert text_at(message, path) == text


MISTAKES: dict[str, tuple[Mapping[str, Any], str]] = {
    "no service": ({"service": ""}, 'the service must be a full name such as "backend.Backend"'),
    "a path": ({"service": "/a.B/"}, "the service must be a full name"),
    "a set": ({"load": {"Open"}}, "load must map the names of RPCs to request fields"),
    "a path of an RPC": (
        {"inference": {"a.B/Say": ""}},
        "'a.B/Say' in inference is not the name of an RPC, such as 'Predict'",
    ),
    "no field": (
        {"unload": {"Close": "a b"}},
        "unload['Close'] must be the name of a request field or '', not 'a b'",
    ),
    "None": ({"load": {"Open": None}}, "load['Open'] must be the name of a request field"),
    "two roles": (
        {"control": ["Say"], "inference": {"Say": ""}},
        "Say is in inference and in contr",
    ),
    "one string": ({"control": "Health"}, "control must be a set of names, such as {'Health'}"),
    "a number": ({"success": 1}, "success must be a set of names"),
    "a response field": ({"success": ["is ok"]}, "'is ok' is no field"),
    "several without a name": (
        {"load": {"Open": ""}, "several_models": True},
        "with several models, load must say which field names the model",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake: str) -> None:
    description, told = MISTAKES[mistake]
    with pytest.raises(ValueError, match=r"^protocol ") as caught:
        dataclasses.replace(Protocol("acme.Speech"), **description)
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"the service must.*; 'B C' in control is not"):
        Protocol("", control={"B C"})
