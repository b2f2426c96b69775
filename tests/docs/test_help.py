"""The help of every command reads like a manual page, at 80 columns."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from tools.site.commands import PROGRAMS, contexts

WIDTH = 80
COMMANDS = {context.command_path: context for context in contexts()}
# What no help text begins with: "Print JSON.", not "Prints JSON.", "JSON output." or "The format."
_NO_VERB = re.compile(r"(?!Pass )(?:\w+s|\w+ing|\w+ed|The|An?|It|This|If|How|[A-Z]{2,}|[a-z].*) ")


def shown(path: str) -> str:
    context = COMMANDS[path]
    context.terminal_width = context.max_content_width = WIDTH
    return str(context.command.get_help(context))


def helps(context: Any) -> list[tuple[str, str]]:
    """Return each option and argument of a command, and what its help says."""
    found = [param.get_help_record(context) for param in context.command.get_params(context)]
    return [(name, re.sub(r" *\[[^\[\]]*\]$", "", said)) for name, said in filter(None, found)]


@pytest.mark.parametrize("path", COMMANDS)
def test_it_fits_and_no_sentence_is_cut(path: str) -> None:
    text = shown(path)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "..." not in re.sub(r"(COMMAND )?\[ARGS\]\.\.\.|NAME\.\.\.|\}\.\.\.", "", text)


@pytest.mark.parametrize("path", COMMANDS)
def test_each_text_is_a_sentence_that_begins_with_a_verb(path: str) -> None:
    context = COMMANDS[path]
    summary = (context.command.help or "").split("\n\n", 1)[0]
    for name, said in [(path, summary), *helps(context)]:
        assert not _NO_VERB.match(said), f"{name}: {said}"
        assert said.endswith("."), f"{name}: {said}"


@pytest.mark.parametrize("path", COMMANDS)
def test_each_placeholder_says_what_it_stands_for(path: str) -> None:
    for name, _ in helps(COMMANDS[path]):
        if name.startswith("-"):
            assert not re.search(r"<(str|int|float|path|bool|list)", name.lower()), name


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_has_examples_that_parse(path: str) -> None:
    text = shown(path)
    _, heading, examples = text.rpartition("\n  Example")
    assert heading, f"{path} --help has no example"
    lines = [line.strip() for line in examples.replace("\\\n", " ").splitlines()[1:]]
    commands = [line for line in lines if line]
    assert commands
    for command in commands:
        arguments = shlex.split(command, comments=True)
        called = arguments.pop(0)
        assert called in PROGRAMS, command
        while arguments and f"{called} {arguments[0]}" in COMMANDS:
            called += f" {arguments.pop(0)}"
        assert f"{called} ".startswith(f"{path} "), f"{command!r} is of another command"
        context = COMMANDS[called]
        values, rest, _ = context.command.make_parser(context).parse_args(args=arguments)
        assert not rest, command
        required = {param.name for param in context.command.params if param.required}
        assert required <= {name for name, value in values.items() if value is not None}, command


def test_the_programs_have_the_same_style() -> None:
    for program in PROGRAMS:
        options = [name.split(" ")[0] for name, _ in helps(COMMANDS[program])]
        assert options[-4:] == ["--version", "--install-completion", "--show-completion", "--help"]
