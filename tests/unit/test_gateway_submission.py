"""From a submission's JSON to the scheduler's request."""

import pytest

from services.common.errors import CortexError
from services.gateway import submission


def test_every_field_arrives() -> None:
    found = submission.parse(
        "digits",
        b"""{"workers": 3, "timeout": 60, "batch_timeout": 5,
             "sqs_dead_letter_queue": {"arn": "arn:aws:sqs:x:1:q", "max_receive_count": 4},
             "config": { "a" : 1.0, "a": 12345678901234567890 },
             "item_list": {"items": [ 1.0, {"b":1,"a":1e400} ,"\\ud800" ], "batch_size": 2},
             "file_path_lister": {"s3_paths": ["s3://b/\\u00fc"], "includes": ["*"], "excludes": [], "batch_size": 7},
             "delimited_files": {"s3_paths": [], "batch_size": 8}}""",
        dry_run=True,
        request_id="once",
    )
    request = found.request
    assert found.warnings == []
    assert (request.api_name, request.dry_run, request.request_id) == ("digits", True, "once")
    assert (request.workers, request.timeout_seconds, request.batch_timeout_seconds) == (3, 60, 5)
    assert request.sqs_dead_letter_queue.arn == "arn:aws:sqs:x:1:q"
    assert request.sqs_dead_letter_queue.max_receive_count == 4
    assert request.config_json == '{ "a" : 1.0, "a": 12345678901234567890 }'
    assert request.item_list.items_json == '[ 1.0, {"b":1,"a":1e400} ,"\\ud800" ]'
    assert request.item_list.batch_size == 2
    assert list(request.file_path_lister.s3_paths) == ["s3://b/ü"]
    assert list(request.file_path_lister.includes) == ["*"]
    assert request.file_path_lister.batch_size == 7
    assert request.delimited_files.batch_size == 8


def test_what_is_not_given_is_absent() -> None:
    nothing = b'{"workers":null,"timeout":null,"config":null,"item_list":null,"sqs_dead_letter_queue":null,"zz":null}'
    for body in (b"{}", nothing):
        request = submission.parse("digits", body).request
        assert request == type(request)(api_name="digits")


@pytest.mark.parametrize("source", ["item_list", "file_path_lister", "delimited_files"])
def test_a_batch_size_of_0_is_given(source: str) -> None:
    for given, text in ((True, '{"batch_size":0}'), (False, "{}"), (False, '{"batch_size":null}')):
        request = submission.parse("digits", f'{{"{source}":{text}}}'.encode()).request
        assert getattr(request, source).HasField("batch_size") is given


def test_an_empty_object_is_given() -> None:
    request = submission.parse("digits", b'{"item_list":{},"sqs_dead_letter_queue":{"arn":null}}').request
    assert request.HasField("item_list")
    assert request.HasField("sqs_dead_letter_queue")
    assert not request.HasField("delimited_files")


def test_unknown_names_are_told_wherever_they_stand() -> None:
    body = b'{"wokers":1,"item_list":{"items":[{"x":1}],"size":2},"sqs_dead_letter_queue":{"url":""},"config":{"y":1}}'
    assert submission.parse("digits", body).warnings == [
        "wokers: unknown field, ignored",
        "item_list.size: unknown field, ignored",
        "sqs_dead_letter_queue.url: unknown field, ignored",
    ]


def test_many_unknown_names_are_counted() -> None:
    body = b"{" + b",".join(b'"%s%d":1' % (b"x" * 100, n) for n in range(1000)) + b"}"
    warnings = submission.parse("digits", body).warnings
    assert len(warnings) == submission.MAX_WARNINGS + 1
    assert warnings[-1] == "980 more unknown fields, ignored"
    assert max(map(len, warnings)) < 100


def test_names_match_in_any_case_as_in_go() -> None:
    found = submission.parse("digits", b'{"Workers":1,"WORKERS":2,"Item_List":{"Items":[1],"Batch_Size":3}}')
    assert found.request.workers == 2
    assert found.request.item_list.batch_size == 3
    assert found.warnings == []


def test_the_last_of_equal_names_counts() -> None:
    assert submission.parse("digits", b'{"workers":1,"workers":2}').request.workers == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"workers":"two"}', 'workers: must be an integer, not the string "two"'),
        (b'{"workers":1.5}', "workers: must be an integer, not the number 1.5"),
        (b'{"workers":1.0}', "workers: must be an integer, not the number 1.0"),
        (b'{"workers":1e2}', "workers: must be an integer, not the number 1e2"),
        (b'{"workers":true}', "workers: must be an integer, not true"),
        (b'{"workers":[1]}', "workers: must be an integer, not the array [1]"),
        (
            b'{"workers":9223372036854775808}',
            "workers: must be an integer of 64 bits, not the number 92233720368547758",
        ),
        (b'{"timeout":-9223372036854775809}', "timeout: must be an integer of 64 bits"),
        (b'{"workers":' + b"9" * 10_000 + b"}", "workers: must be an integer, not the number 9999"),
        (b'{"item_list":[1]}', "item_list: must be an object, not the array [1]"),
        (b'{"item_list":{"items":{"a":1}}}', 'item_list.items: must be a list, not the object {"a":1}'),
        (b'{"item_list":{"batch_size":"1"}}', "item_list.batch_size: must be an integer"),
        (b'{"delimited_files":{"s3_paths":"s3://b"}}', "delimited_files.s3_paths: must be a list of strings"),
        (
            b'{"delimited_files":{"s3_paths":[1]}}',
            "delimited_files.s3_paths: must be a list of strings, not the array [1]",
        ),
        (b'{"sqs_dead_letter_queue":"arn"}', "sqs_dead_letter_queue: must be an object"),
        (b'{"sqs_dead_letter_queue":{"arn":1}}', "sqs_dead_letter_queue.arn: must be a string, not the number 1"),
        (b'{"sqs_dead_letter_queue":{"arn":"\\ud800"}}', "sqs_dead_letter_queue.arn: must be a string"),
    ],
)
def test_a_wrong_type_is_told_with_its_field(body: bytes, said: str) -> None:
    with pytest.raises(CortexError) as refused:
        submission.parse("digits", body)
    assert refused.value.kind == "configreader.invalid_primitive_type"
    assert said in refused.value.message
    assert len(refused.value.message) < 200


def test_the_limits_of_64_bits_pass() -> None:
    for number in (-(2**63), 2**63 - 1):
        assert submission.parse("digits", b'{"workers":%d}' % number).request.workers == number


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "has no body"),
        (b" \n", "has no body"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"\xff"}', "not valid UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8 at byte 6"),
        (b'{"a":' * 513 + b"1" + b"}" * 513, "deeper than 512"),
        (b'{"a":' + b"[" * 100_000, "deeper than 512"),
    ],
)
def test_what_is_not_a_json_document_is_refused(document: bytes, said: str) -> None:
    with pytest.raises(CortexError, match=said) as refused:
        submission.parse("digits", document)
    assert refused.value.kind == "json.malformed"


def test_half_a_surrogate_pair_in_an_unknown_name_is_told_as_it_was_sent() -> None:
    assert submission.parse("digits", b'{"\\ud800":"\\udfff"}').warnings == ["\\ud800: unknown field, ignored"]
