"""What a submission may ask for beyond Cortex."""

import base64
import math
from typing import Any

import pytest

from services.common.errors import CortexError
from services.scheduler.domain.model.options import (
    DeadLetterQueue,
    Options,
    Results,
    RetryPolicy,
    Webhook,
    WorkerScaling,
)
from services.scheduler.domain.options import AskedOptions, AskedRetries, AskedScaling, check_options, webhook_key
from services.scheduler.domain.submission import ItemList, Submission, validate

QUEUE = DeadLetterQueue("arn:aws:sqs:us-west-2:123456789012:dead", 3)
URL = "https://example.com/jobs?x=1"


def test_what_is_not_asked_for_is_what_cortex_did() -> None:
    assert check_options(AskedOptions(), QUEUE) == Options()


def test_options_come_out_with_their_defaults() -> None:
    asked = AskedOptions(
        retries=AskedRetries(max_attempts=4, on=(503, 500, 503)),
        split_failed=True,
        results=Results("s3://bucket/out"),
        scaling=AskedScaling(100, 8),
        max_failed_percent=2.5,
        queue_name="team-a",
        webhook=Webhook(URL, "hush"),
    )
    assert check_options(asked, None) == Options(
        retries=RetryPolicy(4, 1.0, 60.0, (500, 503)),
        split_failed=True,
        results=Results("s3://bucket/out"),
        scaling=WorkerScaling(100, 8),
        max_failed_percent=2.5,
        queue_name="team-a",
        webhook=Webhook(URL, "hush"),
    )


def test_a_dead_letter_queue_tells_how_often_to_try() -> None:
    options = check_options(AskedOptions(retries=AskedRetries(backoff_seconds=90)), QUEUE)
    assert options.retries == RetryPolicy(3, 90, 90, ())


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"retries": AskedRetries()}, "configreader.must_be_defined", "retries.max_attempts: this key is missing"),
        ({"retries": AskedRetries(0)}, "configreader.must_be_greater_than_or_equal_to", "retries.max_attempts: 0"),
        (
            {"retries": AskedRetries(2, on=(200,))},
            "job.invalid_status",
            "retries.on: 200 is not the status of a failed",
        ),
        ({"retries": AskedRetries(2, on=(1000,))}, "job.invalid_status", "retries.on: 1000"),
        ({"retries": AskedRetries(2, -1.0)}, "job.invalid_seconds", "retries.backoff_seconds: -1 is"),
        ({"retries": AskedRetries(2, 1.0, math.nan)}, "job.invalid_seconds", "retries.max_backoff_seconds: nan"),
        ({"results": Results("bucket/x")}, "aws.invalid_s3_path", "results.s3_path: 'bucket/x' is not a place"),
        ({"scaling": AskedScaling(None, 2)}, "configreader.must_be_defined", "workers.batches_per_worker"),
        ({"scaling": AskedScaling(1, 0)}, "configreader.must_be_greater_than_or_equal_to", "workers.max_workers: 0"),
        ({"queue_name": "Team A"}, "spec.invalid_queue_name", "queue_name: 'Team A'"),
        ({"max_failed_percent": 100.5}, "job.invalid_percent", "max_failed_percent: 100.5"),
        ({"max_failed_percent": math.nan}, "job.invalid_percent", "max_failed_percent: nan"),
        ({"webhook": Webhook("", "s")}, "configreader.must_be_defined", "webhook.url: this key is missing"),
        ({"webhook": Webhook("ftp://x/y", "s")}, "job.invalid_webhook", "webhook.url: 'ftp://x/y'"),
        ({"webhook": Webhook("https:///y", "s")}, "job.invalid_webhook", "webhook.url"),
        ({"webhook": Webhook("http://h:99999/", "s")}, "job.invalid_webhook", "webhook.url"),
        ({"webhook": Webhook("http://user:pw@h/", "s")}, "job.invalid_webhook", "webhook.url"),
        ({"webhook": Webhook(URL, "")}, "configreader.cannot_be_empty", "webhook.secret"),
        ({"webhook": Webhook(URL, "whsec_?")}, "job.invalid_webhook", "webhook.secret"),
    ],
)
def test_a_mistake_is_named_with_its_place(asked: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(CortexError) as caught:
        check_options(AskedOptions(**asked), None)
    assert caught.value.kind == kind
    assert message in caught.value.message


def test_attempts_said_twice_and_differently_are_refused() -> None:
    with pytest.raises(CortexError, match=r"leave retries\.max_attempts out"):
        check_options(AskedOptions(retries=AskedRetries(2)), QUEUE)


@pytest.mark.parametrize(("batches", "workers"), [(0, 1), (1, 1), (100, 1), (101, 2), (799, 8), (800, 8), (10**12, 8)])
def test_workers_follow_the_number_of_batches(batches: int, workers: int) -> None:
    assert WorkerScaling(100, 8).workers(batches) == workers


def test_workers_are_a_number_or_an_object() -> None:
    items, scaling = ItemList("[1]", 1), AskedOptions(scaling=AskedScaling(100, 8))
    assert validate(Submission(None, None, None, None, "", items, None, None, scaling)).workers is None
    with pytest.raises(CortexError, match="workers is given as a number and as an object"):
        validate(Submission(3, None, None, None, "", items, None, None, scaling))


def test_a_secret_signs_with_what_it_stands_for() -> None:
    key = bytes(range(32))
    assert webhook_key(Webhook(URL, "whsec_" + base64.b64encode(key).decode())) == key
    assert webhook_key(Webhook(URL, "hush")) == b"hush"
