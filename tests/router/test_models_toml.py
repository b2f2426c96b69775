from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpcerrors_protocol import backend_pb2
from grpcerrors_router.config.models_toml import ModelsError, parse_models, read_models
from grpcerrors_router.config.toml_lines import line_of
from grpcerrors_router.entities import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
# Speech
[models."tiny.en"]
backend = "transcriber"
replicas = 2

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
    options = backend_pb2.ModelOptions(**spec.options)
    assert options.Threads == 2
    assert options.Proxy.api_key_env == "KEY"
    assert list(options.LoraScales) == [1, 2.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ':1: no models; add a table [models.NAME] with backend = "TYPE"'),
        ("\n[model.x]\nbackend='a'", ':2: unknown key "model"; did you mean "models"?'),
        ("[models.x]\nbakend='a'", ':2: model "x": unknown key "bakend"; did you mean "backend"?'),
        ("[models.x]\nreplicas=2", ':1: model "x": backend is missing; add backend = "TYPE"'),
        ("[models.x]\nbackend=''", ':2: model "x": backend must not be empty'),
        ("[models.x]\nbackend=1", ':2: model "x": backend must be a string'),
        (
            "[models]\na = {backend='x'}\nb = {backend='x', replicas=0}",
            ':3: model "b": replicas must be at least 1',
        ),
        (
            "[models.x]\nbackend='a'\nreplicas=true",
            ':3: model "x": replicas must be a whole number',
        ),
        ("models = 3", ":1: models must be a table"),
        ("[models]\nx = 3", ':2: model "x" must be a table'),
        ("[models.x]\nbackend='a'\noptions=1", ':3: model "x": options must be a table'),
        ("[models.'a é']\nbackend='a'", ":1: model name 'a é' cannot travel as x-model-id"),
        ("[models.x]\nbackend=", ":2: not valid TOML: Invalid value"),
        ("[models.x]\nbackend=\n[x]", ":2: not valid TOML: Invalid value"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_fix(text: str, message: str) -> None:
    with pytest.raises(ModelsError) as caught:
        parse_models(text)
    assert str(caught.value).startswith("models.toml" + message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ("Model='m'\nThreds = 3", 5, 'ModelOptions has no field "Threds"; did you mean "Threads"?'),
        ("threads = 3", 4, 'ModelOptions has no field "threads"; did you mean "Threads"?'),
        ("Threads = 'x'", 4, "Threads must be a whole number, not a string"),
        ("Threads = 1.5", 4, "Threads must be a whole number, not a float"),
        ("Threads = true", 4, "Threads must be a whole number, not a boolean"),
        ("Threads = 3000000000", 4, "Threads does not fit its type: out of range"),
        ("CUDA = 1", 4, "CUDA must be true or false, not a whole number"),
        ("Options = 'a'", 4, "Options must be an array, not a string"),
        ("Options = ['a', 1]", 4, "each of Options must be a string, not a whole number"),
        ("Proxy = 'x'", 4, "Proxy must be a table, not a string"),
        ("Proxy.mode = 'x'\nProxy.key = 'y'", 5, 'ProxyOptions has no field "key"; known: api_key'),
        ("Quantization = 2026-01-01", 4, "Quantization must be a string, not a date or a time"),
    ],
)
def test_options_are_checked_against_the_protocol(options: str, line: int, message: str) -> None:
    text = f"[models.x]\nbackend = 'a'\n[models.x.options]\n{options}\n"
    with pytest.raises(ModelsError) as caught:
        parse_models(text, "m.toml")
    assert str(caught.value).startswith(f'm.toml:{line}: model "x": {message}')


@pytest.mark.parametrize(
    "text",
    [
        "[models.x]\nbackend='a'\nbakend='hunter2'",
        "[models.x]\nbackend='a'\noptions.Threads='hunter2'",
        "[models.x]\nbackend='a'\noptions.Proxy.api_key='hunter2'",
        "[models.x]\nbackend='a'\nreplicas='hunter2'",
        "[models.x]\nbackend='a'\noptions='hunter2'",
        "[models.x]\nbackend='hunter2",
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


NAME = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8)


@given(st.lists(NAME, min_size=1, max_size=5, unique=True), st.data())
def test_the_line_of_every_table_is_found(names: list[str], data: st.DataObject) -> None:
    lines: list[str] = []
    where: dict[str, int] = {}
    for name in names:
        lines += ["# a comment = no key"] * data.draw(st.integers(0, 3))
        quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines += [f"[models.{quoted}]  # a table", 'text = """', "backend = 1", '"""']
        where[name] = len(lines) - 3
        lines.append("backend = 'b'")
    text = "\n".join(lines)
    for name, line in where.items():
        assert line_of(text, ("models", name)) == line
        assert line_of(text, ("models", name, "absent")) == line
    assert line_of(text, ("models",)) == where[names[0]]
    assert line_of(text, ("nothing",)) == 1
