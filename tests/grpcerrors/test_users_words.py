"""No known wording counts where a user may have written it: that would take models down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode
from hypothesis import example, given
from hypothesis import strategies as st

from grpcerrors import CATALOGUE, Evidence, classify
from grpcerrors._condition import _compiled
from tests.grpcerrors.support.answers import ANSWERS, MORE_ANSWERS
from tests.grpcerrors.support.errors import sync_error

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [dialect for condition in CATALOGUE for dialect in condition.dialects]
# What real handlers, and the libraries that they call, write around what a user has given.
TEMPLATES = [
    "no voice {}; there are: af_heart, am_adam",
    "no directory to write {} into",
    "no audio file at {}",
    "cannot write {}: Permission denied",
    "cannot read the audio file {}: Is a directory",
    "cannot decode {} (bad header): expected a WAV file",
    "could not open {}",
    "failed to open {}",
    "failed to open file: {}",
    "failed to transcribe {}",
    "error opening {}: System error.",
    "error loading voice: {}",
    "language {}: this voice speaks English only (en)",
    "unsupported language: {}",
    "invalid language code {}",
    "unknown voice {}",
    "voice: {}",
    "voice {} not found",
    "no speaker named {}",
    "no file {}, or it is no file that can be read",
    "voice {} is not the model's: it isn't in the list",
    "open {}: no such file or directory",
    "stat {}: permission denied",
    "Exception calling application: unknown model {}",
    "Exception calling application: [Errno 2] No such file or directory: {}",
    "Exception iterating responses: Error opening {}: Format not recognised.",
    "Unexpected <class 'ValueError'>: invalid language {}",
    "ValueError: unsupported speaker: {}",
    "magpie-tts: unknown voice {} (valid: Aria, Jason, John, Leo, Sofia, or 0-4)",
    "rpc error: code = Unknown desc = no voice {}",
    'face-detect: embed failed for {}: no error detail, "x"',
    "failed to parse grammar\nnear {}\n",
    "the prompt {} is longer than 100 tokens",
]
# Here the user's words come first, so what follows shows that they are a user's.
FIRST = [
    "{}: No such file or directory",
    "{}: Permission denied",
    "{} not found",
    "{} does not exist",
    "{} is a directory",
]
# Here nothing known stands around them: only quotation marks, as of a KeyError, tell them apart.
ALONE = [
    "Exception calling application: {}",
    "Unexpected <class 'KeyError'>: {}",
    "{} has no RIFF/WAVE header: expected a WAV file",
    "{}",
]
MARKS = ['"{}"', "'{}'", "`{}`", "b'{}'", "“{}”", "‘{}’", "«{}»", "„{}“", "「{}」"]  # noqa: RUF001
CODES = [code for code in StatusCode if code is not StatusCode.OK]
QUOTING = [
    StatusCode.NOT_FOUND,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.ALREADY_EXISTS,
    StatusCode.OUT_OF_RANGE,
    StatusCode.PERMISSION_DENIED,
    StatusCode.RESOURCE_EXHAUSTED,
]


@st.composite
def wordings(draw: st.DrawFn) -> str:
    """Draw what some backend says when its model is not loaded, and the like."""
    if draw(st.booleans()):
        pattern = _compiled(draw(st.sampled_from(ROWS)).pattern)
        alphabet = st.characters(max_codepoint=127)
        return draw(st.from_regex(pattern, alphabet=alphabet, fullmatch=True))
    return draw(st.sampled_from(sorted({each.message for each in ANSWERS + MORE_ANSWERS})))


@st.composite
def given_by_a_user(draw: st.DrawFn) -> str:
    """Draw a text that holds a wording, alone or with more around it, quotation marks too."""
    around = st.sampled_from(["", " ", "x: ", ".wav", "\n", '"', "'", "`", "' and '", '" and "'])
    around |= st.text(max_size=20)
    return draw(around) + draw(wordings()) + draw(around)


def says_it_in_words(code: StatusCode, text: str) -> bool:
    return classify(sync_error(code, text)).evidence is Evidence.TEXT


def test_without_a_template_the_wordings_count() -> None:
    """Else the tests below would pass for nothing."""
    assert says_it_in_words(StatusCode.UNKNOWN, "x: model not loaded")
    assert says_it_in_words(StatusCode.NOT_FOUND, "Model 'x' not loaded")


def judged(message: str) -> list[Any]:
    """What a message means under each code, and as an exception without one."""
    given = [*(sync_error(code, message) for code in CODES), RuntimeError(message)]
    return [classify(each)[:2] for each in given]


@given(
    text=given_by_a_user(),
    template=st.sampled_from([*TEMPLATES, *FIRST, *ALONE]),
    mark=st.sampled_from([*MARKS, ""]),
)
@example(text="':model isn't loaded\"", template="no voice {}", mark="'{}'")
def test_no_wording_counts_in_quotation_marks(text: str, template: str, mark: str) -> None:
    """Under no code, whatever else the user writes, and whether the handler escapes it or not."""
    quoted = mark.format(text) if mark else repr(text)
    assert judged(template.format(quoted)) == judged(template.format("'alloy'"))


@given(text=given_by_a_user(), template=st.sampled_from(TEMPLATES))
@example(text="\nx: model not loaded", template="unsupported language: {}")
@example(text="a: model not loaded. b", template="voice: {}")
@example(text="backend error: unimplemented", template="error opening {}: System error.")
@example(text="model error: model not loaded", template="language {}: this voice is English")
@example(text="0's streaming transcription unsupported", template="voice: {}")
def test_no_wording_counts_after_a_handlers_own_words(text: str, template: str) -> None:
    """Under no code, without quotation marks, whatever else the user writes."""
    assert judged(template.format(text)) == judged(template.format("alloy"))


@given(text=wordings(), template=st.sampled_from(FIRST))
def test_no_wording_counts_in_front_of_what_a_system_says_of_a_file(
    text: str, template: str
) -> None:
    assert judged(template.format(text)) == judged(template.format("alloy"))


@pytest.mark.parametrize("code", [StatusCode.UNKNOWN, StatusCode.INTERNAL])
def test_a_message_that_is_a_users_text_alone_counts(code: StatusCode) -> None:
    """Nothing tells it from a backend's own: CONTRACT.md asks senders to quote."""
    assert says_it_in_words(code, "Exception calling application: model not loaded")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.system)
