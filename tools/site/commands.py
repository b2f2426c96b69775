"""The page with all commands, from the commands themselves."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = {
    "grpcerrors": "grpcerrors.cli._commands",
    "grpcerrors-backend": "grpcerrors_backends.cli.app",
    "grpcerrors-router": "grpcerrors_router.cli.app",
}
"""Each program, and the module with its `app`."""
_MARKUP = re.compile(r"[*_<|]")
_INTRODUCTION = """# Commands

This page is generated from the commands. `--help` prints the same text, and
`--install-completion` installs [completion](../how-to/completion.md) for your shell.
"""


def contexts() -> Iterator[Any]:
    """Yield a click context for each program and each of its commands."""
    for program, module in PROGRAMS.items():
        command: Any = get_command(importlib.import_module(module).app)
        context = command.context_class(command, info_name=program)
        yield context
        yield from _below(context)


def _below(parent: Any) -> Iterator[Any]:
    for name, command in getattr(parent.command, "commands", {}).items():
        context = command.context_class(command, info_name=name, parent=parent)
        yield context
        yield from _below(context)


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *map(_section, contexts())])


def _section(context: Any) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", *_paragraphs(command.help or "")]
    parts.append(f"```text\n{usage}\n```")
    rows = [_row(param, context) for param in command.get_params(context)]
    if rows := [row for row in rows if row]:
        parts.append("| argument or option | what it does |\n|---|---|\n" + "\n".join(rows))
    for name, inner in getattr(command, "commands", {}).items():
        anchor = f"{context.command_path} {name}".lower().replace(" ", "-")
        summary = inner.get_short_help_str(limit=200)
        parts.append(f"- [`{name}`](#{anchor}): {summary}")
    parts += _paragraphs(command.epilog or "")
    return "\n\n".join(parts) + "\n"


def _row(param: Any, context: Any) -> str:
    record = param.get_help_record(context)
    if record is None or param.name in {"install_completion", "show_completion", "help"}:
        return ""
    shown, said = record
    escaped = _MARKUP.sub(r"\\\g<0>", said)
    return f"| `{shown}` | {escaped} |"


def _paragraphs(text: str) -> Iterator[str]:
    r"""Yield the paragraphs of a help text; one that begins with \b has commands to show."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines = (line.removeprefix("  ") for line in paragraph.splitlines()[1:])
            yield "```sh\n" + "\n".join(lines) + "\n```"
        elif paragraph.strip():
            yield " ".join(paragraph.split())
