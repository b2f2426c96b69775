"""The bytes: frozen, deterministic, bounded; and what is read of bytes that are none of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from urllib.parse import unquote

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

import grpcerrors
from grpcerrors import _wire
from grpcerrors._guard.held import held_trailer
from tests.grpcerrors.support import errors

# Any string of Python, with the ones that make trouble well represented.
ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.builds(
        lambda piece, times: piece * times,
        st.sampled_from(["x", "%", "\n", "\0", "é", "語", "🙂", "\ud800", "\udfff", '"']),
        st.sampled_from([0, 1, 700, 1366, 4096, 2**20]),
    ),
)

# Status(9, "x: model not loaded"), ErrorInfo(MODEL_NOT_LOADED, grpcerrors, backend=x, model=m).
GOLDEN = (
    "08091213783a206d6f64656c206e6f74206c6f616465641a640a28747970652e676f6f676c65617069732e63"
    "6f6d2f676f6f676c652e7270632e4572726f72496e666f12380a104d4f44454c5f4e4f545f4c4f4144454412"
    "0a677270636572726f72731a0c0a076261636b656e641201781a0a0a056d6f64656c12016d"
)

_PRINT_BYTES = """
import grpcerrors
error = grpcerrors.model_mismatch("x", loaded="a", requested="b" * 5000)
print(error.trailing_metadata[0][1].hex())
"""


def test_the_bytes_are_frozen() -> None:
    """They are those that went out with the first version."""
    error = grpcerrors.model_not_loaded("x", model="m")
    assert errors.details_of(error).hex() == GOLDEN


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize("seed", ["0", "1", "7"])
def test_the_bytes_are_the_same_in_any_process(implementation: str, seed: str) -> None:
    """Whatever the hash seed and the protobuf implementation are."""
    environment = os.environ | {
        "PYTHONHASHSEED": seed,
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation,
    }
    printed = subprocess.run(
        [sys.executable, "-c", _PRINT_BYTES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = grpcerrors.model_mismatch("x", loaded="a", requested="b" * 5000)
    assert printed == errors.details_of(here).hex()


def _transmitted(error: grpcerrors.ContractError) -> int:
    """Count the message percent-encoded and the details in base64, as gRPC over HTTP/2 does."""
    encoded = error.details.encode()
    message = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in encoded)
    plain = sum(32 + len(key) + len(value) for key, value in error.trailing_metadata[1:])
    return message + 4 * -(-len(error.trailing_metadata[0][1]) // 3) + plain


@given(backend=ANY_TEXT, loaded=ANY_TEXT, requested=ANY_TEXT, started=st.booleans())
def test_any_strings_fit(*, backend: str, loaded: str, requested: str, started: bool) -> None:
    """Trailers stay within 4,096 bytes, and the condition survives the cutting."""
    many: dict[str, Any] = {f"field_{n}": loaded for n in range(30)}
    for error in (
        grpcerrors.model_not_loaded(backend, model=loaded, started=started),
        grpcerrors.model_mismatch(backend, loaded=loaded, requested=requested),
        grpcerrors.live_transcription_unsupported(backend, requested),
        grpcerrors.ContractError(grpcerrors.MODEL_NOT_LOADED, backend=backend, **many),
    ):
        assert _transmitted(error) <= 4096
        assert grpcerrors.classify(error).condition is error.condition
        error.details.encode()


def _block(error: grpcerrors.ContractError) -> int:
    """Count all of the trailers, as HPACK does: 32 bytes a header beside its name and value."""
    names = "grpc-status" + "grpc-message" + "grpc-status-details-bin"
    return 3 * 32 + len(names) + 2 + _transmitted(error)


def test_what_fits_exactly_is_not_cut() -> None:
    """A trailer block of 4,096 bytes is within the limit; one more byte is not."""
    error = grpcerrors.model_not_loaded("x" * 249, model="m" * 2085)
    assert _block(error) == 4096
    assert len(error.fields["model"]) == 2085
    error = grpcerrors.model_not_loaded("x" * 249, model="m" * 2086)
    assert _block(error) <= 4096
    assert len(error.fields["model"]) == 2085


def test_an_error_that_started_is_cut_to_the_limit_too() -> None:
    """The mark takes room of its own, and outlives the cutting."""
    error = grpcerrors.model_not_loaded("x" * 5000, model="m" * 5000, started=True)
    assert 4080 < _block(error) <= 4096
    assert grpcerrors.classify(error).started


def test_values_go_where_not_even_a_byte_of_each_fits() -> None:
    """Several hundred fields with long names: the condition survives, their values do not."""
    many: dict[str, Any] = {f"field_{number}": "x" * 100 for number in range(300)}
    error = grpcerrors.ContractError(grpcerrors.MODEL_NOT_LOADED, backend="x", **many)
    assert _block(error) <= 4096
    assert error.fields == {}
    assert grpcerrors.classify(error).condition is grpcerrors.MODEL_NOT_LOADED


@given(ANY_TEXT)
def test_what_fits_is_not_cut(text: str) -> None:
    """A value is changed only where UTF-8 cannot say it, and is cut only when it is long."""
    backend = text[:150]
    error = grpcerrors.model_not_loaded(backend)
    readable = backend.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert error.details == f"{readable}: model not loaded"


def test_cutting_leaves_as_much_as_fits() -> None:
    """On character boundaries, the longest value only."""
    error = grpcerrors.model_mismatch("x", loaded="語" * 5000, requested="tiny.en")
    assert error.fields["requested"] == "tiny.en"
    assert set(error.fields["loaded"]) == {"語"}
    assert _transmitted(error) > 3800


def test_cutting_again_changes_nothing() -> None:
    """What a cut error holds can be built into the same error."""
    error = grpcerrors.model_mismatch("x" * 9000, loaded="語" * 5000, requested="y" * 9000)
    fields: dict[str, Any] = dict(error.fields)
    again = grpcerrors.ContractError(error.condition, **fields)
    assert again.trailing_metadata == error.trailing_metadata


@pytest.mark.parametrize("text", ["\ud800", "\udfff\ud800", "a\ud83d\ude42b"])
def test_surrogates_are_mended(text: str) -> None:
    """A pair is the character that it stands for; a lone one is U+FFFD."""
    expected = {"\ud800": "\ufffd", "\udfff\ud800": "\ufffd\ufffd"}.get(text, "a🙂b")
    assert grpcerrors.model_not_loaded(text).fields["backend"] == expected


def test_grpc_status_reads_what_we_write() -> None:
    """The message and the code agree with the status inside, as grpcio-status demands."""
    error = grpcerrors.model_not_loaded("x\ny%é", model="m")
    received = errors.sync_error(error.code, error.details, error.trailing_metadata)
    rich = rpc_status.from_call(received)
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("grpcerrors", "MODEL_NOT_LOADED")
    assert dict(info.metadata) == {"backend": "x\ny%é", "model": "m"}


@pytest.mark.parametrize(
    "type_url", ["google.rpc.ErrorInfo", "/google.rpc.ErrorInfo", "a/b/google.rpc.ErrorInfo"]
)
def test_any_prefix_of_the_type_is_read(type_url: str) -> None:
    """Only the type's name counts."""
    [detail] = errors.packed([("d", "R")])
    detail.type_url = type_url
    assert _wire.decode_details([detail]) == (_wire.ErrorInfo("d", "R", {}),)


