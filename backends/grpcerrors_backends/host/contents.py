"""Conversion of tensors from requests of the Open Inference Protocol, and to its responses."""

from __future__ import annotations

import itertools
import math
from array import array
from typing import TYPE_CHECKING, Any

from grpcerrors_backends.model import BadInput
from grpcerrors_backends.tensors import DATATYPES, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grpcerrors_protocol import inference_pb2 as v2

    Input = v2.ModelInferRequest.InferInputTensor
    Output = v2.ModelInferResponse.InferOutputTensor

_LENGTH = 4  # bytes in front of each raw BYTES element


def read(request: v2.ModelInferRequest, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """Return the input tensors of *request* by name; raise BadInput unless they match *specs*."""
    wanted = {spec.name: spec for spec in specs}
    names = [given.name for given in request.inputs]
    if sorted(names) != sorted(wanted):
        got = ", ".join(map(repr, names)) or "no input"
        raise BadInput(f"got {got}; send exactly the inputs {_listed(specs)}")
    raw = request.raw_input_contents
    if raw and len(raw) != len(names):
        raise BadInput(
            f"raw_input_contents has {len(raw)} entries for {len(names)} inputs; send one for each"
        )
    tensors = {}
    for given, content in itertools.zip_longest(request.inputs, raw):
        spec = wanted[given.name]
        shape = tuple(given.shape)
        _check(given, spec)
        data = _typed(given) if content is None else _raw(given, content)
        if len(data) != math.prod(shape):
            source = "raw_input_contents" if raw else DATATYPES[spec.datatype][0]
            raise BadInput(
                f"input {spec.name!r} has {len(data)} elements in {source}, but its shape "
                f"{list(shape)} has {math.prod(shape)}"
            )
        tensors[spec.name] = Tensor(shape, data)
    return tensors


def _check(given: Input, spec: TensorSpec) -> None:
    shape = tuple(given.shape)
    fits = len(shape) == len(spec.shape) and all(
        size >= 0 and wanted in (-1, size) for size, wanted in zip(shape, spec.shape, strict=True)
    )
    if given.datatype != spec.datatype or not fits:
        raise BadInput(
            f"got the input {TensorSpec(given.name, given.datatype, shape)}; send {spec} "
            "(-1: any size)"
        )


def _typed(given: Input) -> Any:
    field, code = DATATYPES[given.datatype]
    elements = getattr(given.contents, field)
    if not code:
        return list(elements)
    try:
        return array(code, elements)
    except OverflowError as error:
        raise BadInput(f"input {given.name!r} has an element outside {given.datatype}") from error


def _raw(given: Input, content: bytes) -> Any:
    if given.HasField("contents"):
        raise BadInput(f"input {given.name!r} has contents and raw_input_contents; send only one")
    code = DATATYPES[given.datatype][1]
    if not code:
        return list(_split(given.name, content))
    data = array(code)
    if len(content) % data.itemsize:
        raise BadInput(
            f"the raw content of input {given.name!r} has {len(content)} bytes; an element of "
            f"type {given.datatype} has {data.itemsize}"
        )
    data.frombytes(content)  # little-endian, as every machine with a wheel of grpcio
    return data


def _split(name: str, content: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(content):
        start = at + _LENGTH
        at = start + int.from_bytes(content[at:start], "little")
        if at > len(content) or start > len(content):
            raise BadInput(
                f"the raw content of input {name!r} ends within an element; send each element of "
                "type BYTES as its length in four bytes, little-endian, then its bytes"
            )
        yield content[start:at]


def write(
    outputs: Mapping[str, Tensor],
    specs: Sequence[TensorSpec],
    response: v2.ModelInferResponse,
    *,
    raw: bool,
) -> None:
    """Add the *outputs* that *specs* describe to *response*, in raw form or in typed fields.

    Raises KeyError, TypeError or ValueError for outputs that do not fit *specs*.
    """
    for spec in specs:
        shape, data = outputs[spec.name].shape, outputs[spec.name].data
        field, code = DATATYPES[spec.datatype]
        elements: Any = array(code, memoryview(data).tobytes()) if code else data
        if len(elements) != math.prod(shape):
            raise ValueError(f"output {spec.name!r} has {len(elements)} elements for {shape=}")
        written = response.outputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
        if not raw:
            getattr(written.contents, field).extend(elements)
        elif code:
            response.raw_output_contents.append(elements.tobytes())
        else:
            sized = (len(each).to_bytes(_LENGTH, "little") + each for each in elements)
            response.raw_output_contents.append(b"".join(sized))


def asked(request: v2.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the outputs that *request* names, or all. Raises BadInput for an unknown one."""
    wanted = [output.name for output in request.outputs]
    known = {spec.name: spec for spec in specs}
    if unknown := sorted(set(wanted) - known.keys()):
        raise BadInput(f"no output {unknown[0]!r}; the outputs are {_listed(specs)}")
    return [known[name] for name in dict.fromkeys(wanted)] or list(specs)


def _listed(specs: Iterable[TensorSpec]) -> str:
    return "; ".join(map(str, specs))
