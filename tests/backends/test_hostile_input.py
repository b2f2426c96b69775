"""Any input gets an answer or one of the three errors for invalid requests."""

from __future__ import annotations

import base64
import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpcerrors_backends.files import Files
from grpcerrors_backends.model import BadInput, NotFound, TooLarge
from grpcerrors_protocol import backend_pb2 as pb

from .support.models import ASSETS

if TYPE_CHECKING:
    from types import ModuleType

REFUSALS = (BadInput, NotFound, TooLarge)
WAV = (ASSETS / "speech.wav").read_bytes()[:2_000]
JPEG = (ASSETS / "coffee.jpg").read_bytes()
SCRIPT = st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=4)), max_size=5)


def damaged(whole: bytes, script: list[tuple[int, bytes]], length: int) -> bytes:
    """Return *whole* with some bytes near its beginning replaced, cut to *length*."""
    data = bytearray(whole)
    for at, piece in script:
        data[at : at + len(piece)] = piece
    return bytes(data[:length])


def module(name: str, extra: str) -> ModuleType:
    found: ModuleType = pytest.importorskip(
        name, reason=f"pip install 'grpcerrors-backends[{extra}]'"
    )
    return found


@given(st.one_of(st.binary(max_size=200), st.builds(damaged, st.just(WAV), SCRIPT, st.integers(0, 2_000))))  # fmt: skip  # noqa: E501
def test_any_bytes_as_audio(data: bytes) -> None:
    recording = module("grpcerrors_backends.transcriber.recording", "transcriber").recording
    files = Files([Path(tempfile.gettempdir())])
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(*REFUSALS):
            for piece in recording(file.name, files):
                assert abs(piece).max(initial=0) < 10


@given(st.text(max_size=60))
@example("\0")
@example("/" + "x" * 5000)
def test_any_text_as_the_path_of_audio(path: str) -> None:
    recording = module("grpcerrors_backends.transcriber.recording", "transcriber").recording
    with pytest.raises(REFUSALS):
        next(recording(path, Files([ASSETS])))


@given(st.builds(damaged, st.just(JPEG), SCRIPT, st.integers(0, len(JPEG))))
def test_any_bytes_as_a_picture(data: bytes) -> None:
    image = module("grpcerrors_backends.detector.image", "detector")
    with contextlib.suppress(*REFUSALS):
        assert image.read_image(base64.b64encode(data).decode(), Files()).mode == "RGB"


# Pillow's, of damaged TIFF files and of large pictures.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF"])
@given(script=SCRIPT, length=st.integers(0, 3_000))
def test_any_bytes_as_any_kind_of_picture(
    kind: str, script: list[tuple[int, bytes]], length: int
) -> None:
    image = module("grpcerrors_backends.detector.image", "detector")
    buffer = io.BytesIO()
    image.Image.new("RGB", (16, 16), "red").save(buffer, kind)
    data = damaged(buffer.getvalue(), script, length)
    with contextlib.suppress(*REFUSALS):
        assert image.read_image(base64.b64encode(data).decode(), Files()).mode == "RGB"


@given(st.integers(1, 40))
def test_a_small_picture_is_not_taken_for_a_path(side: int) -> None:
    image = module("grpcerrors_backends.detector.image", "detector")
    buffer = io.BytesIO()
    image.Image.effect_noise((side, side), 50).save(buffer, "PNG")
    assert image.read_image(base64.b64encode(buffer.getvalue()).decode(), Files()).size == (
        side,
        side,
    )


@given(st.text(max_size=60))
@example("\0")
@example("data:image/png;base64,")
@example("A" * 5000)
def test_any_text_as_a_picture(src: str) -> None:
    image = module("grpcerrors_backends.detector.image", "detector")
    with pytest.raises(REFUSALS):
        image.read_image(src, Files())


PATHS = st.one_of(
    st.text(max_size=40), st.text("/.\\%2eE@:?#&=ab\r\n", max_size=40).map("/{}".format)
)


@given(PATHS)
def test_no_path_leads_out_of_the_upstream(path: str) -> None:
    passthrough = module("grpcerrors_backends.cloud_proxy.passthrough", "cloud-proxy")
    upstream = module("httpx", "cloud-proxy").URL("https://api.example.com:8443")
    with contextlib.suppress(BadInput):
        url = passthrough.target(upstream, path)
        assert (url.scheme, url.host, url.port) == ("https", "api.example.com", 8443)
        assert url.raw_path == path.encode()
        assert not {b".", b".."} & set(url.raw_path.partition(b"?")[0].split(b"/"))


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=20)), max_size=4))
def test_no_header_breaks_its_line(pairs: list[tuple[str, str]]) -> None:
    passthrough = module("grpcerrors_backends.cloud_proxy.passthrough", "cloud-proxy")
    fields = [pb.ForwardHeader(name=name, value=value) for name, value in pairs]
    with contextlib.suppress(BadInput):
        for name, value in passthrough.headers(pb.ForwardRequest(headers=fields), has_key=True):
            line = f"{name}: {value}".encode("latin-1")
            assert not set(line) & {0, 10, 13}
            assert name.lower() not in ("host", "authorization", "content-length")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "usage",
                    "tool_calls",
                    "function",
                    "index",
                    "id",
                    "completion_tokens",
                    "error",
                    "name",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_as_a_completion(answer: object) -> None:
    openai = module("grpcerrors_backends.cloud_proxy.openai", "cloud-proxy")
    with contextlib.suppress(openai.ProtocolError):
        assert isinstance(openai.reply(openai.json.dumps(answer).encode()), pb.Reply)