def test_what_cannot_be_read_is_left_out() -> None:
    """Another type, broken bytes: the rest is read."""
    [good] = errors.packed([("d", "R")])
    other = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=good.value)
    broken = any_pb2.Any(type_url=good.type_url, value=b"\xff")
    status = status_pb2.Status(details=[other, broken, good])
    assert _wire.decode(status.SerializeToString()) == (_wire.ErrorInfo("d", "R", {}),)


@given(st.binary())
def test_any_bytes_are_read(trailer: bytes) -> None:
    """Garbage says nothing, and never raises."""
    assert isinstance(_wire.decode(trailer), tuple)


def test_nobody_can_change_what_was_read() -> None:
    """The same bytes are decoded once and given to many."""
    trailer = errors.details_of(grpcerrors.model_not_loaded("x"))
    [info] = _wire.decode(trailer)
    with pytest.raises(TypeError):
        info.metadata["backend"] = "y"  # type: ignore[index]
    assert _wire.decode(trailer)[0] is info


CODE = StatusCode.RESOURCE_EXHAUSTED


def _encoded(message: str, unexecuted: bool = False, **given: Any) -> tuple[str, Any]:
    given = {"domain": "grpcerrors", "reason": "R_R", "metadata": {}} | given
    info = _wire.ErrorInfo(**given)
    text, trailers, _ = _wire.encode(CODE, lambda cut: cut(message), info, unexecuted=unexecuted)
    assert _wire.trailers_size(text, trailers) <= 4096
    return text, trailers


