"""Splitting files of JSON values, wherever chunks begin and end."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.common.errors import CortexError
from services.common.names import MAX_ITEM_BYTES, MAX_JSON_DEPTH
from services.scheduler.domain.ndjson import SplitPiece, Splitter

URI = "s3://bucket/items.json"


def split(text: bytes, *cuts: int) -> list[SplitPiece]:
    splitter = Splitter(URI)
    edges = [0, *sorted(cuts), len(text)]
    pieces = [piece for start, end in pairwise(edges) for piece in splitter.feed(text[start:end])]
    return pieces + splitter.finish()


def items(pieces: list[SplitPiece]) -> list[bytes]:
    found = []
    for piece in pieces:
        assert sum(piece.lengths) == len(piece.data)
        start = 0
        for length in piece.lengths:
            assert piece.data[start + length - 1 : start + length] == b","
            found.append(piece.data[start : start + length - 1])
            start += length
    return found


def expected(text: bytes) -> list[bytes] | None:
    """The values by the standard library's decoder, one after the other; None when there is a mistake."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    decoder = json.JSONDecoder(parse_constant=refuse)
    found, position = [], 0
    try:
        decoded = text.removeprefix(b"\xef\xbb\xbf").decode()
        while (position := re.compile(r"[ \t\r\n]*").match(decoded, position).end()) < len(decoded):  # type: ignore[union-attr]  # matches anywhere
            _, end = decoder.raw_decode(decoded, position)
            if re.match(r"-?0\d", decoded[position:]) or re.match(r"\.|[eE]", decoded[end:]):
                return None  # the standard library would find two numbers
            found.append(decoded[position:end].encode())
            position = end
    except ValueError:
        return None
    return found


def outcome(text: bytes, *cuts: int) -> list[bytes] | tuple[str, str]:
    try:
        return items(split(text, *cuts))
    except CortexError as error:
        return error.kind, error.message


def check_ranges(text: bytes, pieces: list[SplitPiece]) -> None:
    """What a piece says about its range is true, and what lies between two is white space."""
    position = 0
    for piece in pieces:
        assert not text[position : piece.start].removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
        position = piece.end
        replaced = text[piece.start : piece.end].replace(b"\n", b",")
        at_end = piece.end == len(text) and piece.data == replaced + b","
        assert piece.plain == (piece.data == replaced or at_end)
    assert not text[position:].removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")


SCALARS = ["1", "-2.5e+3", "0", "12345678901234567890", "1e400", "true", "null"]
STRINGS = ['""', '"a b"', r'"\""', r'"\\"', '"é"', '"😀"', '"],["', r'"\ud800"', r'"\ud83d\ude00"', r'"\\ud800"']
NESTED = ["[]", "{}", "[[[1]]]", "[1,\n2]", '{"a": 1,\r\n "a": 2}', r'{"k":"\n"}']
VALUES = st.sampled_from(SCALARS + STRINGS + NESTED)
SPACES = st.sampled_from(["\n", "\n", "\n", "", " ", "\r\n", "\n\n", "\t"])
WRONG = [",", "]", '"', "\\", "01", "1.", "-", "tru", "NaN", "\x0b", "[1,]", "{1:2}", "\ufeff", '"\t"']
MISTAKES = st.sampled_from([""] * 20 + WRONG)
TEXTS = st.lists(st.tuples(VALUES, SPACES, MISTAKES), max_size=8).map(
    lambda parts: "".join(map("".join, parts)).encode()
)


@given(TEXTS | st.binary(max_size=12), st.data())
@example(b"[1\n2]\n", None)
@example(b"1,2\n", None)
@example(b"{}{}\n\n", None)
@example(b"  [1\n]1\n2\n", None)
@example(b"\xef\xbb\xbf1\n2", None)
@example(b'"\\ud800"\n"\\ud800"\n"\\ud800', None)
@example(b"1.\n", None)
def test_what_is_found_does_not_depend_on_where_chunks_end(text: bytes, data: st.DataObject | None) -> None:
    whole = outcome(text)
    if (wanted := expected(text)) is None:
        assert isinstance(whole, tuple)
        assert whole[0] == "json.malformed"
    else:
        assert whole == wanted
    for cut in range(len(text) + 1):
        assert outcome(text, cut) == whole
    assert outcome(text, *range(len(text))) == whole
    if data:
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5))
        if wanted is not None:
            check_ranges(text, split(text, *cuts))
            check_ranges(text, split(text, *range(len(text))))


@given(TEXTS, st.data())
def test_goes_on_at_the_end_of_any_piece(text: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5))
    if expected(text) is None:
        return
    pieces = split(text, *cuts)
    for number, piece in enumerate(pieces):
        splitter = Splitter(URI, offset=piece.end, line=piece.line, item=piece.item)
        rest = splitter.feed(text[piece.end :]) + splitter.finish()
        assert items(rest) == items(pieces[number + 1 :])
        assert [p.item for p in rest][-1:] == [p.item for p in pieces[number + 1 :]][-1:]
        assert all(p.line == 1 + text.count(b"\n", 0, p.end) for p in rest), "wherever blank lines at the end belong to"


