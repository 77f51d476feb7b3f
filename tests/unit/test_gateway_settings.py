"""The gateway's environment, and the table of errors."""

import pytest

from services.common.errors import Category, CortexError
from services.common.settings import Environment, SettingsError
from services.gateway import problems, settings
from services.gateway.settings import Address, AwsAuth

SCHEDULER = {"CORTEX_SCHEDULER_ADDRESS": "unix:/run/s.sock"}


def test_the_defaults() -> None:
    found = settings.read(Environment(SCHEDULER))
    assert found.address == Address("127.0.0.1", 8888)
    assert (found.fd, found.unix_socket, found.collector, found.public_url) == (None, None, None, None)
    assert not found.insecure


def test_a_scheduler_is_required() -> None:
    with pytest.raises(SettingsError, match="CORTEX_SCHEDULER_ADDRESS"):
        settings.read(Environment({}))


@pytest.mark.parametrize("text", ["8888", "localhost", "127.0.0.1:", ":8888", "127.0.0.1:99999", "127.0.0.1:8o"])
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="CORTEX_HTTP_ADDRESS must be HOST:PORT"):
        settings.read(Environment(SCHEDULER | {"CORTEX_HTTP_ADDRESS": text}))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "[::]", "example.com"])
def test_strangers_are_served_only_when_that_is_wanted(host: str) -> None:
    variables = SCHEDULER | {"CORTEX_HTTP_ADDRESS": f"{host}:80"}
    with pytest.raises(SettingsError, match="can be reached from other machines"):
        settings.read(Environment(variables))
    assert settings.read(Environment(variables | {"CORTEX_INSECURE": "true"})).insecure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert settings.read(Environment(SCHEDULER | {"CORTEX_HTTP_ADDRESS": f"{host}:0"})).address.is_loopback


def test_urls_are_written_for_both_families() -> None:
    assert Address("127.0.0.1", 80).url == "http://127.0.0.1:80"
    assert Address("::1", 80).url == "http://[::1]:80"


AWS = SCHEDULER | {"CORTEX_AUTH": "aws-iam", "CORTEX_AWS_ACCOUNT_ID": "111122223333"}


def test_clients_are_asked_who_they_are_only_when_that_is_wanted() -> None:
    assert settings.read(Environment(SCHEDULER)).aws_auth is None
    account = frozenset({"111122223333"})
    assert settings.read(Environment(AWS)).aws_auth == AwsAuth(account, (), None)
    more = {
        "CORTEX_AWS_ACCOUNT_ID": "111122223333, 444455556666",
        "CORTEX_AWS_ALLOWED_ARNS": "arn:aws:iam::111122223333:user/ann,arn:aws:sts::*:assumed-role/ops/*",
        "CORTEX_STS_ENDPOINT": "http://127.0.0.1:4566",
    }
    arns = ("arn:aws:iam::111122223333:user/ann", "arn:aws:sts::*:assumed-role/ops/*")
    expected = AwsAuth(account | {"444455556666"}, arns, "http://127.0.0.1:4566")
    assert settings.read(Environment(AWS | more)).aws_auth == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CORTEX_AUTH": "basic"}, "CORTEX_AUTH must be aws-iam"),
        ({"CORTEX_AUTH": ""}, "CORTEX_AWS_ACCOUNT_ID is set, but CORTEX_AUTH is not"),
        ({"CORTEX_AWS_ACCOUNT_ID": ""}, "CORTEX_AWS_ACCOUNT_ID must be 12 digits"),
        ({"CORTEX_AWS_ACCOUNT_ID": "1111-2222-3333"}, "CORTEX_AWS_ACCOUNT_ID must be 12 digits"),
        ({"CORTEX_STS_ENDPOINT": "sts.example.org"}, "CORTEX_STS_ENDPOINT must be a URL"),
        ({"CORTEX_STS_ENDPOINT": "http://a/b"}, "CORTEX_STS_ENDPOINT must be a URL"),
    ],
)
def test_half_a_configuration_of_aws_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.read(Environment(AWS | changes))


@pytest.mark.parametrize(
    ("category", "status"),
    [
        (Category.INVALID, 400),
        (Category.TOO_LARGE, 413),
        (Category.NOT_FOUND, 404),
        (Category.CONFLICT, 400),
        (Category.UNAUTHENTICATED, 401),
        (Category.UNSUPPORTED, 400),
        (Category.STORAGE_FULL, 507),
        (Category.UNAVAILABLE, 503),
        (Category.INTERNAL, 500),
    ],
)
def test_the_table_of_errors(category: Category, status: int) -> None:
    problem = problems.of(CortexError("area.kind", "why", category))
    assert problem.status == status
    assert problem.json() == b'{"kind":"area.kind","message":"why"}'
    assert ("Retry-After" in problem.headers) == (status == 503)


def test_the_table_has_every_category() -> None:
    assert set(problems.HTTP_STATUS_OF_CATEGORY) == set(Category)
