from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpcerrors_router.security.tokens import (
    Role,
    Token,
    Tokens,
    digest_of,
    fits,
    new_token,
)
from grpcerrors_router.security.tokens_toml import TokensError, parse_tokens, read_tokens

if TYPE_CHECKING:
    from pathlib import Path

A, B = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()
GOOD = f"""\
# the web shop
[tokens.web]
roles = ["caller", "operator"]
models = ["tiny*", "small"]
sha256 = "{A}"
expires = 2027-01-01T00:00:00Z

[tokens."gpu-*"]
role = "node"
nodes = ["gpu-*"]
sha256 = "{B}"
expires = 2027-01-01
"""


def test_a_good_file_gives_every_token() -> None:
    web, gpu = parse_tokens(GOOD)
    assert web.name == "web"
    assert web.roles == {Role.CALLER, Role.OPERATOR}
    assert web.may_call("tiny.en")
    assert web.may_call("small")
    assert not web.may_call("smaller")
    assert not web.may_be("gpu-1")
    assert gpu.may_be("gpu-1")
    assert not gpu.may_be("cpu-1")
    assert not gpu.may_call("tiny.en")
    assert web.expires == gpu.expires == 1798761600.0


@pytest.mark.parametrize("text", ["", "[tokens]", "# nobody\n"])
def test_a_file_may_have_no_tokens_since_the_last_may_be_revoked(text: str) -> None:
    assert len(parse_tokens(text)) == 0


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(TokensError) as caught:
        parse_tokens(text)
    return caught.value.mistakes


def entry(more: str) -> str:
    return f'[tokens.x]\nsha256 = "{A}"\n{more}'


NO_HASH = "missing; grpcerrors-router token new makes a token and writes its hash"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[token.x]", 'token: unknown key; did you mean "tokens"?'),
        ("tokens = 1", "tokens: must be a table"),
        ("[tokens]\nx = 1", "tokens.x: must be a table"),
        (
            "[tokens.x]\nrole = 'node'",
            f"tokens.x.sha256: {NO_HASH}",
        ),
        (
            "[tokens.x]\nrole = 'node'\nsha526 = 'a'",
            'tokens.x.sha526: unknown key; did you mean "sha256"?',
        ),
        (
            "[tokens.x]\nrole = 'node'\nsha256 = 'grt_secret'",
            "tokens.x.sha256: must be the token's SHA-256, 64 lower-case hexadecimal digits",
        ),
        (
            entry(""),
            'tokens.x.role: missing; add role, one of "caller", "node", "operator"',
        ),
        (entry("role = 'caler'"), 'tokens.x.role: unknown role; did you mean "caller"?'),
        (entry("role = 1"), "tokens.x.role: must be a string"),
        (entry("roles = 'node'"), "tokens.x.roles: must be an array of strings"),
        (
            entry("roles = []"),
            'tokens.x.roles: must not be empty; use "caller", "node", "operator"',
        ),
        (
            entry("role = 'node'\nroles = ['node']"),
            "tokens.x.roles: remove it, or role: one of them is enough",
        ),
        (
            entry("role = 'node'\nmodels = ['a']"),
            'tokens.x.models: only a token with role "caller" has models',
        ),
        (
            entry("role = 'caller'\nnodes = ['a']"),
            'tokens.x.nodes: only a token with role "node" has nodes',
        ),
        (
            entry("role = 'caller'\nmodels = []"),
            'tokens.x.models: must not be empty; leave it out for all, or use patterns like "a*"',
        ),
        (entry("role = 'caller'\nmodels = [1]"), "tokens.x.models.0: must be a string"),
        (
            entry("role = 'node'\nexpires = 2027-01-01T00:00:00"),
            "tokens.x.expires: must be a date, or a time with an offset: 2027-01-01T00:00:00Z",
        ),
        (
            f'[tokens."a\\u001bb"]\nrole = "node"\nsha256 = "{A}"',
            'tokens."a\\u001bb": the name must be 1 to 255 printable characters',
        ),
        (
            f"[tokens.x]\nrole='node'\nsha256='{A}'\n[tokens.y]\nrole='node'\nsha256='{A}'",
            "tokens.y.sha256: is that of tokens.x; give each its own token",
        ),
        ("[tokens.x", "line 1: not valid TOML: Expected ']' at the end of a table declaration"),
    ],
)
def test_each_mistake_says_what_to_fix(text: str, message: str) -> None:
    assert mistakes(text) == (message,)


def test_all_mistakes_are_listed_at_once_and_no_value_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("[tokens.a]\nrole = 'SECRET'\nsha256 = 'SECRET'\n[tokens.b]\nrole = 'node'\n")
    with pytest.raises(TokensError) as caught:
        read_tokens(path)
    assert len(caught.value.mistakes) == 3
    assert str(caught.value).startswith(f"{path} has 3 mistakes:\n  ")
    assert "SECRET" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TokensError, match="cannot be read: No such file or directory"):
        read_tokens(tmp_path / "none.toml")


# Finding a token


def token(name: str, secret: str) -> Token:
    return Token(name, frozenset({Role.CALLER}), digest_of(secret))


def test_new_tokens_are_recognizable_and_differ() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"grt_[A-Za-z0-9_-]{43}", each) for each in made)


def test_every_hash_is_compared_in_constant_time_whichever_token_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = Tokens(token(str(each), f"secret-{each}") for each in range(20))
    compared: list[tuple[bytes, bytes]] = []

    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for secret, name in [("secret-0", "0"), ("secret-19", "19"), ("secret-20", None)]:
        compared.clear()
        found = tokens.find(secret)
        assert (found and found.name) == name
        assert [one for one, _ in compared] == [each.digest for each in tokens]
        assert {other for _, other in compared} == {digest_of(secret)}


@given(st.text(), st.text())
def test_only_the_token_itself_is_found(secret: str, other: str) -> None:
    found = Tokens([token("x", secret)]).find(other)
    assert (found is not None) == (secret == other)


def test_a_token_does_not_show_its_hash() -> None:
    assert repr(digest_of("a")) not in repr(token("x", "a"))


# Patterns


@given(st.text(), st.text())
def test_a_pattern_without_a_star_fits_itself_only(pattern: str, name: str) -> None:
    literal = pattern.replace("*", "")
    assert fits(literal, (literal,))
    assert fits(name, (literal,)) == (name == literal)


@given(st.lists(st.text(alphabet="ab[?]!.\n\\^"), min_size=1, max_size=5), st.text())
def test_a_star_stands_for_any_characters(parts: list[str], between: str) -> None:
    assert fits(between.join(parts), ("*".join(parts),))


def wildcard(pattern: str, name: str) -> bool:
    """The plainest implementation, exponential in the number of stars."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return wildcard(pattern[1:], name) or (name != "" and wildcard(pattern, name[1:]))
    return name != "" and name[0] == pattern[0] and wildcard(pattern[1:], name[1:])


@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_patterns_agree_with_the_plainest_implementation(pattern: str, name: str) -> None:
    assert fits(name, (pattern,)) == wildcard(pattern, name)


def test_no_name_makes_a_pattern_slow() -> None:
    # With backtracking, this would take longer than the universe is old.
    assert not fits("a" * 60_000, ("*a" * 20 + "*b",))


def test_case_matters() -> None:
    assert not fits("GPU-1", ("gpu-*",))


def test_an_expired_token_says_so() -> None:
    past = Token("x", frozenset(), b"", expires=time.time() - 1)
    assert past.expired
    assert not Token("x", frozenset(), b"", expires=time.time() + 1000).expired
    assert not Token("x", frozenset(), b"").expired
