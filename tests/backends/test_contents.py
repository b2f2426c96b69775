"""Any tensor survives the way over the wire, and any request gets tensors or BadInput."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpcerrors_backends.host.contents import read, write
from grpcerrors_backends.model import BadInput
from grpcerrors_backends.tensors import DATATYPES, Tensor, TensorSpec
from grpcerrors_protocol import inference_pb2 as v2

NAMES = st.sampled_from(["a", "b", ""])
SHAPES = st.lists(st.integers(-1, 3), max_size=3)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    _, code = DATATYPES[datatype]
    if not code:
        return st.lists(st.binary(max_size=5), max_size=6)
    size = array(code).itemsize
    if datatype == "BOOL":
        return st.lists(st.booleans(), max_size=6).map(lambda found: array("B", found))
    raw = st.lists(st.binary(min_size=size, max_size=size), max_size=6).map(b"".join)
    return raw.map(lambda found: array(code, found))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@given(data=st.data(), datatype=st.sampled_from([*DATATYPES]))
def test_a_tensor_comes_back_as_it_went(data: st.DataObject, datatype: str, *, raw: bool) -> None:
    sent = data.draw(elements(datatype))
    spec = TensorSpec("t", datatype, (-1,))
    response = v2.ModelInferResponse()
    write({"t": Tensor((len(sent),), sent)}, [spec], response, raw=raw)
    assert bool(response.raw_output_contents) == raw
    (output,) = response.outputs
    request = v2.ModelInferRequest(raw_input_contents=response.raw_output_contents)
    request.inputs.add(name="t", datatype=output.datatype, shape=output.shape)
    if not raw:
        request.inputs[0].contents.CopyFrom(output.contents)
    came = read(request, [spec])["t"]
    assert came.shape == (len(sent),)
    if isinstance(sent, list):
        assert came.data == sent
    elif raw:
        assert came.data.tobytes() == sent.tobytes()
    else:  # in a typed field, a NaN need not keep its bits
        both = zip(came.data, sent, strict=True)
        assert all(one == other or (math.isnan(one) and math.isnan(other)) for one, other in both)


@st.composite
def requests(draw: st.DrawFn) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest()
    for _ in range(draw(st.integers(0, 2))):
        given = request.inputs.add(
            name=draw(NAMES),
            datatype=draw(st.sampled_from([*DATATYPES, "FP16", ""])),
            shape=draw(SHAPES),
        )
        if draw(st.booleans()):
            given.contents.int_contents.extend(draw(st.lists(st.integers(-300, 300), max_size=3)))
            given.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=2)))
    return request


@given(requests(), st.sampled_from([*DATATYPES]), st.sampled_from([(), (-1,), (2, -1), (1, 2)]))
def test_any_request_fits_or_is_refused(
    request: v2.ModelInferRequest, datatype: str, shape: tuple[int, ...]
) -> None:
    specs = [TensorSpec("a", datatype, shape)]
    try:
        tensors = read(request, specs)
    except BadInput:
        return
    (tensor,) = tensors.values()
    assert len(tensor.data) == math.prod(tensor.shape)
    assert all(want in (-1, size) for size, want in zip(tensor.shape, shape, strict=True))


@pytest.mark.parametrize("datatype", ["INT8", "UINT16"])
def test_an_element_that_the_datatype_cannot_hold(datatype: str) -> None:
    field, _ = DATATYPES[datatype]
    request = v2.ModelInferRequest()
    given = request.inputs.add(name="a", datatype=datatype, shape=[1])
    getattr(given.contents, field).append(70_000)
    with pytest.raises(BadInput, match=f"an element outside {datatype}"):
        read(request, [TensorSpec("a", datatype, (1,))])
