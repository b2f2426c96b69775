from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from grpcerrors_protocol import backend_pb2
from grpcerrors_router.config.models_toml import (
    ModelsError,
    parse_models,
    read_models,
    shared_identities,
)
from grpcerrors_router.entities import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
# Speech
[models."tiny.en"]
backend = "transcriber"
replicas = 2
load_timeout = 900

[models."tiny.en".options]
Threads = 2
CUDA = false
CFGScale = 1
LoraScales = [1, 2.5]
Options = ["a:1", "b"]

[models."tiny.en".options.Proxy]
api_key_env = "KEY"

[models]
vad = { backend = "vad" }
"""


def test_a_good_file_gives_every_model() -> None:
    models = parse_models(GOOD)
    assert models["vad"] == ModelSpec("vad", "vad", {}, 1)
    spec = models["tiny.en"]
    assert (spec.name, spec.backend, spec.replicas) == ("tiny.en", "transcriber", 2)
    assert spec.load_timeout == 900
    options = backend_pb2.ModelOptions(**spec.options)
    assert options.Threads == 2
    assert options.Proxy.api_key_env == "KEY"
    assert list(options.LoraScales) == [1, 2.5]


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ModelsError) as caught:
        parse_models(text)
    return caught.value.mistakes


NO_MODELS = 'no models; add a table [models.NAME] with backend = "TYPE"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"models: {NO_MODELS}"),
        ("[models]", f"models: {NO_MODELS}"),
        ("[model.x]\nbackend='a'", 'model: unknown key; did you mean "models"?'),
        ("[models.x]\nbakend='a'", 'models.x.bakend: unknown key; did you mean "backend"?'),
        ("[models.x]\nreplicas=2", 'models.x.backend: missing; add backend = "TYPE"'),
        ("[models.x]\nbackend=''", "models.x.backend: must be 1 to 255 printable characters"),
        ("[models.x]\nbackend=' a'", "models.x.backend: must be 1 to 255 printable characters"),
        ("[models.x]\nbackend=1", "models.x.backend: must be a string"),
        ("[models.x]\nbackend='a'\nreplicas=0", "models.x.replicas: must be at least 1"),
        ("[models.x]\nbackend='a'\nreplicas=true", "models.x.replicas: must be a whole number"),
        ("[models.x]\nbackend='a'\nload_timeout=0", "models.x.load_timeout: must be more than 0"),
        (
            "[models.x]\nbackend='a'\nload_timeout=inf",
            "models.x.load_timeout: must be a number of seconds",
        ),
        (
            "[models.x]\nbackend='a'\nload_timeout='1'",
            "models.x.load_timeout: must be a number of seconds",
        ),
        ("models = 3", "models: must be a table"),
        ("[models]\nx = 3", "models.x: must be a table"),
        ("[models.x]\nbackend='a'\noptions=1", "models.x.options: must be a table"),
        (
            "[models.'a é']\nbackend='a'",
            (
                "models.\"a \\u00e9\": the model name 'a \\xe9' cannot be sent as x-model-id; "
                "use printable ASCII"
            ),
        ),
        ("[models.'']\nbackend='a'", 'models."": the model name must not be empty'),
        ("[models.x]\nbackend=", "line 2: not valid TOML: Invalid value"),
        ("[models.x]\nbackend=\n[x]", "line 2: not valid TOML: Invalid value"),
    ],
)
def test_a_mistake_is_reported_with_its_path_and_the_fix(text: str, message: str) -> None:
    assert mistakes(text) == (message,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "Model='m'\nThreds = 3",
            'Threds: ModelOptions has no such field; did you mean "Threads"?',
        ),
        ("threads = 3", 'threads: ModelOptions has no such field; did you mean "Threads"?'),
        ("Threads = 'x'", "Threads: must be a whole number, not a string"),
        ("Threads = 1.5", "Threads: must be a whole number, not a float"),
        ("Threads = true", "Threads: must be a whole number, not a boolean"),
        ("Threads = 3000000000", "Threads: does not fit its type: out of range"),
        ("CUDA = 1", "CUDA: must be true or false, not a whole number"),
        ("Options = 'a'", "Options: must be an array, not a string"),
        ("Options = ['a', 1, 2]", "Options: each element must be a string, not a whole number"),
        ("Proxy = 'x'", "Proxy: must be a table, not a string"),
        ("Proxy.mode = 'x'\nProxy.key = 'y'", "Proxy.key: ProxyOptions has no such field; known: "),
        ("Quantization = 2026-01-01", "Quantization: must be a string, not a date or a time"),
    ],
)
def test_options_are_checked_against_the_protocol(options: str, message: str) -> None:
    (found,) = mistakes(f"[models.'x.y']\nbackend = 'a'\n[models.'x.y'.options]\n{options}\n")
    assert found.startswith(f'models."x.y".options.{message}')


def test_all_mistakes_are_reported_at_once() -> None:
    text = """
        extra = 1
        [models.a]
        bakend = "x"
        [models.b]
        backend = "x"
        replicas = 0
        options = { Threds = 1, CUDA = 3, Proxy = { nonsense = 1 } }
    """
    with pytest.raises(ModelsError) as caught:
        parse_models(text, "m.toml")
    first, *lines = str(caught.value).splitlines()
    assert first == "m.toml has 6 mistakes:"
    assert sorted(line.strip().partition(":")[0] for line in lines) == [
        "extra",
        "models.a.bakend",
        "models.b.options.CUDA",
        "models.b.options.Proxy.nonsense",
        "models.b.options.Threds",
        "models.b.replicas",
    ]


def test_models_that_are_loaded_as_the_same_model_are_found() -> None:
    models = parse_models("""
        [models]
        a = { backend = "x" }
        b = { backend = "x", options.Model = "a" }
        c = { backend = "x" }
    """)
    assert shared_identities(models) == {"a": ["a", "b"]}


@pytest.mark.parametrize(
    "text",
    [
        "[models.x]\nbackend='a'\nbakend='hunter2'",
        "[models.x]\nbackend='a'\noptions.Threads='hunter2'",
        "[models.x]\nbackend='a'\noptions.Proxy.api_key='hunter2'",
        "[models.x]\nbackend='a'\nreplicas='hunter2'",
        "[models.x]\nbackend='a'\noptions='hunter2'",
        "[models.x]\nbackend='hunter2",
        '[models.x]\nbackend="hunter2\\n"',
        "[models.x]\nbackend=' hunter2'",
    ],
)
def test_no_message_repeats_a_value(text: str) -> None:
    with pytest.raises(ModelsError) as caught:
        parse_models(text)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"nowhere\.toml: cannot be read: No such file"):
        read_models(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ModelsError, match="save it as UTF-8"):
        read_models(tmp_path / "latin.toml")
