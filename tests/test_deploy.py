"""The files in deploy/ use options that the programs have."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml

from grpcerrors.cli import _commands
from grpcerrors_backends.cli import app as backend
from grpcerrors_backends.registry import CATALOGUE
from grpcerrors_router.cli import app as router
from grpcerrors_router.config.models_toml import read_models

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[1] / "deploy"
PROGRAMS = {
    "grpcerrors": _commands.app,
    "grpcerrors-backend": backend.app,
    "grpcerrors-router": router.app,
}
COMMAND = re.compile(r"^(?:.*/)?(grpcerrors(?:-router|-backend)?)$")


def in_yaml(value: Any) -> Iterator[list[str]]:
    """Yield each list of words that is the command of a program."""
    if isinstance(value, dict):
        if isinstance(value.get("command"), list) and isinstance(value.get("args"), list):
            yield [*value["command"], *value["args"]]
        else:
            for each in value.values():
                yield from in_yaml(each)
    elif isinstance(value, list):
        words = value[1:] if value and value[0] == "CMD" else value
        if words and isinstance(words[0], str) and COMMAND.match(words[0]):
            yield words
        else:
            for each in value:
                yield from in_yaml(each)


def commands(path: Path) -> list[list[str]]:
    text = path.read_text()
    if path.suffix == ".yaml":
        return [found for document in yaml.safe_load_all(text) for found in in_yaml(document)]
    if path.suffix == ".service":
        lines = text.replace("\\\n", " ").splitlines()
        return [shlex.split(line[10:]) for line in lines if line.startswith("ExecStart=")]
    return [
        words
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if (words := shlex.split(line, comments=True)) and COMMAND.match(words[0])
    ]


FILES = [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.service"), DEPLOY / "README.md"]
CASES = [(path.relative_to(DEPLOY), words) for path in FILES for words in commands(path)]


@cache
def command(program: str) -> Any:
    return typer.main.get_command(PROGRAMS[program])


@pytest.mark.parametrize(("path", "words"), CASES, ids=lambda case: str(case)[:40])
def test_every_option_exists(path: Path, words: list[str]) -> None:
    program, *rest = words
    match = COMMAND.match(program)
    assert match is not None
    found = command(match[1])
    while hasattr(found, "commands"):
        found = found.commands[rest.pop(0)]
    known = {name for parameter in found.params for name in parameter.opts}
    used = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert used
    assert used <= known


def test_there_are_commands_of_each_kind() -> None:
    assert {path.suffix for path, _ in CASES} == {".yaml", ".service", ".md"}


def test_the_models_are_valid() -> None:
    models = read_models(DEPLOY / "models.toml")
    assert {model.backend for model in models.values()} <= set(CATALOGUE)
    assert (DEPLOY / "kubernetes/models.toml").read_text() == (DEPLOY / "models.toml").read_text()
