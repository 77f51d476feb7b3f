"""Items become batches: each in exactly one, in order, byte for byte, wherever one stops and goes on."""

import json
import re
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import CortexError
from services.common.names import MAX_ITEM_BYTES
from services.scheduler.domain.items import MAX_ITEM_DEPTH, PIECE_BYTES, read_items
from services.scheduler.domain.model.batch import Cursor, Segment
from services.scheduler.domain.partition import MAX_SEGMENT_BATCHES, Partitioner, item_lengths, payload

EXACT = [
    "12345678901234567890",
    "1.0",
    "1e400",
    "-0",
    "-0.0e-0",
    "1E+5",
    '{"a": 1, "a": 2}',
    '{"z":1,"a":2}',
    r'"\u0041\/\n"',
    r'"\ud800"',
    r'"\uDFFF\\ud800\\\ud83d\ude00"',
    '{"\\ud800": "\\\\"}',
    '[1,\t[2 , {"x" : [ ]}]]',
    '"},{"',
    '"[\\"],["',
    '"\u2028 é \U0001f600 \x7f"',
    "null",
    '""',
]
"""Items that a decoder would change."""

items_of = st.lists(
    st.one_of(
        st.sampled_from(EXACT),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
            max_leaves=8,
        ).map(json.dumps),
    ),
    min_size=1,
    max_size=60,
)
batch_sizes = st.integers(min_value=1, max_value=70)
space = st.text(alphabet=" \t\r\n", max_size=2)


def stream_of(items: Sequence[str]) -> bytes:
    return b"".join(item.encode() + b"," for item in items)


def batches_of(segments: Sequence[Segment], stream: bytes) -> list[bytes]:
    """The encoded batches; segments must follow each other without gap."""
    found = []
    index = segments[0].first_index if segments else 0
    for segment in segments:
        assert segment.first_index == index
        assert 1 <= len(segment.lengths) <= MAX_SEGMENT_BATCHES
        start = segment.start
        for length in segment.lengths:
            found.append(payload(memoryview(stream)[start : start + length]))
            start += length
            index += 1
    return found


def expected(items: Sequence[str], batch_size: int) -> list[bytes]:
    groups = (items[first : first + batch_size] for first in range(0, len(items), batch_size))
    return [f"[{','.join(group)}]".encode() for group in groups]


def cut(items: Sequence[str], places: set[int]) -> list[bytes]:
    """The stream in pieces; places are numbers of items."""
    edges = [0, *sorted(place for place in places if 0 < place < len(items)), len(items)]
    return [stream_of(items[first:last]) for first, last in pairwise(edges)]


# The partitioner


