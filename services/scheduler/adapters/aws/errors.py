"""What AWS and its libraries say, told so that a user knows what to do.

`explained("reading s3://bucket/key")` turns their errors into `CortexError`; the libraries are loaded when one comes up
at the earliest, for only then there is something to explain.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.common.errors import Category, CortexError

_PASSING_CODES = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED_CODES = frozenset({"403", "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden"})
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_S3_RIGHTS = "s3:ListBucket on the bucket and s3:GetObject on its objects (s3:PutObject to write there)"
_CONFIGURE = "start the scheduler with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or with AWS_PROFILE"


@contextmanager
def explained(doing: str, rights: str = _S3_RIGHTS) -> Iterator[None]:
    """Turn what the AWS libraries raise into `CortexError`.

    `doing` says what is done with what, `rights` what one has to be allowed for that.
    """
    try:
        yield
    except CortexError:
        raise
    except Exception as error:
        if (told := explanation(error, doing, rights)) is None:
            raise
        raise told from error


def code_of(error: BaseException) -> tuple[str, int]:
    """The code and the HTTP status that a service answered; empty and 0 for what is not an answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def explanation(error: Exception, doing: str, rights: str) -> CortexError | None:
    """The error to tell; None for what is not AWS's."""
    code, status = code_of(error)
    if code or status:
        return _answered(error, code, status, doing, rights)
    return _raised(error, doing)


def _answered(error: Exception, code: str, status: int, doing: str, rights: str) -> CortexError:
    answer = f"{doing}: the service answered {code or status}: {said(error)}"
    if status >= 500 or status == 429 or code in _PASSING_CODES:
        return CortexError("aws.unavailable", answer, Category.UNAVAILABLE)
    if code == "NoSuchBucket":
        what = "there is no such bucket; check its name, the region and AWS_ENDPOINT_URL"
        return CortexError("aws.no_such_bucket", f"{doing}: {what}")
    if code in _CREDENTIAL_CODES:
        return CortexError("aws.invalid_credentials", f"{answer}; {_CONFIGURE}")
    if code in _DENIED_CODES or status == 403:
        what = f"access is denied; the scheduler's AWS credentials need {rights}: {said(error)}"
        return CortexError("aws.access_denied", f"{doing}: {what}")
    if status in (301, 307):
        return CortexError("aws.wrong_region", f"{answer}; set AWS_REGION to the bucket's region")
    return CortexError("aws.request_refused", answer)


def _raised(error: Exception, doing: str) -> CortexError | None:
    import aiohttp
    import botocore.exceptions as known

    if isinstance(error, known.NoCredentialsError | known.CredentialRetrievalError | known.PartialCredentialsError):
        return CortexError("aws.credentials_not_found", f"{doing}: no AWS credentials: {said(error)}; {_CONFIGURE}")
    if isinstance(error, known.ParamValidationError):
        return CortexError("aws.invalid_s3_path", f"{doing}: {said(error)}")
    if isinstance(
        error, known.HTTPClientError | known.ConnectionError | known.IncompleteReadError | aiohttp.ClientError
    ):
        what = f"cannot be reached: {said(error)}; check the network and AWS_ENDPOINT_URL"
        return CortexError("aws.unreachable", f"{doing}: {what}", Category.UNAVAILABLE)
    if isinstance(error, known.BotoCoreError) or (isinstance(error, ValueError) and "endpoint" in str(error).lower()):
        return CortexError("aws.invalid_configuration", f"{doing}: AWS is not configured well: {said(error)}")
    return None


def said(error: Exception) -> str:
    """What a service answered, or else what went wrong, without a full stop."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return " ".join(str(response.get("Error", {}).get("Message") or error).split()).rstrip(".")
