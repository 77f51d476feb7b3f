"""JSON is checked without being parsed, and what is passed on is what was sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import json_text
from services.common.errors import CortexError
from services.common.names import MAX_JSON_DEPTH


def depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
        depth += 1
    return depth


VALUES = [
    b"12345678901234567890",
    b"1.0",
    b"1e400",
    b"-0",
    b'{"a":1,"a":2}',
    b'{"b":1,"a":2}',
    b'"\\u00e9\\/\\n"',
    b'"\\ud800"',
    b'"\\uDFFF and \\ud83d"',
    b'"\\\\ud800 \\\\\\ud800"',
    b'"\\ud83d\\ude00"',
    b"[ 1 ,\n\t2 ]",
    b'"\xc3\xbc"',
    b'"\xc2\x80\\ud800"',
]


@pytest.mark.parametrize("value", VALUES)
def test_a_member_keeps_its_bytes(value: bytes) -> None:
    document = b'{"x": ' + value + b' , "lone": "\\ud801"}'
    json_text.check_utf8(document, "it")
    json_text.check_value(document, "it")
    assert json_text.members(document, "it") == {"x": value, "lone": b'"\\ud801"'}
    assert json_text.members(b'{"x":' + value + b"}", "it") == {"x": value}


def test_the_last_of_equal_names_counts() -> None:
    assert json_text.members(b'{"a":1,"b":2,"\\u0061":3}', "it") == {"a": b"3", "b": b"2"}


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_any_json_that_python_writes_is_split_into_its_members(value: Any) -> None:
    text = json.dumps(value, allow_nan=True)
    if any(constant in text for constant in ("NaN", "Infinity")):
        return
    assert json_text.members(f'{{"value":{text}}}'.encode(), "it") == {"value": text.encode()}


@pytest.mark.parametrize("value", VALUES)
def test_an_element_keeps_its_bytes(value: bytes) -> None:
    found = json_text.elements(b"[ " + value + b' ,"\\ud801\\\\"\n]')
    assert [json_text.unmasked(bytes(element)) for element in found] == [value, b'"\\ud801\\\\"']


def test_a_name_may_hold_half_a_pair() -> None:
    text = b'{"\\ud800":{"\\udfff\\\\":1}, "\xc3\xa9\\\\":2}'
    assert json_text.members(text, "it") == {"\\ud800": b'{"\\udfff\\\\":1}', "\xe9\\\\": b"2"}


def test_half_a_pair_passes_beside_every_character_that_could_mask_it() -> None:
    text = "".join(map(chr, range(0x80, 0x800)))
    assert json_text.members(f'{{"a":"{text}\\ud800\\\\"}}'.encode(), "it") == {"a": f'"{text}\\ud800\\\\"'.encode()}


@pytest.mark.parametrize("filler", [0, 65_534, 65_535, 200_000])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_bytes_that_are_not_utf_8_are_told_with_their_place(bad: bytes, filler: int) -> None:
    text = "\xe9".encode() + b"x" * filler
    json_text.check_utf8(text, "it")
    with pytest.raises(CortexError, match=f"it is not valid UTF-8 at byte {len(text)}: ") as refused:
        json_text.check_utf8(text + bad + b'"', "it")
    assert refused.value.kind == "json.malformed"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"[1]", r"must be a JSON object, not the array \[1\]"),
        (b"null", "must be a JSON object, not null"),
        (b'"two"', 'must be a JSON object, not the string "two"'),
        (b'{"a":1', r"ends in the middle, at line 1 column 7"),
        (b'{"a":1}}', r"trailing characters at line 1 column 9"),
        (b'{"a":1,}', "trailing comma in object at line 1 column 8"),
        (b'{\n "\xc3\xbc": 01}', r"invalid number at line 2 column \d+"),
        (b'{"a":"\n"}', "invalid character"),
        (b'{"a":"\\x"}', "invalid escaped character"),
        (b'{"a":"\\ud8zz"}', "invalid"),
        (b'{"a":"\\ud800", b}', "object keys must be strings at line 1 column 16"),
        (b'{"a":NaN}', "invalid character"),
        (b"{'a':1}", "object keys must be strings"),
        (b"{" * 2000, "object keys must be strings"),
    ],
)
def test_a_mistake_is_told_with_its_place(document: bytes, said: str) -> None:
    with pytest.raises(CortexError, match=said) as refused:
        json_text.members(document, "the body")
    assert refused.value.kind == "json.malformed"


def too_deep(text: bytes) -> bool:
    return json_text.nested_deeper(text, MAX_JSON_DEPTH)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("filling", [b"", b'"]]]]", ', b'"\\"]]", ', b'"[[[[\\\\", '])
def test_brackets_inside_of_strings_do_not_count(opening: bytes, filling: bytes) -> None:
    level, closing = (b"[" + filling, b"]") if opening == b"[" else (b'{"s":' + (filling or b"0,") + b'"a":', b"}")

    def nested(depth: int) -> bytes:
        return level * (depth - 1) + b"[]" + closing * (depth - 1)

    assert depth_of(json.loads(nested(MAX_JSON_DEPTH))) == MAX_JSON_DEPTH
    assert not too_deep(nested(MAX_JSON_DEPTH))
    assert too_deep(nested(MAX_JSON_DEPTH + 1))


def test_a_string_full_of_brackets_is_not_deep() -> None:
    assert not too_deep(b'{"a":["' + b"[{" * 5000 + b'"]}')


def test_many_shallow_values_are_not_deep() -> None:
    assert not too_deep(b"[" + b",".join([b'{"a":[1,[2]],"b":"x"}'] * 5000) + b"]")


@given(
    st.recursive(
        st.text(alphabet='[]{}"\\ab'),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\'), inner, max_size=3),
        max_leaves=60,
    )
)
def test_depth_is_measured_exactly_around_the_limit(value: Any) -> None:
    text = json.dumps(value).encode()
    room = MAX_JSON_DEPTH - depth_of(value)
    assert not too_deep(b"[" * room + text + b"]" * room)
    assert too_deep(b"[" * (room + 1) + text + b"]" * (room + 1))
