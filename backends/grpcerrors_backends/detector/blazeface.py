"""Decoding of BlazeFace's two output tensors into one box per face.

The anchors are those of MediaPipe's full-range graph: the input has 192 x 192 pixels, with one
anchor in the centre of each cell of a 48 x 48 grid (stride 4).
Source: Bazarevsky et al., BlazeFace, CVPR workshop 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE: Final = 192
_CELLS: Final = 48
_OVERLAP: Final = 0.3  # boxes with a larger intersection over union show the same face


def anchors() -> NDArray[np.float32]:
    """Return the centres of the anchors as a 2304 x 2 array (x, y), in pixels of the input."""
    line = (np.arange(_CELLS, dtype=np.float32) + 0.5) * (SIDE / _CELLS)
    centres: NDArray[np.float32] = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return centres


def faces(
    boxes: NDArray[np.float32],
    logits: NDArray[np.float32],
    centres: NDArray[np.float32],
    threshold: float,
) -> list[tuple[NDArray[np.float32], float]]:
    """Return the faces, most confident first, each as ((left, top, right, bottom), confidence).

    *boxes* (2304 x 16: centre offset, size, keypoints) and *logits* (2304) are the output of the
    model; coordinates are in pixels of the input. Overlapping boxes are merged into their mean,
    weighted by confidence, as in MediaPipe. Confidences below *threshold* (0 to 1) are dropped.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    kept = scores >= threshold
    middle, half, scores = centres[kept] + boxes[kept, :2], boxes[kept, 2:4] / 2, scores[kept]
    corners = np.concatenate([middle - half, middle + half], axis=1)
    left = np.argsort(-scores)
    found = []
    while left.size:
        same = _overlap(corners[left[0]], corners[left]) > _OVERLAP
        same[0] = True
        group, left = left[same], left[~same]
        found.append((np.average(corners[group], axis=0, weights=scores[group]), scores[group[0]]))
    return [(box, float(score)) for box, score in found]


def _overlap(one: NDArray[np.float32], many: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union of one box with each of many."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(many[:, 2:] - many[:, :2], 0, None), axis=1)
    union: NDArray[np.float32] = areas + np.prod(np.clip(one[2:] - one[:2], 0, None)) - shared
    ratio: NDArray[np.float32] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return ratio
