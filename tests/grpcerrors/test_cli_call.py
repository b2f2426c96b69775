"""`grpcerrors call` on a real server with RPCs of all four shapes."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pb2, wrappers_pb2
from grpc_reflection.v1alpha import reflection_pb2

from grpcerrors import model_not_loaded
from tests.grpcerrors.support import backend_server, ports, shapes
from tests.grpcerrors.support.command import Ran, run

if TYPE_CHECKING:
    from collections.abc import Iterator

Capture = pytest.CaptureFixture[str]


class Client:
    """Runs the command on one server."""

    def __init__(self, capsys: Capture, port: int) -> None:
        self.capsys = capsys
        self.address = f"127.0.0.1:{port}"

    def __call__(self, rpc: str, *args: str) -> Ran:
        return run(self.capsys, "call", self.address, f"{shapes.SERVICE}/{rpc}", *args)

    def answers(self, rpc: str, *args: str) -> list[Any]:
        ran = self(rpc, *args)
        assert (ran.exit_code, ran.err) == (0, "")
        return [json.loads(line) for line in ran.out.splitlines()]

    def refused(self, rpc: str, *args: str) -> str:
        """Expect that nothing is called, and return why."""
        ran = self(rpc, *args)
        assert (ran.exit_code, ran.out) == (2, "")
        assert ran.err.startswith("Error: ")
        assert ran.err.count("\n") == 1
        return ran.err.removeprefix("Error: ").rstrip("\n")


@pytest.fixture(scope="module")
def servicer() -> shapes.Shapes:
    return shapes.Shapes()


@pytest.fixture(scope="module")
def port(servicer: shapes.Shapes) -> Iterator[int]:
    with shapes.serve(servicer.handler(), shapes.reflects(shapes.described())) as served:
        yield served


@pytest.fixture
def call(capsys: Capture, port: int) -> Client:
    return Client(capsys, port)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    (tmp_path / "note.proto").write_text(shapes.NOTE)
    (tmp_path / "shapes.proto").write_text(shapes.SHAPES)
    return tmp_path


@contextlib.contextmanager
def standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> Iterator[None]:
    source, sink = os.pipe()
    with os.fdopen(source) as reader:
        with os.fdopen(sink, "wb") as writer:
            writer.write(data)
        monkeypatch.setattr("sys.stdin", reader)
        yield


def test_each_shape_is_called(call: Client) -> None:
    sent = '{"text": "héllo", "count": 7, "data": "AP8="}'
    assert call.answers("One", "--data", sent) == [{"text": "HÉLLO", "count": "7", "data": "AP8="}]
    assert call.answers("Many", "--data", '{"count": 2}') == [{"count": "1"}, {"count": "2"}]
    lines = '{"text": "a"}\n\n{"text": "b"}'
    assert call.answers("Join", "--data", lines) == [{"text": "A+B"}]
    assert call.answers("Chat", "--data", lines) == [{"text": "A"}, {"text": "B"}]


def test_without_data_the_message_is_empty(call: Client) -> None:
    assert call.answers("One") == [{}]
    assert call.answers("Join") == [{}]
    assert call.answers("Join", "--data", "") == [{}]


def test_data_come_from_a_file(call: Client, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text('{\n  "text":\n  "a"\n}\n')
    assert call.answers("One", "--data", f"@{path}") == [{"text": "A"}]
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert call.answers("Join", "--data", f"@{path}") == [{"text": "A+B"}]


@pytest.mark.parametrize("rpc", ["One", "Join"])
def test_data_come_from_standard_input(
    call: Client, monkeypatch: pytest.MonkeyPatch, rpc: str
) -> None:
    with standard_input(monkeypatch, b'{"text": "A"}\n'):
        assert call.answers(rpc, "--data", "-") == [{"text": "A"}]


def test_an_answer_cannot_steer_the_terminal(call: Client) -> None:
    ran = call("One", "--data", json.dumps({"text": "\x1b[31m\x9b"}))
    assert ran.out.rstrip("\n").isprintable()
    assert json.loads(ran.out) == {"text": "\x1b[31M\x9b"}


ODD = """syntax = "proto3";
package odd;
import "google/protobuf/any.proto";
import "google/protobuf/wrappers.proto";
service Odd {
  rpc Large(google.protobuf.Any) returns (google.protobuf.StringValue);
  rpc Unknown(google.protobuf.Any) returns (google.protobuf.Any);
}
"""


def test_an_answer_is_large_or_cannot_be_shown(capsys: Capture, tmp_path: Path) -> None:
    """gRPC's own limit is 4 MiB, less than an image."""
    (tmp_path / "odd.proto").write_text(ODD)
    large = wrappers_pb2.StringValue(value="x" * 5_000_000).SerializeToString()
    unknown = any_pb2.Any(type_url="type.googleapis.com/odd.Thing", value=b"x").SerializeToString()
    rpcs = {"Large": lambda *_: iter([large]), "Unknown": lambda *_: iter([unknown])}
    with backend_server.serve(rpcs, service="odd.Odd") as port:
        words = f"127.0.0.1:{port}", "--proto", str(tmp_path / "odd.proto")
        shown, told = (run(capsys, "call", *words, f"odd.Odd/{rpc}") for rpc in rpcs)
    assert (shown.exit_code, len(shown.out)) == (0, len('"x"\n') - 1 + 5_000_000)
    assert (told.exit_code, told.out) == (2, "")
    said = "Error: /odd.Odd/Unknown answers with a google.protobuf.Any that JSON cannot show: "
    assert told.err.startswith(said)
    assert told.err.count("\n") == 1


