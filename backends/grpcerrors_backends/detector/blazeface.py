"""What BlazeFace's two output tensors mean: anchors, boxes, and one box per face.

The layout of the anchors is that of MediaPipe's full-range graph: 192 x 192 pixels, one anchor in
the middle of each cell of a grid of 48 x 48 (stride 4).
Source: Bazarevsky et al., BlazeFace, CVPR workshop 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE: Final = 192
_CELLS: Final = 48
_OVERLAP: Final = 0.3  # intersection over union from which two boxes show the same face


def anchors() -> NDArray[np.float32]:
    """Return the centre of each anchor, 2304 x 2, in pixels of the square."""
    line = (np.arange(_CELLS, dtype=np.float32) + 0.5) * (SIDE / _CELLS)
    centres: NDArray[np.float32] = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    return centres


def faces(
    boxes: NDArray[np.float32],
    logits: NDArray[np.float32],
    centres: NDArray[np.float32],
    threshold: float,
) -> list[tuple[NDArray[np.float32], float]]:
    """Return the faces, best first: (left, top, right, bottom) in pixels, and a confidence.

    *boxes* (2304 x 16: centre offset, size, keypoints) and *logits* (2304) are the model's output.
    Boxes that overlap are one face: their mean, weighted by confidence, as MediaPipe does.
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
    """Return intersection over union of a box with each of many."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(many[:, 2:] - many[:, :2], 0, None), axis=1)
    union: NDArray[np.float32] = areas + np.prod(np.clip(one[2:] - one[:2], 0, None)) - shared
    ratio: NDArray[np.float32] = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0
    )
    return ratio
