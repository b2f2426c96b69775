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
    """Render for grpcerrors.js, whose regular expressions carry their flags."""
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


def cpp() -> str:
    """Render for grpcerrors.hpp."""
    quotation = "".join(
        f"inline constexpr std::string_view k{name.title()} =\n    {_literal(each)};\n"
        for name, each in CONTRACT["quotation"].items()
    )
    fragments = "".join(
        f"    {{{_literal(name)},\n     {_literal(each)}}},\n"
        for name, each in CONTRACT["fragments"].items()
    )
    conditions = "".join(
        f"""    {{{_cpp_code(row["reason"])}, {_cpp_code(row["code"])},
     {_literal(row["message"])}, {_literal(row["code_alone"])}, {_literal(row["unexecuted"])}}},
"""
        for row in CONTRACT["conditions"]
    )
    dialects = "".join(
        f"""    // {each["system"]}
    {{{_cpp_code(row["reason"])}, Codes({", ".join(map(_cpp_code, each["codes"]))}),
     {_lines(each["pattern"], " " * 5)},
     {_lines(each["unless"], " " * 5)},
     {_literal(each["unexecuted"])}}},
"""
        for row in CONTRACT["conditions"]
        for each in row["dialects"]
    )
    return f"""// clang-format off
{quotation}
inline constexpr Fragment kFragments[] = {{
{fragments}}};

inline constexpr Condition kConditions[] = {{
{conditions}}};

inline constexpr Dialect kDialects[] = {{
{dialects}}};
// clang-format on
"""


def _literal(value: object) -> str:
    """Render a string or a Boolean as C and its heirs read it."""
    return json.dumps(value, ensure_ascii=False)


def _lines(alternatives: list[str], indent: str, glue: str = "") -> str:
    """Render a pattern as literals that the compiler joins, one for each alternative."""
    lines = [_literal(f"|{each}" if i else each) for i, each in enumerate(alternatives)]
    return f"{glue}\n{indent}".join(lines) or '""'


def _codes(row: Row, some: str, none: str) -> str:
    """Render the codes of a dialect, which may be none."""
    return ", ".join(some.format(name) if name else none for name in row["codes"])


def _cpp_code(name: str | None) -> str:
    return f"k{name.title().replace('_', '')}" if name else "kNoCode"


def java() -> str:
    """Render the constants of the enum in GrpcErrors.java, and the pieces that they share."""
    table = ",\n".join(
        f"""    {row["reason"]}(
        Code.{row["code"]},
        {_literal(row["message"])},
        {_literal(row["code_alone"])},
        {_literal(row["unexecuted"])},
"""
        + ",\n".join(
            f"""        new Dialect( // {each["system"]}
            Arrays.asList({_codes(each, "Code.{}", "null")}),
            {_lines(each["pattern"], " " * 16, " +")},
            {_lines(each["unless"], " " * 16, " +")},
            {_literal(each["unexecuted"])})"""
            for each in row["dialects"]
        )
        + ")"
        for row in CONTRACT["conditions"]
    )
    quotation = "".join(
        f"      static final String {name.upper()} =\n          {_literal(each)};\n"
        for name, each in CONTRACT["quotation"].items()
    )
    fragments = "".join(
        f"        {{{_literal(name)}, {_literal(each)}}},\n"
        for name, each in CONTRACT["fragments"].items()
    )
    return f"""{table};

    private static final class Shared {{
{quotation}      static final String[][] FRAGMENTS = {{
{fragments}      }};
    }}
"""


def rust() -> str:
    """Render for grpcerrors.rs."""

    def pattern(alternatives: list[str]) -> str:
        lines = _lines(alternatives, " " * 20, ",")
        return f"concat!(\n{' ' * 20}{lines}\n{' ' * 16})" if len(alternatives) > 1 else lines

    quotation = "".join(
        f"#[rustfmt::skip]\nconst {name.upper()}: &str = {_literal(each)};\n"
        for name, each in CONTRACT["quotation"].items()
    )
    fragments = "".join(
        f"    ({_literal(name)}, {_literal(each)}),\n"
        for name, each in CONTRACT["fragments"].items()
    )
    table = "".join(
        f"""    Condition {{
        reason: {row["reason"]},
        code: {row["code"]},
        message: {_literal(row["message"])},
        code_alone: {_literal(row["code_alone"])},
        unexecuted: {_literal(row["unexecuted"])},
        dialects: &[
"""
        + "".join(
            f"""            // {each["system"]}
            Dialect {{
                codes: &[{_codes(each, "Some({})", "None")}],
                pattern: {pattern(each["pattern"])},
                unless: {pattern(each["unless"])},
                unexecuted: {_literal(each["unexecuted"])},
            }},
"""
            for each in row["dialects"]
        )
        + "        ],\n    },\n"
        for row in CONTRACT["conditions"]
    )
    return f"""{quotation}
#[rustfmt::skip]
static FRAGMENTS: &[(&str, &str)] = &[
{fragments}];

#[rustfmt::skip]
static CONDITIONS: &[Condition] = &[
{table}];
"""


FILES: dict[str, Callable[[], str]] = {
    "go/grpcerrors.go": go,
    "node/grpcerrors.js": node,
    "cpp/grpcerrors.hpp": cpp,
    "java/GrpcErrors.java": java,
    "rust/grpcerrors.rs": rust,
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
