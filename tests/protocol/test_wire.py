"""The wire formats are LocalAI's and Triton's: names, numbers and types of all that is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as kserve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILES: dict[str, FileDescriptor] = {"backend": pb.DESCRIPTOR, "inference": kserve.DESCRIPTOR}
SERVICES = {"backend": "Backend", "inference": "GRPCInferenceService"}
FACTS = [
    (package, line)
    for package in FILES
    for line in (Path(__file__).parent / f"{package}_facts.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
TYPES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def name_of(described: Descriptor | EnumDescriptor) -> str:
    return described.full_name.removeprefix(f"{described.file.package}.")


def type_of(field: FieldDescriptor) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return f"map<{type_of(key)},{type_of(value)}>"
    named = field.message_type or field.enum_type
    return (
        named.full_name.removeprefix(f"{named.file.package}.")
        if named is not None
        else TYPES[field.type]
    )


def label_of(field: FieldDescriptor) -> str:
    message = DescriptorProto()
    parent = field.containing_type
    assert parent is not None
    parent.CopyToProto(message)
    written = message.field[field.index]
    if type_of(field).startswith("map<"):
        return ""
    if written.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated "
    return "optional " if written.proto3_optional else ""


def fact_of(message: Descriptor) -> str:
    fields = []
    for field in message.fields:
        oneof = field.containing_oneof
        where = f" in {oneof.name}" if oneof is not None and oneof.name[0] != "_" else ""
        fields.append(f"{field.number} {field.name} {label_of(field)}{type_of(field)}{where}")
    return f"{name_of(message)}: {'; '.join(fields)}".rstrip()


def all_messages(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from all_messages(message.nested_types)


def facts_of(package: str) -> set[str]:
    file = FILES[package]
    service = file.services_by_name[SERVICES[package]]
    facts = set()
    for rpc in service.methods:
        asks, answers = (
            "stream " * streams + message.name
            for message, streams in (
                (rpc.input_type, rpc.client_streaming),
                (rpc.output_type, rpc.server_streaming),
            )
        )
        facts.add(f"rpc {rpc.name} {asks} -> {answers}")
    messages = all_messages(file.message_types_by_name.values())
    return {normalized(fact) for fact in (*facts, *map(fact_of, messages))}


@pytest.mark.parametrize("package", FILES)
def test_package_and_service(package: str) -> None:
    assert FILES[package].package == package
    assert list(FILES[package].services_by_name) == [SERVICES[package]]


def normalized(fact: str) -> str:
    """The order of the fields does not matter."""
    name, colon, fields = fact.partition(": ")
    return name + colon + "; ".join(sorted(fields.split("; ")))


@pytest.mark.parametrize(("package", "fact"), FACTS, ids=lambda text: text.split(":")[0][:40])
def test_fact(package: str, fact: str) -> None:
    assert normalized(fact) in facts_of(package)


@pytest.mark.parametrize("package", FILES)
def test_nothing_but_the_facts(package: str) -> None:
    assert facts_of(package) == {normalized(fact) for of, fact in FACTS if of == package}


def test_enums() -> None:
    def numbers(enum: object) -> dict[str, int]:
        return {value.name: value.number for value in enum.values}  # type: ignore[attr-defined]

    messages = pb.DESCRIPTOR.message_types_by_name
    assert numbers(messages["StatusResponse"].enum_types_by_name["State"]) == {
        "UNINITIALIZED": 0,
        "BUSY": 1,
        "READY": 2,
        "ERROR": -1,
    }
    stream = messages["AudioTransformStreamConfig"]
    assert numbers(stream.enum_types_by_name["SampleFormat"]) == {"F32_LE": 0, "S16_LE": 1}
    assert numbers(pb.DESCRIPTOR.enum_types_by_name["EmbeddingLayout"]) == {
        "EMBEDDING_LAYOUT_UNSPECIFIED": 0,
        "EMBEDDING_LAYOUT_FINAL": 1,
        "EMBEDDING_LAYOUT_PER_TOKEN": 2,
    }


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (pb.ModelOptions(Model="ab"), b"\x0a\x02ab"),
        (pb.ModelOptions(Options=["k:v"]), b"\xf2\x03\x03k:v"),
        (pb.PredictOptions(ModelIdentity="m"), b"\xb2\x03\x01m"),
        (pb.TTSRequest(language=""), b"\x2a\x00"),
        (pb.TTSRequest(ModelIdentity="m"), b"\x42\x01m"),
        (pb.Result(message="x", success=True), b"\x0a\x01x\x10\x01"),
        (pb.Reply(message=b"OK"), b"\x0a\x02OK"),
        (pb.StatusResponse(state=pb.StatusResponse.ERROR), b"\x08" + b"\xff" * 9 + b"\x01"),
        (pb.VADRequest(audio=[1.0]), b"\x0a\x04\x00\x00\x80\x3f"),
        (
            pb.TranscriptLiveRequest(config=pb.TranscriptLiveConfig(sample_rate=16)),
            b"\x0a\x02\x10\x10",
        ),
        (
            pb.MemoryUsageData(breakdown={"a": 1}),
            b"\x12\x05\x0a\x01a\x10\x01",
        ),
        (kserve.ModelInferRequest(model_name="m"), b"\x0a\x01m"),
        (kserve.RepositoryModelLoadRequest(model_name="m"), b"\x12\x01m"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes(message: object, wire: bytes) -> None:
    """The bytes are written by hand, so that protobuf does not only check itself."""
    assert message.SerializeToString() == wire  # type: ignore[attr-defined]
    assert type(message).FromString(wire) == message  # type: ignore[attr-defined]


def test_a_field_that_is_not_known_survives() -> None:
    wire = b"\x0a\x02ab" + b"\xc2\x3e\x03new"  # field 1000
    assert pb.ModelOptions.FromString(wire).SerializeToString() == wire