def test_only_whole_sentences_count_in_codes_whose_messages_quote_users(row: Any) -> None:
    if row.codes & set(QUOTING):
        assert row.pattern.startswith("^")


@pytest.mark.parametrize(
    "message",
    [
        "no voice 'model not loaded'; there are: af_heart",
        "no directory to write 'model not loaded.wav' into",
        "no directory to write 'model identity mismatch.wav' into",
        "open model not loaded.wav: no such file or directory",
        "open model not loaded: no such file or directory",
        "cannot read no model loaded.mp3",
        '{"error":{"code":500,"message":"model not loaded"}}',
        "KeyError('model not loaded')",
        "Antispoofer.predict called with no models loaded",
        "don't call me: model not loaded, and that's that",
        "backend 'x' says: model `y` not loaded",
        "no voice named this\nx: model not loaded",
    ],
)
@pytest.mark.parametrize("code", CODES)
def test_messages_with_a_users_words_mean_nothing(code: StatusCode, message: str) -> None:
    assert not says_it_in_words(code, message)


@pytest.mark.parametrize(
    "message",
    [
        "model 'tiny' is not loaded",
        'Model "tiny.en" has not been loaded, use another',
        "the backend's model isn't loaded",
        "backend 'x' says: model not loaded, don't retry",
        "“x”: model not loaded",
        "Unexpected <class 'RuntimeError'>: tiny: model not loaded (see 'docs')",
    ],
)
def test_words_next_to_quotation_marks_count(message: str) -> None:
    assert says_it_in_words(StatusCode.UNKNOWN, message)


@pytest.mark.parametrize("changed", [str.upper, str.title])
def test_a_whole_sentence_has_its_own_case(changed: Callable[[str], str]) -> None:
    sentence = "Request for unknown model: 'resnet50' is not found"
    assert says_it_in_words(StatusCode.NOT_FOUND, sentence)
    assert not says_it_in_words(StatusCode.NOT_FOUND, changed(sentence))
