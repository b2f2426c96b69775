"""The detector backend: a face in a photograph, none in a cup of coffee."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess
from .support.models import ASSETS, INVALID, LARGE, load_refused, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
ASTRONAUT = ASSETS / "astronaut.jpg"
FACE = (174, 70, 279, 175)  # left, top, right, bottom of the head, estimated by eye


@pytest.fixture(scope="module")
def detector() -> Iterator[HostProcess]:
    with loaded("detector", arguments=("--files", ASSETS)) as process:
        yield process


def detect(process: HostProcess, src: object, **fields: Any) -> list[Any]:
    request = pb.DetectOptions(src=str(src), **fields)
    return list(process.stub.Detect(request, timeout=PATIENCE).Detections)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def overlap(box: Any, other: tuple[float, ...]) -> float:
    """Return the intersection over union of two boxes."""
    left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    wide = max(0, min(right, other[2]) - max(left, other[0]))
    high = max(0, min(bottom, other[3]) - max(top, other[1]))
    area = (other[2] - other[0]) * (other[3] - other[1])
    shared: float = wide * high
    return shared / (float(box.width * box.height) + area - shared)


def test_finds_the_face(detector: HostProcess) -> None:
    (face,) = detect(detector, ASTRONAUT)
    assert face.class_name == "face"
    assert face.confidence > 0.8
    assert overlap(face, FACE) > 0.6


def test_finds_no_face_in_a_cup(detector: HostProcess) -> None:
    assert detect(detector, ASSETS / "coffee.jpg") == []


def test_takes_base64_and_data_urls(detector: HostProcess) -> None:
    by_path = detect(detector, ASTRONAUT)
    inline = encoded(ASTRONAUT.read_bytes())
    assert detect(detector, inline) == by_path
    assert detect(detector, f"data:image/jpeg;base64,{inline}") == by_path


def test_finds_two_faces_wherever_they_are(detector: HostProcess) -> None:
    image = pytest.importorskip("PIL.Image")
    one = image.open(ASTRONAUT).crop((100, 20, 400, 320))
    wide = image.new("RGB", (900, 300))
    wide.paste(one, (0, 0))
    wide.paste(one, (600, 0))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    found = sorted(detect(detector, encoded(buffer.getvalue())), key=lambda face: face.x)
    assert len(found) == 2
    for face, shift in zip(found, (0, 600), strict=True):
        there = (FACE[0] - 100 + shift, FACE[1] - 20, FACE[2] - 100 + shift, FACE[3] - 20)
        assert overlap(face, there) > 0.6


def test_turns_a_picture_upright(detector: HostProcess) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    exif[0x0112] = 6  # orientation: rotate clockwise by 90 degrees
    buffer = io.BytesIO()
    image.open(ASTRONAUT).rotate(90).save(buffer, "JPEG", exif=exif)
    (face,) = detect(detector, encoded(buffer.getvalue()))
    assert overlap(face, FACE) > 0.6


def test_the_threshold_decides(detector: HostProcess) -> None:
    assert detect(detector, ASTRONAUT, threshold=0.99) == []


@pytest.mark.parametrize(
    ("src", "words"),
    [
        ("", "src is empty"),
        ("please find my cat", "neither base64 nor a file"),
        (encoded(b"please find my cat"), "not an image"),
        ("/no/such/picture.jpg", "neither base64 nor a file"),
        (str(ASSETS / "speech.wav"), "not an image"),
        (encoded(ASTRONAUT.read_bytes()[:9_000]), "broken image"),
    ],
    ids=["nothing", "text", "base64 text", "no file", "audio", "half"],
)
def test_refuses_what_is_no_picture(detector: HostProcess, src: str, words: str) -> None:
    refused(detector, INVALID, words, detect, detector, src)


def test_refuses_a_picture_that_is_too_large(detector: HostProcess) -> None:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("1", (10_000, 6_000)).save(buffer, "PNG")
    huge = encoded(buffer.getvalue())
    refused(detector, LARGE, "the limit is 50 megapixels", detect, detector, huge)


def test_refuses_what_it_does_not_do(detector: HostProcess) -> None:
    refused(detector, INVALID, "faces only", detect, detector, ASTRONAUT, prompt="cat")
    refused(detector, INVALID, "to 1", detect, detector, ASTRONAUT, threshold=3)
    load_refused(detector, "threshold:x is not a number", "threshold:x")
