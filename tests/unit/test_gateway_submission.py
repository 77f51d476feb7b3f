"""From a submission's JSON to the scheduler's request."""

import json
from typing import Any

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Results, RetryPolicy, Webhook, WorkerScaling
from services.common.errors import CortexError
from services.gateway import fields, submission


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
    assert len(warnings) == fields.MAX_WARNINGS + 1
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
        (b'{"workers":"two"}', 'workers: must be an integer or an object, not the string "two"'),
        (b'{"workers":1.5}', "workers: must be an integer or an object, not the number 1.5"),
        (b'{"workers":1.0}', "workers: must be an integer or an object, not the number 1.0"),
        (b'{"workers":1e2}', "workers: must be an integer or an object, not the number 1e2"),
        (b'{"workers":true}', "workers: must be an integer or an object, not true"),
        (b'{"workers":[1]}', "workers: must be an integer or an object, not the array [1]"),
        (
            b'{"workers":9223372036854775808}',
            "workers: must be an integer of 64 bits or an object, not the number 92233720368547758",
        ),
        (b'{"timeout":-9223372036854775809}', "timeout: must be an integer of 64 bits"),
        (b'{"workers":' + b"9" * 10_000 + b"}", "workers: must be an integer or an object, not the number 9999"),
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


def test_what_goes_beyond_cortex_arrives() -> None:
    found = submission.parse(
        "digits",
        b"""{"workers": {"batches_per_worker": 100, "max_workers": 8},
             "retries": {"max_attempts": 3, "backoff_seconds": 2, "max_backoff_seconds": 1.5e1, "on": [500, 503]},
             "split_failed": true, "results": {"s3_path": "s3://b/r"}, "max_failed_percent": 12.5,
             "webhook": {"url": "https://x/y", "secret": "whsec_1"}}""",
    )
    assert found.warnings == []
    assert found.request == pb.SubmitJobRequest(
        api_name="digits",
        worker_scaling=WorkerScaling(batches_per_worker=100, max_workers=8),
        retries=RetryPolicy(max_attempts=3, backoff_seconds=2, max_backoff_seconds=15, on=[500, 503]),
        split_failed=True,
        results=Results(s3_path="s3://b/r"),
        max_failed_percent=12.5,
        webhook=Webhook(url="https://x/y", secret="whsec_1"),
    )


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("true", Results()),
        ("{}", Results()),
        ('{"s3_path": null}', Results()),
        ('{"s3_path": "s3://b"}', Results(s3_path="s3://b")),
        ("false", None),
        ("null", None),
    ],
)
def test_results_are_asked_for_or_not(text: str, results: Results | None) -> None:
    request = submission.parse("digits", f'{{"results": {text}}}'.encode()).request
    assert request == pb.SubmitJobRequest(api_name="digits", results=results)


def test_a_null_is_not_given_in_what_goes_beyond_cortex_either() -> None:
    names = ("retries", "split_failed", "results", "workers", "max_failed_percent", "webhook")
    nothing = json.dumps(dict.fromkeys(names)).encode()
    assert submission.parse("digits", nothing).request == pb.SubmitJobRequest(api_name="digits")
    inner = b'{"retries":{"max_attempts":null,"on":null},"workers":{"max_workers":null}}'
    request = submission.parse("digits", inner).request
    assert request == pb.SubmitJobRequest(api_name="digits", retries=RetryPolicy(), worker_scaling=WorkerScaling())


@pytest.mark.parametrize("missing", ["arn", "max_receive_count"])
def test_a_queues_missing_key_is_not_an_empty_one(missing: str) -> None:
    queue = {"arn": "", "max_receive_count": 0}
    for given in (queue, queue | {missing: None}):
        body = json.dumps({"sqs_dead_letter_queue": given}).encode()
        found = submission.parse("digits", body).request.sqs_dead_letter_queue
        present = {field.name for field, _ in found.ListFields()}
        assert present == {name for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"retries":3}', "retries: must be an object, not the number 3"),
        (b'{"retries":{"max_attempts":2.5}}', "retries.max_attempts: must be an integer, not the number 2.5"),
        (b'{"retries":{"backoff_seconds":"1s"}}', 'retries.backoff_seconds: must be a number, not the string "1s"'),
        (b'{"retries":{"backoff_seconds":1e999}}', "retries.backoff_seconds: must be a number of 64 bits, not"),
        (b'{"retries":{"on":500}}', "retries.on: must be a list of integers, not the number 500"),
        (b'{"retries":{"on":[500.0]}}', "retries.on: must be a list of integers, not the array [500.0]"),
        (b'{"retries":{"on":[true]}}', "retries.on: must be a list of integers, not the array [true]"),
        (b'{"retries":{"on":[2147483648]}}', "retries.on: must be a list of integers, not the array [2147483648]"),
        (b'{"split_failed":1}', "split_failed: must be true or false, not the number 1"),
        (b'{"results":"s3://b"}', 'results: must be true or false or an object, not the string "s3://b"'),
        (b'{"results":{"s3_path":1}}', "results.s3_path: must be a string, not the number 1"),
        (b'{"workers":"2"}', 'workers: must be an integer or an object, not the string "2"'),
        (b'{"workers":{"max_workers":1.5}}', "workers.max_workers: must be an integer, not the number 1.5"),
        (b'{"max_failed_percent":"5%"}', 'max_failed_percent: must be a number, not the string "5%"'),
        (b'{"max_failed_percent":true}', "max_failed_percent: must be a number, not true"),
        (b'{"webhook":"https://x"}', 'webhook: must be an object, not the string "https://x"'),
        (b'{"webhook":{"url":1}}', "webhook.url: must be a string, not the number 1"),
    ],
)
def test_a_wrong_type_is_told_in_what_goes_beyond_cortex(body: bytes, said: str) -> None:
    with pytest.raises(CortexError) as refused:
        submission.parse("digits", body)
    assert refused.value.kind == "configreader.invalid_primitive_type"
    assert said in refused.value.message