def test_one_value_a_line_is_plain_and_needs_no_copy() -> None:
    (piece,) = split(b'{"a":1}\n2\n"x"\n')
    assert piece == SplitPiece(b'{"a":1},2,"x",', [8, 2, 4], True, 0, 14, 4, 4)


def test_a_last_line_without_line_feed_is_plain_too() -> None:
    first, last = split(b"1\n22")
    assert (first.data, first.plain, first.start, first.end) == (b"1,", True, 0, 2)
    assert (last.data, last.plain, last.start, last.end) == (b"22,", True, 2, 4)


@pytest.mark.parametrize(
    "text", [b"1\r\n2\r\n", b"1\n\n2\n", b"1 \n2\n", b" 1\n2\n", b"[1,\n2]\n3\n", b"{}{}\n\n", b"1 2\n", b"1\n2 "]
)
def test_white_space_beside_one_line_feed_an_item_is_not_plain(text: bytes) -> None:
    pieces = split(text)
    assert not all(piece.plain for piece in pieces)
    assert items(pieces) == expected(text)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        (b"1\n\n3 4\n,\n", "line 4, item 4", "invalid character, at ',' (byte 7 of the file)"),
        (b'1\n{"a":\n tru }\n', "line 3, item 2", "invalid character"),
        (b"1\n[1,2", "line 2, item 2", "ends in the middle"),
        (b"1\n1.", "line 2, item 2", "ends in the middle"),
        (b'1\n2\n"\xff"\n', "line 3, item 3", "not valid UTF-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbf1\n", "line 1, item 1", "invalid character"),
        (b"\xff\xfe1\x00", "line 1, item 1", "invalid character"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: bytes, place: str, what: str) -> None:
    with pytest.raises(CortexError) as caught:
        split(text)
    assert caught.value.kind == "json.malformed"
    assert f"{URI}, {place} is not valid" in caught.value.message
    assert what in caught.value.message


def test_a_stream_that_ends_in_a_value_is_not_called_a_file() -> None:
    splitter = Splitter("the stream of items", is_stream=True, line=11)
    splitter.feed(b'1\n{"a":')
    with pytest.raises(CortexError) as caught:
        splitter.finish()
    assert caught.value.message == (
        "the stream of items, line 12, item 2 is not valid JSON: the stream ends in the middle of it,"
        " at '{'; a stream of items is JSON values, one a line"
    )


@pytest.mark.parametrize("shape", [b'"%s"', b'{"a":\n"%s"}'])
@pytest.mark.parametrize("chunk", [1000, MAX_ITEM_BYTES, 10 * MAX_ITEM_BYTES])
def test_an_item_is_smaller_than_the_limit(shape: bytes, chunk: int) -> None:
    largest = shape % (b"x" * (MAX_ITEM_BYTES - 1 - len(shape % b"")))
    text = b"1\n" + largest + b"\n2\n"
    cuts = range(chunk, len(text), chunk)
    assert items(split(text, *cuts)) == [b"1", largest, b"2"]
    with pytest.raises(CortexError, match="item 2 has 262,144 bytes") as caught:
        split(text.replace(b"x", b"xx", 1), *cuts)
    assert caught.value.kind == "batchapi.item_size_exceeds_limit"


def test_an_item_without_an_end_is_not_kept() -> None:
    splitter = Splitter(URI)
    splitter.feed(b'"' + b"x" * (MAX_ITEM_BYTES - 1))
    with pytest.raises(CortexError, match="line 1, item 1 has 262,144 bytes or more"):
        splitter.feed(b"x")


def test_white_space_without_an_end_is_not_kept() -> None:
    splitter = Splitter(URI)
    for _ in range(50):
        assert splitter.feed(b" " * MAX_ITEM_BYTES) == []
        assert len(splitter._pending) <= 2 * MAX_ITEM_BYTES
    (piece,) = splitter.feed(b"\n1\n")
    assert (piece.data, piece.end, piece.line, piece.item) == (b"1,", 50 * MAX_ITEM_BYTES + 3, 3, 2)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_has_a_limit(opening: bytes) -> None:
    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + (b"]" if opening == b"[" else b"}") * depth

    assert items(split(nested(MAX_JSON_DEPTH) + b"\n")) == [nested(MAX_JSON_DEPTH)]
    for depth in (MAX_JSON_DEPTH + 1, 5000):
        for text in (nested(depth) + b"\n", b"[\n" + nested(depth - 1) + b"]"):
            with pytest.raises(CortexError, match="item 2 is nested deeper than 512") as caught:
                split(b"1\n" + text)
            assert caught.value.kind == "json.malformed"
