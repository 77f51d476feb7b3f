"""Nothing that a container wrote drives the terminal of who reads it."""

import json

import pytest

from cortex.cli.told import safe, told
from cortex.exceptions import CortexException


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext, é ✓\nof two lines", "plain\ttext, é ✓\nof two lines"),
        ("\x1b[1;31mERROR\x1b[0m: no", "ERROR: no"),
        ("\x1b]0;a title\x07", r"\x1b]0;a title\x07"),
        ("\x1b[2J\x1b[Hgone", r"\x1b[2J\x1b[Hgone"),
        ("\x9b2J", r"\x9b2J"),
        ("50%\r100%\x7f", r"50%\x0d100%\x7f"),
        ("abc\u202ecba", r"abc\u202ecba"),
        ("half a pair \ud83d", r"half a pair \ud83d"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_all_texts_of_an_answer_are_safe_however_deep() -> None:
    depth = 510
    answer = b'{"reason": "\\u001b[2J", "config": ' + b"[" * depth + b'"\\u001bc"' + b"]" * depth + b', "number": 1.5}'
    found = told(answer)
    assert (found["reason"], found["number"]) == (r"\x1b[2J", 1.5)
    assert r"\x1bc" in json.dumps(found["config"]).replace(r"\\", "\\")


def test_an_answer_of_another_program_is_an_error_that_shows_it() -> None:
    with pytest.raises(CortexException, match="not cortex-batch that answers there: 'pong'"):
        told(b"pong")
