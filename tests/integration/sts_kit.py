"""A real STS that checks signatures, and requests signed as the Cortex command line signs them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.integration.moto_kit import moto_server

BODY = "Action=GetCallerIdentity&Version=2011-06-15"
ACCOUNT = "123456789012"
"""The one that every user of it belongs to."""


def carried(url: str, credentials: Credentials, **changes: Any) -> str:
    """The header X-Cortex-Authorization: a signed request in the JSON of a Go struct, in base64 without padding."""
    headers = {"Content-Length": str(len(BODY)), "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", url, headers=headers, data=BODY)
    SigV4Auth(credentials, "sts", "us-east-1").add_auth(request)
    signed = {
        "Header": {name: [value] for name, value in request.headers.items()} | {"User-Agent": ["aws-sdk-go/1.40.37"]},
        "URL": url,
        "Method": "POST",
        "Host": urlsplit(url).netloc,
        "Body": BODY,
        "ContentLength": len(BODY),
    }
    return encoded(signed | changes)


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@dataclass(frozen=True)
class Sts:
    """A running one. `user` may sign for its account."""

    url: str
    user: Credentials
    arn: str

    def header(self, credentials: Credentials | None = None) -> Mapping[str, str]:
        return {"X-Cortex-Authorization": carried(f"{self.url}/", credentials or self.user)}


@contextmanager
def sts() -> Iterator[Sts]:
    """moto's server, with one IAM user; whoever else signs is unknown to it."""
    with moto_server() as url:

        def iam(action: str, **fields: str) -> str:
            form = {"Action": action, "UserName": "ann", "Version": "2010-05-08", **fields}
            headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/iam/aws4_request"}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = urllib3.request("POST", url, body=urlencode(form), headers=headers)
            assert answer.status == 200, answer.data
            return answer.data.decode()

        user, everything = iam("CreateUser"), {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam("PutUserPolicy", PolicyName="all", PolicyDocument=policy)
        key = iam("CreateAccessKey")
        urllib3.request("POST", f"{url}/moto-api/reset-auth", body="0")  # from now on it asks who is asking
        credentials = Credentials(_text(key, "AccessKeyId"), _text(key, "SecretAccessKey"))
        yield Sts(url, credentials, _text(user, "Arn"))


def _text(xml: str, element: str) -> str:
    found = re.search(rf"<{element}>([^<]+)</{element}>", xml)
    assert found, xml
    return found[1]