# The first line of a stream, and its query


def test_a_first_line_says_all_but_the_items() -> None:
    line = b'{"workers":2,"Batch_Size":10,"config":{"a":1.0},"results":true,"retries":{"max_attempts":2},"zz":1}\r'
    found = submission.parse_first_line("digits", line, request_id="once")
    job = pb.SubmitJobRequest(api_name="digits", request_id="once", workers=2, config_json='{"a":1.0}')
    job.results.SetInParent()
    job.retries.max_attempts = 2
    assert found.request == pb.SubmitJobStreamRequest(job=job, batch_size=10, first_line=2)
    assert found.warnings == ["zz: unknown field, ignored"]


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (b"", "json.malformed", "the first line is empty"),
        (b"\xef\xbb\xbf{}", "json.malformed", "the first line begins with a byte order mark"),
        (b"7", "json.malformed", "must be a JSON object with `workers` and `batch_size`, not the number 7"),
        (b'{"workers":1', "json.malformed", "the first line is not valid JSON: it ends in the middle, at line 1"),
        (b'{"text":"an item"}', "configreader.must_be_defined", "workers: the first line has no such key"),
        (b'{"workers":null}', "configreader.must_be_defined", "workers: the first line has no such key"),
        (b'{"workers":"x"}', "configreader.invalid_primitive_type", "workers: must be an integer or an object"),
        (b'{"batch_size":1.5}', "configreader.invalid_primitive_type", "batch_size: must be an integer"),
        (b'{"workers":1,"item_list":{}}', "job.conflicting_fields", "item_list: the items are the lines that follow"),
        (b'{"workers":1,"Delimited_Files":{}}', "job.conflicting_fields", "delimited_files: the items are"),
    ],
)
def test_a_first_line_that_will_not_do_is_told(line: bytes, kind: str, said: str) -> None:
    with pytest.raises(CortexError) as refused:
        submission.parse_first_line("digits", line)
    assert refused.value.kind == kind
    assert said in refused.value.message


def test_a_query_says_the_simple_things() -> None:
    given = {"workers": "2", "batch_size": "3", "timeout": "60", "max_failed_percent": "2.5", "results": "true"}
    found = submission.parse_query("digits", given | {"split_failed": "false"}, request_id="once")
    job = pb.SubmitJobRequest(
        api_name="digits",
        request_id="once",
        workers=2,
        timeout_seconds=60,
        max_failed_percent=2.5,
        results=Results(),
    )
    assert found.request == pb.SubmitJobStreamRequest(job=job, batch_size=3, first_line=1)


@pytest.mark.parametrize(("name", "value"), [("workers", "two"), ("batch_size", "1.5"), ("max_failed_percent", "5%")])
def test_a_query_of_the_wrong_type_is_told(name: str, value: str) -> None:
    with pytest.raises(CortexError, match=f"`{name}` must be an? (integer|number), not '{value}'") as refused:
        submission.parse_query("digits", {name: value})
    assert refused.value.kind == "endpoints.invalid_query_param"


# A change to a running job


@pytest.mark.parametrize(
    ("body", "change"),
    [
        (b'{"workers": 3}', {"workers": 3}),
        (b'{"paused": true}', {"paused": True}),
        (b'{"paused": false, "workers": 0}', {"paused": False, "workers": 0}),
    ],
)
def test_a_change_arrives(body: bytes, change: dict[str, Any]) -> None:
    found = submission.parse_change("digits", "1f", body)
    assert found.request == pb.UpdateJobRequest(api_name="digits", job_id="1f", **change)
    assert found.warnings == []


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "json.malformed", "has no body"),
        (b"{}", "configreader.must_be_defined", "there is nothing to change"),
        (b'{"workers":null}', "configreader.must_be_defined", "give `workers`, `paused` or both"),
        (b'{"wokers":2}', "configreader.must_be_defined", "wokers: unknown field, ignored"),
        (b'{"paused":"yes"}', "configreader.invalid_primitive_type", "paused: must be true or false"),
        (b'{"workers":{"max_workers":1}}', "configreader.invalid_primitive_type", "workers: must be an integer, not"),
    ],
)
def test_a_change_that_will_not_do_is_told(body: bytes, kind: str, said: str) -> None:
    with pytest.raises(CortexError) as refused:
        submission.parse_change("digits", "1f", body)
    assert refused.value.kind == kind
    assert said in refused.value.message