@given(items_of, batch_sizes, st.sets(st.integers(1, 60)))
def test_every_item_is_in_one_batch_in_order_however_the_stream_is_cut(
    items: list[str], batch_size: int, places: set[int]
) -> None:
    partitioner = Partitioner(batch_size, Cursor())
    segments = []
    for piece in cut(items, places):
        segments += partitioner.feed(piece)
        assert not partitioner.cursor.done
        assert partitioner.cursor.next_index == sum(len(segment.lengths) for segment in segments)
    segments += partitioner.finish()
    assert batches_of(segments, stream_of(items)) == expected(items, batch_size)
    count = -(-len(items) // batch_size)
    assert partitioner.cursor == Cursor(count, len(stream_of(items)), done=True)


@given(items_of, batch_sizes, st.sets(st.integers(1, 60)), st.integers(0, 60), st.sets(st.integers(1, 60)))
def test_whoever_goes_on_from_a_cursor_makes_the_same_batches(
    items: list[str], batch_size: int, places: set[int], stop: int, other_places: set[int]
) -> None:
    stream = stream_of(items)
    first = Partitioner(batch_size, Cursor())
    segments = []
    for piece in cut(items, places)[:stop]:
        segments += first.feed(piece)
    second = Partitioner(batch_size, first.cursor)
    rest = items[first.cursor.next_index * batch_size :]
    assert stream[first.cursor.offset :] == stream_of(rest)
    for piece in cut(rest, other_places):
        segments += second.feed(piece)
    segments += second.finish()
    assert batches_of(segments, stream) == expected(items, batch_size)
    assert second.cursor.done


def test_an_empty_stream_has_no_batches() -> None:
    partitioner = Partitioner(3, Cursor())
    assert partitioner.feed(b"") == []
    assert partitioner.finish() == []
    assert partitioner.cursor == Cursor(0, 0, done=True)


def test_segments_hold_at_most_256_batches() -> None:
    segments = Partitioner(1, Cursor()).feed(b"1," * 600)
    assert [len(segment.lengths) for segment in segments] == [256, 256, 88]
    assert [segment.start for segment in segments] == [0, 512, 1024]


def test_a_batch_size_larger_than_any_machine_word_means_all_in_one() -> None:
    partitioner = Partitioner(2**53 - 1, Cursor())
    assert partitioner.feed(b"1,2,") == []
    assert [list(segment.lengths) for segment in partitioner.finish()] == [[4]]


def test_a_batch_that_is_too_large_is_named_before_the_stream_ends() -> None:
    item = b'"' + b"x" * 99_997 + b'",'  # 100,000 bytes
    partitioner = Partitioner(3, Cursor(next_index=7))
    partitioner.feed(b"1,1,1,")
    with pytest.raises(CortexError, match="batch 8 ") as raised:
        partitioner.feed(item * 3)
    assert raised.value.kind == "batchapi.message_exceeds_max_size"
    endless = Partitioner(2**53, Cursor())
    endless.feed(item)
    endless.feed(item)
    with pytest.raises(CortexError, match="batch 0 "):
        endless.feed(item)


def test_memory_is_that_of_one_piece() -> None:
    partitioner = Partitioner(7, Cursor())
    piece = b'{"id": 1, "text": "abcdefghijklmnopqrstuvwxyz"},' * 1000
    partitioner.feed(piece)
    tracemalloc.start()
    for _ in range(100):
        partitioner.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(piece)


# Reading item lists


@given(items_of, batch_sizes, space, space)
def test_items_keep_their_bytes_and_lose_the_white_space_around_them(
    items: list[str], batch_size: int, before: str, after: str
) -> None:
    text = f"{after}[{before}" + f"{after},{before}".join(items) + f"{after}]{before}"
    assert b"".join(read_items(text, batch_size)) == stream_of(items)
    assert b"".join(read_items(text.encode(), batch_size)) == stream_of(items)


@pytest.mark.parametrize("item", EXACT)
def test_what_a_decoder_would_change_arrives_as_it_was_sent(item: str) -> None:
    (piece,) = read_items(f"[{item},{item}]", 2)
    (segment,) = Partitioner(2, Cursor()).feed(piece)
    assert payload(piece[: segment.lengths[0]]) == f"[{item},{item}]".encode()


WINDOWS: dict[str, Callable[[int], str]] = {
    "numbers": lambda number: str(number),
    "objects": lambda number: f'{{"n": {number}, "list": [{{"a": 1}}, {{"b": [2]}}], "text": "}},{{"}}',
    "arrays": lambda number: f"[[{number}],[{number}, [{number}]]]",
    "strings": lambda number: f'"{number},],[{{"',
    "half pairs": lambda number: f'"{number}\\ud800,\\\\"',
    "long": lambda number: "[" + "[],{}," * (20_000 + number) + "1]",
    "mixed": lambda number: ("1", '"," ', "[[],[]]", '{"a":{}}')[number % 4].strip(),
}


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize("separator", [",", " ,\n "])
def test_large_lists_are_cut_into_pieces_where_items_end(kind: str, separator: str) -> None:
    items: list[str] = []
    size = 0
    while size < 3 * PIECE_BYTES:
        items.append(WINDOWS[kind](len(items)))
        size += len(items[-1]) + 1
    pieces = read_items(f"[{separator.join(items)}]", 1)
    assert b"".join(pieces) == stream_of(items)
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert [length for piece in pieces for length in item_lengths(piece)] == [len(item.encode()) + 1 for item in items]


def refused(text: str | bytes, batch_size: int = 1) -> CortexError:
    with pytest.raises(CortexError) as raised:
        read_items(text, batch_size)
    return raised.value


NO_JSON = ["[", "[1", "[1,]", "[,1]", "[1,,1]", "[1 2]", "[01]", "[1.]", "[NaN]", "[-]", "['a']", "[tru]", "[1]]"]
NO_JSON += [
    '["\n"]',
    r'["\x"]',
    r'["\ud8"]',
    r'["\ud8zz"]',
    r'["\\\ud80"]',
    "[{a:1}]",
    '[{"a":1,}]',
    "[1]x",
    "\ufeff[1]",
]


@pytest.mark.parametrize("text", NO_JSON)
def test_what_is_not_json_is_refused(text: str) -> None:
    assert refused(text).kind == "json.malformed"


@pytest.mark.parametrize("end", ["", "]]", ",]", ",,1]", "}", ",01]", '"', r',"\ud8"]', " 1]"])
@pytest.mark.parametrize("item", ["1", '{"a": [1, 2]}', r'"\ud800"'])
def test_a_mistake_behind_the_first_window_is_found_and_placed(item: str, end: str) -> None:
    text = "[" + ",".join([item] * (700_000 // (len(item) + 1)))
    error = refused(text + end)
    assert error.kind == "json.malformed"
    place = re.search(r"byte (\d+)", error.message)
    assert "truncated" in error.message if place is None else 0 <= int(place[1]) - len(text) <= len(end)


@pytest.mark.parametrize("middle", ["1,,1", "1 1", "1]", "[1]]", "01", '"'])
def test_a_mistake_at_any_window_is_found(middle: str) -> None:
    for length in range(PIECE_BYTES - 6, PIECE_BYTES + 6, 2):
        text = "[" + "1," * (length // 2) + middle + ",1" * PIECE_BYTES + "]"
        assert refused(text).kind == "json.malformed"


@pytest.mark.parametrize("text", ["{}", "null", "3", '"a"', "true"])
def test_what_is_no_list_is_refused(text: str) -> None:
    error = refused(text)
    assert error.kind == "configreader.invalid_primitive_type"
    assert "expected a list" in error.message


@pytest.mark.parametrize("text", ["[]", " [ ] ", "", " \n"])
def test_an_empty_list_is_refused_and_so_is_none(text: str) -> None:
    assert refused(text).kind == "configreader.too_few_elements"


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_invalid_utf_8_is_refused_wherever_it_stands(bad: bytes) -> None:
    for filler in (b"", b"x" * 65_534, b"x" * 65_535, "é".encode() * 40_000):
        assert refused(b'["' + filler + bad + b'"]').kind == "json.malformed"


def test_an_item_is_smaller_than_262_144_bytes_and_so_is_a_batch() -> None:
    def text(length: int) -> str:
        return '[1,"' + "x" * (length - 2) + '"]'

    error = refused(text(MAX_ITEM_BYTES))
    assert error.kind == "batchapi.item_size_exceeds_limit"
    assert "item_list.items[1]" in error.message
    error = refused(text(MAX_ITEM_BYTES - 1))  # fits, but not together with two brackets
    assert error.kind == "batchapi.message_exceeds_max_size"
    assert "batch 1 " in error.message
    assert len(payload(read_items(text(MAX_ITEM_BYTES - 3), 1)[-1][2:])) == MAX_ITEM_BYTES - 1
    assert "batch 0 " in refused(text(MAX_ITEM_BYTES - 4), batch_size=2).message


def test_the_index_of_a_large_item_counts_from_the_start_of_the_list() -> None:
    large = '"' + "x" * MAX_ITEM_BYTES + '"'
    assert "items[400000]" in refused("[" + "1," * 400_000 + large + "]").message


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_has_a_limit_that_counts_from_the_start_of_the_request(pair: str) -> None:
    def nested(depth: int) -> str:
        opening = '{"a":' if pair == "{}" else "["
        return "[1," + opening * (depth - 1) + pair + pair[1] * (depth - 1) + "]"

    read_items(nested(MAX_ITEM_DEPTH), 1)
    for depth in (MAX_ITEM_DEPTH + 1, 600, 900):
        error = refused(nested(depth))
        assert error.kind == "json.malformed"
        assert "nested deeper than 512" in error.message
        assert "items[1]" in error.message


def test_brackets_in_strings_do_not_nest() -> None:
    item = '"' + "[{" * 2000 + '\\""'
    assert read_items(f"[[{item}]]", 1) == [f"[{item}],".encode()]


@pytest.mark.parametrize("text", ["[" * 5_000_000, '[{"a":' * 500_000, "[1," * 1_000_000])
def test_bottomless_nesting_is_refused(text: str) -> None:
    assert refused(text).kind == "json.malformed"


@pytest.mark.parametrize(
    ("item", "size", "times"),
    [
        ('{"id":123456,"text":"' + "x" * 98 + '","vector":[1.5,2.5,-3e2],"valid":true}', 10_000_000, 1.5),
        ("1", 1_500_000, 20),  # a decoder's objects are 30 times as large as these items
    ],
)
def test_memory_stays_near_that_of_the_stream(item: str, size: int, times: float) -> None:
    text = ("[" + ",".join([item] * (size // (len(item) + 1))) + "]").encode()
    tracemalloc.start()
    read_items(text, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < times * len(text)
