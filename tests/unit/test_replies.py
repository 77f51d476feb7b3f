"""A container's reply as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.replies import MAX_KEPT_REPLY_BYTES, fits, reply_json


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"", b'""'),
        (b" \n", b'" \\n"'),
        (b"done\n", b'"done\\n"'),
        (b'{"a": 1.0, "a": 12345678901234567890}', b'{"a": 1.0, "a": 12345678901234567890}'),
        (b' {"a":\r\n [1e400]}\n', b'{"a":   [1e400]}'),
        (b'"\\ud800"', b'"\\ud800"'),
        (b'"two\nlines"', b'"\\"two\\nlines\\""'),
        (b"null", b"null"),
        (b"NaN", b'"NaN"'),
        (b"1 2", b'"1 2"'),
        (b"[" * 513 + b"]" * 513, b'"' + b"[" * 513 + b"]" * 513 + b'"'),
        (b"[" * 512 + b"]" * 512, b"[" * 512 + b"]" * 512),
        (b"caf\xe9", '"caf\ufffd"'.encode()),
        (b'"\xff"', '"\\"\ufffd\\""'.encode()),
        (b"\x00", b'"\\u0000"'),
    ],
)
def test_json_stays_as_it_is_on_one_line_and_anything_else_becomes_a_string(reply: bytes, text: bytes) -> None:
    assert reply_json(reply) == text


@given(st.binary(max_size=200))
def test_whatever_is_answered_is_one_line_of_json_that_fits(reply: bytes) -> None:
    text = reply_json(reply)
    json.loads(text)
    assert b"\n" not in text
    assert len(text) <= 6 * len(reply) + 2


@pytest.mark.parametrize(
    ("reply", "fitting"),
    [
        (b"\x00" * ((MAX_KEPT_REPLY_BYTES - 2) // 6), True),
        (b"\x00" * ((MAX_KEPT_REPLY_BYTES - 2) // 6 + 1), False),
        (b"\xff" * ((MAX_KEPT_REPLY_BYTES - 2) // 3), True),
        (b"\xff" * ((MAX_KEPT_REPLY_BYTES - 2) // 3 + 1), False),
        (b"x" * (MAX_KEPT_REPLY_BYTES - 2), True),
        (b"x" * (MAX_KEPT_REPLY_BYTES - 1), False),
        (b'"' + b"x" * (MAX_KEPT_REPLY_BYTES - 2) + b'"', True),
        (b'"' + b"x" * (MAX_KEPT_REPLY_BYTES - 1) + b'"', False),
    ],
)
def test_a_reply_fits_if_its_json_does(reply: bytes, fitting: bool) -> None:
    assert fits(reply) is fitting
    assert (len(reply_json(reply)) <= MAX_KEPT_REPLY_BYTES) is fitting
