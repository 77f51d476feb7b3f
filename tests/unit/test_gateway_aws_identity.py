"""Which signed requests go to STS: those for STS, and nothing else."""

from typing import Any

import pytest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import CortexError
from services.gateway.aws_identity import signed_request
from tests.integration.sts_kit import BODY, carried, encoded

USER = Credentials("AKIA", "secret", "session")


@pytest.mark.parametrize(
    "host", ["sts.amazonaws.com", "sts.us-west-2.amazonaws.com", "sts.us-gov-east-1.amazonaws.com", "STS.amazonaws.com"]
)
def test_what_the_command_line_signs_is_sent_as_it_is(host: str) -> None:
    request = signed_request(carried(f"https://{host}/", USER))
    assert (request.url, request.body) == (f"https://{host}/", BODY)
    assert {"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "Content-Type"} <= set(request.headers)
    assert "Host" not in request.headers


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "https://sts.amazonaws.com.evil.example/",
        "https://sts.amazonaws.com@evil.example/",
        "https://evil.example/sts.amazonaws.com",
        "https://sts.s3.amazonaws.com/",  # a bucket
        "https://sts.s3-us-west-2.amazonaws.com/",
        "https://sts.us-west-2.amazonaws.com.cn/",
        "https://xsts.amazonaws.com/",
        "http://sts.amazonaws.com/",
        "https://sts.amazonaws.com:8443/",
        "https://sts.amazonaws.com/x",
        "https://sts.amazonaws.com/?Action=AssumeRole",
        "https://user@sts.amazonaws.com/",
        "https://169.254.169.254/",
        "http://127.0.0.1:8888/",
        "file:///etc/passwd",
        "https://[sts.amazonaws.com/",
        "https://sts.amazonaws.com:99999/",
        "",
    ],
)
def test_other_places_are_refused(url: str) -> None:
    with pytest.raises(CortexError) as caught:
        signed_request(carried("https://sts.amazonaws.com/", USER, URL=url, Host=""))
    assert caught.value.kind == "endpoints.header_malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"Method": "GET"},
        {"Body": "Action=AssumeRole&Version=2011-06-15"},
        {"Body": f"{BODY}&RoleArn=x"},
        {"Body": ""},
        {"Host": "evil.example"},
        {"Header": {}},
        {"Header": {"Authorization": ["a", "b"]}},
        {"Header": {"Authorization": ["a\r\nHost: evil.example"]}},
        {"Header": {"Authorization": []}},
        {"Header": "x"},
        {"URL": 7},
    ],
)
def test_other_requests_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CortexError) as caught:
        signed_request(carried("https://sts.amazonaws.com/", USER, **changes))
    assert caught.value.kind == "endpoints.header_malformed"


def test_a_configured_endpoint_takes_the_place_of_amazons() -> None:
    endpoint = "http://127.0.0.1:4566"
    assert signed_request(carried(f"{endpoint}/", USER), endpoint).url == f"{endpoint}/"
    for other in ("http://127.0.0.1:4567/", "https://127.0.0.1:4566/", "https://sts.amazonaws.com/"):
        with pytest.raises(CortexError):
            signed_request(carried(other, USER), endpoint)


@given(
    st.text()
    | st.from_regex("[A-Za-z0-9_=-]*", fullmatch=True)
    | st.recursive(st.none() | st.text(), st.lists).map(encoded)
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(CortexError) as caught:
        signed_request(text)
    assert caught.value.kind == "endpoints.header_malformed"


def test_deep_json_is_malformed() -> None:
    with pytest.raises(CortexError):
        signed_request(encoded(None)[:0] + "W1tb" * 20_000)
