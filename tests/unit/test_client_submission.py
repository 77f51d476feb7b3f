"""Putting a submission together from raw text: no byte of an item changes, and mistakes are named."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex.exceptions import CortexException
from cortex.submission import MAX_BYTES, Submission, encode_items, encode_lines, read_items, read_value

TREACHEROUS = [b"12345678901234567890", b"1.0", b"1e400", b'{"a":1,"a":2}', b'"\\u00e9"', b"-0", b"[1, 2]", b"null"]


def refusal(text: bytes) -> str:
    with pytest.raises(CortexException) as caught:
        read_items(text, "items.txt")
    assert caught.value.kind == "client.invalid_items"
    return caught.value.message


def test_items_in_an_array_stay_as_they_are_written() -> None:
    array = b"[ " + b" ,\n ".join(TREACHEROUS) + b" ]"
    assert read_items(b"\n" + array + b"\n", "items.txt") == array


def test_items_one_a_line_become_an_array_and_stay_as_they_are_written() -> None:
    lines = b"\r\n".join(TREACHEROUS) + b"\n\n"
    assert read_items(lines, "items.txt") == b"[" + b",".join(TREACHEROUS) + b"]"


def test_lines_that_are_arrays_are_items_and_not_the_array_of_items() -> None:
    assert read_items(b"[1,2]\n[3]\n", "items.txt") == b"[[1,2],[3]]"


def test_one_array_alone_is_the_array_of_items() -> None:
    assert read_items(b"[1,2]\n", "items.txt") == b"[1,2]"


@pytest.mark.parametrize("text", [b"", b" \n", b"[]", b"[ \n]\n"])
def test_no_items_are_a_mistake_that_names_the_file(text: bytes) -> None:
    with pytest.raises(CortexException, match=r"items\.txt: no items: give a JSON array of at least one"):
        read_items(text, "items.txt")


def test_a_byte_order_mark_counts_for_nothing() -> None:
    assert read_items(b"\xef\xbb\xbf1\n2", "items.txt") == b"[1,2]"


def test_numbers_longer_than_python_converts_are_fine() -> None:
    digits = b"9" * (sys.get_int_max_str_digits() + 1)
    assert read_items(digits, "items.txt") == b"[" + digits + b"]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'1\n2\n{"a":}\n4', "items.txt: line 3 is not a JSON value: expecting value at column 6"),
        (b"[1]\n[2\n", "items.txt: line 2 is not a JSON value"),
        (b"[\n1,\n2,,\n3]", "items.txt: line 3: not a JSON array of items: expecting value at column 3"),
        (b"[1, 2", "items.txt: not a JSON array of items: expecting ',' delimiter"),
        (b"[1, NaN]", "items.txt: not a JSON array of items: NaN is not JSON"),
        (b"1\nInfinity", "items.txt: line 2 is not a JSON value: Infinity is not JSON"),
        (b'1\n"\xff"', "items.txt: line 2 is not a JSON value: byte 1 is not UTF-8"),
        (b"1 2", "items.txt: line 1 is not a JSON value: extra data at column 3"),
        (b"[" * 200_000, "items.txt: not a JSON array of items: it is nested too deep"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: bytes, message: str) -> None:
    assert message in refusal(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON_VALUES, min_size=2))
def test_python_values_lines_and_arrays_are_three_ways_to_say_the_same(values: list[object]) -> None:
    lines = "\n".join(json.dumps(value) for value in values).encode()
    for items in (encode_items(values), read_items(lines, "f"), read_items(json.dumps(values).encode(), "f")):
        body = Submission({}, items=items, batch_size=2).body()
        assert json.loads(body) == {"item_list": {"items": values, "batch_size": 2}}


def test_the_body_holds_raw_items_raw_config_and_the_fields_that_are_given() -> None:
    fields = {"workers": 3, "timeout": None, "sqs_dead_letter_queue": {"arn": "a"}}
    body = Submission(fields, b'{"b": 1.0}', b"[1e400]", batch_size=2).body()
    assert body == (
        b'{"workers":3,"sqs_dead_letter_queue":{"arn":"a"},"config":{"b": 1.0},'
        b'"item_list":{"items":[1e400],"batch_size":2}}'
    )


def test_a_submission_that_no_server_takes_is_not_sent() -> None:
    submission = Submission({}, items=b'["' + b"x" * MAX_BYTES + b'"]', batch_size=1)
    with pytest.raises(CortexException, match=r"10\.0 MiB and may be at most 10 MiB") as caught:
        submission.body()
    assert caught.value.kind == "client.submission_too_large"


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_a_value_that_json_cannot_hold_is_named_by_its_place(value: object) -> None:
    with pytest.raises(CortexException, match=r"items\[1\] cannot be written as JSON"):
        encode_items([1, value])


def test_config_must_be_json() -> None:
    assert read_value("config", b' {"a": 1e400}\n') == b'{"a": 1e400}'
    with pytest.raises(CortexException, match="config: not JSON: expecting value at column 1"):
        read_value("config", b"yes")


def test_the_head_of_a_stream_is_one_line_whatever_the_config_looks_like() -> None:
    config = b'{\r\n  "a": "x\\ny",\n  "b": 1e400\n}'
    head = Submission({"workers": 3}, config, batch_size=2).head()
    assert head == b'{"workers":3,"config":{    "a": "x\\ny",   "b": 1e400 },"batch_size":2}\n'


def test_lines_are_made_one_by_one_and_a_mistake_is_named_by_its_place() -> None:
    made = encode_lines(iter([{"a": 1}, "é\n", object()]))
    assert [next(made), next(made)] == [b'{"a":1}\n', b'"\\u00e9\\n"\n']
    with pytest.raises(CortexException, match=r"items\[2\] cannot be written as JSON"):
        next(made)
