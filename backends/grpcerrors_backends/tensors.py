"""Tensors: what a model that is served over the Open Inference Protocol gets and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

DATATYPES: Final = {
    "BOOL": ("bool_contents", "B"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}
"""By datatype: the field of InferTensorContents, and the type code of `array.array`.

FP16 and BF16 have neither."""


class TensorSpec(NamedTuple):
    """An input or output of a model; a dimension of -1 has any size.

    `str` of it is how error messages show it, for example "text: BYTES [-1]".
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """The shape of a tensor and its elements in row-major order.

    The host passes `array.array` objects, or a list of bytes objects for BYTES. It accepts the
    same from a model, and any other contiguous buffer, such as a numpy array of the right type.
    """

    shape: tuple[int, ...]
    data: Any
