"""What real backends answer, judged: a place in public code a row of answers.csv.

The floors leave a margin under what is measured; the bench (`make bench`) prints the figures,
beside those of LocalAI's Go rule.
"""

from __future__ import annotations

import pytest
from grpc import StatusCode

from grpcerrors import MODEL_MISMATCH, MODEL_NOT_LOADED, Evidence, is_model_not_loaded
from tests.grpcerrors.support.answers import ANSWERS, HELD_OUT, MORE_ANSWERS, Answer, judged, score
from tests.grpcerrors.support.errors import sync_error

every_set = pytest.mark.parametrize(
    "answers", [ANSWERS, MORE_ANSWERS, HELD_OUT], ids=["answers", "more", "held-out"]
)


def test_the_answers_are_there() -> None:
    """The gRPC errors of many serving systems, of each meaning."""
    assert len(ANSWERS) == 147
    assert len(MORE_ANSWERS) == 133
    assert len({answer.system for answer in MORE_ANSWERS}) > 15
    for answers in (ANSWERS, MORE_ANSWERS, HELD_OUT):
        assert {answer.means for answer in answers} == {"not loaded", "mismatch", "other"}
        others = sum(answer.means == "other" for answer in answers)
        assert others >= 0.4 * len(answers), "too few answers that only look like it"


@every_set
def test_words_are_precise(answers: list[Answer]) -> None:
    """A router acts on them without asking the backend first."""
    said = score(answers, lambda verdict: verdict.evidence in (Evidence.DETAILS, Evidence.TEXT))
    assert said.precision >= 0.90


@every_set
def test_most_are_recognised(answers: list[Answer]) -> None:
    """With the bare code, which a router confirms before it acts."""
    assert score(answers, lambda _: True).recall >= 0.60


def test_backends_never_seen_are_recognised() -> None:
    """Fixed sentences and common forms, not the single wording, carry over to other backends."""
    said = score(MORE_ANSWERS, lambda verdict: verdict.evidence is Evidence.TEXT)
    assert said.recall >= 0.75
    assert score(MORE_ANSWERS, lambda _: True).recall >= 0.80


@every_set
def test_no_mismatch_is_taken_for_not_loaded(answers: list[Answer]) -> None:
    """And each is recognised as what it is."""
    for answer, verdict in judged(answers):
        if answer.means == "mismatch":
            assert verdict.condition is MODEL_MISMATCH, answer
        else:
            assert verdict.condition in (MODEL_NOT_LOADED, None) or answer.means == "other", answer


@pytest.mark.parametrize(
    "message",
    [
        "Model flan-t5-small is not loaded",
        "model 'a b' is currently not loaded",
        "Model or tokenizer not loaded",
        "No models loaded",
        "pipeline is empty, call load_model() first",
        "please load a model first",
        "LoadModel was never called",
        "transcribe: model has been unloaded",
        "model 'tiny' was evicted",
        "'NoneType' object has no attribute 'transcribe'",
    ],
)
def test_forms_that_mean_it(message: str) -> None:
    assert is_model_not_loaded(sync_error(StatusCode.UNKNOWN, message))


@pytest.mark.parametrize(
    "message",
    [
        "model was not loaded with a multimodal projector",
        "model is not loaded as a reranker",
        "some weights of the model were not initialized from the checkpoint",
        "tokenizer for model 'tiny' not loaded",
        "vocoder of model 'tiny' is not loaded",
        "LoRA adapter 'sql' is not loaded",
        "diarization model not loaded",
        "draft model is not initialized",
        "model kv_cache not initialized",
        "model vocabulary is not loaded",
        "storage engine not initialized",
        "no Whisper model loaded",
        "could not be unloaded: model is busy",
        "Model unloads are disabled",
        "Pipeline is not loaded yet",
        "failed to load model: no such file",
        "model is still loading",
        "Model is not ready",
        "model is nil",
        "'NoneType' object has no attribute 'encode'",
        "'NoneType' object has no attribute 'decode'",
        "'NoneType' object is not callable",
        "'PredictOptions' object has no attribute 'Temperratur'",
        "'AsyncLLM' object has no attribute 'engine'",
    ],
)
def test_forms_that_only_look_like_it(message: str) -> None:
    assert not is_model_not_loaded(sync_error(StatusCode.UNKNOWN, message))


@pytest.mark.parametrize(
    "message",
    [
        "'NoneType' object has no attribute 'generate'",
        "'BackendServicer' object has no attribute 'model'",
        "model 'tiny' was evicted from node-1",
        "model 'tiny' has been unloaded by the janitor",
        "Request for unknown model: 'tiny' is not found",
        "Model 'tiny' not found",
        "model not found",
    ],
)
def test_exceptions_of_a_router_itself_are_not_a_backends_answer(message: str) -> None:
    assert not is_model_not_loaded(RuntimeError(message))
