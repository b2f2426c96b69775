"""The tables in languages/*: `python -m tests.grpcerrors.support.make_languages`.

An author copies one file, so each of these files has the tables of contract.json in it, between two
markers. To add a language, write a function that renders them, and add it to FILES.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpcerrors

if TYPE_CHECKING:
    from collections.abc import Callable

LANGUAGES = Path(__file__).parents[3] / "languages"
CONTRACT = json.loads(Path(grpcerrors.__file__).with_name("contract.json").read_bytes())
_SECTION = re.compile(
    r"(?m)(^[^\n]*BEGIN GENERATED: the tables of contract\.json[^\n]*\n)"
    r"(?s:.*?)(^[^\n]*END GENERATED[^\n]*$)"
)

Row = dict[str, Any]


def fragment(name: str) -> str:
    """Return the name of the constant that holds a fragment of patterns, in camel case."""
    return "words" + name.title().replace("_", "")


def terms(pattern: str) -> list[str]:
    """Render a pattern as terms of a sum: literals that C and its heirs read, and fragments."""
    parts = re.split(r"{{(\w+)}}", pattern)
    rendered = [json.dumps(part) if i % 2 == 0 else fragment(part) for i, part in enumerate(parts)]
    return [term for term in rendered if term != '""'] or ['""']


def summed(alternatives: list[str], indent: str, plus: str = " + ") -> str:
    """Render a pattern as the sum of its alternatives, each on a line of its own."""
    lines = [plus.join(terms(f"|{each}" if i else each)) for i, each in enumerate(alternatives)]
    return f"{plus.rstrip()}\n{indent}".join(lines) or '""'


def constants() -> dict[str, str]:
    """Return the patterns that others are made of, by the names of their constants."""
    quotation = {f"quotation{name.title()}": each for name, each in CONTRACT["quotation"].items()}
    return quotation | {fragment(name): each for name, each in CONTRACT["fragments"].items()}


def go() -> str:
    """Render for grpcerrors.go, as gofmt does."""
    named = constants()
    width = max(map(len, named))
    lines = [f"\t{name:{width}} = {' + '.join(terms(each))}\n" for name, each in named.items()]
    table = "".join(map(_go_condition, CONTRACT["conditions"]))
    return f"const (\n{''.join(lines)})\n\nvar conditions = []*condition{{\n{table}}}\n\n"


def _go_code(name: str | None) -> str:
    return f"codes.{name.title().replace('_', '')}" if name else "noCode"


def _go_condition(row: Row) -> str:
    return f"""\t{{
\t\treason:     {json.dumps(row["reason"])},
\t\tcode:       {_go_code(row["code"])},
\t\tmessage:    {json.dumps(row["message"])},
\t\tcodeAlone:  {json.dumps(row["code_alone"])},
\t\tunexecuted: {json.dumps(row["unexecuted"])},
\t\tdialects: []dialect{{
{"".join(map(_go_dialect, row["dialects"]))}\t\t}},
\t}},
"""


def _go_dialect(row: Row) -> str:
    indent = "\t" * 5
    return f"""\t\t\tsaid( // {row["system"]}
\t\t\t\t[]codes.Code{{{", ".join(map(_go_code, row["codes"]))}}},
\t\t\t\t[]string{{{json.dumps(row["hints"])[1:-1]}}},
\t\t\t\t{summed(row["pattern"], indent, "+")},
\t\t\t\t{summed(row["unless"], indent, "+")},
\t\t\t\t{json.dumps(row["unexecuted"])},
\t\t\t),
"""


def node() -> str:
    """Render for grpcerrors.js, whose regular expressions have their flags beside them."""
    named = constants()
    lines = [f"const {name} =\n  {' + '.join(terms(each))};\n" for name, each in named.items()]
    table = "".join(map(_node_condition, CONTRACT["conditions"]))
    text = f"{''.join(lines)}\nconst CONDITIONS = [\n{table}];\n"
    return text.replace("(?P<", "(?<").replace('"(?s)', '"')


def _node_code(name: str | None) -> str:
    return f"status.{name}" if name else "null"


def _node_condition(row: Row) -> str:
    return f"""  {{
    reason: {json.dumps(row["reason"])},
    code: {_node_code(row["code"])},
    message: {json.dumps(row["message"])},
    codeAlone: {json.dumps(row["code_alone"])},
    unexecuted: {json.dumps(row["unexecuted"])},
    dialects: [
{"".join(map(_node_dialect, row["dialects"]))}    ],
  }},
"""


def _node_dialect(row: Row) -> str:
    indent = " " * 10
    return f"""      {{
        // {row["system"]}
        codes: [{", ".join(map(_node_code, row["codes"]))}],
        hints: {json.dumps(row["hints"])},
        pattern:
          {summed(row["pattern"], indent)},
        unless:
          {summed(row["unless"], indent)},
        unexecuted: {json.dumps(row["unexecuted"])},
      }},
"""


FILES: dict[str, Callable[[], str]] = {
    "go/grpcerrors.go": go,
    "node/grpcerrors.js": node,
}


def updated(name: str) -> str:
    """Return the text of a file of `languages` with the tables as they should be.

    Raises:
        ValueError: the file does not have the two markers exactly once.
    """
    text = (LANGUAGES / name).read_text(encoding="utf-8")
    tables = FILES[name]()
    text, count = _SECTION.subn(lambda found: f"{found[1]}{tables}{found[2]}", text)
    if count != 1:
        raise ValueError(f"{name} needs the markers BEGIN GENERATED and END GENERATED once")
    return text


if __name__ == "__main__":
    for each in FILES:
        (LANGUAGES / each).write_text(updated(each), encoding="utf-8")