def test_an_error_is_explained_with_all_that_it_consists_of(call: Client) -> None:
    ran = call("Many", "--data", '{"text": "ABORTED", "count": 1}')
    assert (ran.exit_code, ran.out) == (1, '{"count": "1"}\n')
    assert ran.err.splitlines() == [
        "nothing that the contract knows",
        "  because neither its details nor its words nor its code are known",
        "  error: ABORTED, 'as asked'",
        "  code: ABORTED (10)",
        "  message: as asked",
        "  trailer why: asked",
        "  trailer raw-bin: AP8=",
    ]


def test_an_error_of_the_contract_is_explained(capsys: Capture) -> None:
    rpcs = {"Predict": backend_server.fails(model_not_loaded("x"))}
    reflection = backend_server.reflects("v1alpha", backend_server.SERVICE)
    with backend_server.serve(rpcs, reflection) as port:
        ran = run(capsys, "call", f"127.0.0.1:{port}", "backend.Backend/Predict")
    assert (ran.exit_code, ran.out) == (1, "")
    assert ran.err.startswith("model not loaded, backend 'x'\n  because its details say so")
    assert "  code: FAILED_PRECONDITION (9)\n  message: x: model not loaded\n" in ran.err
    assert "  trailer grpc-status-details-bin: CAkSE3" in ran.err


def test_headers_and_the_model_are_sent(call: Client, servicer: shapes.Shapes) -> None:
    call.answers("One", "--model", "org/m 7B", "--metadata", "Token=t")
    assert servicer.seen[-1].items() >= {"x-model-id": "org/m 7B", "token": "t"}.items()


def test_a_deadline_is_told(call: Client) -> None:
    ran = call("One", "--data", '{"text": "hang"}', "--timeout", "0.3")
    assert ran.exit_code == 1
    assert "  code: DEADLINE_EXCEEDED (4)\n  after 0.3 s; --timeout waits longer\n" in ran.err


BAD_DATA = [
    ('{"text": ', "Failed to load JSON: Expecting value: line 1 column 10 (char 9)"),
    ('{"text": 1}', "Failed to parse text field"),
    ('{"txt": ""}', "shapes.Note has no field txt: did you mean text?"),
    ('{"zzz": ""}', "shapes.Note has no field zzz; there are text, count, data"),
    ("[" * 100_000, "recursion"),
    ("{} {}", "Extra data"),
]


