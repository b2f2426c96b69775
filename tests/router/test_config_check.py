"""All mistakes in a models.toml, with the lines that they are on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpcerrors_router.config.check import check_models
from grpcerrors_router.config.models_toml import ModelsError, parse_models

if TYPE_CHECKING:
    from pathlib import Path


def found(folder: Path, text: str) -> list[tuple[int, str]]:
    path = folder / "models.toml"
    path.write_text(text)
    return [(each.line, each.what) for each in check_models(path)[0]]


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    text = """\
# A comment
[models.x]  # and another
backend = "y"
replicas = 0
options.Options = [
    "a:1",
    2,
]
options.Thraeds = 3

[models."y z".options]
Threads = "4"

[models]
w = { backend = "v", load_timeout = -1 }
v.backnd = '''
long
'''
"""
    assert found(tmp_path, text) == [
        (4, "models.x.replicas: must be at least 1"),
        (5, "models.x.options.Options: each element must be a string, not a whole number"),
        (9, 'models.x.options.Thraeds: ModelOptions has no such field; did you mean "Threads"?'),
        (11, 'models."y z".backend: missing; add backend = "TYPE"'),
        (12, 'models."y z".options.Threads: must be a whole number, not a string'),
        (15, "models.w.load_timeout: must be more than 0"),
        (16, 'models.v.backnd: unknown key; did you mean "backend"?'),
    ]


def test_every_line_that_is_not_toml_is_listed(tmp_path: Path) -> None:
    text = "[models.x]\nbackend = y\nreplicas = 1 2\noptions.Threads = 3\n[models.z\n"
    lines = [line for line, what in found(tmp_path, text) if "not valid TOML" in what]
    assert lines == [2, 3, 5]


def test_a_key_that_occurs_twice_is_found(tmp_path: Path) -> None:
    text = '[models.x]\nbackend = "y"\nbackend = "z"\n'
    ((line, what),) = found(tmp_path, text)
    assert line == 3
    assert "Cannot overwrite a value" in what


def test_a_file_without_models_has_a_mistake(tmp_path: Path) -> None:
    assert [what for _, what in found(tmp_path, "")] == [
        'models: no models; add a table [models.NAME] with backend = "TYPE"'
    ]
    with pytest.raises(ModelsError, match="cannot be read"):
        check_models(tmp_path / "absent.toml")


_LINES = st.sampled_from(
    ["[models]", "[models.x]", "[models.'y z'.options]", "backend = 'x'", "x.backend = 'y'",
     "a = [", "1,", "]", "b = '''", "'''", "c = {d = 1}", "= 3", "replicas = -1",
     "options.Threads = true",
     "# comment", "", "[[models]]", 'models = "x"', "models.z = {backend = 'e'}", "a.b.c = 1"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(_LINES, max_size=8).map("\n".join) | st.text(max_size=80))
def test_it_finds_mistakes_exactly_in_files_that_are_refused(
    tmp_path_factory: Any, text: str
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", newline="")
    text = path.read_text(encoding="utf-8")
    try:
        parsed = parse_models(text)
    except ModelsError:
        parsed = {}
    mistakes, models = check_models(path)
    assert models == parsed
    assert bool(mistakes) == (not parsed)
    for mistake in mistakes:
        assert 1 <= mistake.line <= max(1, len(text.splitlines()))
        assert f":{mistake.line}: " in mistake.shown("models.toml")
