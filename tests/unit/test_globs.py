"""Globs of includes and excludes."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import CortexError
from services.scheduler.domain.globs import MAX_GLOB_CHARACTERS, Files, Glob


def matches(glob: str, text: str) -> bool:
    return Glob(glob, "delimited_files.includes[0]").matches(text)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("s3://b/*.json", ["s3://b/a.json", "s3://b/.json"], ["s3://b/a/b.json", "s3://b/a.jsonl", "xs3://b/a.json"]),
        ("s3://b/**.json", ["s3://b/a.json", "s3://b/a/b.json", "s3://b/.json"], ["s3://b/json"]),
        ("s3://b/**/c", ["s3://b/a/c", "s3://b//c", "s3://b/a/b/c"], ["s3://b/c"]),
        ("**", ["", "a", "a/b"], []),
        ("***", ["", "a/b"], []),
        ("a?c", ["abc", "a?c", "aéc"], ["a/c", "ac", "abbc"]),
        ("[abc]", ["a", "c"], ["d", "", "ab"]),
        ("[!abc]", ["d", "/", "!"], ["a", ""]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("[!a-z]", ["A", "/", "-"], ["m"]),
        ("[^a]", ["^", "a"], ["b"]),
        (r"[a\-c]", ["a", "-", "c"], ["b", "\\"]),
        (r"[\]a]", ["]", "a"], ["\\"]),
        ("[]-a]", ["]", "_", "a"], ["[", "b"]),
        ("[!!]", ["a"], ["!"]),
        ("{a,bc}d", ["ad", "bcd"], ["abcd", "d"]),
        ("{a,{b,c}d}e", ["ae", "bde", "cde"], ["be", "ade"]),
        ("x{,y}z", ["xz", "xyz"], ["xyyz"]),
        ("{}x", ["x"], ["{}x"]),
        ("{a,}{a,}a", ["a", "aa", "aaa"], ["", "aaaa"]),
        ("{*.google.*,yandex.*}", ["www.google.com", "yandex.com"], ["google.com"]),
        ("{**/daxing,daxing}/**/*dev*.yaml", ["daxing/x/dev.yaml", "a/b/daxing//dev.yaml"], ["daxing/dev.yaml"]),
        ("start*art", ["startart", "start-art"], ["start"]),
        ("*{*0,}", ["1", "10", ""], ["/"]),
        ("a,b", ["a,b"], ["a", "b"]),
        ("a}]", ["a}]"], ["a"]),
        (r"\*\?\[\{\\\,", [r"*?[{\,"], ["a"]),
        (r"{\,,\}}", [",", "}"], [""]),
        (r"\a", ["a"], [r"\a"]),
        ("", [""], ["a"]),
        ("a\nb*", ["a\nb\n"], []),
    ],
)
def test_what_a_glob_describes(glob: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not matches(glob, text)] == []
    assert [text for text in no if matches(glob, text)] == []


@pytest.mark.parametrize(
    ("glob", "character", "what"),
    [
        ("s3://b/{a,b", 8, "never closed"),
        ("{a{b}", 1, "never closed"),
        ("x[abc", 2, "never closed"),
        ("[", 1, "never closed"),
        ("[a-", 1, "never closed"),
        ("[a-]", 1, "the range a-] is empty"),
        ("[a-cx]", 1, "either one range or a list"),
        ("[]", 1, "empty"),
        ("[!]", 1, "empty"),
        ("a[c-b]", 2, "the range c-b is empty"),
        ("ab\\", 3, "backslash"),
        ("[a\\", 1, "never closed"),
    ],
)
def test_a_malformed_glob_is_told_with_its_place(glob: str, character: int, what: str) -> None:
    with pytest.raises(CortexError) as caught:
        Files([], ["**", glob], "delimited_files")
    assert caught.value.kind == "batchapi.invalid_glob"
    assert caught.value.message.startswith(f"delimited_files.excludes[1]: the glob {glob!r} is wrong at character ")
    assert f"at character {character}: " in caught.value.message
    assert what in caught.value.message


def test_a_glob_has_a_limited_length() -> None:
    assert matches("a" * MAX_GLOB_CHARACTERS, "a" * MAX_GLOB_CHARACTERS)
    with pytest.raises(CortexError, match="give several globs instead"):
        matches("a" * (MAX_GLOB_CHARACTERS + 1), "")


def test_a_file_passes_when_any_include_and_no_exclude_matches() -> None:
    assert Files([], [], "x").has("s3://b/a")
    files = Files(["**.json", "**.txt"], ["**/tmp/**", "**~"], "x")
    assert files.has("s3://b/a.json")
    assert files.has("s3://b/a.txt")
    assert not files.has("s3://b/a.csv")
    assert not files.has("s3://b/tmp/a.json")


HOSTILE = [
    "**a" * 1300,
    "{**,*}" * 600 + "b",
    "{" * 1300 + "}" * 1300,
    "{a,aa}" * 500 + "b",
    "{**" + ",**" * 1300 + "}b",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("glob", HOSTILE)
def test_hostile_globs_end(glob: str) -> None:
    """A matcher that tries one way after the other would not end before the sun does."""
    assert not matches(glob, "a" * 1000 + "/c")


def slow(glob: str, text: str) -> bool:
    """All ways, one after the other, by what the rules say."""
    if not glob:
        return not text
    if glob.startswith("**"):
        return any(slow(glob[2:], text[n:]) for n in range(len(text) + 1))
    first, rest = glob[0], glob[1:]
    if first == "*":
        return any(slow(rest, text[n:]) for n in range(len(text) + 1) if "/" not in text[:n])
    if first == "{":
        alternatives, behind = braces(rest)
        return any(slow(alternative + behind, text) for alternative in alternatives)
    if not text:
        return False
    if first == "[":
        end = rest.index("]", 1)
        inside = rest[:end].removeprefix("!")
        in_range = inside[1:2] == "-" and inside[0] <= text[0] <= inside[2]
        return (in_range or (inside[1:2] != "-" and text[0] in inside)) == (rest[0] != "!") and slow(
            rest[end + 1 :], text[1:]
        )
    if first == "?":
        return text[0] != "/" and slow(rest, text[1:])
    if first == "\\":
        return slow(rest[1:], text[1:]) if text[0] == rest[0] else False
    return text[0] == first and slow(rest, text[1:])


def braces(text: str) -> tuple[list[str], str]:
    alternatives, depth, start, position = [], 0, 0, 0
    while depth or text[position] != "}":
        if text[position] == "\\":
            position += 1
        elif text[position] == "[":
            position = text.index("]", position + 2)
        elif text[position] == "," and not depth:
            alternatives.append(text[start:position])
            start = position + 1
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        position += 1
    return [*alternatives, text[start:position]], text[position + 1 :]


PARTS = st.sampled_from(
    ["a", "b", "/", "*", "**", "?", "[ab]", "[!a]", "[a-b]", "[!b-c]", "\\a", "\\\\", "é", "[a}{,]"]
)
GLOBS = st.recursive(
    st.lists(PARTS, max_size=4).map("".join),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
        | st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(GLOBS, st.text("ab/cé\\{,", max_size=7))
def test_agrees_with_a_matcher_that_tries_every_way(glob: str, text: str) -> None:
    assert matches(glob, text) == slow(glob, text)


@given(st.text("ab*?[]{}!-,\\/", max_size=12), st.text("ab*?[]{}!-,\\/", max_size=6))
def test_any_text_is_a_glob_or_a_clear_error(glob: str, text: str) -> None:
    with suppress(CortexError):
        assert matches(glob, text) in (True, False)