@pytest.mark.parametrize(("data", "said"), BAD_DATA, ids=[said for _, said in BAD_DATA])
def test_wrong_data_are_told(call: Client, data: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(data)
    err = call.refused("One", "--data", f"@{path}")
    assert err.startswith("the data is not JSON of a shapes.Note: ")
    assert said in err


def test_data_in_another_encoding_are_told(call: Client, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes('{"text": "é"}'.encode("latin-1"))
    assert call.refused("One", "--data", f"@{path}").endswith("it is not UTF-8")
    argument = os.fsdecode('{"text": "é"}'.encode("latin-1"))
    assert call.refused("One", "--data", argument).endswith("it is not UTF-8")


def test_a_wrong_line_of_a_stream_ends_the_call(call: Client) -> None:
    ran = call("Join", "--data", '{"text": "a"}\n{"txt": ""}')
    assert (ran.exit_code, ran.out) == (2, "")
    assert "the data, line 2 is not JSON of a shapes.Note: shapes.Note has no field txt" in ran.err


def test_a_file_that_cannot_be_read_is_told(call: Client) -> None:
    assert call.refused("One", "--data", "@/nowhere") == (
        "cannot read /nowhere: No such file or directory"
    )


def test_a_closed_standard_input_is_told(call: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)  # as `<&-` does
    assert call.refused("One", "--data", "-") == "cannot read standard input: it is closed"


class Full(io.StringIO):
    """A file on a disk without space."""

    def write(self, _: str, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_output_that_cannot_be_written_is_told(
    call: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Full())
        ran = call("One")
    said = "Error: cannot write the output: No space left on device\n"
    assert (ran.exit_code, ran.err) == (2, said)


def test_what_is_not_offered_is_told_with_what_is(call: Client, capsys: Capture) -> None:
    assert call.refused("Chit") == "shapes.Shapes has no RPC Chit: did you mean Chat?"
    assert call.refused("Zzz") == ("shapes.Shapes has no RPC Zzz; there are Chat, Join, Many, One")
    assert call.refused("") == "name an RPC of shapes.Shapes: Chat, Join, Many, One"
    for service, said in (("shapes.Shape", ": did you mean"), ("other.Thing", "; there are")):
        ran = run(capsys, "call", call.address, f"{service}/One")
        wanted = f"Error: {call.address} offers no {service}{said} shapes.Shapes"
        assert (ran.exit_code, ran.err.rstrip("?\n")) == (2, wanted)


def test_without_reflection_the_proto_file_is_asked_for(capsys: Capture) -> None:
    with shapes.serve(shapes.Shapes().handler()) as port:
        said = Client(capsys, port).refused("One")
    assert said.endswith("name the .proto file of the service with --proto")


def test_imports_that_reflection_sends_only_when_asked_are_asked_for(capsys: Capture) -> None:
    reflection = shapes.reflects(shapes.described_file_by_file(shapes.files()))
    with shapes.serve(shapes.Shapes().handler(), reflection) as port:
        assert Client(capsys, port).answers("One", "--data", '{"text": "a"}') == [{"text": "A"}]


def test_a_description_without_end_is_none(capsys: Capture) -> None:
    """Each file imports another one that nobody has heard of."""

    def answer(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        for request in requests:
            asked.append(request)
            file = descriptor_pb2.FileDescriptorProto(
                name=request.file_by_filename or "shapes.proto", dependency=[f"{len(asked)}.proto"]
            )
            response = reflection_pb2.ServerReflectionResponse()
            response.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
            yield response

    asked: list[Any] = []
    with shapes.serve(shapes.Shapes().handler(), shapes.reflects(answer)) as port:
        said = Client(capsys, port).refused("One")
    assert said.endswith("name the .proto file of the service with --proto")


def test_a_description_that_does_not_fit_together_is_told(capsys: Capture) -> None:
    note, without_imports = shapes.files()
    reflection = shapes.reflects(shapes.described_file_by_file([without_imports]))
    with shapes.serve(shapes.Shapes().handler(), reflection) as port:
        assert "describes shapes.Shapes wrongly" in Client(capsys, port).refused("One")
    note.dependency.append("shapes.proto")
    reflection = shapes.reflects(shapes.described_file_by_file([note, without_imports]))
    with shapes.serve(shapes.Shapes().handler(), reflection) as port:
        assert "its files import each other" in Client(capsys, port).refused("One")


@pytest.mark.parametrize("compiler", ["grpcio-tools", "protoc"])
def test_proto_files_replace_reflection(
    capsys: Capture, protos: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    if compiler == "protoc":
        find = protos / "protoc"
        find.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
        find.chmod(0o755)
        monkeypatch.setenv("PATH", f"{protos}:{os.environ['PATH']}")
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with shapes.serve(shapes.Shapes().handler()) as port:
        call = Client(capsys, port)
        named = ("--proto", str(protos / "shapes.proto"))
        assert call.answers("One", "--data", '{"text": "a"}', *named) == [{"text": "A"}]
        folder = ("--import-path", str(protos))
        assert call.answers("Join", "--data", '{"text": "a"}', *named, *folder) == [{"text": "A"}]
        assert call.refused("Zzz", *named).startswith("shapes.Shapes has no RPC Zzz")


def test_without_a_compiler_one_is_asked_for(
    call: Client, protos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    said = call.refused("One", "--proto", str(protos / "shapes.proto"))
    assert said.endswith("pip install grpcio-tools, or install protoc")


def test_errors_in_a_proto_file_are_told(call: Client, tmp_path: Path) -> None:
    path = tmp_path / "bad.proto"
    path.write_text("service S {\n  rpc A(B) returns (C);\n  rpc D(E) returns (F);\n}\n")
    said = call.refused("One", "--proto", str(path))
    assert said.endswith('bad.proto:2:9: "B" is not defined. (and 3 more errors)')


def test_the_proto_file_of_another_server_is_told(call: Client, tmp_path: Path) -> None:
    path = tmp_path / "shapes.proto"
    inner = "message N { I text = 1; } message I { string text = 1; }"
    service = "service Shapes { rpc Join(stream N) returns (N); }"
    path.write_text(f'syntax = "proto3"; package shapes; {inner} {service}')
    # The server takes the inner message for a text and turns its length, "a", into "A".
    data = json.dumps({"text": {"text": "1" * ord("a")}})
    ran = call("Join", "--proto", str(path), "--data", data)
    assert (ran.exit_code, ran.out) == (2, "")
    assert "is this the .proto file of this server?" in ran.err


def test_a_server_that_cannot_be_reached_is_told(capsys: Capture, protos: Path) -> None:
    with ports.refusing() as port:
        call = Client(capsys, port)
        for more in ((), ("--proto", str(protos / "shapes.proto"))):
            said = call.refused("One", "--wait", "0.3", *more)
            assert said.startswith(f"cannot reach 127.0.0.1:{port}: ")


@contextlib.contextmanager
def process(port: int, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = Path(sys.executable).with_name("grpcerrors")
    words = [
        str(command),
        "call",
        f"127.0.0.1:{port}",
        f"{shapes.SERVICE}/Chat",
        "--data",
        "-",
        *args,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.slow
def test_lines_are_sent_and_answers_printed_as_they_come(port: int) -> None:
    with process(port) as chat:
        assert chat.stdin
        assert chat.stdout
        for text in "ab":
            chat.stdin.write(json.dumps({"text": text}) + "\n")
            chat.stdin.flush()
            assert json.loads(chat.stdout.readline()) == {"text": text.upper()}
        chat.stdin.close()
        assert chat.wait(60) == 0


@pytest.mark.slow
def test_an_interrupt_ends_the_call_quietly(port: int) -> None:
    with process(port) as chat:
        assert chat.stdin
        assert chat.stdout
        assert chat.stderr
        chat.stdin.write('{"text": "a"}\n')
        chat.stdin.flush()
        chat.stdout.readline()  # now it waits for the next line
        chat.send_signal(signal.SIGINT)
        assert chat.wait(60) == 130
        assert chat.stderr.read() == ""


def test_a_server_that_asks_for_a_token_is_quoted(capsys: Capture) -> None:
    def guarded(request: bytes, context: Any) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "send a token")
        yield b""

    reflection = "grpc.reflection.v1.ServerReflection"
    handlers = {"ServerReflectionInfo": guarded}
    with backend_server.serve(handlers, service=reflection) as port:
        client = Client(capsys, port)
        assert client.refused("Double") == (
            f"{client.address} does not describe its RPCs: UNAUTHENTICATED: send a token"
        )


def test_reflection_that_fails_is_as_good_as_none(capsys: Capture) -> None:
    reflection = "grpc.reflection.v1.ServerReflection"
    handlers = {"ServerReflectionInfo": backend_server.aborts(grpc.StatusCode.INTERNAL, "no")}
    with backend_server.serve(handlers, service=reflection) as port:
        assert "by server reflection: name the .proto" in Client(capsys, port).refused("Double")
