"""The embedder backend: meaningful neighbours, shapes, batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from grpcerrors_protocol import backend_pb2 as pb

from .support.hosting import PATIENCE, HostProcess
from .support.models import INVALID, LARGE, load, loaded, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
# Each text next to its paraphrase.
PAIRS = [
    "A cat sits on the mat.",
    "A kitten is resting on a rug.",
    "The stock market fell sharply today.",
    "Shares lost a lot of value this morning.",
    "How do I reset my password?",
    "I forgot my login and need a new one.",
    "It will rain all day tomorrow.",
    "The forecast says wet weather is coming.",
]


@pytest.fixture(scope="module")
def embedder() -> Iterator[HostProcess]:
    with loaded("embedder") as process:
        yield process


def embed(process: HostProcess, *batch: str, **fields: Any) -> Any:
    messages = [pb.Message(content=text) for text in batch]
    request = pb.PredictOptions(Messages=messages, **fields)
    return process.stub.Embedding(request, timeout=PATIENCE)


def rows(result: Any) -> list[list[float]]:
    flat = list(result.embeddings)
    return [flat[start : start + result.dim] for start in range(0, len(flat), result.dim)]


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_nearest_neighbour_is_the_paraphrase(embedder: HostProcess) -> None:
    vectors = rows(embed(embedder, *PAIRS))
    for index, vector in enumerate(vectors):
        others = [other for other in range(len(PAIRS)) if other != index]
        nearest = max(others, key=lambda other: cosine(vector, vectors[other]))
        assert nearest == index ^ 1, (PAIRS[index], PAIRS[nearest])


def test_says_its_shape(embedder: HostProcess) -> None:
    result = embed(embedder, *PAIRS)
    assert (result.dim, len(result.embeddings)) == (384, 384 * len(PAIRS))
    assert result.layout == pb.EMBEDDING_LAYOUT_FINAL
    assert result.prompt_tokens > 8 * len(PAIRS)
    assert all(abs(cosine(row, row) - 1) < 1e-4 for row in rows(result))


def test_one_text_is_as_in_a_batch(embedder: HostProcess) -> None:
    batch = rows(embed(embedder, *PAIRS))
    for text, row in zip(PAIRS, batch, strict=True):
        (alone,) = rows(embed(embedder, Embeddings=text))
        # The quantization depends on the other texts in the batch.
        assert cosine(alone, row) > 0.98


def test_refuses_what_it_cannot_embed(embedder: HostProcess) -> None:
    refused(embedder, INVALID, "one text in Embeddings", embed, embedder)
    refused(embedder, INVALID, "either one text", embed, embedder, "a", Embeddings="b")
    refused(embedder, INVALID, "text 2 is blank", embed, embedder, "a", " \n")
    refused(embedder, LARGE, "the limit is 64", embed, embedder, *["a"] * 65)
    refused(embedder, LARGE, "the limit is 512", embed, embedder, "word " * 600)


def test_reads_the_beginning_of_a_long_text_when_told() -> None:
    with loaded("embedder", "too_long:cut") as process:
        assert embed(process, "word " * 600).prompt_tokens == 512
        load(process)
        refused(process, LARGE, "too_long:cut", embed, process, "word " * 600)
