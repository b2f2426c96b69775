"""The page with the router's settings, from the docstring and the defaults of `Settings`."""

from __future__ import annotations

import dataclasses
import inspect
import re

from grpcerrors_router.settings import Settings

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_INTRODUCTION = """# Settings of the router

A program passes `Settings` to [`SmartRouter`](python.md#the-router); `serve` has the defaults.
Durations are in seconds.
"""


def page() -> str:
    """Return the page as Markdown: one table for each group of settings."""
    docstring = inspect.getdoc(Settings) or ""
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    groups = docstring.partition("Attributes:\n")[2].split("\n\n")
    tables = []
    for group in groups:
        rows = [
            f"| `{name}` | {defaults[name]:,} | {' '.join(text.split())} |"
            for name, text in _ENTRY.findall(group)
        ]
        if rows:
            tables.append("| setting | default | meaning |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join([_INTRODUCTION, *tables]) + "\n"