@given(
    message=ANY_TEXT,
    value=ANY_TEXT,
    retry_after=st.none() | st.floats(),
    unexecuted=st.booleans(),
)
def test_any_status_fits(
    *, message: str, value: str, retry_after: float | None, unexecuted: bool
) -> None:
    """An error that is no condition has the same bound, and keeps its code, reason and delay."""
    metadata = {"model": value, "node": "n1"}
    text, trailers = _encoded(message, unexecuted, metadata=metadata, retry_after=retry_after)
    [(key, details), *plain] = trailers
    assert key == errors.DETAILS_KEY
    assert plain == [("grpcerrors-unexecuted", "R_R")] * unexecuted
    rich = status_pb2.Status.FromString(details)
    assert (rich.code, rich.message) == (CODE.value[0], text)
    [info] = _wire.decode(details)
    assert (info.domain, info.reason) == ("grpcerrors", "R_R")
    assert info.metadata["node"] == "n1"
    assert len(rich.details) == 1 + (retry_after is not None)


def test_a_status_that_fits_is_sent_whole() -> None:
    """With everything that it was given; empty values are left out."""
    text, [(_, details)] = _encoded("try later", metadata={"a": "b", "c": ""}, retry_after=1.25)
    assert text == "try later"
    [info_any, retry_any] = status_pb2.Status.FromString(details).details
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert info_any.Unpack(info)
    assert retry_any.Unpack(retry)
    assert dict(info.metadata) == {"a": "b"}
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.25


def test_a_message_is_cut_to_what_fits() -> None:
    """What is short next to it stays whole."""
    text, trailers = _encoded("x" * 8000, metadata={"model": "tiny"})
    assert set(text) == {"x"}
    assert _wire.trailers_size(text, trailers) > 4060
    assert _wire.decode(trailers[0][1])[0].metadata == {"model": "tiny"}


@pytest.mark.parametrize(
    ("seconds", "delay"), [(-1, 0), (float("nan"), 0), (float("inf"), 315_576_000_000)]
)
def test_a_delay_that_no_duration_can_have_is_bounded(seconds: float, delay: int) -> None:
    _, [(_, details)] = _encoded("", retry_after=seconds)
    [_, packed] = status_pb2.Status.FromString(details).details
    retry = error_details_pb2.RetryInfo()
    assert packed.Unpack(retry)
    assert retry.retry_delay.ToSeconds() == delay
    assert _wire.decode(details)[0].retry_after == delay


@given(ANY_TEXT.filter(bool))
def test_any_model_can_be_vouched_for(model: str) -> None:
    """Its name travels as ASCII of a bounded length, and as much of it as fits is read back."""
    key, value = held_trailer(model)
    assert key == "grpcerrors-held"
    assert 0 < len(value) <= 255
    assert value.isascii()
    assert value.isprintable()
    assert " " not in value
    readable = model.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert readable.startswith(unquote(value))
    if len(readable.encode()) <= 85:
        assert readable == unquote(value)


def test_a_model_without_a_name_is_vouched_for() -> None:
    assert held_trailer("") == ("grpcerrors-held", "1")
