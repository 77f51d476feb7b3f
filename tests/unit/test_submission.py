"""A submission's fields: each rule, in the order in which they are told."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import Category, CortexError
from services.scheduler.domain.model.options import DeadLetterQueue, Options
from services.scheduler.domain.submission import FileSelection, ItemList, Submission, ValidSubmission, validate

ITEMS = ItemList("[1,2]", 1)
FILES = FileSelection(("s3://bucket/prefix",), (), (), 1)
ARN = "arn:aws:sqs:us-west-2:123456789012:failed"
GOOD = Submission(
    workers=1,
    timeout_seconds=None,
    batch_timeout_seconds=None,
    dead_letter_queue=None,
    config_json="",
    item_list=ITEMS,
    file_path_lister=None,
    delimited_files=None,
)
LEAST = "configreader.must_be_greater_than_or_equal_to"
MOST = "configreader.must_be_less_than_or_equal_to"
DEFINED = "configreader.must_be_defined"
EMPTY = "configreader.cannot_be_empty"
NOT_S3 = "aws.invalid_s3_path"


def listing(**fields: Any) -> dict[str, Any]:
    return {"item_list": None, "file_path_lister": replace(FILES, **fields)}


def test_a_good_submission_comes_out_as_it_is() -> None:
    queue = DeadLetterQueue(ARN, 3)
    full = replace(GOOD, workers=10_000, timeout_seconds=60, batch_timeout_seconds=5, config_json='{ "a": 1e400 }')
    full = replace(full, dead_letter_queue=queue)
    assert validate(full) == ValidSubmission(10_000, 60, 5, queue, '{ "a": 1e400 }', Options(), 1, "[1,2]", None)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"item_list": None}, "job.specify_exactly_one_key", "exactly one of item_list, file_path_lister, delim"),
        ({"file_path_lister": FILES}, "job.conflicting_fields", "item_list and file_path_lister are given together"),
        ({"item_list": None, "workers": 0}, "job.specify_exactly_one_key", "no input is given"),
        ({"workers": None}, DEFINED, "workers: this key is missing"),
        ({"workers": 0}, LEAST, "workers: 0 must be greater than or equal to 1"),
        ({"workers": -3}, LEAST, "workers: -3 must"),
        ({"workers": 10_001}, MOST, "workers: 10001 must be less than or equal to 10000"),
        ({"timeout_seconds": 0}, LEAST, "timeout: 0 must"),
        ({"timeout_seconds": 2**63 - 1}, MOST, "timeout: 9223372036854775807 must"),
        ({"batch_timeout_seconds": 0}, LEAST, "batch_timeout: 0 must"),
        ({"batch_timeout_seconds": 2**62}, MOST, "batch_timeout: "),
        ({"item_list": ItemList("[1]", None)}, DEFINED, "item_list.batch_size: this key is missing"),
        ({"item_list": ItemList("[1]", 0)}, LEAST, "item_list.batch_size: 0 must"),
        ({"item_list": ItemList("[1]", 2**62)}, MOST, "item_list.batch_size: "),
        ({"dead_letter_queue": DeadLetterQueue("", 1)}, EMPTY, "sqs_dead_letter_queue.arn: "),
        ({"dead_letter_queue": DeadLetterQueue("queue", 1)}, "aws.invalid_sqs_arn", "'queue' is not the ARN of an SQS"),
        ({"dead_letter_queue": DeadLetterQueue(ARN.replace("sqs", "sns"), 1)}, "aws.invalid_sqs_arn", "sns"),
        ({"dead_letter_queue": DeadLetterQueue(ARN, 0)}, LEAST, "sqs_dead_letter_queue.max_receive_count: 0 must"),
        ({"dead_letter_queue": DeadLetterQueue(ARN, 1001)}, MOST, "sqs_dead_letter_queue.max_receive_count: 1001"),
        (listing(s3_paths=()), "configreader.too_few_elements", "file_path_lister.s3_paths: the list is empty"),
        (listing(s3_paths=("s3://b/a", "b/c")), NOT_S3, "file_path_lister.s3_paths[1]: 'b/c' is not an S3 path"),
        (listing(s3_paths=("s3://",)), NOT_S3, "'s3://' is not"),
        (listing(s3_paths=("s3:///key",)), NOT_S3, "'s3:///key' is not"),
        (listing(s3_paths=("s3://bucket",)), NOT_S3, "s3://bucket/ for a whole bucket"),
        (listing(includes=("",)), EMPTY, "file_path_lister.includes[0]: "),
        (listing(excludes=("a", "")), EMPTY, "file_path_lister.excludes[1]: "),
        (listing(batch_size=0), LEAST, "file_path_lister.batch_size: 0 must"),
        (listing(s3_paths=("file://a/b",)), NOT_S3, "file:// and the path"),
        (listing(includes=("[",)), "batchapi.invalid_glob", "file_path_lister.includes[0]"),
        ({"item_list": None, "delimited_files": FILES, "config_json": "{"}, "json.malformed", "config is"),
        ({"config_json": "{"}, "json.malformed", "config is not valid JSON"),
        ({"config_json": "{} {}"}, "json.malformed", "config is not valid JSON"),
        ({"config_json": "NaN"}, "json.malformed", "config is not valid JSON"),
        ({"config_json": '"\ud800"'}, "json.malformed", "config is not valid UTF-8 at byte 1"),
        ({"config_json": "[" * 513 + "]" * 513}, "json.malformed", "config is nested deeper than 512"),
        ({"config_json": '{"a":' * 513 + "1" + "}" * 513}, "json.malformed", "deeper than 512"),
        ({"config_json": "[" * 100_000}, "json.malformed", "deeper than 512"),
    ],
)
def test_each_mistake_is_told_with_its_field(fields: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(CortexError) as caught:
        validate(replace(GOOD, **fields))
    assert (caught.value.kind, caught.value.category) == (kind, Category.INVALID)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        "12345678901234567890",
        '{"a":1.0,"a":1e400}',
        r'"\ud800"',
        r'"\\ud800"',
        "[" * 512 + "]" * 512,
        "[" * 511 + "[],{}" + "]" * 511,
        '"' + "[" * 600 + r"\"" + '"',
        "[" + "[]," * 600 + "0]",
        ' {"deep":"' + r"[\\" * 600 + '"}\n',
    ],
)
def test_config_passes_byte_for_byte(config: str) -> None:
    assert validate(replace(GOOD, config_json=config)).config_json == config


@pytest.mark.parametrize("config", ["", "null", " null\n"])
def test_null_config_means_not_given(config: str) -> None:
    assert validate(replace(GOOD, config_json=config)).config_json == ""


numbers = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2)
files = st.builds(
    FileSelection,
    st.lists(st.text() | st.just("s3://b/k")).map(tuple),
    st.lists(st.text()).map(tuple),
    st.lists(st.text()).map(tuple),
    numbers,
)


@settings(deadline=None)  # other work shares the machine
@given(
    st.builds(
        Submission,
        workers=numbers,
        timeout_seconds=numbers,
        batch_timeout_seconds=numbers,
        dead_letter_queue=st.none() | st.builds(DeadLetterQueue, st.text() | st.just(ARN), st.integers(-1, 9)),
        config_json=st.text() | st.just("{}"),
        item_list=st.none() | st.builds(ItemList, st.text(), numbers),
        file_path_lister=st.none() | files,
        delimited_files=st.none() | files,
    )
)
def test_whatever_is_submitted_is_valid_or_told(submission: Submission) -> None:
    try:
        valid = validate(submission)
    except CortexError as error:
        category = error.category
    else:
        category = Category.INVALID
        assert valid.workers is not None
        assert valid.workers >= 1
        assert valid.batch_size >= 1
    assert category is Category.INVALID
